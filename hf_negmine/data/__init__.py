"""Texts: opening what users have, and laying out and writing what they get."""

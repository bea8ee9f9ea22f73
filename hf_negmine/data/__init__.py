"""Texts: what users have, opened; what they get, laid out and written."""

"""Rows of training sets that hold negatives, in the formats of several tools, read and written by one interface."""

from __future__ import annotations

from hf_negmine.data.formats.finding import FORMATS, format_of, names_of_formats, recognized_format
from hf_negmine.data.formats.labelled import LabelledTexts, RowFormat

__all__ = ["FORMATS", "LabelledTexts", "RowFormat", "format_of", "names_of_formats", "recognized_format"]

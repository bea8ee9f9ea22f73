"""A page to look at mined negatives: one file that opens from disk, or served for pools of any size."""

from __future__ import annotations

from hf_negmine.page.content import Shown
from hf_negmine.page.writing import write_report

__all__ = ["Shown", "write_report"]

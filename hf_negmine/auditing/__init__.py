"""Rows that have negatives already: which of them a miner would not have taken, and why; and their repair."""

from __future__ import annotations

from hf_negmine.auditing.examining import audit
from hf_negmine.auditing.repairing import Repaired
from hf_negmine.auditing.result import Audit, check_suffix

__all__ = ["Audit", "Repaired", "audit", "check_suffix"]

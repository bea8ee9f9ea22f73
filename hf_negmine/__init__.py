"""Positive-aware hard negatives for retrieval training sets (NV-Retriever, arXiv 2407.15831).

The names below are loaded when they are first used: ``import hf_negmine`` itself does not load torch.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_negmine.auditing import Audit, Repaired, audit
    from hf_negmine.base.errors import (
        ColumnError,
        DamagedError,
        ExhaustedError,
        FrozenError,
        InputError,
        NegmineError,
        NotFittedError,
        ShallowPoolError,
        StorageError,
        TeacherError,
    )
    from hf_negmine.base.protocols import (
        PairTeacher,
        ScoringTeacher,
        SparseTeacher,
        Teacher,
        TokenTeacher,
        VectorTeacher,
    )
    from hf_negmine.config import MiningConfig
    from hf_negmine.data.sources.passage_ids import with_ids
    from hf_negmine.drop_in import mine_hard_negatives
    from hf_negmine.hub import HubError, load_mined, prepare_card, push_dataset, push_model, reproduce
    from hf_negmine.miner import NegativeMiner
    from hf_negmine.page import write_report
    from hf_negmine.pool import CandidatePool
    from hf_negmine.pool.beir_writing import write_hard_subset
    from hf_negmine.pool.ensemble_pool import EnsemblePool
    from hf_negmine.report.summary import MiningSummary
    from hf_negmine.report.sweep import Sweep
    from hf_negmine.report.swept_setting import SweptSetting
    from hf_negmine.select import Mixed, Sampled, Selection, SimANS, Top, Top1Sampled
    from hf_negmine.select.chat_judge import ChatJudge
    from hf_negmine.select.ensembles import CrossSample, IntraSample
    from hf_negmine.select.filters import Consistency, NearDuplicates, Veto, Where, other_value, same_value
    from hf_negmine.select.judge import Judge
    from hf_negmine.select.judge_models import FunctionJudge, ScoreJudge
    from hf_negmine.select.judgements import Judgements
    from hf_negmine.select.methods import (
        Method,
        NaiveTopK,
        RankBand,
        ScoreFloor,
        TopKAbs,
        TopKMarginPos,
        TopKPercentile,
        TopKPercPos,
        TopKShifted,
    )
    from hf_negmine.teachers import (
        APITeacher,
        ApproximateTeacher,
        BM25Teacher,
        CrossEncoderTeacher,
        DenseTeacher,
        EncodeFunction,
        FixedTeacher,
        Fusion,
        LateInteractionTeacher,
        RandomTeacher,
        ScoreFunction,
        SparseEncoderTeacher,
    )
    from hf_negmine.train import (
        CachedPositiveAwareMNRL,
        HardNegativeCollator,
        PositiveAwareMNRL,
        RemineCallback,
        trainer_arguments,
    )
    from hf_negmine.trial import Trial, TriedSetting, try_settings

_HOMES = {
    "drop_in": ("mine_hard_negatives",),
    "pool.ensemble_pool": ("EnsemblePool",),
    "base.errors": (
        "ColumnError",
        "DamagedError",
        "ExhaustedError",
        "FrozenError",
        "InputError",
        "NegmineError",
        "NotFittedError",
        "ShallowPoolError",
        "StorageError",
        "TeacherError",
    ),
    "config": ("MiningConfig",),
    "hub": ("HubError", "load_mined", "prepare_card", "push_dataset", "push_model", "reproduce"),
    "select.chat_judge": ("ChatJudge",),
    "select.judge_models": ("FunctionJudge", "ScoreJudge"),
    "select.judge": ("Judge",),
    "select.judgements": ("Judgements",),
    "select.methods": (
        "Method",
        "NaiveTopK",
        "RankBand",
        "ScoreFloor",
        "TopKAbs",
        "TopKMarginPos",
        "TopKPercPos",
        "TopKPercentile",
        "TopKShifted",
    ),
    "auditing": ("Audit", "Repaired", "audit"),
    "page": ("write_report",),
    "miner": ("NegativeMiner",),
    "trial": ("Trial", "TriedSetting", "try_settings"),
    "pool": ("CandidatePool",),
    "pool.beir_writing": ("write_hard_subset",),
    "data.sources.passage_ids": ("with_ids",),
    "base.protocols": ("PairTeacher", "ScoringTeacher", "SparseTeacher", "Teacher", "TokenTeacher", "VectorTeacher"),
    "select": ("Mixed", "Sampled", "Selection", "SimANS", "Top", "Top1Sampled"),
    "select.ensembles": ("CrossSample", "IntraSample"),
    "select.filters": ("Consistency", "NearDuplicates", "Veto", "Where", "other_value", "same_value"),
    "report.summary": ("MiningSummary",),
    "report.sweep": ("Sweep",),
    "report.swept_setting": ("SweptSetting",),
    "teachers": (
        "APITeacher",
        "ApproximateTeacher",
        "BM25Teacher",
        "CrossEncoderTeacher",
        "DenseTeacher",
        "EncodeFunction",
        "FixedTeacher",
        "Fusion",
        "LateInteractionTeacher",
        "RandomTeacher",
        "ScoreFunction",
        "SparseEncoderTeacher",
    ),
    "train": (
        "CachedPositiveAwareMNRL",
        "HardNegativeCollator",
        "PositiveAwareMNRL",
        "RemineCallback",
        "trainer_arguments",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "APITeacher",
    "ApproximateTeacher",
    "Audit",
    "BM25Teacher",
    "CachedPositiveAwareMNRL",
    "CandidatePool",
    "ChatJudge",
    "ColumnError",
    "Consistency",
    "CrossEncoderTeacher",
    "CrossSample",
    "DamagedError",
    "DenseTeacher",
    "EncodeFunction",
    "EnsemblePool",
    "ExhaustedError",
    "FixedTeacher",
    "FrozenError",
    "FunctionJudge",
    "Fusion",
    "HardNegativeCollator",
    "HubError",
    "InputError",
    "IntraSample",
    "Judge",
    "Judgements",
    "LateInteractionTeacher",
    "Method",
    "MiningConfig",
    "MiningSummary",
    "Mixed",
    "NaiveTopK",
    "NearDuplicates",
    "NegativeMiner",
    "NegmineError",
    "NotFittedError",
    "PairTeacher",
    "PositiveAwareMNRL",
    "RandomTeacher",
    "RankBand",
    "RemineCallback",
    "Repaired",
    "Sampled",
    "ScoreFloor",
    "ScoreFunction",
    "ScoreJudge",
    "ScoringTeacher",
    "Selection",
    "ShallowPoolError",
    "SimANS",
    "SparseEncoderTeacher",
    "SparseTeacher",
    "StorageError",
    "Sweep",
    "SweptSetting",
    "Teacher",
    "TeacherError",
    "TokenTeacher",
    "Top",
    "Top1Sampled",
    "TopKAbs",
    "TopKMarginPos",
    "TopKPercPos",
    "TopKPercentile",
    "TopKShifted",
    "Trial",
    "TriedSetting",
    "VectorTeacher",
    "Veto",
    "Where",
    "audit",
    "load_mined",
    "mine_hard_negatives",
    "other_value",
    "prepare_card",
    "push_dataset",
    "push_model",
    "reproduce",
    "same_value",
    "trainer_arguments",
    "try_settings",
    "with_ids",
    "write_hard_subset",
    "write_report",
]

try:
    __version__ = version("hf_negmine")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0"


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'hf_negmine' has no attribute {name!r}")
    return getattr(importlib.import_module(f"hf_negmine.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""SCORES -> METRICS, with NumPy only. Modules are imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shortlist.evaluation.cross_validation import summarize_folds
    from shortlist.evaluation.evaluate import (
        Comparison,
        RankingReport,
        compare,
        evaluate_rankings,
    )
    from shortlist.evaluation.leaderboard import open_evaluations, rank_runs
    from shortlist.evaluation.metrics.rankings import build_csr, popularity_ranking
    from shortlist.evaluation.options import EvaluationOptions
    from shortlist.evaluation.report import evaluate_pipeline, ranking_metrics
    from shortlist.evaluation.user_values import Evaluation

__all__ = [
    "Comparison",
    "Evaluation",
    "EvaluationOptions",
    "RankingReport",
    "build_csr",
    "compare",
    "evaluate_pipeline",
    "evaluate_rankings",
    "open_evaluations",
    "popularity_ranking",
    "rank_runs",
    "ranking_metrics",
    "summarize_folds",
]

_MODULES = {
    "Comparison": "evaluate",
    "Evaluation": "user_values",
    "EvaluationOptions": "options",
    "RankingReport": "evaluate",
    "build_csr": "metrics.rankings",
    "compare": "evaluate",
    "evaluate_pipeline": "report",
    "evaluate_rankings": "evaluate",
    "open_evaluations": "leaderboard",
    "popularity_ranking": "metrics.rankings",
    "rank_runs": "leaderboard",
    "ranking_metrics": "report",
    "summarize_folds": "cross_validation",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    return getattr(module, name)

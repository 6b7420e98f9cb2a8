"""SCORES -> METRICS. NumPy only: knows no Keras."""

from shortlist.evaluation.cross_validation import summarize_folds
from shortlist.evaluation.evaluate import (
    Comparison,
    RankingReport,
    compare,
    evaluate_rankings,
)
from shortlist.evaluation.leaderboard import open_evaluations, rank_runs
from shortlist.evaluation.metrics.rankings import build_csr, popularity_ranking
from shortlist.evaluation.report import (
    evaluate_pipeline,
    measure_pipeline,
    ranking_metrics,
)
from shortlist.evaluation.user_values import Evaluation

__all__ = [
    "Comparison",
    "Evaluation",
    "RankingReport",
    "build_csr",
    "compare",
    "evaluate_pipeline",
    "evaluate_rankings",
    "measure_pipeline",
    "open_evaluations",
    "popularity_ranking",
    "rank_runs",
    "ranking_metrics",
    "summarize_folds",
]

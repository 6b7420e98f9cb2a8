"""SCORES -> METRICS. NumPy only: knows no Keras."""

from shortlist.evaluation.evaluate import (
    Comparison,
    RankingReport,
    compare,
    evaluate_rankings,
)
from shortlist.evaluation.rankings import build_csr, popularity_ranking
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
    "popularity_ranking",
    "ranking_metrics",
]

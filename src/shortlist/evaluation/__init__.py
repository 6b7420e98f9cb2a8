"""SCORES -> METRICS. NumPy only: knows no Keras."""

from shortlist.evaluation.evaluate import (
    Comparison,
    RankingReport,
    compare,
    evaluate_rankings,
)
from shortlist.evaluation.rankings import build_csr, popularity_ranking
from shortlist.evaluation.report import evaluate_pipeline, ranking_metrics

__all__ = [
    "Comparison",
    "RankingReport",
    "build_csr",
    "compare",
    "evaluate_pipeline",
    "evaluate_rankings",
    "popularity_ranking",
    "ranking_metrics",
]

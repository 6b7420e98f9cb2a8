"""Runs as files, without any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shortlist.training.runs.run import Run, RunInfo, write_json

RECIPE = {"name": "shop", "seed": 3}


def write_run(path: Path, second: int = 0, score: float = 0.5, **others: Any) -> Run:
    """A run directory; later in the minute, and as good, as asked."""
    info = RunInfo(
        created_at=f"2026-01-02T03:04:{second:02}+00:00",
        **{
            "dataset": "/data",
            "dataset_fingerprint": "0123456789abcdef",
            "backend": "jax",
            "retrieval_history": 10,
            "validation": {"retrieval": {"ndcg@10": score}},
            "seconds": {"total": 2.5},
            **others,
        },
    )
    write_json(path / "run.json", info)
    write_json(path / "recipe.json", RECIPE)
    (path / "retrieval").mkdir(exist_ok=True)
    (path / "retrieval" / "weights").write_bytes(b"weights")
    return Run.open(path)

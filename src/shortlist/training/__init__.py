"""DATASET + MODEL -> RUN. `train` and `load_pipeline` load Keras when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from shortlist.backend import choose_backend
from shortlist.training.runs import Run

if TYPE_CHECKING:
    from shortlist.training.fit import load_pipeline, train

__all__ = ["Run", "load_pipeline", "train"]

choose_backend()


def __getattr__(name: str) -> Any:
    if name not in ("load_pipeline", "train"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.fit"), name)

"""DATASET + MODEL -> RUN. What needs Keras or a framework is loaded when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from shortlist.backend import choose_backend
from shortlist.training.runs.run import Run

if TYPE_CHECKING:
    from shortlist.training.batches.keras_batches import Batches, generate
    from shortlist.training.batches.tensorflow_batches import (
        to_tf_dataset as to_tf_dataset,
    )
    from shortlist.training.batches.torch_batches import to_torch as to_torch
    from shortlist.training.fit import fast_dev_run, train
    from shortlist.training.load import load_pipeline
    from shortlist.training.options import TrainOptions
    from shortlist.training.runs.run_store import RunStore
    from shortlist.training.search.tuning import tune as tune

# Without to_tf_dataset, to_torch and tune: `import *` must not need every extra.
__all__ = [
    "Batches",
    "Run",
    "RunStore",
    "TrainOptions",
    "fast_dev_run",
    "generate",
    "load_pipeline",
    "train",
]

_MODULES = {
    "Batches": "batches.keras_batches",
    "RunStore": "runs.run_store",
    "TrainOptions": "options",
    "fast_dev_run": "fit",
    "generate": "batches.keras_batches",
    "load_pipeline": "load",
    "to_tf_dataset": "batches.tensorflow_batches",
    "to_torch": "batches.torch_batches",
    "train": "fit",
    "tune": "search.tuning",
}

choose_backend()


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    return getattr(module, name)

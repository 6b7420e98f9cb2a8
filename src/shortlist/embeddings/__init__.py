"""IDS -> VECTORS.

The names of this package load Keras, so they resolve on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

from shortlist.backend import choose_backend

__all__ = [
    "Adam",
    "DistributedEmbedding",
    "FeatureConfig",
    "FeatureEmbedding",
    "Jagged",
    "RaiseFaults",
    "RowwiseAdagrad",
    "TableCheckpoint",
    "TableConfig",
    "load_model",
    "load_weights",
    "save_model",
    "save_weights",
]

_MODULES = {
    "Adam": "optimizers",
    "DistributedEmbedding": "layer",
    "FeatureConfig": "config",
    "FeatureEmbedding": "features",
    "Jagged": "ids.lookup_ids",
    "RaiseFaults": "storage.callbacks",
    "RowwiseAdagrad": "optimizers",
    "TableCheckpoint": "storage.callbacks",
    "TableConfig": "config",
    "load_model": "storage.saving",
    "load_weights": "storage.saving",
    "save_model": "storage.saving",
    "save_weights": "storage.saving",
}

choose_backend()


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        module = importlib.import_module(f"shortlist.embeddings.{_MODULES[name]}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

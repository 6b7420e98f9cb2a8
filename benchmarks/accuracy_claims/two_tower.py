"""The two-tower model of the table, trained as a user of the package trains one.

Keras is loaded here; the parts that need no two-tower model do without it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np

from accuracy_claims import protocol
from shortlist.data import Dataset
from shortlist.models.scorers import KnownItems, Queries, Scorer, best_items
from shortlist.recipe import Recipe
from shortlist.training import load_pipeline, train

FIXED = {
    "history_from": "others",
    # More than anyone has: a user's vector is made from everything known.
    "history_length": 400,
}
"""What the protocol asks for: a random split has no before and after."""

SCHEDULE = {"schedule": "linear", "checkpoint_minutes": 0}


def as_dataset(
    train_part: protocol.Log,
    test: protocol.Log,
    folder: Path,
    settings: Mapping[str, Any],
) -> Dataset:
    """The dataset whose events weigh what the settings say."""
    folder.mkdir(exist_ok=True)
    return protocol.as_dataset(
        train_part, test, folder, weight_alpha=settings["weight_alpha"]
    )


def fit(
    dataset: Dataset,
    settings: Mapping[str, Any],
    folder: Path,
    seed: int,
    training: Mapping[str, Any] | None = None,
) -> Scorer:
    """A run of `train`; there is no validation part, so all epochs are trained.

    Args:
        dataset: of `as_dataset`.
        settings: those of the model that are tuned.
        folder: where the run goes.
        seed: of the run.
        training: further fields of `[training]`.
    """
    options = {k: v for k, v in settings.items() if k != "weight_alpha"}
    recipe = Recipe.model_validate(
        {
            "seed": seed,
            "log": {"events": "train.parquet"},
            "columns": dataset.schema,
            "retrieval": {**FIXED, **options},
            "ranker": {"enabled": False},
            "training": {**SCHEDULE, **(training or {})},
        }
    )
    run = train(
        dataset,
        folder / f"run-{seed}",
        recipe,
        validate=_no_validation,
        overwrite=True,
        quiet=True,
    )
    return load_pipeline(run, dataset).retrieval


def known_items(dataset: Dataset) -> Queries:
    """What everybody is known to have taken."""
    users = np.arange(1, dataset.num_users, dtype=np.int32)
    return KnownItems(dataset, ("train",)).of(users)


def ranked_items(member: Scorer, dataset: Dataset) -> np.ndarray:
    """External ids of each user's ten best unseen items, `(num_users, 10)`."""
    known = known_items(dataset)
    scores = member.score_all(known)
    _, rows = best_items(scores, protocol.K, (known.offsets, known.items))
    return dataset.vocabularies["item"].ids.fill_null(0).to_numpy()[rows]


def _no_validation(*_: Any) -> dict[str, float]:
    raise AssertionError("there is no validation part")

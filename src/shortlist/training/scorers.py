"""Fitting of scorers and blends, and the retrieval model in the files of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.data.store.dataset import Dataset
from shortlist.models.scorers.blend import Blend
from shortlist.models.scorers.scorer import Scorer
from shortlist.models.scorers.storage import (
    CONFIG_FILE,
    SCORERS,
    load_scorer,
    make_scorer,
    save_scorer,
    towers_in,
)
from shortlist.models.scorers.vectors import TWO_TOWER
from shortlist.models.tower_scorer import TowerScorer, keras_towers
from shortlist.models.two_tower import TwoTower
from shortlist.recipe import RetrievalSection
from shortlist.training.job import MONITOR, Job
from shortlist.training.runs.checkpoint import load_model, save_model

TrainTower = Callable[[Job], tuple[TowerScorer, int]]


def fit_scorer(job: Job, train_tower: TrainTower) -> tuple[Scorer, int]:
    """Fits the scorer of the recipe, and the weights of a blend by validation.

    Returns: the scorer, and the epochs of a two-tower member, else 0.
    """
    section, seed = job.recipe.retrieval, job.recipe.seed
    if section.kind != Blend.kind:
        return make_scorer(section.kind, options(section, section.kind, seed)).fit(
            job.dataset
        ), 0
    # Scorers first: an error of theirs should not come after hours of the tower.
    members: dict[str, Scorer] = {
        kind: make_scorer(kind, options(section, kind, seed)).fit(job.dataset)
        for kind in section.blend.members
        if kind != TWO_TOWER
    }
    epochs = 0
    if TWO_TOWER in section.blend.members:
        members[TWO_TOWER], epochs = train_tower(job)
    blend = Blend.of_members(
        {kind: members[kind] for kind in section.blend.members},
        dict.fromkeys(members, 1.0),
        job.dataset.item_counts("train").astype(np.float32),
    )
    if len(job.validation_users):

        def quality(users: np.ndarray, ranked: np.ndarray) -> float:
            return job.validate(job.dataset, users, ranked, "validation")[MONITOR]

        blend.fit_weights(
            job.dataset, job.validation_users, quality, repeats=job.repeats
        )
    return blend, epochs


def options(section: RetrievalSection, kind: str, seed: int) -> dict[str, Any]:
    """Constructor arguments of a scorer: its section of the recipe, and the seed."""
    given: dict[str, Any] = getattr(section, kind).model_dump()
    return given | ({"seed": seed} if SCORERS[kind].is_seeded else {})


def save_retrieval(path: Path, retrieval: Scorer) -> None:
    """Writes the retrieval model of a run.

    A two-tower model is a checkpoint of Keras at `path`. Another scorer is saved there
    itself, and the two-tower member of a blend in a folder inside.
    """
    towers = keras_towers(retrieval)
    if retrieval.kind == TWO_TOWER:
        save_model(path, towers[TWO_TOWER].model)
        return
    save_scorer(path, retrieval)
    for name, tower in towers.items():
        save_model(path / name, tower.model)


def load_retrieval(path: Path, dataset: Dataset, history: int) -> Scorer:
    """Reads what `save_retrieval` wrote.

    Args:
        path: folder of the retrieval model.
        dataset: the one it was trained on.
        history: history length of a two-tower model.

    Raises:
        ArtifactError: it is missing or damaged (`checkpoint-unreadable`).
    """

    def tower(folder: Path) -> TowerScorer:
        return TowerScorer(load_model(folder, TwoTower), dataset, history)

    if not (path / CONFIG_FILE).is_file():
        return tower(path)
    return load_scorer(path, {name: tower(path / name) for name in towers_in(path)})

"""Fitting of scorers and blends, and the retrieval model of a run on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.data.store.dataset import Dataset
from shortlist.models.pipeline import Pipeline
from shortlist.models.scorers.blend import Blend, Member
from shortlist.models.scorers.scorer import Scorer
from shortlist.models.scorers.storage import (
    CONFIG_FILE,
    TWO_TOWER,
    load_scorer,
    make_scorer,
    members_of,
    save_scorer,
)
from shortlist.models.tower_member import TowerMember
from shortlist.models.two_tower import TwoTower
from shortlist.recipe import RetrievalSection
from shortlist.training.job import MONITOR, Job
from shortlist.training.runs.checkpoint import load_model, save_model

SEEDED = ("als", "burst_als", "factorization")

TrainTower = Callable[[Job], tuple[TwoTower, int]]


def fit_scorer(job: Job, train_tower: TrainTower) -> tuple[Scorer, int]:
    """Fits the scorer of the recipe; weights of a blend on the validation part.

    Returns: the scorer, and the epochs of a two-tower member, else 0.
    """
    section, seed = job.recipe.retrieval, job.recipe.seed
    if section.kind != Blend.kind:
        return make_scorer(section.kind, options(section, section.kind, seed)).fit(
            job.dataset
        ), 0
    # Scorers first: what they refuse must not be told after hours of the tower.
    members: dict[str, Member] = {
        kind: make_scorer(kind, options(section, kind, seed)).fit(job.dataset)
        for kind in section.blend.members
        if kind != TWO_TOWER
    }
    epochs = 0
    if TWO_TOWER in section.blend.members:
        tower, epochs = train_tower(job)
        members[TWO_TOWER] = TowerMember(job.pipeline(tower, None, 0.0))
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
    return given | ({"seed": seed} if kind in SEEDED else {})


def save_retrieval(path: Path, retrieval: TwoTower | Scorer) -> None:
    """Writes the retrieval model of a run; the tower of a blend lies inside."""
    if not isinstance(retrieval, Scorer):
        save_model(path, retrieval)
        return
    save_scorer(path, retrieval)
    for name, member in getattr(retrieval, "members", {}).items():
        if isinstance(member, TowerMember):
            save_model(path / name, member.model)


def load_retrieval(path: Path, dataset: Dataset, history: int) -> TwoTower | Scorer:
    """Reads what `save_retrieval` wrote.

    Raises:
        ArtifactError: it is missing or damaged (`checkpoint-unreadable`).
    """
    if not (path / CONFIG_FILE).is_file():
        return load_model(path, TwoTower)
    towers = {
        name: TowerMember(
            Pipeline(
                dataset, load_model(path / name, TwoTower), retrieval_history=history
            )
        )
        for name, kind in members_of(path).items()
        if kind == TWO_TOWER
    }
    return load_scorer(path, towers)

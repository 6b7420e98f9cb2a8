"""One training job: what the models of a run share.

Holds the dataset, the recipe and the run's folder, but nothing of a model's loss.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from shortlist.data.load.examples import TrainingExamples
from shortlist.data.load.loader import Loader
from shortlist.data.load.negatives import Negatives
from shortlist.data.load.options import ExampleOptions
from shortlist.data.store.dataset import Dataset
from shortlist.embeddings.inputs import Input, model_inputs
from shortlist.evaluation.metrics.rankings import popularity_ranking
from shortlist.evaluation.report import ranking_metrics
from shortlist.models.multitask import MultiTask
from shortlist.models.pipeline import Pipeline
from shortlist.models.ranker import Ranker
from shortlist.models.scorers.popularity import Popularity
from shortlist.models.scorers.scorer import Scorer
from shortlist.models.scorers.search import nothing_seen
from shortlist.recipe import RankerSection, Recipe, RetrievalSection
from shortlist.training.batches.keras_batches import Batches
from shortlist.training.held_out import measurable_users
from shortlist.training.loop.optimization import (
    Optimization,
    check_updates,
    optimization,
)
from shortlist.training.resources.profile import Profile
from shortlist.training.runs.unfinished import Unfinished

if TYPE_CHECKING:
    from shortlist.training.options import CallbackFactory

# Metrics of ranked item rows `(n, k)` of users `(n,)` against a part's events. With
# `evaluation.repeats` it is called with `repeats=True`.
Validate = Callable[..., dict[str, float]]

MONITOR = "ndcg@10"
VALIDATION_K = 10


def validator(validate: Validate, *, repeats: bool) -> Validate:
    """`validate`, with seen items counted if the recipe has `repeats`."""
    return functools.partial(validate, repeats=True) if repeats else validate


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """What observes a training.

    Args:
        quiet: show no progress.
        callbacks: make Keras callbacks for the fit of each model.
        profile: records the time of every step.
    """

    quiet: bool = False
    callbacks: Sequence[CallbackFactory] = ()
    profile: Profile | None = None


class Job:
    """One training job.

    Args:
        unfinished: what is finished already, and where the files of the run go.
        dataset: what is trained on.
        recipe: hyper-parameters and seed.
        validate: metrics of recommendations on the validation part.
        monitoring: progress, callbacks and profile.
        steps: batches per epoch and per validation; `None` for all.
    """

    def __init__(
        self,
        unfinished: Unfinished,
        dataset: Dataset,
        recipe: Recipe,
        validate: Validate,
        monitoring: Monitoring,
        steps: int | None = None,
    ) -> None:
        self.unfinished = unfinished
        self.folder = unfinished.run_folder
        self.dataset = dataset
        self.recipe = recipe
        self.repeats = recipe.evaluation.repeats
        self.validate = validator(validate, repeats=self.repeats)
        self.quiet = monitoring.quiet
        self.factories = monitoring.callbacks
        self.profile = monitoring.profile
        self.steps = steps
        self.notes: dict[str, str] = {}
        """How the training of each model ended, as text."""
        self.validation_users = measurable_users(dataset, repeats=self.repeats)
        if steps is not None:
            few = steps * recipe.retrieval.batch_size
            self.validation_users = self.validation_users[:few]

    def callbacks(self, stage: str) -> list[keras.callbacks.Callback]:
        """The callbacks of `monitoring` for the fit of a model."""
        return [c for make in self.factories for c in make(stage, self.folder)]

    def pipeline(
        self,
        retrieval: Scorer,
        ranker: Ranker | MultiTask | None,
        weight: float,
    ) -> Pipeline:
        """The models as they are served."""
        return Pipeline(
            self.dataset,
            retrieval,
            ranker,
            ranker_history=self.recipe.ranker.history_length,
            ranker_weight=weight,
            candidates=self.recipe.ranker.candidates,
            repeats=self.repeats,
        )

    def measure(self, pipeline: Pipeline) -> dict[str, float]:
        """Metrics of the pipeline on the validation part."""
        if not len(self.validation_users):
            return {}
        _, items = pipeline.recommend(
            self.validation_users, VALIDATION_K, parts=("train",)
        )
        return self.validate(self.dataset, self.validation_users, items, "validation")

    @functools.cached_property
    def popularity(self) -> dict[str, float]:
        """Metrics of popularity on the validation part, for the same users."""
        if not len(self.validation_users):
            return {}
        known, users = ("train",), self.validation_users
        seen = (
            nothing_seen(len(users))
            if self.repeats
            else self.dataset.histories(*known).seen(users)
        )
        counts = Popularity().fit(self.dataset, known).counts
        length = min(VALIDATION_K, self.dataset.num_items - 1)
        ranked = np.full((len(users), VALIDATION_K), -1, np.int32)
        ranked[:, :length] = popularity_ranking(counts, seen, length)
        return ranking_metrics(
            self.dataset, users, ranked, "validation", repeats=self.repeats
        )

    def inputs(
        self, section: RetrievalSection | RankerSection, *, as_sequence: bool = False
    ) -> tuple[Input, ...]:
        """The inputs of a model."""
        return model_inputs(
            self.dataset.schema,
            embedding_dim=section.embedding_dim,
            feature_dim=section.feature_dim,
            history_length=section.history_length,
            as_sequence=as_sequence,
        )

    def loader(
        self,
        section: RetrievalSection | RankerSection,
        *,
        seed: int,
        negatives: Negatives | None = None,
        interactions_only: bool = False,
        keep_label: bool = False,
    ) -> Loader:
        """Batches of the training part, or of its new days."""
        histories: dict[str, Any] = (
            {
                "history_from": section.history_from,
                "history_dropout": section.history_dropout,
                "unknown_within": section.unknown_within,
            }
            if isinstance(section, RetrievalSection)
            else {}
        )
        options = ExampleOptions(
            history_length=section.history_length,
            interactions_only=interactions_only,
            unknown_rate=section.unknown_rate,
            negatives=negatives,
            keep_label=keep_label,
            **histories,
        )
        files = self.unfinished.state.new_files or None
        examples = TrainingExamples(self.dataset, options=options, files=files)
        return Loader(examples, batch_size=section.batch_size, seed=seed)

    def optimization(
        self, section: RetrievalSection | RankerSection, batches: Batches
    ) -> Optimization:
        """The optimizers of a stage that is trained on these batches.

        Raises:
            InputError: `training-too-short`.
        """
        if self.steps is None:
            stage = "retrieval" if isinstance(section, RetrievalSection) else "ranker"
            count = len(batches.loader)
            check_updates(self.recipe.training, stage, count, section.epochs)
        total = len(batches.loader) * section.epochs
        return optimization(self.recipe.training, section.learning_rate, total)

"""DATASET + MODEL -> RUN: stock `fit` with early stopping on the validation part."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from shortlist.atomic import atomic_directory, check_absent
from shortlist.data.dataset import Dataset
from shortlist.data.loader import Loader
from shortlist.data.negatives import Negatives
from shortlist.data.rows import TrainingRows
from shortlist.data.schema import USER
from shortlist.embeddings.checkpoint import TableCheckpoint
from shortlist.embeddings.inputs import model_inputs
from shortlist.errors import InputError
from shortlist.models.pipeline import Pipeline, combine
from shortlist.models.ranker import Ranker
from shortlist.models.two_tower import TwoTower
from shortlist.recipe import RankerSection, Recipe, RetrievalSection
from shortlist.training.batches import Batches
from shortlist.training.callbacks import (
    EpochReport,
    RankingValidation,
    StopOnNotFinite,
    check_weights_finite,
)
from shortlist.training.checkpoint import load_model, save_model
from shortlist.training.runs import RUN_FILE, Run, RunInfo, environment, now, write_json

# Metrics of ranked item rows `(n, k)` of users `(n,)` against a part's events.
Validate = Callable[[Dataset, np.ndarray, np.ndarray, str], dict[str, float]]

MONITOR = "ndcg@10"
VALIDATION_K = 10
UNTRIED_WEIGHT = 0.0
"""Weight of the ranker where there is nothing to choose it on."""


def train(
    dataset: Dataset,
    out: str | Path,
    recipe: Recipe,
    *,
    validate: Validate,
    overwrite: bool = False,
    quiet: bool = False,
) -> Run:
    """Trains retrieval and ranking and writes a run directory.

    Args:
        dataset: a prepared dataset.
        out: the run directory; must not exist unless `overwrite`.
        recipe: hyper-parameters and seed.
        validate: metrics of recommendations on the validation part; must return
            `ndcg@10`. `shortlist.evaluation.ranking_metrics` is the one to pass.
        overwrite: replace an existing run.
        quiet: show no progress.

    Raises:
        InputError: the dataset holds nothing to train on, or `out` exists.
        ResourceError: the run cannot be written.
    """
    out = Path(out)
    check_absent(out, overwrite=overwrite, marker=RUN_FILE)
    _check_parts(dataset, recipe)
    with atomic_directory(out, overwrite=overwrite, marker=RUN_FILE) as folder:
        _train_into(folder, dataset, recipe, validate, quiet)
    return Run.open(out)


def load_pipeline(run: Run, dataset: Dataset) -> Pipeline:
    """The trained models of a run over its dataset, ready to recommend."""
    run.check_dataset(dataset.info.fingerprint)
    retrieval = load_model(run.path / "retrieval", TwoTower)
    ranker = None
    if (run.path / "ranker").is_dir():
        ranker = load_model(run.path / "ranker", Ranker)
    return Pipeline(
        dataset,
        retrieval,
        ranker,
        retrieval_history=run.info.retrieval_history,
        ranker_history=run.info.ranker_history,
        ranker_weight=run.info.ranker_weight,
        candidates=run.info.candidates,
    )


def _train_into(
    folder: Path, dataset: Dataset, recipe: Recipe, validate: Validate, quiet: bool
) -> None:
    started = time.perf_counter()
    keras.utils.set_random_seed(recipe.seed)
    write_json(folder / "recipe.json", recipe.to_builtins())
    (folder / "schema.json").write_bytes(dataset.schema.to_json())
    write_json(folder / "environment.json", environment(keras.backend.backend()))
    trainer = _Trainer(folder, dataset, recipe, validate, quiet)
    retrieval, retrieval_epochs = trainer.retrieval()
    save_model(folder / "retrieval", retrieval)
    retrieval_seconds = time.perf_counter() - started
    pipeline = trainer.pipeline(retrieval, None, 0.0)
    epochs = {"retrieval": retrieval_epochs}
    validation: dict[str, Any] = {"retrieval": trainer.measure(pipeline)}
    if recipe.ranker.enabled:
        ranker, epochs["ranker"] = trainer.ranker()
        save_model(folder / "ranker", ranker)
        pipeline = trainer.pipeline(retrieval, ranker, 0.0)
        tried = trainer.weights_tried(pipeline)
        pipeline.ranker_weight = max(
            tried, key=lambda w: (tried[w], -w), default=UNTRIED_WEIGHT
        )
        validation["ranker_weights"] = {str(w): score for w, score in tried.items()}
        validation["pipeline"] = trainer.measure(pipeline)
    write_json(
        folder / RUN_FILE,
        RunInfo(
            created_at=now(),
            dataset=str(dataset.path),
            dataset_fingerprint=dataset.info.fingerprint,
            backend=keras.backend.backend(),
            retrieval_history=pipeline.retrieval_history,
            ranker_history=pipeline.ranker_history,
            ranker_weight=pipeline.ranker_weight,
            candidates=pipeline.candidates,
            objective=recipe.ranker.objective if recipe.ranker.enabled else None,
            epochs=epochs,
            validation=validation,
            seconds={
                "retrieval": round(retrieval_seconds, 3),
                "total": round(time.perf_counter() - started, 3),
            },
        ),
    )


class _Trainer:
    """One training job: what both models share."""

    def __init__(
        self,
        folder: Path,
        dataset: Dataset,
        recipe: Recipe,
        validate: Validate,
        quiet: bool,
    ) -> None:
        self.folder = folder
        self.dataset = dataset
        self.recipe = recipe
        self.validate = validate
        self.quiet = quiet
        self.validation_users = _measurable_users(dataset)

    def retrieval(self) -> tuple[TwoTower, int]:
        """Trains the two-tower model; stops when validation nDCG stops rising."""
        section = self.recipe.retrieval
        loader = self._loader(section, seed=self.recipe.seed, interactions_only=True)
        model = TwoTower(
            self._inputs(section),
            self.dataset.table_rows,
            embedding_dim=section.embedding_dim,
            hidden_units=section.hidden_units,
            dropout=section.dropout,
            temperature=section.temperature,
            normalize=section.normalize,
            table_learning_rate=section.learning_rate,
            name="retrieval",
        )
        model.compile(optimizer=keras.optimizers.Adam(section.learning_rate))
        callbacks = []
        if len(self.validation_users):
            pipeline = self.pipeline(model, None, 0.0)
            callbacks.append(RankingValidation(lambda: self.measure(pipeline)))
        batches = Batches(loader, with_label=False)
        epochs = self._fit(model, batches, section, f"val_{MONITOR}", callbacks)
        return model, epochs

    def ranker(self) -> tuple[Ranker, int]:
        """Trains the ranker; stops when the validation loss stops falling."""
        section = self.recipe.ranker
        explicit = section.objective == "explicit"
        negatives = None if explicit else _uniform(section.negatives)
        loader = self._loader(section, seed=self.recipe.seed + 1, negatives=negatives)
        mean_label = self.dataset.part("train").label.mean() if explicit else 0.0
        model = Ranker(
            self._inputs(section),
            self.dataset.table_rows,
            objective=section.objective,
            hidden_units=section.hidden_units,
            dropout=section.dropout,
            mean_label=float(mean_label),
            table_learning_rate=section.learning_rate,
            name="ranker",
        )
        model.compile(
            optimizer=keras.optimizers.Adam(section.learning_rate),
            loss=model.loss_function(),
        )
        validation = None
        if len(self.validation_users):
            held_out = TrainingRows(
                self.dataset,
                ("validation",),
                history_length=section.history_length,
                negatives=negatives,
                history_parts=("train", "validation"),
            )
            everything = Loader(
                held_out,
                batch_size=section.batch_size,
                seed=self.recipe.seed,
                drop_remainder=False,
            )
            validation = Batches(everything, with_label=True, reshuffle=False)
        batches = Batches(loader, with_label=True)
        epochs = self._fit(model, batches, section, "val_loss", [], validation)
        return model, epochs

    def pipeline(
        self, retrieval: TwoTower, ranker: Ranker | None, weight: float
    ) -> Pipeline:
        """The models as they are served."""
        return Pipeline(
            self.dataset,
            retrieval,
            ranker,
            retrieval_history=self.recipe.retrieval.history_length,
            ranker_history=self.recipe.ranker.history_length,
            ranker_weight=weight,
            candidates=self.recipe.ranker.candidates,
        )

    def measure(self, pipeline: Pipeline) -> dict[str, float]:
        """Metrics of the pipeline on the validation part."""
        if not len(self.validation_users):
            return {}
        _, items = pipeline.recommend(
            self.validation_users, VALIDATION_K, parts=("train",)
        )
        return self.validate(self.dataset, self.validation_users, items, "validation")

    def weights_tried(self, pipeline: Pipeline) -> dict[float, float]:
        """Validation nDCG of each ranker weight; none without a validation part."""
        if not len(self.validation_users):
            return {}
        users, parts = self.validation_users, ("train",)
        scores, items = pipeline.retrieve(
            users, max(VALIDATION_K, pipeline.candidates), parts
        )
        ranked = pipeline.rank(users, items, parts)
        tried = {}
        for weight in self.recipe.ranker.weights:
            _, best = combine(scores, items, ranked, weight, VALIDATION_K)
            measured = self.validate(self.dataset, users, best, "validation")
            tried[float(weight)] = measured[MONITOR]
        return tried

    def _inputs(self, section: RetrievalSection | RankerSection) -> Any:
        return model_inputs(
            self.dataset.schema,
            embedding_dim=section.embedding_dim,
            feature_dim=section.feature_dim,
            history_length=section.history_length,
        )

    def _loader(
        self,
        section: RetrievalSection | RankerSection,
        *,
        seed: int,
        negatives: Negatives | None = None,
        interactions_only: bool = False,
    ) -> Loader:
        rows = TrainingRows(
            self.dataset,
            history_length=section.history_length,
            interactions_only=interactions_only,
            unknown_rate=section.unknown_rate,
            negatives=negatives,
        )
        return Loader(rows, batch_size=section.batch_size, seed=seed)

    def _fit(
        self,
        model: keras.Model,
        batches: Batches,
        section: RetrievalSection | RankerSection,
        monitor: str,
        callbacks: list[keras.callbacks.Callback],
        validation: Batches | None = None,
    ) -> int:
        """Stock `fit`; returns the number of the epoch whose weights were kept."""
        callbacks = [*callbacks, StopOnNotFinite()]
        report = EpochReport(
            model.name, self.folder / "metrics.jsonl", quiet=self.quiet
        )
        callbacks.append(report)
        stopping = None
        if len(self.validation_users):
            stopping = TableCheckpoint(
                None,
                monitor=monitor,
                mode="min" if monitor == "val_loss" else "max",
                patience=section.patience,
                restore_best=True,
            )
            callbacks.append(stopping)
        try:
            history = model.fit(
                batches,
                epochs=section.epochs,
                validation_data=validation,
                callbacks=callbacks,
                shuffle=False,  # the loader has shuffled already
                verbose=0,
            )
        finally:
            report.close()
        check_weights_finite(model)
        if stopping is None or stopping.best_epoch is None:
            return len(history.epoch)
        return int(stopping.best_epoch) + 1


def _uniform(count: int) -> Negatives | None:
    return Negatives("uniform", count) if count else None


def _measurable_users(dataset: Dataset) -> np.ndarray:
    """Users whose validation part holds an item that their training part does not.

    Nobody else has anything left to find once the seen items are removed.
    """
    train_keys, keys = (
        part.user_index.astype(np.int64) * dataset.num_items + part.item_index
        for part in (dataset.interactions("train"), dataset.interactions("validation"))
    )
    users = keys[~np.isin(keys, train_keys)] // dataset.num_items
    return np.unique(users[users > 0])


def _check_parts(dataset: Dataset, recipe: Recipe) -> None:
    """Checks that the events and labels fit the recipe before any work starts."""
    if not dataset.info.parts.get("train"):
        raise InputError(
            "part-empty",
            "The training part must hold events. Received: none. Hold out fewer"
            " events and prepare again.",
        )
    if recipe.ranker.enabled and recipe.ranker.objective == "explicit":
        if dataset.schema.label is None:
            raise InputError(
                "ranker-needs-label",
                "objective = 'explicit' predicts the label, so the schema must name"
                " one. Received: no label. Use objective = 'binary'.",
            )
    if len(dataset.vocabularies[USER]) < 3:
        raise InputError(
            "log-too-small", "Training needs at least 2 users. Prepare more events."
        )

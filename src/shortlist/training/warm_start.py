"""Warm start: copies rows and dense weights of an older run into a new model.

Rows are matched by external id, so the vocabulary may have grown, shrunk or been
renumbered; every run keeps its vocabularies. Optimizer state is not copied.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from shortlist.data.store.dataset import Dataset
from shortlist.data.store.vocabulary import Vocabulary, vocabulary_file
from shortlist.embeddings.storage.saving import table_layers
from shortlist.errors import ArtifactError, InputError
from shortlist.models.scorers.vectors import TWO_TOWER
from shortlist.recipe import Recipe
from shortlist.training.runs.checkpoint import CONFIG_FILE, load_model
from shortlist.training.runs.run import VOCABULARIES, Run


class Taken(NamedTuple):
    """How many rows and dense weights were copied, and of how many."""

    rows: int
    of_rows: int
    weights: int
    of_weights: int


def keep_vocabularies(dataset: Dataset, folder: Path) -> None:
    """Copies the vocabularies of a dataset to a run, as hard links where possible."""
    target = folder / VOCABULARIES
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name, file in dataset.info.vocabularies.items():
        source, copy = dataset.path / file, target / vocabulary_file(name)
        try:
            os.link(source, copy)  # files of a dataset are never written in place
        except OSError:
            shutil.copyfile(source, copy)


def check_warm_start(run: Run, recipe: Recipe) -> None:
    """Checks that a run can be the warm start of a recipe.

    Scorers are always fitted from scratch, including those of a blend.

    Raises:
        InputError: `warm-start-mismatch`, the recipe has no model trained by gradient
            steps, or a ranker of another kind.
        ArtifactError: `warm-start-mismatch`, the run lacks a model or its vocabularies;
            `run-damaged`, one of its files is damaged.
    """
    models = recipe.trained()
    if not models:
        raise InputError(
            "warm-start-mismatch",
            "A warm start needs a model trained by gradient steps. Received a recipe"
            f" with kind = {recipe.retrieval.kind!r} and no ranker; scorers are fitted"
            " from scratch. Train without a warm start.",
        )
    for name in models:
        _folder_of(run, name)
        run.verify(name)
    run.verify(VOCABULARIES)
    kind = run.recipe["ranker"].get("kind", "single_task")
    if recipe.ranker.enabled and kind != recipe.ranker.kind:
        raise InputError(
            "warm-start-mismatch",
            f"A warm start needs a run with a ranker of kind = {recipe.ranker.kind!r},"
            f" like the recipe. Found kind = {kind!r} at {str(run.path)!r}. Use another"
            " run, or change kind.",
            file=run.path,
        )


def warm_start(model: keras.Model, path: str | Path, dataset: Dataset) -> Taken:
    """Copies rows and dense weights of an older run into a built model.

    A row is copied if the older run has its external id; rows for unknown ids always
    are. Tables without a vocabulary and dense weights are copied if their shapes are
    equal. Everything else keeps its initial values.

    Args:
        model: `retrieval` or `ranker`, of the same class as the run's.
        path: the run.
        dataset: the dataset of the new model.

    Raises:
        ArtifactError: `run-missing`, `warm-start-mismatch` or what reading it raises.
        InputError: `warm-start-mismatch`, nothing can be copied.
    """
    run = Run.open(path)
    run.verify(VOCABULARIES)
    run.verify(model.name)
    old = load_model(_folder_of(run, model.name), type(model))
    known, rows = 0, 0
    before = {
        name: table
        for layer in table_layers(old)
        for name, table in layer.get_embedding_tables().items()
    }
    for layer in table_layers(model):
        tables = {
            name: np.array(table)
            for name, table in layer.get_embedding_tables().items()
        }
        for name, table in tables.items():
            rows += len(table)
            if name in before and before[name].shape[1] == table.shape[1]:
                known += _take_rows(run.path, dataset, name, before[name], table)
        layer.set_embedding_tables(tables)
    taken = Taken(known, rows, *_take_weights(old, model))
    if not (taken.rows or taken.weights):
        raise InputError(
            "warm-start-mismatch",
            "Nothing can be copied: no table or layer of the run at"
            f" {str(path)!r} has the widths of the recipe. Use the embedding_dim and"
            " hidden_units of the run, or train without a warm start.",
            file=run.path,
        )
    return taken


def _folder_of(run: Run, name: str) -> Path:
    """Where a run keeps a model; that of a blend lies inside it.

    Raises:
        ArtifactError: `warm-start-mismatch`.
    """
    for folder in (run.path / name, run.path / name / TWO_TOWER):
        if (folder / CONFIG_FILE).is_file() and (run.path / VOCABULARIES).is_dir():
            return folder
    raise ArtifactError(
        "warm-start-mismatch",
        f"A warm start needs a run with a {name} model that was trained step by step,"
        f" and with its vocabularies. Found a run without at {str(run.path)!r}. Name"
        " another run, or train it again.",
        file=run.path,
    )


def _take_rows(
    run: Path, dataset: Dataset, name: str, old: np.ndarray, new: np.ndarray
) -> int:
    """Copies the rows of a table that both know; returns how many."""
    if name not in dataset.vocabularies:  # hashed or bucketized
        if old.shape != new.shape:
            return 0
        new[...] = old
        return len(new)
    ids = dataset.vocabularies[name]
    before = Vocabulary.load(run / VOCABULARIES / vocabulary_file(name))
    unknown = min(ids.oov_buckets, before.oov_buckets)
    new[:unknown] = old[:unknown]
    rows = before.lookup_series(ids.ids[ids.oov_buckets :])
    is_known = rows >= before.oov_buckets
    new[ids.oov_buckets :][is_known] = old[rows[is_known]]
    return unknown + int(is_known.sum())


def _take_weights(old: keras.Model, new: keras.Model) -> tuple[int, int]:
    """Copies dense weights by position; returns how many, and of how many.

    Names cannot be used: Keras numbers the layers of a process. Nothing is copied
    between models with other outputs, even if shapes are equal.
    """
    before, after = (_dense(model) for model in (old, new))
    if len(before) != len(after) or _outputs(old) != _outputs(new):
        return 0, len(after)
    same = [
        (one, other)
        for one, other in zip(before, after, strict=True)
        if one.shape == other.shape
    ]
    for one, other in same:
        other.assign(one.value)
    return len(same), len(after)


def _outputs(model: keras.Model) -> list[Any]:
    """A description of the outputs of a model."""
    config = model.get_config()
    heads = sorted(
        (name, head["objective"], head["label"])
        for name, head in config.get("heads", {}).items()
    )
    return [config.get("objective"), config.get("interaction"), heads]


def _dense(model: keras.Model) -> list[keras.Variable]:
    in_tables = {id(v) for layer in table_layers(model) for v in layer.variables}
    return [v for v in model.weights if id(v) not in in_tables]

"""A model begins with what an older run has learned, as far as the two agree.

Rows go by external id, so that a vocabulary may have grown, shrunk or been numbered
anew; every run keeps the vocabularies it was trained with. Optimizers start afresh.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from shortlist.data.dataset import Dataset
from shortlist.data.vocabulary import Vocabulary, vocabulary_file
from shortlist.embeddings.saving import table_layers
from shortlist.errors import ArtifactError, InputError
from shortlist.training.checkpoint import load_model
from shortlist.training.runs import Run

VOCABULARIES = "vocabularies"


class Taken(NamedTuple):
    """What was taken over."""

    rows: int
    of_rows: int
    weights: int
    of_weights: int


def keep_vocabularies(dataset: Dataset, folder: Path) -> None:
    """Puts the vocabularies of a dataset into a run; by links where the disk can."""
    target = folder / VOCABULARIES
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name, file in dataset.info.vocabularies.items():
        source, copy = dataset.path / file, target / vocabulary_file(name)
        try:
            os.link(source, copy)  # a dataset never writes into a file that is there
        except OSError:
            shutil.copyfile(source, copy)


def warm_start(model: keras.Model, path: str | Path, dataset: Dataset) -> Taken:
    """Sets the rows and dense weights of a built model to those of an older run.

    A row is taken over if its external id had one; rows for unknown ids always are.
    Tables without a vocabulary and dense weights are if their shapes agree. The rest
    stays as it was initialized.

    Args:
        model: of the same class as the run's model of this name.
        path: the run.
        dataset: what the model is to be trained on.

    Raises:
        ArtifactError: `run-missing`, `warm-start-mismatch` or what reading it raises.
        InputError: `warm-start-mismatch`, nothing agrees.
    """
    run = Run.open(path)
    if not (run.path / VOCABULARIES).is_dir() or not (run.path / model.name).is_dir():
        raise ArtifactError(
            "warm-start-mismatch",
            f"A warm start needs a run with a model {model.name!r} and its"
            f" vocabularies. Found a run without at {str(path)!r}. Name another run,"
            " or train it again.",
            file=run.path,
        )
    old = load_model(run.path / model.name, type(model))
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
            "A warm start needs a run whose tables or layers have the widths of the"
            f" recipe. Found none at {str(path)!r}. Set embedding_dim and hidden_units"
            " as they were, or train without it.",
            file=run.path,
        )
    return taken


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
    is_known = (rows >= before.oov_buckets) & (rows < len(old))
    places = np.flatnonzero(is_known) + ids.oov_buckets
    places, rows = places[places < len(new)], rows[is_known][: len(places)]
    new[places] = old[rows[: len(places)]]
    return unknown + len(places)


def _take_weights(old: keras.Model, new: keras.Model) -> tuple[int, int]:
    """Copies dense weights in their order, if all are there; how many, and of how many.

    Names are no help: Keras numbers the layers of a process.
    """
    before, after = (_dense(model) for model in (old, new))
    if len(before) != len(after):
        return 0, len(after)
    same = [
        (one, other)
        for one, other in zip(before, after, strict=True)
        if one.shape == other.shape
    ]
    for one, other in same:
        other.assign(one.value)
    return len(same), len(after)


def _dense(model: keras.Model) -> list[keras.Variable]:
    in_tables = {id(v) for layer in table_layers(model) for v in layer.variables}
    return [v for v in model.weights if id(v) not in in_tables]

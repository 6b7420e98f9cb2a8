"""RUN -> ONE DIRECTORY: converts trained Keras models to graphs and arrays.

The only module of `bundle/` that imports Keras.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import polars as pl

from shortlist.bundle.bundle import write_bundle
from shortlist.bundle.contents import (
    HISTORY_TIMES,
    HISTORY_VALUES,
    BundleContents,
    RankerContents,
    RetrievalContents,
    TowerContents,
)
from shortlist.bundle.manifest import Manifest
from shortlist.data.schema import HISTORY
from shortlist.data.split import KNOWN, PARTS
from shortlist.models.pipeline import Pipeline
from shortlist.models.scorers.queries import KnownItems
from shortlist.models.scorers.scorer import Scorer
from shortlist.models.tower_scorer import TowerScorer, keras_towers
from shortlist.training.runs.run import environment

History = Literal["all", "evaluation"]
KNOWN_PARTS = {"all": PARTS, "evaluation": KNOWN["test"]}


def export_bundle(
    path: str | Path,
    pipeline: Pipeline,
    *,
    name: str,
    history: History = "all",
    metrics: dict[str, Any] | None = None,
    repeats: bool = False,
    overwrite: bool = False,
) -> Manifest:
    """Packs a trained pipeline into a bundle directory.

    Args:
        path: the directory to write; must not exist unless `overwrite`.
        pipeline: the models over their dataset.
        name: name of the model, for display.
        history: which events of each user the bundle holds: `all`, as for a live
            server, or `evaluation`, all but the test part, so that served answers are
            those that were evaluated.
        metrics: results of the evaluation, stored in the manifest.
        repeats: recommend items again that a user has interacted with, unless a
            request says otherwise.
        overwrite: replace an existing bundle once the new one is complete.

    Raises:
        InputError: `path` exists (code `output-exists`).
        ArtifactError: the models hold NaN or infinity.
        ResourceError: no space or a read-only file system.
    """
    dataset = pipeline.dataset
    contents = BundleContents(
        name=name,
        schema=dataset.schema,
        vocabularies=dataset.vocabularies,
        items=dataset.items.drop("id"),
        users=_users(pipeline, KNOWN_PARTS[history]),
        retrieval=_retrieval(pipeline.retrieval),
        ranker=_ranker(pipeline),
        repeats=repeats,
        metrics=metrics or {},
        environment=environment(keras.backend.backend()),
    )
    return write_bundle(path, contents, overwrite=overwrite)


def to_onnx(model: keras.Model) -> bytes:
    """The dense part of a tower or ranker as an ONNX graph with one input."""
    width = model.input_shape[-1]
    signature = [keras.InputSpec(shape=(None, width), dtype="float32", name="input")]
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        _unrolled(model),
    ):
        # The exporters of the backends warn of their own deprecations and tracing.
        warnings.simplefilter("ignore")
        file = Path(folder) / "graph.onnx"
        model.export(str(file), format="onnx", input_signature=signature, verbose=False)
        return file.read_bytes()


@contextlib.contextmanager
def _unrolled(model: keras.Model) -> Iterator[None]:
    """Unrolls recurrent layers, because a bundle must not contain loops."""
    flat = model._flatten_layers(include_self=False, recursive=True)
    layers = [layer for layer in flat if isinstance(layer, keras.layers.RNN)]
    before = [layer.unroll for layer in layers]
    try:
        for layer in layers:
            layer.unroll = True
        yield
    finally:
        for layer, unroll in zip(layers, before, strict=True):
            layer.unroll = unroll


def _users(pipeline: Pipeline, parts: tuple[str, ...]) -> pl.DataFrame:
    """Users with their items, and the times and labels that the scorer uses."""
    dataset, scorer = pipeline.dataset, pipeline.retrieval
    known = KnownItems(dataset, parts, values=scorer.uses_values).everyone()
    columns = [_lists(HISTORY, known.offsets, known.items, pl.Int32())]
    if scorer.uses_times and known.times is not None:
        columns.append(_lists(HISTORY_TIMES, known.offsets, known.times, pl.Int64()))
    if known.values is not None:
        columns.append(
            _lists(HISTORY_VALUES, known.offsets, known.values, pl.Float32())
        )
    return dataset.users.drop("id").with_columns(columns)


def _lists(
    name: str, offsets: np.ndarray, values: np.ndarray, dtype: pl.DataType
) -> pl.Series:
    lists = [values[a:b] for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
    return pl.Series(name, lists, dtype=pl.List(dtype))


def _retrieval(scorer: Scorer) -> RetrievalContents:
    return RetrievalContents(
        kind=scorer.kind,
        config=scorer.get_config(),
        arrays=scorer.arrays(),
        towers={name: _tower(t) for name, t in keras_towers(scorer).items()},
    )


def _tower(scorer: TowerScorer) -> TowerContents:
    model = scorer.model
    tables = model.lookup.tables()
    needed = {i.table for i in model.user_inputs}
    return TowerContents(
        graph=to_onnx(model.user_tower),
        tables={name: rows for name, rows in tables.items() if name in needed},
        inputs=model.user_inputs,
        history_length=scorer.history_length,
        item_vectors=scorer.item_vectors,
        num_queries=model.num_queries,
        item_bias=model.item_bias,
    )


def _ranker(pipeline: Pipeline) -> RankerContents | None:
    model = pipeline.ranker
    if model is None:
        return None
    return RankerContents(
        graph=to_onnx(model.scorer),
        tables=model.lookup.tables(),
        inputs=model.inputs_spec,
        history_length=pipeline.ranker_history,
        weight=pipeline.ranker_weight,
        candidates=pipeline.candidates,
        objective=model.objective,
    )

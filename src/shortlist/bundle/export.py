"""RUN -> ONE DIRECTORY: turns trained Keras models into graphs and arrays.

The only module of `bundle/` that knows Keras.
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
    ScorerContents,
)
from shortlist.bundle.manifest import Manifest
from shortlist.data.schema import HISTORY
from shortlist.data.split import KNOWN, PARTS
from shortlist.models.pipeline import Pipeline
from shortlist.models.scorers.queries import KnownItems
from shortlist.models.scorers.scorer import Scorer
from shortlist.models.tower_member import TowerMember
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
        name: name of the model, for people.
        history: which events the bundle knows of each user: `all`, as for a live
            server, or `evaluation`, all but the test part, so that the answers served
            are those the metrics speak of.
        metrics: what evaluation measured, kept in the manifest.
        repeats: the bundle recommends items again that a user has taken before, where
            a request does not say otherwise.
        overwrite: replace an existing bundle after the new one is complete.

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
        retrieval=_retrieval(pipeline),
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
    """Makes the steps of recurrent layers nodes of the graph: a bundle has no loops."""
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
    """Users with what they took; times and labels where a scorer looks at them."""
    dataset, model = pipeline.dataset, pipeline.retrieval
    scorer = model if isinstance(model, Scorer) else None
    values = scorer is not None and scorer.uses_values
    known = KnownItems(dataset, parts, values=values).everyone()
    columns = [_lists(HISTORY, known.offsets, known.items, pl.Int32())]
    if scorer is not None and scorer.uses_times and known.times is not None:
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


def _retrieval(pipeline: Pipeline) -> RetrievalContents | ScorerContents:
    scorer = pipeline.retrieval
    if not isinstance(scorer, Scorer):
        return _tower(pipeline)
    members = getattr(scorer, "members", {})
    return ScorerContents(
        kind=scorer.kind,
        config=scorer.get_config(),
        arrays=scorer.arrays(),
        towers={
            name: _tower(member.pipeline)
            for name, member in members.items()
            if isinstance(member, TowerMember)
        },
    )


def _tower(pipeline: Pipeline) -> RetrievalContents:
    model = pipeline.tower
    tables = model.lookup.tables()
    needed = {i.table for i in model.user_inputs}
    return RetrievalContents(
        graph=to_onnx(model.user_tower),
        tables={name: rows for name, rows in tables.items() if name in needed},
        inputs=model.user_inputs,
        history_length=pipeline.retrieval_history,
        item_vectors=pipeline.item_vectors(),
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

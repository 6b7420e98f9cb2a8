"""Context features: columns of the log itself, stored with each event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import polars as pl

from shortlist.data.kernels.ids import IdMap
from shortlist.data.preparation.sorted_log import SortedLog
from shortlist.data.schema import CONTEXT, FEATURE_PREFIX, ITEM, USER, Feature, Schema
from shortlist.data.split import TRAIN
from shortlist.data.store.numbers import (
    NumberStatistics,
    fit_numbers,
    numbers_of,
    transform_numbers,
)
from shortlist.data.store.ragged import Ragged
from shortlist.data.store.segments import narrowest
from shortlist.data.store.vocabulary import Vocabulary


def context_counts(log: SortedLog, schema: Schema) -> dict[str, pl.DataFrame]:
    """Values of the training events by table: columns `id` (text) and `count`."""
    counts: dict[str, np.ndarray] = {}
    for feature, values in _of_training(log, schema):
        if feature.has_vocabulary and feature.table not in (USER, ITEM):
            id_map = log.tables[feature.table]
            flat = values.explode() if feature.kind == "multi_valued" else values
            codes = flat.drop_nulls().to_numpy()
            found = np.bincount(codes[codes >= 0], minlength=len(id_map))
            counts[feature.table] = counts.get(feature.table, 0) + found
    return {
        table: pl.DataFrame({"id": log.tables[table].ids(), "count": found}).filter(
            pl.col("count") > 0
        )
        for table, found in counts.items()
    }


def fit_context(log: SortedLog, schema: Schema) -> dict[str, NumberStatistics]:
    """Statistics of the numeric context features over the training events."""
    return {
        feature.name: fit_numbers(numbers_of(values), feature)
        for feature, values in _of_training(log, schema)
        if feature.is_number
    }


class ContextEncoder:
    """Turns the context features of a block of events into what is stored.

    Args:
        schema: names the features.
        tables: values by code of each table.
        vocabularies: by table.
        numbers: statistics by feature.
        table_rows: rows of every table.
    """

    def __init__(
        self,
        schema: Schema,
        tables: Mapping[str, IdMap],
        vocabularies: Mapping[str, Vocabulary],
        numbers: Mapping[str, NumberStatistics],
        table_rows: Mapping[str, int],
    ) -> None:
        self.features = schema.owned_by(CONTEXT)
        self.numbers = numbers
        self.types = {
            f.name: narrowest(table_rows[f.table])
            for f in self.features
            if f.kind != "numeric"
        }
        # The last row is for code -1, a missing value.
        self.rows = {
            name: np.append(vocabularies[name].lookup_series(ids.ids()), np.int32(0))
            for name, ids in tables.items()
        }

    def encode(self, events: pl.DataFrame) -> list[pl.Series]:
        """The stored columns of a block of events, in schema order."""
        return [
            self._encoded(feature, events[FEATURE_PREFIX + feature.name])
            for feature in self.features
        ]

    def _encoded(self, feature: Feature, values: pl.Series) -> pl.Series:
        name = FEATURE_PREFIX + feature.name
        if feature.is_number:
            numbers = transform_numbers(
                numbers_of(values), feature, self.numbers[feature.name]
            )
            stored = pl.Series(name, numbers)
            return stored.cast(self.types.get(feature.name, pl.Float32()))
        dtype = self.types[feature.name]
        if feature.kind != "multi_valued":
            rows = values.to_numpy()
            if feature.hash_buckets is None:
                rows = self.rows[feature.table][rows]
            return pl.Series(name, rows).cast(dtype)
        if feature.hash_buckets is not None:
            return values.alias(name).cast(pl.List(dtype))
        lengths = values.list.len()
        codes = values.filter(lengths > 0).explode().cast(pl.Int32).to_numpy()
        rows = self.rows[feature.table][codes]
        lists = Ragged.from_lengths(lengths.to_numpy(), rows).to_column()
        return lists.alias(name).cast(pl.List(dtype))


def _of_training(log: SortedLog, schema: Schema) -> Iterator[tuple[Feature, pl.Series]]:
    for feature in schema.owned_by(CONTEXT):
        name = FEATURE_PREFIX + feature.name
        yield feature, log.frame.filter(pl.col("part") == TRAIN)[name]

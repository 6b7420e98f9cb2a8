"""Attributes of users and items, and the values of any feature, as a model reads them.

Attributes.read            the raw columns, record i for row i of the vocabulary
Attributes.token_counts    counts for the vocabularies of features
Attributes.encode          the stored columns: rows of tables, transformed numbers
encode_column              the same for one column of any owner, chunk by chunk
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from shortlist.data.findings import Finding
from shortlist.data.preparation.attribute_file import read_attributes, unmatched_ids
from shortlist.data.preparation.log_attributes import KEY
from shortlist.data.read.feature_values import check_nesting, check_title, tokens
from shortlist.data.read.file_format import FileFormat
from shortlist.data.read.inputs import LogFiles, OnError, ReadOptions
from shortlist.data.read.panics import panics_refused
from shortlist.data.schema import (
    CONTEXT,
    FEATURE_PREFIX,
    ITEM,
    USER,
    Feature,
    Owner,
    Schema,
)
from shortlist.data.store.numbers import (
    NumberStatistics,
    fit_numbers,
    numbers_of,
    transform_numbers,
)
from shortlist.data.store.ragged import Ragged
from shortlist.data.store.vocabulary import Vocabulary, bucket_rows, count_values
from shortlist.errors import LogError


class AttributeFile(NamedTuple):
    """Where the attributes of users or items come from.

    Args:
        file: the attribute file, or `None`.
        id_column: its column of ids.
        layout: its layout, or a `FileFormat`; detected when `None`.
        on_error: what a bad row does, as in `read_attributes`.
    """

    file: str | Path | None
    id_column: str
    layout: str | FileFormat | None = None
    on_error: OnError = "raise"


# The attribute file of each owner and how to read it.
AttributeFiles = Mapping[str, AttributeFile]


def attribute_files(
    files: LogFiles, schema: Schema, options: ReadOptions
) -> dict[str, AttributeFile]:
    """The attribute files of a log, by `user` and `item`."""
    return {
        USER: AttributeFile(
            files.users,
            files.users_id or schema.user_id,
            options.users_format,
            options.on_error,
        ),
        ITEM: AttributeFile(
            files.items,
            files.items_id or schema.item_id,
            options.items_format,
            options.on_error,
        ),
    }


@dataclass(frozen=True)
class Attributes:
    """The raw attribute columns of all users and items.

    Args:
        schema: its user and item features, and the title; context features are left
            to the reader of the events.
        ids: `user` and `item` -> ids by row, null in row 0.
        columns: `user` and `item` -> the columns the schema needs, record i for row i,
            null where an id has no attributes.
        findings: what reading the files noticed.
    """

    schema: Schema
    ids: Mapping[str, pl.Series]
    columns: Mapping[str, pl.DataFrame]
    findings: tuple[Finding, ...] = ()

    @classmethod
    def read(
        cls,
        schema: Schema,
        files: AttributeFiles,
        user_ids: pl.Series,
        item_ids: pl.Series,
        of_log: Mapping[str, pl.DataFrame] | None = None,
    ) -> Attributes:
        """Reads the attribute files and aligns their records with the rows.

        Args:
            schema: which columns are needed.
            files: `user` and `item` -> attribute file and how to read it.
            user_ids: ids by row, as `Vocabulary.ids` has them.
            item_ids: the same of the items.
            of_log: the attributes that the log holds, as `SortedLog.attributes`.

        Raises:
            LogError: a file that is needed and not given, or that cannot be used.
        """
        ids = {USER: user_ids, ITEM: item_ids}
        owners: tuple[Owner, ...] = (USER, ITEM)
        columns: dict[str, pl.DataFrame] = {}
        findings: list[Finding] = []
        for owner in owners:
            source = files.get(owner, AttributeFile(None, ""))
            with panics_refused(source[0] or ""):
                read, found = _read(
                    schema.file_attributes, owner, AttributeFile(*source), ids[owner]
                )
            if of_log and owner in of_log:
                held = _beside(ids[owner], of_log[owner])
                read = pl.concat([read, held], how="horizontal")
            columns[owner] = read
            findings += found
        return cls(schema, ids, columns, tuple(findings))

    def token_counts(
        self, trained: Mapping[str, np.ndarray]
    ) -> dict[str, pl.DataFrame]:
        """How often each value occurs, by vocabulary of the features.

        Vocabularies of users and items are not included.

        Args:
            trained: `user` and `item` -> `(rows,)` bool; only rows with true count.

        Returns: frames with columns `id` (String) and `count` (Int64).
        """
        found: dict[str, list[pl.DataFrame]] = {}
        for feature in self._stored():
            if feature.has_vocabulary and feature.table not in (USER, ITEM):
                mask = pl.Series(trained[feature.owner])
                lists = tokens(self._raw(feature).filter(mask), feature)
                found.setdefault(feature.table, []).append(count_tokens(lists))
        return {table: merge_counts(counts) for table, counts in found.items()}

    def encode(
        self,
        vocabularies: Mapping[str, Vocabulary],
        trained: Mapping[str, np.ndarray],
        fitted: Mapping[str, NumberStatistics] | None = None,
    ) -> tuple[dict[str, pl.DataFrame], dict[str, NumberStatistics]]:
        """The tables of a dataset, and the statistics of their numbers.

        Args:
            vocabularies: by name, those of `Schema.stored_tables`.
            trained: `user` and `item` -> `(rows,)` bool; statistics see only these.
            fitted: statistics to use instead of fitting them.

        Returns: `user` and `item` -> columns `id`, the title and `feature:<name>`; and
        the statistics of every numeric or bucketized feature by name.
        """
        statistics = dict(fitted or {})
        for feature in self._stored():
            if feature.is_number and feature.name not in statistics:
                values = numbers_of(self._raw(feature))[trained[feature.owner]]
                statistics[feature.name] = fit_numbers(values, feature)
        frames = {}
        for owner, ids in self.ids.items():
            columns = [ids.alias("id")]
            if owner == ITEM and self.schema.title is not None:
                columns.append(self.columns[ITEM][self.schema.title].cast(pl.String))
            for feature in self._stored():
                if feature.owner == owner:
                    column = encode_column(
                        self._raw(feature),
                        feature,
                        vocabularies,
                        statistics.get(feature.name),
                    )
                    columns.append(column.alias(FEATURE_PREFIX + feature.name))
            frames[owner] = pl.DataFrame(columns)
        return frames, statistics

    def _stored(self) -> tuple[Feature, ...]:
        return tuple(f for f in self.schema.features if f.owner != CONTEXT)

    def _raw(self, feature: Feature) -> pl.Series:
        return self.columns[feature.owner][feature.name]


def encode_column(
    column: pl.Series,
    feature: Feature,
    vocabularies: Mapping[str, Vocabulary],
    statistics: NumberStatistics | None = None,
) -> pl.Series:
    """One column of any owner as it is stored, chunk by chunk if need be.

    Args:
        column: raw values or `tokens` of them; numbers for a numeric or bucketized
            feature.
        feature: what the column is.
        vocabularies: by name; holds that of the feature if it has one.
        statistics: of a numeric or bucketized feature.

    Returns: Int32 rows (categorical, bucketized), lists of Int32 rows (multi-valued) or
    Float32 (numeric), without nulls.
    """
    if feature.is_number:
        assert statistics is not None  # the caller fitted them
        numbers = transform_numbers(numbers_of(column), feature, statistics)
        return pl.Series(column.name, numbers)
    lists = tokens(column, feature)
    if feature.kind == "categorical":
        rows = _rows(feature, lists.list.first(), vocabularies)
        return pl.Series(column.name, rows)
    lengths = lists.list.len().to_numpy()
    rows = _rows(feature, lists.explode(empty_as_null=False), vocabularies)
    return Ragged.from_lengths(lengths, rows).to_column().alias(column.name)


def count_tokens(lists: pl.Series) -> pl.DataFrame:
    """Columns `id` (String) and `count` (Int64) of the values in lists of text."""
    return count_values(lists.explode(empty_as_null=False))


def merge_counts(counts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """The sum of several counts of `id`, such as of features that share a table."""
    return pl.concat(counts).group_by("id").agg(pl.col("count").sum())


def feature_vocabularies(
    schema: Schema, counts: Mapping[str, pl.DataFrame]
) -> dict[str, Vocabulary]:
    """The vocabularies of the features, within the limits of the schema.

    Args:
        schema: names and limits.
        counts: by name, columns `id` and `count`; a name without counts gets an empty
            vocabulary.
    """
    nothing = pl.DataFrame(schema={"id": pl.String, "count": pl.Int64})
    vocabularies = {}
    for name in schema.stored_tables:
        if name not in (USER, ITEM):
            counted, limits = counts.get(name, nothing), schema.limits(name)
            vocabularies[name] = Vocabulary.from_counts(
                name,
                counted["id"],
                counted["count"].to_numpy(),
                min_count=limits.min_count,
                max_size=limits.max_size,
                oov_buckets=limits.oov_buckets,
            )
    return vocabularies


def _read(
    schema: Schema,
    owner: Owner,
    source: AttributeFile,
    ids: pl.Series,
) -> tuple[pl.DataFrame, list[Finding]]:
    """The columns that the schema needs of one owner, record i for row i."""
    features = [f for f in schema.features if f.owner == owner]
    names = [f.name for f in features]
    if owner == ITEM and schema.title is not None:
        names.append(schema.title)
    columns = list(dict.fromkeys(names))
    path, id_column, layout, on_error = source
    if path is None:
        if columns:
            raise LogError(
                "attributes-missing",
                f"The schema needs {columns} of every {owner}, so the recipe must name"
                f" a file for them. Set `{owner}s` under [log], set from_log = true for"
                " columns of the log, or drop the columns.",
            )
        return pl.DataFrame(), []
    numbers = [f.name for f in features if f.is_number]
    given, left_out = read_attributes(
        path,
        id_column,
        columns,
        layout=layout,
        numeric=numbers,
        on_error=on_error,
    )
    for feature in features:
        check_nesting(feature, given[feature.name], path)
    if owner == ITEM and schema.title is not None:
        check_title(given[schema.title], path)
    keys = given[id_column]
    if keys.dtype != ids.dtype:  # compared as text: "007" is not 7
        keys, ids = keys.cast(pl.String), ids.cast(pl.String)
    known = ids.drop_nulls()
    findings = unmatched_ids(known, keys, kind=owner, file=path, column=id_column)
    wanted = pl.DataFrame([keys.alias(KEY), *(given[name] for name in columns)])
    return _beside(ids, wanted), left_out + findings


def _beside(ids: pl.Series, records: pl.DataFrame) -> pl.DataFrame:
    """The records of `ids`, without their key; nulls where an id has none."""
    rows = pl.DataFrame({KEY: ids})
    rows = rows.join(records, on=KEY, how="left", maintain_order="left")
    return rows.drop(KEY)


def _rows(
    feature: Feature, values: pl.Series, vocabularies: Mapping[str, Vocabulary]
) -> np.ndarray:
    """Rows `(n,)` int32 of values as text; 0 for a null."""
    if feature.hash_buckets is None:
        return vocabularies[feature.table].lookup_series(values)
    hashed = bucket_rows(values, feature.hash_buckets) + np.int32(1)
    return np.where(values.is_null().to_numpy(), np.int32(0), hashed)

"""Attributes of users and items that are columns of the log itself.

    LogAttributes.add     adds the values of a block of events
    LogAttributes.frame   the newest value of every id, a record each

Memory: one value per id and column, and every distinct text once.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from shortlist.data.kernels.ids import IdMap
from shortlist.data.read.feature_values import TITLE
from shortlist.data.schema import FEATURE_PREFIX, ITEM, USER, Feature, Owner, Schema

KEY = "\x00id"
"""Name of the id column in a table of attributes; no file has a column of this name."""
_JOINED = "\x1f"  # between the values of a list
_NEVER = np.iinfo(np.int64).min


class LogAttributes:
    """The newest value that is not missing, by owner, column and code.

    Args:
        schema: which columns of the log are attributes.
    """

    def __init__(self, schema: Schema) -> None:
        self._columns: dict[Owner, dict[str, _Newest]] = {USER: {}, ITEM: {}}
        for feature in schema.features:
            if feature.from_log:
                self._columns[feature.owner][feature.name] = _newest(feature)
        if schema.log_title is not None:
            title = _NewestText(TITLE)
            self._columns[ITEM].setdefault(schema.log_title, title)

    def add(self, events: pl.DataFrame, codes: Mapping[Owner, np.ndarray]) -> None:
        """Adds the values of a block; blocks come in the order of the log.

        Args:
            events: a column `feature:<name>` per feature of the log, as `Block.events`
                has it, and `TITLE`; `timestamp_ms` where the log has times.
            codes: the user and the item code of every event, `(n,)` int32.
        """
        if not any(self._columns.values()):
            return
        if "timestamp_ms" in events.columns:
            times = events["timestamp_ms"].to_numpy()
        else:
            times = np.zeros(len(events), np.int64)  # a later row is newer
        for owner, columns in self._columns.items():
            for newest in columns.values():
                newest.add(events, codes[owner], times)

    def frame(self, owner: Owner, ids: pl.Series) -> pl.DataFrame:
        """The attributes of one owner: `KEY`, then a column each, record i for code i.

        Args:
            owner: `user` or `item`.
            ids: external id by code.
        """
        columns = self._columns[owner].items()
        held = [newest.values(len(ids)).alias(name) for name, newest in columns]
        return pl.DataFrame([ids.alias(KEY), *held])


class _Newest:
    """The newest value of every code, of one column."""

    dtype: type[np.float64 | np.int32] = np.float64
    missing: float = np.nan

    def __init__(self, name: str) -> None:
        self.name = name
        self.times = np.zeros(0, np.int64)
        self.held = np.zeros(0, self.dtype)

    def add(self, events: pl.DataFrame, codes: np.ndarray, times: np.ndarray) -> None:
        """Updates the values with those of a block that are newer."""
        column = self.read(events[self.name])
        places = column.is_not_null().arg_true().to_numpy()
        if not len(places):
            return
        places = places[np.argsort(times[places], kind="stable")]
        # The first of each code from the end is its newest.
        code, from_end = np.unique(codes[places][::-1], return_index=True)
        places = places[len(places) - 1 - from_end]
        self._grow(int(code[-1]) + 1)
        newer = times[places] >= self.times[code]
        code, places = code[newer], places[newer]
        self.times[code] = times[places]
        self.held[code] = self.encode(column.gather(pl.Series(places)))

    def values(self, size: int) -> pl.Series:
        """The values of the codes 0 to `size - 1`, null where there is none."""
        self._grow(size)
        return self.decode(pl.Series(self.held[:size]))

    def read(self, column: pl.Series) -> pl.Series:
        """The values of a block, null where one is missing."""
        return column.fill_nan(None)

    def encode(self, values: pl.Series) -> np.ndarray:
        """Values in internal form."""
        return values.to_numpy()

    def decode(self, held: pl.Series) -> pl.Series:
        """Values from their internal form."""
        return held.fill_nan(None)

    def _grow(self, size: int) -> None:
        more = size - len(self.times)
        if more > 0:
            more = max(more, len(self.times))  # doubled, so that growing is rare
            self.times = np.append(self.times, np.full(more, _NEVER))
            new = np.full(more, self.missing, self.dtype)
            self.held = np.append(self.held, new)


class _NewestText(_Newest):
    """The same of text, held as codes."""

    dtype = np.int32
    missing = -1

    def __init__(self, name: str) -> None:
        self.texts = IdMap(pl.String)
        super().__init__(name)

    def read(self, column: pl.Series) -> pl.Series:
        if isinstance(column.dtype, pl.List):
            column = column.list.join(_JOINED)
        filled = column.str.len_bytes() > 0
        return column.to_frame().select(pl.when(filled).then(column)).to_series()

    def encode(self, values: pl.Series) -> np.ndarray:
        return self.texts.add(values)

    def decode(self, held: pl.Series) -> pl.Series:
        places = held.to_frame().select(pl.when(held >= 0).then(held)).to_series()
        return self.texts.ids().cast(pl.String).gather(places)


class _NewestList(_NewestText):
    """The same of lists of text."""

    def decode(self, held: pl.Series) -> pl.Series:
        return super().decode(held).str.split(_JOINED)


def _newest(feature: Feature) -> _Newest:
    name = FEATURE_PREFIX + feature.name
    if feature.is_number:
        return _Newest(name)
    return (_NewestList if feature.kind == "multi_valued" else _NewestText)(name)

"""How many rows a record holds: one, or a batch stored column by column.

Two forms of TFRecord are in use:

    per-example   a record is one row: a feature has one value, or a list of any length
    pre-batched   a record is a batch of rows: a feature of width w has rows * w values,
                  those of the first row first

The form is detected from the counts, unless the caller gives `rows_per_record`:

1. If in every record some feature has exactly one value, the file is per-example.
2. Else it is pre-batched. The rows of a record are the smallest number of values that
   a feature has, and width = count / rows. Every count must be a multiple of it, the
   widths must be the same in all records, and at least two features must have width 1:
   a file of lists alone could be of either form, so it is refused.

With `rows_per_record=1` the file is per-example. With a larger number n every record
but the last of a file holds n rows, which gives the widths, and the last one at most n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from shortlist.data.kernels.tfrecord_twin import RecordBlock
from shortlist.errors import InputError, LogError

_EITHER = (
    "Give rows_per_record (--rows-per-record): 1 if every record is one row, else the"
    " size of the batches."
)


def check_rows_per_record(rows: object) -> None:
    """Raises `InputError` unless it is `None` or a whole number of at least 1."""
    if rows is None or (
        isinstance(rows, int) and not isinstance(rows, bool) and rows > 0
    ):
        return
    raise InputError(
        "invalid-argument",
        "`rows_per_record` must be a whole number of at least 1. Received:"
        f" {rows!r}. Omit it to detect it from the file.",
    )


class RecordRows:
    """Counts the rows of records, block after block.

    Args:
        rows_per_record: as the caller gave it.

    After the last block, `widths` are those of the features if the files are
    pre-batched, else `None`; `fewest` and `most` are `(features,)` int32, the numbers
    of values that a feature has in a record.
    """

    def __init__(self, rows_per_record: int | None) -> None:
        self.rows_per_record = rows_per_record
        self.names: Sequence[str] = ()
        self.widths: list[int] | None = None
        self.rows = 0
        self.fewest = self.most = np.zeros(0, np.int32)
        self._records = 0
        self._short: int | None = None  # a record of fewer rows than were announced

    def begin_file(self) -> None:
        """The records that follow are those of another file."""
        self._records, self._short = 0, None

    def add(self, block: RecordBlock, names: Sequence[str], file: object) -> None:
        """Counts the rows of the records of a block.

        Args:
            block: at least one record.
            names: its columns, the same for all blocks.
            file: where it is from.

        Raises:
            LogError: `log-record-rows` if the counts do not fit each other or could
                be those of either form.
        """
        self.names = names
        counts = np.stack([column.counts for column in block.columns], axis=1)
        if self.rows_per_record != 1 and self.widths is None:
            self._find_widths(counts, block, file)
        if self.widths is None:
            self.rows += block.records
        else:
            self._check(counts, file)
        fewest, most = counts.min(axis=0), counts.max(axis=0)
        first = not len(self.fewest)
        self.fewest = fewest if first else np.minimum(self.fewest, fewest)
        self.most = most if first else np.maximum(self.most, most)
        self._records += block.records

    def _find_widths(
        self, counts: np.ndarray, block: RecordBlock, file: object
    ) -> None:
        if self.rows_per_record is not None:
            rows = self.rows_per_record
            if not self._are_multiples(counts[0], rows):
                # The only record of a file may be the short last one.
                rows = min(int(block.smallest[0]), rows)
            first = 0
        else:
            batched = np.flatnonzero(block.smallest > 1)
            if not len(batched):
                return
            first = int(batched[0])
            rows = int(block.smallest[first])
            if block.sharing[first] < 2:
                self._refuse(counts[first], first, file, "only one feature has so few")
        if not self._are_multiples(counts[first], rows):
            self._refuse(counts[first], first, file, f"no {rows} rows")
        self.widths = [int(count) // rows for count in counts[first]]
        # The records before it must have been batches of one row.
        if (counts[:first] != self.widths).any() or (
            self.rows and ([*self.fewest, *self.most] != self.widths * 2)
        ):
            self._refuse(counts[first], first, file, "records before it were one row")

    @staticmethod
    def _are_multiples(counts: np.ndarray, rows: int) -> bool:
        return rows > 0 and bool(((counts > 0) & (counts % rows == 0)).all())

    def _check(self, counts: np.ndarray, file: object) -> None:
        widths = np.array(self.widths)
        rows = counts[:, 0] // widths[0]
        bad = (counts != rows[:, None] * widths).any(axis=1) | (rows == 0)
        if self.rows_per_record is not None:
            bad |= rows > self.rows_per_record
            short = np.flatnonzero(rows < self.rows_per_record)
            last = self._records + len(counts) - 1
            if self._short is not None:
                self._refuse_short(self._short, file)
            if len(short):
                self._short = self._records + int(short[0])
                if self._short != last and not bad[: short[0]].any():
                    self._refuse_short(self._short, file)
        if bad.any():
            first = int(np.flatnonzero(bad)[0])
            widths_by_name = dict(zip(self.names, self.widths or [], strict=True))
            what = f"the widths of earlier records are {widths_by_name}"
            self._refuse(counts[first], first, file, what)
        self.rows += int(rows.sum())

    def _refuse(
        self, counts: np.ndarray, record: int, file: object, why: str
    ) -> NoReturn:
        found = dict(zip(self.names, counts.tolist(), strict=True))
        raise LogError(
            "log-record-rows",
            "The features of a record must have one value each, or as many as its rows"
            f" times their width. Found the numbers of values {found}; {why}."
            f" {_EITHER}",
            file=file,
            row=self._records + record + 1,
        )

    def _refuse_short(self, record: int, file: object) -> NoReturn:
        raise LogError(
            "log-record-rows",
            f"Every record but the last of a file must hold {self.rows_per_record}"
            f" rows. Found one with fewer. {_EITHER}",
            file=file,
            row=record + 1,
        )

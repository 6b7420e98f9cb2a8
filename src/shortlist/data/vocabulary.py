"""External ids to rows and back. Row 0 is out-of-vocabulary.

External ids never enter a graph: the vocabulary is the only place where a string or
a 64-bit id becomes a row.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import polars as pl

from shortlist.atomic import atomic_file
from shortlist.errors import ArtifactError, InputError

ExternalId = str | int


class Vocabulary:
    """A fixed map from external ids to rows 1..n; row 0 stands for every other id.

    Args:
        name: name of the vocabulary and of the table it indexes.
        ids: unique ids, Int64 or String, in row order beginning at row 1.
        counts: a number per id, int64: for users the events trained on, for items the
            events before the test part, else the occurrences.
    """

    def __init__(self, name: str, ids: pl.Series, counts: np.ndarray) -> None:
        if ids.dtype not in (pl.Int64, pl.String):
            raise InputError(
                "vocabulary-id-type",
                "Ids must be integers or strings. Received: "
                f"{ids.dtype} in vocabulary {name!r}. Convert the column.",
            )
        self.name = name
        self.ids = pl.concat(
            [pl.Series("id", [None], dtype=ids.dtype), ids.alias("id")]
        )
        self.counts = np.concatenate([[0], np.asarray(counts, np.int64)])
        self._rows: dict[ExternalId, int] = {
            external: row for row, external in enumerate(ids.to_list(), start=1)
        }
        if len(self._rows) != len(ids) or len(self.counts) != len(self.ids):
            raise InputError(
                "vocabulary-inconsistent",
                f"Ids of vocabulary {name!r} must be unique, one count each. Received:"
                f" {len(ids)} ids, {len(self._rows)} of them distinct,"
                f" {len(self.counts) - 1} counts.",
            )

    @classmethod
    def fit(
        cls,
        name: str,
        values: pl.Series,
        *,
        min_count: int = 1,
        counted: pl.Series | None = None,
    ) -> Vocabulary:
        """Builds a vocabulary from the values of a column, most frequent first.

        Args:
            name: name of the vocabulary.
            values: occurrences, Int64 or String; nulls are skipped.
            min_count: rarer ids are left out-of-vocabulary.
            counted: the occurrences that `counts` counts; `values` by default.
        """
        rows = _count(values).filter(pl.col("count") >= min_count)
        rows = rows.sort(["count", "id"], descending=[True, False])
        if counted is not None:
            rows = (
                rows.drop("count")
                .join(_count(counted), on="id", how="left", maintain_order="left")
                .with_columns(pl.col("count").fill_null(0))
            )
        return cls(name, rows["id"], rows["count"].to_numpy())

    def __len__(self) -> int:
        """Number of rows, row 0 included."""
        return len(self.ids)

    @property
    def is_integer(self) -> bool:
        """Whether the external ids are integers."""
        return self.ids.dtype == pl.Int64

    def row(self, external_id: ExternalId) -> int:
        """Row of one id, or 0; `"7"` finds the integer 7 and 7 finds `"7"`."""
        row = self._rows.get(external_id)
        if row is None and (converted := self._converted(external_id)) is not None:
            row = self._rows.get(converted)
        return row or 0

    def lookup(self, external_ids: Iterable[ExternalId]) -> np.ndarray:
        """Rows `(n,)` int32 of many ids; unknown ids become 0."""
        return np.fromiter((self.row(i) for i in external_ids), np.int32)

    def lookup_series(self, ids: pl.Series) -> np.ndarray:
        """Rows `(n,)` int32 of a column; nulls and unknown ids become 0.

        Ids of another type than the vocabulary's are compared as text.
        """
        known = self.ids[1:]
        if ids.dtype != known.dtype:
            ids, known = ids.cast(pl.String), known.cast(pl.String)
        rows = ids.replace_strict(
            known,
            np.arange(1, len(self), dtype=np.int32),
            default=0,
            return_dtype=pl.Int32,
        )
        return rows.to_numpy()

    def id(self, row: int) -> ExternalId:
        """External id of a row from 1 on."""
        if not 1 <= row < len(self):
            raise InputError(
                "row-out-of-range",
                f"A row of vocabulary {self.name!r} must be 1..{len(self) - 1}."
                f" Received: {row}.",
            )
        external: ExternalId = self.ids[int(row)]
        return external

    def save(self, path: str | Path) -> None:
        """Writes the Arrow IPC file: columns `id` (null in record 0) and `count`."""
        with atomic_file(path) as temporary:
            pl.DataFrame({"id": self.ids, "count": self.counts}).write_ipc(temporary)

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Reads what `save` wrote; raises `ArtifactError` for anything else."""
        path = Path(path)
        try:
            frame = pl.read_ipc(path)
            counts = frame["count"].cast(pl.Int64).to_numpy()
            return cls(unquote(path.stem), frame["id"][1:], counts[1:])
        except (OSError, pl.exceptions.PolarsError, InputError) as error:
            raise ArtifactError(
                "vocabulary-unreadable",
                "A vocabulary must be an Arrow file with columns id and count."
                f" Reading it failed: {error}. Restore the file or prepare again.",
                file=path,
            ) from error

    def _converted(self, external_id: ExternalId) -> ExternalId | None:
        if not self.is_integer:
            return str(external_id) if isinstance(external_id, int) else None
        try:
            number = int(external_id)
        except ValueError:
            return None
        # "007" and " 7" are other ids than 7.
        return number if str(number) == external_id else None


def vocabulary_file(name: str) -> str:
    """File of a vocabulary in its folder; "a/b" is percent-encoded as "a%2Fb"."""
    return f"{quote(name, safe=' ')}.arrow"


def _count(values: pl.Series) -> pl.DataFrame:
    """Columns `id` and `count` of the values that are not null."""
    occurrences = pl.DataFrame({"id": values.drop_nulls()}).group_by("id")
    return occurrences.agg(pl.len().cast(pl.Int64).alias("count"))

"""Maps external ids to rows and back; the first rows are out-of-vocabulary.

External ids never enter a graph: only the vocabulary turns a string or a 64-bit id into
a row.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import polars as pl
import pyarrow as pa

from shortlist.atomic import atomic_file
from shortlist.data.kernels.ids import IdMap, hash_values
from shortlist.errors import ArtifactError, InputError

ExternalId = str | int

UNREADABLE = (OSError, ValueError, pa.ArrowException, pl.exceptions.PolarsError)
"""Exceptions of reading a damaged file, or one that is not an Arrow file."""

# Types of the columns of a frame, or of the lists in them.
_PLAIN = (
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_null,
)


class Vocabulary:
    """A fixed map from external ids to rows; the first rows are for all other ids.

    Args:
        name: name of the vocabulary and of the table it indexes.
        ids: unique ids, Int64 or String, in row order beginning at row `oov_buckets`.
        counts: a number per id, int64: for users the training events, for items the
            events before the test part, for features the occurrences.
        oov_buckets: rows 0 to n - 1 for ids outside the vocabulary: a missing id has
            row 0, an unknown one row hash % n.

    Raises:
        InputError: ids of another type, missing or repeated, counts of another length,
            or no row for unknown ids.
    """

    def __init__(
        self, name: str, ids: pl.Series, counts: np.ndarray, oov_buckets: int = 1
    ) -> None:
        if ids.dtype not in (pl.Int64, pl.String):
            raise InputError(
                "vocabulary-id-type",
                "Ids must be integers or strings. Received: "
                f"{ids.dtype} in vocabulary {name!r}. Convert the column.",
            )
        if oov_buckets < 1 or ids.null_count():
            raise InputError(
                "vocabulary-inconsistent",
                f"Vocabulary {name!r} must have a row for unknown ids, and no id may be"
                f" missing. Received: oov_buckets={oov_buckets} and"
                f" {ids.null_count()} missing ids.",
            )
        self.name = name
        self.oov_buckets = oov_buckets
        unknown = pl.Series("id", [None] * oov_buckets, dtype=ids.dtype)
        self.ids = pl.concat([unknown, ids.alias("id")])
        zeros = np.zeros(oov_buckets, np.int64)
        self.counts = np.concatenate([zeros, np.asarray(counts, np.int64)])
        # The row of an id is its code plus the rows for unknown ids.
        self._codes = IdMap(ids.dtype)
        self._codes.add(ids)
        if len(self._codes) != len(ids) or len(self.counts) != len(self.ids):
            raise InputError(
                "vocabulary-inconsistent",
                f"Ids of vocabulary {name!r} must be unique, one count each. Received:"
                f" {len(ids)} ids, {len(self._codes)} of them distinct,"
                f" {len(self.counts) - oov_buckets} counts.",
            )

    @classmethod
    def from_counts(
        cls,
        name: str,
        ids: pl.Series,
        counts: np.ndarray,
        *,
        min_count: int = 1,
        max_size: int | None = None,
        oov_buckets: int = 1,
    ) -> Vocabulary:
        """Builds a vocabulary from counted ids: most frequent first, then by id.

        Args:
            name: name of the vocabulary.
            ids: unique ids, Int64 or String.
            counts: occurrences of each, `(n,)` int64.
            min_count: rarer ids are left out-of-vocabulary.
            max_size: most ids to keep, in that order.
            oov_buckets: rows for the ids left out and all others.
        """
        if len(ids) != len(counts):
            raise InputError(
                "vocabulary-inconsistent",
                f"Ids of vocabulary {name!r} must be unique, one count each. Received:"
                f" {len(ids)} ids and {len(counts)} counts.",
            )
        kept = _limited(_counted(ids, counts), min_count, max_size)
        return cls(name, kept["id"], kept["count"].to_numpy(), oov_buckets)

    @classmethod
    def fit(
        cls,
        name: str,
        values: pl.Series,
        *,
        min_count: int = 1,
        max_size: int | None = None,
        oov_buckets: int = 1,
        counted: pl.Series | None = None,
    ) -> Vocabulary:
        """Builds a vocabulary from the values of a column, most frequent first.

        Args:
            name: name of the vocabulary.
            values: occurrences, Int64 or String; nulls are skipped.
            min_count: rarer ids are left out-of-vocabulary.
            max_size: most ids to keep, the most frequent first.
            oov_buckets: rows for the ids left out and all others.
            counted: the occurrences that `counts` counts; `values` by default.
        """
        rows = _limited(count_values(values), min_count, max_size)
        if counted is not None:
            rows = _with_counts(rows, count_values(counted))
        return cls(name, rows["id"], rows["count"].to_numpy(), oov_buckets)

    def __len__(self) -> int:
        """Number of rows, those of unknown ids included."""
        return len(self.ids)

    @property
    def is_integer(self) -> bool:
        """Whether the external ids are integers."""
        return self.ids.dtype == pl.Int64

    def row(self, external_id: ExternalId | None) -> int:
        """Row of one id; `"7"` finds the integer 7 and 7 finds `"7"`.

        A missing id has row 0. An unknown id, also one that is neither text nor an
        integer, has row 0 too, or the row of its hash if there are several.
        """
        if external_id is None:
            return 0
        code = self._codes.find_one(external_id)
        if code < 0 and (converted := self._converted(external_id)) is not None:
            code = self._codes.find_one(converted)
        if code >= 0:
            return code + self.oov_buckets
        if self.oov_buckets == 1:
            return 0
        return int(bucket_rows(pl.Series([str(external_id)]), self.oov_buckets)[0])

    def lookup(self, external_ids: Iterable[ExternalId | None]) -> np.ndarray:
        """Rows `(n,)` int32 of many ids; missing and unknown ids as in `row`."""
        return np.fromiter((self.row(i) for i in external_ids), np.int32)

    def lookup_series(self, ids: pl.Series) -> np.ndarray:
        """Rows `(n,)` int32 of a column; nulls become 0, unknown ids as in `row`.

        Ids of another type than the vocabulary's are compared as text.
        """
        keys = ids
        if ids.dtype != self.ids.dtype:
            ids = keys = ids.cast(pl.String)
            if self.is_integer:
                keys = _usual_integers(ids)
        codes = self._codes.find(keys)
        if self.oov_buckets == 1:
            return codes + np.int32(1)
        unknown = bucket_rows(ids, self.oov_buckets)
        return np.where(codes >= 0, codes + np.int32(self.oov_buckets), unknown)

    def id(self, row: int) -> ExternalId:
        """External id of a row from `oov_buckets` on."""
        if not self.oov_buckets <= row < len(self):
            raise InputError(
                "row-out-of-range",
                f"A row of vocabulary {self.name!r} must be"
                f" {self.oov_buckets}..{len(self) - 1}. Received: {row}.",
            )
        external: ExternalId = self.ids[int(row)]
        return external

    def save(self, path: str | Path) -> None:
        """Writes the Arrow IPC file: columns `id` and `count`.

        `id` is null in the first `oov_buckets` records and nowhere else.
        """
        with atomic_file(path) as temporary:
            write_frame(pl.DataFrame({"id": self.ids, "count": self.counts}), temporary)

    @classmethod
    def load(cls, path: str | Path, raw: bytes | None = None) -> Vocabulary:
        """Reads what `save` wrote; raises `ArtifactError` for anything else.

        Args:
            path: the file; its name is that of the vocabulary.
            raw: bytes of the file, if they were read already.
        """
        path = Path(path)
        try:
            frame = read_frame(path, raw)
            ids, counts = frame["id"], frame["count"].cast(pl.Int64).to_numpy()
            known = ids.is_not_null().arg_max() if ids.null_count() < len(ids) else None
            unknown = len(ids) if known is None else known
            name = unquote(path.stem)
            return cls(name, ids[unknown:], counts[unknown:], unknown)
        except UNREADABLE as error:
            raise ArtifactError(
                "vocabulary-unreadable",
                "The file is not a vocabulary, an Arrow file with columns id and count:"
                f" {error}. Restore it or prepare again.",
                file=path,
            ) from error

    def _converted(self, external_id: ExternalId) -> ExternalId | None:
        if not self.is_integer:
            is_integer = isinstance(external_id, int | np.integer)
            return str(external_id) if is_integer else None
        if not isinstance(external_id, str):
            return None
        try:
            number = int(external_id)
        except ValueError:
            return None
        # "007" and " 7" are not the id 7.
        return number if str(number) == external_id else None


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Writes an Arrow IPC file that old readers can read, too."""
    frame.write_ipc(path, compat_level=pl.CompatLevel.oldest())


def read_frame(path: Path, raw: bytes | np.ndarray | None = None) -> pl.DataFrame:
    """Reads what `write_frame` wrote; checks every length and text.

    Args:
        path: the file.
        raw: its bytes, if they have been read already.

    Raises:
        OSError, ValueError, pa.ArrowException, pl.exceptions.PolarsError: it is not
            such a file; `UNREADABLE` lists them.
    """
    if raw is not None:
        table = pa.ipc.open_file(pa.py_buffer(raw)).read_all()
    elif not path.is_file():  # a pipe would be waited for
        raise FileNotFoundError(errno.ENOENT, "there is no such file", str(path))
    else:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
    for field in table.schema:
        kind = field.type.value_type if _is_list(field.type) else field.type
        if not any(is_kind(kind) for is_kind in _PLAIN):
            raise ValueError(f"column {field.name!r} is of type {field.type}")
    table.validate(full=True)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def vocabulary_file(name: str) -> str:
    """File of a vocabulary in its folder; "a/b" is percent-encoded as "a%2Fb"."""
    return f"{quote(name, safe=' ')}.arrow"


def _usual_integers(texts: pl.Series) -> pl.Series:
    """Texts as Int64; null for a text that is not the usual form of an integer."""
    numbers = texts.cast(pl.Int64, strict=False)
    is_usual = numbers.cast(pl.String) == texts
    return numbers.set(~is_usual.fill_null(False), None)


def count_values(values: pl.Series) -> pl.DataFrame:
    """Columns `id` and `count` (Int64) of the values that are not null."""
    occurrences = pl.DataFrame({"id": values.drop_nulls()}).group_by("id")
    return occurrences.agg(pl.len().cast(pl.Int64).alias("count"))


def bucket_rows(values: pl.Series, num_buckets: int) -> np.ndarray:
    """Hash of each value modulo `num_buckets`, `(n,)` int32; 0 for a null.

    Integers hash as their decimal text, so 7 and "7" share a bucket.
    """
    return (hash_values(values) % np.uint64(num_buckets)).astype(np.int32)


def _counted(ids: pl.Series, counts: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({"id": ids, "count": np.asarray(counts, np.int64)})


def _limited(
    counted: pl.DataFrame, min_count: int, max_size: int | None
) -> pl.DataFrame:
    """The ids a vocabulary keeps, in the order of its rows."""
    rows = counted.filter(pl.col("count") >= min_count)
    rows = rows.sort(["count", "id"], descending=[True, False])
    return rows if max_size is None else rows.head(max_size)


def _with_counts(rows: pl.DataFrame, counted: pl.DataFrame) -> pl.DataFrame:
    """The same ids with their counts in `counted`, or 0."""
    joined = rows.select("id").join(counted, on="id", how="left", maintain_order="left")
    return joined.with_columns(pl.col("count").fill_null(0))

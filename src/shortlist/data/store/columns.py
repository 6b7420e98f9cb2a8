"""Columns of memory-mapped Arrow IPC files, read in place, chunk by chunk.

Knows number types, lists and chunks; knows nothing of schemas, parts or what a column
means. A chunk is a record batch. Files may store a column in integers of different
widths: each chunk is read in its own type, and the values are widened.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shortlist.data.kernels import gather
from shortlist.data.kernels.buffer_pool import BufferPool
from shortlist.data.kernels.gather import Column
from shortlist.data.store.ragged import offsets_of
from shortlist.errors import ArtifactError, InputError, did_you_mean

# What a column may contain; "other" cannot be read.
_INTEGERS, _FLOATS, _OTHER = "integers", "floats", "other"
_MOST_ROWS = 2**40


class Columns:
    """The number and list columns of some files, one file after the other.

    Made with `Columns.open` or `Columns.from_arrays`. Columns with nulls are refused.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        starts: np.ndarray,
        stored: Mapping[str, Sequence[Any]],
        files: Sequence[Path | None],
    ) -> None:
        self.names = names
        self._starts = starts
        self._stored = stored
        self._files = files
        self._columns: dict[str, Column] = {}

    @classmethod
    def open(cls, files: Sequence[str | Path]) -> Columns:
        """The rows of Arrow IPC files, one file after the other.

        The files are mapped, not read, except for batches compressed with zstd or lz4,
        and boolean or dictionary columns at their first use. They must have the same
        columns, each of integers, floats or lists of these in all files.

        Raises:
            InputError: `invalid-argument` without a file.
            ArtifactError: `columns-unreadable` or `columns-differ`.
        """
        paths = [Path(file) for file in files]
        if not paths:
            raise InputError(
                "invalid-argument", "`files` must name at least one file. Received: []."
            )
        batches: list[Any] = []
        owners: list[Path] = []
        kinds: dict[str, str] = {}
        for path in paths:
            schema, of_file = _batches(path)
            found = {field.name: _kind(field.type) for field in schema}
            kinds = kinds or found
            _check_same(kinds, found, path)
            batches += of_file
            owners += [path] * len(of_file)
        if not batches:
            batches, owners = [pa.RecordBatch.from_pylist([], schema)], [paths[-1]]
        names = tuple(name for name, kind in kinds.items() if kind != _OTHER)
        stored = {name: [batch.column(name) for batch in batches] for name in kinds}
        return cls(
            names, offsets_of([batch.num_rows for batch in batches]), stored, owners
        )

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Columns:
        """Columns over arrays in memory, `(rows,)` or `(rows, width)`; none is copied.

        Raises:
            InputError: `columns-differ` for arrays of different lengths or shapes.
        """
        lengths = {len(a) if a.ndim in (1, 2) else -1 for a in arrays.values()}
        if len(lengths) != 1 or -1 in lengths:
            shapes = {name: array.shape for name, array in arrays.items()}
            raise InputError(
                "columns-differ",
                "Columns must be 1-D or 2-D arrays of one length, at least one."
                f" Received shapes: {shapes}. Give every column one value or list"
                " per row.",
            )
        return cls.from_chunks({name: [array] for name, array in arrays.items()})

    @classmethod
    def from_chunks(cls, chunks: Mapping[str, Sequence[np.ndarray]]) -> Columns:
        """Columns over arrays in memory, several for each column; none is copied.

        Args:
            chunks: by name, of the same lengths for all columns.
        """
        stored = {
            name: [
                array[begin:end] for array in arrays for begin, end in _cuts(len(array))
            ]
            for name, arrays in chunks.items()
        }
        lengths = [len(array) for array in next(iter(stored.values()))]
        return cls(tuple(stored), offsets_of(lengths), stored, [None] * len(lengths))

    def __len__(self) -> int:
        """The number of rows."""
        return int(self._starts[-1])

    def rows_of(self, file: Path) -> int:
        """How many rows come from a file."""
        lengths = np.diff(self._starts).tolist()
        owners = zip(self._files, lengths, strict=True)
        return sum(length for owner, length in owners if owner == file)

    def kind(self, name: str) -> tuple[np.dtype, bool]:
        """The number type of the values that `take` returns, and whether in lists.

        Raises:
            InputError: `column-unknown` or `column-type`.
            ArtifactError: `column-nulls` or `columns-unreadable`.
        """
        column = self._column(name)
        return column.dtype, column.is_list

    def extents(self, name: str) -> Iterator[tuple[Path | None, int, int]]:
        """The minimum and maximum of each chunk of an integer column; none if empty.

        Yields: the file of the chunk, `None` in memory, and the two integers.

        Raises:
            InputError: `column-unknown` or `column-type`.
            ArtifactError: `column-nulls` or `columns-unreadable`.
        """
        chunks = zip(self._files, self._column(name).values, strict=True)
        for file, values in chunks:
            if values.size:
                yield file, int(values.min()), int(values.max())

    def take(
        self,
        rows: np.ndarray,
        names: Sequence[str] | None = None,
        *,
        threads: int | None = None,
        pool: BufferPool | None = None,
    ) -> dict[str, np.ndarray]:
        """The values of `rows`, in that order.

        Args:
            rows: `(n,)` integers, repeats allowed.
            names: the columns; all by default.
            threads: most threads to use; all processors by default. The result does
                not depend on it.
            pool: where the memory of large results comes from.

        Returns:
            By name `(n,)`, or `(n, length)` for lists. Integers and booleans of up to
            32 bits are int32, int64 and uint32 are int64, floats float32. Lists
            shorter than the longest of the column end with -1, or 0 for floats.

        Raises:
            InputError: `row-out-of-range`, `invalid-rows`, `column-unknown`,
                `column-type`.
            ArtifactError: `column-nulls`.
        """
        names = self.names if names is None else names
        columns = [self._column(name) for name in names]
        taken = gather.gather_rows(
            rows, self._starts, columns, threads=threads, pool=pool
        )
        return dict(zip(names, taken, strict=True))

    def column(self, name: str) -> np.ndarray:
        """All rows of a column, widened as by `take`; not copied where possible.

        The result may be a view of the file: do not write to it.

        Raises:
            InputError: `column-unknown` or `column-type`.
            ArtifactError: `column-nulls`.
        """
        column = self._column(name)
        everything = column.everything()
        if everything is None:
            return self.take(np.arange(len(self)), [name])[name]
        return everything

    def _column(self, name: str) -> Column:
        if name not in self._columns:
            self._columns[name] = self._read(name)
        return self._columns[name]

    def _read(self, name: str) -> Column:
        if name not in self._stored:
            raise InputError(
                "column-unknown",
                f"The columns are {', '.join(self.names)}. Received: {name!r}."
                + did_you_mean(name, self.names),
                column=name,
            )
        chunks = [
            _Place(name, file).lists(chunk)
            for chunk, file in zip(self._stored[name], self._files, strict=True)
        ]
        if len({values.shape[1:] for values, _ in chunks}) == 1 and not any(
            offsets is not None for _, offsets in chunks
        ):
            return Column(name, [values for values, _ in chunks])
        ragged = [_as_ragged(values, offsets) for values, offsets in chunks]
        return Column(name, [v for v, _ in ragged], [o for _, o in ragged])


@dataclasses.dataclass(frozen=True)
class _Place:
    """Turns a chunk into NumPy arrays; errors name its column and file."""

    name: str
    file: Path | None

    def lists(self, chunk: Any) -> tuple[np.ndarray, np.ndarray | None]:
        """The values of a chunk, and the offsets of lists of different lengths."""
        if isinstance(chunk, np.ndarray):
            return (chunk.view(np.uint8) if chunk.dtype == bool else chunk), None
        self._check(chunk)
        if pa.types.is_fixed_size_list(chunk.type):
            size = chunk.type.list_size
            # Not flatten(), which drops nulls.
            values = chunk.values.slice(chunk.offset * size, len(chunk) * size)
            return self._numbers(values).reshape(len(chunk), size), None
        if not _is_list(chunk.type):
            return self._numbers(chunk), None
        if not len(chunk):
            return self._numbers(chunk.values), np.zeros(1, np.int32)
        offsets = chunk.offsets.to_numpy()
        first, end = int(offsets[0]), int(offsets[-1])
        values = self._numbers(chunk.values.slice(first, max(end - first, 0)))
        return values, offsets - offsets.dtype.type(first) if first else offsets

    def _numbers(self, array: Any) -> np.ndarray:
        if pa.types.is_dictionary(array.type):
            try:
                array.validate(full=True)  # decoding follows its indices
            except pa.ArrowException as error:
                raise _unreadable(self.file, error) from error
            array = array.dictionary_decode()
        self._check(array)
        if pa.types.is_boolean(array.type):
            flags: np.ndarray = array.to_numpy(zero_copy_only=False)
            return flags.view(np.uint8)
        numbers: np.ndarray = array.to_numpy()
        return numbers

    def _check(self, array: Any) -> None:
        if _kind(array.type) == _OTHER:
            raise InputError(
                "column-type",
                "A column of a batch must hold integers of up to 64 bits, with sign,"
                f" floats, booleans or lists of these. Received: {array.type}. Convert"
                " it before writing the file, or leave it out.",
                file=self.file,
                column=self.name,
            )
        if array.null_count:
            raise ArtifactError(
                "column-nulls",
                "A column must have a value in every row and in every element of a"
                f" list. Received: {array.null_count} nulls in a batch of"
                f" {len(array)}. Fill them before writing the file.",
                file=self.file,
                column=self.name,
            )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _kind(kind: pa.DataType) -> str:
    """What a column of an Arrow type contains: equal for types that may be mixed."""
    if pa.types.is_dictionary(kind):
        return _kind(kind.value_type)
    if _is_list(kind) or pa.types.is_fixed_size_list(kind):
        of_values = _kind(kind.value_type)
        return f"lists of {of_values}" if of_values in (_INTEGERS, _FLOATS) else _OTHER
    if pa.types.is_uint64(kind):
        return _OTHER
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return _INTEGERS
    return _FLOATS if pa.types.is_floating(kind) else _OTHER


def _as_ragged(
    values: np.ndarray, offsets: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    if offsets is None:
        rows, size = values.shape
        return values.reshape(-1), np.arange(rows + 1) * size
    return values, offsets


def _batches(path: Path) -> tuple[pa.Schema, list[Any]]:
    """The schema and the batches of a file, over its memory map.

    The lengths that a batch claims are compared with its buffers; the offsets of lists
    are checked at the first use of their column.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise FileNotFoundError(errno.ENOENT, "there is no such file", str(path))
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            whole = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        for batch in whole:
            _check_batch(batch)
        names = reader.schema.names  # ValueError for names that are no text
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    if len(set(names)) < len(names):
        raise ArtifactError(
            "columns-unreadable",
            f"Column names must be unique. Received: {names}. Rename some.",
            file=path,
        )
    batches = [
        batch.slice(begin, end - begin)
        for batch in whole
        for begin, end in _cuts(batch.num_rows)
        if begin < end
    ]
    return reader.schema, batches


def _check_batch(batch: Any) -> None:
    """Raises unless the buffers of a batch contain the rows that it claims."""
    if batch.num_rows > _MOST_ROWS:  # for a batch without buffers
        raise ValueError(f"a batch claims {batch.num_rows:,} rows")
    batch.validate()


def _unreadable(path: Path | None, error: Exception) -> ArtifactError:
    return ArtifactError(
        "columns-unreadable",
        f"The file is not a readable Arrow IPC file: {error}. Write it with polars"
        " write_ipc or pyarrow.ipc.new_file.",
        file=path,
    )


def _check_same(kinds: dict[str, str], found: dict[str, str], path: Path) -> None:
    if found == kinds:
        return
    names = [name for name in {**kinds, **found} if kinds.get(name) != found.get(name)]
    first = names[0]
    raise ArtifactError(
        "columns-differ",
        "Every file must have the columns of the first, of the same types."
        f" Received: {found.get(first, 'no such column')} in place of"
        f" {kinds.get(first, 'no such column')}. Write the files with one schema.",
        file=path,
        column=first,
    )


def _cuts(num_rows: int) -> list[tuple[int, int]]:
    """Begin and end of the chunks of `num_rows` rows, at least one."""
    most = gather.MOST_ROWS_OF_CHUNK
    begins = range(0, max(num_rows, 1), most)
    return [(begin, min(begin + most, num_rows)) for begin in begins]

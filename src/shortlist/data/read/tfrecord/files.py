"""Reads TFRecord files as blocks of columns, and reports damaged records.

Memory holds one block at a time, or one record if that is larger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from shortlist.data.kernels.tfrecord import read_records
from shortlist.data.kernels.tfrecord_twin import (
    FOOTER_BYTES,
    HEADER_BYTES,
    NO_KIND,
    RecordBlock,
    RecordFault,
    feature_names,
    header_length,
)
from shortlist.data.read.layouts import inspect_file
from shortlist.data.read.log_file import LogFile, damaged, open_bytes
from shortlist.errors import LogError, did_you_mean

_BLOCK_BYTES = 1 << 24
_KIND_NAMES = ("no", "bytes", "float", "int64")


class RecordReader:
    """Reads files with the same features as the first record.

    Args:
        columns: the features wanted, in this order; all of them, sorted by name, by
            default; then all records must have the same features. With `columns`,
            other features may differ.
    """

    def __init__(self, columns: Sequence[str] | None) -> None:
        self._wanted = None if columns is None else list(dict.fromkeys(columns))
        self._features: list[bytes] | None = None
        self.names: list[str] = []
        self.kinds: list[int] = []

    def blocks(self, path: str | Path) -> Iterator[RecordBlock]:
        """The records of a file, block after block, in file order.

        Raises:
            LogError: the file cannot be read (`log-file-...`, `log-empty`), a checksum
                does not fit (`log-record-checksum`), it is cut (`log-file-damaged`), a
                record is no Example (`log-record-example`), features differ between
                records (`log-record-fields`) or a feature has values of two types
                (`log-mixed-types`), each with the record as the row; or a column is
                missing (`log-column-missing`).
        """
        file = inspect_file(path, "tfrecord")
        pending, records = b"", 0
        with open_bytes(file.path, file.compression) as stream:
            # A record larger than a block is read in steps that double.
            while chunk := _read_some(stream, max(_BLOCK_BYTES, len(pending)), file):
                pending += chunk
                if self._features is None and not self._settle(pending, file):
                    continue
                block = self._read(pending, file, records)
                pending = pending[block.consumed :]
                records += block.records
                if block.records:
                    yield block
        if pending:
            reason = f"the file ends {len(pending)} bytes after a record begins"
            raise damaged(file.path, reason, row=records + 1)

    def _read(self, data: bytes, file: LogFile, records: int) -> RecordBlock:
        features = self._features or []
        block = read_records(
            data, features, self.kinds, only_these=self._wanted is None
        )
        if block.fault is not None:
            raise _record_error(block.fault, file, records, self._kind_of(block.fault))
        for place, column in enumerate(block.columns):
            self.kinds[place] = self.kinds[place] or column.kind
        return block

    def _kind_of(self, fault: RecordFault) -> int:
        features = self._features or []
        if fault.feature not in features:
            return NO_KIND
        return self.kinds[features.index(fault.feature)]

    def _settle(self, data: bytes, file: LogFile) -> bool:
        """Finds the features, if the first record is there as a whole."""
        length = header_length(data)
        end = HEADER_BYTES + (length or 0)
        if len(data) < HEADER_BYTES or (length and len(data) < end + FOOTER_BYTES):
            return False
        features = feature_names(memoryview(data)[HEADER_BYTES:end])
        first = read_records(
            data[: end + FOOTER_BYTES], [], [], only_these=False, threads=1
        )
        if first.fault is not None:
            raise _record_error(first.fault, file, 0, NO_KIND)
        try:
            names = [name.decode() for name in features]
        except UnicodeDecodeError:
            names = []
        if not names:
            fault = RecordFault("not-example", 0, b"")
            raise _record_error(fault, file, 0, NO_KIND)
        for name in self._wanted or []:
            _check_column(name, names, file)
        self.names = names if self._wanted is None else self._wanted
        self._features = [name.encode() for name in self.names]
        self.kinds = [NO_KIND] * len(self.names)
        return True


def _read_some(stream: pa.NativeFile, size: int, file: LogFile) -> bytes:
    try:
        return bytes(stream.read(size))
    except OSError as error:
        raise damaged(file.path, error) from error


def _record_error(
    fault: RecordFault, file: LogFile, records: int, kind: int
) -> LogError:
    """A fault of a block; `records` is how many came before the block."""
    column = fault.feature.decode(errors="replace") or None
    code, message = _in_words(fault.fault, column, kind)
    row = records + fault.record + 1
    return LogError(code, message, file=file.path, column=column, row=row)


def _in_words(fault: str, column: str | None, kind: int) -> tuple[str, str]:
    if fault in ("length-checksum", "data-checksum"):
        return (
            "log-record-checksum",
            f"The {fault.removesuffix('-checksum')} of every record must fit its"
            " checksum. Found one that does not: the file was damaged, or it is no"
            " TFRecord. Fetch or export it again.",
        )
    if fault == "mixed-kinds":
        return (
            "log-mixed-types",
            "A feature must have values of one type in all records. Found another type"
            f" after {_KIND_NAMES[kind]} values. Write one type.",
        )
    if fault in ("feature-missing", "feature-unknown"):
        found = "is missing in" if fault == "feature-missing" else "is new in"
        return (
            "log-record-fields",
            f"All records must have the features of the first. Found that {column!r}"
            f" {found} this one. Write every feature in every record, an empty list if"
            " need be, or name the columns that all records have.",
        )
    return (
        "log-record-example",
        "Every record must be a tf.train.Example of at least one feature and less than"
        " 2 GiB. Found other content. Write the table as Examples, or leave this file"
        " out.",
    )


def _check_column(name: str, names: Sequence[str], file: LogFile) -> None:
    if name not in names:
        raise LogError(
            "log-column-missing",
            f"The records must have a feature {name!r}.{did_you_mean(name, names)}"
            f" Found the features {list(names)}. Name one of them.",
            file=file.path,
            column=name,
        )

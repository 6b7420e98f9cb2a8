"""One table in one safetensors file: rows, optimizer state and training progress.

Written and read in blocks, so that a table may be larger than half of the memory. Any
safetensors reader opens the files. Knows tables and bytes; knows nothing of Keras.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.atomic import atomic_file
from shortlist.embeddings.table import Table
from shortlist.errors import ArtifactError, ResourceError

_FORMAT = "shortlist-table-1"
_BLOCK_BYTES = 2**22
_MAX_HEADER_BYTES = 2**20
_MAX_STEP = 2**40
_MAX_SEED = 2**63
_CODES = {"float64": "F64", "float32": "F32", "float16": "F16", "int32": "I32"}


@dataclass(frozen=True, kw_only=True)
class TableProgress:
    """How far the training of a table is.

    Args:
        step: number of updates.
        last_rate: corrected learning rate of the last of them; 0 for most rules.
        seed: of stochastic rounding.
    """

    step: int
    last_rate: float
    seed: int

    @classmethod
    def of(cls, table: Table) -> TableProgress:
        """The progress of `table`."""
        return cls(step=table.step, last_rate=table.last_rate, seed=table.seed)

    @classmethod
    def parse(cls, values: dict[str, Any]) -> TableProgress:
        """Parses the numbers, or their texts.

        Raises:
            ValueError, KeyError, TypeError: a number is missing or not valid.
        """
        found = cls(
            step=int(values["step"]),
            last_rate=float(values["last_rate"]),
            seed=int(values["seed"]),
        )
        if not 0 <= found.step < _MAX_STEP or not math.isfinite(found.last_rate):
            raise ValueError(f"step {found.step}, last_rate {found.last_rate}")
        if not 0 <= found.seed < _MAX_SEED:
            raise ValueError(f"seed {found.seed}")
        return found


def arrays_of(table: Table) -> dict[str, np.ndarray]:
    """The arrays that make up a table, by name; not copied.

    `rows`, the slots of the rule, and `moves` `(step + 1,)` where it remembers steps.
    """
    arrays = {"rows": table.rows, **table.slots}
    if table.rule.remembers_steps:
        arrays["moves"] = table.moves[: table.step + 1]
    return arrays


def restore(table: Table, progress: TableProgress, moves: np.ndarray | None) -> None:
    """Sets the step, the seed and the moves of a table."""
    table.step, table.seed = progress.step, progress.seed
    table.last_rate = progress.last_rate
    table.moves = np.zeros(max(64, 1 << progress.step.bit_length()))
    if moves is not None:
        table.moves[: len(moves)] = moves


def check_layout(
    path: object, table: Table, kind: str, found: dict[str, str], step: int
) -> None:
    """Raises unless stored arrays are those of `table` at `step`.

    Args:
        path: named in the message.
        table: the table to load.
        kind: the update rule whose state is stored.
        found: type and shape of each stored array, as `layout` returns them.
        step: number of updates of the stored table.

    Raises:
        ArtifactError: `checkpoint-mismatch`.
    """
    expected = layout(arrays_of(table), is_bfloat16=table.row_type == "bfloat16")
    if "moves" in expected:
        expected["moves"] = f"F64 [{step + 1}]"
    if (kind, found) != (table.rule.kind, expected):
        raise ArtifactError(
            "checkpoint-mismatch",
            f"The checkpoint has table {table.name!r} with {kind} and {_listed(found)},"
            f" but the table to load has {table.rule.kind} and {_listed(expected)}."
            " Give the table the configuration it was saved with, or load another"
            " checkpoint. Nothing was loaded.",
            file=path,
        )


def layout(arrays: dict[str, np.ndarray], *, is_bfloat16: bool) -> dict[str, str]:
    """Type and shape of each array as text; `rows` may hold the bits of bfloat16."""
    codes = {name: _CODES.get(a.dtype.name, a.dtype.name) for name, a in arrays.items()}
    if is_bfloat16:
        codes["rows"] = "BF16"
    return {name: f"{codes[name]} {list(arrays[name].shape)}" for name in arrays}


def unreadable(path: object, reason: str) -> ArtifactError:
    """The error of a checkpoint that is missing or damaged."""
    return ArtifactError(
        "checkpoint-unreadable",
        f"The checkpoint is incomplete or damaged: {reason}. Copy it again with its"
        " folder of tables, or load another checkpoint. Nothing was loaded.",
        file=path,
    )


def write_table(path: str | Path, table: Table) -> str:
    """Writes a table atomically; an existing file is replaced.

    Returns: the SHA-256 of the file, in hexadecimal digits.

    Raises:
        ResourceError: `no-space`, `read-only` or `no-permission`; nothing is left.
    """
    # The widest numbers come first, so that all arrays are aligned.
    arrays = sorted(arrays_of(table).items(), key=lambda one: -one[1].itemsize)
    digest = hashlib.sha256()
    with atomic_file(path) as temporary, open(temporary, "wb") as stream:
        head = _header(table, dict(arrays))
        for block in (memoryview(head), *(b for _, a in arrays for b in _blocks(a))):
            stream.write(block)
            digest.update(block)
    return digest.hexdigest()


def read_table(path: str | Path, table: Table, sha256: str) -> None:
    """Checks a file and reads it into `table`, which must be of its shape.

    Args:
        path: the file.
        table: its rows and state are overwritten in place.
        sha256: hexadecimal digits that `write_table` returned.

    Raises:
        ArtifactError: `checkpoint-unreadable` or `checkpoint-mismatch`; the table is
            unchanged.
    """
    with TableFile(path, table, sha256) as checked:
        checked.read()


class TableFile:
    """A file that was checked against a table and can be read into it.

    It stays open after the check, so replacing the file in between does not matter. Use
    it in a `with` statement or call `close`.

    Args:
        path: the file.
        table: the table it must match; unchanged before `read`.
        sha256: hexadecimal digits of the hash it must have.

    Raises:
        ArtifactError: `checkpoint-unreadable` or `checkpoint-mismatch`.
        ResourceError: `no-permission`.
    """

    def __init__(self, path: str | Path, table: Table, sha256: str) -> None:
        self.path = Path(path)
        self.table = table
        try:
            # A pipe would wait for its writer; a regular file ignores the flag.
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        except PermissionError as error:
            raise ResourceError(
                "no-permission",
                f"Cannot read {str(path)!r}: {error.strerror}. Change its permissions.",
                file=path,
            ) from error
        except (OSError, ValueError) as error:
            reason = f"{self.path.name!r} cannot be opened: {error}"
            raise unreadable(path, reason) from error
        try:
            self._begins, self.progress = self._check_header()
            self._check_hash(sha256)
        except OSError as error:
            self.close()
            raise unreadable(path, f"reading failed: {error}") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> TableFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def read(self) -> None:
        """Reads rows and state into the table, in place.

        Raises:
            ArtifactError: `checkpoint-unreadable`: the disk failed, or the file was cut
                after the check. Only then the table is partly overwritten.
        """
        moves = np.zeros(self.progress.step + 1)
        for name, begin in self._begins.items():
            array = moves if name == "moves" else arrays_of(self.table)[name]
            for block in _blocks(array):
                self._fill(block, begin)
                begin += len(block)
        restore(self.table, self.progress, moves if "moves" in self._begins else None)

    def _check_header(self) -> tuple[dict[str, int], TableProgress]:
        """The offsets of the arrays in the file, and the progress of the table."""
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise unreadable(self.path, "it is not a regular file")
        try:
            length = int.from_bytes(os.pread(self._descriptor, 8, 0), "little")
            if not 0 < length <= min(_MAX_HEADER_BYTES, status.st_size - 8):
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(os.pread(self._descriptor, length, 8))
            metadata = header.pop("__metadata__")
            if metadata["format"] != _FORMAT:
                raise ValueError(f"format {metadata['format']!r}")
            progress = TableProgress.parse(metadata)
            found = {
                name: f"{one['dtype']} {list(map(int, one['shape']))}"
                for name, one in header.items()
            }
            offsets = {
                name: (int(one["data_offsets"][0]), int(one["data_offsets"][1]))
                for name, one in header.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise unreadable(self.path, f"its header is damaged ({error!r})") from error
        check_layout(self.path, self.table, str(metadata["kind"]), found, progress.step)
        if metadata["name"] != self.table.name:
            raise unreadable(self.path, f"it has table {metadata['name']!r}")
        end = 0
        for name, (begin, stop) in sorted(offsets.items(), key=lambda one: one[1]):
            num_bytes = (
                8 * (progress.step + 1)
                if name == "moves"
                else arrays_of(self.table)[name].nbytes
            )
            if begin != end or stop != begin + num_bytes:
                raise unreadable(self.path, f"the place of {name!r} is damaged")
            end = stop
        if status.st_size != 8 + length + end:
            raise unreadable(
                self.path,
                f"it has {status.st_size:,} bytes, not {8 + length + end:,}: truncated",
            )
        begins = {name: 8 + length + begin for name, (begin, _) in offsets.items()}
        return begins, progress

    def _check_hash(self, sha256: str) -> None:
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_BLOCK_BYTES))
        at = 0
        while count := os.preadv(self._descriptor, [buffer], at):
            digest.update(buffer[:count])
            at += count
        if digest.hexdigest() != sha256:
            raise unreadable(
                self.path,
                f"its SHA-256 is {digest.hexdigest()}, not {sha256}: damaged, or of"
                " another save",
            )

    def _fill(self, block: memoryview, begin: int) -> None:
        done = 0
        while done < len(block):
            try:
                count = os.preadv(self._descriptor, [block[done:]], begin + done)
            except OSError as error:
                raise unreadable(self.path, f"reading failed: {error}") from error
            if not count:
                raise unreadable(self.path, "it was cut while it was read")
            done += count


def _header(table: Table, arrays: dict[str, np.ndarray]) -> bytes:
    metadata = {
        "format": _FORMAT,
        "name": table.name,
        "kind": table.rule.kind,
        "step": str(table.step),
        "last_rate": repr(float(table.last_rate)),
        "seed": str(table.seed),
    }
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        code = _CODES.get(array.dtype.name, "BF16")
        shape = list(array.shape)
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _blocks(array: np.ndarray) -> Iterator[memoryview]:
    """The bytes of a contiguous array, block by block; not copied."""
    whole = array.reshape(-1).view(np.uint8).data
    for begin in range(0, len(whole), _BLOCK_BYTES):
        yield whole[begin : begin + _BLOCK_BYTES]


def _listed(arrays: dict[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in sorted(arrays.items()))

"""Safetensors files as arrays that are views of the bytes of the file.

The NumPy reader of the library copies every tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from shortlist.errors import ArtifactError

TABLES: dict[str, type[np.number]] = {"F32": np.float32}
NUMBERS: dict[str, type[np.number]] = {"F32": np.float32, "I32": np.int32}


_LONGEST_HEADER = 100_000_000  # as in the safetensors library
_MOST_DIMENSIONS = 8


def save_tensors(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors to a safetensors file whose data begin at a multiple of 64 bytes.

    Tensors other than int32 are converted to float32.
    """
    from safetensors.numpy import save

    rows = {
        name: np.ascontiguousarray(v, np.int32 if v.dtype == np.int32 else np.float32)
        for name, v in tensors.items()
    }
    raw = memoryview(save(rows))
    data = 8 + int.from_bytes(raw[:8], "little")
    # A header may end in spaces. Without them the rows of a mapped table cross cache
    # lines, and a scan of 60,000 vectors takes an eighth longer.
    padding = -data % 64
    with open(path, "wb") as file:
        file.write((data - 8 + padding).to_bytes(8, "little"))
        file.write(raw[8:data])
        file.write(b" " * padding)
        file.write(raw[data:])


def tensors_in(
    data: np.ndarray, path: str | Path, *, integers: bool = False
) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, as views of its bytes.

    Args:
        data: bytes of the file, uint8.
        path: the file they come from, for messages.
        integers: whether int32 is allowed in addition to float32.

    Raises:
        ArtifactError: not a safetensors file (`tensors-unreadable`), or a tensor is
            of another type (`tensors-not-float32`).
    """
    types = NUMBERS if integers else TABLES
    header_bytes = int.from_bytes(data[:8].tobytes(), "little")
    begin = 8 + header_bytes
    if not 2 <= header_bytes <= min(len(data) - 8, _LONGEST_HEADER):
        raise _unreadable(f"a header of {header_bytes} bytes", path)
    try:
        header = msgspec.json.decode(
            data[8:begin].tobytes(), type=dict[str, msgspec.Raw]
        )
        header.pop("__metadata__", None)
        entries = {n: msgspec.json.decode(r, type=_Entry) for n, r in header.items()}
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise _unreadable(str(error), path) from error
    _check_places(entries, len(data) - begin, path)
    return {
        name: _tensor(data[begin:], name, entry, types, path)
        for name, entry in entries.items()
    }


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    """A tensor as the header describes it."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def _check_places(entries: Mapping[str, _Entry], size: int, path: str | Path) -> None:
    """Raises unless the tensors lie one after the other and fill the file."""
    end = 0
    for entry in sorted(entries.values(), key=lambda entry: entry.data_offsets):
        if entry.data_offsets[0] != end or entry.data_offsets[1] < end:
            raise _unreadable(f"offsets {entry.data_offsets} after {end}", path)
        end = entry.data_offsets[1]
    if end != size:
        raise _unreadable(f"tensors of {end} bytes in a file of {size}", path)


def _tensor(
    data: np.ndarray,
    name: str,
    entry: _Entry,
    types: Mapping[str, type[np.number]],
    path: str | Path,
) -> np.ndarray:
    dtype = types.get(entry.dtype)
    if dtype is None:
        raise ArtifactError(
            "tensors-not-float32",
            f"Tensors must be of type {[*types]}, tables float32. Received:"
            f" {entry.dtype} of {name!r}. Export the bundle again.",
            file=path,
        )
    begin, end = entry.data_offsets
    size = math.prod(entry.shape) * np.dtype(dtype).itemsize
    is_odd = len(entry.shape) > _MOST_DIMENSIONS or min(entry.shape, default=0) < 0
    if is_odd or size != end - begin:
        raise _unreadable(f"tensor {name!r} of another shape than its bytes", path)
    raw = data[begin:end]
    if raw.ctypes.data % np.dtype(dtype).alignment:  # another program wrote it
        raw = raw.copy()
    try:
        return raw.view(dtype).reshape(entry.shape)
    except ValueError as error:  # an empty tensor with a dimension that is too large
        raise _unreadable(f"tensor {name!r}: {error}", path) from error


def _unreadable(found: str, path: str | Path) -> ArtifactError:
    return ArtifactError(
        "tensors-unreadable",
        f"The safetensors file cannot be read: {found}. Copy or export the bundle"
        " again.",
        file=path,
    )

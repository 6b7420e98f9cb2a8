"""Safetensors files as memory-mapped arrays. Knows no bundle.

The library's own NumPy reader copies every tensor into memory; a server wants the
pages of a table only when their rows are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shortlist.errors import ArtifactError

TABLES: dict[str, type[np.number]] = {"F32": np.float32}
NUMBERS: dict[str, type[np.number]] = {"F32": np.float32, "I32": np.int32}


MAX_DIMS, MAX_ROWS = 8, 2**40


def save_tensors(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors to a safetensors file whose data begin at byte 64 x n.

    Those of int32 stay so, all others become float32.
    """
    from safetensors.numpy import save

    rows = {
        name: np.ascontiguousarray(v, np.int32 if v.dtype == np.int32 else np.float32)
        for name, v in tensors.items()
    }
    raw = memoryview(save(rows))
    data = 8 + int.from_bytes(raw[:8], "little")
    # The format lets a header end in spaces. Without them the rows of a mapped table
    # straddle cache lines, and a scan of 60,000 vectors takes an eighth longer.
    padding = -data % 64
    with open(path, "wb") as file:
        file.write((data - 8 + padding).to_bytes(8, "little"))
        file.write(raw[8:data])
        file.write(b" " * padding)
        file.write(raw[data:])


def map_tensors(path: str | Path, *, integers: bool = False) -> dict[str, np.ndarray]:
    """Maps every tensor of a safetensors file, read-only.

    Args:
        path: the file.
        integers: whether int32 is allowed beside float32.

    Raises:
        ArtifactError: not a safetensors file (`tensors-unreadable`), or a tensor is
            of another type (`tensors-not-float32`).
    """
    from safetensors import SafetensorError, safe_open

    try:
        # Opening checks the header: sizes, overlaps, holes. Only then is it used.
        with safe_open(path, framework="np") as checked:
            names = list(checked.keys())
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            "tensors-unreadable",
            f"A table file must be in the safetensors format. Reading it failed:"
            f" {error}. Copy or export the bundle again.",
            file=path,
        ) from error
    types = NUMBERS if integers else TABLES
    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_bytes))
    return {
        name: _map_tensor(Path(path), name, header[name], 8 + header_bytes, types)
        for name in names
    }


def _map_tensor(
    path: Path,
    name: str,
    entry: dict[str, Any],
    data: int,
    types: Mapping[str, type[np.number]],
) -> np.ndarray:
    dtype = types.get(entry["dtype"])
    if dtype is None:
        raise ArtifactError(
            "tensors-not-float32",
            f"Every tensor must be one of {[*types]}, every table float32. Tensor"
            f" {name!r} is {entry['dtype']}."
            " Export the bundle again.",
            file=path,
        )
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    if len(shape) > MAX_DIMS or any(size > MAX_ROWS for size in shape):
        raise ArtifactError(
            "tensors-unreadable",
            f"A tensor must have at most {MAX_DIMS} dimensions of at most {MAX_ROWS}."
            f" Tensor {name[:80]!r} has {len(shape)}, the largest {max(shape)}. Copy or"
            " export the bundle again.",
            file=path,
        )
    if begin == end:  # an empty map is refused by the system
        return np.zeros(shape, dtype)
    mapped = np.memmap(path, dtype, mode="r", offset=data + begin, shape=shape)
    # A plain view: `memmap` adds 1 us of Python to every slice taken from it.
    plain: np.ndarray = mapped.view(np.ndarray)
    return plain

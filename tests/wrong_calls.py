"""Calls of the compiled core with arguments that do not fit each other.

Run as a script: prints one JSON line `[name, error]` for each, before which a crash of
the core would end the process. Imports no tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from shortlist import native
from shortlist.data.kernels.permutation import round_keys

core: Any = native.core()

I32, I64, U64, F32 = np.int32, np.int64, np.uint64, np.float32
KEYS = round_keys((1,))


def zeros(size: int | tuple[int, ...], dtype: Any = I64) -> np.ndarray:
    return np.zeros(size, dtype)


def numbers(*values: int, dtype: Any = I64) -> np.ndarray:
    return np.array(values, dtype)


def buffers(*values: int) -> list[Any]:
    return [None, pa.py_buffer(numbers(*values))]


def views(*texts: str) -> list[Any]:
    return pa.array(texts, pa.string_view()).buffers()


def lying_view(buffer: int, place: int, length: int = 20) -> list[Any]:
    view = np.array([length, 0, buffer, place], np.uint32)
    return [None, pa.py_buffer(view), pa.py_buffer(b"x" * 30)]


def text_map() -> Any:
    table = core.TextMap(10)
    table.add(views("a", "bb"), 0, zeros(2, I32))
    return table


def int_map() -> Any:
    table = core.IntMap(10)
    table.add(buffers(4, 5), 0, zeros(2, I32))
    return table


class Stored:
    """Chunks of a column as `gather_rows` takes them."""

    def __init__(self, values: np.ndarray, offsets: np.ndarray | None = None) -> None:
        self.kept = values, offsets
        self.numbers = zeros((1, 6))
        self.numbers[0] = [values.ctypes.data, 0, 5, 0, len(values), 0]  # int32
        if offsets is not None:
            self.numbers[0, [1, 3, 5]] = [offsets.ctypes.data, 1, len(offsets)]

    def column(self, width: int = 1, wide: int = 0, **changes: int) -> tuple[Any, ...]:
        changed = self.numbers.copy()
        for place, value in changes.items():
            changed[0, int(place[1:])] = value
        return changed, width, wide


PLAIN = Stored(np.arange(4, dtype=I32))
RAGGED = Stored(np.arange(4, dtype=I32), numbers(0, 1, 3, 3, 4))
FALLING = Stored(np.arange(4, dtype=I32), numbers(0, 3, 1, 3, 4))
BEYOND = Stored(np.arange(4, dtype=I32), numbers(0, 1, 2, 3, 2**40))


def gather(
    columns: list[Any],
    outs: list[Any] | None = None,
    rows: np.ndarray | None = None,
    starts: np.ndarray | None = None,
) -> None:
    core.gather_rows(
        numbers(0, 3, 1) if rows is None else rows,
        numbers(0, 4) if starts is None else starts,
        columns,
        [zeros(3, I32)] if outs is None else outs,
        2,
    )


def histories(**changes: Any) -> None:
    given = {
        "offsets": numbers(0, 0, 2, 4),
        "timestamps": numbers(1, 2, 3, 4),
        "items": numbers(1, 2, 3, 4, dtype=I32),
        "users": numbers(1, 2),
        "moments": numbers(9, 9),
        "gap": -1,
        "out": zeros((2, 3), I32),
        "threads": 1,
    }
    core.gather_histories(**(given | changes))


def permute(size: int = 9, bits: int = 4, **changes: Any) -> None:
    given = {"keys": KEYS, "values": numbers(0, 8), "images": zeros(2)} | changes
    core.permute_rows(
        given["keys"],
        size,
        bits,
        given["values"],
        given.get("first", 0),
        False,
        given["images"],
    )


def blocks(**changes: Any) -> None:
    given = {
        "keys": KEYS,
        "size": 3,
        "bits": 2,
        "table": None,
        "block": 4,
        "gap": 2,
        "after_gap": 2,
        "positions": numbers(0, 9),
        "rows": zeros(2),
    }
    core.rows_of_blocks(*(given | changes).values())


def top_k(**changes: Any) -> None:
    given = {
        "queries": zeros((2, 3), F32),
        "items": zeros((5, 3), F32),
        "exclude_offsets": None,
        "exclude_indices": None,
        "scores": zeros((2, 4), F32),
        "indices": zeros((2, 4), I32),
        "threads": 2,
    }
    core.top_k(*(given | changes).values())


def excluding(*offsets: int) -> None:
    indices = numbers(0, 1, dtype=I32)
    top_k(exclude_offsets=numbers(*offsets), exclude_indices=indices)


def records(kinds: list[int], data: bytes = b"") -> None:
    core.read_records(np.frombuffer(data, np.uint8), [b"a"], kinds, True, 2)


CASES: dict[str, Callable[[], object]] = {
    # Maps of ids and hashes.
    "map-too-large": lambda: core.IntMap(2**31),
    "map-short-values": lambda: core.IntMap(9).add(buffers(1), 0, zeros(2, I32)),
    "map-offset-behind": lambda: core.IntMap(9).find(buffers(1), 1, zeros(1, I32)),
    "map-offset-huge": lambda: int_map().find(buffers(1), 2**63, zeros(1, I32)),
    "map-no-values": lambda: int_map().add([None, None], 0, zeros(1, I32)),
    "map-one-buffer": lambda: int_map().add([None], 0, zeros(1, I32)),
    "map-short-validity": lambda: int_map().add(
        [b"\1", buffers(*range(9))[1]], 0, zeros(9, I32)
    ),
    "map-codes-int64": lambda: int_map().add(buffers(1), 0, zeros(1)),
    "map-codes-matrix": lambda: int_map().add(buffers(1), 0, zeros((1, 1), I32)),
    "map-codes-strided": lambda: int_map().add(buffers(1), 0, zeros(4, I32)[::2]),
    "map-too-many-ids": lambda: int_map().copy_ids(zeros(3)),
    "text-view-of-no-buffer": lambda: text_map().add(
        lying_view(7, 0), 0, zeros(1, I32)
    ),
    "text-view-too-long": lambda: text_map().find(lying_view(0, 11), 0, zeros(1, I32)),
    "text-view-behind": lambda: core.hash_texts(
        lying_view(0, 2**32 - 1), 0, 0, zeros(1, U64)
    ),
    "text-short-views": lambda: core.hash_texts(views("a"), 0, 0, zeros(2, U64)),
    "text-too-many-ids": lambda: text_map().num_bytes(3),
    "text-copy-too-many": lambda: text_map().copy_ids(zeros(4), zeros(9, np.uint8)),
    "text-copy-short-bytes": lambda: text_map().copy_ids(zeros(3), zeros(2, np.uint8)),
    "text-copy-no-offsets": lambda: text_map().copy_ids(zeros(0), zeros(2, np.uint8)),
    "hash-short-values": lambda: core.hash_ints(buffers(1), 0, 0, zeros(2, U64)),
    # Orders by group.
    "groups-negative": lambda: core.group_order(
        numbers(0, -1, dtype=I32), zeros(2), 2, False, 1, zeros(2)
    ),
    "groups-above": lambda: core.group_order(
        numbers(0, 2, dtype=I32), zeros(2), 2, False, 1, zeros(2)
    ),
    "groups-of-none": lambda: core.group_order(
        zeros(2, I32), zeros(2), 0, False, 1, zeros(2)
    ),
    "groups-short-times": lambda: core.group_order(
        zeros(3, I32), zeros(2), 2, False, 1, zeros(3)
    ),
    "groups-short-order": lambda: core.group_order(
        zeros(3, I32), zeros(3), 2, False, 1, zeros(2)
    ),
    "groups-int64": lambda: core.group_order(zeros(3), zeros(3), 2, False, 1, zeros(3)),
    "offsets-of-nothing": lambda: core.group_offsets(zeros(0, I32), 1, zeros(0)),
    "offsets-group-above": lambda: core.group_offsets(
        numbers(5, dtype=I32), 1, zeros(3)
    ),
    "offsets-group-negative": lambda: core.group_offsets(
        numbers(-(2**31), dtype=I32), 1, zeros(3)
    ),
    # Gathers of rows.
    "rows-above": lambda: gather([PLAIN.column()], rows=numbers(0, 4, 1)),
    "rows-negative": lambda: gather([PLAIN.column()], rows=numbers(0, -1, 1)),
    "rows-int32": lambda: gather([PLAIN.column()], rows=numbers(0, 1, 2, dtype=I32)),
    "starts-too-far": lambda: gather([PLAIN.column()], starts=numbers(0, 5)),
    "starts-fall": lambda: gather([PLAIN.column()], starts=numbers(0, 9, 4)),
    "starts-from-one": lambda: gather([PLAIN.column()], starts=numbers(1, 4)),
    "starts-empty": lambda: gather([PLAIN.column()], starts=zeros(0)),
    "starts-of-two-chunks": lambda: gather([PLAIN.column()], starts=numbers(0, 2, 4)),
    "column-wider-than-stored": lambda: gather([PLAIN.column(2)], [zeros((3, 2), I32)]),
    "column-width-huge": lambda: gather([PLAIN.column(2**40)]),
    "column-of-no-type": lambda: gather([PLAIN.column(n2=10)]),
    "column-of-no-wide-type": lambda: gather([PLAIN.column(wide=3)]),
    "column-narrowed": lambda: gather([PLAIN.column(n2=6, n4=9)]),
    "column-of-floats-as-integers": lambda: gather([PLAIN.column(n2=8)]),
    "column-too-short": lambda: gather([PLAIN.column(n4=3)]),
    "column-numbers-short": lambda: gather([(zeros((1, 4)), 1, 0)]),
    "column-no-tuple": lambda: gather([7]),
    "out-short": lambda: gather([PLAIN.column()], [zeros(2, I32)]),
    "out-of-other-type": lambda: gather([PLAIN.column()], [zeros(3, F32)]),
    "out-missing": lambda: gather([PLAIN.column()], []),
    "out-read-only": lambda: gather(
        [PLAIN.column()], [np.frombuffer(bytes(12), np.int32)]
    ),
    "lists-fall": lambda: gather([FALLING.column(2)], [zeros((3, 2), I32)]),
    "lists-beyond": lambda: gather([BEYOND.column(2)], [zeros((3, 2), I32)]),
    "lists-short-offsets": lambda: gather(
        [RAGGED.column(2, n5=4)], [zeros((3, 2), I32)]
    ),
    # Histories.
    "users-above": lambda: histories(users=numbers(1, 3)),
    "users-negative": lambda: histories(users=numbers(1, -1)),
    "users-offsets-beyond": lambda: histories(offsets=numbers(0, 0, 2, 5)),
    "users-offsets-fall": lambda: histories(offsets=numbers(0, 3, 2, 4)),
    "users-offsets-negative": lambda: histories(offsets=numbers(0, -1, 2, 4)),
    "users-no-offsets": lambda: histories(offsets=zeros(0)),
    "histories-short-times": lambda: histories(timestamps=numbers(1, 2)),
    "histories-items-int64": lambda: histories(items=numbers(1, 2, 3, 4)),
    "histories-short-moments": lambda: histories(moments=numbers(9)),
    "histories-gap-alone": lambda: histories(moments=None, gap=4),
    "histories-short-out": lambda: histories(out=zeros((1, 3), I32)),
    "histories-out-vector": lambda: histories(out=zeros(6, I32)),
    # Orders of rows.
    "network-of-none": lambda: permute(0, 2),
    "network-too-large": lambda: permute(2**63, 63),
    "network-too-few-bits": lambda: permute(9, 3),
    "network-too-many-bits": lambda: permute(9, 40),
    "network-few-keys": lambda: permute(keys=KEYS[:7]),
    "value-above": lambda: permute(values=numbers(0, 9)),
    "value-negative": lambda: permute(values=numbers(0, -1)),
    "value-before-first": lambda: permute(values=numbers(5, 6), first=6),
    "images-short": lambda: permute(images=zeros(1)),
    "block-of-none": lambda: blocks(block=0),
    "block-huge": lambda: blocks(block=2**62),
    "gap-too-large": lambda: blocks(gap=4),
    "position-above": lambda: blocks(positions=numbers(0, 10)),
    "position-negative": lambda: blocks(positions=numbers(0, -1)),
    "table-short": lambda: blocks(table=numbers(0, 1)),
    "rows-short": lambda: blocks(rows=zeros(1)),
    # Searches.
    "top-k-widths-differ": lambda: top_k(items=zeros((5, 4), F32)),
    "top-k-short-scores": lambda: top_k(scores=zeros((1, 4), F32)),
    "top-k-short-indices": lambda: top_k(indices=zeros((2, 3), I32)),
    "top-k-offsets-alone": lambda: top_k(exclude_offsets=numbers(0, 0, 0)),
    "top-k-few-offsets": lambda: excluding(0, 2),
    "top-k-offsets-beyond": lambda: excluding(0, 1, 3),
    "top-k-offsets-fall": lambda: excluding(0, 2, 1),
    "top-k-offsets-negative": lambda: excluding(-1, 1, 2),
    # Records.
    "records-without-kinds": lambda: records([]),
    "records-of-no-kind": lambda: records([4]),
    "records-negative-kind": lambda: records([-1]),
    "records-of-integers": lambda: core.read_records(zeros(4), [b"a"], [0], True, 1),
}


def main() -> None:
    for name, call in CASES.items():
        print(json.dumps([name, None]), flush=True)  # the last one, if it crashes
        try:
            call()
        except Exception as error:
            print(json.dumps([name, type(error).__name__]), flush=True)


if __name__ == "__main__":
    main()

"""One embedding table in host memory: rows, optimizer state, and the bags looked up.

Knows memory and number types; knows nothing of Keras, features or training.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from shortlist.embeddings.rules import SLOTS, Rule
from shortlist.errors import InputError, ResourceError

Combiner = Literal["sum", "mean", "sqrtn"]
COMBINERS: tuple[Combiner, ...] = ("sum", "mean", "sqrtn")
RowType = Literal["float32", "float16", "bfloat16"]
# NumPy has no bfloat16: its bits are kept as uint16.
ROW_TYPES: dict[RowType, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": np.uint16,
}
MAX_DIM = 1024
MAX_ROWS = 2**31 - 1

Wanted = dict[str, tuple[tuple[int, ...], np.dtype]]

_HUGE_PAGE_BYTES = 2 * 2**20
_INITIALIZED_AT_ONCE = 2**22  # values
# Moves of a skipped row that shrink below this share are ignored.
_NEGLIGIBLE = 2.0**-40


@dataclass(frozen=True, kw_only=True)
class Bags:
    """The ids of one feature in one batch: one bag of rows to combine per example.

    Args:
        table: index of the table among those of the call.
        ids: int32 or int64, contiguous: `(num_bags, length)` padded with -1,
            `(num_bags,)`, or `(n,)` values with `offsets`.
        offsets: `(num_bags + 1,)` int64: bag i is `ids[offsets[i]:offsets[i + 1]]`.
        weights: float32 of the shape of `ids`.
        combiner: how the rows of a bag become one vector.
    """

    table: int
    ids: np.ndarray
    offsets: np.ndarray | None = None
    weights: np.ndarray | None = None
    combiner: Combiner = "sum"

    @property
    def num_bags(self) -> int:
        """Number of vectors that the lookup returns."""
        return len(self.ids) if self.offsets is None else len(self.offsets) - 1

    @property
    def length(self) -> int:
        """Ids per bag, where there are no offsets."""
        return 1 if self.ids.ndim == 1 else self.ids.shape[1]


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """The gradients of one backward pass, of the vectors of one lookup.

    Args:
        features: the bags that were looked up.
        gradients: `(num_bags, dim)` float32 for each of them.
        scale: factor of all gradients.
    """

    features: tuple[Bags, ...]
    gradients: tuple[np.ndarray, ...]
    scale: float = 1.0


@dataclass(eq=False)
class Table:
    """Rows `(num_rows, dim)` and the state of their update rule.

    Rows and state are in memory pages that the system allocates when they are first
    used, in huge pages if it has them. Create tables with `Table.allocate`.

    Args:
        name: its name in messages and files.
        rows: float32, float16, or uint16 with the bits of bfloat16.
        rule: how touched rows are updated.
        slots: arrays of the rule by name: `SLOTS`, and `last_step` `(num_rows,)` int32
            where the rule remembers steps.
        trainable: whether training updates it.
        seed: of stochastic rounding.
        step: number of updates so far.
        moves: `(step + 1,)` float64: `moves[s]` is the sum of `catch_up_factors` for a
            row last updated at step s and touched at the next step.
    """

    name: str
    rows: np.ndarray
    rule: Rule
    slots: dict[str, np.ndarray] = field(default_factory=dict)
    trainable: bool = True
    seed: int = 0
    step: int = 0
    moves: np.ndarray = field(default_factory=lambda: np.zeros(64))
    last_rate: float = 0.0

    @classmethod
    def allocate(
        cls,
        name: str,
        num_rows: int,
        dim: int,
        rule: Rule,
        *,
        row_type: RowType = "float32",
        trainable: bool = True,
        seed: int = 0,
    ) -> Table:
        """A table of zeros with fresh state.

        Raises:
            InputError: `invalid-table` for an invalid size.
            ResourceError: `out-of-memory`.
        """
        check_size(name, num_rows, dim)
        dtype = np.dtype(ROW_TYPES[row_type])
        arrays: dict[str, np.ndarray] = {}
        wanted: Wanted = {"rows": ((num_rows, dim), dtype)}
        for slot, per in SLOTS[rule.kind]:
            shape = (num_rows,) if per == "row" else (num_rows, dim)
            wanted[slot] = (shape, np.dtype(np.float32))
        if rule.remembers_steps:
            wanted["last_step"] = ((num_rows,), np.dtype(np.int32))
        check_memory(name, wanted)
        for key, (sizes, kind) in wanted.items():
            arrays[key] = zeros(sizes, kind)
        if rule.kind in ("adagrad", "rowwise_adagrad", "ftrl"):
            if rule.initial_accumulator:
                arrays["accumulator"].fill(rule.initial_accumulator)
        return cls(name, arrays.pop("rows"), rule, arrays, trainable, seed)

    @property
    def num_rows(self) -> int:
        """Rows of the table."""
        return len(self.rows)

    @property
    def dim(self) -> int:
        """Width of a row."""
        return int(self.rows.shape[1])

    @property
    def row_type(self) -> RowType:
        """Number type of the rows."""
        by_dtype = {np.dtype(value): key for key, value in ROW_TYPES.items()}
        return by_dtype[self.rows.dtype]

    @property
    def num_bytes(self) -> int:
        """Bytes of rows and state."""
        return self.rows.nbytes + sum(array.nbytes for array in self.slots.values())

    def begin_step(self, learning_rate: float) -> None:
        """Counts one more update and extends the sums for rows that catch up.

        `moves[s]` grows by rate(t) * r^(t-s) when step t is over, r = b1 / sqrt(b2).
        """
        rule = self.rule
        if rule.remembers_steps and self.step:
            # The step that just ended at `self.step` was skipped by rows older than it.
            ratio = rule.beta_1 / rule.beta_2**0.5
            window = self.step  # moves that do not shrink always count
            if ratio < 1:
                window = int(np.ceil(np.log(_NEGLIGIBLE) / np.log(ratio or 0.5)))
            first = max(1, self.step - window)
            ages = self.step - np.arange(first, self.step)
            self.moves[first : self.step] += self.last_rate * ratio**ages
        self.step += 1
        if rule.remembers_steps:
            if self.step >= len(self.moves):
                self.moves = np.concatenate([self.moves, np.zeros(len(self.moves))])
            t = self.step
            correction = (1 - rule.beta_2**t) ** 0.5 / (1 - rule.beta_1**t)
            self.last_rate = learning_rate * correction

    def set_rows(self, first: int, values: np.ndarray) -> None:
        """Sets the rows from `first` on to float32 `values` `(n, dim)`."""
        self.rows[first : first + len(values)] = from_float32(values, self.rows.dtype)

    def fill(self, values: Callable[[int, int], np.ndarray]) -> None:
        """Sets the rows block by block to float32 `values(first_row, last_row)`."""
        block = max(1, _INITIALIZED_AT_ONCE // self.dim)
        for first in range(0, self.num_rows, block):
            self.set_rows(first, values(first, min(first + block, self.num_rows)))


def from_float32(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Float32 values as rows of `dtype`, rounded to nearest; uint16 is bfloat16."""
    values = np.ascontiguousarray(values, np.float32)
    if dtype != np.uint16:
        return values.astype(dtype)
    bits = values.view(np.uint32)
    even = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + even) >> np.uint32(16)).astype(np.uint16)


def zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array of zeros in private pages that use no memory until they are touched."""
    count = int(np.prod(shape, dtype=np.int64))
    num_bytes = max(1, count * dtype.itemsize)
    if num_bytes < _HUGE_PAGE_BYTES:
        return np.zeros(shape, dtype)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    pages = mmap.mmap(-1, num_bytes + _HUGE_PAGE_BYTES, flags=flags)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            pages.madvise(mmap.MADV_HUGEPAGE)
        except OSError:  # a kernel without huge pages
            pass
    start = -np.frombuffer(pages, np.uint8).ctypes.data % _HUGE_PAGE_BYTES
    return np.frombuffer(pages, dtype, count, start).reshape(shape)


def check_memory(
    name: str, wanted: dict[str, tuple[tuple[int, ...], np.dtype]]
) -> None:
    """Raises `ResourceError` if the arrays of a table do not fit in free memory."""
    parts = [
        (key, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, shape, dtype)
        for key, (shape, dtype) in wanted.items()
    ]
    total = sum(num_bytes for _, num_bytes, _, _ in parts)
    available = available_bytes()
    if available is None or total <= available:
        return
    sums = " + ".join(
        f"{key} {' x '.join(map(str, shape))} x {dtype.itemsize} = {num_bytes:,}"
        for key, num_bytes, shape, dtype in parts
    )
    raise ResourceError(
        "out-of-memory",
        f"Table {name!r} does not fit in the free memory of {available:,} bytes. It"
        f" needs {total:,}: {sums}. Lower vocabulary_size or embedding_dim, keep the"
        " rows in float16 or bfloat16, or use an optimizer with less state"
        " (rowwise_adagrad).",
    )


def available_bytes() -> int | None:
    """Bytes of memory available without swapping; `None` if the system does not say."""
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def check_size(name: str, num_rows: object, dim: object) -> None:
    """Raises `InputError` unless a table can have this size."""
    for what, value, most in (
        ("vocabulary_size", num_rows, MAX_ROWS),
        ("embedding_dim", dim, MAX_DIM),
    ):
        if (
            not isinstance(value, (int, np.integer))
            or isinstance(value, bool)
            or not 1 <= value <= most
        ):
            raise InputError(
                "invalid-table",
                f"`{what}` must be a whole number from 1 to {most}. Received: {value!r}"
                f" for table {name!r}. Change the table's configuration.",
            )

"""Shuffled batches of a source, for one reader or several, from any point on.

Every batch is a pure function of source, seed, epoch and index: nothing that was read
before makes a difference, so that a batch can be made by any thread or process, and a
run that was stopped sees the rows it would have seen. Knows nothing of Keras;
`training/batches/keras_batches.py` adapts it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Generator, Iterable, Mapping
from typing import Any, TypeGuard

import numpy as np

from shortlist.data.kernels.buffer_pool import BufferPool
from shortlist.data.load.examples import Batch, ExampleSource
from shortlist.data.load.order import SHUFFLES, Order, Shuffle
from shortlist.data.load.prefetch import prefetch
from shortlist.errors import InputError, did_you_mean

STATE_FORMAT = "shortlist-loader-1"

# Rows whose places in an order are computed in one go: one batch alone costs more.
_PLACED_AT_ONCE = 2**14
# Rows and bytes taken in one go where nothing is drawn. A window of the usual size is
# taken whole: each cache line of it is then fetched once.
_TAKEN_AT_ONCE = 2**18
_BYTES_AT_ONCE = 80 * 2**20


class Loader:
    """Batches of the rows of a source, each row at most once an epoch.

    Args:
        source: `TrainingExamples`, `ArrowRows` or anything like them.
        batch_size: rows per batch, less where a source has fewer for each reader.
        shuffle: `global` (any row anywhere), `windowed` (for rows that are read from
            disk: blocks in random order, mixed within a window) or `none`.
        window: rows mixed by a windowed shuffle, at least `block`.
        block: neighbouring rows that a windowed shuffle keeps together on disk.
        seed: of the orders and of what is drawn, at least 0.
        shard: which reader this is and of how many, as `(index, count)`. The batches
            of an epoch are dealt out in turn; all readers get equally many.
        drop_remainder: leave out the rows after the last round of whole batches, one
            for each reader; another epoch has other ones there. Otherwise the last
            round shares them out evenly: every row comes once, and the last batch of a
            reader is smaller (with fewer rows left than readers, empty for some).
        prefetch: batches made ahead by threads; 0 makes each when it is asked for.
            Where nothing is drawn they are made by groups of up to 80 MiB.

    Raises:
        InputError: `invalid-loader`.
    """

    def __init__(
        self,
        source: ExampleSource,
        *,
        batch_size: int,
        shuffle: Shuffle = "global",
        window: int = 262_144,
        block: int = 4_096,
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        drop_remainder: bool = True,
        prefetch: int = 2,
    ) -> None:
        _check_integers(
            {"batch_size": batch_size, "window": window, "block": block}, least=1
        )
        _check_integers({"seed": seed, "prefetch": prefetch}, least=0)
        _check_shuffle(shuffle, window, block)
        _check_shard(shard, len(source))
        self.source = source
        self.shuffle = shuffle
        self.window = window
        self.block = block
        self.seed = seed
        self.shard = (shard[0], shard[1])
        self.drop_remainder = drop_remainder
        self.prefetch = prefetch
        self.batch_size = min(batch_size, len(source) // shard[1])
        self._step = 0
        self._order: tuple[int, Order] | None = None
        self._placed: tuple[int, int, Any] | None = None
        self._pool = BufferPool()
        self._ramp = np.arange(0)

    def __len__(self) -> int:
        """Batches per epoch of this reader, which all readers have."""
        rows, of_round = len(self.source), self.batch_size * self.shard[1]
        return rows // of_round if self.drop_remainder else -(-rows // of_round)

    def rows(self, epoch: int, index: int) -> np.ndarray:
        """The rows of the source in a batch, int64."""
        _check_integers({"epoch": epoch, "index": index}, least=0)
        if index >= len(self):
            raise InputError(
                "invalid-loader",
                f"`index` must be below {len(self)}, the batches of an epoch."
                f" Received: {index}. Go on with the next epoch.",
            )
        num_batches = max(_PLACED_AT_ONCE // self.batch_size, 1)
        group, place = divmod(index, num_batches)
        placed = self._placed  # threads may place a group twice, but not mix up two
        if placed is None or placed[:2] != (epoch, group):
            first = group * num_batches
            indices = range(first, min(first + num_batches, len(self)))
            placed = self._placed = (epoch, group, self._place(epoch, indices))
        rows, ends = placed[2]
        return rows[ends[place] : ends[place + 1]].copy()

    def batch(self, epoch: int, index: int) -> Batch:
        """Makes one batch, whatever was read before.

        Args:
            epoch: at least 0.
            index: of the batch among those of this reader, from 0 to below `len`.

        Raises:
            InputError: `invalid-loader` without such a batch.
        """
        rows = self.rows(epoch, index)
        reader, readers = self.shard
        key = [self.seed, epoch, 1 + index * readers + reader]
        return self.source.take(rows, np.random.default_rng(key))

    def batches(
        self, epoch: int, indices: Iterable[int]
    ) -> Generator[Batch, None, None]:
        """Yields batches of one epoch, made ahead; the loader stands where it stood."""
        size = self._batches_at_once
        left = iter(indices)
        groups = iter(lambda: tuple(itertools.islice(left, size)), ())
        made = prefetch(lambda group: self._group(epoch, group), groups, self.prefetch)
        with contextlib.closing(made):
            for batches in made:
                yield from batches

    @functools.cached_property
    def _batches_at_once(self) -> int:
        """Batches whose rows are taken together: many, if none of them draws."""
        if self.source.draws:
            return 1
        row = self.source.take(np.zeros(1, np.int64), np.random.default_rng(0))
        row_bytes = max(sum(values.nbytes for values in row.values()), 1)
        rows = min(_TAKEN_AT_ONCE, _BYTES_AT_ONCE // row_bytes)
        return max(rows // self.batch_size, 1)

    def _group(self, epoch: int, indices: tuple[int, ...]) -> list[Batch]:
        first, last = indices[0], indices[-1]
        neighbours = last - first + 1 == len(indices) and 0 <= first < last < len(self)
        if not neighbours or self.source.draws:
            return [self.batch(epoch, index) for index in indices]
        rows, ends = self._place(epoch, range(first, last + 1))
        taken = self.source.take(rows, np.random.default_rng(0))
        return [
            {name: values[begin:end] for name, values in taken.items()}
            for begin, end in itertools.pairwise(ends)
        ]

    def epoch(self, number: int | None = None) -> Generator[Batch, None, None]:
        """Yields the batches of one epoch in order, made ahead by threads.

        The loader stands behind each batch that it yields. Close the iterator, or
        drop it, to stop early.

        Args:
            number: which epoch, from its first batch on; by default on from where the
                loader stands, to the end of that epoch.
        """
        if number is None:
            number, first = divmod(self._step, len(self))
        else:
            _check_integers({"number": number}, least=0)
            first = 0
        return self._epoch(number, first)

    def _epoch(self, number: int, first: int) -> Generator[Batch, None, None]:
        made = self.batches(number, range(first, len(self)))
        with contextlib.closing(made):
            for index, batch in enumerate(made, first):
                self._step = number * len(self) + index + 1
                yield batch

    def seek(self, step: int) -> None:
        """Makes the loader stand where it does after `step` batches from epoch 0 on."""
        _check_integers({"step": step}, least=0)
        self._step = step

    def state(self) -> dict[str, Any]:
        """Where the loader stands and what it must be to go on there, as plain JSON.

        `epoch` and `batch` are those that come next.
        """
        epoch, batch = divmod(self._step, len(self))
        return {**self._identity(), "epoch": epoch, "batch": batch}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Makes the loader stand where another one stood.

        Args:
            state: what `state` returned for the same source, seed, order and shard.

        Raises:
            InputError: `loader-state`; the message names what differs.
        """
        mine = self._identity()
        differing = [
            f"{name}: {state.get(name)!r} in place of {value!r}"
            for name, value in mine.items()
            if state.get(name) != value
        ]
        if differing:
            raise InputError(
                "loader-state",
                "A loader goes on from the state of one with the same rows, seed, order"
                f" and shard. Received: {'; '.join(differing)}. Make the loader as it"
                " was, or start anew.",
            )
        epoch, batch = state.get("epoch"), state.get("batch")
        if not (_is_integer(epoch, 0) and _is_integer(batch, 0) and batch < len(self)):
            raise InputError(
                "loader-state",
                "`epoch` of a state must be at least 0, and `batch` from 0 to"
                f" {len(self) - 1}. Received: {epoch!r} and {batch!r}. Give a state as"
                " it was saved.",
            )
        self._step = epoch * len(self) + batch

    def _identity(self) -> dict[str, Any]:
        """All that decides which rows a batch has."""
        windowed = self.shuffle == "windowed"
        return {
            "format": STATE_FORMAT,
            "fingerprint": self.source.fingerprint,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "window": self.window if windowed else None,
            "block": self.block if windowed else None,
            "shard": list(self.shard),
            "drop_remainder": self.drop_remainder,
        }

    def _place(self, epoch: int, indices: range) -> tuple[np.ndarray, list[int]]:
        """The rows of several batches, and where each begins and the last one ends."""
        (reader, readers), size = self.shard, self.batch_size
        spans = []
        for index in indices:
            first = index * size * readers
            left = min(len(self.source) - first, size * readers)
            start, stop = (first + left * n // readers for n in (reader, reader + 1))
            spans.append((start, stop))
        if readers == 1:  # one span after the other
            positions = self._span(spans[0][0], spans[-1][1])
        else:
            positions = np.concatenate([np.arange(*s, dtype=np.int64) for s in spans])
        sizes = (stop - start for start, stop in spans)
        ends = list(itertools.accumulate(sizes, initial=0))
        return self._order_of(epoch).rows(positions, out=positions), ends

    def _span(self, begin: int, end: int) -> np.ndarray:
        """The integers from `begin` to below `end`, in memory that is used again."""
        ramp = self._ramp  # threads may make it twice
        if len(ramp) < end - begin:
            ramp = self._ramp = np.arange(end - begin)
        span = self._pool.get(8 * (end - begin)).view(np.int64)
        return np.add(ramp[: end - begin], begin, out=span)

    def _order_of(self, epoch: int) -> Order:
        """The order of an epoch; threads may make the last one twice."""
        last = self._order
        if last is None or last[0] != epoch:
            order = Order(
                len(self.source),
                self.shuffle,
                window=self.window,
                block=self.block,
                key=(self.seed, epoch),
            )
            last = self._order = (epoch, order)
        return last[1]


def _is_integer(value: object, least: int) -> TypeGuard[int]:
    if not isinstance(value, int) or isinstance(value, bool):
        return False
    return least <= value < 2**63


def _check_integers(values: dict[str, int], *, least: int) -> None:
    for name, value in values.items():
        if not _is_integer(value, least):
            raise InputError(
                "invalid-loader",
                f"`{name}` must be an integer of at least {least}. Received: {value!r}."
                " Give another number.",
            )


def _check_shuffle(shuffle: str, window: int, block: int) -> None:
    if shuffle not in SHUFFLES:
        raise InputError(
            "invalid-loader",
            f"`shuffle` must be one of {', '.join(SHUFFLES)}. Received:"
            f" {shuffle!r}.{did_you_mean(shuffle, SHUFFLES)}",
        )
    if shuffle == "windowed" and window < block:
        raise InputError(
            "invalid-loader",
            f"`window` must be at least `block`. Received: {window} and {block}. Mix"
            " more rows or read fewer together.",
        )


def _check_shard(shard: tuple[int, int], num_rows: int) -> None:
    index, count = shard if len(shard) == 2 else (None, None)
    if not (_is_integer(count, 1) and _is_integer(index, 0) and index < count):
        raise InputError(
            "invalid-loader",
            "`shard` must be (index, count) with an index from 0 to below the count."
            f" Received: {shard!r}. Give (0, 1) for a single reader.",
        )
    if num_rows < shard[1]:
        raise InputError(
            "invalid-loader",
            "The source must have a row for each reader, at least one. Received:"
            f" {num_rows} rows for {shard[1]} readers. Give more rows, or fewer"
            " readers.",
        )

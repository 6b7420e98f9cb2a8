"""Shuffled batches of a source, for one reader or several.

Every batch is a pure function of source, seed, epoch and index, whatever was read
before. So any thread or process can make it, and a resumed run reads the same batches
as an uninterrupted one. Knows nothing of Keras; see `training/batches/`.
"""

from __future__ import annotations

import contextlib
import dataclasses
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

# Positions whose examples are computed together, which is faster than for each batch.
_PLACED_AT_ONCE = 2**14
# Examples and bytes read together where nothing is random. A window of the default size
# is read whole, so that each of its cache lines is fetched once.
_TAKEN_AT_ONCE = 2**18
_BYTES_AT_ONCE = 80 * 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Windowed:
    """A shuffle for examples that are read from disk.

    Blocks of neighbouring examples come in random order, shuffled within windows.

    Args:
        window: examples shuffled among each other, at least `block`.
        block: neighbouring examples that are read together.

    Raises:
        InputError: `invalid-loader`.
    """

    window: int = 262_144
    block: int = 4_096

    def __post_init__(self) -> None:
        _check_integers({"window": self.window, "block": self.block}, least=1)
        if self.window < self.block:
            raise InputError(
                "invalid-loader",
                f"`window` must be at least `block`. Received: {self.window} and"
                f" {self.block}. Use a larger window or smaller blocks.",
            )


class Loader:
    """Batches of the examples of a source, each example at most once an epoch.

    Args:
        source: `TrainingExamples`, `ArrowRows` or another `ExampleSource`.
        batch_size: examples per batch; fewer if a reader's share is smaller.
        shuffle: `global` (any example anywhere), `none`, or for examples that are read
            from disk `windowed` or a `Windowed` with other sizes.
        seed: of the orders and of all sampling, at least 0.
        shard: which reader this is and of how many, as `(index, count)`. The batches
            of an epoch are dealt to the readers in turn; all get equally many.
        drop_remainder: leave out the examples after the last round of whole batches,
            one for each reader; they differ between epochs. Otherwise they are divided
            evenly: every example comes once, and the last batch of a reader is smaller
            (empty for some readers if there are fewer examples than readers).
        prefetch: batches made ahead by threads; 0 makes each on request. Where nothing
            is random they are made in groups of up to 80 MiB.

    Raises:
        InputError: `invalid-loader`.
    """

    def __init__(
        self,
        source: ExampleSource,
        *,
        batch_size: int,
        shuffle: Shuffle | Windowed = "global",
        seed: int = 0,
        shard: tuple[int, int] = (0, 1),
        drop_remainder: bool = True,
        prefetch: int = 2,
    ) -> None:
        _check_integers({"batch_size": batch_size}, least=1)
        _check_integers({"seed": seed, "prefetch": prefetch}, least=0)
        _check_shard(shard, len(source))
        self.source = source
        self.shuffle, self.windows = _shuffle_of(shuffle)
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
        size, of_round = len(self.source), self.batch_size * self.shard[1]
        return size // of_round if self.drop_remainder else -(-size // of_round)

    def indices(self, epoch: int, index: int) -> np.ndarray:
        """Which examples of the source are in a batch, `(n,)` int64."""
        _check_integers({"epoch": epoch, "index": index}, least=0)
        if index >= len(self):
            raise InputError(
                "invalid-loader",
                f"`index` must be below {len(self)}, the batches of an epoch."
                f" Received: {index}. Continue with the next epoch.",
            )
        num_batches = max(_PLACED_AT_ONCE // self.batch_size, 1)
        group, place = divmod(index, num_batches)
        placed = self._placed  # read once: another thread may replace it
        if placed is None or placed[:2] != (epoch, group):
            first = group * num_batches
            indices = range(first, min(first + num_batches, len(self)))
            placed = self._placed = (epoch, group, self._place(epoch, indices))
        examples, ends = placed[2]
        return examples[ends[place] : ends[place + 1]].copy()

    def batch(self, epoch: int, index: int) -> Batch:
        """Makes one batch; does not change the position of the loader.

        Args:
            epoch: at least 0.
            index: of the batch among those of this reader, from 0 to below `len`.

        Raises:
            InputError: `invalid-loader` if there is no such batch.
        """
        examples = self.indices(epoch, index)
        reader, readers = self.shard
        key = [self.seed, epoch, 1 + index * readers + reader]
        return self.source.take(examples, np.random.default_rng(key))

    def batches(
        self, epoch: int, indices: Iterable[int]
    ) -> Generator[Batch, None, None]:
        """Yields batches of one epoch, made ahead; does not change the position."""
        size = self._batches_at_once
        left = iter(indices)
        groups = iter(lambda: tuple(itertools.islice(left, size)), ())
        made = prefetch(lambda group: self._group(epoch, group), groups, self.prefetch)
        with contextlib.closing(made):
            for batches in made:
                yield from batches

    @functools.cached_property
    def _batches_at_once(self) -> int:
        """Batches that are read together: one if they depend on random numbers."""
        if self.source.draws:
            return 1
        one = self.source.take(np.zeros(1, np.int64), np.random.default_rng(0))
        one_bytes = max(sum(values.nbytes for values in one.values()), 1)
        together = min(_TAKEN_AT_ONCE, _BYTES_AT_ONCE // one_bytes)
        return max(together // self.batch_size, 1)

    def _group(self, epoch: int, indices: tuple[int, ...]) -> list[Batch]:
        first, last = indices[0], indices[-1]
        neighbours = last - first + 1 == len(indices) and 0 <= first < last < len(self)
        if not neighbours or self.source.draws:
            return [self.batch(epoch, index) for index in indices]
        examples, ends = self._place(epoch, range(first, last + 1))
        taken = self.source.take(examples, np.random.default_rng(0))
        return [
            {name: values[begin:end] for name, values in taken.items()}
            for begin, end in itertools.pairwise(ends)
        ]

    def epoch(self, number: int | None = None) -> Generator[Batch, None, None]:
        """Yields the batches of one epoch in order, made ahead by threads.

        After a batch is yielded, the position of the loader is the next batch. Close
        the iterator, or delete it, to stop early.

        Args:
            number: which epoch, from its first batch on; by default the rest of the
                current epoch.
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
        """Moves the loader to the position after `step` batches from epoch 0 on."""
        _check_integers({"step": step}, least=0)
        self._step = step

    def state(self) -> dict[str, Any]:
        """The position of the loader and its configuration, as plain JSON.

        `epoch` and `batch` are those of the next batch.
        """
        epoch, batch = divmod(self._step, len(self))
        return {**self._identity(), "epoch": epoch, "batch": batch}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Moves the loader to the position of another one.

        Args:
            state: what `state` returned for the same source, seed, shuffle and shard.

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
                "The state must be of a loader with the same source, seed, shuffle and"
                f" shard. Received: {'; '.join(differing)}. Make the loader with the"
                " same arguments, or start from the first batch.",
            )
        epoch, batch = state.get("epoch"), state.get("batch")
        if not (_is_integer(epoch, 0) and _is_integer(batch, 0) and batch < len(self)):
            raise InputError(
                "loader-state",
                "`epoch` of a state must be at least 0, and `batch` from 0 to"
                f" {len(self) - 1}. Received: {epoch!r} and {batch!r}. Pass a state as"
                " it was saved.",
            )
        self._step = epoch * len(self) + batch

    def _identity(self) -> dict[str, Any]:
        """Everything that decides which examples are in a batch."""
        windowed = self.shuffle == "windowed"
        return {
            "format": STATE_FORMAT,
            "fingerprint": self.source.fingerprint,
            "seed": self.seed,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "window": self.windows.window if windowed else None,
            "block": self.windows.block if windowed else None,
            "shard": list(self.shard),
            "drop_remainder": self.drop_remainder,
        }

    def _place(self, epoch: int, indices: range) -> tuple[np.ndarray, list[int]]:
        """The examples of several batches, and where each begins and the last ends."""
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
        return self._order_of(epoch).indices(positions, out=positions), ends

    def _span(self, begin: int, end: int) -> np.ndarray:
        """The integers from `begin` to below `end`, in reused memory."""
        ramp = self._ramp  # read once: another thread may replace it
        if len(ramp) < end - begin:
            ramp = self._ramp = np.arange(end - begin)
        span = self._pool.get(8 * (end - begin)).view(np.int64)
        return np.add(ramp[: end - begin], begin, out=span)

    def _order_of(self, epoch: int) -> Order:
        """The order of an epoch; the last one is kept."""
        last = self._order  # read once: another thread may replace it
        if last is None or last[0] != epoch:
            order = Order(
                len(self.source),
                self.shuffle,
                window=self.windows.window,
                block=self.windows.block,
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
                " Use another number.",
            )


def _shuffle_of(shuffle: Shuffle | Windowed) -> tuple[Shuffle, Windowed]:
    if isinstance(shuffle, Windowed):
        return "windowed", shuffle
    if shuffle not in SHUFFLES:
        raise InputError(
            "invalid-loader",
            f"`shuffle` must be one of {', '.join(SHUFFLES)}. Received:"
            f" {shuffle!r}.{did_you_mean(shuffle, SHUFFLES)}",
        )
    return shuffle, Windowed()


def _check_shard(shard: tuple[int, int], num_examples: int) -> None:
    index, count = shard if len(shard) == 2 else (None, None)
    if not (_is_integer(count, 1) and _is_integer(index, 0) and index < count):
        raise InputError(
            "invalid-loader",
            "`shard` must be (index, count) with an index from 0 to below the count."
            f" Received: {shard!r}. Use (0, 1) for a single reader.",
        )
    if num_examples < shard[1]:
        raise InputError(
            "invalid-loader",
            "The source must have at least one example for each reader. Received:"
            f" {num_examples} examples for {shard[1]} readers. Use more examples, or"
            " fewer readers.",
        )

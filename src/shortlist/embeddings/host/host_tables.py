"""Tables in host memory and the order of their lookups and updates.

`handles` explains how the handle of a lookup decides which gradients are applied first.

Knows handles, lookups and gradients as NumPy arrays; knows nothing of Keras.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shortlist.embeddings.host import handle_errors, kernels, reference
from shortlist.embeddings.host.handles import (
    FIRST_BITS,
    LAST_BITS,
    Issued,
    to_handle,
    to_ticket,
)
from shortlist.embeddings.table import Bags, Gradients, Table
from shortlist.errors import InputError, ShortlistError

_log = logging.getLogger(__name__)

_NAMES = 2**25  # first handles to draw from
_NEXT_NAMES = 2**20  # those above handles that an optimizer may still hold
_LAST_NAME = 2**29

SpanHook = Callable[[str], contextlib.AbstractContextManager[None]]
"""Gives the context in which a span runs, by its name: `lookup` or `update`."""


def _no_rate() -> float:
    raise ValueError("no table follows a rate")


def no_span(name: str) -> contextlib.AbstractContextManager[None]:
    """The `SpanHook` that does nothing."""
    return contextlib.nullcontext()


@dataclass(frozen=True)
class Waiting:
    """The gradients of one backward pass, not yet applied.

    Args:
        ticket: number of the backward pass.
        gradients: `None` if they were not finite, for the loss scaling to skip.
        loss_scale: factor by which the loss was multiplied.
        learning_rates: of each table.
    """

    ticket: int
    gradients: Gradients | None
    loss_scale: float
    learning_rates: tuple[float, ...]


@dataclass(frozen=True)
class Snapshot:
    """The position of host tables in their training; rows and slots are in the tables.

    Args:
        applied: number of the last backward pass whose gradients were applied.
        issued: number of the last backward pass.
        waiting: gradients of the passes between the two.
        name: name of the tables at the time; an optimizer may have accumulated handles
            with it where gradients wait.
    """

    applied: int = 0
    issued: int = 0
    waiting: tuple[Waiting, ...] = ()
    name: int = 0


class HostTables:
    """The tables of one layer, and the gradients that wait for them.

    Args:
        tables: the tables, in the order to which `Bags.table` refers.
        feature_names: of the features of a lookup, in order, for messages.
        threads: most threads to use; all processors by default.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        feature_names: Sequence[str],
        threads: int | None = None,
    ) -> None:
        self.tables = list(tables)
        self.feature_names = list(feature_names)
        self.threads = threads
        self.name = secrets.randbelow(_NAMES)
        self.issued = 0
        self.applied = 0
        self.span: SpanHook = no_span
        self.followed_rate: Callable[[], float] = _no_rate
        self.num_lookups = 0
        self.num_updates = 0
        self.num_refused = 0
        self._waiting: list[Waiting] = []
        self._fault: ShortlistError | None = None
        self._lock = threading.RLock()

    @property
    def handle(self) -> np.float32:
        """The handle of the newest state, all waiting gradients included."""
        return self.handle_of(self.issued)

    def handle_of(self, ticket: int) -> np.float32:
        """The handle of the state after `ticket` backward passes."""
        return to_handle(ticket, self.name)

    def lookup(
        self, handle: float | np.ndarray, features: Sequence[Bags]
    ) -> list[np.ndarray]:
        """The vectors of all bags, after the updates up to `handle`.

        Raises:
            ShortlistError: `handle-stale` or `called-twice`.
            InputError: `id-out-of-range`; row 0 was looked up in its place.
        """
        with self._lock:
            self.advance(handle)
            self.num_lookups += 1
            with self.span("lookup"):
                vectors, bad = kernels.lookup_checked(
                    self.tables, features, threads=self.threads
                )
        if bad is not None:
            index, bad_id = bad
            table = self.tables[features[index].table]
            name = self.feature_names[index]
            raise out_of_range(name, table.name, table.num_rows, bad_id)
        return vectors

    def zeros(self, features: Sequence[Bags]) -> list[np.ndarray]:
        """The vectors of a lookup that failed."""
        return [
            np.zeros((bags.num_bags, self.tables[bags.table].dim), np.float32)
            for bags in features
        ]

    def append(
        self,
        handle: float | np.ndarray,
        features: Sequence[Bags],
        gradients: Sequence[np.ndarray],
        loss_scale: float,
        learning_rates: Sequence[float],
    ) -> np.float32:
        """Keeps the gradients of one backward pass until the handle moves on.

        Args:
            handle: the handle of the step.
            features: the bags of the lookup.
            gradients: `(num_bags, dim)` float32 for each; copied.
            loss_scale: factor by which the loss, so every gradient, was multiplied; 0
                if the loss did not include the term of the layer.
            learning_rates: of each table, at the number of its next update; NaN stands
                for `followed_rate()`.

        Returns: the next handle. Gradients with NaN or infinity are counted in
        `num_refused` and not kept: the handle stays, or becomes infinite under a loss
        scale, so that Keras skips the step.

        Raises:
            ShortlistError: `loss-term-missing`.
        """
        if loss_scale == 0:
            raise handle_errors.loss_without_term()
        with self.span("update"), self._lock:
            if self._fault is not None:
                return np.float32(handle)
            kept = kernels.new_vectors([gradient.shape for gradient in gradients])
            for copy, gradient in zip(kept, gradients, strict=True):
                np.copyto(copy, gradient)
            if not _all_finite(kept, loss_scale):
                return self._refuse(handle, loss_scale)
            rates = tuple(
                self.followed_rate() if math.isnan(rate) else float(rate)
                for rate in learning_rates
            )
            self._drop_skipped(loss_scale)
            if FIRST_BITS + self.name + self.issued + 1 > LAST_BITS:
                raise handle_errors.exhausted()
            self.issued += 1
            copied = tuple(_copied(bags) for bags in features)
            both = Gradients(features=copied, gradients=tuple(kept))
            self._waiting.append(Waiting(self.issued, both, float(loss_scale), rates))
            return self.handle

    def _refuse(self, handle: float | np.ndarray, loss_scale: float) -> np.float32:
        """Counts gradients that are not finite; returns the next handle."""
        self.num_refused += 1
        if loss_scale == 1:
            return np.float32(handle)
        self._drop_skipped(loss_scale)
        self._waiting.append(Waiting(self.issued, None, loss_scale, ()))
        return np.float32(np.inf)

    def _drop_skipped(self, loss_scale: float) -> None:
        """Drops the last gradients if the scale fell, as it does after a skip."""
        if self._waiting and loss_scale < self._waiting[-1].loss_scale:
            self._waiting.pop()

    def advance(self, handle: float | np.ndarray) -> None:
        """Moves the tables to the state of `handle`; once for each state.

        Raises:
            ShortlistError: `handle-stale` or `called-twice`; the tables stay.
        """
        with self._lock:
            self.check(handle)
            ticket = to_ticket(handle, self.name)
            if ticket == self.applied:
                return
            due = [
                (one.gradients, one)
                for one in self._waiting
                if one.ticket <= ticket and one.gradients is not None
            ]
            self._waiting = [one for one in self._waiting if one.ticket > ticket]
            self.applied = ticket
            if not due:
                return
            batches = [
                replace(gradients, scale=1.0 / (one.loss_scale * len(due)))
                for gradients, one in due
            ]
            rates = due[-1][1].learning_rates
            with self.span("update"):
                kernels.update(self.tables, batches, rates, threads=self.threads)
            self.num_updates += 1

    def check(self, handle: float | np.ndarray, writer: str | None = None) -> None:
        """Raises unless the tables can be moved to the state of `handle`.

        Args:
            handle: the handle.
            writer: who sets it as a weight, in words; `None` if a step passes it.

        Raises:
            ShortlistError: `handle-stale`, `handle-foreign`, and of a step also
                `called-twice`, `handle-changed`, `loss-term-missing` or
                `gradient-not-finite`.
        """
        ticket = to_ticket(handle, self.name)
        if self.applied <= ticket <= self.issued:
            return
        given = Issued(self.name, self.applied, self.issued)
        if writer is None:
            raise handle_errors.of_step(handle, given)
        raise handle_errors.of_writer(handle, given, writer)

    def rewind(self, handle: float | np.ndarray) -> None:
        """Drops waiting gradients newer than `handle`, to which weights went back."""
        with self._lock:
            ticket = to_ticket(handle, self.name)
            self._waiting = [one for one in self._waiting if one.ticket <= ticket]

    def rows(self) -> dict[str, np.ndarray]:
        """The rows of every table by name, float32; not copied if they are float32."""
        return {
            table.name: table.rows
            if table.rows.dtype == np.float32
            else reference.to_float32(table.rows)
            for table in self.tables
        }

    def set_rows(self, rows: Mapping[str, np.ndarray]) -> np.float32:
        """Sets the rows of some tables, by name; other names are ignored.

        Returns: the handle of the tables, under a new name: weights of before do not
        belong to these rows.
        """
        for table in self.tables:
            if table.name in rows:
                table.set_rows(0, np.asarray(rows[table.name], np.float32))
        self.rename()
        return self.handle_of(self.applied)

    def snapshot(self) -> Snapshot:
        """The position of the tables and the gradients that wait, to be saved."""
        with self._lock:
            waiting = tuple(self._waiting)
            return Snapshot(self.applied, self.issued, waiting, self.name)

    def restore(self, snapshot: Snapshot) -> np.float32:
        """Sets the position of tables whose rows and slots were just loaded.

        Waiting gradients and faults of before are dropped.

        Returns: the handle, under a new name.
        """
        with self._lock:
            # Only where gradients wait may an optimizer hold handles of the snapshot.
            above = snapshot.name + snapshot.issued if snapshot.waiting else 0
            self.rename(above)
            self.applied, self.issued = snapshot.applied, snapshot.issued
            self._waiting = list(snapshot.waiting)
            self._fault = None
            return self.handle_of(self.applied)

    def rename(self, above: int = 0) -> None:
        """Draws a new name, so that no handle given out so far is valid any more.

        Keras accumulates handles by their maximum. If gradients wait, its accumulator
        may hold an old handle, so the new ones must be greater than those.
        """
        with self._lock:
            if self._waiting:
                above = max(above, self.name + self.issued)
            if not above or above + _NEXT_NAMES > _LAST_NAME:
                self.name = secrets.randbelow(_NAMES)
            else:
                self.name = above + 1 + secrets.randbelow(_NEXT_NAMES)

    def set_fault(self, error: BaseException) -> None:
        """Keeps the first error of a compiled step until `raise_fault`.

        Until then no gradients are kept, so the tables stay as they are.
        """
        with self._lock:
            if self._fault is None:
                if not isinstance(error, ShortlistError):
                    wrapped = ShortlistError(
                        "lookup-failed", f"The embedding engine failed: {error!r}."
                    )
                    wrapped.__cause__ = error
                    error = wrapped
                self._fault = error
                _log.error("%s", error)

    @property
    def has_fault(self) -> bool:
        """Whether a compiled step left an error to raise."""
        return self._fault is not None

    def raise_fault(self) -> None:
        """Raises the error of an earlier compiled step, once."""
        with self._lock:
            fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    @property
    def step(self) -> int:
        """Number of updates of the tables so far."""
        return max((table.step for table in self.tables), default=0)


def _all_finite(gradients: Sequence[np.ndarray], loss_scale: float) -> bool:
    # A sum of float32 in float64 is finite if and only if all its terms are.
    with np.errstate(invalid="ignore"):
        sums = [np.sum(gradient, dtype=np.float64) for gradient in gradients]
    return bool(np.isfinite([*sums, loss_scale]).all())


def _copied(bags: Bags) -> Bags:
    return replace(
        bags,
        ids=bags.ids.copy(),
        weights=None if bags.weights is None else bags.weights.copy(),
        offsets=None if bags.offsets is None else bags.offsets.copy(),
    )


def out_of_range(feature: str, table: str, num_rows: int, bad_id: int) -> InputError:
    """The error for an id that is neither a row of its table nor padding."""
    return InputError(
        "id-out-of-range",
        f"Ids must lie between 0 and {num_rows - 1}, or be -1 for padding."
        f" Received: {bad_id} in feature {feature!r} for table {table!r}. Map ids"
        " through the vocabulary (row 0 is the unknown id), or raise vocabulary_size.",
    )

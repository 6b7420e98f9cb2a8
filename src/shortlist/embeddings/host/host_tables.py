"""Tables in host memory and the order of their lookups and updates.

Knows handles, lookups and gradients as NumPy arrays; knows nothing of Keras.

A *handle* is a float32 that names tables and a state of them. The model keeps one as a
weight. A lookup brings the handle of its step; a backward pass appends its gradients
and answers with the next handle, which Keras then writes into the weight. Appended
gradients move the tables when a lookup (or a sync) first brings a handle that is at
least theirs. So a step that Keras takes back or postpones takes back or postpones the
update of its tables too:

- gradient accumulation keeps the old handle for some steps: their gradients wait and
  are averaged when the handle moves on;
- a step skipped by loss scaling leaves the old handle and lowers the scale: its
  gradients are dropped when the next ones come with a lower scale;
- weights of another time bring a handle older than the tables, two calls in one step a
  sum of two handles: neither was ever given out for the next state, and both raise.

Handles are consecutive floats that begin at a random one, the *name* of the tables. It
is drawn when tables are created, loaded or set, so that the handles of one history are
those of no other: weights of another model, or of a time before the tables were loaded,
raise too.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shortlist.embeddings.host import handle_errors, kernels
from shortlist.embeddings.table import Bags, Gradients, Table
from shortlist.errors import InputError, ShortlistError

_log = logging.getLogger(__name__)

# Handles are consecutive positive floats, 1.0 or more: exact, ordered like the steps,
# and half a billion of them after any first one. A counter kept as a float32 number
# would stick at 2**24. First ones are below 16, so that even a small step of an
# optimizer that must not move them shows.
_FIRST_BITS = 0x3F800000
_LAST_BITS = 0x7F7FFFFF
_NAMES = 2**25  # first handles to draw from
_NEXT_NAMES = 2**20  # those above handles that an optimizer may still hold
_LAST_NAME = 2**29


Watch = Callable[[str], contextlib.AbstractContextManager[None]]
"""Told of what begins, `lookup` or `update`, with a context that lasts as long."""


def _no_rate() -> float:
    raise ValueError("no table follows a rate")


def unwatched(name: str) -> contextlib.AbstractContextManager[None]:
    """Where nobody looks."""
    return contextlib.nullcontext()


def to_handle(ticket: int, name: int = 0) -> np.float32:
    """The handle of the state after `ticket` backward passes of tables with a name."""
    return np.uint32(_FIRST_BITS + name + ticket).view(np.float32)


def to_ticket(handle: float | np.ndarray, name: int = 0) -> int:
    """The number of the backward pass that a handle stands for; may be anything."""
    bits = int(np.asarray(handle, np.float32).reshape(()).view(np.int32))
    return bits - _FIRST_BITS - name


@dataclass(frozen=True)
class _Appended:
    ticket: int
    gradients: Gradients | None  # None: not finite, to be skipped by the loss scaling
    loss_scale: float
    learning_rates: tuple[float, ...]


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
        self.watch: Watch = unwatched
        self.followed_rate: Callable[[], float] = _no_rate
        self.num_lookups = 0
        self.num_updates = 0
        self.num_refused = 0
        self._appended: list[_Appended] = []
        self._fault: ShortlistError | None = None
        self._lock = threading.RLock()

    @property
    def handle(self) -> np.float32:
        """The handle of the newest state, all appended gradients included."""
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
            InputError: `id-out-of-range`; the tables have answered row 0 for it.
        """
        with self._lock:
            self.advance(handle)
            self.num_lookups += 1
            with self.watch("lookup"):
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
        """What a lookup answers after an error."""
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
                if the loss did not hold the term of the layer.
            learning_rates: of each table, at the number of its next update; NaN stands
                for `followed_rate()`.

        Returns: the next handle. Gradients with NaN or infinity are counted in
        `num_refused` and not kept: the handle stays, or becomes infinite under a loss
        scale, so that Keras skips the step.

        Raises:
            ShortlistError: `loss-term-missing`.
        """
        if loss_scale == 0:
            raise ShortlistError(
                "loss-term-missing",
                "The loss must hold the terms that layers add, because a table learns"
                " from its own term how the loss is scaled. Received a loss without"
                " it. Add sum(model.losses) in compute_loss or the training loop, or"
                " create the layer with loss_scale=1.0 if nothing scales the loss.",
            )
        with self.watch("update"), self._lock:
            if self._fault is not None:
                return np.float32(handle)
            kept = kernels.new_vectors([gradient.shape for gradient in gradients])
            for copy, gradient in zip(kept, gradients, strict=True):
                np.copyto(copy, gradient)
            # A sum of float32 in float64 is finite if and only if all its terms are.
            with np.errstate(invalid="ignore"):
                sums = [np.sum(gradient, dtype=np.float64) for gradient in kept]
            if not np.isfinite([*sums, loss_scale]).all():
                self.num_refused += 1
                if loss_scale == 1:
                    return np.float32(handle)
                self._drop_skipped(loss_scale)
                self._appended.append(_Appended(self.issued, None, loss_scale, ()))
                return np.float32(np.inf)
            rates = tuple(
                self.followed_rate() if math.isnan(rate) else float(rate)
                for rate in learning_rates
            )
            self._drop_skipped(loss_scale)
            if _FIRST_BITS + self.name + self.issued + 1 > _LAST_BITS:
                raise ShortlistError(
                    "handle-exhausted",
                    "A table takes half a billion steps. Save the model and load it"
                    " again to go on.",
                )
            self.issued += 1
            copied = tuple(
                replace(
                    bags,
                    ids=bags.ids.copy(),
                    weights=None if bags.weights is None else bags.weights.copy(),
                    offsets=None if bags.offsets is None else bags.offsets.copy(),
                )
                for bags in features
            )
            self._appended.append(
                _Appended(
                    self.issued,
                    Gradients(features=copied, gradients=tuple(kept)),
                    float(loss_scale),
                    rates,
                )
            )
            return self.handle

    def _drop_skipped(self, loss_scale: float) -> None:
        """Forgets the last gradients if the scale fell, as it does after a skip."""
        if self._appended and loss_scale < self._appended[-1].loss_scale:
            self._appended.pop()

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
                for one in self._appended
                if one.ticket <= ticket and one.gradients is not None
            ]
            self._appended = [one for one in self._appended if one.ticket > ticket]
            self.applied = ticket
            if not due:
                return
            batches = [
                replace(gradients, scale=1.0 / (one.loss_scale * len(due)))
                for gradients, one in due
            ]
            rates = due[-1][1].learning_rates
            with self.watch("update"):
                kernels.update(self.tables, batches, rates, threads=self.threads)
            self.num_updates += 1

    def check(self, handle: float | np.ndarray, writer: str | None = None) -> None:
        """Raises unless the tables can be brought to the state of `handle`.

        Args:
            handle: the handle.
            writer: who sets it as a weight, in words; `None` if a step brings it.

        Raises:
            ShortlistError: `handle-stale`, `handle-foreign`, and of a step also
                `called-twice`, `handle-changed`, `loss-term-missing` or
                `gradient-not-finite`.
        """
        ticket = to_ticket(handle, self.name)
        if self.applied <= ticket <= self.issued:
            return
        if writer is None:
            raise handle_errors.of_step(handle, self)
        raise handle_errors.of_writer(handle, self, writer)

    def rewind(self, handle: float | np.ndarray) -> None:
        """Forgets waiting gradients newer than `handle`, to which weights went back."""
        with self._lock:
            ticket = to_ticket(handle, self.name)
            self._appended = [one for one in self._appended if one.ticket <= ticket]

    def restore(
        self,
        applied: int,
        issued: int | None = None,
        waiting: Sequence[_Appended] = (),
        above: int = 0,
    ) -> np.float32:
        """Takes the tables, just loaded, for those of a state; forgets the rest.

        Args:
            applied: number of the backward pass whose state they are.
            issued: number of the last backward pass; `applied` by default.
            waiting: gradients of the passes between the two.
            above: a name above which the new one must be.

        Returns: the handle, under a new name.
        """
        with self._lock:
            self.rename(above if waiting else 0)
            self.applied = applied
            self.issued = applied if issued is None else issued
            self._appended = list(waiting)
            self._fault = None
            return self.handle_of(applied)

    def rename(self, above: int = 0) -> None:
        """Draws a new name: no handle given out so far names the tables any more.

        Keras accumulates handles by their maximum. If gradients wait, its accumulator
        may hold an old handle, so the new ones must be greater than those.
        """
        with self._lock:
            if self._appended:
                above = max(above, self.name + self.issued)
            if not above or above + _NEXT_NAMES > _LAST_NAME:
                self.name = secrets.randbelow(_NAMES)
            else:
                self.name = above + 1 + secrets.randbelow(_NEXT_NAMES)

    def set_fault(self, error: BaseException) -> None:
        """Keeps the first error of a compiled step until `raise_fault`.

        Until then nothing is appended, so the tables stay as they are.
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


def out_of_range(feature: str, table: str, num_rows: int, bad_id: int) -> InputError:
    """The error for an id that is neither a row of its table nor padding."""
    return InputError(
        "id-out-of-range",
        f"Ids must lie between 0 and {num_rows - 1}, or be -1 for padding."
        f" Received: {bad_id} in feature {feature!r} for table {table!r}. Map ids"
        " through the vocabulary (row 0 is the unknown id), or raise vocabulary_size.",
    )

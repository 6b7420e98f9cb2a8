"""The handle of host tables: a float32 that names tables and one state of them.

The model keeps the handle as a weight. A lookup passes the handle of its step; a
backward pass hands in its gradients and returns the next handle, which Keras then
writes into the weight. The gradients are applied when a lookup, or a sync, first passes
a handle that is at least theirs. So a step that Keras undoes or postpones also undoes
or postpones the update of its tables:

- gradient accumulation keeps the old handle for some steps: their gradients wait and
  are averaged when the handle moves on;
- a step skipped by loss scaling leaves the old handle and lowers the scale: its
  gradients are dropped when the next ones come with a lower scale;
- weights of an earlier step hold a handle older than the tables, and two calls in one
  step add up two handles. Neither is a valid handle, so both raise.

Handles are consecutive floats that begin at a random one, the *name* of the tables. The
name is drawn when tables are created, loaded or set, so handles of other tables, or of
the same tables before they were loaded, raise too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Handles are consecutive positive floats, 1.0 or more: exact, ordered like the steps,
# and half a billion of them after any first one. A counter kept as a float32 number
# would stick at 2**24. First ones are below 16, so that even a small step of an
# optimizer that must not move them shows.
FIRST_BITS = 0x3F800000
LAST_BITS = 0x7F7FFFFF


def to_handle(ticket: int, name: int = 0) -> np.float32:
    """The handle of the state after `ticket` backward passes of tables with a name."""
    return np.uint32(FIRST_BITS + name + ticket).view(np.float32)


def to_ticket(handle: float | np.ndarray, name: int = 0) -> int:
    """The number of the backward pass that a handle stands for; may be anything."""
    bits = int(np.asarray(handle, np.float32).reshape(()).view(np.int32))
    return bits - FIRST_BITS - name


@dataclass(frozen=True)
class Issued:
    """The handles that tables have given out.

    Args:
        name: of the tables.
        applied: number of the last backward pass whose gradients were applied.
        issued: number of the last backward pass.
    """

    name: int
    applied: int
    issued: int

    def handle(self, ticket: int) -> np.float32:
        """The handle of the state after `ticket` backward passes."""
        return to_handle(ticket, self.name)

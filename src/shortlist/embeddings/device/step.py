"""One update of tables on the device as a pure function, and its errors.

A compiled step cannot raise. It skips an update that is not allowed and records the
reason in the control weight; the errors below are raised when Python runs again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from shortlist.embeddings.device import arithmetic as updates
from shortlist.embeddings.device.arithmetic import Entries
from shortlist.embeddings.rules import SLOTS, Rule
from shortlist.embeddings.specs import TableSpec
from shortlist.errors import InputError, ShortlistError

# The parts of the control weight. The first two show what Keras did to all weights:
# MARK is 1 and WITNESS is -(step + 1) unless gradients were added (two calls in one
# step: MARK 2), were missing (all 0) or accumulated (Keras takes the maximum with an
# accumulator that starts at 0: WITNESS 0).
MARK, WITNESS, STEP, REFUSED, SIGNAL, FAULT = range(6)
FRESH = (1.0, -1.0, 0.0, 0.0, 0.0, 0.0)
_NO_FAULT, _NO_SCALE, OUTSIDE = 0.0, 1.0, 2.0

Weights = dict[str, Array]


@dataclass(eq=False)
class Stack:
    """Tables of one width, rule, schedule and trainability in one array."""

    dim: int
    rule: Rule
    schedule: Any
    trainable: bool
    members: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    num_rows: int = 0
    variables: dict[str, Any] = field(default_factory=dict)

    def shapes(self) -> dict[str, tuple[tuple[int, ...], float]]:
        """Shape of every weight, and its initial value."""
        cells = (self.num_rows, self.dim)
        shapes: dict[str, tuple[tuple[int, ...], float]] = {"rows": (cells, 0.0)}
        if self.trainable:
            for slot, per in SLOTS[self.rule.kind]:
                start = self.rule.initial_accumulator if slot == "accumulator" else 0.0
                shapes[slot] = cells[:1] if per == "row" else cells, start
            if self.rule.remembers_steps:
                shapes["last_step"] = cells[:1], 0.0
                shapes["moves"] = (2, updates.RING), 0.0
        return shapes

    def values(self) -> Weights:
        """The current values of the weights."""
        return {name: variable.value for name, variable in self.variables.items()}

    def learning_rate(self, step: Array) -> Array:
        """The rate of the update with the 0-based number `step`, () float32."""
        if self.schedule is None:
            return jnp.full((), self.rule.learning_rate, jnp.float32)
        rate: Array = jnp.asarray(self.schedule(step.astype(jnp.int32)), jnp.float32)
        return rate


class LookupInputs(NamedTuple):
    """What a lookup in tables that are updated depends on.

    Args:
        control: the control weight.
        weights: rows and state of each stack.
        parts: the entries of each feature of each stack.
        any_outside: () bool, whether an id is outside its table.
    """

    control: Array
    weights: list[Weights]
    parts: list[list[Entries]]
    any_outside: Array


def updated(
    stacks: list[Stack],
    inputs: LookupInputs,
    vectors: list[list[Array]],
    cotangents: list[list[Array]],
    scale: Array,
) -> tuple[Array, list[Weights]]:
    """`control` and `weights` after the step, unchanged if the update is refused.

    Reading `vectors` too makes every write depend on the reads of the forward pass,
    whatever the loss: only then does XLA write in place.
    """
    control, weights, parts, any_outside = inputs
    whole = (control[MARK] == 1) & (control[WITNESS] == -(control[STEP] + 1))
    whole &= control[STEP] < updates.MAX_STEP
    inverse = 1 / jnp.where(scale == 0, 1, scale)
    finite = jnp.isfinite(scale)
    for vector in (vector for own in vectors for vector in own):
        finite &= jnp.all(jnp.isfinite(vector))
    sums: list[tuple[Array, Array] | None] = []
    for stack, entries, gradients in zip(stacks, parts, cotangents, strict=True):
        if not sum(entry.rows.size for entry in entries):
            sums.append(None)
            continue
        scaled = [gradient * inverse for gradient in gradients]
        for gradient in scaled:
            finite &= jnp.all(jnp.isfinite(gradient))
        rows, summed = updates.sum_by_row(entries, scaled, stack.num_rows)
        finite &= jnp.all(jnp.isfinite(summed))
        sums.append((rows, summed))
    fault = jnp.where(any_outside, OUTSIDE, jnp.where(scale == 0, _NO_SCALE, 0.0))
    moves = whole & finite & (fault == _NO_FAULT)
    step = control[STEP] + 1
    new = [
        _moved(stack, step, own, touched, moves)
        for stack, own, touched in zip(stacks, weights, sums, strict=True)
    ]
    taken = jnp.where(moves, step, control[STEP])
    refused = control[REFUSED] + jnp.where(finite, 0, 1)
    # A NaN among the gradients makes a `LossScaleOptimizer` skip the step and lower the
    # scale. Another optimizer stores it here, where nothing reads it.
    signal = jnp.where(finite, 0, jnp.float32(np.nan))
    fault = jnp.where(control[FAULT] == _NO_FAULT, fault, control[FAULT])
    after = jnp.stack([jnp.float32(1), -(taken + 1), taken, refused, signal, fault])
    return jnp.where(whole, after, control), new


def _moved(
    stack: Stack,
    step: Array,
    own: Weights,
    touched: tuple[Array, Array] | None,
    moves: Array,
) -> Weights:
    """The weights of a stack after update number `step`; unchanged unless `moves`.

    Rows are written in place: one gather and one scatter of as many rows as the batch
    has ids, to ascending and unique positions; those behind the table are dropped.
    """
    new, rule = dict(own), stack.rule
    sums = new.pop("moves", None)
    if sums is not None:
        previous = updates.adam_rate(rule, stack.learning_rate(step - 2), step - 1)
        rate = jnp.where(step > 1, previous, 0)
        sums = updates.extended_moves(rule, sums, rate, step, moves)
    if touched is not None:
        rows, gradient = touched
        old = {
            key: value.at[rows].get(
                mode="fill", fill_value=1, unique_indices=True, indices_are_sorted=True
            )
            for key, value in new.items()
        }
        catch_up = None
        if sums is not None:
            catch_up = updates.moves_since(sums, old["last_step"], step)
        rate = stack.learning_rate(step - 1)
        changed = updates.update_rows(rule, rate, step, old, gradient, catch_up)
        behind = jnp.arange(len(rows), dtype=jnp.int32) + stack.num_rows
        rows = jnp.where(moves, rows, behind)
        for key, values in changed.items():
            new[key] = (
                new[key]
                .at[rows]
                .set(values, mode="drop", unique_indices=True, indices_are_sorted=True)
            )
    return new if sums is None else {**new, "moves": sums}


def is_whole(control: np.ndarray) -> bool:
    """Whether Keras stored the control weight as the last step returned it."""
    return bool(control[MARK] == 1 and control[WITNESS] == -(control[STEP] + 1))


def unchanged(error: ShortlistError) -> ShortlistError:
    """Marks an error so that Keras raises it as it is and does not rebuild it."""
    vars(error)["_keras_call_info_injected"] = True
    return error


def remat_error() -> InputError:
    """The error for a call whose `training` JAX has traced."""
    return InputError(
        "remat-unsupported",
        "`training` must be known when a step is compiled. Received: a traced value, as"
        " under keras.RematScope. Build this layer and those that call it outside"
        " keras.RematScope.",
    )


def too_many_steps() -> ShortlistError:
    """The error for more updates than a float32 can count."""
    return ShortlistError(
        "too-many-steps",
        f"Tables on the device have taken {updates.MAX_STEP:,} updates, the most they"
        ' can; later ones were dropped. Use larger batches, or placement="host".',
    )


def called_twice() -> ShortlistError:
    """The error for two differentiated calls in one step."""
    return ShortlistError(
        "called-twice",
        "An embedding layer on the device must be called once in a training step."
        " Received: a second differentiable call; JAX would add up the two new tables."
        ' Look up all features in one call, or use placement="host".',
    )


def overwritten(control: np.ndarray) -> ShortlistError:
    """The error for tables that Keras did not overwrite with what a lookup returned."""
    if control[MARK] > 1:
        return called_twice()
    if control[MARK] == 0:
        return ShortlistError(
            "lookup-not-in-loss",
            "Every training step must call the embedding layer with training=True, and"
            " its loss must depend on it. In an earlier step it did not, and Keras"
            " overwrote the tables with zeros. Load a checkpoint; set trainable=False"
            " on the layer for steps that do not train it.",
        )
    return InputError(
        "accumulation-unsupported",
        "Keras stored other values than the lookup returned in tables on the device,"
        " as it does with gradient_accumulation_steps: the tables are no longer valid."
        " Load a checkpoint, and train without accumulation or with"
        ' placement="host".',
    )


def fault_error(code: float) -> ShortlistError:
    """The error for the fault that a step has recorded."""
    if code == OUTSIDE:
        return InputError(
            "id-out-of-range",
            "Ids must be rows of their table, or -1 for padding. Updates of batches"
            " with other ids were dropped. Raise vocabulary_size or correct the ids.",
        )
    return ShortlistError(
        "lookup-not-in-loss",
        "The loss of a training step must include the losses of its layers"
        " (add_loss), from which tables on the device read its scale. Received a loss"
        " without them; the tables were not changed. Add `sum(self.losses)` in"
        " compute_loss.",
    )


def outside_error(spec: TableSpec, feature: str, value: int) -> InputError:
    """The error for an id that is no row of its table."""
    return InputError(
        "id-out-of-range",
        f"Ids must be from 0 to {spec.num_rows - 1}, or -1 for padding. Received:"
        f" {value} for feature {feature!r}, table {spec.name!r}. Row 0 was looked"
        " up, and the updates of such batches were dropped. Raise vocabulary_size or"
        " correct the ids.",
    )


def checked_step(
    specs: Sequence[TableSpec],
    stacks: Sequence[Stack],
    state: dict[str, dict[str, np.ndarray]],
) -> int:
    """The number of updates in a state that fits the tables, each with its stack.

    Raises:
        InputError: `table-state-invalid`.
    """
    steps = set()
    for spec, stack in zip(specs, stacks, strict=True):
        found = state.get(spec.name, {})
        wanted = {
            key: (spec.num_rows, *variable.shape[1:])
            for key, variable in stack.variables.items()
            if key != "moves"
        }
        shapes = {key: np.shape(found[key]) for key in wanted if key in found}
        step, moves = int(found.get("step", 0)), len(found.get("moves", ()))
        enough = "moves" not in stack.variables or moves > step
        if shapes != wanted or not enough or not 0 <= step <= updates.MAX_STEP:
            raise InputError(
                "table-state-invalid",
                f"State of table {spec.name!r} must have {wanted}, a step, and moves of"
                f" each step for an Adam that catches up. Received: {shapes}, step"
                f" {step}, {moves} moves. Load what the same layer saved.",
            )
        if spec.trainable:
            steps.add(step)
    if len(steps) > 1:
        raise InputError(
            "table-state-invalid",
            "All trainable tables must have taken the same number of steps. Received:"
            f" {sorted(steps)}. Load what one layer saved.",
        )
    return steps.pop() if steps else 0

"""Embedding tables as arrays of JAX, on the device that computes the model.

A table is a weight of a Keras layer with `overwrite_with_gradient`: the backward pass
of the lookup returns as its "gradient" the table after the sparse update, and stock
`fit`, which gives its state away to each step, lets XLA write the touched rows in
place. Work per step grows with the batch, not with the table.

Knows Keras weights and JAX; the arithmetic is in `device_update.py`.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax import Array, lax

from shortlist.embeddings import device_update as updates
from shortlist.embeddings.device_update import DeviceBags, Entries
from shortlist.embeddings.rules import SLOTS, Rule
from shortlist.embeddings.specs import TableSpec
from shortlist.errors import InputError, ShortlistError

# The parts of the control weight. What Keras does to all weights shows in the first
# two: MARK is 1 and WITNESS is -(step + 1) unless gradients were added (two calls in
# one step: MARK 2), were missing (all 0) or accumulated (Keras takes the maximum with
# an accumulator that starts at 0: WITNESS 0).
MARK, WITNESS, STEP, REFUSED, SIGNAL, FAULT = range(6)
_FRESH = (1.0, -1.0, 0.0, 0.0, 0.0, 0.0)
_NO_FAULT, _NO_SCALE, _OUTSIDE = 0.0, 1.0, 2.0

Weights = dict[str, Array]


@dataclass(eq=False)
class _Stack:
    """Tables of one width, rule, schedule and trainability in one array."""

    dim: int
    rule: Rule
    schedule: Any
    trainable: bool
    members: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    num_rows: int = 0
    variables: dict[str, Any] = field(default_factory=dict)

    def learning_rate(self, step: Array) -> Array:
        """The rate of the update with the 0-based number `step`, () float32."""
        if self.schedule is None:
            return jnp.float32(self.rule.learning_rate)
        return jnp.asarray(self.schedule(step.astype(jnp.int32)), jnp.float32)


class DeviceTables:
    """The tables of one layer, their optimizer state, lookup and update.

    The layer calls `build` once, `lookup` once per call, and gives the `probe` of a
    training lookup to `add_loss`. `check` raises for what a compiled step could not;
    the layer calls it where Python runs again: before a call, at the end of an epoch,
    before saving.

    Args:
        layer: the Keras layer that owns the weights.
        specs: the tables.
    """

    def __init__(self, layer: Any, specs: Sequence[TableSpec]) -> None:
        self.layer = layer
        self.specs = tuple(specs)
        self._stacks: list[_Stack] = []
        self._place: list[tuple[_Stack, int]] = []  # stack and first row of a table
        self._names: dict[tuple[str, int], int] = {}  # features seen, by name and table
        self._control: Any = None
        self._outside: Any = None
        # The control tracer and the call that last took part in a differentiation.
        self._seen: tuple[weakref.ref[Any], object] | None = None

    def build(self) -> None:
        """Creates the weights: rows, state, and what watches over them.

        Raises:
            InputError: `row-type-unsupported`, `distribution-unsupported`.
        """
        self._refuse_unsupported()
        stacks: dict[tuple[object, ...], _Stack] = {}
        for index, spec in enumerate(self.specs):
            schedule = None if spec.schedule is None else id(spec.schedule)
            key = (spec.dim, spec.rule, schedule, spec.trainable)
            stack = stacks.get(key)
            if stack is None or stack.num_rows + spec.num_rows > 2**30:
                stack = _Stack(spec.dim, spec.rule, spec.schedule, spec.trainable)
                stacks[key] = stack
                self._stacks.append(stack)
            self._place.append((stack, stack.num_rows))
            stack.members.append(index)
            stack.offsets.append(stack.num_rows)
            stack.num_rows += spec.num_rows
        for number, stack in enumerate(self._stacks):
            self._add_weights(number, stack)
        if any(stack.trainable for stack in self._stacks):
            fresh = keras.initializers.Constant(np.array(_FRESH, np.float32))
            self._control = self._add("control", (len(_FRESH),), fresh, True)
        self._outside = self.layer.add_weight(
            shape=(3,),
            initializer="zeros",
            dtype="int32",
            trainable=False,
            autocast=False,
            name="outside",
        )

    def lookup(
        self, features: Sequence[DeviceBags], training: bool
    ) -> tuple[list[Array], Array]:
        """The combined vectors of all features of one call.

        In training this is the one differentiable call of a step: its backward pass
        moves the touched rows. Otherwise no gradient flows to the tables.

        Returns: `(num_bags, dim)` float32 per feature, as `reference.lookup`; and a
        float32 zero () whose cotangent is the factor of the loss, for `add_loss`.

        Raises:
            ShortlistError: `called-twice`, while the step is traced.
            InputError: `id-not-integer`.
        """
        prepared, outside = [], []
        for bags in features:
            stack, offset = self._place[bags.table]
            num_rows = self.specs[bags.table].num_rows
            ids = updates.as_ids(bags)
            entry, bad, first = updates.entries(bags, ids, num_rows, offset)
            prepared.append(entry)
            outside.append((self._number(bags), bad, first))
        any_outside = jnp.any(jnp.stack([bad for _, bad, _ in outside] or [False]))
        poison = self._report(outside)
        moving = [stack for stack in self._stacks if stack.trainable and training]
        vectors: list[Any] = [None] * len(prepared)
        plan: list[list[int]] = [[] for _ in moving]
        for index, bags in enumerate(features):
            stack = self._place[bags.table][0]
            if stack in moving:
                plan[moving.index(stack)].append(index)
            else:
                rows = lax.stop_gradient(stack.variables["rows"].value)
                vectors[index] = updates.combine(rows, prepared[index])
        probe = jnp.float32(0)
        if moving:
            weights = [
                {name: v.value for name, v in stack.variables.items()}
                for stack in moving
            ]
            parts = [[prepared[index] for index in indices] for indices in plan]
            moved, probe = self._moving_lookup(moving)(
                self._control.value, weights, parts, any_outside
            )
            for indices, found in zip(plan, moved, strict=True):
                for index, vector in zip(indices, found, strict=True):
                    vectors[index] = vector
        return [vector + poison for vector in vectors] if poison is not None else (
            vectors
        ), probe

    def check(self) -> None:
        """Raises what went wrong in steps that could not raise themselves.

        Does nothing while the weights are inside a compiled step. A fault that left the
        tables as they were is raised once; tables that Keras overwrote stay at fault
        until `load` or `set_weights` brings good ones.

        Raises:
            InputError: `id-out-of-range`, `accumulation-unsupported`.
            ShortlistError: `called-twice`, `lookup-not-in-loss`, `too-many-steps`.
        """
        control = None if self._control is None else _concrete(self._control)
        outside = None if self._outside is None else _concrete(self._outside)
        if control is not None and not _is_whole(control):
            raise _overwritten(control)
        if outside is not None and outside[0]:
            self._outside.assign(np.zeros(3, np.int32))
            if control is not None:
                self._forget_fault(control)
            raise self._outside_error(int(outside[1]), int(outside[2]))
        if control is None:
            return
        if control[FAULT]:
            self._forget_fault(control)
            raise _fault(control[FAULT])
        if control[STEP] >= updates.MAX_STEP:
            raise ShortlistError(
                "too-many-steps",
                f"Tables on the device take {updates.MAX_STEP:,} updates. That many are"
                " done, later ones were dropped. Use larger batches, or"
                ' placement="host".',
            )

    @property
    def step(self) -> int:
        """Number of updates so far."""
        return 0 if self._control is None else int(self._control.numpy()[STEP])

    @property
    def refused(self) -> int:
        """Number of updates dropped because a gradient was not finite."""
        return 0 if self._control is None else int(self._control.numpy()[REFUSED])

    def tables(self) -> dict[str, np.ndarray]:
        """The rows of every table by name, `(num_rows, dim)` float32."""
        return {name: arrays["rows"] for name, arrays in self._arrays(("rows",))}

    def state(self) -> dict[str, dict[str, np.ndarray]]:
        """Everything an update of each table depends on, by name.

        Returns: `rows`, the arrays of `rules.SLOTS` and `last_step` `(num_rows,)` int32
        where the rule has them, `step` () int64, and `moves` as in `table.Table`.

        Raises:
            ShortlistError: as `check`.
        """
        self.check()
        state = dict(self._arrays(None))
        for spec, (stack, _) in zip(self.specs, self._place, strict=True):
            step = self.step if spec.trainable else 0
            state[spec.name]["step"] = np.array(step, np.int64)
            if "moves" in stack.variables:
                moves = stack.variables["moves"].numpy()
                state[spec.name]["moves"] = updates.moves_to_host(moves, step)
        return state

    def load(self, state: dict[str, dict[str, np.ndarray]]) -> None:
        """Takes over what `state` gave, or the same arrays of a host table.

        Raises:
            InputError: `table-state-invalid`, before anything has changed.
        """
        steps = self._check_state(state)
        step = steps.pop() if steps else 0
        for stack in self._stacks:
            names = [self.specs[index].name for index in stack.members]
            for key, variable in stack.variables.items():
                if key == "moves":
                    moves = np.asarray(state[names[0]]["moves"])
                    variable.assign(updates.moves_from_host(moves, step))
                    continue
                parts = [np.asarray(state[name][key], np.float32) for name in names]
                variable.assign(np.concatenate(parts) if parts[1:] else parts[0])
        if self._control is not None:
            self._control.assign(np.array((1, -step - 1, step, 0, 0, 0), np.float32))
        self._outside.assign(np.zeros(3, np.int32))

    def _refuse_unsupported(self) -> None:
        for spec in self.specs:
            if spec.row_type != "float32":
                raise InputError(
                    "row-type-unsupported",
                    "Tables on the device keep float32 rows. Received:"
                    f" {spec.row_type} for table {spec.name!r}. Use float32, or"
                    ' placement="host".',
                )
        distribution = keras.distribution.distribution()
        if distribution is not None and distribution.device_mesh.devices.size > 1:
            raise InputError(
                "distribution-unsupported",
                "Tables on the device need a training on one device. Received: a"
                f" {type(distribution).__name__} over"
                f" {distribution.device_mesh.devices.size}. Train without"
                " keras.distribution.",
            )

    def _add(self, name: str, shape: Any, initializer: Any, trainable: bool) -> Any:
        return self.layer.add_weight(
            shape=shape,
            initializer=initializer,
            dtype="float32",
            trainable=trainable,
            autocast=False,
            overwrite_with_gradient=trainable,
            name=name,
        )

    def _add_weights(self, number: int, stack: _Stack) -> None:
        specs = [self.specs[index] for index in stack.members]

        def rows(shape: Any, dtype: Any = None) -> Array:
            if len(specs) == 1:
                return jnp.asarray(specs[0].initializer(shape, "float32"))
            filled = jnp.zeros(shape, jnp.float32)
            for spec, offset in zip(specs, stack.offsets, strict=True):
                part = spec.initializer((spec.num_rows, spec.dim), "float32")
                filled = _placed(filled, jnp.asarray(part), offset)
            return filled

        shapes: dict[str, tuple[Any, Any]] = {
            "rows": ((stack.num_rows, stack.dim), rows)
        }
        if stack.trainable:
            for slot, per in SLOTS[stack.rule.kind]:
                shape = (
                    (stack.num_rows,) if per == "row" else (stack.num_rows, stack.dim)
                )
                start = stack.rule.initial_accumulator if slot == "accumulator" else 0.0
                shapes[slot] = shape, keras.initializers.Constant(start)
            if stack.rule.remembers_steps:
                shapes["last_step"] = (stack.num_rows,), "zeros"
                shapes["moves"] = (2, updates.RING), "zeros"
        for key, (shape, initializer) in shapes.items():
            name = f"stack_{number}_{key}"
            stack.variables[key] = self._add(name, shape, initializer, stack.trainable)

    def _number(self, bags: DeviceBags) -> int:
        return self._names.setdefault((bags.name, bags.table), len(self._names))

    def _report(self, outside: list[tuple[int, Array, Array]]) -> Array | None:
        """Keeps the first id outside its table in a weight that the step returns.

        Where no weight can be kept, in a function that recomputes (`jax.checkpoint`,
        `keras.RematScope`) or that JAX traces without Keras, ids outside make all
        vectors NaN: that number is returned.
        """
        before = self._outside.value
        now = before
        for number, bad, first in outside:
            found = jnp.stack([jnp.int32(1), jnp.int32(number), first])
            now = jnp.where((now[0] == 0) & bad, found, now)
        if _trace_of(now) is _trace_of(before):
            self._outside.assign(now)
            return None
        any_outside = jnp.stack([bad for _, bad, _ in outside]).any()
        return jnp.where(any_outside, jnp.float32(np.nan), jnp.float32(0))

    def _moving_lookup(self, stacks: list[_Stack]) -> Any:
        """A function of (control, weights, entries, any id outside the tables).

        Its outputs are vectors per stack and feature, and the probe; its cotangents of
        `control` and `weights` are what these become.
        """
        call = object()
        control = self._control.value

        def forward(
            control: Array,
            weights: list[Weights],
            parts: list[list[Entries]],
            any_outside: Array,
        ) -> tuple[list[list[Array]], Array]:
            vectors = [
                [updates.combine(own["rows"], entry) for entry in entries]
                for own, entries in zip(weights, parts, strict=True)
            ]
            return vectors, jnp.float32(0)

        def remembered(*inputs: Any) -> Any:
            self._refuse_second(control, call)
            return forward(*inputs), inputs

        def backward(inputs: Any, cotangents: Any) -> Any:
            return (*_updated(stacks, *inputs, *cotangents), None, None)

        lookup = jax.custom_vjp(forward)
        lookup.defvjp(remembered, backward)
        return lookup

    def _refuse_second(self, control: Any, call: object) -> None:
        """Raises if another call of this step is differentiated too."""
        if not isinstance(control, jax.core.Tracer):
            return
        if self._seen is not None:
            seen, first = self._seen
            if seen() is control and first is not call:
                raise _called_twice()
        self._seen = weakref.ref(control), call

    def _outside_error(self, number: int, value: int) -> InputError:
        names = [name for name, at in self._names.items() if at == number]
        feature, table = names[0] if names else ("?", 0)
        spec = self.specs[table]
        return InputError(
            "id-out-of-range",
            f"Ids must be from 0 to {spec.num_rows - 1}, or -1 for padding. Received:"
            f" {value} for feature {feature!r}, table {spec.name!r}. The lookup took row"
            " 0, and updates of such batches were dropped. Raise vocabulary_size or"
            " correct the ids.",
        )

    def _forget_fault(self, control: np.ndarray) -> None:
        if control[FAULT]:
            self._control.assign(np.where(np.arange(6) == FAULT, 0, control))

    def _arrays(self, keys: tuple[str, ...] | None) -> Any:
        for spec, (stack, offset) in zip(self.specs, self._place, strict=True):
            arrays = {}
            for key in keys or [key for key in stack.variables if key != "moves"]:
                part = stack.variables[key].value[offset : offset + spec.num_rows]
                arrays[key] = np.array(part)
            if "last_step" in arrays:
                arrays["last_step"] = arrays["last_step"].astype(np.int32)
            yield spec.name, arrays

    def _check_state(self, state: dict[str, dict[str, np.ndarray]]) -> set[int]:
        """The steps of the trainable tables, at most one number."""
        steps = set()
        for spec, (stack, _) in zip(self.specs, self._place, strict=True):
            found = state.get(spec.name, {})
            wanted = {
                key: (spec.num_rows, *variable.shape[1:])
                for key, variable in stack.variables.items()
                if key != "moves"
            }
            shapes = {key: np.shape(found[key]) for key in wanted if key in found}
            step = int(found.get("step", 0))
            enough = "moves" not in stack.variables or (
                len(found.get("moves", ())) > step
            )
            if shapes != wanted or not enough or not 0 <= step <= updates.MAX_STEP:
                raise InputError(
                    "table-state-invalid",
                    f"State of table {spec.name!r} must have {wanted}, a step and, for"
                    f" Adam that catches up, moves. Received: {shapes}, step {step}."
                    " Load what the same layer saved.",
                )
            if spec.trainable:
                steps.add(step)
        if len(steps) > 1:
            raise InputError(
                "table-state-invalid",
                "All trainable tables must have taken the same number of steps."
                f" Received: {sorted(steps)}. Load what one layer saved.",
            )
        return steps


def _updated(
    stacks: list[_Stack],
    control: Array,
    weights: list[Weights],
    parts: list[list[Entries]],
    any_outside: Array,
    cotangents: list[list[Array]],
    scale: Array,
) -> tuple[Array, list[Weights]]:
    """`control` and `weights` after the step, or as they were if it is refused."""
    whole = (control[MARK] == 1) & (control[WITNESS] == -(control[STEP] + 1))
    whole &= control[STEP] < updates.MAX_STEP
    inverse = 1 / jnp.where(scale == 0, 1, scale)
    finite = jnp.isfinite(scale)
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
    fault = jnp.where(any_outside, _OUTSIDE, jnp.where(scale == 0, _NO_SCALE, 0.0))
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
    stack: _Stack,
    step: Array,
    own: Weights,
    touched: tuple[Array, Array] | None,
    moves: Array,
) -> Weights:
    """The weights of a stack after update number `step`; as they were unless `moves`.

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


@partial(jax.jit, donate_argnums=0)
def _placed(table: Array, part: Array, first: Array | int) -> Array:
    return lax.dynamic_update_slice(table, part, (first, 0))


def _concrete(variable: Any) -> np.ndarray | None:
    """The value of a weight, unless it is in the hands of a step."""
    value = variable.value
    if value is None or isinstance(value, jax.core.Tracer):
        return None
    return np.asarray(value)


def _trace_of(value: Any) -> object:
    """The JAX transformation that a value belongs to; `None` for plain arrays."""
    return getattr(value, "_trace", None)


def _is_whole(control: np.ndarray) -> bool:
    return bool(control[MARK] == 1 and control[WITNESS] == -(control[STEP] + 1))


def _called_twice() -> ShortlistError:
    return ShortlistError(
        "called-twice",
        "An embedding layer on the device must be called once in a training step."
        " Received: a second differentiable call; JAX would add up the two new tables."
        ' Look up all features in one call, or use placement="host".',
    )


def _overwritten(control: np.ndarray) -> ShortlistError:
    """The error for tables that Keras did not overwrite with what a lookup returned."""
    if control[MARK] > 1:
        return _called_twice()
    if control[MARK] == 0:
        return ShortlistError(
            "lookup-not-in-loss",
            "Every training step must call the embedding layer with training=True, and"
            " its loss must depend on it. In a step before, it did not, and Keras"
            " overwrote the tables with zeros. Load a checkpoint; set trainable=False"
            " on the layer for steps that do not train it.",
        )
    return InputError(
        "accumulation-unsupported",
        "Tables on the device must be overwritten with what the lookup returned. Keras"
        " stored something else, as gradient_accumulation_steps makes it do: the tables"
        " are no longer right. Load a checkpoint, and train without accumulation or"
        ' with placement="host".',
    )


def _fault(code: float) -> ShortlistError:
    if code == _OUTSIDE:
        return InputError(
            "id-out-of-range",
            "Ids must be rows of their table, or -1 for padding. Updates of batches with"
            " other ids were dropped. Raise vocabulary_size or correct the ids.",
        )
    return ShortlistError(
        "lookup-not-in-loss",
        "The loss of a training step must include the losses of its layers"
        " (add_loss), by which tables on the device know its scale. Received: a loss"
        " without them; the tables did not move. Add `sum(self.losses)` in"
        " compute_loss.",
    )

"""Embedding tables as arrays of JAX, on the device that computes the model.

A table is a weight of a Keras layer with `overwrite_with_gradient`: the backward pass
of the lookup returns as its "gradient" the table after the sparse update. Stock `fit`
donates its state to each step, so XLA writes the touched rows in place. Work per step
grows with the batch, not with the table.

Knows Keras weights and JAX; the arithmetic is in `arithmetic.py`.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax import Array, lax

from shortlist.embeddings.device import arithmetic as updates
from shortlist.embeddings.device.arithmetic import DeviceBags, Entries
from shortlist.embeddings.device.step import (
    FAULT,
    FRESH,
    OUTSIDE,
    REFUSED,
    STEP,
    LookupInputs,
    Stack,
    Weights,
    called_twice,
    checked_step,
    fault_error,
    is_whole,
    outside_error,
    overwritten,
    remat_error,
    too_many_steps,
    unchanged,
    updated,
)
from shortlist.embeddings.host.handle_weight import refuse_swap
from shortlist.embeddings.specs import FollowedRate, TableSpec
from shortlist.errors import InputError, ShortlistError


class DeviceTables:
    """The tables of one layer, their optimizer state, lookup and update.

    The layer calls `build` once, `lookup` once per call, and passes the `probe` of a
    training lookup to `add_loss`. `check` raises the error of a compiled step; the
    layer calls it when Python runs again: before a call, at the end of an epoch,
    before saving.

    Args:
        layer: the Keras layer that owns the weights.
        specs: the tables.
    """

    def __init__(self, layer: Any, specs: Sequence[TableSpec]) -> None:
        self.layer = layer
        self.specs = tuple(specs)
        self._stacks: list[Stack] = []
        self._place: list[tuple[Stack, int]] = []  # stack and first row of a table
        self._names: dict[tuple[str, int], int] = {}  # features seen, by name and table
        self._control: Any = None
        self._outside: Any = None
        # The control tracer and the call that last took part in a differentiation.
        self._seen: tuple[weakref.ref[Any], object] | None = None

    def build(self) -> None:
        """Creates the weights: rows, state, and the control weights.

        Raises:
            InputError: `row-type-unsupported`, `distribution-unsupported`.
        """
        self._refuse_unsupported()
        stacks: dict[tuple[object, ...], Stack] = {}
        for index, spec in enumerate(self.specs):
            schedule = None if spec.schedule is None else id(spec.schedule)
            key = (spec.dim, spec.rule, schedule, spec.trainable)
            stack = stacks.get(key)
            if stack is None or stack.num_rows + spec.num_rows > 2**30:
                stack = Stack(spec.dim, spec.rule, spec.schedule, spec.trainable)
                stacks[key] = stack
                self._stacks.append(stack)
            self._place.append((stack, stack.num_rows))
            stack.members.append(index)
            stack.offsets.append(stack.num_rows)
            stack.num_rows += spec.num_rows
        for number, stack in enumerate(self._stacks):
            self._add_weights(number, stack)
        if any(stack.trainable for stack in self._stacks):
            fresh = keras.initializers.Constant(np.array(FRESH, np.float32))
            self._control = self._add("control", (len(FRESH),), fresh, True)
        self._outside = self._add("outside", (3,), "zeros", False, "int32")

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
            InputError: `id-not-integer`, `remat-unsupported`.
        """
        try:
            return self._lookup(features, training)
        except ShortlistError as error:
            unchanged(error)
            raise

    def _lookup(
        self, features: Sequence[DeviceBags], training: bool
    ) -> tuple[list[Array], Array]:
        if isinstance(training, jax.core.Tracer):
            raise remat_error()
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
            weights = [stack.values() for stack in moving]
            parts = [[prepared[index] for index in indices] for indices in plan]
            moved, probe = self._moving_lookup(moving)(
                self._control.value, weights, parts, any_outside
            )
            for indices, found in zip(plan, moved, strict=True):
                for index, vector in zip(indices, found, strict=True):
                    vectors[index] = vector
        if poison is not None:
            vectors = [vector + poison for vector in vectors]
        return vectors, probe

    def check(self) -> None:
        """Raises the error of earlier compiled steps, if any.

        Does nothing while the weights are inside a compiled step. An error that left
        the tables unchanged is raised once; one that lost the tables is raised until
        `load` or `set_weights` sets valid ones.

        Raises:
            InputError: `id-out-of-range`, `accumulation-unsupported`.
            ShortlistError: `called-twice`, `lookup-not-in-loss`, `too-many-steps`.
        """
        control = None if self._control is None else _concrete(self._control)
        outside = None if self._outside is None else _concrete(self._outside)
        if control is not None and not is_whole(control):
            raise overwritten(control)
        if outside is not None and outside[0]:
            self._outside.assign(np.zeros(3, np.int32))
            if control is not None:
                self._forget_fault(control)
            raise self._outside_error(int(outside[1]), int(outside[2]))
        if control is None:
            return
        if control[FAULT]:
            self._forget_fault(control)
            raise fault_error(control[FAULT])
        if control[STEP] >= updates.MAX_STEP:
            raise too_many_steps()

    @property
    def step(self) -> int:
        """Number of updates so far."""
        return 0 if self._control is None else int(self._control.numpy()[STEP])

    @property
    def refused(self) -> int:
        """Number of updates dropped because a gradient was not finite."""
        return 0 if self._control is None else int(self._control.numpy()[REFUSED])

    def rows(self) -> dict[str, np.ndarray]:
        """The rows of every table by name, `(num_rows, dim)` float32."""
        return {name: arrays["rows"] for name, arrays in self._arrays(("rows",))}

    def set_rows(self, rows: Mapping[str, np.ndarray]) -> None:
        """Sets the rows of some tables, by name; other names are ignored."""
        state = self.state()
        for name in state.keys() & rows.keys():
            state[name]["rows"] = np.asarray(rows[name], np.float32)
        self.load(state)

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
        """Sets the tables to what `state` returned, or to the arrays of host tables.

        Raises:
            InputError: `table-state-invalid`, before anything has changed.
        """
        step = checked_step(self.specs, [stack for stack, _ in self._place], state)
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
                    "Tables on the device have float32 rows. Received:"
                    f" {spec.row_type} for table {spec.name!r}. Use float32, or"
                    ' placement="host".',
                )
            if isinstance(spec.schedule, FollowedRate):
                raise InputError(
                    "placement-unsupported",
                    "Tables on a device cannot follow the rate of the optimizer."
                    f" Received: learning_rate='optimizer' for table {spec.name!r}. Use"
                    ' placement="host", a number or a schedule.',
                )
        distribution = keras.distribution.distribution()
        if distribution is not None and distribution.device_mesh.devices.size > 1:
            raise InputError(
                "distribution-unsupported",
                "Tables on the device are trained on one device. Received: a"
                f" {type(distribution).__name__} over"
                f" {distribution.device_mesh.devices.size}. Train without"
                " keras.distribution.",
            )

    def _add(
        self,
        name: str,
        shape: Any,
        initializer: Any,
        trainable: bool,
        dtype: str = "float32",
    ) -> Any:
        variable = self.layer.add_weight(
            shape=shape,
            initializer=initializer,
            dtype=dtype,
            trainable=trainable,
            autocast=False,
            overwrite_with_gradient=trainable,
            name=name,
        )
        if trainable:
            refuse_swap(variable)
        return variable

    def _add_weights(self, number: int, stack: Stack) -> None:
        specs = [self.specs[index] for index in stack.members]

        def rows(shape: Any, dtype: Any = None) -> Array:
            if len(specs) == 1:
                return jnp.asarray(specs[0].initializer(shape, "float32"))
            filled = jnp.zeros(shape, jnp.float32)
            for spec, offset in zip(specs, stack.offsets, strict=True):
                part = spec.initializer((spec.num_rows, spec.dim), "float32")
                filled = _placed(filled, jnp.asarray(part), offset)
            return filled

        for key, (shape, start) in stack.shapes().items():
            initializer = rows if key == "rows" else keras.initializers.Constant(start)
            name = f"stack_{number}_{key}"
            stack.variables[key] = self._add(name, shape, initializer, stack.trainable)

    def _number(self, bags: DeviceBags) -> int:
        return self._names.setdefault((bags.name, bags.table), len(self._names))

    def _report(self, outside: list[tuple[int, Array, Array]]) -> Array | None:
        """Keeps the first id outside its table in a weight that the step returns.

        Where no weight can be written, in a function that recomputes (`jax.checkpoint`)
        or that JAX traces without Keras, ids outside make all vectors NaN: then the
        returned number is to be added to them.
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

    def _moving_lookup(self, stacks: list[Stack]) -> Any:
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
            vectors, probe = forward(*inputs)
            return (vectors, probe), (inputs, vectors)

        def backward(kept: Any, cotangents: Any) -> Any:
            inputs, vectors = kept
            after = updated(stacks, LookupInputs(*inputs), vectors, *cotangents)
            return (*after, None, None)

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
                raise unchanged(called_twice())
        self._seen = weakref.ref(control), call

    def _outside_error(self, number: int, value: int) -> ShortlistError:
        if number >= len(self._names):  # a weight that another process saved
            return fault_error(OUTSIDE)
        feature, table = list(self._names)[number]
        return outside_error(self.specs[table], feature, value)

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


@partial(jax.jit, donate_argnums=0)
def _placed(table: Array, part: Array, first: Array | int) -> Array:
    return lax.dynamic_update_slice(table, part, (first, 0))


def _concrete(variable: Any) -> np.ndarray | None:
    """The value of a weight, unless a compiled step has it."""
    value = variable.value
    if value is None or isinstance(value, jax.core.Tracer):
        return None
    return np.asarray(value)


def _trace_of(value: Any) -> object:
    """The JAX transformation that a value belongs to; `None` for plain arrays."""
    return getattr(value, "_trace", None)

"""The arithmetic of tables held as JAX arrays: bags, sums per row, update rules.

The twin of `reference.py` for graphs: pure functions of arrays, everything of a fixed
size. Knows nothing of Keras, layers or weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from shortlist.embeddings.rules import Rule
from shortlist.embeddings.table import Combiner
from shortlist.errors import InputError

# Sums that rows catch up with are kept for the first `EARLY` and the last `RING` steps,
# and for one step in `COARSE` between them, up to the last step a float32 can count.
RING = 2**16
EARLY = 2**15
COARSE = 2**9
MAX_STEP = 2**24 - 2
# Moves of a skipped row that shrink below this share are ignored.
_NEGLIGIBLE = 2.0**-40
_MAX_WINDOW = 1024
_OFFSET_LIMIT = 2**31


@dataclass(frozen=True, kw_only=True, eq=False)
class DeviceBags:
    """The ids of one feature in one batch: one bag of rows to combine per example.

    Args:
        name: the feature, for messages.
        table: index of the table among the specs.
        ids: integers `(num_bags, length)` padded with -1, or `(num_bags,)`; NumPy or
            JAX, traced or not.
        weights: float32 of the shape of `ids`. No gradient flows to them.
        combiner: how the rows of a bag become one vector.
    """

    name: str
    table: int
    ids: Any
    weights: Any = None
    combiner: Combiner = "sum"


class Entries(NamedTuple):
    """The entries of the bags of one feature.

    Args:
        rows: `(num_bags, length)` int32 rows of the stack; 0 where there is padding.
        kept: `(num_bags, length)` bool: not padding.
        coefficients: `(num_bags, length)` float32, 0 where there is padding.
    """

    rows: Array
    kept: Array
    coefficients: Array


def as_ids(bags: DeviceBags) -> Array:
    """The ids of a feature as int32 `(num_bags, length)`.

    64-bit ids of NumPy are clipped to 32 bits, not wrapped into the table.

    Raises:
        InputError: `id-not-integer`.
    """
    ids = bags.ids
    kind = np.dtype(getattr(ids, "dtype", None) or np.asarray(ids).dtype)
    if kind.kind not in "iu":
        raise InputError(
            "id-not-integer",
            f"Ids must be integers. Received: {kind} for feature {bags.name!r}. Look up"
            " the rows of a vocabulary first.",
        )
    if not isinstance(ids, jax.Array):
        ids = np.clip(np.asarray(ids), -(2**31), 2**31 - 1)
    ids = jnp.asarray(ids, jnp.int32)
    return ids[:, None] if ids.ndim == 1 else ids


def entries(
    bags: DeviceBags, ids: Array, num_rows: int, offset: int
) -> tuple[Entries, Array, Array]:
    """The entries to add up for each bag of `ids` `(num_bags, length)` int32.

    Coefficients are those of `reference.entries`: the weight, divided by the sum of the
    weights (`mean`) or the root of the sum of their squares (`sqrtn`).

    Returns: the entries, whether any id is outside the table, and the first such id.
    """
    kept = ids != -1
    outside = kept & ((ids < 0) | (ids >= num_rows))
    rows = jnp.where(kept & ~outside, ids, 0) + jnp.int32(offset)
    if bags.weights is None:
        weights = kept.astype(jnp.float32)
    else:
        given = lax.stop_gradient(jnp.asarray(bags.weights, jnp.float32))
        weights = jnp.where(kept, given.reshape(ids.shape), 0)
    if bags.combiner != "sum":
        if bags.combiner == "mean":
            divisor = jnp.sum(weights, axis=1, keepdims=True)
        else:
            divisor = jnp.sqrt(jnp.sum(weights * weights, axis=1, keepdims=True))
        usable = divisor != 0
        weights = weights * jnp.where(usable, 1 / jnp.where(usable, divisor, 1), 0)
    first = ids.reshape(-1)[jnp.argmax(outside)] if ids.size else jnp.int32(0)
    return Entries(rows, kept, weights), jnp.any(outside), first


def combine(table: Array, entry: Entries) -> Array:
    """The vectors `(num_bags, dim)` float32 of the bags of one feature."""
    rows = table.at[entry.rows].get(mode="promise_in_bounds")
    rows = jnp.where(entry.kept[..., None], rows, 0)
    return jnp.sum(rows * entry.coefficients[..., None], axis=1)


def sum_by_row(
    features: Sequence[Entries], gradients: Sequence[Array], num_rows: int
) -> tuple[Array, Array]:
    """The gradient of every touched row, over all entries of all features.

    Args:
        features: entries with n positions in all.
        gradients: `(num_bags, dim)` float32 for each of them.
        num_rows: rows of the stack.

    Returns: `(n,)` int32, the touched rows ascending, then numbers from `num_rows` on
    that belong to no row, no number twice; and the sums `(n, dim)` float32.
    """
    rows = jnp.concatenate(
        [jnp.where(e.kept, e.rows, num_rows).reshape(-1) for e in features]
    )
    coefficients = jnp.concatenate([e.coefficients.reshape(-1) for e in features])
    sizes = [entry.rows.shape for entry in features]
    starts = np.cumsum([0] + [num_bags for num_bags, _ in sizes])
    bag = np.concatenate(
        [
            start + np.repeat(np.arange(num_bags), length)
            for start, (num_bags, length) in zip(starts, sizes, strict=False)
        ]
    )
    position = jnp.arange(len(bag), dtype=jnp.int32)
    if num_rows + len(bag) >= _OFFSET_LIMIT:
        raise InputError(
            "batch-too-large",
            f"Rows of a table and ids of a batch must be below {_OFFSET_LIMIT:,}"
            f" together. Received: {num_rows:,} and {len(bag):,}. Use smaller batches"
            ' or placement="host".',
        )
    rows, order = lax.sort((rows, position), num_keys=1)
    parts = jnp.concatenate(gradients)[jnp.asarray(bag, jnp.int32)[order]]
    parts = parts * coefficients[order][:, None]
    first = jnp.concatenate([jnp.ones(1, bool), rows[1:] != rows[:-1]])
    segment = jnp.cumsum(first, dtype=jnp.int32) - 1
    summed = jax.ops.segment_sum(
        parts, segment, num_segments=len(bag), indices_are_sorted=True
    )
    # Positions without a row get numbers beyond the table, in ascending order.
    unique = (position + num_rows).at[segment].min(rows, indices_are_sorted=True)
    return jnp.where(unique < num_rows, unique, position + num_rows), summed


def update_rows(
    rule: Rule,
    learning_rate: Array,
    step: Array,
    old: dict[str, Array],
    gradient: Array,
    catch_up: Array | None,
) -> dict[str, Array]:
    """The new rows and state after `reference.update_rows`, with the same formulas.

    Args:
        rule: how rows are updated.
        learning_rate: () float32.
        step: () float32, 1-based number of this update.
        old: `rows` `(n, dim)` and the state of these rows, as in `rules.SLOTS`;
            `last_step` `(n,)` where the rule remembers steps.
        gradient: `(n, dim)` float32.
        catch_up: `(n,)` float32, as `moves_since` returns.

    Returns: arrays of the names and shapes of `old`.
    """
    w, g, lr, new = old["rows"], gradient, learning_rate, dict(old)
    if rule.clip is not None:
        length = jnp.sqrt(jnp.sum(g * g, axis=1, keepdims=True))
        long = length > rule.clip
        g = g * jnp.where(long, rule.clip / jnp.where(long, length, 1), 1)
    if rule.l2:
        g = g + rule.l2 * w
    epsilon = np.float32(rule.epsilon)
    if rule.kind == "adam":
        m, v = old["momentum"], old["velocity"]
        if rule.remembers_steps:
            assert catch_up is not None
            last = old["last_step"]
            skipped = jnp.where(last > 0, step - 1 - last, 0)[:, None]
            w = w - catch_up[:, None] * m / (jnp.sqrt(v) + epsilon)
            m, v = m * _power(rule.beta_1, skipped), v * _power(rule.beta_2, skipped)
            # The step itself. XLA writes in place what depends on what it replaces.
            new["last_step"] = jnp.maximum(last, step)
    if rule.weight_decay:
        w = w - lr * np.float32(rule.weight_decay) * w
    if rule.kind == "sgd":
        w = w - lr * g
    elif rule.kind == "adagrad":
        new["accumulator"] = old["accumulator"] + g * g
        w = w - lr * g / jnp.sqrt(new["accumulator"] + epsilon)
    elif rule.kind == "rowwise_adagrad":
        new["accumulator"] = old["accumulator"] + jnp.mean(g * g, axis=1)
        w = w - lr * g / (jnp.sqrt(new["accumulator"]) + epsilon)[:, None]
    elif rule.kind == "adam":
        m = m + (g - m) * np.float32(1 - rule.beta_1)
        v = v + (g * g - v) * np.float32(1 - rule.beta_2)
        new["momentum"], new["velocity"] = m, v
        w = w - adam_rate(rule, lr, step) * m / (jnp.sqrt(v) + epsilon)
    else:
        w = _ftrl(rule, old, new, w, g, lr)
    new["rows"] = w
    return new


def _ftrl(
    rule: Rule,
    old: dict[str, Array],
    new: dict[str, Array],
    w: Array,
    g: Array,
    lr: Array,
) -> Array:
    before, grown = old["accumulator"], old["accumulator"] + g * g
    power = -rule.learning_rate_power
    was, now = _raised(before, power), _raised(grown, power)
    change = (now - was) / lr * w
    linear = old["linear"] + g + 2 * rule.l2_shrinkage * w - change
    new["accumulator"], new["linear"] = grown, linear
    quadratic = now / lr + 2 * (rule.l2_ftrl + rule.beta / (2 * lr))
    return (jnp.clip(linear, -rule.l1, rule.l1) - linear) / quadratic


def _raised(values: Array, power: float) -> Array:
    return jnp.sqrt(values) if power == 0.5 else values**power


def adam_rate(rule: Rule, learning_rate: Array, step: Array) -> Array:
    """Step size of Adam with its bias correction at the 1-based `step`.

    `1 - b2**t` is computed as `-expm1(t * log(b2))`: in float32 the difference itself
    has only four correct digits in the first steps.
    """
    fall_1, fall_2 = _log(rule.beta_1) * step, _log(rule.beta_2) * step
    return learning_rate * jnp.sqrt(-jnp.expm1(fall_2)) / -jnp.expm1(fall_1)


def moves_window(rule: Rule) -> int:
    """Number of skipped steps after which the moves of a row are too small to count."""
    ratio = rule.beta_1 / rule.beta_2**0.5
    if not 0 < ratio < 1:
        return 0 if ratio else 1
    return min(math.ceil(math.log(_NEGLIGIBLE) / math.log(ratio)), _MAX_WINDOW)


def extended_moves(
    rule: Rule, moves: Array, rate: Array, step: Array, counts: Array
) -> Array:
    """The sums that skipped rows catch up with, at the start of an update.

    `Table.moves[s]`, the sum over s < u < `step` of rate(u) * r^(u-s) with
    r = b1 / sqrt(b2), needs one number for every past step. Here the first row of
    `moves` `(2, RING)` float32 keeps it for the last `RING` steps, step s at
    `s % RING`; the second for the first `EARLY` steps and every later one divisible by
    `COARSE`, at `_place(s)`. Only a row last touched after step `EARLY` and then not
    for `RING` steps takes the sum of a step less than `COARSE` before its own: the same
    number unless the learning rate jumped just there.

    Args:
        rule: an Adam that catches up.
        moves: as it was at the last update.
        rate: () float32, `adam_rate` of the last update, number `step - 1`.
        step: () float32, 1-based number of this update.
        counts: () bool, whether the update takes place; if not, nothing changes.

    Returns: the new `moves`; work and writes are those of `moves_window` numbers.
    """
    now, window = step.astype(jnp.int32), moves_window(rule)
    ages = np.arange(1, window + 1, dtype=np.int32)
    grown = rate * np.exp(_log(rule.beta_1 / rule.beta_2**0.5) * ages)
    steps = now - 1 - ages
    usable = (steps >= 1) & counts
    # The step that begins overwrites the oldest one in the ring.
    moves = moves.at[0, jnp.where(counts, now % RING, RING)].set(0, mode="drop")
    fine = jnp.where(usable, steps % RING, RING)
    moves = moves.at[0, fine].add(grown, mode="drop")
    kept = usable & ((steps < EARLY) | (steps % COARSE == 0))
    return moves.at[1, jnp.where(kept, _place(steps), RING)].add(grown, mode="drop")


def moves_since(moves: Array, last_step: Array, step: Array) -> Array:
    """The sums for rows last updated at `last_step` `(n,)`; 0 if they never were.

    Returns: `(n,)` float32, see `reference.catch_up_factors`.
    """
    last = jnp.maximum(last_step, 0).astype(jnp.int32)
    recent = step.astype(jnp.int32) - last < RING
    fine = moves[0, last % RING]
    return jnp.where(last > 0, jnp.where(recent, fine, moves[1, _place(last)]), 0)


def moves_to_host(moves: np.ndarray, step: int) -> np.ndarray:
    """`Table.moves` `(step + 1,)` float64 from the arrays of `extended_moves`."""
    steps = np.arange(step + 1)
    recent = step + 1 - steps < RING
    found = np.where(recent, moves[0, steps % RING], moves[1, _place(steps)])
    found[0] = 0
    return np.asarray(found, np.float64)


def moves_from_host(table_moves: np.ndarray, step: int) -> np.ndarray:
    """The arrays of `extended_moves` from `Table.moves` `(at least step + 1,)`."""
    moves = np.zeros((2, RING), np.float32)
    recent = np.arange(max(1, step + 1 - RING), step + 1)
    moves[0, recent % RING] = table_moves[recent]
    steps = np.arange(1, step + 1)
    rare = steps[(steps < EARLY) | (steps % COARSE == 0)]
    moves[1, _place(rare)] = table_moves[rare]
    return moves


def _place(steps: Any) -> Any:
    """The column of the second row of `moves` for the sum of a step."""
    where = jnp.where if isinstance(steps, Array) else np.where
    return where(steps < EARLY, steps, EARLY + steps // COARSE)


def _log(beta: float) -> np.float32:
    # exp(0 * -1e4) is 1 and exp(-1e4) is 0, as the powers of 0 are.
    return np.float32(math.log(beta) if beta > 0 else -1e4)


def _power(beta: float, exponent: Array) -> Array:
    return jnp.exp(_log(beta) * exponent)

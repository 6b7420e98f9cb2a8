"""The NumPy twin of the embedding kernels: the oracle in tests and the fallback.

Defines in plain array code what a lookup and an update are. `kernels.py` calls this or
the compiled core; both give the same numbers up to the last bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shortlist.embeddings.rules import Rule
from shortlist.embeddings.table import Bags, Gradients, Table


def lookup(tables: Sequence[Table], features: Sequence[Bags]) -> list[np.ndarray]:
    """The combined vector of every bag, `(num_bags, dim)` float32 per feature.

    An id of -1 is padding. An id outside the table counts as row 0 here; `kernels`
    reports it. An empty bag is a vector of zeros.
    """
    vectors = []
    for bags in features:
        table = tables[bags.table]
        bag, ids, coefficients = entries(bags, len(table.rows))
        rows = to_float32(table.rows[ids])
        out = np.zeros((bags.num_bags, rows.shape[1]), np.float32)
        np.add.at(out, bag, rows * coefficients[:, None])
        vectors.append(out)
    return vectors


def entries(bags: Bags, num_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entries of all bags that are not padding, in order.

    Returns: the bag `(n,)` int64, the row `(n,)` int64 and the coefficient `(n,)`
    float32 of each entry. The combined vector of a bag is the sum of its rows times
    their coefficients: the weight (1 without weights), divided by the sum of the
    weights (`mean`) or the root of the sum of their squares (`sqrtn`); a divisor of 0
    gives coefficients of 0.
    """
    ids = bags.ids.reshape(-1)
    if bags.offsets is None:
        bag = np.repeat(np.arange(bags.num_bags), bags.length)
    else:
        bag = np.repeat(np.arange(bags.num_bags), np.diff(bags.offsets))
    weights = (
        np.ones(len(ids), np.float32)
        if bags.weights is None
        else bags.weights.reshape(-1)
    )
    kept = ids != -1
    bag, ids, weights = bag[kept], ids[kept].astype(np.int64), weights[kept]
    ids = np.where((ids < 0) | (ids >= num_rows), 0, ids)
    if bags.combiner == "sum":
        return bag, ids, weights
    divisor = np.zeros(bags.num_bags, np.float32)
    if bags.combiner == "mean":
        np.add.at(divisor, bag, weights)
    else:
        np.add.at(divisor, bag, weights * weights)
        divisor = np.sqrt(divisor)
    inverse = np.divide(
        np.float32(1), divisor, out=np.zeros_like(divisor), where=divisor != 0
    )
    return bag, ids, weights * inverse[bag]


def update(
    tables: Sequence[Table],
    batches: Sequence[Gradients],
    learning_rates: Sequence[float],
) -> None:
    """Moves the touched rows of every trainable table once.

    The gradient of a row is the sum over all its entries in all features of all
    `batches`, in that order, of coefficient times gradient of the bag; then it is
    multiplied by `scale` of its batch. Every trainable table counts one more step,
    touched or not, as a dense optimizer would.
    """
    for index, table in enumerate(tables):
        if not table.trainable:
            continue
        rows, gradients = _summed(table, index, batches)
        table.begin_step(learning_rates[index])
        if len(rows):
            update_rows(table, rows, gradients, learning_rates[index])


def _summed(
    table: Table, index: int, batches: Sequence[Gradients]
) -> tuple[np.ndarray, np.ndarray]:
    """Unique rows, ascending, and the float32 sum of their gradients."""
    all_rows, parts = [np.zeros(0, np.int64)], [np.zeros((0, table.dim), np.float32)]
    for batch in batches:
        for bags, gradient in zip(batch.features, batch.gradients, strict=True):
            if bags.table != index:
                continue
            bag, ids, coefficients = entries(bags, len(table.rows))
            all_rows.append(ids)
            coefficients = coefficients * np.float32(batch.scale)
            parts.append(gradient[bag] * coefficients[:, None])
    rows, position = np.unique(np.concatenate(all_rows), return_inverse=True)
    summed = np.zeros((len(rows), table.dim), np.float32)
    np.add.at(summed, position, np.concatenate(parts))
    return rows, summed


def update_rows(
    table: Table, rows: np.ndarray, gradient: np.ndarray, learning_rate: float
) -> None:
    """Applies the rule of `table` to `rows` `(n,)`, each at most once.

    With g the gradient of a row w, in this order: g is shortened to `clip`; `l2 * w`
    is added; Adam catches up (see `catch_up_factors`); w loses
    `learning_rate * weight_decay * w`; then the formula:

    - `sgd`: w -= lr * g
    - `adagrad` (Duchi et al., 2011): a += g^2; w -= lr * g / sqrt(a + eps)
    - `rowwise_adagrad` (Mudigere et al., 2022): a += mean(g^2);
      w -= lr * g / (sqrt(a) + eps)
    - `adam` (Kingma and Ba, 2015): m += (g - m)(1 - b1); v += (g^2 - v)(1 - b2);
      w -= lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)
    - `ftrl` (McMahan et al., 2013): as in `keras.optimizers.Ftrl`

    Rows of two bytes are rounded up or down at random, with the probabilities that
    preserve the mean; the random number depends on the seed, the step, the row and the
    column only.
    """
    rule, slots, lr = table.rule, table.slots, np.float32(learning_rate)
    w = to_float32(table.rows[rows])
    g = _clipped(gradient, rule.clip) + np.float32(rule.l2) * w
    if rule.kind == "adam":
        m, v = slots["momentum"][rows], slots["velocity"][rows]
        if rule.remembers_steps:
            skipped, move = catch_up_factors(table, rows)
            w = w - move[:, None] * m / (np.sqrt(v) + np.float32(rule.epsilon))
            m = m * (rule.beta_1**skipped).astype(np.float32)[:, None]
            v = v * (rule.beta_2**skipped).astype(np.float32)[:, None]
            slots["last_step"][rows] = table.step
    w = w - lr * np.float32(rule.weight_decay) * w
    epsilon = np.float32(rule.epsilon)
    if rule.kind == "sgd":
        w = w - lr * g
    elif rule.kind == "adagrad":
        accumulator = slots["accumulator"][rows] + g * g
        slots["accumulator"][rows] = accumulator
        w = w - lr * g / np.sqrt(accumulator + epsilon)
    elif rule.kind == "rowwise_adagrad":
        accumulator = slots["accumulator"][rows] + np.mean(g * g, axis=1)
        slots["accumulator"][rows] = accumulator
        w = w - lr * g / (np.sqrt(accumulator) + epsilon)[:, None]
    elif rule.kind == "adam":
        m = m + (g - m) * np.float32(1 - rule.beta_1)
        v = v + (g * g - v) * np.float32(1 - rule.beta_2)
        slots["momentum"][rows], slots["velocity"][rows] = m, v
        w = w - np.float32(adam_rate(rule, learning_rate, table.step)) * m / (
            np.sqrt(v) + epsilon
        )
    else:
        w = _ftrl(rule, slots, rows, w, g, lr)
    table.rows[rows] = rounded(w, table, rows)


def _clipped(g: np.ndarray, clip: float | None) -> np.ndarray:
    if clip is None:
        return g
    length = np.sqrt(np.sum(g * g, axis=1, keepdims=True))
    limit = np.float32(clip)
    factor = np.divide(limit, length, out=np.ones_like(length), where=length > limit)
    clipped: np.ndarray = g * factor
    return clipped


def _ftrl(
    rule: Rule,
    slots: dict[str, np.ndarray],
    rows: np.ndarray,
    w: np.ndarray,
    g: np.ndarray,
    lr: np.float32,
) -> np.ndarray:
    accumulator, linear = slots["accumulator"][rows], slots["linear"][rows]
    shrunk = g + np.float32(2 * rule.l2_shrinkage) * w
    grown = accumulator + g * g
    power = np.float32(-rule.learning_rate_power)
    linear = linear + shrunk - (grown**power - accumulator**power) / lr * w
    l2 = np.float32(rule.l2_ftrl) + np.float32(rule.beta) / (2 * lr)
    quadratic = grown**power / lr + 2 * l2
    l1 = np.float32(rule.l1)
    slots["accumulator"][rows], slots["linear"][rows] = grown, linear
    moved: np.ndarray = (np.clip(linear, -l1, l1) - linear) / quadratic
    return moved


def adam_rate(rule: Rule, learning_rate: float, step: int) -> float:
    """Step size of Adam with its bias correction at the 1-based `step`."""
    return float(
        learning_rate * np.sqrt(1 - rule.beta_2**step) / (1 - rule.beta_1**step)
    )


def catch_up_factors(table: Table, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What dense Adam would have done to a row in the steps that skipped it.

    For a row last updated at step s and touched again at step t, dense Adam with
    gradients of zero would have made the moves rate(u) * b1^(u-s) * m /
    (sqrt(b2^(u-s) * v) + eps) for s < u < t. Their sum is taken as
    move * m / (sqrt(v) + eps), where move is the sum over u of
    rate(u) * (b1 / sqrt(b2))^(u-s). This is exact except for eps, which is too small
    by the factor sqrt(b2)^(u-s): a relative error of at most eps / sqrt(v) in terms
    that shrink by b1 / sqrt(b2) per step. The sums are kept by `Table.begin_step` in
    `table.moves[s]`.

    Returns: the number of skipped steps `(n,)` and `move` `(n,)` float32; both 0 for a
    row never updated before.
    """
    last = table.slots["last_step"][rows].astype(np.int64)
    skipped = np.where(last > 0, table.step - 1 - last, 0)
    return skipped, np.where(last > 0, table.moves[last], 0.0).astype(np.float32)


def to_float32(rows: np.ndarray) -> np.ndarray:
    """Rows as float32; uint16 holds bfloat16 bits."""
    if rows.dtype == np.uint16:
        return (rows.astype(np.uint32) << 16).view(np.float32)
    return rows.astype(np.float32)


def rounded(w: np.ndarray, table: Table, rows: np.ndarray) -> np.ndarray:
    """Float32 `w` as the number type of the table, two bytes rounded stochastically.

    The magnitude is cut to the type after a random number below its last digit was
    added. Overflow of float16 stops at its greatest value, 65504.
    """
    if table.rows.dtype == np.float32:
        return w
    draws = random_bits(table.seed, table.step, rows, w.shape[1])
    if table.rows.dtype == np.uint16:
        bits = np.ascontiguousarray(w).view(np.uint32) + (draws & np.uint32(0xFFFF))
        return (bits >> np.uint32(16)).astype(np.uint16)
    magnitude = np.minimum(np.abs(w), np.float32(65504))
    normal = magnitude.view(np.uint32) + (draws & np.uint32(0x1FFF))
    normal = (normal & ~np.uint32(0x1FFF)).view(np.float32)
    # Below 2**-14 a float16 is a multiple of 2**-24.
    share = (draws & np.uint32(0x1FFF)).astype(np.float32) * np.float32(2.0**-13)
    small = np.floor(magnitude * np.float32(2.0**24) + share) * np.float32(2.0**-24)
    magnitude = np.where(magnitude < np.float32(2.0**-14), small, normal)
    magnitude = np.minimum(magnitude, np.float32(65504))
    halves: np.ndarray = np.copysign(magnitude, w).astype(np.float16)
    return halves


def random_bits(seed: int, step: int, rows: np.ndarray, dim: int) -> np.ndarray:
    """32 random bits for each cell, `(n, dim)` uint32: a hash of place and step.

    The mixer is the finalizer of MurmurHash3 (Appleby, 2011), all modulo 2**32.
    """
    with np.errstate(over="ignore"):
        x = (np.asarray(rows).astype(np.uint32) * np.uint32(0x9E3779B1))[:, None]
        x = x ^ (np.arange(dim, dtype=np.uint32) * np.uint32(0x85EBCA77))[None, :]
        x = x ^ np.uint32((step * 0xC2B2AE3D + seed) & 0xFFFFFFFF)
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
        return x ^ (x >> np.uint32(16))

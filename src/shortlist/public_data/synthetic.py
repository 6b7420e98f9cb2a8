"""A synthetic interaction log of any size, for tests and benchmarks.

Users and items have latent factors around the centres of segments and categories. For
each event a user is shown `candidates` items, sampled by Zipf popularity, and interacts
with one of them with odds `exp(affinity / temperature)`, where the affinity is the dot
product of the two factors. So the best possible ranking is known:
`Generated.expected_top`.

The same configuration and NumPy version give the same log on any machine. The generator
is PCG64. Every factor is a multiple of 1/64, so that a dot product is exact in float32
in any order of summation, and no choice depends on the last bit of a float32 function.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from shortlist.atomic import atomic_file
from shortlist.data.split import DAY_MS
from shortlist.errors import InputError

if TYPE_CHECKING:
    import polars as pl

TableName = Literal["events", "users", "items"]

_STEP = 64  # factors are multiples of 1 / _STEP
_CHUNK_EVENTS = 1 << 16
_GROUPS = 8
_MAX_AFFINITY = 8


@dataclass(frozen=True, kw_only=True)
class SyntheticLog:
    """What to generate; validated when constructed.

    Raises:
        InputError: a field is out of range (`synthetic-config`).
    """

    num_users: int = 1_000
    """User ids are 0 .. num_users - 1; a user may have no event."""
    num_items: int = 500
    """Item ids are 0 .. num_items - 1."""
    num_events: int = 50_000
    zipf_exponent: float = 0.8
    """The item of rank r is shown with probability proportional to r ** -exponent."""
    latent_dim: int = 8
    """Length of the latent factors, at most 64."""
    temperature: float = 0.5
    """From 0.1 (choices follow the affinity) up (they follow popularity alone)."""
    candidates: int = 16
    """Items shown for each event. With more, choices depend more on affinity."""
    rating_noise: float = 0.5
    """Standard deviation added to the affinity before it becomes a rating."""
    start_ms: int = 1_577_836_800_000
    """Earliest time, milliseconds since the epoch (2020-01-01)."""
    end_ms: int = 1_577_836_800_000 + 1461 * DAY_MS
    """All times are before this one."""
    shuffled: bool = False
    """Events in random order instead of by time."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("num_users", 1, 2**31 - 1),
            ("num_items", 1, 2**31 - 1),
            ("num_events", 1, 2**40),
            ("latent_dim", 1, 64),
            ("candidates", 1, 1024),
            ("seed", 0, 2**64 - 1),
            ("start_ms", 0, 2**53),
            ("end_ms", self.start_ms + 1, 2**53),
        ):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or not low <= value <= high:
                raise _config_error(name, f"a whole number from {low} to {high}", value)
        for name, least, most in (
            ("zipf_exponent", 0.0, 10.0),
            ("temperature", 0.1, 1e6),
            ("rating_noise", 0.0, 1e6),
        ):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not least <= value <= most:  # a NaN fails too
                rule = f"a number from {least:g} to {most:g}"
                raise _config_error(name, rule, value)


@dataclass(frozen=True, kw_only=True)
class Generated:
    """A log and its latent factors. Event arrays have shape `(num_events,)`."""

    config: SyntheticLog
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    timestamp_ms: NDArray[np.int64]
    rating: NDArray[np.int8]
    """1 to 5."""
    user_factors: NDArray[np.float32]
    """`(num_users, latent_dim)`."""
    item_factors: NDArray[np.float32]
    """`(num_items, latent_dim)`."""
    popularity: NDArray[np.float64]
    """`(num_items,)`: probability to be shown; sums to 1."""
    segment: NDArray[np.int64]
    """`(num_users,)`: group of the user; its centre is part of the factors."""
    category: NDArray[np.int64]
    """`(num_items,)`: group of the item; its centre is part of the factors."""

    def probabilities(self, user: int) -> NDArray[np.float64]:
        """Probability that an event of `user` is about each item, `(num_items,)`.

        An item of weight w is chosen at "time" t of an exponential race with density
        w exp(-w t), and wins if the other m - 1 candidates are later:
        P = m p w integral(exp(-w t) L(t) ** (m - 1) dt), L(t) = sum(p exp(-w t)).
        The trapezoid rule over log t converges exponentially for such integrands.
        """
        affinity = _affinity(self.item_factors, self.user_factors[user])
        weight = np.exp(affinity.astype(np.float64) / self.config.temperature)
        won = np.zeros_like(weight)
        for time in np.geomspace(1e-9 / weight.max(), 50.0 / weight.min(), 500):
            decay = np.exp(-weight * time)
            alive = float(self.popularity @ decay) ** (self.config.candidates - 1)
            won += time * weight * decay * alive
        return _shares(self.popularity * won)

    def expected_top(self, user: int, k: int) -> NDArray[np.int64]:
        """The `min(k, num_items)` most probable items of `user`, best first.

        No model can expect more hits. Ties are ordered by id.
        """
        return np.argsort(-self.probabilities(user), kind="stable")[:k]

    def table(self, name: TableName) -> pl.DataFrame:
        """One of the three tables.

        Args:
            name: `events` (`user_id`, `item_id`, `rating`, `timestamp_ms`), `users`
                (`user_id`, `segment`) or `items` (`item_id`, `title`, `category`,
                `tags` joined by `|`, `price`).

        Raises:
            InputError: another name (`synthetic-table`).
        """
        import polars as pl

        columns = {
            "events": self._events,
            "users": self._users,
            "items": self._items,
        }
        if name not in columns:
            raise InputError(
                "synthetic-table",
                f"The table must be one of {', '.join(columns)}. Received: {name!r}.",
            )
        return pl.DataFrame(columns[name]())

    def write_csv(self, path: str | Path, table: TableName = "events") -> None:
        """Writes a table as CSV, whole or not at all."""
        frame = self.table(table)
        with atomic_file(path) as temporary:
            frame.write_csv(temporary)

    def write_parquet(self, path: str | Path, table: TableName = "events") -> None:
        """Writes a table as Parquet, whole or not at all."""
        frame = self.table(table)
        with atomic_file(path) as temporary:
            frame.write_parquet(temporary)

    def _events(self) -> dict[str, Any]:
        ids = {"user_id": self.user, "item_id": self.item}
        return {**ids, "rating": self.rating, "timestamp_ms": self.timestamp_ms}

    def _users(self) -> dict[str, Any]:
        segments = [f"segment-{s}" for s in self.segment.tolist()]
        return {"user_id": np.arange(len(segments)), "segment": segments}

    def _items(self) -> dict[str, Any]:
        factors = self.item_factors
        # The two largest factors, each with its sign.
        strongest = np.argsort(-np.abs(factors), axis=1, kind="stable")[:, :2]
        signs = np.take_along_axis(factors, strongest, axis=1) >= 0
        tags = [
            "|".join(
                f"{'more' if plus else 'less'}-{dim}"
                for dim, plus in zip(dims, pluses, strict=True)
            )
            for dims, pluses in zip(strongest.tolist(), signs.tolist(), strict=True)
        ]
        category = self.category.tolist()
        return {
            "item_id": np.arange(len(category)),
            "title": [f"Item {i} of category {c}" for i, c in enumerate(category)],
            "category": [f"category-{c}" for c in category],
            "tags": tags,
            "price": np.maximum(20.0 + 8.0 * factors[:, 0].astype(np.float64), 0.5),
        }


def generate(config: SyntheticLog) -> Generated:
    """Generates a log; time and memory are linear in `num_events`.

    Returns:
        The log, by time unless `config.shuffled`, and its latent factors.

    References:
        Exponential race (Gumbel-max): Maddison, Tarlow and Minka, 2014,
        "A* Sampling", https://arxiv.org/abs/1411.0030
    """
    streams = np.random.SeedSequence(config.seed).spawn(4)
    latent, shown, clock, order = (
        np.random.Generator(np.random.PCG64(s)) for s in streams
    )
    segment, user_factors = _factors(latent, config.num_users, config.latent_dim)
    category, item_factors = _factors(latent, config.num_items, config.latent_dim)
    ranks = latent.permutation(config.num_items) + 1.0  # independent of the id
    popularity = _shares(ranks**-config.zipf_exponent)
    activity = _shares(latent.standard_gamma(2.0, config.num_users))
    n = config.num_events
    user, item = np.empty(n, np.int64), np.empty(n, np.int64)
    rating = np.empty(n, np.int8)
    for start in range(0, n, _CHUNK_EVENTS):
        part = slice(start, min(start + _CHUNK_EVENTS, n))
        size = part.stop - part.start
        users = _draw(shown, activity, size)
        items, affinity = _choose(
            shown, config, user_factors[users], item_factors, popularity
        )
        noise = shown.standard_normal(size, np.float32) * config.rating_noise
        user[part], item[part] = users, items
        rating[part] = np.clip(np.rint(2.5 + affinity + noise), 1, 5)
    times = clock.integers(config.start_ms, config.end_ms, n)
    times.sort()
    if config.shuffled:
        rows = order.permutation(n)
        user, item, times, rating = user[rows], item[rows], times[rows], rating[rows]
    return Generated(
        config=config,
        user=user,
        item=item,
        timestamp_ms=times,
        rating=rating,
        user_factors=user_factors,
        item_factors=item_factors,
        popularity=popularity,
        segment=segment,
        category=category,
    )


def _factors(
    rng: np.random.Generator, rows: int, dim: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Groups `(rows,)` and factors `(rows, dim)`: the group's centre plus noise."""
    # With this scale the affinity of a random pair has a standard deviation of 1.
    scale = dim**-0.25 * math.sqrt(0.5) * _STEP
    centres = rng.standard_normal((_GROUPS, dim))
    group = rng.integers(0, _GROUPS, rows)
    own = rng.standard_normal((rows, dim), np.float32)
    factors = np.rint(scale * (centres[group] + own)) / _STEP
    return group, np.clip(factors, -8, 8).astype(np.float32)


def _affinity(
    items: NDArray[np.float32], users: NDArray[np.float32]
) -> NDArray[np.float32]:
    """`(..., n, dim)`, `(..., dim)` -> dot products `(..., n)`, multiples of 1/64."""
    exact = np.matmul(items, users[..., None])[..., 0]
    rounded: NDArray[np.float32] = np.rint(exact * _STEP) / np.float32(_STEP)
    return np.clip(rounded, -_MAX_AFFINITY, _MAX_AFFINITY)


def _shares(weights: NDArray[Any]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def _draw(
    rng: np.random.Generator, probabilities: NDArray[np.float64], size: int
) -> NDArray[np.int64]:
    """Independent samples `(size,)`; faster than `choice` for many."""
    counts = rng.multinomial(size, probabilities)
    drawn = np.repeat(np.arange(len(counts)), counts)
    rng.shuffle(drawn)
    return drawn


def _choose(
    rng: np.random.Generator,
    config: SyntheticLog,
    user_factors: NDArray[np.float32],
    item_factors: NDArray[np.float32],
    popularity: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The item of each event `(size,)` and the user's affinity to it `(size,)`."""
    shape = (len(user_factors), config.candidates)
    offered = _draw(rng, popularity, shape[0] * shape[1]).reshape(shape)
    affinity = _affinity(item_factors[offered], user_factors)
    # A table instead of float32 `exp`, whose last bit differs between processors.
    grid = np.arange(_MAX_AFFINITY * _STEP, -_MAX_AFFINITY * _STEP - 1, -1) / _STEP
    table = np.exp(grid / config.temperature).astype(np.float32)
    race = rng.standard_exponential(shape, np.float32)
    race *= table[((affinity + _MAX_AFFINITY) * _STEP).astype(np.int64)]
    won = race.argmin(axis=1)[:, None]
    item = np.take_along_axis(offered, won, axis=1)[:, 0]
    return item, np.take_along_axis(affinity, won, axis=1)[:, 0]


def _config_error(name: str, rule: str, value: object) -> InputError:
    return InputError(
        "synthetic-config",
        f"{name} must be {rule}. Received: {value!r}. Change this field.",
    )

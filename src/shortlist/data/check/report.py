"""The data report, and the definition of every number in it.

Plain values: `msgspec.json.encode` writes the whole tree. Shares are from 0 to 1, times
are milliseconds since the epoch (UTC).
"""

from __future__ import annotations

import msgspec

from shortlist.data.findings import Finding

SHIFT = 0.25
"""A population stability index so far above that of chance is a shift."""
_DEVIATIONS = 3.0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a log can be trained on.

    Args:
        ready: no problem was found.
        message: the answer in a sentence or two, and what to do first.
    """

    ready: bool
    message: str


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of the log.

    Args:
        rows_read: rows of the files, those left out included.
        rows_skipped: rows left out because they cannot be used.
        duplicates_dropped: events left out because they repeat an earlier one.
        events: events that remain.
        users: users with an event.
        items: items with an event.
        pairs: different (user, item) pairs among the events.
        repeated_share: `1 - pairs / events`, the share of events whose user had done
            the same item before.
        density: `pairs / (users * items)`.
        tied_events: events that share user and time with another event.
    """

    rows_read: int
    rows_skipped: int
    duplicates_dropped: int
    events: int
    users: int
    items: int
    pairs: int
    repeated_share: float
    density: float
    tied_events: int


class TimeSpan(msgspec.Struct, frozen=True, kw_only=True):
    """From the first event to the last.

    Args:
        first_ms: time of the first event.
        last_ms: time of the last event.
        first: the same as ISO-8601 text.
        last: the same as ISO-8601 text.
        days: days of 24 hours between the two.
        active_days: calendar days (UTC) with an event.
    """

    first_ms: int
    last_ms: int
    first: str
    last: str
    days: float
    active_days: int


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One bar of a histogram: `count` values between `low` and `high`, both included
    unless the next bar starts at `high`."""

    low: float
    high: float
    count: int


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """How the events are spread over the users, or over the items.

    Args:
        mean: events per user (item).
        quantiles: the smallest number of events that at least this share of the users
            (items) does not exceed; keys `min`, `p1`, `p5`, `p25`, `p50`, `p75`,
            `p95`, `p99`, `max`.
        gini: Gini coefficient (Gini, 1912), half the mean absolute difference of two
            users (items) over the mean: 0 if all have the same number of events, near
            1 if one has all of them.
        once: users (items) with one event.
        histogram: users (items) by number of events, in bars from a power of two up to
            below the next.
    """

    mean: float
    quantiles: dict[str, int]
    gini: float
    once: int
    histogram: tuple[Bar, ...]


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """The `events` share that the most popular `items` share of the items has."""

    items: float
    events: float


class ItemPopularity(msgspec.Struct, frozen=True, kw_only=True):
    """Share of the events of the most popular items.

    Args:
        top_1_percent: share of the events that the `ceil(n / 100)` most popular of n
            items have.
        top_10_percent: the same of the `ceil(n / 10)` most popular.
        curve: the same at up to 100 shares of the items, from few to all.
    """

    top_1_percent: float
    top_10_percent: float
    curve: tuple[CurvePoint, ...]


class Labels(msgspec.Struct, frozen=True, kw_only=True):
    """The labels of all events.

    Args:
        mean: their mean.
        deviation: their standard deviation (of the population).
        quantiles: as in `Spread`.
        positive_share: share of the events with a label of at least `positive_from`.
        histogram: one bar per value if there are at most 30 values, else 20 bars of
            one width.
    """

    mean: float
    deviation: float
    quantiles: dict[str, float]
    positive_share: float
    histogram: tuple[Bar, ...]


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """Events over time.

    Args:
        start_ms: midnight (UTC) before the first event.
        days_per_point: days that one point covers, so that there are at most 200.
        events: events per point, by part.
    """

    start_ms: int
    days_per_point: int
    events: dict[str, tuple[int, ...]]


class PartSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One part: its events, their users and items, first and last time (`None` for an
    empty part or a log without times) and mean label (`None` for an empty part)."""

    part: str
    events: int
    users: int
    items: int
    first_ms: int | None
    last_ms: int | None
    label_mean: float | None


class Cold(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a held-out part is unknown in the earlier parts.

    Args:
        part: `validation` or `test`.
        known: the parts before it.
        users: its users without an event in the earlier parts.
        items: its items without an event in the earlier parts.
        users_share: `users` over all users of the part.
        items_share: `items` over all items of the part.
        events_of_users: share of its events whose user is unknown.
        events_of_items: share of its events whose item is unknown.
    """

    part: str
    known: tuple[str, ...]
    users: int
    items: int
    users_share: float
    items_share: float
    events_of_users: float
    events_of_items: float


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """How a held-out part differs from the parts before it in one quantity.

    Args:
        part: `validation` or `test`.
        quantity: `item_popularity`: the events of the earlier parts' items, most
            popular first, in ten groups of as equal numbers of events as whole items
            allow (an item belongs to the tenth in which the events of the more popular
            ones end), and one group of the items without any; `label`: each value, or
            tenths of the earlier parts' labels if there are over 20 values; `hour`: of
            the day, UTC; `weekday`.
        psi: population stability index, `sum((a - e) * ln(a / e))` over the shares e
            of the earlier parts and a of the part, 0.5 added to every count so that no
            share is 0; bins empty on both sides are left out. Below 0.1 is stable and
            over 0.25 a shift (Siddiqi, Credit Risk Scorecards, 2006).
        expected_psi: the mean of the index if nothing drifted,
            `(bins - 1) * (1 / events before + 1 / events of the part)` (Yurdakul,
            Statistical Properties of Population Stability Index, 2018).
        chance_psi: the mean of the index without drift, which `is_shift` uses.
            Events of one user in one bin count once (of a clock: within one hour or
            day), which are not independent. For item popularity it is simulated:
            as many events are sampled from all of them, several times.
        chance_deviation: the standard deviation of that.
        total_variation: `sum(|a - e|) / 2` over the plain shares: 0 to 1.
        bins: names of the bins.
        before: share of the earlier parts' events in each bin.
        share: share of the part's events in each bin.
    """

    part: str
    quantity: str
    psi: float
    expected_psi: float
    chance_psi: float
    chance_deviation: float
    total_variation: float
    bins: tuple[str, ...]
    before: tuple[float, ...]
    share: tuple[float, ...]

    @property
    def is_shift(self) -> bool:
        """Whether the difference is large, and larger than expected by chance."""
        excess = self.psi - self.chance_psi
        return excess > SHIFT and excess > _DEVIATIONS * self.chance_deviation


class Leakage(msgspec.Struct, frozen=True, kw_only=True):
    """What the earlier parts reveal about a held-out part.

    Args:
        part: `validation` or `test`.
        repeated_pairs: its events whose (user, item) pair is in an earlier part.
        repeated_pairs_share: the same, of its events.
        copies: its events whose user, item and time are in an earlier part, whatever
            the label; 0 for a log without times.
        train_after_first: training events later than the first event of the part (0
            for a log without times): a model knows what came after the event it is
            asked about, as with any split per user.
        train_after_first_share: the same, of the training events.
        train_after_own: training events of a user later than the user's own first
            event of the part: the model knows the user's own future, as with a random
            split.
        train_after_own_share: the same, of the training events.
    """

    part: str
    repeated_pairs: int
    repeated_pairs_share: float
    copies: int
    train_after_first: int
    train_after_first_share: float
    train_after_own: int
    train_after_own_share: float


class LogReport(msgspec.Struct, frozen=True, kw_only=True):
    """The data report of one log under one schema and split.

    Args:
        verdict: whether the log can be trained on.
        counts: how much there is.
        time: first to last event, or `None` for a log without times.
        events_per_user: over the users with an event.
        events_per_item: over the items with an event.
        popularity: how much the popular items have.
        labels: the labels, or `None` for a log without.
        activity: events over time, or `None` for a log without times.
        parts: train, validation and test, in this order.
        cold: of each held-out part that has events and any before them.
        drift: of the same parts, one per quantity.
        leakage: of the same parts.
        findings: problems first, then warnings and notes.
    """

    verdict: Verdict
    counts: Counts
    time: TimeSpan | None
    events_per_user: Spread
    events_per_item: Spread
    popularity: ItemPopularity
    labels: Labels | None
    activity: Activity | None
    parts: tuple[PartSummary, ...]
    cold: tuple[Cold, ...]
    drift: tuple[Drift, ...]
    leakage: tuple[Leakage, ...]
    findings: tuple[Finding, ...]

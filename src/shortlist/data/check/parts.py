"""Measures a split: cold ids, drift and leakage between parts.

`report.py` defines the results.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import polars as pl

from shortlist.data.check.report import Cold, Drift, Leakage, PartSummary
from shortlist.data.check.spread import value_counts
from shortlist.data.preparation.sorted_log import SortedLog
from shortlist.data.split import KNOWN, PARTS, TRAIN, PartName

_HOUR_MS = 3_600_000
_WEEK_MS = 7 * 24 * _HOUR_MS
_DRAWS = 20
_DECILES = 10
_MAX_LABELS = 20
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_THURSDAY = 3


@dataclass(frozen=True)
class LogArrays:
    """A log as arrays, and its counts by part.

    Args:
        user: user codes, `(n,)` int32.
        item: item codes, `(n,)` int32.
        time: milliseconds since the epoch, `(n,)` int64.
        label: `(n,)` float32.
        part: `(n,)` int8.
        users: events by part and user code, `(3, users)`.
        items: events by part and item code, `(3, items)`.
        num_pairs: different (user, item) pairs.
        repeated: by part, its events whose pair an earlier part has, `(3,)`.
        timed: whether the times are times, and not positions in the file.
        labelled: whether the labels come from the log.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    label: np.ndarray
    part: np.ndarray
    users: np.ndarray
    items: np.ndarray
    num_pairs: int
    repeated: np.ndarray
    timed: bool
    labelled: bool


def arrays_of(log: SortedLog, *, timed: bool, labelled: bool) -> LogArrays:
    """The columns of a log; `timed` and `labelled` as its schema has it."""
    frame = log.frame
    user, item = frame["user_code"].to_numpy(), frame["item_code"].to_numpy()
    part, num_items = frame["part"].to_numpy(), len(log.item_ids)
    num_pairs, repeated = _pairs(user, item, part, num_items)
    return LogArrays(
        user=user,
        item=item,
        time=frame["timestamp_ms"].to_numpy(),
        label=frame["label"].to_numpy(),
        part=part,
        users=by_part(user, part, len(log.user_ids)),
        items=by_part(item, part, num_items),
        num_pairs=num_pairs,
        repeated=repeated,
        timed=timed,
        labelled=labelled,
    )


def by_part(codes: np.ndarray, part: np.ndarray, size: int) -> np.ndarray:
    """Counts of the codes 0 .. size - 1 in each part, `(3, size)`."""
    places = codes + part.astype(np.int64) * size
    counts = np.bincount(places, minlength=len(PARTS) * size)
    return counts.reshape(len(PARTS), size)


def _pairs(
    user: np.ndarray, item: np.ndarray, part: np.ndarray, num_items: int
) -> tuple[int, np.ndarray]:
    """Different pairs, and by part the events whose pair an earlier part has."""
    # One sort answers both. Codes are below 2**31, so that four parts fit 64 bits.
    keys = user.astype(np.uint64)
    keys *= np.uint64(num_items)
    keys += item.astype(np.uint64)
    keys *= np.uint64(4)
    keys += part.astype(np.uint64)
    keys.sort()
    parts = (keys & np.uint64(3)).astype(np.int8)
    keys >>= np.uint64(2)
    begins = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    earliest = np.repeat(parts[begins], np.diff(np.r_[begins, len(keys)]))
    repeated = np.bincount(parts[parts > earliest], minlength=len(PARTS))
    return len(begins), repeated


def tied(log: LogArrays) -> np.ndarray:
    """Mask `(n,)` of the events that share user and time with another one."""
    same = same_moment(log)
    mask: np.ndarray = np.r_[same, False] | np.r_[False, same]
    return mask


def same_moment(log: LogArrays) -> np.ndarray:
    """Mask `(n - 1,)` of the events whose next one has the same user and time."""
    same_user: np.ndarray = log.user[1:] == log.user[:-1]
    same: np.ndarray = same_user & (log.time[1:] == log.time[:-1])
    return same


def summaries(log: LogArrays) -> tuple[PartSummary, ...]:
    """Summary of every part, also those without events."""
    summed = []
    for number, name in enumerate(PARTS):
        inside = log.part == number
        times = log.time[inside] if log.timed else log.time[:0]
        labels = log.label[inside]
        summed.append(
            PartSummary(
                part=name,
                events=len(labels),
                users=int(np.count_nonzero(log.users[number])),
                items=int(np.count_nonzero(log.items[number])),
                first_ms=int(times.min()) if len(times) else None,
                last_ms=int(times.max()) if len(times) else None,
                label_mean=float(labels.mean(dtype=np.float64))
                if len(labels)
                else None,
            )
        )
    return tuple(summed)


def held_out(log: LogArrays) -> tuple[int, ...]:
    """Numbers of the held-out parts that have events, and events before them."""
    sizes = log.users.sum(axis=1)
    parts = range(TRAIN + 1, len(PARTS))
    return tuple(p for p in parts if sizes[p] and sizes[:p].sum())


def cold(log: LogArrays, part: int) -> Cold:
    """Users and items of `part` without an event in earlier parts."""
    users, items = log.users[part], log.items[part]
    new_users = (users > 0) & (log.users[:part].sum(axis=0) == 0)
    new_items = (items > 0) & (log.items[:part].sum(axis=0) == 0)
    return Cold(
        part=PARTS[part],
        known=KNOWN[PARTS[part]],
        users=int(new_users.sum()),
        items=int(new_items.sum()),
        users_share=float(new_users.sum() / np.count_nonzero(users)),
        items_share=float(new_items.sum() / np.count_nonzero(items)),
        events_of_users=float(users[new_users].sum() / users.sum()),
        events_of_items=float(items[new_items].sum() / items.sum()),
    )


def drifts(log: LogArrays) -> tuple[Drift, ...]:
    """Drift of every held-out part, by part and quantity.

    The weekdays are left out of a part of less than a week, and the hours of one of
    less than a day: it cannot contain all of them.
    """
    found: dict[int, list[Drift]] = {part: [] for part in held_out(log)}
    for part, list_ in found.items():
        list_.append(_popularity_drift(log, part))
    if log.labelled:
        tables = [value_counts(log.label[log.part == p]) for p in range(len(PARTS))]
        sizes = _clusters(log, log.label)
        for part, list_ in found.items():
            list_.append(_label_drift(tables, part, sizes))
    if log.timed:
        for part, list_ in found.items():
            list_ += _clock_drifts(log, part)
    return tuple(drift for list_ in found.values() for drift in list_)


def _clock_drifts(log: LogArrays, part: int) -> list[Drift]:
    times = log.time[log.part == part]
    span = int(times.max() - times.min())
    # 1970-01-01 was a Thursday, and the week starts on Monday.
    hours = log.time // _HOUR_MS + _THURSDAY * 24
    week = by_part(hours % (7 * 24), log.part, 7 * 24).reshape(len(PARTS), 7, 24)
    names = [str(hour) for hour in range(24)]
    found = []
    for quantity, bins, counts, least, moments in (
        ("hour", names, week.sum(axis=1), _WEEK_MS // 7, hours),
        ("weekday", [*_WEEKDAYS], week.sum(axis=2), _WEEK_MS, hours // 24),
    ):
        if span >= least:
            sizes = _clusters(log, moments)
            before, now = counts[:part].sum(axis=0), counts[part]
            found.append(drift(PARTS[part], quantity, bins, before, now, sizes))
    return found


def _clusters(log: LogArrays, values: np.ndarray) -> np.ndarray:
    """Different pairs of user and value by part, `(3,)`: independent observations."""
    pairs = pl.DataFrame({"user": log.user, "value": values, "part": log.part})
    counts = pairs.unique().group_by("part").len()
    sizes = np.zeros(len(PARTS), np.int64)
    sizes[counts["part"].to_numpy()] = counts["len"].to_numpy()
    return sizes


def drift(
    part: PartName,
    quantity: str,
    bins: list[str],
    before: np.ndarray,
    now: np.ndarray,
    sizes: np.ndarray | None = None,
) -> Drift:
    """Compares two histograms, `(bins,)` counts, neither of them empty.

    Args:
        part: the part that is compared.
        quantity: what the bins are of.
        bins: their names.
        before: counts of the parts before.
        now: counts of the part.
        sizes: independent draws by part, `(3,)`; every event is one by default.
    """
    used = (before > 0) | (now > 0)
    freedom = int(np.count_nonzero(used)) - 1
    events = 1 / before.sum() + 1 / now.sum()
    draws = events
    if sizes is not None:
        number = PARTS.index(part)
        draws = 1 / max(sizes[:number].sum(), 1) + 1 / max(sizes[number], 1)
    return Drift(
        part=part,
        quantity=quantity,
        psi=stability_index(before, now),
        expected_psi=float(freedom * events),
        # Scaled by these sizes the index is nearly chi-squared.
        chance_psi=float(freedom * draws),
        chance_deviation=float(np.sqrt(2 * freedom) * draws),
        total_variation=float(
            np.abs(before / before.sum() - now / now.sum()).sum() / 2
        ),
        bins=tuple(bins),
        before=tuple((before / before.sum()).tolist()),
        share=tuple((now / now.sum()).tolist()),
    )


def stability_index(before: np.ndarray, now: np.ndarray) -> float:
    """Population stability index of two histograms, `(bins,)` counts (Siddiqi, 2006).

    It is the symmetric divergence of Jeffreys (1946). 0.5 is added to every count; bins
    that are empty in both are left out.
    """
    used = (before > 0) | (now > 0)
    expected, actual = before[used] + 0.5, now[used] + 0.5
    expected, actual = expected / expected.sum(), actual / actual.sum()
    return float(((actual - expected) * np.log(actual / expected)).sum())


def _popularity_drift(log: LogArrays, part: int) -> Drift:
    before, now = log.items[:part].sum(axis=0), log.items[part]
    names = [*(str(place) for place in range(1, _DECILES + 1)), "new"]
    found = drift(PARTS[part], "item_popularity", names, *_tenths(before, now))
    # The tenths are those of the events before, which fit these better than any others:
    # so the index is above 0 without any drift.
    generator = np.random.default_rng(0)
    both, share = before + now, now.sum() / (before.sum() + now.sum())
    indices = []
    for _ in range(_DRAWS):
        drawn = generator.binomial(both, share)
        if drawn.any() and (drawn < both).any():
            indices.append(stability_index(*_tenths(both - drawn, drawn)))
    return msgspec.structs.replace(
        found,
        chance_psi=float(np.mean(indices)) if indices else found.chance_psi,
        chance_deviation=float(np.std(indices)) if indices else found.chance_deviation,
    )


def _tenths(before: np.ndarray, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Events in each tenth of popularity before and now, and of items that are new."""
    order = np.argsort(-before, kind="stable")
    more_popular = np.cumsum(before[order]) - before[order]
    decile = np.empty(len(before), np.int64)
    decile[order] = more_popular * _DECILES // before.sum()
    decile[before == 0] = _DECILES
    counted = (
        np.bincount(decile, weights=events, minlength=_DECILES + 1)
        for events in (before, now)
    )
    return next(counted), next(counted)


def _label_drift(
    tables: list[tuple[np.ndarray, np.ndarray]], part: int, draws: np.ndarray
) -> Drift:
    values = np.concatenate([values for values, _ in tables[:part]])
    sizes = np.concatenate([sizes for _, sizes in tables[:part]])
    known = np.unique(np.concatenate([values, tables[part][0]]))
    if len(known) <= _MAX_LABELS:
        starts, names = known, [f"{value:g}" for value in known]
    else:
        order = np.argsort(values, kind="stable")
        below = np.cumsum(sizes[order]) / sizes.sum()
        tenths = np.searchsorted(below, np.arange(1, _DECILES) / _DECILES, side="right")
        cuts = np.unique(values[order][np.minimum(tenths, len(values) - 1)])
        starts = np.concatenate([[-np.inf], cuts[cuts > values.min()]])
        names = [
            f"from {start:g}" if np.isfinite(start) else "least" for start in starts
        ]
    counts = [
        np.bincount(
            np.searchsorted(starts, at, side="right") - 1,
            weights=w,
            minlength=len(names),
        )
        for at, w in ((values, sizes), tables[part])
    ]
    return drift(PARTS[part], "label", names, counts[0], counts[1], draws)


def leakage(log: LogArrays, part: int) -> Leakage:
    """What earlier parts reveal about `part`."""
    inside = log.part == part
    train = log.part == TRAIN
    repeated = int(log.repeated[part])
    after_own = _after_own(log, inside, train)
    after_first = 0
    if log.timed:
        first = log.time[inside].min()
        after_first = int(np.count_nonzero(train & (log.time > first)))
    num_train, num_events = max(int(train.sum()), 1), int(inside.sum())
    return Leakage(
        part=PARTS[part],
        repeated_pairs=repeated,
        repeated_pairs_share=repeated / num_events,
        copies=_copies(log, part) if log.timed and repeated else 0,
        train_after_first=after_first,
        train_after_first_share=after_first / num_train,
        train_after_own=after_own,
        train_after_own_share=after_own / num_train,
    )


def _copies(log: LogArrays, part: int) -> int:
    """Events of `part` with the user, item and time of an event of an earlier part."""
    runs = np.cumsum(np.r_[True, ~same_moment(log)]) - 1
    ours, known = np.zeros((2, runs[-1] + 1), bool)
    ours[runs[log.part == part]] = True
    known[runs[log.part < part]] = True
    chosen = (ours & known)[runs]
    frame = pl.DataFrame(
        {
            "run": runs[chosen],
            "item": log.item[chosen],
            "part": log.part[chosen],
        }
    )
    earlier = frame.filter(pl.col("part") < part)
    events = frame.filter(pl.col("part") == part)
    return len(events.join(earlier, on=["run", "item"], how="semi"))


def _after_own(log: LogArrays, inside: np.ndarray, train: np.ndarray) -> int:
    """Training events after the first event of their user in `inside`."""
    first = np.full(log.users.shape[1], np.iinfo(np.int64).max)
    users, times = log.user[inside], log.time[inside]
    begins = np.r_[True, users[1:] != users[:-1]]  # sorted by user and time
    first[users[begins]] = times[begins]
    later = log.time[train] > first[log.user[train]]
    return int(np.count_nonzero(later))

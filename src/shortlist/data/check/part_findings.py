"""Findings on a split: parts that are empty, cold, leaking or different from others.

One finding per kind, whatever the number of parts it concerns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from shortlist.data import findings as look
from shortlist.data.check.parts import LogArrays, same_moment
from shortlist.data.check.report import SHIFT, Cold, Drift, Leakage, PartSummary
from shortlist.data.findings import Finding, Severity
from shortlist.data.guess.shared_findings import (
    REPEATED,
    grouped_by_item,
    id_ranks,
    order_not_time,
    repeats_message,
    sorted_by,
)
from shortlist.data.preparation.sorted_log import SortedLog
from shortlist.data.split import PARTS, TEST, TRAIN, VALIDATION, Split

COLD_SHARE = 0.1
"""Share of held-out events of unknown users or items that is worth a note."""
_MUCH_COLD = 0.3
_REPEATED_OFTEN = 0.5
_FEW_EVENTS = 10  # of a part: too few for a finding
_TIED_SHARE = 0.5


def of_order(log: SortedLog, arrays: LogArrays, split: Split) -> list[Finding]:
    """Findings on a split by time of rows in another order.

    In a log with times, the order of rows matters if most neighbours are tied.
    """
    keys = {
        f"item {name}": ranks[arrays.item]
        for name, ranks in id_ranks(log.item_ids).items()
    }
    if arrays.labelled:
        keys["label"] = arrays.label
    if not arrays.timed:
        in_file = arrays.item[np.argsort(arrays.time, kind="stable")]
        found = sorted_by(arrays.user, keys) or grouped_by_item(in_file)
        return [order_not_time(found)] if found else []
    tied = same_moment(arrays)
    neighbours = int(np.count_nonzero(arrays.user[1:] == arrays.user[:-1]))
    if np.count_nonzero(tied) < _TIED_SHARE * max(neighbours, 1):
        return []
    if not (found := sorted_by(arrays.user, keys, tied)):
        return []
    return [
        Finding(
            "order-not-time",
            "warning",
            "Most events share their time with the next one of their user, so the order"
            f" of the rows decides which is newer, but {found}. Log the time of day, or"
            ' set kind = "random" under [split].',
        )
    ]


def of_parts(parts: Sequence[PartSummary], split: Split) -> list[Finding]:
    """Parts that are empty although the split asks for them, and too small ones."""
    asked: dict[str, float] = {
        PARTS[VALIDATION]: split.validation,
        PARTS[TEST]: split.test,
    }
    empty = [p.part for p in parts if not p.events and asked.get(p.part, 1.0)]
    found = []
    train = parts[TRAIN]
    if min(train.users, train.items) < 2:
        found.append(
            Finding(
                "log-too-small",
                "problem",
                "The training part needs at least 2 users and 2 items. It has"
                f" {train.users:,} and {train.items:,}. Give more events or hold out"
                " fewer.",
            )
        )
    held_out = [part for part in empty if part != PARTS[TRAIN]]
    if held_out:
        amount = split.test if PARTS[TEST] in held_out else split.validation
        found.append(look.empty_part(held_out, split.kind, amount))
    return found


def of_cold(colds: Sequence[Cold]) -> list[Finding]:
    """Findings on held-out events of users or items without earlier events."""
    shares = [(c, c.events_of_users, c.users) for c in colds]
    found = _of_cold("cold-users", "users", shares)
    shares = [(c, c.events_of_items, c.items) for c in colds]
    return found + _of_cold("cold-items", "items", shares)


def _of_cold(
    code: str, kind: str, shares: Sequence[tuple[Cold, float, int]]
) -> list[Finding]:
    """One finding on the parts with many events of such ids: share and number."""
    cold = [entry for entry in shares if entry[1] > COLD_SHARE]
    if not cold:
        return []
    summary = _joined(
        f"{share:.1%} of the {c.part} events are of {count:,} {kind}"
        for c, share, count in cold
    )
    message = (
        f"{summary} that earlier parts do not have: no model without features can rank"
        " them."
    )
    much = any(share > _MUCH_COLD for _, share, _ in cold)
    count = max(count for _, _, count in cold)
    return [Finding(code, "warning" if much else "note", message, count=count)]


def of_leakage(
    leaks: Sequence[Leakage], parts: Sequence[PartSummary], *, repeats: bool
) -> list[Finding]:
    """Findings on what earlier parts reveal about a part.

    Args:
        leaks: of every held-out part with events.
        parts: all parts.
        repeats: whether items that a user had before count.
    """
    return [
        *_leak(
            leaks,
            "copied-events",
            "problem",
            lambda k: k.copies,
            lambda k: f"{k.copies:,} {k.part} events",
            "are also in an earlier part (the same user, item and time): the answer was"
            " seen in training. Remove one copy.",
        ),
        *_leak(
            leaks,
            "own-future",
            "warning",
            lambda k: k.train_after_own,
            lambda k: (
                f"{k.train_after_own:,} training events ({k.train_after_own_share:.1%})"
                f" after their user's first {k.part} event"
            ),
            "give away what the user did next, and the model is asked about the past."
            " Prefer a split by time.",
        ),
        *_leak(
            leaks,
            "global-future",
            "note",
            lambda k: k.train_after_first,
            lambda k: (
                f"{k.train_after_first:,} training events"
                f" ({k.train_after_first_share:.1%}) after the first {k.part} event"
            ),
            "give away trends of a later time. kind = 'time_cut' under"
            " [split] rules it out.",
        ),
        *_of_repeats(leaks, parts, repeats),
    ]


def _leak(
    leaks: Sequence[Leakage],
    code: str,
    severity: Severity,
    count: Callable[[Leakage], int],
    describe: Callable[[Leakage], str],
    meaning: str,
) -> list[Finding]:
    """One finding on all parts with one kind of leakage."""
    found = [leak for leak in leaks if count(leak)]
    if not found:
        return []
    message = f"{_joined(describe(leak) for leak in found)} {meaning}"
    return [Finding(code, severity, message, count=sum(count(k) for k in found))]


def _of_repeats(
    leaks: Sequence[Leakage], parts: Sequence[PartSummary], repeats: bool
) -> list[Finding]:
    found = [leak for leak in leaks if leak.repeated_pairs]
    if not found:
        return []
    count = sum(leak.repeated_pairs for leak in found)
    events = {part.part: part.events for part in parts}
    sure = [k for k in found if events[k.part] >= _FEW_EVENTS]
    worst = max(sure, key=lambda k: k.repeated_pairs_share, default=None)
    if worst is not None and worst.repeated_pairs_share >= REPEATED and not repeats:
        message = repeats_message(worst.repeated_pairs_share, worst.part)
        return [Finding("only-repeats", "problem", message, count=count)]
    summary = _joined(
        f"{k.repeated_pairs:,} {k.part} events ({k.repeated_pairs_share:.1%})"
        for k in found
    )
    often = worst is not None and worst.repeated_pairs_share >= _REPEATED_OFTEN
    counted = (
        "They count, since evaluation.repeats is set."
        if repeats
        else "Seen items are not recommended, so these do not count; repeats = true"
        " under [evaluation] and [serving] keeps them."
    )
    return [
        Finding(
            "repeated-pairs",
            "warning" if often and not repeats else "note",
            f"{summary} are of an item that the user had in an earlier part. {counted}",
            count=count,
        )
    ]


def of_drift(drifts: Sequence[Drift]) -> list[Finding]:
    """Findings on parts that differ from earlier ones by more than chance.

    A warning if labels or times differ, as the export may have changed; a note if only
    the popularity of items differs, as is usual.
    """
    shifts = [drift for drift in drifts if drift.is_shift]
    if not shifts:
        return []
    summary = _joined(
        f"{d.quantity.replace('_', ' ')} of the {d.part} events (PSI {d.psi:.2f},"
        f" {d.chance_psi:.2f} by chance)"
        for d in shifts
    )
    only_items = all(drift.quantity == "item_popularity" for drift in shifts)
    fix = (
        "Tastes move: train again often."
        if only_items
        else "Check whether the export or its clock changed; else what is measured on"
        " this part may not hold for the next one."
    )
    return [
        Finding(
            "drift",
            "note" if only_items else "warning",
            f"The distribution differs from earlier events: {summary}; {SHIFT:g} above"
            f" chance is a shift. {fix}",
            count=len(shifts),
        )
    ]


def _joined(texts: Iterable[str]) -> str:
    return " and ".join(texts)

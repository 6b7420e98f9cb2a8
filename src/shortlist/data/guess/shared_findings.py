"""Findings that `shortlist init` and `shortlist check` share.

sorted_by, grouped_by_item   rows in another order than that of time
repeated_share               held-out events that repeat an earlier one
constant_label, zero_label   labels that are all the same, or 0 in a scale from 1
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from shortlist.data.findings import Finding, Severity

SORTED_SHARE = 0.9
"""Share of neighbours in one direction from which rows count as sorted."""
REPEATED = 0.9
"""Share of repeats among held-out events from which they are all the log has."""
_DEVIATIONS = 4.0  # of a fair coin: one log in thousands
_GROUPED = 1.1  # runs per item; rows in order of time have nearly one per event
_FEW = 50
_FEW_RATINGS = 3  # different ones: fewer are no scale


def id_ranks(ids: pl.Series) -> dict[str, np.ndarray]:
    """Sort keys for ids: files may be sorted by the text or by the number in it.

    Args:
        ids: external id by code, Int64 or String.

    Returns: by name, `(codes,)`; text has up to two: as text, and by its number.
    """
    if ids.dtype != pl.String:
        return {"id": ids.to_numpy()}
    frame = pl.DataFrame({"id": ids})
    number = pl.col("id").str.extract(r"(\d{1,18})\D*$").cast(pl.Int64, strict=False)
    ranks = frame.select(text=pl.col("id").rank("dense"), number=number.fill_null(-1))
    found = {"id": ranks["text"].to_numpy()}
    if (ranks["number"] >= 0).all():
        found["number of the id"] = ranks["number"].to_numpy()
    return found


def sorted_by(
    user: np.ndarray, keys: Mapping[str, np.ndarray], places: np.ndarray | None = None
) -> str:
    """What the rows of each user are sorted by, in words; empty if not sorted.

    Neighbours of one user with different values ascend or descend. In an order that has
    nothing to do with the values half of them ascend; rows are sorted if
    `SORTED_SHARE` of them go one way, and so many that chance does not explain it.

    Args:
        user: user of every event, `(n,)`; each user's in the order of the file.
        keys: values that may be sorted by, by name, `(n,)` each.
        places: mask `(n - 1,)` of the events whose order to the next one counts.
    """
    together = user[1:] == user[:-1]
    if places is not None:
        together = together & places
    for name, values in keys.items():
        up = int(np.count_nonzero(together & (values[1:] > values[:-1])))
        down = int(np.count_nonzero(together & (values[1:] < values[:-1])))
        pairs, most = up + down, max(up, down)
        if not pairs or most < SORTED_SHARE * pairs:
            continue
        if (most - pairs / 2) / np.sqrt(pairs / 4) >= _DEVIATIONS:
            way = "rising" if up >= down else "falling"
            share = f"{most / pairs:.0%} of {pairs:,} neighbours, by chance 50%"
            return f"the rows of each user are sorted by {name}, {way} ({share})"
    return ""


def grouped_by_item(item: np.ndarray) -> str:
    """The same for a file that is grouped by item.

    Args:
        item: item codes in the order of the file, `(n,)`.
    """
    if len(item) < _FEW:
        return ""
    items = len(np.unique(item))
    runs = 1 + int(np.count_nonzero(item[1:] != item[:-1]))
    if items < 2 or len(item) < 2 * items or runs > _GROUPED * items:
        return ""
    return f"the rows are grouped by item ({runs:,} runs for {items:,} items)"


def order_not_time(found: str) -> Finding:
    """The finding for a log whose rows are not in the order of time.

    Args:
        found: result of `sorted_by` or `grouped_by_item`.
    """
    return Finding("order-not-time", "problem", order_message(found))


def order_message(found: str) -> str:
    """The message about rows in another order than time."""
    return (
        "The log has no times, so its rows should be in the order of time, but"
        f" {found}. The last events of a user are then not the newest, and metrics on"
        ' them mean nothing. Set kind = "random" under [split],'
        " or name a timestamp column."
    )


def repeated_share(user: np.ndarray, item: np.ndarray, part: np.ndarray) -> float:
    """Share of the held-out events whose (user, item) pair an earlier part has.

    Args:
        user: `(n,)` integers.
        item: `(n,)` integers.
        part: `(n,)`, 0 training, 1 validation, 2 test.

    Returns: 0 to 1, of the last part that has events; 0 if only training has.
    """
    last = int(part.max(initial=0))
    if not last:
        return 0.0
    events = pl.DataFrame({"user": user, "item": item, "part": part})
    first = pl.col("part").min().over("user", "item")
    held = events.with_columns(first=first).filter(pl.col("part") == last)
    return float((held["first"] < last).mean() or 0.0)  # type: ignore[arg-type]


def repeats_message(share: float, part: str = "test") -> str:
    """The message about held-out events that repeat earlier ones."""
    return (
        f"{share:.1%} of the {part} events are of an item that the user had before."
        " Seen items are not recommended, so these events do not count, and little or"
        " nothing is left to measure. To recommend repeats, set"
        " repeats = true under [evaluation] and [serving]."
    )


def constant_label(labels: np.ndarray, *, column: str | None = None) -> list[Finding]:
    """A finding on a label column with a single value.

    Args:
        labels: `(n,)` floats.
        column: the column of the labels.
    """
    if len(labels) < 2 or labels.min() != labels.max():
        return []
    return [
        Finding(
            "label-constant",
            "warning",
            f"Every label is {labels[0]:g}, so a rating cannot be learned. Name another"
            " column, or none and let every event count 1.",
            column=column,
            count=len(labels),
        )
    ]


def zero_label(counts: dict[float, int], *, column: str) -> list[Finding]:
    """Labels of 0 in a scale that starts at 1: they may mean "not rated".

    A warning where 0 is far more common than the lowest rating, else a note.

    Args:
        counts: how often each label is there.
        column: the column of the labels.
    """
    if not asks_about_zero(counts):
        return []
    zeros = counts[0.0]
    message = zero_message(column, zeros, sum(counts.values()))
    severity: Severity = "warning" if stands_out(counts) else "note"
    return [Finding("label-zero", severity, message, column=column, count=zeros)]


def zero_message(column: str, zeros: int, labels: int) -> str:
    """The message about labels of 0."""
    return (
        f"{zeros:,} of {labels:,} labels in {column!r} ({zeros / labels:.0%}) are 0 and"
        " the others start at 1: does 0 mean no rating? It counts as the lowest one."
        " If it only says that there was an interaction, leave these rows out, or"
        ' remove `label`, label_min and label_max and set label_kind = "implicit", so'
        " that every event counts 1."
    )


def asks_about_zero(counts: dict[float, int]) -> bool:
    """Whether labels are 0 and whole numbers from 1 to between 4 and 10.

    Args:
        counts: how often each label is there.
    """
    others = [value for value in counts if value]
    whole = all(float(value).is_integer() and value >= 1 for value in others)
    scale = len(others) >= _FEW_RATINGS and 4 <= max(others) <= 10
    return bool(counts.get(0.0)) and whole and scale


def stands_out(counts: dict[float, int]) -> bool:
    """Whether 0 is too common, compared with the lowest other label, to be a rating."""
    lowest = min(value for value in counts if value)
    total = sum(counts.values())
    return counts[0.0] >= max(3 * counts[lowest], 0.1 * total)

"""Problems of the labels of a log: all the same, or a 0 that may mean no rating.

Knows counts of values, neither files nor events.
"""

from __future__ import annotations

import numpy as np

from shortlist.data.findings import Finding, Severity

_FEW_RATINGS = 3  # different ones: fewer are no scale


def constant_label(labels: np.ndarray, *, column: str | None = None) -> list[Finding]:
    """A label column that says nothing.

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
    """A rating of 0 beside a scale that begins at 1: it may mean that nobody rated.

    A warning where 0 is far more common than the lowest rating, else a note.

    Args:
        counts: how often each label is there.
        column: the column of the labels.
    """
    if not asks_about_zero(counts):
        return []
    zeros = counts[0.0]
    message = zero_told(column, zeros, sum(counts.values()))
    severity: Severity = "warning" if stands_out(counts) else "note"
    return [Finding("label-zero", severity, message, column=column, count=zeros)]


def zero_told(column: str, zeros: int, labels: int) -> str:
    """What a 0 among ratings may mean, and what to do."""
    return (
        f"{zeros:,} of {labels:,} labels in {column!r} ({zeros / labels:.0%}) are 0 and"
        " the others begin at 1: does 0 mean no rating? Now it is the worst one. If it"
        " only says that the user took the item, leave these rows out, or remove"
        ' `label`, label_min and label_max and set label_kind = "implicit", so that'
        " every event counts 1."
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
    """Whether 0 is so common beside the lowest other label that it is hardly one."""
    lowest = min(value for value in counts if value)
    total = sum(counts.values())
    return counts[0.0] >= max(3 * counts[lowest], 0.1 * total)

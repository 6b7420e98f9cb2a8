"""Problems of a log that do not stop it from being read.

Knows single columns and counts; knows neither files nor the report. Reading a log and
`shortlist check` call the same functions. `docs/errors.md` lists the codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
import polars as pl

from shortlist.data.schema import Owner
from shortlist.errors import LogError

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")

_EXTREME = {"user": (0.01, 100), "item": (0.1, 100)}
_LEFT_OUT = {"row": "rows-skipped", "value": "values-skipped"}
EXAMPLES = 3
"""Examples that a message shows."""
_MAX_SHOWN = 40


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One problem or property of a log that a person should look at.

    Args:
        code: stable kebab-case name, listed in `docs/errors.md`.
        severity: `problem` (the log or the split is wrong), `warning` (probably not
            intended) or `note` (for information).
        message: what was found and what to do.
        file: the file concerned, if known.
        column: the column concerned, if known.
        row: 1-based line or row number in `file`, if known.
        count: number of rows, events or ids concerned, if it can be counted.
    """

    code: str
    severity: Severity
    message: str
    file: str | None = None
    column: str | None = None
    row: int | None = None
    count: int | None = None


def skipped_rows(
    error: LogError,
    count: int,
    *,
    files: tuple[int, int] = (1, 0),
    what: Literal["row", "value"] = "row",
) -> Finding:
    """The finding for rows or values that were left out.

    Args:
        error: why the first of them cannot be used, and where it is.
        count: number of rows with this problem.
        files: number of files with such rows, and number of them in the named file.
        what: `row` (code `rows-skipped`) or `value` (`values-skipped`).
    """
    left_out = f"1 {what} was" if count == 1 else f"{count:,} {what}s were"
    number, most = files
    spread = f" in {number:,} files, {most:,} of them in this one" if number > 1 else ""
    return Finding(
        _LEFT_OUT[what],
        "problem",
        f"{left_out} left out{spread} [{error.code}]. {error.message}",
        file=error.file,
        column=error.column,
        row=error.row,
        count=count,
    )


def changed_type(
    column: str, types: Mapping[str, str], read_as: str = "text"
) -> list[Finding]:
    """A column whose type differs between the files of a log.

    Args:
        column: its name.
        types: the name of its type by file, in the order of the files.
        read_as: type that the column is read as in all files.
    """
    first_file, first = next(iter(types.items()), ("", ""))
    for file, kind in types.items():
        if kind != first:
            return [
                Finding(
                    "column-type-changed",
                    "warning",
                    f"The type of the column is {first} in {first_file!r} and {kind}"
                    f" in {file!r}; all of it is read as {read_as}. Check that all"
                    " files were exported in the same way.",
                    file=file,
                    column=column,
                    count=sum(kind != first for kind in types.values()),
                )
            ]
    return []


def duplicate_events(dropped: int, rows: int) -> list[Finding]:
    """Events left out as duplicates: a warning from a tenth of all rows.

    Args:
        dropped: events with the user, item, time and label of an earlier one.
        rows: all rows read, including `dropped`.
    """
    if not dropped:
        return []
    return [
        Finding(
            "duplicate-events",
            "warning" if dropped >= 0.1 * rows else "note",
            f"{dropped:,} of {rows:,} events ({dropped / rows:.1%}) repeat the user,"
            " item, time and label of an earlier one and are left out. Check whether"
            " the export wrote them twice, or whether they differ in an unused column,"
            " such as the kind of event.",
            count=dropped,
        )
    ]


def ids_missing_as_text(
    counts: Mapping[str, int], *, column: str | None = None
) -> list[Finding]:
    """Ids that are words for a missing value, such as `NULL` (`ids-missing-as-text`).

    Args:
        counts: their events, by id.
        column: the column of the ids.
    """
    if not counts:
        return []
    events = sum(counts.values())
    most = sorted(counts, key=lambda text: -counts[text])[:EXAMPLES]
    examples = ", ".join(f"{text!r} ({counts[text]:,} events)" for text in most)
    more = f" and {len(counts) - EXAMPLES} more" if len(counts) > EXAMPLES else ""
    values = ", ".join(f'"{text}"' for text in counts)
    return [
        Finding(
            "ids-missing-as-text",
            "problem",
            f"{events:,} events have an id that is probably a missing value: {examples}"
            f"{more}. Each counts as one user or item. Set null_values = [{values}]"
            ' under [log], and on_error = "skip" to leave these events out.',
            column=column,
            count=events,
        )
    ]


_ID = pl.col("id")
SPELLINGS: tuple[tuple[str, Severity, str, pl.Expr], ...] = (
    ("ids-white-space", "problem", "white space around them", _ID.str.strip_chars()),
    ("ids-letter-case", "warning", "letter case", _ID.str.to_lowercase()),
    (
        "ids-number-form",
        "warning",
        "how a number is written",
        pl.coalesce(_ID.str.extract(r"^\+?0*(\d+?)(?:\.0+)?$"), _ID),
    ),
)
"""How ids may be alike: code, severity, ignored difference, form to compare."""


def similar_ids(ids: pl.Series) -> list[Finding]:
    """Ids that are probably the same id in several spellings.

    They differ only in white space around them (code `ids-white-space`), else only in
    letter case (`ids-letter-case`), else only as the text of one integer, such as '7',
    '07' and '7.0' (`ids-number-form`). `count` is the number of ids concerned.

    Args:
        ids: external ids, Int64 or String, named as their column; repeats and nulls
            are ignored.
    """
    if ids.dtype != pl.String:
        return []
    forms = pl.DataFrame({"id": ids.drop_nulls().unique(maintain_order=True)})
    findings = []
    for code, severity, difference, form in SPELLINGS:
        forms = forms.with_columns(form.alias("form"))
        if forms["form"].n_unique() < len(forms):
            found = _spellings(forms, code, severity, difference, ids.name)
            findings.append(found)
            forms = forms.unique("form", keep="first", maintain_order=True)
        forms = forms.select(pl.col("form").alias("id"))
    return findings


def _spellings(
    forms: pl.DataFrame, code: str, severity: Severity, difference: str, column: str
) -> Finding:
    alike = forms.filter(pl.col("form").is_duplicated())
    groups = alike.group_by("form", maintain_order=True).agg("id")
    shown = "; ".join(
        " and ".join(shorten(text) for text in texts[:EXAMPLES])
        for texts in groups["id"].head(EXAMPLES).to_list()
    )
    return Finding(
        code,
        severity,
        f"{len(alike):,} ids are only {len(groups):,} if {difference} is ignored:"
        f" {shown}. A model treats them as different users or items; write each id in"
        " one form.",
        column=column or None,
        count=len(alike),
    )


def shorten(value: object) -> str:
    """A value of a log as one printable line of at most 40 characters."""
    # A value may be as long as a damaged file.
    text = repr(value[: 2 * _MAX_SHOWN] if isinstance(value, str | bytes) else value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def shown(values: pl.Series, index: int) -> str:
    """One value of a column as `shorten` writes it."""
    value = values.slice(index, 1).to_list()[0]
    return shorten(str(value) if values.dtype.is_temporal() else value)


def extreme_share(
    counts: np.ndarray,
    ids: pl.Series,
    *,
    kind: Owner,
    column: str | None = None,
) -> list[Finding]:
    """A user or item with an extreme share of the events: a bot or a default id.

    Extreme means over 1 % (a user) or 10 % (an item) of the events and over 100 times
    the median of all users or items with events.

    Args:
        counts: events by code, `(n,)` integers.
        ids: external id by code, of the same length.
        kind: `user` (code `user-extreme`) or `item` (code `item-extreme`).
        column: the column of the ids.
    """
    used = counts[counts > 0]
    if not len(used):
        return []
    share, factor = _EXTREME[kind]
    limit = max(share * used.sum(), factor * float(np.median(used)))
    extreme = np.flatnonzero(counts > limit)
    if not len(extreme):
        return []
    first = int(np.argmax(counts))
    more = f", and {len(extreme) - 1} more like it" if len(extreme) > 1 else ""
    found = (
        f"{kind.capitalize()} {shorten(ids[first])} has {counts[first]:,} events"
        f" ({counts[first] / used.sum():.1%} of all; the median {kind} has"
        f" {np.median(used):g}){more}."
    )
    fixes = {
        "user": ("user-extreme", "Check for a bot, a test account or a default id."),
        "item": (
            "item-extreme",
            "Check for a default id or an item shown to everyone.",
        ),
    }
    code, fix = fixes[kind]
    return [
        Finding(code, "warning", f"{found} {fix}", column=column, count=len(extreme))
    ]


def single_id(
    counts: np.ndarray, *, kind: Owner, column: str | None = None
) -> list[Finding]:
    """A log of a single user (`one-user`) or item (`one-item`).

    Args:
        counts: events by code, `(n,)` integers; codes without an event do not count.
        kind: `user` or `item`.
        column: the column of the ids.
    """
    if np.count_nonzero(counts) != 1:
        return []
    code = "one-user" if kind == "user" else "one-item"
    message = (
        f"A log must have at least two {kind}s. Received: one. Use more events or"
        f" another {kind} column."
    )
    return [Finding(code, "problem", message, column=column)]


def rare_ids(
    counts: np.ndarray, *, kind: Owner, column: str | None = None, timed: bool = True
) -> list[Finding]:
    """Most users or items have a single event.

    Args:
        counts: events by code, `(n,)` integers; codes without an event do not count.
        kind: `user` (code `users-with-one-event`) or `item` (`items-with-one-event`).
        column: the column of the ids.
        timed: whether the log has times to split it by.
    """
    used = int(np.count_nonzero(counts))
    once = int(np.count_nonzero(counts == 1))
    if once * 2 <= used:
        return []
    found = f"{once:,} of {used:,} {kind}s ({once / used:.0%}) have a single event."
    if kind == "user":
        other = "by time ('time_cut')" if timed else "by chance ('random')"
        fix = f"Only a split {other} can hold out their events."
        return [
            Finding(
                "users-with-one-event",
                "warning",
                f"{found} {fix}",
                column=column,
                count=once,
            )
        ]
    fix = "A model learns little about them; features of the items help."
    return [
        Finding(
            "items-with-one-event", "note", f"{found} {fix}", column=column, count=once
        )
    ]


def empty_part(parts: Sequence[str], kind: str, amount: float) -> Finding:
    """Parts that are unexpectedly empty.

    Args:
        parts: `validation`, `test` or both.
        kind: kind of the split.
        amount: what it holds out: a number of events for `last_n`, else a share.
    """
    what = f"the {parts[0]} part" if len(parts) == 1 else "both held-out parts"
    found = f"The split ({kind}) leaves {what} empty. {empty_part_advice(kind, amount)}"
    return Finding("empty-part", "warning", found, count=len(parts))


def empty_part_advice(kind: str, amount: float) -> str:
    """What to do about an empty part, by the kind of the split and what it holds out.

    Args:
        kind: kind of the split.
        amount: a number of events for `last_n`, else a share.
    """
    fixes = {
        "last_n": f"No user has more than {amount:g} events left to hold out: hold out"
        " fewer, or set kind = 'random'",
        "time_cut": "No event is that late: set an earlier moment or a larger share",
        "random": "The log has too few events for the share: raise it",
        "files": "Users may have too few events for a share: name a validation file",
    }
    by_share = "Users may have too few events for a share: try kind = 'last_n'"
    return f"{fixes.get(kind, by_share)} under [split]."

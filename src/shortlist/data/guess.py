"""Looks at a log and proposes its schema, with a sentence for every decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from shortlist.data.file_format import FileFormat
from shortlist.data.guess_features import AttributeGuess, guess_features
from shortlist.data.guess_reading import (
    roles_of,
    settle,
    settle_ids,
    with_whole_ids,
)
from shortlist.data.guess_roles import FLAGS, Roles, attribute_id, name_score
from shortlist.data.panics import panics_refused
from shortlist.data.propose import Sample, read_sample
from shortlist.data.schema import LabelKind, Owner, Schema
from shortlist.data.validate import to_floats

_SAMPLED_ROWS = 500_000
_OWNERS: dict[str, Owner] = {"user_id": "user", "item_id": "item"}
# The usual scales; a label that fits none has no limits.
_SCALES = ((1.0, 5.0), (0.5, 5.0), (0.0, 5.0), (1.0, 10.0), (0.0, 10.0), (0.0, 100.0))
_POSITIVE_SHARE = 0.8


@dataclass(frozen=True)
class Guess:
    """What a log seems to be.

    Args:
        layout: layout of the events file, one of `layouts.LAYOUTS`.
        schema: the columns of events, users and items.
        reasons: a sentence per decision, by `user_id`, `item_id`, `timestamp`,
            `label`, `label_kind`, `positive_from`, `title`, and by the name of each
            other column, taken as a feature or left out.
        num_rows: events looked at.
        users_id: column of the ids in the users file, or `None` without one.
        items_id: column of the ids in the items file, or `None` without one.
        warnings: what a person should look at.
        events_per_user: median number of events looked at of one user.
        format: settings of reading the log.
        users_format: settings of reading the users file.
        items_format: settings of reading the items file.
        format_reasons: why, by the name of a setting, after `users.` or `items.` for
            those of an attribute file; `on_error` where rows must be skipped.
    """

    layout: str
    schema: Schema
    reasons: dict[str, str]
    num_rows: int
    users_id: str | None = None
    items_id: str | None = None
    warnings: tuple[str, ...] = ()
    events_per_user: float = 0.0
    format: FileFormat = FileFormat()
    users_format: FileFormat = FileFormat()
    items_format: FileFormat = FileFormat()
    format_reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Scale:
    """What the numbers of a label mean."""

    kind: LabelKind
    positive_from: float
    low: float | None
    high: float | None
    reason: str


def guess_schema(
    events_path: str | Path | Sequence[str | Path],
    *,
    users_path: str | Path | None = None,
    items_path: str | Path | None = None,
    user_id: str | None = None,
    item_id: str | None = None,
    timestamp: str | None = None,
    label: str | None = None,
    formats: Mapping[str, FileFormat] | None = None,
) -> Guess:
    """Proposes the schema of a log from the first 500,000 rows of its files.

    Args:
        events_path: the interaction log, one file or several of the same columns.
        users_path: user attributes, or `None`.
        items_path: item attributes, or `None`.
        user_id: column of the user, where the caller knows it.
        item_id: column of the item, where the caller knows it.
        timestamp: column of the time, where the caller knows it.
        label: column of the rating or click, where the caller knows it.
        formats: settings of reading that are known, of `events`, `users` and `items`.

    Raises:
        LogError: a file cannot be read, a named column is missing, or user and item
            cannot be told apart (code `guess-ambiguous`, which lists the columns).
    """
    known = {name: FileFormat() for name in ("events", "users", "items")}
    known |= formats or {}
    named = dict(zip(FLAGS, (user_id, item_id, timestamp, label), strict=True))
    one = isinstance(events_path, str | Path)
    paths = [Path(events_path)] if one else [Path(path) for path in events_path]  # type: ignore[union-attr, arg-type]
    with panics_refused(paths[0]):
        return _guess(paths, known, (users_path, items_path), named)


def _guess(
    paths: list[Path],
    known: Mapping[str, FileFormat],
    attribute_paths: tuple[str | Path | None, str | Path | None],
    given: Mapping[str, str | None],
) -> Guess:
    log = read_sample(paths, known["events"], _SAMPLED_ROWS)
    # Whatever `prepare` would find in the attribute files is found here.
    samples = {
        role: read_sample([Path(at)], known[f"{_OWNERS[role]}s"], None)
        for role, at in zip(_OWNERS, attribute_paths, strict=True)
        if at is not None
    }
    for sample in samples.values():
        named = [
            n for n in sample.table.columns if any(name_score(n, r) for r in _OWNERS)
        ]
        sample.table = with_whole_ids(sample.table, named)
    known_ids = {role: sample.table for role, sample in samples.items()}
    roles = roles_of(log, given, known_ids)
    bad_rows = settle(roles, log)
    roles.warnings += log.bad_rows
    scale = _take_scale(roles)
    for name in roles.free():
        roles.reasons[name] = "Left out: a context feature only if known when asking."
    tables = {role: (s.paths[0], s.table) for role, s in samples.items()}
    ids, attributes = _attributes(roles, tables)
    for role, sample in samples.items():
        roles.warnings += settle_ids(sample, ids[role])
    return Guess(
        layout=log.layout,
        schema=_schema(roles, scale, attributes),
        reasons=roles.reasons,
        num_rows=len(roles.table),
        users_id=ids.get("user_id"),
        items_id=ids.get("item_id"),
        warnings=tuple(roles.warnings),
        events_per_user=_events_per_user(roles),
        format=log.format,
        users_format=_format_of(samples, "user_id"),
        items_format=_format_of(samples, "item_id"),
        format_reasons=_format_reasons(log, samples, bad_rows),
    )


def _format_of(samples: Mapping[str, Sample], role: str) -> FileFormat:
    return samples[role].format if role in samples else FileFormat()


def _format_reasons(
    log: Sample, samples: Mapping[str, Sample], bad_rows: Mapping[str, str]
) -> dict[str, str]:
    reasons = dict(log.reasons)
    told = [*log.bad_rows, *bad_rows.values()]
    told += [why for sample in samples.values() for why in sample.bad_rows]
    if told:
        reasons["on_error"] = " ".join(told)
    for role, sample in samples.items():
        owner = _OWNERS[role]
        reasons |= {f"{owner}s.{name}": why for name, why in sample.reasons.items()}
    return reasons


def _events_per_user(roles: Roles) -> float:
    counts = roles.table.group_by(roles.columns["user_id"]).len()["len"]
    return float(counts.median() or 0.0)  # type: ignore[arg-type]


def _take_scale(roles: Roles) -> _Scale:
    """Decides on the label; drops one that says nothing or counts events."""
    if "label" not in roles.columns:
        roles.reasons["label"] = "No column holds ratings or clicks: every event is 1."
        scale = _Scale("implicit", 1.0, None, None, "There is no label.")
    else:
        scale = _scale(to_floats(roles.table[roles.columns["label"]]))
        if scale.kind == "implicit":
            name = roles.columns.pop("label")
            roles.reasons["label"] = f"{name!r} is not used: {scale.reason}"
            roles.warnings.append(
                f"{name!r} is no rating. {scale.reason} So every event counts 1."
            )
    roles.reasons["label_kind"] = scale.reason
    roles.reasons["positive_from"] = (
        f"A label of at least {scale.positive_from:g} counts as positive."
    )
    return scale


def _scale(labels: pl.Series) -> _Scale:
    known = labels.filter(labels.is_finite())
    values = sorted(known.unique().to_list())
    if len(values) < 2:
        return _Scale("implicit", 1.0, None, None, "All its values are the same.")
    if values == [0.0, 1.0]:
        return _Scale("binary", 1.0, 0.0, 1.0, "Its values are 0 and 1.")
    low, high = values[0], values[-1]
    if high > 100 or (low >= 0 and high > 10 and len(values) > 101):
        return _Scale("implicit", 1.0, None, None, "Its values look like counts.")
    for begin, end in _SCALES:
        if begin <= low and end / 2 < high <= end:
            reason = f"Its {len(values)} values fit a scale of {begin:g} to {end:g}."
            bar = _POSITIVE_SHARE * end  # 4 of 5 stars, 8 of 10
            positive = bar if high >= bar else _high_value(values)
            return _Scale("explicit", positive, begin, end, reason)
    reason = f"Its values, {low:g} to {high:g}, fit no usual scale: no limits are set."
    return _Scale("explicit", _high_value(values), None, None, reason)


def _high_value(values: list[float]) -> float:
    """The smallest value from 80 % of the way up; the way begins at 0 or below."""
    start = min(values[0], 0.0)
    bar = start + _POSITIVE_SHARE * (values[-1] - start)
    return next(value for value in values if value >= bar)


def _attributes(
    roles: Roles, tables: dict[str, tuple[Path, pl.DataFrame]]
) -> tuple[dict[str, str], list[AttributeGuess]]:
    ids: dict[str, str] = {}
    found: list[AttributeGuess] = []
    for role, (path, table) in tables.items():
        ids[role], share = attribute_id(roles, role, table, path)
        if share < 0.5:
            roles.warnings.append(
                f"Only {share:.0%} of the log's {_OWNERS[role]}s are in {path.name}."
            )
        taken = {f.name for guess in found for f in guess.features}
        found.append(guess_features(table, ids[role], _OWNERS[role], taken))
        for name, reason in found[-1].reasons.items():
            roles.reasons.setdefault(name, reason)
    return ids, found


def _schema(roles: Roles, scale: _Scale, attributes: list[AttributeGuess]) -> Schema:
    titles = [guess.title for guess in attributes if guess.title]
    return Schema(
        user_id=roles.columns["user_id"],
        item_id=roles.columns["item_id"],
        timestamp=roles.columns.get("timestamp"),
        label=roles.columns.get("label"),
        label_kind=scale.kind,
        positive_from=scale.positive_from,
        label_min=scale.low,
        label_max=scale.high,
        features=tuple(f for guess in attributes for f in guess.features),
        title=titles[0] if titles else None,
    )

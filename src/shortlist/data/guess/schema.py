"""Proposes the schema of a log, with a sentence for every decision."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from shortlist.data.guess.column_format import (
    roles_of,
    settle,
    settle_ids,
    with_whole_ids,
)
from shortlist.data.guess.features import AttributeGuess, guess_features
from shortlist.data.guess.file_format import Sample, read_sample
from shortlist.data.guess.meanings import counted, is_amount
from shortlist.data.guess.other_columns import (
    guess_log_columns,
    look_at_order,
    weight_offer,
)
from shortlist.data.guess.roles import FLAGS, NO_TIMES, Roles, attribute_id, name_score
from shortlist.data.guess.shared_findings import (
    REPEATED,
    asks_about_zero,
    order_message,
    repeats_message,
    stands_out,
    zero_message,
)
from shortlist.data.read.file_format import FileFormat, as_format
from shortlist.data.read.inputs import LogFiles, Paths, ReadOptions
from shortlist.data.read.panics import panics_refused
from shortlist.data.read.validate import to_floats
from shortlist.data.schema import LabelKind, Owner, Schema, Weight
from shortlist.data.split import Split

_SAMPLED_ROWS = 500_000
_OWNERS: dict[str, Owner] = {"user_id": "user", "item_id": "item"}
# The usual scales; a label that fits none has no limits.
_SCALES = ((1.0, 5.0), (0.5, 5.0), (0.0, 5.0), (1.0, 10.0), (0.0, 10.0), (0.0, 100.0))
_POSITIVE_SHARE = 0.8


FEW_EVENTS = 15  # with fewer events a share gives no validation event


@dataclass(frozen=True)
class Guess:
    """The proposal for a log.

    Args:
        layout: layout of the events file, one of `layouts.LAYOUTS`.
        schema: the columns of events, users and items.
        reasons: a sentence per decision, by `user_id`, `item_id`, `timestamp`,
            `label`, `label_kind` and `positive_from`.
        num_rows: events looked at.
        users_id: column of the ids in the users file, or `None` without one.
        items_id: column of the ids in the items file, or `None` without one.
        warnings: what a person should look at.
        events_per_user: median number of events looked at of one user.
        columns: a sentence per column without a role, used as a feature or left out;
            by `log`, `users` and `items`, the file it is in.
        order: why the order of a file without times is not that of time; else empty.
        repeated_share: share of the held-out events whose pair of user and item comes
            before, under `split`.
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
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    order: str = ""
    repeated_share: float = 0.0
    format: FileFormat = FileFormat()
    users_format: FileFormat = FileFormat()
    items_format: FileFormat = FileFormat()
    format_reasons: Mapping[str, str] = field(default_factory=dict)

    @property
    def split(self) -> Split:
        """Shares of each user's events, or single events if users have few."""
        return _default_split(self.events_per_user, self.order)

    @property
    def repeats(self) -> bool:
        """Whether nearly all held-out events are of items the user had before."""
        return self.repeated_share >= REPEATED


@dataclass(frozen=True)
class _Scale:
    """What the numbers of a label mean."""

    kind: LabelKind
    positive_from: float
    low: float | None
    high: float | None
    reason: str
    weight: Weight = "none"


def guess_schema(
    log: Paths | LogFiles,
    *,
    user_id: str | None = None,
    item_id: str | None = None,
    timestamp: str | None = None,
    label: str | None = None,
    options: ReadOptions = ReadOptions(),
) -> Guess:
    """Proposes the schema of a log from the first 500,000 rows of its files.

    Args:
        log: the file of events, or several with the same columns; or `LogFiles` with
            attribute files beside them.
        user_id: column of the user, if known.
        item_id: column of the item, if known.
        timestamp: column of the time, if known.
        label: column of the rating or click, if known.
        options: the formats of the files, as far as they are known.

    Raises:
        LogError: a file cannot be read, a named column is missing, or the user and
            item columns are ambiguous (`guess-ambiguous`, which lists the columns).
    """
    files = LogFiles.of(log)
    named = dict(zip(FLAGS, (user_id, item_id, timestamp, label), strict=True))
    with panics_refused(files.first):
        return _guess(files, options, named)


def _guess(
    files: LogFiles, options: ReadOptions, given: Mapping[str, str | None]
) -> Guess:
    log = read_sample(files.event_files, as_format(options.format), _SAMPLED_ROWS)
    # Attribute files are read whole: they must not fail later in `prepare`.
    attributes = {
        "user_id": (files.users, options.users_format),
        "item_id": (files.items, options.items_format),
    }
    samples = {
        role: read_sample([Path(path)], as_format(form), None)
        for role, (path, form) in attributes.items()
        if path is not None
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
    scale = _take_scale(roles, is_given=given.get("label") is not None)
    tables = {role: (s.paths[0], s.table) for role, s in samples.items()}
    ids, of_files = _of_files(roles, tables)
    for role, sample in samples.items():
        roles.warnings += settle_ids(sample, ids[role])
    of_log = guess_log_columns(roles, of_files)
    for name, (path, _) in sorted(log.partial.items()):
        roles.left_out[name] = f"Left out: {path.name} does not have this column."
    events_per_user = _events_per_user(roles)
    order, share = look_at_order(roles, _default_split(events_per_user, ""))
    return Guess(
        layout=log.layout,
        schema=_schema(roles, scale, of_files, of_log),
        reasons=roles.reasons,
        num_rows=len(roles.table),
        users_id=ids.get("user_id"),
        items_id=ids.get("item_id"),
        warnings=tuple(_warnings(roles, order, share)),
        events_per_user=events_per_user,
        columns={
            "log": roles.left_out,
            **{f"{owner}s": guess.reasons for owner, guess in of_files.items()},
        },
        order=order,
        repeated_share=share,
        format=log.format,
        users_format=_format_of(samples, "user_id"),
        items_format=_format_of(samples, "item_id"),
        format_reasons=_format_reasons(log, samples, bad_rows),
    )


def _default_split(events_per_user: float, order: str) -> Split:
    if order:
        return Split(kind="random", test=0.2, validation=0.1)
    if events_per_user < FEW_EVENTS:
        return Split(kind="last_n", test=1, validation=1)
    return Split(kind="last_fraction", test=0.2, validation=0.1)


def _format_of(samples: Mapping[str, Sample], role: str) -> FileFormat:
    return samples[role].format if role in samples else FileFormat()


def _format_reasons(
    log: Sample, samples: Mapping[str, Sample], bad_rows: Mapping[str, str]
) -> dict[str, str]:
    reasons = dict(log.reasons)
    bad = [*log.bad_rows, *bad_rows.values()]
    bad += [why for sample in samples.values() for why in sample.bad_rows]
    if bad:
        reasons["on_error"] = " ".join(bad)
    for role, sample in samples.items():
        owner = _OWNERS[role]
        reasons |= {f"{owner}s.{name}": why for name, why in sample.reasons.items()}
    return reasons


def _events_per_user(roles: Roles) -> float:
    counts = roles.table.group_by(roles.columns["user_id"]).len()["len"]
    return float(counts.median() or 0.0)  # type: ignore[arg-type]


def _warnings(roles: Roles, order: str, share: float) -> list[str]:
    warnings = [text for text in roles.warnings if not (order and text == NO_TIMES)]
    if order:
        warnings.append(f"{order_message(order)} The recipe does so.")
    if share >= REPEATED:
        warnings.append(f"{repeats_message(share)} The recipe does so.")
    return warnings


def _take_scale(roles: Roles, *, is_given: bool) -> _Scale:
    """Decides on the label; drops one that is constant or counts events."""
    if "label" not in roles.columns:
        roles.reasons["label"] = "No column holds ratings or clicks: every event is 1."
        scale = _Scale("implicit", 1.0, None, None, "There is no label.")
    else:
        name = roles.columns["label"]
        labels = to_floats(roles.table[name])
        scale = _scale(labels)
        counts = scale.kind == "implicit" and labels.n_unique() > 1
        if labels.is_null().all():
            words = f"Its values are no numbers: {counted(roles.table[name])}."
            scale = dataclasses.replace(scale, reason=words)
        if is_given and (counts or is_amount(name)):
            scale = _weighting(labels)
        elif scale.kind == "implicit":
            roles.columns.pop("label")
            roles.reasons["label"] = f"{name!r} is not used: {scale.reason}"
            more = f" {weight_offer(roles, name)}" if counts else ""
            roles.warnings.append(
                f"{name!r} is no rating. {scale.reason} So every event counts 1.{more}"
            )
        elif scale.kind == "explicit":
            _ask_about_zero(roles, name, labels)
    roles.reasons["label_kind"] = scale.reason
    roles.reasons["positive_from"] = (
        f"A label of at least {scale.positive_from:g} counts as positive."
    )
    return scale


def _weighting(labels: pl.Series) -> _Scale:
    """The scale of plays or hours, which weight the events."""
    whole = bool((labels == labels.round()).all())
    reason = "It says how much: an event weighs 1 + log(1 + its value)."
    return _Scale("implicit", 1.0 if whole else 0.0, None, None, reason, "log")


def _ask_about_zero(roles: Roles, name: str, labels: pl.Series) -> None:
    counts = dict(labels.drop_nulls().value_counts().rows())
    if asks_about_zero(counts) and stands_out(counts):
        roles.warnings.append(zero_message(name, int(counts[0.0]), len(labels)))


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
    """The smallest value in the upper 20 % of the range, which starts at 0 or below."""
    start = min(values[0], 0.0)
    bar = start + _POSITIVE_SHARE * (values[-1] - start)
    return next(value for value in values if value >= bar)


def _of_files(
    roles: Roles, tables: dict[str, tuple[Path, pl.DataFrame]]
) -> tuple[dict[str, str], dict[Owner, AttributeGuess]]:
    """The id columns of the attribute files by role, and the guesses by owner."""
    ids: dict[str, str] = {}
    found: dict[Owner, AttributeGuess] = {}
    for role, (path, table) in tables.items():
        ids[role], share = attribute_id(roles, role, table, path)
        if share < 0.5:
            roles.warnings.append(
                f"Only {share:.0%} of the log's {_OWNERS[role]}s are in {path.name}."
            )
        taken = {f.name for guess in found.values() for f in guess.features}
        found[_OWNERS[role]] = guess_features(table, ids[role], _OWNERS[role], taken)
    return ids, found


def _schema(
    roles: Roles,
    scale: _Scale,
    of_files: dict[Owner, AttributeGuess],
    of_log: list[AttributeGuess],
) -> Schema:
    files = list(of_files.values())
    titles = [guess.title for guess in (*files, *of_log) if guess.title]
    in_file = any(guess.title for guess in files)
    return Schema(
        user_id=roles.columns["user_id"],
        item_id=roles.columns["item_id"],
        timestamp=roles.columns.get("timestamp"),
        label=roles.columns.get("label"),
        label_kind=scale.kind,
        positive_from=scale.positive_from,
        label_min=scale.low,
        label_max=scale.high,
        weight=scale.weight,
        features=tuple(f for guess in (*files, *of_log) for f in guess.features),
        title=titles[0] if titles else None,
        title_from_log=bool(titles) and not in_file,
    )

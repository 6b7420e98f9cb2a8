"""Which column of a log is the user, the item, the time and the label.

Names decide first and content where names say nothing. What cannot be told is asked
for, never assumed: a swapped user and item column trains without any error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from shortlist.data.time_guess import guess_times
from shortlist.data.validate import to_floats
from shortlist.errors import LogError, did_you_mean

WORDS = {
    "user_id": "user u customer client member visitor reader viewer account person"
    " profile buyer shopper player subscriber listener reviewer consumer who",
    "item_id": "item i movie film product sku article track song artist book isbn asin"
    " video game business listing recipe news content page venue hotel document post"
    " course app show what",
    "timestamp": "timestamp time ts date datetime created at when occurred",
    "label": "rating score stars star label click clicked like liked target feedback"
    " overall purchased vote grade preference",
}
FLAGS = {
    "user_id": "--user",
    "item_id": "--item",
    "timestamp": "--timestamp",
    "label": "--label",
}
# What columns without a name are called: by us, by pandas and by Spark.
_NAMELESS = re.compile(r"column_\d+|\d+|_c\d+")
_INDEX = re.compile(r"Unnamed: \d+(_level_\d+)?|level_0|__index_level_0__")
_IDS = ("user_id", "item_id")
_NEARLY = 0.95
"""Share of rows with an id of their own; repeated ids are reported."""
_MAX_LABEL_VALUES = 21  # 0 to 10 in halves


# How much of an item, not how much it was liked.
_AMOUNT = re.compile(r"qty|quantity|amount|count|units|price|number")


@dataclass
class Roles:
    """The columns given and found so far, with a sentence why for each."""

    path: Path
    table: pl.DataFrame
    columns: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def free(self) -> list[str]:
        """Columns without a role; the index that pandas writes is none."""
        taken = set(self.columns.values())
        names = [name for name in self.table.columns if not is_index(name)]
        return [name for name in names if name not in taken]

    def take(self, role: str, column: str, reason: str) -> None:
        """Gives `column` the role, for `reason`."""
        self.columns[role] = column
        self.reasons[role] = reason


def find_roles(
    path: Path,
    table: pl.DataFrame,
    given: Mapping[str, str | None],
    attributes: Mapping[str, pl.DataFrame | None],
) -> Roles:
    """Finds the columns of the four roles.

    Args:
        path: the log, for messages.
        table: the first rows of the log.
        given: columns that the caller named, by role.
        attributes: attribute tables by the role of their id; they decide between
            columns whose names say nothing.

    Raises:
        LogError: a named column is missing, or user and item cannot be told apart.
    """
    roles = Roles(path, table)
    for role, column in given.items():
        if column is not None:
            _check_known(roles, role, column)
            roles.take(role, column, "Given by the caller.")
    for role in WORDS:
        if role not in roles.columns:
            _take_by_name(roles, role)
    _take_time(roles)
    _take_ids(roles, attributes)
    _take_label(roles)
    if roles.columns["user_id"] == roles.columns["item_id"]:
        raise _ambiguous(roles, "The user and the item must be two columns.")
    return roles


def is_index(name: str) -> bool:
    """Whether pandas wrote a column of this name for the numbers of its rows."""
    return not name or _INDEX.fullmatch(name) is not None


def name_score(name: str, role: str) -> int:
    """How well a name fits a role: 2 wholly, 1 in part, 0 not at all."""
    plain = name.split(":")[0]  # RecBole writes "user_id:token"
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", plain).lower()
    parts = [part for part in re.split(r"[\W_]+", spaced) if part not in ("", "id")]
    words = WORDS[role].split()
    hits = [part in words or part.removesuffix("id") in words for part in parts]
    return 2 if hits and all(hits) else int(any(hits))


def attribute_id(
    roles: Roles, role: str, table: pl.DataFrame, path: Path
) -> tuple[str, float]:
    """The id column of an attribute table, and the share of the log's ids in it.

    Raises:
        LogError: no column is unique and fits (code `guess-ambiguous`).
    """
    ids = roles.table[roles.columns[role]]
    shares = {name: _overlap(ids, table[name]) for name in table.columns if name}
    if roles.columns[role] in shares:
        return roles.columns[role], shares[roles.columns[role]]
    unique = [n for n in shares if table[n].n_unique() >= _NEARLY * len(table)]
    best = max(unique, key=lambda n: (name_score(n, role), shares[n]), default=None)
    if best is not None and (name_score(best, role) or shares[best] >= 0.5):
        return best, shares[best]
    kind = role.removesuffix("_id")
    raise LogError(
        "guess-ambiguous",
        f"The {kind} file must have a column with the {kind} ids of the log, one row"
        f" each. Found the columns {_described(table, list(shares))}. Rename the one"
        f" with the ids to {roles.columns[role]!r}.",
        file=path,
    )


def _check_known(roles: Roles, role: str, column: str) -> None:
    if column not in roles.table.columns:
        raise LogError(
            "log-column-missing",
            f"{FLAGS[role]} must name a column of the log."
            f" Received: {column!r}.{did_you_mean(column, roles.table.columns)} Found"
            f" the columns {roles.table.columns}. Name one of them.",
            file=roles.path,
            column=column,
        )


def _take_by_name(roles: Roles, role: str) -> None:
    scores = {
        name: name_score(name, role)
        for name in roles.free()
        if name_score(name, role) and _fits(roles.table[name], role)
    }
    best = [name for name, score in scores.items() if score == max(scores.values())]
    if not best:
        return
    roles.take(role, best[0], f"The name {best[0]!r} says so.")
    if len(best) > 1:
        roles.warnings.append(
            f"The columns {best} all sound like {role}; took {best[0]!r}. Pass"
            f" {FLAGS[role]} to choose another."
        )


def _take_time(roles: Roles) -> None:
    if "timestamp" not in roles.columns:
        for name in roles.free():
            if guess_times(roles.table[name]).share >= 0.95:
                roles.take("timestamp", name, "Its values are times since 1990.")
                return
        named = [name for name in roles.free() if name_score(name, "timestamp")]
        for name in named:
            value = roles.table[name].drop_nulls().first()
            roles.warnings.append(
                f"The column {name!r} is named as a time, but values such as {value!r}"
                " cannot be read as one. Convert it to ISO 8601 or seconds since 1970,"
                " or pass --set log.timestamp_format=FORMAT: without it a split by"
                " time may train on the future."
            )
        roles.warnings.append(
            "No column holds times, so the order of the file counts as the order of"
            " time. Pass --timestamp if there is one."
        )


def _take_ids(roles: Roles, attributes: Mapping[str, pl.DataFrame | None]) -> None:
    for role in ("user_id", "item_id"):
        table = attributes.get(role)
        if role not in roles.columns and table is not None:
            _take_by_overlap(roles, role, table)
    missing = [role for role in ("user_id", "item_id") if role not in roles.columns]
    if not missing:
        return
    names = _id_candidates(roles)
    if len(missing) == len(names) == 1:
        other = "item" if missing[0] == "user_id" else "user"
        why = f"It is the only other column of ids beside the {other}."
        roles.take(missing[0], names[0], why)
        return
    if all(map(_NAMELESS.fullmatch, roles.table.columns)) and len(names) > 1:
        _take_by_place(roles, missing, names)
        return
    raise _ambiguous(roles, "One column must be the user and one the item.")


def _take_by_place(roles: Roles, missing: list[str], names: list[str]) -> None:
    """Files without a header name the user before the item."""
    for role, name in zip(missing, names, strict=False):
        kind = role.removesuffix("_id")
        place = "first" if role == missing[0] else "next"
        roles.take(role, name, f"The {place} column of ids: the {kind}.")
    users, items = (roles.table[roles.columns[role]].n_unique() for role in _IDS)
    roles.warnings.append(
        "The columns have no names, so their order decided which is the user"
        f" ({users:,} values) and which the item ({items:,} values). Check it, or pass"
        " --user and --item."
    )


def _id_candidates(roles: Roles) -> list[str]:
    names = [name for name in roles.free() if _may_be_id(roles.table[name])]
    return [name for name in names if not _looks_rated(roles.table[name])] or names


def _take_by_overlap(roles: Roles, role: str, table: pl.DataFrame) -> None:
    columns = [table[c] for c in table.columns if table[c].n_unique() == len(table)]
    shares = {
        name: max((_overlap(roles.table[name], c) for c in columns), default=0.0)
        for name in _id_candidates(roles)
    }
    # Integers overlap by accident: the ids must be nearly all there, and no other.
    sure = [name for name, share in shares.items() if share >= 0.9]
    if len(sure) == 1:
        roles.take(role, sure[0], "Its values are the ids of the attribute file.")


def _take_label(roles: Roles) -> None:
    if "label" in roles.columns:
        return
    rated = [
        name
        for name in roles.free()
        if _looks_rated(roles.table[name]) and not _AMOUNT.search(name.lower())
    ]
    if len(rated) == 1:
        roles.take("label", rated[0], "It holds few different numbers from 0 to 10.")
    elif rated:
        roles.warnings.append(
            f"The columns {rated} could each be a rating; took none, so every event"
            " counts 1. Pass --label to choose one."
        )


def _fits(values: pl.Series, role: str) -> bool:
    """Whether the content allows what the name says."""
    if role == "timestamp":
        return _may_be_time(values)
    if role == "label":
        return _may_be_label(values)
    # Ids of ten digits look like seconds: believe "user_id", but not "user_since".
    return _is_id_type(values) and (
        name_score(values.name, role) == 2 or _may_be_id(values)
    )


def _is_id_type(values: pl.Series) -> bool:
    return values.dtype.is_integer() or values.dtype == pl.String


def _may_be_id(values: pl.Series) -> bool:
    return _is_id_type(values) and guess_times(values).share < 0.95


def _may_be_time(values: pl.Series) -> bool:
    if values.dtype in (pl.Date, pl.Datetime) or values.dtype.is_numeric():
        return True
    return values.dtype == pl.String and guess_times(values).share >= 0.5


def _may_be_label(values: pl.Series) -> bool:
    numbers = to_floats(values)
    return numbers.null_count() - values.null_count() <= 0.1 * len(values)


def _looks_rated(values: pl.Series) -> bool:
    if not (values.dtype.is_numeric() or values.dtype == pl.Boolean):
        return False
    known = to_floats(values).drop_nulls()
    few = 2 <= known.n_unique() <= min(_MAX_LABEL_VALUES, len(known) / 2)
    return bool(few and known.is_between(0, 10).all())


def _overlap(ids: pl.Series, others: pl.Series) -> float:
    """The share of different ids found among the others, both compared as text."""
    if others.dtype.is_nested():
        return 0.0
    wanted = ids.drop_nulls().unique().cast(pl.String)
    found = wanted.is_in(others.cast(pl.String).implode())
    return float(found.mean() or 0.0)  # type: ignore[arg-type]


def _ambiguous(roles: Roles, rule: str) -> LogError:
    known = {FLAGS[role]: column for role, column in roles.columns.items()}
    return LogError(
        "guess-ambiguous",
        f"{rule} Found {_described(roles.table, roles.table.columns)}; told so far:"
        f" {known or 'nothing'}. Pass --user COLUMN and --item COLUMN.",
        file=roles.path,
    )


def _described(table: pl.DataFrame, names: Iterable[str]) -> str:
    return ", ".join(f"{n!r} ({table[n].n_unique()} values)" for n in names)

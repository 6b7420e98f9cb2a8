"""Which column of a log is the user, the item, the time and the label.

Names decide first, then content. What
remains unclear is asked for: swapped user and item columns train without any error.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from shortlist.data.findings import shown
from shortlist.data.guess.meanings import (
    has_amounts,
    is_amount,
    is_event_type,
    words_of,
)
from shortlist.data.guess.owners import owner_of
from shortlist.data.guess.time_columns import guess_times
from shortlist.data.read.validate import to_floats
from shortlist.data.schema import ITEM, USER, Owner
from shortlist.errors import LogError, did_you_mean, listed

WORDS = {
    "user_id": "user u customer client member visitor reader viewer account person"
    " profile buyer shopper player subscriber listener reviewer consumer who",
    "item_id": "item i movie film product sku stockcode article track song artist book"
    " isbn asin"
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
NO_TIMES = (
    "No column has times, so events keep their order in the file. Pass --timestamp if"
    " there is one."
)
# Names of columns without a name: ours, those of pandas and of Spark.
_NAMELESS = re.compile(r"column_\d+|\d+|_c\d+")
_INDEX = re.compile(r"Unnamed: \d+(_level_\d+)?|level_0|__index_level_0__")
_IDS = ("user_id", "item_id")
_MOST = 0.5
"""Share of values that must be times for a column named or given as one."""
_NEARLY = 0.95
"""Share of rows with a unique id; repeated ids are reported."""
_MAX_LABEL_VALUES = 21  # 0 to 10 in halves
_SHOWN = 5
_OTHER_NUMBER = re.compile(r"amount|count|price|number")
# Words for the circumstances of an event.
_CIRCUMSTANCES = frozenset(
    "device hour minute day weekday dow month week quarter position rank slot page"
    " platform os browser channel store shop region country city age gender discount"
    " disc promo".split()
)
# If no column names a user, each session is one.
_SESSIONS = frozenset({"session", "sess", "visit", "sid", "ssid", "ussid"})


@dataclass
class Roles:
    """The columns given and found so far, with a sentence why for each.

    Args:
        path: the log, for messages.
        table: the first rows of the log.
        columns: the column of each role.
        reasons: a sentence for each role.
        left_out: a sentence for each column without a role that was looked at.
        warnings: what a person should look at.
        time_format: the format of the times in the letters of strftime, if given.
    """

    path: Path
    table: pl.DataFrame
    columns: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    time_format: str | None = None

    def free(self) -> list[str]:
        """Columns without a role, except an index written by pandas."""
        taken = set(self.columns.values())
        names = [name for name in self.table.columns if not is_index(name)]
        return [name for name in names if name not in taken]

    def ids(self) -> dict[Owner, pl.Series]:
        """The columns of the user and of the item, as far as they are known."""
        roles: tuple[tuple[Owner, str], ...] = ((USER, "user_id"), (ITEM, "item_id"))
        return {
            owner: self.table[self.columns[role]]
            for owner, role in roles
            if role in self.columns
        }

    def take(self, role: str, column: str, reason: str) -> None:
        """Gives `column` the role, for `reason`."""
        self.columns[role] = column
        self.reasons[role] = reason


def find_roles(
    path: Path,
    table: pl.DataFrame,
    given: Mapping[str, str | None],
    attributes: Mapping[str, pl.DataFrame | None],
    time_format: str | None = None,
) -> Roles:
    """Finds the columns of the four roles.

    Args:
        path: the log, for messages.
        table: the first rows of the log.
        given: columns that the caller named, by role.
        attributes: attribute tables by the role of their id; they decide between
            columns whose names say nothing.
        time_format: the format of the times in the letters of strftime, if given.

    Raises:
        LogError: a named column is missing, the user and item columns are ambiguous,
            or no column has times in `time_format` (`log-time-type`).
    """
    roles = Roles(path, table, time_format=time_format)
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
    """How well a name fits a role: 2 fully, 1 partly, 0 not at all."""
    parts = [part for part in words_of(name) if part != "id"]
    words = WORDS[role].split()
    if "".join(parts) in words:
        return 2
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
            f" the columns {listed(roles.table.columns)}. Name one of them.",
            file=roles.path,
            column=column,
        )


def _take_by_name(roles: Roles, role: str) -> None:
    scores = {
        name: name_score(name, role)
        for name in roles.free()
        if name_score(name, role) and _fits(roles, name, role)
    }
    if role == "label":
        scores = {n: s for n, s in scores.items() if _may_rate(roles, n)}
    best = [name for name, score in scores.items() if score == max(scores.values())]
    if not best:
        return
    if role == "timestamp":  # times with a clock before dates
        best.sort(key=lambda name: -roles.table[name].n_unique())
    roles.take(role, best[0], f"The name {best[0]!r} says so.")
    if len(best) > 1:
        roles.warnings.append(
            f"{listed(best)} all look like {role}; {best[0]!r} is used. Pass"
            f" {FLAGS[role]} {shlex.quote(best[1])} to choose another."
        )


def _take_time(roles: Roles) -> None:
    if roles.time_format is not None:
        _take_formatted_time(roles, roles.time_format)
    elif "timestamp" not in roles.columns:
        for name in roles.free():
            if time_share(roles.table[name]) >= 0.95:
                roles.take("timestamp", name, "Its values are times since 1990.")
                return
        named = [name for name in roles.free() if name_score(name, "timestamp")]
        for name in named:
            value = roles.table[name].drop_nulls().first()
            roles.warnings.append(
                f"The column {name!r} is named as a time, but values such as {value!r}"
                " cannot be read as one. Convert it to ISO 8601 or seconds since 1970,"
                f" or pass --timestamp {shlex.quote(name)} --set"
                " log.timestamp_format=FORMAT: without it a split by time may train on"
                " the future."
            )
        roles.warnings.append(NO_TIMES)


def _take_formatted_time(roles: Roles, form: str) -> None:
    """Takes the column with the most times in the given format."""
    name = roles.columns.get("timestamp")
    names = roles.free() if name is None else [name]
    shares = {n: guess_times(roles.table[n], form).share for n in names}
    best = max(shares, key=lambda n: shares[n], default=None)
    if best is None or shares[best] < _MOST:
        where = "of any column"
        if name is not None:
            known = roles.table[name].drop_nulls()
            example = f" such as {shown(known, 0)}" if len(known) else ""
            where = f"of {name!r}{example}"
        raise LogError(
            "log-time-type",
            "log.timestamp_format must be the format of the times. Received:"
            f" {form!r}, which does not fit most values {where}. Correct the"
            " format, or pass --timestamp COLUMN to name the column.",
            file=roles.path,
            column=name,
        )
    if name is None:
        roles.take("timestamp", best, f"Its values are times written as {form!r}.")


def _take_ids(roles: Roles, attributes: Mapping[str, pl.DataFrame | None]) -> None:
    for role in ("user_id", "item_id"):
        table = attributes.get(role)
        if role not in roles.columns and table is not None:
            _take_by_overlap(roles, role, table)
    sessions = [n for n in _id_candidates(roles) if _SESSIONS & set(words_of(n))]
    if "user_id" not in roles.columns and len(sessions) == 1:
        why = "No column names a user, so each session counts as a user."
        roles.take("user_id", sessions[0], why)
    missing = [role for role in ("user_id", "item_id") if role not in roles.columns]
    if not missing:
        return
    names = _id_candidates(roles)
    if len(missing) == len(names) == 1:
        other = "item" if missing[0] == "user_id" else "user"
        why = f"It is the only column of ids besides the {other}."
        roles.take(missing[0], names[0], why)
        return
    if all(map(_NAMELESS.fullmatch, roles.table.columns)) and len(names) > 1:
        _take_by_place(roles, missing, names)
        return
    raise _ambiguous(roles, "One column must be the user and one the item.")


def _take_by_place(roles: Roles, missing: list[str], names: list[str]) -> None:
    """Takes the user and the item by position: the user comes first."""
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
    columns = [roles.table[name] for name in roles.free()]
    ids = [c.name for c in columns if _may_be_id(c) and c.n_unique() > 1]
    likely = [
        name
        for name in ids
        if not (
            _looks_rated(roles.table[name])
            or is_event_type(roles.table[name])
            or has_amounts(roles.table[name])
        )
    ]
    return likely or ids


def _take_by_overlap(roles: Roles, role: str, table: pl.DataFrame) -> None:
    columns = [table[c] for c in table.columns if table[c].n_unique() == len(table)]
    shares = {
        name: max((_overlap(roles.table[name], c) for c in columns), default=0.0)
        for name in _id_candidates(roles)
    }
    # Integers overlap by chance: nearly all ids must be there, in one column only.
    sure = [name for name, share in shares.items() if share >= 0.9]
    if len(sure) == 1:
        roles.take(role, sure[0], "Its values are the ids of the attribute file.")


def _take_label(roles: Roles) -> None:
    if "label" in roles.columns:
        return
    rated = [
        name
        for name in roles.free()
        if _looks_rated(roles.table[name]) and _may_rate(roles, name)
    ]
    if len(rated) == 1:
        numbers = sorted(to_floats(roles.table[rated[0]]).drop_nulls().unique())
        span = f"{numbers[0]:g} to {numbers[-1]:g}"
        why = f"It holds {len(numbers)} different numbers, {span}."
        roles.take("label", rated[0], why)
    elif rated:
        roles.warnings.append(
            f"{listed(rated)} could each be a rating; none is used, so every event"
            f" counts 1. Pass --label {shlex.quote(rated[0])} to choose one."
        )


def _may_rate(roles: Roles, name: str) -> bool:
    """Whether a column may say how much an item was liked, or whether it was chosen.

    The kind of an event, an amount and an attribute of the user or item say neither.
    """
    values = roles.table[name]
    if name_score(name, "label") == 0 and _CIRCUMSTANCES & set(words_of(name)):
        return False
    if is_event_type(values) or is_amount(name) or _OTHER_NUMBER.search(name.lower()):
        return False
    return name_score(name, "label") == 2 or owner_of(values, roles.ids()) is None


def _fits(roles: Roles, name: str, role: str) -> bool:
    """Whether the values fit the role that the name suggests."""
    values = roles.table[name]
    if role == "timestamp":
        return _may_be_time(values, roles.time_format)
    if role == "label":
        return _may_be_label(values)
    # Ids of ten digits look like seconds: believe "user_id", but not "user_since".
    return _is_id_type(values) and (
        name_score(values.name, role) == 2 or _may_be_id(values)
    )


def _is_id_type(values: pl.Series) -> bool:
    return values.dtype.is_integer() or values.dtype == pl.String


def _may_be_id(values: pl.Series) -> bool:
    return _is_id_type(values) and time_share(values) < 0.95


def _may_be_time(values: pl.Series, form: str | None) -> bool:
    if form is not None:
        return guess_times(values, form).share >= _MOST
    if values.dtype in (pl.Date, pl.Datetime) or values.dtype.is_numeric():
        return True
    return values.dtype == pl.String and time_share(values) >= _MOST


def _may_be_label(values: pl.Series) -> bool:
    numbers = to_floats(values)
    return numbers.null_count() - values.null_count() <= 0.1 * len(values)


def _looks_rated(values: pl.Series) -> bool:
    if not (values.dtype.is_numeric() or values.dtype == pl.Boolean):
        return False
    known = to_floats(values).drop_nulls()
    few = 2 <= known.n_unique() <= min(_MAX_LABEL_VALUES, len(known) / 2)
    signs = known.is_in([-1.0, 0.0, 1.0]).all()  # likes and dislikes
    return bool(few and (signs or known.is_between(0, 10).all()))


def time_share(values: pl.Series) -> float:
    """The share of values that are times between 1990 and tomorrow."""
    return guess_times(values).share


def _overlap(ids: pl.Series, others: pl.Series) -> float:
    """The share of distinct ids found among the others, compared as text."""
    if others.dtype.is_nested():
        return 0.0
    wanted = ids.drop_nulls().unique().cast(pl.String)
    found = wanted.is_in(others.cast(pl.String).implode())
    return float(found.mean() or 0.0)  # type: ignore[arg-type]


def _ambiguous(roles: Roles, rule: str) -> LogError:
    known = [f"{FLAGS[role]} {column!r}" for role, column in roles.columns.items()]
    given = {role: roles.columns.get(role) for role in ("user_id", "item_id")}
    shared = given["user_id"]
    if shared is not None and shared == given["item_id"]:
        # It is the item if its name says so, else the user.
        given["user_id" if _user_first(shared) > 0 else "item_id"] = None
    likely = [name for name in _likeliest(roles) if name not in given.values()]
    missing = [role for role, column in given.items() if column is None]
    for role, name in zip(missing, sorted(likely[:2], key=_user_first), strict=False):
        given[role] = name
    flags = " ".join(
        f"{FLAGS[role]} {shlex.quote(column or 'COLUMN')}"
        for role, column in given.items()
    )
    return LogError(
        "guess-ambiguous",
        f"{rule} The likeliest columns: {_described(roles.table, likely)}; known so"
        f" far: {', '.join(known) or 'none'}. Pass --user COLUMN and --item COLUMN."
        f" For example: {flags}",
        file=roles.path,
    )


def _likeliest(roles: Roles) -> list[str]:
    """The columns without a role, those that look like ids first."""
    ids = _id_candidates(roles)
    ids.sort(key=lambda n: (_hint(n), roles.table[n].n_unique()), reverse=True)
    names = [*ids, *(name for name in roles.free() if name not in ids)]
    first = set(names[:_SHOWN])  # in the order of the file, as people know them
    return [
        *(name for name in roles.table.columns if name in first),
        *names[_SHOWN:],
    ]


def _hint(name: str) -> int:
    return max(
        name_score(name, "user_id"), name_score(name, "item_id"), "id" in words_of(name)
    )


def _user_first(name: str) -> int:
    return name_score(name, "item_id") - name_score(name, "user_id")


def _described(table: pl.DataFrame, names: Iterable[str]) -> str:
    names = list(names)
    shown = [f"{n!r} ({table[n].n_unique()} values)" for n in names[:_SHOWN]]
    rest = len(names) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest > 0 else "")

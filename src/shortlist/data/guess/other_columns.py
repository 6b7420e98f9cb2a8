"""The columns of a log that have no role: attributes, event types, amounts, the rest.

Every one of them is reported with a sentence.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import numpy as np
import polars as pl

from shortlist.data.guess.features import AttributeGuess, guess_features
from shortlist.data.guess.meanings import (
    counted,
    has_amounts,
    is_event_type,
    names_event_type,
    unread_rating,
    words_of,
)
from shortlist.data.guess.owners import newest_rows, owner_of, owner_reason
from shortlist.data.guess.roles import Roles, name_score, time_share
from shortlist.data.guess.shared_findings import (
    grouped_by_item,
    id_ranks,
    repeated_share,
    sorted_by,
)
from shortlist.data.read.validate import iso_to_ms, to_floats
from shortlist.data.schema import ITEM, USER, Owner
from shortlist.data.split import Split, assign_parts

_SMALL_CODES = 31  # hours, days and the like
_CONTEXT = "Left out: a context feature only if its value is known at request time."


def guess_log_columns(
    roles: Roles, of_files: Mapping[Owner, AttributeGuess]
) -> list[AttributeGuess]:
    """Decides on the columns of the log without a role.

    Reasons go to `roles.left_out`, what a person should look at to `roles.warnings`.

    Args:
        roles: the log, with user and item found.
        of_files: what was guessed of attribute files; their columns come first.

    Returns: the attributes of items and of users that the log holds.
    """
    owned: dict[Owner, dict[str, float]] = {ITEM: {}, USER: {}}
    in_files = {n: o for o, guess in of_files.items() for n in guess.reasons}
    for name in roles.free():
        values = roles.table[name]
        reason = _left_out(roles, values)
        if not reason and name in in_files:
            reason = f"Left out: the {in_files[name]}s file has a column of this name."
        if reason:
            roles.left_out[name] = reason
        elif found := owner_of(values, roles.ids()):
            owned[found[0]][name] = found[1]
        else:
            roles.left_out[name] = _other(roles, values)
    title = any(guess.title for guess in of_files.values())
    taken = {f.name for guess in of_files.values() for f in guess.features}
    found_in_log = []
    for owner, columns in owned.items():
        if columns:
            guess = _attributes(roles, owner, columns, taken, has_title=title)
            taken |= {feature.name for feature in guess.features}
            found_in_log.append(guess)
    return found_in_log


def weight_offer(roles: Roles, name: str) -> str:
    """How to weight events by a column."""
    return (
        "To weight the events by it, run `shortlist init` again with"
        f" --label {shlex.quote(name)}."
    )


def look_at_order(roles: Roles, split: Split) -> tuple[str, float]:
    """Why the rows are not in the order of time, and the share of repeats.

    Args:
        roles: the log.
        split: how its events are held out.
    """
    user, item = roles.ids()[USER], roles.ids()[ITEM]
    users, items = (ids.rank("dense").fill_null(0).to_numpy() for ids in (user, item))
    times = times_of(roles)
    order = np.lexsort((np.arange(len(users)) if times is None else times, users))
    share = repeated_share(
        users[order],
        items[order],
        assign_parts(users[order], np.arange(len(order)), split),
    )
    if times is not None:
        return "", share
    keys = {f"item {name}": ranks[order] for name, ranks in id_ranks(item).items()}
    if "label" in roles.columns:
        label = to_floats(roles.table[roles.columns["label"]])
        keys["label"] = label.fill_null(np.nan).to_numpy()[order]
    return sorted_by(users[order], keys) or grouped_by_item(items), share


def times_of(roles: Roles) -> np.ndarray | None:
    """The times of the sampled rows, as numbers in the same order."""
    if "timestamp" not in roles.columns:
        return None
    values = roles.table[roles.columns["timestamp"]]
    if values.dtype == pl.String:
        numbers = to_floats(values)
        values = iso_to_ms(values) if numbers.null_count() else numbers
    if values.dtype.is_temporal():
        values = values.to_physical()
    return values.cast(pl.Float64).fill_null(0).fill_nan(0).to_numpy()


def _left_out(roles: Roles, values: pl.Series) -> str:
    """Why a column cannot be an attribute; empty if it can."""
    name = values.name
    if values.null_count() == len(values):
        return "Left out: it is empty."
    if is_event_type(values) and _is_surely_type(roles, values):
        summary = counted(values)
        if values.n_unique() == 1:
            return f"Left out: every event is of one kind: {summary}."
        roles.warnings.append(
            f"{name!r} says what kind of event a row is: {summary}. It is not used, so"
            " every kind counts 1. Remove the rows that are no sign of interest."
        )
        return f"Left out: it says what kind of event a row is: {summary}."
    named = name_score(name, "label") > 0
    if why := unread_rating(values, is_named=named):
        roles.warnings.append(
            f"{name!r} looks like a rating, but {why}. It is not read, so every event"
            " counts 1, whatever it says."
        )
        return f"Left out: it looks like a rating, but {why}."
    if values.drop_nulls().n_unique() == 1:
        return "Left out: all rows have the same value."
    if time_share(values) >= 0.95 and (
        values.dtype == pl.String or name_score(name, "timestamp")
    ):
        return "Left out: a second time."
    return ""


def _is_surely_type(roles: Roles, values: pl.Series) -> bool:
    """Whether it describes the event: a column called `type` may be an attribute."""
    surely = names_event_type(values.name) and words_of(values.name) != ["type"]
    return surely or owner_of(values, roles.ids()) is None


def _other(roles: Roles, values: pl.Series) -> str:
    name = values.name
    if not has_amounts(values):
        if _may_weight(values) and "label" not in roles.columns:
            weight = f"If it says how often or how much, --label {shlex.quote(name)}"
            return f"{_CONTEXT} {weight} makes it the weight of an event."
        return _CONTEXT
    if "label" in roles.columns:
        return "Left out: it says how much, and the events have a label."
    offer = weight_offer(roles, name)
    roles.warnings.append(
        f"{name!r} says how often or how much: every event counts 1 now. {offer}"
    )
    return f"Left out: it says how often or how much. {offer}"


def _may_weight(values: pl.Series) -> bool:
    """Whether numbers may be amounts by their values: no ids, no small codes."""
    if not values.dtype.is_numeric() or "id" in words_of(values.name):
        return False
    known = values.drop_nulls()
    large = known.cast(pl.Float64).max() or 0.0
    return known.n_unique() < len(known) and float(large) > _SMALL_CODES  # type: ignore[arg-type]


def _attributes(
    roles: Roles,
    owner: Owner,
    columns: dict[str, float],
    taken: set[str],
    *,
    has_title: bool,
) -> AttributeGuess:
    """The features and the title among the columns that belong to one owner."""
    ids = roles.ids()[owner].name
    times = times_of(roles)
    order = None if times is None else pl.Series(times)
    table = newest_rows(roles.table, ids, list(columns), order)
    guess = guess_features(table, ids, owner, taken, from_log=True, has_title=has_title)
    for name, agreement in columns.items():
        example = table[name].drop_nulls().head(1).to_list()[0]
        reason = guess.reasons[name]
        if not reason.startswith("Left out"):
            reason = f"{owner_reason(owner, agreement, example)} {reason}"
        roles.left_out[name] = reason
    return guess

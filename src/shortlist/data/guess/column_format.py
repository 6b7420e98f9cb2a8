"""Reading settings that depend on the columns: lists, times, missing ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

from shortlist.data.guess.file_format import Sample
from shortlist.data.guess.roles import WORDS, Roles, find_roles, name_score
from shortlist.data.guess.time_columns import guess_times
from shortlist.data.read.text.missing import missing_texts
from shortlist.data.read.unroll import list_columns
from shortlist.data.read.validate import is_missing
from shortlist.errors import LogError

_NAMES = {
    "user_id": "user_id",
    "item_id": "item_id",
    "timestamp": "timestamp",
    "label": "rating",
}
"""Of the columns of a file without a header, by role."""


def roles_of(
    log: Sample,
    given: Mapping[str, str | None],
    attributes: Mapping[str, pl.DataFrame | None],
) -> Roles:
    """The roles of the columns, after lists of events were unrolled.

    Args:
        log: the first rows; read again if a row holds several events.
        given: columns that the caller named, by role.
        attributes: attribute tables by the role of their id.

    Raises:
        LogError: as `find_roles`, or a file lacks a column that another has and that is
            named as a user, item, time or rating (`log-column-missing`).
    """
    named = [n for n in log.partial if any(name_score(n, role) == 2 for role in WORDS)]
    log.check_in_all_files([*filter(None, given.values()), *named])
    log.table = with_whole_ids(log.table, log.table.columns)
    lists = [] if log.format.unroll else list_columns(log.table)
    if not lists:
        return _find_roles(log, given, attributes)
    plain = [name for name in log.table.columns if name not in lists]
    items = [name for name in lists if _sounds_like_items(log.table[name])]
    if items and not any(name_score(name, "item_id") == 2 for name in plain):
        return _unrolled(log, _together(log.table, items[0], lists), given, attributes)
    try:
        roles = _find_roles(log, given, attributes)
    except LogError as error:
        if error.code not in ("guess-ambiguous", "log-column-missing"):
            raise
        names = _together(log.table, (items or lists)[0], lists)
        return _unrolled(log, names, given, attributes)
    item = roles.columns["item_id"]
    if item in lists:
        return _unrolled(log, _together(log.table, item, lists), given, attributes)
    return roles


def with_whole_ids(table: pl.DataFrame, names: Iterable[str]) -> pl.DataFrame:
    """Whole floats as integers: pandas writes 7.0 for 7 if an id is missing.

    Args:
        table: the first rows.
        names: the columns that may be ids.
    """
    whole = {}
    for name in names:
        known = table[name].drop_nulls()
        if known.dtype.is_float() and len(known):
            known = known.drop_nans()
            if (known.is_finite() & (known % 1 == 0) & (known.abs() < 2**53)).all():
                whole[name] = table[name].fill_nan(None).cast(pl.Int64)
    return table.with_columns(**whole)


def _sounds_like_items(values: pl.Series) -> bool:
    names = [values.name]
    inner = getattr(values.dtype, "inner", None)
    if isinstance(inner, pl.Struct):
        names += [field.name for field in inner.fields]
    return any(name_score(name.removesuffix("_list"), "item_id") for name in names)


def _together(table: pl.DataFrame, first: str, lists: list[str]) -> list[str]:
    """`first` and the other lists that have the same length in every row."""
    typed = [n for n in lists if isinstance(table[n].dtype, pl.List)]
    if first not in typed:
        return [first]
    lengths = table[first].list.len()
    return [first, *(n for n in typed if n != first and _same(table[n], lengths))]


def _same(values: pl.Series, lengths: pl.Series) -> bool:
    return bool((values.list.len() == lengths).all())


def _unrolled(
    log: Sample,
    names: list[str],
    given: Mapping[str, str | None],
    attributes: Mapping[str, pl.DataFrame | None],
) -> Roles:
    log.set("unroll", tuple(names), "A row holds several events: every element is one.")
    log.read(len(log.table))
    log.table = with_whole_ids(log.table, log.table.columns)
    return _find_roles(log, given, attributes)


def _find_roles(
    log: Sample,
    given: Mapping[str, str | None],
    attributes: Mapping[str, pl.DataFrame | None],
) -> Roles:
    form = log.format.timestamp_format
    return find_roles(log.paths[0], log.table, given, attributes, form)


def settle(roles: Roles, log: Sample) -> dict[str, str]:
    """Adds the reading settings that the columns need.

    Returns: why bad rows must be skipped, by column; nothing if none was seen.
    """
    bad = _settle_empty(roles)
    for found in (_settle_times(roles, log), _settle_missing(roles, log)):
        for name, why in found.items():
            bad[name] = f"{bad[name]} {why}" if name in bad else why
    _settle_names(roles, log)
    return bad


def _settle_empty(roles: Roles) -> dict[str, str]:
    """Reasons to skip rows with empty ids, times or labels."""
    bad = {}
    for name in roles.columns.values():
        values = roles.table[name]
        count = int(is_missing(values).sum())
        if 0 < count <= len(values) / 2:
            bad[name] = f"{count:,} of {len(values):,} values of {name!r} are empty."
            roles.warnings.append(f"{bad[name]} Their events are left out.")
    return bad


def _settle_times(roles: Roles, log: Sample) -> dict[str, str]:
    name = roles.columns.get("timestamp")
    if name is None:
        return {}
    found = guess_times(roles.table[name], log.format.timestamp_format)
    if found.same:
        roles.columns.pop("timestamp")
        roles.reasons["timestamp"] = (
            f"{name!r} is not used: all its values are the same."
        )
        roles.warnings.append(
            f"All times in {name!r} are the same, so events keep their order in the"
            " file."
        )
        return {}
    if len(found.formats) > 1:
        options = " or ".join(
            f"--set 'log.timestamp_format={form}'" for form in found.formats
        )
        raise LogError(
            "guess-ambiguous",
            f"Dates must show which number is the day. Found {name!r} with"
            f" times such as {roles.table[name].drop_nulls()[0]!r}, all of which can be"
            f" read both ways. Pass {options}.",
            file=log.paths[0],
            column=name,
        )
    if found.formats and log.format.timestamp_format is None:
        reason = f"Times such as {str(roles.table[name].drop_nulls()[0])!r}."
        log.set("timestamp_format", found.formats[0], reason)
    if not found.unread:
        return {}
    summary = f"{found.unread:,} of {len(roles.table):,} times cannot be read, such as"
    roles.warnings.append(
        f"{summary} {str(found.example)[:40]!r} in {name!r}. Their events are left out."
    )
    return {name: f"{summary} {str(found.example)[:40]!r}."}


def _settle_missing(roles: Roles, log: Sample) -> dict[str, str]:
    bad: dict[str, str] = {}
    texts: list[str] = list(log.format.null_values)
    for role in ("user_id", "item_id"):
        ids = roles.table[roles.columns[role]]
        found = missing_texts(ids)
        if not found:
            continue
        texts += [text for text in found if text not in texts]
        count = int(ids.is_in(found).sum())
        summary = f"{count:,} of {len(ids):,} values are {', '.join(map(repr, found))}"
        bad[ids.name] = f"{summary}: a missing id."
        roles.warnings.append(
            f"{summary} in {ids.name!r}, probably a missing id. Their events are left"
            " out; take null_values out of the recipe if these are ids."
        )
    if bad:
        log.set("null_values", tuple(texts), "Missing ids, written as text.")
    return bad


def _settle_names(roles: Roles, log: Sample) -> None:
    """Names for the columns of a file that has none."""
    if log.format.has_header is not False or log.format.column_names:
        return
    new = {old: _NAMES[role] for role, old in roles.columns.items()}
    names = tuple(new.get(name, name) for name in roles.table.columns)
    log.set("column_names", names, "Chosen by init, in the order of the columns.")
    roles.table = roles.table.rename(new)
    roles.columns = {role: new[old] for role, old in roles.columns.items()}


def settle_ids(sample: Sample, id_column: str) -> list[str]:
    """Adds the settings that the ids of an attribute file need.

    Rows without an id are skipped, and the last row of a repeated id is used.

    Returns: what was found.
    """
    ids = sample.table[id_column]
    missing = is_missing(ids) | ids.is_in(texts := missing_texts(ids)).fill_null(False)
    found = []
    if texts:
        sample.set("null_values", tuple(texts), "Missing ids, written as text.")
    if count := int(missing.sum()):
        rows = "1 row has" if count == 1 else f"{count:,} rows have"
        sample.bad_rows.append(f"{rows} no id in {sample.paths[0].name}.")
    if summary := _repeated(sample, ids.filter(~missing)):
        found.append(summary)
    return [*sample.bad_rows, *found]


def _repeated(sample: Sample, known: pl.Series) -> str | None:
    repeated = len(known) - known.n_unique()
    if not repeated or sample.format.repeated_ids == "last":
        return None
    rows = "1 row repeats" if repeated == 1 else f"{repeated:,} rows repeat"
    summary = f"{rows} an id of an earlier row"
    sample.set("repeated_ids", "last", f"{summary}: the last one is used.")
    return f"{summary} in {sample.paths[0].name}; the last row of an id is used."

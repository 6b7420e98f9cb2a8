"""Which columns of a log are attributes of its items or users.

Attributes have one value per id, or nearly; ids with several rows decide.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from shortlist.data.findings import shorten
from shortlist.data.guess.meanings import QUANTITIES, words_of
from shortlist.data.schema import ITEM, USER, Owner

AGREEMENT = 0.9
"""How often two rows of an id agree in its attribute, beyond chance."""
_FEW_REPEATS = 10
_VARYING = 0.999  # below an agreement of 1
_OF_USERS = frozenset(
    "age gender sex occupation job country city state zip plan tier membership user"
    " customer birth".split()
)


def owner_of(
    values: pl.Series, ids: Mapping[Owner, pl.Series]
) -> tuple[Owner, float] | None:
    """Whose attribute a column is, and how often two rows of one id agree in it.

    Args:
        values: a column of the log.
        ids: `user` and `item` -> the column of its ids, of the same length.

    Returns: `None` if it belongs to neither, or if too few ids occur more than once.
    """
    if isinstance(values.dtype, pl.List):
        values = values.cast(pl.List(pl.String)).list.join("\x1f")
    if values.dtype.is_nested():
        return None
    found: dict[Owner, float] = {}
    for owner, column in ids.items():
        agreement = _agreement(values, column)
        if agreement is not None and agreement >= AGREEMENT:
            found[owner] = agreement
    if not found:
        return None
    # If a column fits both, its name decides, else it is of the item.
    likelier = USER if _OF_USERS & set(words_of(values.name)) else ITEM
    best = max(found, key=lambda owner: (round(found[owner], 2), owner == likelier))
    return best, found[best]


def newest_rows(
    table: pl.DataFrame, ids: str, columns: list[str], times: pl.Series | None
) -> pl.DataFrame:
    """One row per id with the newest value of each column that is not missing."""
    frame = table.select(ids, *columns)
    if times is not None:
        order = times.arg_sort(nulls_last=False)
        frame = frame.select(pl.all().gather(order))
    newest = [pl.col(name).drop_nulls().last() for name in columns]
    known = frame.filter(pl.col(ids).is_not_null())
    return known.group_by(ids, maintain_order=True).agg(newest)


def _agreement(values: pl.Series, ids: pl.Series) -> float | None:
    """The chance-corrected agreement of two rows of one id; `None` with few repeats.

    As Cohen's kappa: (a - e) / (1 - e), where a is how often two rows of an id agree,
    and e how often any two rows do. Numbers that vary within an id far less than
    between ids count by the share of the variance that is between.
    """
    frame = pl.DataFrame({"id": ids, "value": values}).drop_nulls()
    cells = frame.group_by("id", "value").agg(n=pl.len().cast(pl.Float64))
    sizes = cells.group_by("id").agg(
        size=pl.col("n").sum(), same=(pl.col("n") * (pl.col("n") - 1)).sum()
    )
    again = sizes.filter(pl.col("size") > 1)
    if int((again["size"] - 1).sum()) < _FEW_REPEATS:
        return None
    agree = again.select(
        (pl.col("same") / (pl.col("size") - 1)).sum() / pl.col("size").sum()
    ).item()
    rows = frame.join(again.select("id"), on="id", how="semi")
    common = rows["value"].value_counts()["count"] / len(rows)
    by_chance = float((common * common).sum())
    if by_chance >= 1:
        return None
    kappa = (float(agree) - by_chance) / (1 - by_chance)
    is_size = values.dtype.is_float() or bool(QUANTITIES & set(words_of(values.name)))
    if kappa < AGREEMENT and values.dtype.is_numeric() and is_size:
        return max(kappa, min(_between(rows), _VARYING))
    return kappa


def _between(rows: pl.DataFrame) -> float:
    """The share of the variance of numbers between ids, computed on ranks."""
    ranks = rows.select("id", rank=pl.col("value").rank())
    within = ranks.select(
        ((pl.col("rank") - pl.col("rank").mean().over("id")) ** 2).sum()
    ).item()
    total = ranks.select(((pl.col("rank") - pl.col("rank").mean()) ** 2).sum()).item()
    ids, n = ranks["id"].n_unique(), len(ranks)
    if not total or ids >= n:
        return 0.0
    # Ids with few rows agree with their own mean: count the degrees of freedom.
    return float(1.0 - (within / (n - ids)) / (total / (n - 1)))


def owner_reason(owner: Owner, agreement: float, example: object) -> str:
    """Why a column of the log is an attribute."""
    often = "One value" if agreement == 1 else "Nearly one value"
    return f"{often} per {owner}, such as {shorten(example)}."

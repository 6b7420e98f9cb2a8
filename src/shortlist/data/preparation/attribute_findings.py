"""Problems of an attribute file beside its log: ids that do not find each other.

Knows two columns of ids, neither features nor events. `docs/errors.md` lists the codes.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from shortlist.data.findings import EXAMPLES, SPELLINGS, Finding, shorten
from shortlist.data.schema import Owner

_FEW = 0.5
"""Share of the log's ids in the file under which it is probably another file's."""


def unmatched_ids(
    ids: pl.Series, keys: pl.Series, *, kind: Owner, file: str | Path, column: str
) -> list[Finding]:
    """What is wrong where ids of a log are not in the attribute file.

    Few of them are (code `attribute-ids-unmatched`: a problem if none is), or some
    would be if their spelling did not count (the codes of `findings.similar_ids`).

    Args:
        ids: ids of the log, each once, without nulls; Int64 or String.
        keys: ids of the file, of the same type.
        kind: whose ids they are.
        file: the attribute file.
        column: its id column.
    """
    lost = _apart(ids, keys)
    if lost.is_empty():
        return []
    found = []
    share = 1 - len(lost) / len(ids)
    if share < _FEW:
        told = (
            f"{len(ids) - len(lost):,} of the log's {len(ids):,} {kind}s ({share:.0%})"
            f" are in the file; the others have no attributes. The log has ids such as"
            f" {shorten(lost[0])}, the file such as {shorten(keys[0])}."
        )
        found.append(
            Finding(
                "attribute-ids-unmatched",
                "warning" if share else "problem",
                f"{told} Check that it is the file of this log, and `{kind}s_id` under"
                " [log].",
                file=str(file),
                column=column,
                count=len(lost),
            )
        )
    spare = _apart(keys, ids)
    return found + _other_spellings(lost, spare, kind, str(file), column)


def _other_spellings(
    lost: pl.Series, spare: pl.Series, kind: Owner, file: str, column: str
) -> list[Finding]:
    if lost.dtype != pl.String:
        return []
    found = []
    forms = (pl.DataFrame({"id": s, "written": s}) for s in (lost, spare))
    ours, theirs = forms
    for code, severity, difference, form in SPELLINGS:
        ours, theirs = (f.with_columns(form.alias("id")) for f in (ours, theirs))
        pairs = ours.join(theirs.unique("id"), on="id", maintain_order="left")
        if pairs.is_empty():
            continue
        shown = "; ".join(
            f"{shorten(one)} and {shorten(other)}"
            for _, one, other in pairs.head(EXAMPLES).rows()
        )
        found.append(
            Finding(
                code,
                severity,
                f"{len(pairs):,} {kind}s of the log without attributes are in the file"
                f" if {difference} does not count: {shown}. Write each id one way.",
                file=file,
                column=column,
                count=len(pairs),
            )
        )
        ours = ours.join(pairs, on="written", how="anti", maintain_order="left")
    return found


def _apart(ids: pl.Series, others: pl.Series) -> pl.Series:
    """Those of `ids` that are not among `others`."""
    left, right = ids.alias("id").to_frame(), others.alias("id").to_frame()
    return left.join(right, on="id", how="anti", maintain_order="left")["id"]

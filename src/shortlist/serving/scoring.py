"""Scores of (user, item) pairs in a file: batch prediction without a server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from shortlist.atomic import atomic_file, check_absent
from shortlist.data.read.rejected import without_formulas
from shortlist.data.read.scan import read_table
from shortlist.errors import InputError, LogError, did_you_mean
from shortlist.serving.recommender import Recommender

FORMATS = (".csv", ".tsv", ".parquet", ".ndjson", ".arrow")


def score_file(
    recommender: Recommender,
    pairs: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
) -> dict[str, int]:
    """Adds a `score` column to a file of pairs; the score of an unknown item is null.

    Args:
        recommender: computes the scores: the ranker's output if the bundle has one,
            else the retrieval score.
        pairs: any layout `read_table` reads, with the user and item columns named as
            in the log, or `user_id` and `item_id`. Other columns are kept.
        out: file to write, its format by its ending. In `.csv` and `.tsv` an
            apostrophe is put before text that a spreadsheet would run as a formula.
        overwrite: replace an existing file.

    Returns: the numbers of `rows`, `unknown_users` and `unknown_items`.

    Raises:
        InputError: an unknown ending (`output-format`), or `out` exists
            (`output-exists`, `output-foreign`).
        LogError: the file cannot be read, a column is missing, or it has a score.
    """
    out = Path(out)
    _check_out(out, pairs, overwrite=overwrite)
    schema = recommender.manifest.schema
    frame = read_table(pairs, exact=(schema.user_id, schema.item_id))
    user = _column(frame, (schema.user_id, "user_id"), pairs)
    item = _column(frame, (schema.item_id, "item_id"), pairs)
    if "score" in frame.columns:
        raise LogError(
            "log-column-duplicated",
            "A file of pairs must not have a column 'score', because one is added."
            " Rename or drop it.",
            file=pairs,
            column="score",
        )
    scores = np.full(len(frame), np.nan, np.float32)
    unknown_users = 0
    for user_id, rows in _rows_by_user(frame[user]):
        scores[rows] = recommender.score(user_id, frame[item].gather(rows).to_list())
        unknown_users += 0 if recommender.is_known_user(user_id) else len(rows)
    scored = frame.with_columns(pl.Series("score", scores).fill_nan(None))
    with atomic_file(out) as temporary:
        _write(scored, temporary, out.suffix)
    return {
        "rows": len(frame),
        "unknown_users": unknown_users,
        "unknown_items": scored["score"].null_count(),
    }


def _check_out(out: Path, pairs: str | Path, *, overwrite: bool) -> None:
    """Raises unless the scores may be written to `out`."""
    if out.suffix not in FORMATS:
        raise InputError(
            "output-format",
            f"The output must end in one of {FORMATS}. Received: {str(out)!r}.",
            file=out,
        )
    if not overwrite:
        check_absent(out)
    if not out.exists():
        return
    if not out.is_file():
        raise InputError(
            "output-foreign",
            f"The output must be a file. Received {str(out)!r}, which is none. Choose"
            " another output.",
            file=out,
        )
    if out.samefile(pairs):
        raise InputError(
            "output-exists",
            "The output must be another file than the pairs. Received"
            f" {str(out)!r} for both. Choose another output.",
            file=out,
        )
    if "score" not in read_table(out).columns:
        raise InputError(
            "output-foreign",
            "--overwrite replaces only files with scores. Received"
            f" {str(out)!r}, which has no column 'score'. Choose another output.",
            file=out,
        )


def _rows_by_user(users: pl.Series) -> list[tuple[str | int, np.ndarray]]:
    grouped = (
        pl.DataFrame({"user": users})
        .with_row_index("row")
        .group_by("user", maintain_order=True)
        .agg("row")
    )
    rows = grouped["row"].to_list()
    return list(zip(grouped["user"].to_list(), map(np.array, rows), strict=True))


def _column(frame: pl.DataFrame, names: tuple[str, str], file: str | Path) -> str:
    for name in names:
        if name in frame.columns:
            if frame[name].null_count():
                pair = int(frame[name].is_null().arg_max() or 0) + 1
                raise LogError(
                    "log-id-missing",
                    "Every pair must have a user and an item id. Found an empty one in"
                    f" pair {pair}.",
                    file=file,
                    column=name,
                )
            return name
    raise LogError(
        "log-column-missing",
        f"A file of pairs must have a column {names[0]!r} or {names[1]!r}. Found:"
        f" {frame.columns}.{did_you_mean(names[0], frame.columns)}",
        file=file,
        column=names[0],
    )


def _write(frame: pl.DataFrame, path: Path, ending: str) -> None:
    if ending in (".csv", ".tsv"):
        table = without_formulas(frame)
        table.write_csv(path, separator="," if ending == ".csv" else "\t")
    elif ending == ".parquet":
        frame.write_parquet(path)
    elif ending == ".ndjson":
        frame.write_ndjson(path)
    else:
        frame.write_ipc(path)

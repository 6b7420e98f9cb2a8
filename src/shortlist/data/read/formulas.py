"""Text that a spreadsheet would run as a formula, in the CSV files that are written.

Knows tables about to be written.
"""

from __future__ import annotations

import polars as pl

_BEGINS = r"^['=+\-@\t\r\n＝＋－＠]"


def without_formulas(frame: pl.DataFrame) -> pl.DataFrame:
    """The table with an apostrophe before every text that could be a formula.

    Texts that are numbers stay as they are. A text that begins with an apostrophe gets
    another one, so that the first one can always be taken away again.
    """
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    return frame.with_columns(
        pl.when(
            pl.col(name).str.contains(_BEGINS)
            & pl.col(name).cast(pl.Float64, strict=False).is_null()
        )
        .then("'" + pl.col(name))
        .otherwise(pl.col(name))
        .alias(name)
        for name in texts
    )

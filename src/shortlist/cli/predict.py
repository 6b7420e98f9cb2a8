"""`shortlist predict`: scores of (user, item) pairs in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shortlist.cli.options import (
    RECIPE_FILE,
    BundleOption,
    JsonOption,
    OverwriteOption,
    RecipeOption,
    bundle_path,
    print_result,
)
from shortlist.packages import need_package


def predict(
    pairs: Annotated[Path, typer.Argument(help="File with a user and an item column.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help=".csv, .tsv, .parquet, .ndjson, .arrow")
    ],
    bundle: BundleOption = None,
    recipe: RecipeOption = Path(RECIPE_FILE),
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Score (user, item) pairs; the score of an unknown item is empty."""
    need_package("onnxruntime", "serve")

    from shortlist.serving import Recommender
    from shortlist.serving.scoring import score_file

    recommender = Recommender.load(bundle_path(bundle, recipe))
    counts = score_file(recommender, pairs, out, overwrite=overwrite)
    result = {"out": str(out), **counts}
    text = (
        f"{out}: {counts['rows']:,} rows, {counts['unknown_users']:,} with an unknown"
        f" user, {counts['unknown_items']:,} without a score (unknown item)"
    )
    print_result(result, text, json)

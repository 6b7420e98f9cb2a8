"""`shortlist similar`: items similar to one item."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shortlist.cli.options import (
    RECIPE_FILE,
    BundleOption,
    JsonOption,
    KOption,
    RecipeOption,
    bundle_path,
    print_result,
)
from shortlist.packages import need_package


def similar(
    item_id: Annotated[str, typer.Argument(help="External id of the item.")],
    bundle: BundleOption = None,
    recipe: RecipeOption = Path(RECIPE_FILE),
    k: KOption = 10,
    json: JsonOption = False,
) -> None:
    """List the most similar items to an item."""
    need_package("onnxruntime", "serve")

    import msgspec

    from shortlist.cli.tables import items_table
    from shortlist.serving import Recommender

    recommender = Recommender.load(bundle_path(bundle, recipe))
    answer = recommender.similar(item_id, k)
    print_result(msgspec.to_builtins(answer), items_table(answer.items), json)

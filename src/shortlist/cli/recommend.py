"""`shortlist recommend`: recommendations for one user."""

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


def recommend(
    user_id: Annotated[str, typer.Argument(help="External id of the user.")],
    bundle: BundleOption = None,
    recipe: RecipeOption = Path(RECIPE_FILE),
    k: KOption = 10,
    json: JsonOption = False,
) -> None:
    """Recommend items to a user, best first."""
    need_package("onnxruntime", "serve")

    import msgspec

    from shortlist.cli.tables import items_table
    from shortlist.serving import Recommender

    recommender = Recommender.load(bundle_path(bundle, recipe))
    answer = recommender.recommend(user_id, k=k)
    text = items_table(answer.items)
    if answer.cold_start:
        hint = recommender.suggest_user(user_id)
        text = (
            f"user {user_id!r} is not in the training data: cold-start answer.{hint}"
            f"\n{text}"
        )
    print_result(msgspec.to_builtins(answer), text, json)

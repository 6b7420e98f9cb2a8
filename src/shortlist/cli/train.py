"""`shortlist train`: DATASET + MODEL -> RUN."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shortlist.cli.options import (
    RECIPE_FILE,
    JsonOption,
    OverwriteOption,
    RecipeOption,
    SetOption,
    beside,
    open_recipe,
    print_result,
)


def train(
    recipe: RecipeOption = Path(RECIPE_FILE),
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with a training that was interrupted."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Train retrieval and ranking; the best weights on validation are kept.

    A training that is killed or terminated goes on with --resume, and ends as it would
    have without the interruption.
    """
    loaded = open_recipe(recipe, set_)

    from shortlist.cli.stages import train_stage

    run = train_stage(loaded, recipe, overwrite=overwrite, resume=resume)
    info, path = run.info, beside(recipe, loaded.output.run)
    best = info.validation.get("pipeline") or info.validation["retrieval"]
    result = {
        "run": str(path),
        "backend": info.backend,
        "epochs": info.epochs,
        "ranker_weight": info.ranker_weight,
        "validation": info.validation,
        "seconds": info.seconds,
    }
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in best.items())
    text = (
        f"run {path}: kept epochs {info.epochs}, ranker weight {info.ranker_weight}\n"
        f"  on validation: {metrics or 'no validation part'}"
    )
    print_result(result, text, json)

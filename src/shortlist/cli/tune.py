"""`shortlist tune`: DATASET + SPACE -> the best settings, as a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shortlist.cli.options import (
    RECIPE_FILE,
    JsonOption,
    OverwriteOption,
    RecipeOption,
    SetOption,
    open_recipe,
    print_result,
)
from shortlist.cli.train import minutes_of

if TYPE_CHECKING:
    from shortlist.recipe import Recipe
    from shortlist.training.search.tuning import Tuned


def tune(
    recipe: RecipeOption = Path(RECIPE_FILE),
    set_: SetOption = None,
    trials: Annotated[
        int | None,
        typer.Option(help="Total number of trials; default: from the recipe."),
    ] = None,
    time_budget: Annotated[
        str | None,
        typer.Option(help="Start no trial after this time, such as 10m or 2h."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Resume a search, or extend it with more --trials."
        ),
    ] = False,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Search the space in [tune.space] for the best metric on the validation part.

    The test part is not used. The best settings are written to NAME.best.toml next to
    the recipe; train with them by `shortlist train --recipe NAME.best.toml`.
    """
    settings = list(set_ or [])
    if trials is not None:
        settings.append(f"tune.trials={trials}")
    if time_budget is not None:
        settings.append(f"tune.time_budget={minutes_of(time_budget)}")
    loaded = open_recipe(recipe, settings)
    written = recipe.with_name(f"{recipe.stem}.best.toml")

    from shortlist.atomic import atomic_file, check_file
    from shortlist.cli.recipe_toml import recipe_toml
    from shortlist.cli.stages import tune_stage

    check_file(
        written,
        lambda head: head.startswith(b"# Written by `shortlist tune`"),
        overwrite=overwrite or resume,
        name="a recipe written by a search",
        inputs=[recipe],
    )
    tuned = tune_stage(loaded, recipe, resume=resume, overwrite=overwrite)
    with atomic_file(written) as temporary:
        text = recipe_toml(tuned.recipe, _header(tuned, loaded))
        temporary.write_text(text, encoding="utf-8")
    print_result(_result(tuned, loaded, written), _text(tuned, loaded, written), json)


def _header(tuned: Tuned, recipe: Recipe) -> list[str]:
    best, address = tuned.best, recipe.tracking.mlflow
    hidden = recipe.to_record()["tracking"]["mlflow"] != address
    return [
        f"Written by `shortlist tune`: trial {best.number} of {len(tuned.trials)},"
        f" {recipe.tune.metric} {best.result:.4f} on the validation part.",
        *(f"  {name} = {value!r}" for name, value in best.values.items()),
        *(["Passwords are not copied: complete [tracking] mlflow."] if hidden else []),
    ]


def _result(tuned: Tuned, recipe: Recipe, written: Path) -> dict[str, Any]:
    best = tuned.best
    return {
        "recipe": str(written),
        "metric": recipe.tune.metric,
        "best": {
            "trial": best.number,
            "result": best.result,
            "values": best.values,
            "run": best.run,
        },
        "counts": tuned.counts(),
        "trials": [
            {name: getattr(trial, name) for name in trial.__struct_fields__}
            for trial in tuned.trials
        ],
    }


def _text(tuned: Tuned, recipe: Recipe, written: Path) -> str:
    best = tuned.best
    counts = ", ".join(f"{count} {name}" for name, count in tuned.counts().items())
    values = "\n".join(f"  {name} = {value!r}" for name, value in best.values.items())
    kept = f", run {best.run} of the store" if best.run else ""
    return (
        f"{len(tuned.trials)} trials: {counts}\n"
        f"best: trial {best.number}{kept}, {recipe.tune.metric} {best.result:.4f} on"
        f" the validation part\n{values}\nwritten to {written}: shortlist train"
        f" --recipe {written}"
    )

"""`shortlist cross-validate`: prepare, train and evaluate once per fold of the log.

cross-validation/
  plan.json              the recipe and the number of folds
  fold-1/run ...         the run of each fold, evaluated; fold 1 is the oldest
  cross_validation.json  mean and standard deviation of each metric, written last
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shortlist.cli.options import (
    RECIPE_FILE,
    HtmlOption,
    JsonOption,
    OverwriteOption,
    PlotsOption,
    RecipeOption,
    SetOption,
    beside,
    open_recipe,
    print_result,
)
from shortlist.cli.places import check_outputs
from shortlist.errors import ArtifactError, InputError
from shortlist.outputs import DATASET, FOLDS, remove_ours

if TYPE_CHECKING:
    from shortlist.recipe import Recipe

PLAN_FILE, SUMMARY_FILE = "plan.json", "cross_validation.json"
_FREE = ("name", "output", "serving")
"""Sections that may differ when a cross-validation is resumed."""
_FOLD_NAME = re.compile(r" fold \d+ of \d+$")


def cross_validate(
    recipe: RecipeOption = Path(RECIPE_FILE),
    folds: Annotated[int, typer.Option(min=2, help="Number of folds.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; default: cross-validation next to the recipe."),
    ] = None,
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume an interrupted cross-validation.")
    ] = False,
    html: HtmlOption = None,
    plots: PlotsOption = None,
    json: JsonOption = False,
) -> None:
    """Train and evaluate on folds of the log; the test part is not used.

    With a split by time each fold tests the events before the test events of the next
    fold (rolling origin). With a random split each event is tested in one fold.
    """
    from shortlist.cli.pages import check_page, check_plots, write_pages

    loaded = open_recipe(recipe, set_)
    check_page(html, overwrite)
    check_plots(plots, overwrite)
    folder = (out or beside(recipe, "cross-validation")).resolve()
    check_outputs(loaded, recipe, {"the cross-validation": folder})
    of_folds = [_of_fold(loaded, folder, n + 1, folds) for n in range(folds)]
    _begin(folder, loaded, folds, overwrite=overwrite, resume=resume)

    from shortlist.cli.terminal import plain_text, printed, table_parts
    from shortlist.evaluation.cross_validation import (
        cross_validation_table,
        summarize_folds,
    )
    from shortlist.evaluation.pages.html_page import folds_html
    from shortlist.evaluation.pages.plots import fold_plots

    reports = []
    for number, of_fold in enumerate(of_folds, start=1):
        typer.echo(f"fold {number} of {folds}", err=True)
        reports.append(_run_fold(of_fold, recipe, folder / f"fold-{number}"))
    summary = {"out": str(folder), **summarize_folds(reports)}
    _write(folder / SUMMARY_FILE, summary)
    written = write_pages(
        lambda: fold_plots(summary),
        lambda drawn: folds_html(
            summary,
            title=f"Cross-validation of {loaded.name}",
            details={"runs": str(folder)},
            plots=drawn,
        ),
        html,
        plots,
    )
    table = cross_validation_table(summary, is_short=True)
    lines = [f"runs and {SUMMARY_FILE}: {folder}", *written]
    parts = [*table_parts(table)[1:], *map(plain_text, lines)]
    print_result(summary, "" if json else printed(parts, piped_width=1000), json)


def _of_fold(recipe: Recipe, folder: Path, number: int, folds: int) -> Recipe:
    split = dataclasses.replace(recipe.split, fold=number, folds=folds)
    place = folder / f"fold-{number}"
    output = recipe.output.model_copy(
        update={"dataset": str(place / "dataset"), "run": str(place / "run")}
    )
    name = f"{recipe.name} fold {number} of {folds}"
    return recipe.model_copy(update={"name": name, "split": split, "output": output})


def is_fold(name: str) -> bool:
    """Whether a run of this name is a fold of a cross-validation."""
    return _FOLD_NAME.search(name) is not None


def _run_fold(recipe: Recipe, path: Path, place: Path) -> dict[str, Any]:
    """Runs and evaluates a fold; keeps its run and removes its dataset."""
    from shortlist.cli.stages import evaluate_stage, prepare_stage, train_stage
    from shortlist.evaluation.user_values import REPORT_FILE, Evaluation
    from shortlist.training.options import TrainOptions

    if (place / "run" / REPORT_FILE).is_file():
        remove_ours(place / "dataset", DATASET)  # of a killed process
        return Evaluation.load(place / "run").report
    sizes = prepare_stage(recipe, path, overwrite=True).info.parts
    if not sizes["train"] or not sizes["test"]:
        raise _too_many(recipe, sizes)
    options = TrainOptions(resume=True)
    train_stage(recipe, path, overwrite=False, options=options)
    try:
        report = evaluate_stage(recipe, path)
    except InputError as error:
        if error.code == "no-relevant-items":
            raise _too_many(recipe, sizes) from error
        raise
    remove_ours(place / "dataset", DATASET)
    return report


def _too_many(recipe: Recipe, sizes: dict[str, int]) -> InputError:
    return InputError(
        "split-folds",
        f"Fold {recipe.split.fold} of {recipe.split.folds} has too few events:"
        f" {sizes['train']:,} to train on and {sizes['test']:,} to test, and it needs"
        " known users with new items in its test part. Use fewer --folds, with"
        " --overwrite.",
    )


def _begin(
    folder: Path, recipe: Recipe, folds: int, *, overwrite: bool, resume: bool
) -> None:
    """Creates the folder, or checks that its cross-validation can be resumed.

    Raises:
        InputError: it exists (`output-exists`, `output-foreign`), or was started with
            another recipe or number of folds (`resume-mismatch`).
    """
    import msgspec

    from shortlist.atomic import check_absent, disk_errors

    plan = {
        "folds": folds,
        "recipe": {n: v for n, v in recipe.to_record().items() if n not in _FREE},
    }
    file = folder / PLAN_FILE
    if resume and not overwrite and file.is_file():
        if _completed(_read(file)) != msgspec.json.decode(msgspec.json.encode(plan)):
            raise InputError(
                "resume-mismatch",
                "The recipe or the number of folds differs from those the"
                f" cross-validation was started with, in {str(file)!r}. Use the same"
                " ones, or start again with --overwrite.",
                file=file,
            )
        return
    check_absent(folder, overwrite=overwrite, kind=FOLDS)
    with disk_errors(folder):
        remove_ours(folder, FOLDS)
        _write(file, plan)


def _completed(plan: Any) -> Any:
    """A plan with defaults for fields that earlier versions did not have."""
    import msgspec

    from shortlist.errors import RecipeError
    from shortlist.recipe import build_recipe

    try:
        recipe = build_recipe(plan["recipe"]).to_builtins()
    except (RecipeError, KeyError, TypeError, AttributeError):
        return plan
    kept = {name: value for name, value in recipe.items() if name not in _FREE}
    return msgspec.json.decode(msgspec.json.encode({**plan, "recipe": kept}))


def _read(file: Path) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(file.read_bytes())
    except (msgspec.MsgspecError, OSError, UnicodeError) as error:
        raise ArtifactError(
            "cross-validation-damaged",
            f"{file.name} cannot be read: {error}. Start again with --overwrite.",
            file=file,
        ) from error


def _write(file: Path, value: Any) -> None:
    import msgspec

    from shortlist.atomic import atomic_file

    with atomic_file(file) as temporary:
        encoded = msgspec.json.format(msgspec.json.encode(value), indent=2)
        temporary.write_bytes(encoded + b"\n")

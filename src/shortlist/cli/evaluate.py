"""`shortlist evaluate`: SCORES -> METRICS on the test part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shortlist.cli.options import (
    RECIPE_FILE,
    HtmlOption,
    JsonOption,
    OverwriteOption,
    RecipeOption,
    SetOption,
    beside,
    open_recipe,
    print_result,
)


def evaluate(
    recipe: RecipeOption = Path(RECIPE_FILE),
    set_: SetOption = None,
    slice_: Annotated[
        list[str] | None,
        typer.Option("--slice", help="Also divide by this feature; repeatable."),
    ] = None,
    html: HtmlOption = None,
    plots: Annotated[
        Path | None, typer.Option(help="Also write the plots, PNG files, here.")
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Measure the run on the test part, beside popularity."""
    from shortlist.cli.pages import check_page, save_page, save_plots

    loaded = open_recipe(recipe, set_)
    check_page(html, overwrite)
    check_page(plots, overwrite)

    from shortlist.cli.stages import evaluate_stage
    from shortlist.cli.tables import metrics_table

    report = evaluate_stage(loaded, recipe, slice_ or [])
    told = []
    if html is not None or plots is not None:
        from shortlist.evaluation.plots import evaluation_plots

        drawn = evaluation_plots(report)
    if plots is not None:
        told.append(f"plots: {plots}: {', '.join(save_plots(drawn, plots))}")
    if html is not None:
        from shortlist.evaluation.html_page import evaluation_html

        title = f"Evaluation of {loaded.name}"
        details = {"run": str(beside(recipe, loaded.output.run))}
        page = evaluation_html(report, title=title, details=details, plots=drawn)
        save_page(page, html)
        told.append(f"report: {html}")
    print_result(report, "\n".join([metrics_table(report), *told]), json)

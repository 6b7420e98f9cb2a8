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
    PlotsOption,
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
    plots: PlotsOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Measure the run on the test part: is it better than popularity?"""
    from shortlist.cli.pages import check_page, check_plots, write_pages

    loaded = open_recipe(recipe, set_)
    check_page(html, overwrite)
    check_plots(plots, overwrite)

    from shortlist.cli.stages import evaluate_stage
    from shortlist.cli.tables import metrics_table, verdict_lines
    from shortlist.evaluation.pages.html_page import evaluation_html
    from shortlist.evaluation.pages.plots import evaluation_plots

    report = evaluate_stage(loaded, recipe, slice_ or [])
    told = write_pages(
        lambda: evaluation_plots(report),
        lambda drawn: evaluation_html(
            report,
            title=f"Evaluation of {loaded.name}",
            details={"run": str(beside(recipe, loaded.output.run))},
            plots=drawn,
        ),
        html,
        plots,
    )
    parts = [*verdict_lines(report["verdict"]), metrics_table(report), *told]
    print_result(report, "\n".join(parts), json)

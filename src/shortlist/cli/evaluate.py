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
        typer.Option("--slice", help="Also report by this feature; repeatable."),
    ] = None,
    html: HtmlOption = None,
    plots: PlotsOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Evaluate the run on the test part, with popularity as the baseline."""
    from shortlist.cli.pages import check_page, check_plots, write_pages

    loaded = open_recipe(recipe, set_)
    check_page(html, overwrite)
    check_plots(plots, overwrite)

    from shortlist.cli.stages import evaluate_stage
    from shortlist.cli.tables import metrics_table, verdict_lines
    from shortlist.evaluation.pages.html_page import evaluation_html
    from shortlist.evaluation.pages.plots import evaluation_plots

    report = evaluate_stage(loaded, recipe, slice_ or [])
    written = write_pages(
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
    parts = [*verdict_lines(report["verdict"]), metrics_table(report), *written]
    print_result(report, "\n".join(parts), json)

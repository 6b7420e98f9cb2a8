"""`shortlist compare`: rank evaluated runs and test every pair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shortlist.cli.options import (
    HtmlOption,
    JsonOption,
    OverwriteOption,
    PlotsOption,
    print_result,
)

_PIPED_WIDTH = 1000  # piped output keeps each row on one line


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Evaluated runs.")
    ],
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            "-m",
            help="Metric to rank and test by, such as ndcg or recall@20.",
        ),
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=1, help="Bootstrap samples for the intervals.")
    ] = 1000,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of the bootstrap and the test.")
    ] = 0,
    html: HtmlOption = None,
    plots: PlotsOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Rank evaluated runs of one dataset and test their differences."""
    from shortlist.cli.pages import check_page, check_plots, write_pages
    from shortlist.evaluation.leaderboard import open_evaluations, rank_runs
    from shortlist.evaluation.pages.html_page import leaderboard_html
    from shortlist.evaluation.pages.plots import leaderboard_plots
    from shortlist.evaluation.verdict import board_verdict

    check_page(html, overwrite)
    check_plots(plots, overwrite)
    board = rank_runs(open_evaluations(runs), metric, resamples=resamples, seed=seed)
    board = {"verdict": board_verdict(board), **board}
    written = write_pages(
        lambda: leaderboard_plots(board),
        lambda drawn: leaderboard_html(board, plots=drawn),
        html,
        plots,
    )
    print_result(board, "" if json else _text(board, written), json)


def _text(board: dict[str, Any], written: list[str]) -> str:
    from rich.text import Text

    from shortlist.cli.terminal import plain_text, printed, table_parts
    from shortlist.evaluation.pages.tables import leaderboard_tables

    tables = leaderboard_tables(board, is_short=True)
    parts = [part for table in tables for part in table_parts(table)]
    parts += [plain_text(note) for note in board["notes"]]
    parts += [Text(""), *map(plain_text, written)] if written else []
    if verdict := board["verdict"]:
        first = [plain_text(verdict["text"]), plain_text(verdict["next"])]
        return printed([*first, *parts], piped_width=_PIPED_WIDTH)
    return printed(parts[1:], piped_width=_PIPED_WIDTH)

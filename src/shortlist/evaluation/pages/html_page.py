"""Evaluations and leaderboards as one HTML file each: plots and tables, no script."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from shortlist.evaluation.cross_validation import cross_validation_table
from shortlist.evaluation.metrics.table import meanings_of
from shortlist.evaluation.pages.plots import (
    Plot,
    evaluation_plots,
    fold_plots,
    leaderboard_plots,
)
from shortlist.evaluation.pages.tables import (
    evaluation_tables,
    leaderboard_tables,
    weight_text,
)
from shortlist.evaluation.verdict import BETTER, UNSURE, WORSE, board_verdict
from shortlist.page import (
    Table,
    figure_html,
    image_html,
    page_html,
    table_html,
    terms_html,
    verdict_html,
)


def evaluation_html(
    report: Mapping[str, Any],
    *,
    title: str = "Evaluation",
    details: Mapping[str, str] | None = None,
    plots: Sequence[Plot] | None = None,
) -> str:
    """The page of what `evaluate_pipeline` returned.

    Args:
        report: plain values.
        title: heading of the page.
        details: lines below it, such as the run's folder.
        plots: of the report; made here if `None`.

    Raises:
        ResourceError: matplotlib is not installed (`package-missing`).
    """
    unknown = report["unknown_users"]
    told = {
        **(details or {}),
        "part": f"{report['part']}, {report['users']:,} users",
        "catalogue": f"{report['catalogue']:,} items",
        "items taken before": "stay in the lists"
        if report.get("repeats")
        else "are left out",
        "not evaluated": f"{report['users_excluded']:,} users with nothing new to find,"
        f" {unknown['users']:,} unknown users ({unknown['events']:,} events)",
        "dataset": report["dataset_fingerprint"],
        **{
            f"{metric} is measured in": basis
            for metric, basis in report["measured_in"].items()
        },
    }
    if "ranker_weight" in report:
        told["weight of the ranker"] = weight_text(report["ranker_weight"])
    drawn = evaluation_plots(report) if plots is None else plots
    names = [*report["metrics"]["model"], *report["pairs"]]
    body = [
        *_body(drawn, evaluation_tables(report), report["notes"]),
        *_meanings(names),
    ]
    lead = _verdict(report.get("verdict"))
    return page_html(title, body, lead=lead, details=told, has_images=True)


def leaderboard_html(
    board: Mapping[str, Any],
    *,
    title: str = "Leaderboard",
    plots: Sequence[Plot] | None = None,
) -> str:
    """The page of what `rank_runs` returned; as `evaluation_html`."""
    told = {
        "ranked by": board["metric"],
        "part": board["part"],
        "dataset": board["dataset_fingerprint"],
    }
    runs, pairs = leaderboard_tables(board)
    drawn = leaderboard_plots(board) if plots is None else plots
    body = [
        *table_html(runs),
        *_body(drawn, [pairs], board["notes"]),
        *_meanings(name for run in board["runs"] for name in run["metrics"]),
    ]
    lead = _verdict(board_verdict(board))
    return page_html(title, body, lead=lead, details=told, has_images=True)


def folds_html(
    summary: Mapping[str, Any],
    *,
    title: str = "Cross-validation",
    details: Mapping[str, str] | None = None,
    plots: Sequence[Plot] | None = None,
) -> str:
    """The page of what `summarize_folds` returned; as `evaluation_html`."""
    drawn = fold_plots(summary) if plots is None else plots
    users = ", ".join(f"{count:,}" for count in summary["users"])
    told = {**(details or {}), "users by fold": users}
    body = [
        *_body(drawn, [cross_validation_table(summary)], []),
        *_meanings([*summary["metrics"], *summary["pairs"]]),
    ]
    return page_html(title, body, details=told, has_images=True)


def _verdict(verdict: Mapping[str, Any] | None) -> list[str]:
    if verdict is None:
        return []
    kind = verdict["result"] if verdict["result"] in (BETTER, WORSE) else UNSURE
    return verdict_html(kind, verdict["text"], verdict["next"])


def _meanings(metrics: Iterable[str]) -> list[str]:
    return terms_html("What the metrics mean", dict(meanings_of(metrics)))


def _body(
    plots: Iterable[Plot], tables: Iterable[Table], notes: Iterable[str]
) -> Iterator[str]:
    yield from (f'<p class="note">{escape(note)}</p>' for note in notes)
    yield '<div class="plots">'
    for plot in plots:
        image = image_html(plot.png, plot.alt)
        yield figure_html(plot.title, image)
    yield "</div>"
    for table in tables:
        yield from table_html(table)

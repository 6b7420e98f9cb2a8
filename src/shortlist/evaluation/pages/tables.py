"""Reports of evaluations as tables of text, for the terminal and for pages alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shortlist.evaluation.metrics.table import HIT_METRICS, bare_name
from shortlist.evaluation.verdict import LEVEL
from shortlist.page import Table

_SIGNED = ("popularity_lift",)


def evaluation_tables(report: Mapping[str, Any]) -> list[Table]:
    """The tables of what `evaluate_pipeline` returned, without empty ones."""
    tables = [_metrics(report), _pair_metrics(report), _heads(report), _slices(report)]
    return [table for table in tables if table.rows]


def leaderboard_tables(
    board: Mapping[str, Any], *, is_short: bool = False
) -> list[Table]:
    """The tables of what `rank_runs` returned.

    Args:
        board: the leaderboard.
        is_short: only what is found by lists of the length of its metric, and pairs.
    """
    return [_runs(board, is_short), _pairs(board)]


def interval_text(ends: Sequence[float] | None) -> str:
    """`[low, high]`, or nothing."""
    return "" if ends is None else f"[{ends[0]:.4f}, {ends[1]:.4f}]"


def ratio_text(metric: str, value: float, beside: float) -> str:
    """How many times the other value it is; none of what may be below 0."""
    is_signed = bare_name(metric) in _SIGNED
    return "-" if is_signed or not beside else f"{value / beside:.2f}"


def group_text(found: Mapping[str, Any]) -> str:
    """The name of a group of a slice."""
    return f"{found['slice']}: {found['group']}"


def weight_text(weight: float) -> str:
    """The weight of the ranker's scores, and what none means."""
    if weight:
        return f"{weight:g}"
    return "0, it did not help: items are in the order of retrieval"


def p_text(p: float) -> str:
    """A p-value with the digits that say something."""
    return f"{p:.4f}" if p >= 0.0001 else f"{p:.1e}"


def _runs(board: Mapping[str, Any], is_short: bool) -> Table:
    main = board["metric"]
    names = list(dict.fromkeys(n for run in board["runs"] for n in run["metrics"]))
    if is_short:
        end = main[main.index("@") :]
        names = [n for n in names if n == f"coverage{end}" or _is_short(n, end)]
    names = [main, *(name for name in names if name != main)]
    rows = []
    for run in board["runs"]:
        cells = [_cell(run["metrics"].get(name)) for name in names]
        for place, name in enumerate(names):
            if run["run"] in board["best"].get(name, ()):
                cells[place] += " *"
        rows.append((run["run"], *cells))
    beside = board["popularity"]
    rows.append(("popularity", *(_cell(beside.get(name)) for name in names)))
    return Table(
        f"Runs by {main}, {board['part']} part",
        ("run", *names),
        tuple(rows),
        "* the best run of its column; higher is better, but lower in"
        " calibration_error, gini, log_loss, mae, rmse and taste_divergence; of others"
        " neither end is.",
    )


def _pairs(board: Mapping[str, Any]) -> Table:
    rows = [
        (
            f"{pair['first']} - {pair['second']}",
            f"{pair['difference']:+.4f}",
            f"[{pair['low']:+.4f}, {pair['high']:+.4f}]",
            p_text(pair["p"]),
            p_text(pair["p_holm"]) + (" *" if pair["p_holm"] < LEVEL else ""),
            f"{pair['users']:,}",
        )
        for pair in board["pairs"]
    ]
    return Table(
        f"Differences in {board['metric']}, user by user",
        ("pair", "difference", "95 % interval", "p", "p (Holm)", "users"),
        tuple(rows),
        "Sign-flip test on the users that both runs have, two-sided; Holm's correction"
        f" over these pairs; * below {LEVEL:g}. Intervals: paired bootstrap.",
    )


def _metrics(report: Mapping[str, Any]) -> Table:
    model, popularity = report["metrics"]["model"], report["metrics"]["popularity"]
    intervals = report["intervals"]
    rows = []
    for name, value in model.items():
        other = popularity[name]
        rows.append(
            (
                name,
                f"{value:.4f}",
                interval_text(intervals["model"].get(name)),
                f"{other:.4f}",
                interval_text(intervals["popularity"].get(name)),
                ratio_text(name, value, other),
            )
        )
    header = ("metric", "model", "95 % interval", "popularity", "95 % interval")
    return Table("Lists", (*header, "ratio"), tuple(rows))


def _pair_metrics(report: Mapping[str, Any]) -> Table:
    return Table("Pairs", ("metric", "value"), _values(report["pairs"]))


def _heads(report: Mapping[str, Any]) -> Table:
    rows = tuple(
        (f"{head}: {name}", text)
        for head, values in report.get("heads", {}).items()
        for name, text in _values(values)
    )
    return Table("Heads", ("metric", "value"), rows)


def _values(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, f"{value:.4f}" if isinstance(value, float) else f"{value:,}")
        for name, value in values.items()
    )


def _slices(report: Mapping[str, Any]) -> Table:
    found = report["slices"]
    names = list(found[0]["metrics"]["model"]) if found else []
    main = next((n for n in names if bare_name(n) == "ndcg"), names[0] if names else "")
    rows = []
    for group in found:
        cells = [
            text
            for who in ("model", "popularity")
            for text in (
                f"{group['metrics'][who][main]:.4f}",
                interval_text(group["intervals"][who][main]),
            )
        ]
        name = group_text(group)
        few = " (few)" if group["small"] else ""
        rows.append((name, f"{group['users']:,}{few}", *cells))
    header = ("group", "users", "model", "95 % interval", "popularity", "95 % interval")
    return Table(f"{main} by slice", header, tuple(rows))


def _is_short(name: str, end: str) -> bool:
    """Whether it is a metric of hits at this k, or one without k."""
    return "@" not in name or (name.endswith(end) and bare_name(name) in HIT_METRICS)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"

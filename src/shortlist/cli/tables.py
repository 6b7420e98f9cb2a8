"""Results as plain text for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shortlist.cli.printable import printable


def items_table(items: Iterable[Any]) -> str:
    """Ranked items, one line each."""
    lines = [
        f"{place:>3}. {_item(item)}  {item.score:.4f}"
        for place, item in enumerate(items, start=1)
    ]
    return "\n".join(lines) or "no items left to recommend"


def _item(item: Any) -> str:
    """The title with the id, or only the id."""
    item_id = printable(str(item.item_id))
    return f"{printable(str(item.title))}  [{item_id}]" if item.title else item_id


def verdict_lines(verdict: Mapping[str, Any] | None) -> list[str]:
    """The verdict and the next step, between empty lines."""
    if verdict is None:
        text = "No verdict: no metric with a better end was measured for each user."
        return [text, "Leave `metrics` in [evaluation] empty, or add ndcg to it.", ""]
    return [verdict["text"], verdict["next"], ""]


def metrics_table(report: dict[str, Any]) -> str:
    """Model beside popularity with 95 % intervals and the ratio."""
    from shortlist.evaluation.pages.tables import ratio_text

    metrics = report["metrics"]
    rows = [("metric", "model", "popularity", "ratio")]
    for name, value in metrics["model"].items():
        other = metrics["popularity"][name]
        model_cell = _cell(value, report["intervals"]["model"].get(name))
        other_cell = _cell(other, report["intervals"]["popularity"].get(name))
        rows.append((name, model_cell, other_cell, ratio_text(name, value, other)))
    for name, value in report["pairs"].items():
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        rows.append((name, shown, "", ""))
    seen = "kept" if report.get("repeats") else "removed"
    return "\n".join(
        [
            f"test part, {report['users']:,} users, full catalogue, seen items {seen};"
            " 95 % bootstrap intervals",
            *_columns(rows, (22, 26, 26, 8)),
            *_about(report),
            *_meanings([*metrics["model"], *report["pairs"]]),
            *_slices(report),
        ]
    )


def _columns(
    rows: Sequence[tuple[str, ...]], least: Sequence[int], gap: int = 2
) -> list[str]:
    """Lines of cells with minimum widths; the first cell is left-aligned."""
    longest = [max(map(len, cells)) + gap for cells in zip(*rows, strict=True)]
    first, *widths = map(max, longest, least)
    return [
        f"{name:<{first}}"
        + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True)).rstrip()
        for name, *cells in rows
    ]


def _about(report: dict[str, Any]) -> list[str]:
    """Users left out, units of the metrics, and the weight of the ranker."""
    from shortlist.evaluation.pages.tables import weight_text

    unknown = report["unknown_users"]
    lines = [
        f"not evaluated: {report['users_excluded']:,} users without new items in the"
        f" test part, {unknown['users']:,} unknown users ({unknown['events']:,} events)"
    ]
    for metric, basis in report["measured_in"].items():
        lines.append(f"{metric} is measured in: {basis}")
    if "ranker_weight" in report:
        weight = weight_text(report["ranker_weight"])
        lines.append(f"weight of the ranker: {weight}")
    return [*lines, *report["notes"]]


def _meanings(names: Iterable[str]) -> list[str]:
    """A line on each metric."""
    from shortlist.evaluation.metrics.table import meanings_of

    rows = [(f"  {name}", meaning) for name, meaning in meanings_of(names)]
    width = max((len(name) for name, _ in rows), default=0) + 2
    return ["", "what they mean:", *(f"{n:<{width}}{text}" for n, text in rows)]


def _slices(report: dict[str, Any]) -> list[str]:
    """One line per group: users, nDCG of the model and of popularity."""
    from shortlist.evaluation.pages.tables import group_text

    rows: list[tuple[str, ...]] = []
    for found in report["slices"]:
        metrics = found["metrics"]["model"]
        metric = next(
            (n for n in metrics if n.startswith("ndcg@")), next(iter(metrics))
        )
        if not rows:
            rows.append((f"{metric} by slice", "users", "model", "popularity", ""))
        cells = (
            _cell(found["metrics"][m][metric], found["intervals"][m][metric])
            for m in ("model", "popularity")
        )
        small = "  few users" if found["small"] else ""
        rows.append(
            (printable(group_text(found)), f"{found['users']:,}", *cells, small)
        )
    return ["", *_columns(rows, (40, 9, 26, 26, 0))] if rows else []


def _cell(value: float, interval: list[float] | None) -> str:
    if interval is None:
        return f"{value:.4f}"
    return f"{value:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"

"""Results as plain text for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def items_table(items: Iterable[Any]) -> str:
    """Ranked items, one line each."""
    lines = [
        f"{place:>3}. {item.title or item.item_id}  [{item.item_id}]  {item.score:.4f}"
        for place, item in enumerate(items, start=1)
    ]
    return "\n".join(lines) or "no items left to recommend"


def metrics_table(report: dict[str, Any]) -> str:
    """Model beside popularity with 95 % intervals and the ratio."""
    metrics = report["metrics"]
    lines = [
        f"test part, {report['users']:,} users, full catalogue, seen items removed;"
        " 95 % bootstrap intervals",
        f"{'metric':<22}{'model':>26}{'popularity':>26}{'ratio':>8}",
    ]
    for name, value in metrics["model"].items():
        other = metrics["popularity"][name]
        ratio = f"{value / other:.2f}" if other else "-"
        model_cell = _cell(value, report["intervals"]["model"].get(name))
        other_cell = _cell(other, report["intervals"]["popularity"].get(name))
        lines.append(f"{name:<22}{model_cell:>26}{other_cell:>26}{ratio:>8}")
    for name, value in report["pairs"].items():
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        lines.append(f"{name:<22}{shown:>26}")
    lines += [*_about(report), *_slices(report)]
    return "\n".join(lines)


def _about(report: dict[str, Any]) -> list[str]:
    """Who was left out, what was measured in what, and the ranker's weight."""
    unknown = report["unknown_users"]
    lines = [
        f"not evaluated: {report['users_excluded']:,} users with nothing new to find,"
        f" {unknown['users']:,} unknown users ({unknown['events']:,} events)"
    ]
    for metric, basis in report["measured_in"].items():
        lines.append(f"{metric} is measured in: {basis}")
    if "ranker_weight" in report:
        weight = report["ranker_weight"]
        alone = "" if weight else ": the order is that of retrieval alone"
        lines.append(f"weight of the ranker {weight:g}{alone}")
    return [*lines, *report["notes"]]


def _slices(report: dict[str, Any]) -> list[str]:
    """One line per group: users, nDCG of the model and of popularity."""
    lines: list[str] = []
    for found in report["slices"]:
        metrics = found["metrics"]["model"]
        metric = next(
            (n for n in metrics if n.startswith("ndcg@")), next(iter(metrics))
        )
        if not lines:
            lines = ["", f"{metric + ' by slice':<40}{'users':>9}{'model':>26}"]
            lines[-1] += f"{'popularity':>26}"
        cells = "".join(
            f"{_cell(found['metrics'][m][metric], found['intervals'][m][metric]):>26}"
            for m in ("model", "popularity")
        )
        name = f"{found['slice']}: {found['group']}"
        small = "  few users" if found["small"] else ""
        lines.append(f"{name:<40}{found['users']:>9,}{cells}{small}")
    return lines


def _cell(value: float, interval: list[float] | None) -> str:
    if interval is None:
        return f"{value:.4f}"
    return f"{value:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"

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
        f"{'metric':<14}{'model':>26}{'popularity':>26}{'ratio':>8}",
    ]
    for name, value in metrics["model"].items():
        other = metrics["popularity"][name]
        ratio = f"{value / other:.2f}" if other else "-"
        model_cell = _cell(value, report["intervals"]["model"].get(name))
        other_cell = _cell(other, report["intervals"]["popularity"].get(name))
        lines.append(f"{name:<14}{model_cell:>26}{other_cell:>26}{ratio:>8}")
    for name, value in report["pairs"].items():
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        lines.append(f"{name:<14}{shown:>26}")
    return "\n".join(lines)


def _cell(value: float, interval: list[float] | None) -> str:
    if interval is None:
        return f"{value:.4f}"
    return f"{value:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"

"""The plots of evaluations and leaderboards, as PNG.

Needs matplotlib (extra `plots`) and none of its global state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from shortlist.drawing import (
    BLUE,
    INK,
    ORANGE,
    SERIES,
    canvas,
    finish,
    png_of,
    short_number,
)
from shortlist.evaluation.metrics.table import (
    HIT_METRICS,
    MAIN_K,
    MAIN_METRIC,
    bare_name,
)
from shortlist.evaluation.pages.tables import group_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WHO = {"model": BLUE, "popularity": ORANGE}
_LONGEST_NAME = 40
_MOST_GROUPS = 30
_WIDTH = 4.4  # inches: on a phone the letters stay about as large as on paper
_COLUMNS = 2


@dataclass(frozen=True)
class Plot:
    """One plot.

    Args:
        name: unique within its report, kebab-case.
        title: above the plot.
        alt: what it shows, in a sentence.
        png: the image.
    """

    name: str
    title: str
    alt: str
    png: bytes


_Drawing = tuple[str, str, str, tuple[float, float], Callable[["Figure"], None]]
_Points = list[tuple[str, float, Sequence[float] | None]]
"""Name, value and interval, from top to bottom."""


def evaluation_plots(report: Mapping[str, Any]) -> list[Plot]:
    """Draws what `evaluate_pipeline` returned.

    Raises:
        ResourceError: matplotlib is not installed (`package-missing`).
    """
    return [_drawn(drawing) for drawing in _of_evaluation(report)]


def leaderboard_plots(board: Mapping[str, Any]) -> list[Plot]:
    """Draws what `rank_runs` returned; errors as `evaluation_plots`."""
    return [_drawn(drawing) for drawing in _of_leaderboard(board)]


def fold_plots(summary: Mapping[str, Any]) -> list[Plot]:
    """Draws what `summarize_folds` returned; errors as `evaluation_plots`."""
    return [_drawn(drawing) for drawing in _of_folds(summary)]


def _drawn(drawing: _Drawing) -> Plot:
    name, title, alt, size, draw = drawing
    with canvas(name, size) as figure:
        draw(figure)
        return Plot(name, title, alt, png_of(figure))


def _of_evaluation(report: Mapping[str, Any]) -> Iterator[_Drawing]:
    metrics, intervals = report["metrics"], report["intervals"]
    names = list(dict.fromkeys(map(bare_name, metrics["model"])))
    hits = [name for name in names if name in HIT_METRICS]
    beyond = [name for name in names if name not in HIT_METRICS]
    for name, title, chosen, alt in (
        ("metrics", "What is found, by length of the list", hits, "Metrics of hits"),
        ("beyond", "What the lists are like", beyond, "Metrics beyond hits"),
    ):
        if chosen:
            told = f"{alt} by k, of the model and of popularity."
            rows = -(-len(chosen) // _COLUMNS)
            yield (
                name,
                title,
                told,
                (_WIDTH, 0.4 + 1.7 * rows),
                partial(
                    _by_k,
                    names=chosen,
                    ks=report["ks"],
                    metrics=metrics,
                    intervals=intervals,
                ),
            )
    if report["slices"]:
        main = _slice_metric(report["slices"])
        series = {who: _groups(report["slices"], who, main) for who in _WHO}
        label = main + _not_drawn(groups=len(report["slices"]) - _MOST_GROUPS)
        yield (
            "slices",
            f"{main} by slice",
            f"{main} of the model and of popularity by group, with 95 % intervals.",
            (_WIDTH, 1.0 + 0.44 * len(series["model"])),
            lambda figure: _dots(figure, series, list(_WHO.values()), label),
        )
    yield (
        "popularity",
        "Who gets the recommendations",
        "Share of the events, and of the recommendations, that the least popular items"
        " get together.",
        (_WIDTH, 3.2),
        lambda figure: _lorenz(figure, report["lorenz"]),
    )
    if report["reliability"]:
        yield (
            "calibration",
            "Calibration of the ranker",
            "Share of positives among pairs by predicted probability; on the diagonal"
            " they are equal.",
            (_WIDTH, 3.2),
            lambda figure: _calibration(figure, report["reliability"]),
        )


def _of_leaderboard(board: Mapping[str, Any]) -> Iterator[_Drawing]:
    metric, runs = board["metric"], board["runs"]
    values: _Points = [
        (run["run"], run["metrics"][metric], run["interval"]) for run in runs
    ]
    beside = board["popularity"].get(metric)
    yield (
        "runs",
        f"{metric} of each run",
        f"{metric} of each run with its 95 % interval; the line is popularity.",
        (_WIDTH, 0.8 + 0.38 * len(values)),
        lambda figure: _dots(figure, {"": values}, [BLUE], metric, line=beside),
    )
    differences: _Points = [
        (
            f"{_cut(pair['first'], 17)} - {_cut(pair['second'], 17)}",
            pair["difference"],
            (pair["low"], pair["high"]),
        )
        for pair in board["pairs"]
    ]
    yield (
        "differences",
        f"Differences in {metric}",
        f"Difference in {metric} of each pair with its 95 % interval; those that reach"
        " the line may be chance.",
        (_WIDTH, 0.8 + 0.38 * len(differences)),
        lambda figure: _dots(figure, {"": differences}, [BLUE], "difference", line=0.0),
    )
    shown = runs[: len(SERIES)]
    slices = {run["run"]: board["slices"][run["run"]] for run in shown}
    if main := _slice_metric(*slices.values()):
        series = {name: _groups(found, "model", main) for name, found in slices.items()}
        rows = len({name for points in series.values() for name, _, _ in points})
        every = {group_text(each) for found in slices.values() for each in found}
        label = main + _not_drawn(runs=len(runs) - len(shown), groups=len(every) - rows)
        yield (
            "slices",
            f"{main} by slice",
            f"{main} of each run in each group, with 95 % intervals.",
            (_WIDTH, 0.8 + 0.2 * len(series) + (0.24 + 0.11 * len(series)) * rows),
            lambda figure: _dots(figure, series, list(SERIES), label),
        )


def _of_folds(summary: Mapping[str, Any]) -> Iterator[_Drawing]:
    metrics = list(summary["metrics"])
    named = list(dict.fromkeys(map(bare_name, metrics)))
    main = MAIN_METRIC if MAIN_METRIC in named else next(iter(named), "")
    # One k is enough to see whether folds differ: that of a leaderboard.
    ks = [name for name in metrics if bare_name(name) == main]
    metric = f"{main}@{MAIN_K}" if f"{main}@{MAIN_K}" in ks else ks[-1] if ks else ""
    if metric:
        yield (
            "folds",
            f"{metric} by fold",
            f"{metric} of the model and of popularity in each fold; the lines are the"
            " means.",
            (_WIDTH, 2.8),
            lambda figure: _by_fold(figure, summary, metric),
        )


def _slice_metric(*runs: Sequence[Mapping[str, Any]]) -> str:
    """The main metric, or another that all runs have by slice; empty without one."""
    held = [list(run[0]["metrics"]["model"]) if run else [] for run in runs]
    names = [name for name in held[0] if all(name in other for other in held)]
    names.sort(key=lambda name: bare_name(name) != MAIN_METRIC)
    return names[0] if names else ""


def _groups(slices: Sequence[Mapping[str, Any]], who: str, metric: str) -> _Points:
    return [
        (
            group_text(found),
            found["metrics"][who][metric],
            found["intervals"][who][metric],
        )
        for found in slices[:_MOST_GROUPS]
    ]


def _not_drawn(**counts: int) -> str:
    """Tells in the figure what of `runs` and `groups` there was no room for."""
    more = [f"{count} more {what}" for what, count in counts.items() if count > 0]
    return f" ({' and '.join(more)} are not drawn)" if more else ""


def _by_k(
    figure: Figure,
    names: Sequence[str],
    ks: Sequence[int],
    metrics: Mapping[str, Mapping[str, float]],
    intervals: Mapping[str, Mapping[str, Sequence[float]]],
) -> None:
    rows = -(-len(names) // _COLUMNS)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axes, name in zip(grid, names, strict=False):
        for who, colour in _WHO.items():
            known = [k for k in ks if f"{name}@{k}" in metrics[who]]
            values = [metrics[who][f"{name}@{k}"] for k in known]
            axes.plot(known, values, color=colour, marker="o", label=who)
            ends = [intervals[who].get(f"{name}@{k}") for k in known]
            if known and None not in ends:
                low, high = zip(*(end for end in ends if end), strict=True)
                axes.fill_between(known, low, high, color=colour, alpha=0.15)
        axes.set_title(name)
        axes.set_xticks(list(ks))
        _finish(axes)
    for axes in grid[len(names) :]:
        axes.remove()
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2)


def _by_fold(figure: Figure, summary: Mapping[str, Any], metric: str) -> None:
    axes = figure.add_subplot()
    folds = range(1, summary["folds"] + 1)
    for who, found in (("model", "metrics"), ("popularity", "popularity")):
        values = summary[found].get(metric)
        if values is None:
            continue
        axes.plot(folds, values["values"], "o-", color=_WHO[who], label=who)
        axes.axhline(values["mean"], color=_WHO[who], alpha=0.5, linestyle="--")
    axes.set(xticks=list(folds), xlabel="fold, oldest first", ylabel=metric)
    _finish(axes)
    figure.legend(loc="outside upper right", ncols=2)


def _dots(
    figure: Figure,
    series: Mapping[str, _Points],
    colours: Sequence[str],
    label: str,
    *,
    line: float | None = None,
) -> None:
    """Values as dots with their intervals, a row per name and a colour per series.

    Names are above their rows, as next to them they would take most of the width.
    """
    axes = figure.add_subplot()
    if line is not None:
        axes.axvline(line, color=INK, alpha=0.4, linestyle="--", linewidth=1)
    rows = list(dict.fromkeys(n for points in series.values() for n, _, _ in points))
    for place, (name, points) in enumerate(series.items()):
        shift = 0.5 * (place + 0.5) / len(series) - 0.1
        at = [rows.index(row) + shift for row, _, _ in points]
        values = [value for _, value, _ in points]
        # matplotlib leaves names that begin with _ out of a legend.
        shown = f" {_cut(name)}" if name.startswith("_") else _cut(name)
        axes.plot(values, at, "o", color=colours[place], markersize=4, label=shown)
        for y, (_, _, ends) in zip(at, points, strict=True):
            if ends is not None:
                axes.plot(ends, [y, y], color=colours[place], linewidth=1.5, alpha=0.6)
    for place, row in enumerate(rows):
        axes.text(
            *(0.0, place - 0.3, _cut(row)),
            transform=axes.get_yaxis_transform(),
            verticalalignment="center",
        )
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(rows) - 0.5, -0.6)
    axes.set_xlabel(label)
    finish(axes, across=True)
    if len(series) > 1:
        is_short = max(map(len, series)) <= 20
        figure.legend(loc="outside upper right", ncols=2 if is_short else 1)


def _lorenz(figure: Figure, lorenz: Mapping[str, Sequence[float]]) -> None:
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.4, linestyle="--", linewidth=1)
    for (name, shares), colour in zip(
        lorenz.items(), ("#7d7d7d", *_WHO.values()), strict=False
    ):
        steps = [place / (len(shares) - 1) for place in range(len(shares))]
        label = "events" if name == "events" else f"lists of {name}"
        label = "lists of the model" if name == "model" else label
        axes.plot(steps, shares, color=colour, linewidth=2, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="items, least popular first")
    _percent(axes)
    axes.legend(loc="upper left")


def _calibration(figure: Figure, bins: Sequence[Mapping[str, float]]) -> None:
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.4, linestyle="--", linewidth=1)
    predicted = [each["predicted"] for each in bins]
    observed = [each["observed"] for each in bins]
    most = max(each["count"] for each in bins)
    sizes = [10 + 90 * each["count"] / most for each in bins]
    axes.plot(predicted, observed, color=BLUE, linewidth=1.5)
    axes.scatter(predicted, observed, s=sizes, color=BLUE)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted", ylabel="observed")
    _percent(axes)


def _percent(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda share, _: f"{share:.0%}")
    finish(axes)


def _finish(axes: Axes) -> None:
    finish(axes)
    axes.yaxis.set_major_formatter(lambda value, _: short_number(value))


def _cut(name: str, longest: int = _LONGEST_NAME) -> str:
    """The end of a long name: of folders the part that tells them apart."""
    return name if len(name) <= longest else f"…{name[1 - longest :]}"

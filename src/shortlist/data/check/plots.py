"""The plots of the data report, as SVG in the text colour of the page.

No text of a log is drawn, only numbers.
"""

from __future__ import annotations

import datetime as dt
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shortlist.data.check.report import Activity, Bar, Drift, LogReport
from shortlist.data.split import PARTS
from shortlist.drawing import BLUE, GREEN, INK, ORANGE, canvas, finish, short_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS: dict[str, str] = dict(zip(PARTS, (BLUE, GREEN, ORANGE), strict=True))
_WIDE, _NARROW = (9.0, 2.6), (4.4, 2.8)


@dataclass(frozen=True)
class Plot:
    """One plot of the page.

    Args:
        name: unique within the page, kebab-case.
        title: above the plot.
        alt: what it shows, in a sentence.
        svg: an `<svg>` element.
    """

    name: str
    title: str
    alt: str
    svg: str


def plots_of(report: LogReport) -> list[Plot]:
    """Draws a report.

    Raises:
        ResourceError: matplotlib is not installed (`package-missing`).
    """
    plots = []
    for name, title, alt, size, draw in _drawings(report):
        with canvas(name, size) as figure:
            draw(figure)
            plots.append(Plot(name, title, alt, _svg(figure, name, alt)))
    return plots


_Drawing = tuple[str, str, str, tuple[float, float], Callable[["Figure"], None]]


def _drawings(report: LogReport) -> Iterator[_Drawing]:
    activity, time, top = report.activity, report.time, report.popularity
    if activity is not None and time is not None:
        alt = f"Events per {_unit(activity)} by part, from {time.first} to {time.last}."
        yield (
            "activity",
            f"Events per {_unit(activity)}",
            alt,
            _WIDE,
            lambda figure: _activity(figure, activity),
        )
    alt = (
        f"The most popular 1 % of the items have {top.top_1_percent:.1%} of the events,"
        f" 10 % have {top.top_10_percent:.1%}."
    )
    yield (
        "popularity",
        "Share of the events by share of the items",
        alt,
        _NARROW,
        lambda figure: _popularity(figure, report),
    )
    for kind, spread in (
        ("user", report.events_per_user),
        ("item", report.events_per_item),
    ):
        middle = spread.quantiles["p50"]
        alt = f"Number of {kind}s by their number of events; the median has {middle:,}."
        title = f"{kind.capitalize()}s by number of events"
        bars = spread.histogram
        yield (f"per-{kind}", title, alt, _NARROW, _histogram_drawing(bars))
    if report.labels is not None:
        alt = f"Events by label; the mean is {report.labels.mean:.3g}."
        bars = report.labels.histogram
        yield ("labels", "Events by label", alt, _NARROW, _histogram_drawing(bars))
    for drift in report.drift:
        quantity = drift.quantity.replace("_", " ")
        alt = f"Share of the {drift.part} events in each bin; PSI {drift.psi:.2f}."
        title = (
            f"{quantity.capitalize()} of the {drift.part} part (PSI {drift.psi:.2f})"
        )
        name = f"drift-{drift.part}-{quantity.replace(' ', '-')}"
        yield (name, title, alt, _NARROW, _drift_drawing(drift))


def _unit(activity: Activity) -> str:
    days = activity.days_per_point
    return "day" if days == 1 else f"{days:,} days"


def _histogram_drawing(bars: tuple[Bar, ...]) -> Callable[[Figure], None]:
    return lambda figure: _histogram(figure, bars)


def _drift_drawing(drift: Drift) -> Callable[[Figure], None]:
    return lambda figure: _drift(figure, drift)


def _activity(figure: Figure, activity: Activity) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    axes = figure.add_subplot()
    begin = dt.datetime.fromtimestamp(0, dt.UTC)
    begin += dt.timedelta(milliseconds=activity.start_ms)
    width = dt.timedelta(days=activity.days_per_point)
    length = len(activity.events[PARTS[0]])
    starts: list[Any] = [begin + width * place for place in range(length)]
    floor = [0] * length
    for part, counts in activity.events.items():
        if not any(counts):
            continue
        axes.bar(
            starts,
            counts,
            width=activity.days_per_point,
            bottom=floor,
            align="edge",
            color=_COLOURS[part],
            label=part,
        )
        floor = [low + count for low, count in zip(floor, counts, strict=True)]
    locator = AutoDateLocator(minticks=1, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)
    _finish(axes)
    figure.legend(loc="outside upper right", ncols=len(PARTS))


def _popularity(figure: Figure, report: LogReport) -> None:
    axes = figure.add_subplot()
    points = report.popularity.curve
    items = [0.0, *(point.items for point in points)]
    events = [0.0, *(point.events for point in points)]
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.4, linestyle="--", linewidth=1)
    axes.plot(items, events, color=BLUE, linewidth=2)
    axes.fill_between(items, events, color=BLUE, alpha=0.15)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="items, most popular first")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda share, _: f"{share:.0%}")
    _finish(axes, formatted=True)


def _histogram(figure: Figure, bars: tuple[Bar, ...]) -> None:
    axes = figure.add_subplot()
    places = range(len(bars))
    axes.bar(places, [bar.count for bar in bars], color=BLUE, width=0.85)
    step = -(-len(bars) // 8)
    axes.set_xticks(places[::step], [_bar_name(bar) for bar in bars[::step]])
    _finish(axes)


def _bar_name(bar: Bar) -> str:
    return f"{short_number(bar.low)}+" if bar.high > bar.low else short_number(bar.low)


def _drift(figure: Figure, drift: Drift) -> None:
    axes = figure.add_subplot()
    used = [
        place
        for place, shares in enumerate(zip(drift.before, drift.share, strict=True))
        if any(shares) or drift.quantity != "label"
    ]
    places = range(len(used))
    for shift, shares, colour, label in (
        (-0.2, drift.before, BLUE, "before"),
        (0.2, drift.share, _COLOURS[drift.part], drift.part),
    ):
        heights = [shares[place] for place in used]
        at = [place + shift for place in places]
        axes.bar(at, heights, width=0.4, color=colour, label=label)
    step = -(-len(used) // 12)
    names = [drift.bins[place].removeprefix("from ") for place in used]
    axes.set_xticks(places[::step], names[::step])
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    _finish(axes, formatted=True)
    figure.legend(loc="outside upper right", ncols=2)


def _finish(axes: Axes, *, formatted: bool = False) -> None:
    finish(axes)
    if not formatted:
        axes.yaxis.set_major_formatter(lambda count, _: short_number(count))


def _svg(figure: Figure, name: str, alt: str) -> str:
    """The figure as an element of a page: its own ids, the text colour of the page."""
    stream = io.StringIO()
    empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", metadata=empty)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{name}-", text)
    label = f'<svg role="img" aria-labelledby="{name}-title"'
    title = f'<title id="{name}-title">{alt}</title>'
    text = text.replace("<svg", label, 1).replace(">", f">{title}", 1)
    return text.replace(INK, "currentColor")

"""Time of preparation as a log grows to 100 million events by one law."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping

from data_claims.logs import EVENTS, log
from data_claims.prepare import runner
from data_claims.workers import BUILD
from harness import Claim, reported

SIZES = (1_000_000, 3_000_000, 10_000_000, EVENTS, 100_000_000)
QUICK_SIZES = (100_000, 300_000, 1_000_000)
KEPT = EVENTS  # a longer log is removed after use: it has gigabytes
PLOT = BUILD / "bench" / "prepare_linear.svg"


def claim(quick: bool) -> Iterator[Claim]:
    """Seconds per million events of each size, and a plot of them."""
    sizes = QUICK_SIZES if quick else SIZES
    seconds, peaks = {}, {}
    for events in sizes:
        path = log(events)
        run = runner("Ours", path)
        runs = [run() for _ in range(1 if quick or events > KEPT else 3)]
        if events > KEPT:
            path.unlink()
        median = statistics.median(each["seconds"] for each in runs)
        seconds[events] = median / events * 1e6
        peaks[events] = max(each["peak_gb"] for each in runs)
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    PLOT.write_text(_svg(seconds))
    least = seconds[sizes[0]]
    worst = max(sizes[1:], key=lambda events: seconds[events])
    each = ", ".join(
        f"{events / 1e6:.3g}M: {seconds[events]:.3f} s, {peaks[events]:.2f} GB"
        for events in sizes
    )
    yield reported(
        "linear",
        f"time of prepare per event, {worst:,} events (the worst) over"
        f" {sizes[0]:,}; seconds per million events and peak memory: {each}",
        ours=seconds[worst] / least,
        unit="times",
    )


def _svg(seconds: Mapping[int, float]) -> str:
    """Seconds per million events over events, the latter on a logarithmic axis."""
    left, top, width, height = 60, 40, 480, 200
    low, high = min(seconds), max(seconds)
    most = 1.25 * max(seconds.values())
    points = [
        (
            left + math.log(events / low) / math.log(high / low) * width,
            top + (1 - value / most) * height,
            f"{events / 1e6:.3g}M",
            f"{value:.2f}",
        )
        for events, value in seconds.items()
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in points)
    bottom = top + height
    shapes = [
        f'<rect width="{left + width + 40}" height="{bottom + 50}" fill="#fff"/>',
        f'<path d="M{left},{top}V{bottom}H{left + width}" fill="none" stroke="#888"/>',
        f'<polyline points="{line}" fill="none" stroke="#1f5fa8" stroke-width="2"/>',
        _text(left, top - 16, "shortlist prepare: seconds per million events", "start"),
        _text(left - 8, bottom, "0", "end"),
        _text(left + width / 2, bottom + 40, "events", "middle"),
    ]
    for x, y, events, value in points:
        shapes += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#1f5fa8"/>',
            _text(x, y - 10, value, "middle"),
            _text(x, bottom + 18, events, "middle"),
        ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 40}'
        f' {bottom + 50}" font-family="sans-serif" font-size="13">\n'
        + "\n".join(shapes)
        + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'

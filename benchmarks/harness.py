"""What the benchmark scripts share: interleaved timing, claims, `--json`, `--quick`.

A script measures its rival and ours in one run, in turns, asserts equal results first
and reports medians. Machines are shared and noisy: ratios travel, seconds do not.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import shortlist
from shortlist import native

Better = Literal["higher", "lower"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """One figure, beside its rival or limit.

    Args:
        id: stable name of the claim.
        name: what was measured, in words.
        ours: our figure.
        rival: the rival's figure, or `None` without one.
        unit: unit of both.
        ratio: how many times better than the rival; higher is better.
        reach: what is asked for: a ratio with a rival, else a limit on `ours`;
            `None` where the figure is only reported.
        met: whether it was reached; `None` when it was not measured.
        values: the figures whose mean `ours` is, one for each seed.
    """

    id: str
    name: str
    ours: float | None
    rival: float | None
    unit: str
    ratio: float | None
    reach: float | None
    met: bool | None
    values: tuple[float, ...] = ()


def against_rival(
    id: str,
    name: str,
    *,
    ours: float,
    rival: float,
    unit: str,
    better: Better,
    reach: float | None = None,
) -> Claim:
    """A claim of being `reach` times better than a rival measured in the same run."""
    ratio = ours / rival if better == "higher" else rival / ours
    met = reach is None or ratio >= reach
    return Claim(
        id=id,
        name=name,
        ours=ours,
        rival=rival,
        unit=unit,
        ratio=ratio,
        reach=reach,
        met=met,
    )


def within_limit(id: str, name: str, *, ours: float, unit: str, limit: float) -> Claim:
    """A claim of staying at or below a limit."""
    return Claim(
        id=id,
        name=name,
        ours=ours,
        rival=None,
        unit=unit,
        ratio=None,
        reach=limit,
        met=ours <= limit,
    )


def reported(
    id: str, name: str, *, ours: float, unit: str, values: tuple[float, ...] = ()
) -> Claim:
    """A figure without a rival and of which nothing is asked."""
    return Claim(
        id=id,
        name=name,
        ours=ours,
        rival=None,
        unit=unit,
        ratio=None,
        reach=None,
        met=True,
        values=values,
    )


def interleaved(
    functions: dict[str, Callable[[], object]], *, repeats: int
) -> dict[str, float]:
    """Median seconds of each function, called in turns after one warm-up each.

    The order is reversed every other round, so that neither side always goes first.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for round_number in range(repeats):
        names = list(functions)
        for name in names if round_number % 2 == 0 else reversed(names):
            began = time.perf_counter()
            functions[name]()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def machine() -> dict[str, Any]:
    """The machine and the versions a figure belongs to."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {
        "cpu": model,
        "processors": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "shortlist": shortlist.__version__,
        "native": native.instruction_sets(),
        "date": time.strftime("%Y-%m-%d"),
    }


def main(
    parts: Mapping[str, Callable[[bool], Iterable[Claim]]],
    protocol: Callable[[], Mapping[str, Any]] = dict,
) -> None:
    """Runs the parts of a benchmark script, each called with whether to be quick.

    `--json FILE` writes the claims, `--quick` is coarse, `--only PART` runs some parts.
    Exits with 1 if a claim with a reach was not met.

    Args:
        parts: by name, what yields claims.
        protocol: what `--json` says of how they are measured.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the claims")
    parser.add_argument(
        "--quick", action="store_true", help="fewer repeats: a smoke test, no figure"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(parts),
        default=list(parts),
        metavar="PART",
        help=f"run these parts: {', '.join(parts)}",
    )
    arguments = parser.parse_args()
    claims = []
    for part in arguments.only:
        for claim in parts[part](arguments.quick):
            claims.append(claim)
            print(_line(claim), flush=True)
    if arguments.json is not None:
        report = {
            "machine": machine(),
            "quick": arguments.quick,
            "protocol": dict(protocol()),
            "claims": [dataclasses.asdict(claim) for claim in claims],
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    if any(claim.met is False for claim in claims):
        sys.exit(1)


def _line(claim: Claim) -> str:
    def show(value: float | None) -> str:
        return "-" if value is None else f"{value:.4g}"

    verdict = {True: "met", False: "NOT MET", None: "not measured"}[claim.met]
    return (
        f"{claim.id:<16} ours {show(claim.ours):>9} {claim.unit:<8} rival"
        f" {show(claim.rival):>9}  ratio {show(claim.ratio):>7}  reach"
        f" {show(claim.reach):>6}  {verdict}  ({claim.name})"
    )

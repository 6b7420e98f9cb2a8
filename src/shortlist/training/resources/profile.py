"""Where the time of training steps goes, as shares and as a trace.

A step lasts from the end of the previous step, or the start of its epoch, until its
loss is available. Of that time

- `lookup` reads host tables,
- `update` stores gradients for host tables and applies them,
- `data` waits for or makes a batch, before the first lookup of the step,
- `dense` is the rest: forward and backward pass, the optimizer of the dense weights,
  Keras, and tables on a device.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras

from shortlist.atomic import atomic_file
from shortlist.embeddings.host.host_tables import no_span
from shortlist.embeddings.storage.saving import table_layers
from shortlist.training.batches.keras_batches import Batches

TRACE_FILE = "trace.json"
SHARES = ("data", "lookup", "dense", "update")
MOST_STEPS = 1000
"""Steps per model in the trace; the shares are over all steps."""


class Span(NamedTuple):
    """A named time span, in nanoseconds of `time.perf_counter_ns`."""

    name: str
    begin: int
    end: int
    thread: int


class Profile:
    """Collects spans of all threads, their sums and a trace."""

    def __init__(self) -> None:
        self.sums: dict[str, dict[str, int]] = {}
        self._origin = time.perf_counter_ns()
        self._events: list[dict[str, Any]] = []
        self._threads: dict[int, str] = {}
        self._open: list[Span] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def watch(self, name: str) -> Iterator[None]:
        """Records the duration of the context."""
        begin = time.perf_counter_ns()
        try:
            yield
        finally:
            thread = threading.get_native_id()
            span = Span(name, begin, time.perf_counter_ns(), thread)
            with self._lock:
                self._threads.setdefault(thread, threading.current_thread().name)
                self._open.append(span)

    @contextlib.contextmanager
    def of_model(
        self, model: keras.Model, batches: Batches
    ) -> Iterator[list[keras.callbacks.Callback]]:
        """Profiles a model and its batches; yields the callbacks for its `fit`."""
        # Not built here: that would move the generator of PyTorch.
        batches.watch = self.watch
        for layer in table_layers(model):
            layer.set_span_hook(self.watch)
        try:
            yield [_Steps(self, model.name)]
        finally:
            batches.watch = no_span
            for layer in table_layers(model):
                layer.set_span_hook(None)

    def spans(self) -> list[Span]:
        """The spans since the last call."""
        with self._lock:
            taken, self._open = self._open, []
        return taken

    def add(self, span: Span, category: str, **arguments: Any) -> None:
        """Adds a span to the trace."""
        self._threads.setdefault(span.thread, threading.current_thread().name)
        self._events.append(
            {
                "name": span.name,
                "cat": category,
                "ph": "X",
                "ts": (span.begin - self._origin) / 1000,
                "dur": (span.end - span.begin) / 1000,
                "pid": os.getpid(),
                "tid": span.thread,
                "args": arguments,
            }
        )

    def count(self, stage: str, parts: dict[str, int]) -> int:
        """Adds a step, in nanoseconds, to the sums; returns its number, from 1.

        The first step is counted separately, as it compiles.
        """
        sums = self.sums.setdefault(stage, dict.fromkeys(("first", *SHARES), 0))
        number = sums["steps"] = sums.get("steps", 0) + 1
        if number == 1:
            sums["first"] = sum(parts.values())
        else:
            for name, duration in parts.items():
                sums[name] += duration
        return number

    def report(self) -> dict[str, dict[str, float]]:
        """For each model its steps, their mean time, the shares and the first step."""
        found = {}
        for stage, sums in self.sums.items():
            whole = sum(sums[name] for name in SHARES)
            steps = max(sums["steps"] - 1, 1)
            found[stage] = {
                "steps": sums["steps"],
                "first_step_ms": sums["first"] / 1e6,
                "step_ms": whole / steps / 1e6,
                **{name: sums[name] / whole if whole else 0.0 for name in SHARES},
            }
        return found

    def text(self) -> str:
        """The report as text, one line per model."""
        lines = []
        for stage, told in self.report().items():
            shares = ", ".join(f"{name} {told[name]:.1%}" for name in SHARES)
            lines.append(
                f"{stage}: {told['steps']:,} steps, the first"
                f" {told['first_step_ms']:,.1f} ms, then {told['step_ms']:.2f} ms each:"
                f" {shares}"
            )
        return "\n".join(lines) or "no model is trained by gradient steps"

    def write(self, folder: Path) -> None:
        """Writes `trace.json` in the Trace Event Format, which Perfetto opens."""
        pid = os.getpid()
        names = [
            {"name": "thread_name", "ph": "M", "pid": pid, "tid": thread}
            | {"args": {"name": name}}
            for thread, name in self._threads.items()
        ]
        trace = {"traceEvents": [*names, *self._events], "displayTimeUnit": "ms"}
        with atomic_file(folder / TRACE_FILE) as temporary:
            temporary.write_text(json.dumps(trace), encoding="utf-8")


class _Steps(keras.callbacks.Callback):  # type: ignore[misc]
    """Reports every step and epoch of a model to a profile; the last callback."""

    def __init__(self, profile: Profile, stage: str) -> None:
        super().__init__()
        self.profile = profile
        self.stage = stage
        self.epoch_began = self.began = self.entered = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the first step."""
        self.profile.spans()
        self.epoch_began = self.began = time.perf_counter_ns()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Keras has its batch, or requests it in the compiled step."""
        self.entered = time.perf_counter_ns()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Ends the step, once its loss is available."""
        float((logs or {}).get("loss", 0.0))
        step = Span("step", self.began, time.perf_counter_ns(), _thread())
        self.began = step.end
        spans = self.profile.spans()
        parts = parts_of(step, spans, entered=self.entered)
        number = self.profile.count(self.stage, parts)
        if number > MOST_STEPS:
            return
        microseconds = {name: duration / 1000 for name, duration in parts.items()}
        self.profile.add(step, self.stage, step=number, **microseconds)
        for span in spans:
            self.profile.add(span, self.stage)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Ends the epoch, after validation and checkpoint."""
        end = time.perf_counter_ns()
        span = Span(f"epoch {epoch + 1}", self.epoch_began, end, _thread())
        self.profile.add(span, self.stage)


def parts_of(step: Span, spans: Iterable[Span], *, entered: int) -> dict[str, int]:
    """The duration of each part of a step; they add up to the step.

    Args:
        step: the step.
        spans: named `data`, `lookup` or `update`, of all threads. Overlaps count once,
            for the first of `lookup`, `update` and `data`.
        entered: when Keras called the step: the end of `data` without a lookup.
    """
    of: dict[str, list[tuple[int, int]]] = {"lookup": [], "update": [], "data": []}
    for span in spans:
        begin, end = max(span.begin, step.begin), min(span.end, step.end)
        if begin < end:
            of[span.name].append((begin, end))
    until = min((begin for begin, _ in of["lookup"]), default=entered)
    of["data"] = [(b, min(e, until)) for b, e in of["data"] if b < until]
    parts, covered, counted = {}, [], 0
    for name, found in of.items():
        covered += found
        total = _length(covered)
        parts[name], counted = total - counted, total
    parts["dense"] = step.end - step.begin - counted
    return {name: parts[name] for name in SHARES}


def _length(intervals: Iterable[tuple[int, int]]) -> int:
    """Length of the union of intervals."""
    total, last = 0, None
    for begin, end in sorted(intervals):
        start = begin if last is None else max(begin, last)
        total += max(end - start, 0)
        last = end if last is None else max(last, end)
    return total


def _thread() -> int:
    return threading.get_native_id()

"""The trace of a training, its shares, and that looking changes nothing."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.data import Dataset
from shortlist.embeddings.storage.saving import table_layers
from shortlist.models.ranker import Ranker
from shortlist.models.two_tower import TwoTower
from shortlist.recipe import Recipe
from shortlist.training import Run
from shortlist.training.resources.profile import (
    SHARES,
    TRACE_FILE,
    Profile,
    Span,
    parts_of,
)
from shortlist.training.runs.checkpoint import load_model
from toy import CHECKERBOARD_SCHEMA, checkerboard, recipe, train_with

pytestmark = pytest.mark.backend

EPOCHS, BATCH = 3, 32


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.getbasetemp())


def chosen(**retrieval: Any) -> Recipe:
    small = {"embedding_dim": 4, "hidden_units": [5], "batch_size": BATCH}
    short = {"epochs": EPOCHS, "patience": EPOCHS, "dropout": 0.3}
    return recipe(
        CHECKERBOARD_SCHEMA,
        retrieval={**small, **short, **retrieval},
        ranker={**small, **short, "negatives": 2, "weights": [0]},
    )


def trained(dataset: Dataset, out: Path, **options: Any) -> Run:
    return train_with(dataset, out, options.pop("recipe", chosen()), **options)


@pytest.fixture(scope="module")
def profiled(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(dataset, tmp_path_factory.mktemp("profiled") / "run", profile=True)


def events_of(run: Run) -> list[dict[str, Any]]:
    trace = json.loads((run.path / TRACE_FILE).read_text())
    assert trace["displayTimeUnit"] == "ms"
    return list(trace["traceEvents"])


def steps_of(run: Run, stage: str) -> list[dict[str, Any]]:
    found = [e for e in events_of(run) if (e["name"], e.get("cat")) == ("step", stage)]
    return sorted(found, key=lambda event: event["ts"])


def test_the_trace_is_one_of_the_trace_event_format(profiled: Run) -> None:
    # https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
    events, named = events_of(profiled), set()
    for event in events:
        assert {"name", "ph", "pid", "tid", "args"} <= event.keys()
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int)
        assert event["ph"] in ("M", "X")
        if event["ph"] == "M":
            assert event["name"] == "thread_name" and event["args"]["name"]
            named.add(event["tid"])
        else:
            assert event["ts"] >= 0 and event["dur"] >= 0 and event["cat"]
    assert {event["tid"] for event in events} == named
    names = {event["name"] for event in events if event["ph"] == "X"}
    epochs = {f"epoch {number}" for number in range(1, EPOCHS + 1)}
    assert names == {"step", "data", "lookup", "update", *epochs}


def test_the_spans_of_a_thread_lie_within_each_other_or_apart(profiled: Run) -> None:
    of_thread = defaultdict(list)
    for event in events_of(profiled):
        if event["ph"] == "X":
            of_thread[event["tid"]].append(event)
    for events in of_thread.values():
        events.sort(key=lambda event: (event["ts"], -event["dur"]))
        around: list[float] = []
        for event in events:
            end = event["ts"] + event["dur"]
            while around and around[-1] <= event["ts"] + 1e-3:
                around.pop()
            assert not around or end <= around[-1] + 1e-3, event
            around.append(end)


@pytest.mark.parametrize("stage", ["retrieval", "ranker"])
def test_the_parts_of_every_step_are_together_the_step(
    profiled: Run, stage: str
) -> None:
    steps = steps_of(profiled, stage)
    per_epoch = 192 // BATCH  # 24 users with 8 events each
    assert len(steps) == EPOCHS * per_epoch
    for number, step in enumerate(steps, 1):
        assert step["args"]["step"] == number
        parts = [step["args"][name] for name in SHARES]
        assert min(parts) >= 0
        assert sum(parts) == pytest.approx(step["dur"], abs=0.01)
    told = profiled.info.profile[stage]
    assert told["steps"] == len(steps)
    assert sum(told[name] for name in SHARES) == pytest.approx(1)
    assert told["first_step_ms"] == pytest.approx(steps[0]["dur"] / 1000)
    later = [step["dur"] / 1000 for step in steps[1:]]
    assert told["step_ms"] == pytest.approx(np.mean(later))
    for name in SHARES:
        assert told[name] > 0, name


@pytest.mark.parametrize("stage", ["retrieval", "ranker"])
def test_tables_are_read_once_and_moved_once_in_a_step(
    profiled: Run, stage: str
) -> None:
    steps = steps_of(profiled, stage)
    spans = [e for e in events_of(profiled) if e.get("cat") == stage]
    for step in steps[1:]:
        begin, end = step["ts"], step["ts"] + step["dur"]
        within = [e for e in spans if begin <= e["ts"] and e["ts"] + e["dur"] <= end]
        lookups = [e["dur"] for e in within if e["name"] == "lookup"]
        assert len(lookups) == 1
        assert step["args"]["lookup"] == pytest.approx(sum(lookups), abs=0.01)
        # What the step before left is applied, and its own gradients are kept.
        updates = [e["dur"] for e in within if e["name"] == "update"]
        assert 1 <= len(updates) <= 2
        assert step["args"]["update"] == pytest.approx(sum(updates), abs=0.01)


def test_the_run_is_the_one_without_a_profile(
    dataset: Dataset, profiled: Run, tmp_path: Path
) -> None:
    plain = trained(dataset, tmp_path / "run")
    assert plain.info.profile == {} and not (plain.path / TRACE_FILE).exists()
    for name, kind in (("retrieval", TwoTower), ("ranker", Ranker)):
        left, right = (
            load_model(run.path / name, kind)  # type: ignore[type-var]
            for run in (profiled, plain)
        )
        for a, b in zip(left.get_weights()[1:], right.get_weights()[1:], strict=True):
            np.testing.assert_array_equal(a, b)
        tables = [
            table
            for model in (left, right)
            for layer in table_layers(model)
            for table in layer.get_embedding_tables().values()
        ]
        half = len(tables) // 2
        for a, b in zip(tables[:half], tables[half:], strict=True):
            np.testing.assert_array_equal(a, b)
    assert plain.info.validation == profiled.info.validation
    assert plain.info.epochs == profiled.info.epochs


def test_without_a_model_that_takes_steps_there_is_nothing_to_tell(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted = recipe(CHECKERBOARD_SCHEMA, retrieval={"kind": "ease"})
    run = trained(
        *(dataset, tmp_path / "run"), recipe=fitted, profile=True, quiet=False
    )
    assert run.info.profile == {} and events_of(run) == []
    assert "no model is trained by gradient steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], (0, 0, 100, 0)),
        # One after the other: waits, reads, computes, keeps.
        ([("data", 0, 10), ("lookup", 20, 25), ("update", 80, 90)], (10, 5, 75, 10)),
        # A batch made ahead while the step computes is not waited for.
        ([("data", 0, 10), ("lookup", 12, 20), ("data", 30, 70)], (10, 8, 82, 0)),
        # A batch that was begun in the step before, and one that overlaps the lookup.
        ([("data", -50, 10), ("data", 5, 30), ("lookup", 20, 30)], (20, 10, 70, 0)),
        # Two lookups at once, and an update that waits for one of them.
        (
            [("lookup", 10, 30), ("lookup", 20, 40), ("update", 35, 50)],
            (0, 30, 60, 10),
        ),
        # Nothing is looked up: batches are waited for until the step is entered.
        ([("data", 0, 15), ("data", 60, 70)], (15, 0, 85, 0)),
        # What is not of this step does not count.
        ([("lookup", -9, -1), ("update", 100, 110)], (0, 0, 100, 0)),
    ],
)
def test_every_moment_of_a_step_counts_once(
    spans: list[tuple[str, int, int]], expected: tuple[int, int, int, int]
) -> None:
    step = Span("step", 1000, 1100, 1)
    moved = [Span(name, 1000 + b, 1000 + e, 2) for name, b, e in spans]
    parts = parts_of(step, moved, entered=1050)
    assert tuple(parts[name] for name in SHARES) == expected
    assert sum(parts.values()) == 100


def test_the_first_step_is_told_apart() -> None:
    profile = Profile()
    for number, parts in enumerate([(1, 2, 900, 3), (10, 20, 60, 10), (0, 20, 60, 20)]):
        counted = profile.count("ranker", dict(zip(SHARES, parts, strict=True)))
        assert counted == number + 1
    told = profile.report()["ranker"]
    assert told == {
        **{"steps": 3, "first_step_ms": 906e-6, "step_ms": pytest.approx(100e-6)},
        **{"data": 0.05, "lookup": 0.2, "dense": 0.6, "update": 0.15},
    }
    assert "data 5.0%, lookup 20.0%, dense 60.0%, update 15.0%" in profile.text()

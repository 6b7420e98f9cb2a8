"""Batch sizes that are probed: the largest that works, and a run as if it was given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from shortlist.data import Dataset
from shortlist.errors import InputError, ResourceError
from shortlist.evaluation import ranking_metrics
from shortlist.models.ranker import Ranker
from shortlist.models.two_tower import TwoTower
from shortlist.recipe import Recipe
from shortlist.training import Run
from shortlist.training.resources.probe import (
    MemoryUse,
    forget_peak,
    largest_batch,
    memory_use,
)
from shortlist.training.runs.checkpoint import load_model
from toy import CHECKERBOARD_SCHEMA, checkerboard, recipe, train_with

pytestmark = pytest.mark.backend

MIB = 2**20


class Machine:
    """Steps that need a MiB a row beside 100, of a memory that ends somewhere."""

    def __init__(self, total: int, *, fails_above: int = 10**9) -> None:
        self.total = total
        self.fails_above = fails_above
        self.peak = 100
        self.tried: list[int] = []

    def step(self, size: int) -> None:
        self.tried.append(size)
        if size > self.fails_above:
            raise MemoryError
        self.peak = 100 + size

    def measure(self) -> MemoryUse:
        return MemoryUse(100 * MIB, self.peak * MIB, (self.total - 100) * MIB)


@pytest.mark.parametrize(
    ("fails_above", "rows", "expected", "tried", "reason"),
    [
        (300, 10**6, 256, [64, 128, 256, 512], "512 ran out of memory"),
        (64, 10**6, 64, [64, 128], "128 ran out of memory"),
        (63, 10**6, 32, [64, 32], "64 ran out of memory"),
        (2, 10**6, 2, [64, 32, 16, 8, 4, 2], "4 ran out of memory"),
        (10**9, 255, 128, [64, 128], "there are 255 rows"),
        (10**9, 256, 256, [64, 128, 256], "there are 256 rows"),
        (10**9, 50, 32, [32], "there are 50 rows"),
        (10, 50, 8, [32, 16, 8], "16 ran out of memory"),
    ],
)
def test_the_largest_power_of_two_that_works(
    fails_above: int, rows: int, expected: int, tried: list[int], reason: str
) -> None:
    machine = Machine(10**9, fails_above=fails_above)
    found = largest_batch(machine.step, rows, machine.measure)
    assert (found, machine.tried) == ((expected, reason), tried)


@pytest.mark.parametrize(
    ("total", "expected"), [(390, 256), (380, 128), (10**6, 2**19)]
)
def test_a_step_that_would_need_too_much_is_not_tried(
    total: int, expected: int
) -> None:
    # Beside the first 100 there are 290 MiB: 256 are below 261 (90 %), 512 are not. Of
    # 280 even 256 are too many.
    machine = Machine(total)
    found = largest_batch(machine.step, 10**7, machine.measure)
    assert (found.batch_size, machine.tried[-1]) == (expected, expected)
    assert f"{2 * expected:,} would need about" in found.reason


def test_without_measurements_only_errors_count() -> None:
    machine = Machine(110, fails_above=1000)
    assert largest_batch(machine.step, 10**6, lambda: None).batch_size == 512


def test_what_is_no_matter_of_memory_is_raised() -> None:
    def broken(size: int) -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        largest_batch(broken, 100)
    machine = Machine(10**9, fails_above=1)
    with pytest.raises(MemoryError):
        largest_batch(machine.step, 100, machine.measure)
    assert machine.tried[-1] == 2


def test_the_memory_of_this_process_is_measured() -> None:
    forget_peak()
    before = memory_use()
    assert before is not None and before.used > 0 and before.free > 0
    block = np.ones(64 * MIB, np.int8)
    during = memory_use()
    assert during is not None and during.used > before.used + 48 * MIB
    del block
    after = memory_use()
    assert after is not None and after.peak > before.used + 48 * MIB
    forget_peak()
    again = memory_use()
    assert again is not None and again.peak < after.peak - 32 * MIB


@pytest.mark.parametrize(
    ("files", "left"),
    [
        (
            {
                "memory.max": "5000\n",
                "memory.current": "4000\n",
                "memory.stat": "anon 3000\ninactive_file 700\n",
            },
            1700,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "900",
                "memory/memory.usage_in_bytes": "500",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 50",
            },
            450,
        ),
        ({"memory.max": "max\n"}, None),
        ({"memory.max": "5000\n"}, None),
        ({}, None),
    ],
)
def test_a_container_has_what_it_may_still_take(
    tmp_path: Path, files: dict[str, str], left: int | None
) -> None:
    (tmp_path / "memory").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    use = memory_use(tmp_path)
    assert use is not None
    assert (use.free == left) if left is not None else use.free > 10_000


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.getbasetemp())


def chosen(retrieval: int = 999, ranker: int = 999) -> Recipe:
    small = {"embedding_dim": 4, "epochs": 2, "hidden_units": [5], "dropout": 0.3}
    several = {"negatives": 2, "weights": [0]}
    return recipe(
        CHECKERBOARD_SCHEMA,
        retrieval={**small, "batch_size": retrieval},
        ranker={**small, **several, "batch_size": ranker},
    )


def trained(dataset: Dataset, out: Path, chosen: Recipe, **options: Any) -> Run:
    return train_with(dataset, out, chosen, **options)


def arrays_of(run: Run) -> list[np.ndarray]:
    arrays = []
    for name, kind in (("retrieval", TwoTower), ("ranker", Ranker)):
        model = load_model(run.path / name, kind)  # type: ignore[type-var]
        arrays += [*model.get_weights()[1:], *model.lookup.tables().values()]
    return arrays


def assert_same(run: Run, other: Run) -> None:
    for left, right in zip(arrays_of(run), arrays_of(other), strict=True):
        np.testing.assert_array_equal(left, right)
    assert run.recipe == other.recipe
    assert run.info.validation == other.info.validation


@contextmanager
def memory_for(**rows: int) -> Iterator[list[tuple[str, int]]]:
    """Steps of a model fail with more rows than there is memory for."""
    step, tried = keras.Model.train_on_batch, []

    def limited(self: Any, x: Any, *rest: Any) -> Any:
        size = len(x["item_index"])
        tried.append((self.name, size))
        if size > rows[self.name]:
            raise MemoryError(f"{size} rows")
        return step(self, x, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Model, "train_on_batch", limited)
        yield tried


@pytest.fixture(scope="module")
def given(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of a recipe with the sizes that are found below."""
    out = tmp_path_factory.mktemp("given") / "run"
    return trained(dataset, out, chosen(64, 16))


def test_a_run_is_the_one_of_a_recipe_with_the_sizes_found(
    dataset: Dataset, given: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A row of the ranker brings two more along: three times 16 rows fit 50.
    with memory_for(retrieval=70, ranker=50) as tried:
        run = trained(
            *(dataset, tmp_path / "run", chosen()), probe_batch_size=True, quiet=False
        )
    assert tried == [
        *[("retrieval", 64), ("retrieval", 128)],
        *[("ranker", 192), ("ranker", 96), ("ranker", 48)],
    ]
    assert_same(run, given)
    assert run.recipe["retrieval"]["batch_size"] == 64
    told = capsys.readouterr().err
    assert "retrieval: batch_size 64; 128 ran out of memory" in told
    assert "ranker: batch_size 16; 32 ran out of memory" in told
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


class Interrupted(Exception):
    """What stops a training here."""


def test_a_training_that_goes_on_keeps_its_sizes(
    dataset: Dataset, given: Run, tmp_path: Path
) -> None:
    def validate(*args: Any) -> dict[str, float]:
        state = tmp_path / ".run.training" / "state.json"
        if json.loads(state.read_text())["checkpoint"] is not None:
            raise Interrupted
        return ranking_metrics(*args)

    out = tmp_path / "run"
    with memory_for(retrieval=70, ranker=50), pytest.raises(Interrupted):
        trained(dataset, out, chosen(), probe_batch_size=True, validate=validate)
    options = {"probe_batch_size": True, "resume": True}
    with memory_for(retrieval=0, ranker=0) as tried:
        run = trained(dataset, out, chosen(), **options)
        again = trained(dataset, out, chosen(), **options)
    assert tried == []
    assert again.info == run.info
    assert_same(run, given)


def test_nothing_is_probed_where_nothing_can_be_written_or_nothing_fits(
    dataset: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(json.dumps("an older run"))
    with memory_for() as tried, pytest.raises(InputError) as there:
        trained(dataset, tmp_path / "run", chosen(), probe_batch_size=True)
    assert (there.value.code, tried) == ("output-exists", [])
    with memory_for(retrieval=0), pytest.raises(ResourceError) as full:
        trained(dataset, tmp_path / "other", chosen(), probe_batch_size=True)
    assert full.value.code == "out-of-memory"
    assert "MemoryError 2 rows" in str(full.value)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

"""Out of memory is told with what needs it, in the words of any backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shortlist.data import Dataset
from shortlist.errors import ResourceError
from shortlist.recipe import Recipe
from shortlist.training import train
from shortlist.training.resources.memory import is_out_of_memory
from toy import CHECKERBOARD_SCHEMA, SIDE, checkerboard, recipe

pytestmark = pytest.mark.backend


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return checkerboard(tmp_path_factory.getbasetemp())


def fails(dataset: Dataset, out: Path, chosen: Recipe, error: Exception) -> Exception:
    """What a training raises whose validation raises `error`."""

    def validate(*args: Any) -> dict[str, float]:
        raise error

    with pytest.raises(Exception) as caught:
        train(dataset, out, chosen, validate=validate, quiet=True)
    return caught.value


def test_the_message_has_every_table_and_what_to_lower(
    dataset: Dataset, tmp_path: Path
) -> None:
    chosen = recipe(
        CHECKERBOARD_SCHEMA,
        retrieval={"embedding_dim": 8, "batch_size": 32, "epochs": 1},
        ranker={"embedding_dim": 4, "batch_size": 48},
    )
    error = fails(dataset, tmp_path / "run", chosen, MemoryError("2 TiB"))
    assert isinstance(error, ResourceError)
    assert error.code == "out-of-memory"
    # Rows and their two moments of Adam, in float32.
    for stage, dim, batch in (("retrieval", 8, 32), ("ranker", 4, 48)):
        size = (SIDE + 1) * dim * 3 * 4 / 2**20
        for table in ("user", "item"):
            told = f"{stage}.{table} {SIDE + 1} x {dim} ({size:.1f} MiB)"
            assert told in str(error), told
        assert f"{stage}.batch_size {batch}" in str(error)
    assert "Lower embedding_dim or batch_size" in str(error)
    assert "MemoryError 2 TiB" in str(error)
    assert list(tmp_path.iterdir()) == []


def test_a_scorer_is_told_by_its_size(dataset: Dataset, tmp_path: Path) -> None:
    chosen = recipe(CHECKERBOARD_SCHEMA, retrieval={"kind": "ease"})
    error = fails(dataset, tmp_path / "run", chosen, MemoryError())
    told = f"retrieval ease of {SIDE + 1} users x {SIDE + 1} items"
    assert told in str(error)
    assert "factors or neighbours of the scorer, take another kind" in str(error)
    assert "embedding_dim" not in str(error) and "retrieval.user" not in str(error)


def test_other_errors_are_left_as_they_are(dataset: Dataset, tmp_path: Path) -> None:
    chosen = recipe(CHECKERBOARD_SCHEMA, retrieval={"epochs": 1, "batch_size": 32})
    bug = ValueError("a bug")
    assert fails(dataset, tmp_path / "run", chosen, bug) is bug
    full = ResourceError("no-space", "Full.")
    told = fails(dataset, tmp_path / "run", chosen, full)
    assert (type(told), str(told).startswith("Full.")) == (ResourceError, True)


def of_class(name: str, text: str) -> Exception:
    return type(name, (RuntimeError,), {})(text)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (of_class("XlaRuntimeError", "RESOURCE_EXHAUSTED: Out of memory: 9 GB"), True),
        (of_class("ResourceExhaustedError", "failed to allocate"), True),
        (of_class("InternalError", "OOM when allocating tensor"), True),
        (of_class("UnknownError", "MemoryError: Unable to allocate 9 GiB"), True),
        (of_class("OutOfMemoryError", "CUDA out of memory. Tried 9 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("shapes differ"), False),
        (OSError(28, "No space left on device"), False),
    ],
    ids=str,
)
def test_backends_say_it_in_their_own_words(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_numpy_says_it_as_python_does() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty(2**50, np.float64)
    assert is_out_of_memory(caught.value)

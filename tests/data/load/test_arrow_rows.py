"""The rows of flat Arrow files as batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shortlist.data import ArrowRows, Loader
from shortlist.data.load.examples import Batch
from shortlist.errors import InputError


def everything(source: ArrowRows) -> Batch:
    """All rows of a source, in order."""
    return source.take(np.arange(len(source)), np.random.default_rng(0))


def write_arrow(path: Path, columns: dict[str, Any]) -> Path:
    table = pa.table(columns)
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    return path


def test_arrow_files_are_read_as_they_are(tmp_path):
    numbers = np.random.default_rng(0).normal(size=50)
    files = [
        write_arrow(
            tmp_path / f"{name}.arrow",
            {
                "clicks": np.arange(start, stop, dtype=np.int16),
                "price": numbers[start:stop],
            },
        )
        for name, start, stop in (("b", 0, 30), ("a", 30, 50))
    ]
    source = ArrowRows(files)
    found = everything(source)
    assert len(source) == 50 and set(found) == {"clicks", "price"}
    np.testing.assert_array_equal(found["clicks"], np.arange(50))
    np.testing.assert_array_equal(found["price"], numbers.astype(np.float32))
    assert found["price"].dtype == np.float32
    assert set(everything(ArrowRows(files, columns=["price"]))) == {"price"}
    batches = list(Loader(ArrowRows(files), batch_size=8).epoch(0))
    seen = np.concatenate([batch["clicks"] for batch in batches])
    assert len(set(seen.tolist())) == len(seen) == 48


def test_a_batch_that_is_held_keeps_its_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("shortlist.data.load.arrow_rows._LARGE_TAKE", 1)
    file = write_arrow(tmp_path / "a.arrow", {"a": list(range(50)), "b": [0.5] * 50})
    source, generator = ArrowRows([file]), np.random.default_rng(0)
    held = source.take(np.arange(20), generator)["a"][5:10]
    for start in range(0, 30, 10):
        source.take(np.arange(start, start + 20), generator)
    assert held.tolist() == [5, 6, 7, 8, 9]


def test_fingerprints_of_arrow_files_tell_their_content(tmp_path):
    one, same, other = (
        write_arrow(tmp_path / f"{n}.arrow", {"a": [1, 2, value], "b": [4, 5, 6]})
        for n, value in enumerate((3, 3, 4))
    )
    assert ArrowRows([one]).fingerprint == ArrowRows([same]).fingerprint
    others = [[other], [one, other], [other, one]]
    prints = {ArrowRows(files).fingerprint for files in [[one], *others]}
    prints |= {ArrowRows([one], columns=[name]).fingerprint for name in "ab"}
    assert len(prints) == 6


def test_arrow_files_must_be_named():
    with pytest.raises(InputError, match="at least one Arrow file") as caught:
        ArrowRows([])
    assert caught.value.code == "invalid-loader"

"""Arrow files that lie about what they hold: refused, never read past their end."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from shortlist.data import ArrowRows, Loader
from shortlist.data.store.columns import Columns
from shortlist.data.store.vocabulary import UNREADABLE, read_frame, write_frame
from shortlist.errors import ArtifactError

# A number of rows that no other number in a file is taken for.
ROWS = 54_321
CLAIMS = [ROWS + 1_000, 2**31, 2**62, -1]


def column(kind):
    values = np.arange(ROWS) % 3
    if kind == "lists":
        return pa.ListArray.from_arrays(pa.array(range(ROWS + 1), pa.int32()), values)
    if kind == "pairs":
        both = pa.array(np.repeat(values, 2).astype(np.int16))
        return pa.FixedSizeListArray.from_arrays(both, 2)
    if kind == "flags":
        return pa.array(values > 0)
    if kind == "kinds":
        return pa.array(values).dictionary_encode()
    return pa.array(values.astype(kind))


KINDS = ["uint8", "int32", "int64", "float32", "lists", "pairs", "flags", "kinds"]


def write(path, kind, compression=None):
    table = pa.table({"x": column(kind)})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(path, table.schema, options=options) as writer:
        writer.write_table(table)
    return path


def claim(path, rows):
    """Makes the record batch of a file say that it has other rows."""
    whole, real = path.read_bytes(), struct.pack("<q", ROWS)
    assert real in whole
    path.write_bytes(whole.replace(real, struct.pack("<q", rows)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", CLAIMS)
def test_a_batch_of_more_rows_than_it_holds_is_refused(tmp_path, kind, rows):
    file = write(tmp_path / "a.arrow", kind)
    claim(file, rows)
    with pytest.raises(ArtifactError, match="not a readable Arrow IPC file") as caught:
        Columns.open([file])
    assert caught.value.code == "columns-unreadable"
    assert caught.value.file == str(file)


@pytest.mark.parametrize("rows", [ROWS + 100, 2**40])
def test_a_compressed_batch_of_more_rows_than_it_holds_is_refused(tmp_path, rows):
    file = write(tmp_path / "a.arrow", "int32", "zstd")
    claim(file, rows)
    with pytest.raises(ArtifactError) as caught:
        Columns.open([file])
    assert caught.value.code == "columns-unreadable"


def test_a_loader_of_a_lying_file_is_refused(tmp_path):
    file = write(tmp_path / "a.arrow", "int32")
    batch = Loader(ArrowRows([file]), batch_size=4, shuffle="none").batch(0, 1)
    assert batch["x"].tolist() == [1, 2, 0, 1]
    claim(file, 2 * ROWS)
    with pytest.raises(ArtifactError, match="expected at least") as caught:
        ArrowRows([file])
    assert caught.value.code == "columns-unreadable"


def test_a_table_of_more_records_than_it_holds_is_refused(tmp_path):
    file = tmp_path / "users.arrow"
    texts = pl.Series("id", [str(n) for n in range(ROWS)])
    write_frame(pl.DataFrame({"id": texts, "count": range(ROWS)}), file)
    assert read_frame(file)["id"].to_list() == texts.to_list()
    claim(file, 2 * ROWS)
    with pytest.raises(UNREADABLE, match="Expected|expected"):
        read_frame(file)


def test_offsets_that_lead_out_of_the_values_are_refused(tmp_path):
    file = write(tmp_path / "a.arrow", "lists")
    whole = file.read_bytes()
    middle = struct.pack("<2i", 20_000, 20_001)
    for lie in (struct.pack("<2i", 20_000, 2**30), struct.pack("<2i", 20_000, -5)):
        file.unlink()
        file.write_bytes(whole.replace(middle, lie))
        with pytest.raises(ArtifactError, match="offsets of a list") as caught:
            Columns.open([file]).take(np.array([3]))
        assert caught.value.code == "columns-unreadable"


@pytest.mark.parametrize("index", [3, 2**30, -1])
def test_an_index_that_leads_out_of_a_dictionary_is_refused(tmp_path, index):
    file = write(tmp_path / "a.arrow", "kinds")
    whole = file.read_bytes()
    some = struct.pack("<3i", 0, 1, 2)
    at = whole.index(some * 50) + 120
    file.write_bytes(whole[:at] + struct.pack("<i", index) + whole[at + 4 :])
    with pytest.raises(ArtifactError, match="not a readable Arrow IPC file") as caught:
        Columns.open([file]).column("x")
    assert caught.value.code == "columns-unreadable"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda p: p.symlink_to(p)])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, make):
    make(tmp_path / "a.arrow")
    for open_it in (Columns.open, ArrowRows):
        with pytest.raises(ArtifactError, match="no such file") as caught:
            open_it([tmp_path / "a.arrow"])
        assert caught.value.code == "columns-unreadable"


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_each_changed_byte_is_refused_or_read(tmp_path, compression):
    file = tmp_path / "a.arrow"
    table = pa.table(
        {
            "small": pa.array([0, 1, 255], pa.uint8()),
            "tags": pa.array([[], [1], [2, 3]], pa.list_(pa.int32())),
            "kind": pa.array([30, 10, 30]).dictionary_encode(),
            "pair": pa.array([[1, 2]] * 3, pa.list_(pa.float32(), 2)),
        }
    )
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(file, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=2)
    script = Path(__file__).with_name("damaged_columns.py")
    # Of its own: reading past the end would end the process.
    done = subprocess.run(
        [sys.executable, script, file], capture_output=True, text=True, timeout=240
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr

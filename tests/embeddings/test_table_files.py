"""Tables as safetensors files: exact, whole or not at all, and checked before use."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors

from shortlist.embeddings.rules import KINDS, Rule
from shortlist.embeddings.storage import table_files
from shortlist.embeddings.storage.table_files import arrays_of, read_table, write_table
from shortlist.embeddings.table import ROW_TYPES, Table
from shortlist.errors import ArtifactError, ResourceError

STEPS = 70  # more than the 64 sums that a fresh table has room for


def make(kind: str = "adam", row_type: str = "float32", rows: int = 9) -> Table:
    """A table with random content."""
    table = Table.allocate("users", rows, 3, Rule(kind=kind), row_type=row_type, seed=5)
    random = np.random.default_rng(0)
    for array in (table.rows, *table.slots.values()):
        array.view(np.uint8)[...] = random.integers(
            0, 50, array.view(np.uint8).shape, np.uint8
        )
    for _ in range(STEPS):
        table.begin_step(0.1)
    return table


def fresh(like: Table) -> Table:
    """An untouched table of the same shape."""
    return Table.allocate(
        like.name, like.num_rows, like.dim, like.rule, row_type=like.row_type
    )


def content(table: Table) -> dict[str, bytes]:
    numbers = repr((table.step, table.last_rate, table.seed)).encode()
    arrays = {name: array.tobytes() for name, array in arrays_of(table).items()}
    return {"numbers": numbers, **arrays}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row_type", ROW_TYPES)
def test_a_table_comes_back_bit_for_bit(
    tmp_path: Path, kind: str, row_type: str
) -> None:
    table = make(kind, row_type)
    sha256 = write_table(tmp_path / "t", table)
    again = fresh(table)
    rows = again.rows
    read_table(tmp_path / "t", again, sha256)
    assert content(again) == content(table)
    assert again.rows is rows  # in place
    for one in (table, again):
        one.begin_step(0.05)
    assert content(again) == content(table)


def test_the_hash_is_of_the_file_and_the_file_of_the_table(tmp_path: Path) -> None:
    table = make()
    sha256 = write_table(tmp_path / "t", table)
    assert sha256 == hashlib.sha256((tmp_path / "t").read_bytes()).hexdigest()
    assert sha256 == write_table(tmp_path / "u", table)


@pytest.mark.parametrize("row_type", ROW_TYPES)
def test_safetensors_reads_the_files(tmp_path: Path, row_type: str) -> None:
    table = make(row_type=row_type)
    write_table(tmp_path / "t", table)
    data = (tmp_path / "t").read_bytes()
    found = dict(safetensors.deserialize(data))
    codes = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
    assert found["rows"]["dtype"] == codes[row_type]
    assert found["moves"]["dtype"] == "F64"
    assert found["last_step"]["dtype"] == "I32"
    for name, array in arrays_of(table).items():
        assert bytes(found[name]["data"]) == array.tobytes()
        assert tuple(found[name]["shape"]) == array.shape
    with safetensors.safe_open(tmp_path / "t", "numpy") as opened:
        assert opened.metadata() == {
            "format": "shortlist-table-1",
            "name": "users",
            "kind": "adam",
            "step": str(STEPS),
            "last_rate": repr(table.last_rate),
            "seed": "5",
        }


def test_blocks_join_without_seams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make("adagrad")
    expected = write_table(tmp_path / "t", table)
    monkeypatch.setattr(table_files, "_BLOCK_BYTES", 7)
    assert write_table(tmp_path / "t", table) == expected
    again = fresh(table)
    read_table(tmp_path / "t", again, expected)
    assert content(again) == content(table)


def without_end(data: bytes) -> bytes:
    return data[:-5]


def flipped(data: bytes) -> bytes:
    return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]


def longer(data: bytes) -> bytes:
    return data + b"\0"


def huge_header(data: bytes) -> bytes:
    return (2**62).to_bytes(8, "little") + data[8:]


def no_json(data: bytes) -> bytes:
    return data[:8] + b"[" + data[9:]


def with_header(change: Callable[[dict], None]) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + length :]

    return damage


DAMAGES = {
    "truncated": without_end,
    "flipped": flipped,
    "longer": longer,
    "huge-header": huge_header,
    "no-json": no_json,
    "empty": lambda data: b"",
    "half-header": lambda data: data[:30],
    "no-metadata": with_header(lambda h: h.pop("__metadata__")),
    "format": with_header(lambda h: h["__metadata__"].update(format="x")),
    "step": with_header(lambda h: h["__metadata__"].update(step="-1")),
    "rate": with_header(lambda h: h["__metadata__"].update(last_rate="nan")),
    "overlap": with_header(lambda h: h["rows"].update(data_offsets=[0, 108])),
    "offsets": with_header(lambda h: h["rows"].update(data_offsets=[0])),
    "shape": with_header(lambda h: h["rows"].update(shape=None)),
    "list": with_header(lambda h: h.update(rows=[])),
    "name": with_header(lambda h: h["__metadata__"].update(name="items")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_refused_and_the_table_stays(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    table = make()
    sha256 = write_table(tmp_path / "t", table)
    (tmp_path / "t").write_bytes(damage((tmp_path / "t").read_bytes()))
    other = make()
    other.rows[:] = 3
    before = content(other)
    with pytest.raises(ArtifactError) as caught:
        read_table(tmp_path / "t", other, sha256)
    assert caught.value.code == "checkpoint-unreadable"
    assert content(other) == before


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path, Path("/dev/null"), tmp_path / "a\0b"):
        with pytest.raises(ArtifactError) as caught:
            read_table(path, make(), "0" * 64)
        assert caught.value.code == "checkpoint-unreadable"


@pytest.mark.parametrize(
    "other",
    [
        make(rows=8),
        make("sgd"),
        make("adagrad"),
        make(row_type="bfloat16"),
        Table.allocate("users", 9, 3, Rule(catch_up=False)),
    ],
    ids=["shape", "sgd", "adagrad", "row-type", "catch-up"],
)
def test_another_table_is_refused_with_both_layouts(
    tmp_path: Path, other: Table
) -> None:
    sha256 = write_table(tmp_path / "t", make())
    before = content(other)
    with pytest.raises(
        ArtifactError, match=r"'users' with adam and .* load has "
    ) as caught:
        read_table(tmp_path / "t", other, sha256)
    assert caught.value.code == "checkpoint-mismatch"
    assert content(other) == before


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make()
    write_table(tmp_path / "t", table)
    before = (tmp_path / "t").read_bytes()
    table.rows[:] = 1

    def full(array: np.ndarray) -> object:
        yield array.reshape(-1).view(np.uint8).data[:8]
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(table_files, "_blocks", full)
    with pytest.raises(ResourceError) as caught:
        write_table(tmp_path / "t", table)
    assert caught.value.code == "no-space"
    assert [path.name for path in tmp_path.iterdir()] == ["t"]
    assert (tmp_path / "t").read_bytes() == before

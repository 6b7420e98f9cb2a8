"""The bytes that were checked are the bytes that serve."""

import hashlib
import os
import shutil

import numpy as np
import pytest

from shortlist.bundle.bundle import read_bundle, write_bundle
from shortlist.bundle.held import hold_files
from shortlist.bundle.manifest import FileEntry
from shortlist.errors import ArtifactError
from shortlist.serving.recommender import Recommender
from tiny_bundle import make_contents, tower_of


@pytest.fixture
def bundle_path(tmp_path):
    write_bundle(tmp_path / "bundle", make_contents())
    return tmp_path / "bundle"


def plain_files(path):
    return [file for file in path.rglob("*") if file.is_file()]


def truncate(path):
    for file in plain_files(path):
        os.truncate(file, 0)


def overwrite(path):
    for file in plain_files(path):
        size = file.stat().st_size
        with open(file, "r+b") as open_file:  # as `cp` and `rsync --inplace` do
            open_file.write(b"\x7f" * size)


def remove(path):
    shutil.rmtree(path)


def answers(recommender):
    return [
        recommender.recommend("ann"),
        recommender.recommend("nobody", history=["heat"]),
        recommender.rank("bob", ["heat", "a/b"]),
        recommender.similar("heat"),
    ]


@pytest.mark.parametrize("spoil", [truncate, overwrite, remove])
def test_answers_stay_the_same_whatever_becomes_of_the_files(bundle_path, spoil):
    expected = answers(Recommender.load(bundle_path))
    recommender = Recommender.load(bundle_path)
    spoil(bundle_path)
    assert answers(recommender) == expected


def entry_of(raw):
    return FileEntry(hashlib.sha256(raw).hexdigest(), len(raw))


def test_what_is_hashed_is_what_was_read(tmp_path, monkeypatch):
    raw = bytes(range(200))
    (tmp_path / "a").write_bytes(raw)
    entries = {"a": entry_of(raw)}
    sha256 = hashlib.sha256

    def spoil_first(data):
        (tmp_path / "a").write_bytes(b"x" * 200)
        return sha256(data)

    monkeypatch.setattr(hashlib, "sha256", spoil_first)
    held = hold_files(tmp_path, entries, verify=True)["a"]
    assert held.tobytes() == raw
    assert held.ctypes.data % 64 == 0
    assert not held.flags.writeable


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("found", [b"", b"ab", b"abcd"])
def test_a_file_of_another_size_is_refused(tmp_path, found, verify):
    (tmp_path / "a").write_bytes(found)
    with pytest.raises(ArtifactError, match="which lists 3 bytes. Found") as caught:
        hold_files(tmp_path, {"a": entry_of(b"abc")}, verify=verify)
    assert (caught.value.code, caught.value.file) == (
        "bundle-corrupt",
        str(tmp_path / "a"),
    )


def test_a_link_that_took_the_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "b").write_bytes(b"abc")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    with pytest.raises(ArtifactError, match="cannot be opened") as caught:
        hold_files(tmp_path, {"a": entry_of(b"abc")}, verify=True)
    assert caught.value.code == "bundle-unreadable"


def test_the_largest_files_are_mapped_where_memory_is_short(tmp_path):
    raws = {"a": b"a" * 100, "b": b"b" * 5000, "c": b""}
    for name, raw in raws.items():
        (tmp_path / name).write_bytes(raw)
        (tmp_path / name).chmod(0o644)
    entries = {name: entry_of(raw) for name, raw in raws.items()}
    held = hold_files(tmp_path, entries, verify=True, memory_bytes=200)
    assert {name: data.tobytes() for name, data in held.items()} == raws
    # Only what is mapped follows the file.
    for name, raw in raws.items():
        with open(tmp_path / name, "r+b") as file:
            file.write(b"x" * len(raw))
    assert held["a"].tobytes() == raws["a"]
    assert held["b"].tobytes() == b"x" * 5000


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o620])
def test_what_others_may_write_is_not_mapped(bundle_path, mode):
    contents = read_bundle(bundle_path, memory_bytes=0).contents
    expected = make_contents()
    np.testing.assert_array_equal(
        tower_of(contents).item_vectors, tower_of(expected).item_vectors
    )
    (bundle_path / "item_vectors.safetensors").chmod(mode)
    read_bundle(bundle_path)  # copied
    with pytest.raises(ArtifactError, match="too large to be copied") as caught:
        read_bundle(bundle_path, memory_bytes=0)
    assert caught.value.code == "bundle-writable"
    assert "write a new bundle to another directory" in str(caught.value)

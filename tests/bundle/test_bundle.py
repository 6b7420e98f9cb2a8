"""A bundle is written whole, read distrustfully, and says which file is wrong."""

import errno
import json
import os
import shutil

import numpy as np
import pytest

from shortlist.bundle import bundle as bundle_module
from shortlist.bundle.bundle import read_bundle, write_bundle
from shortlist.bundle.manifest import FileEntry, Manifest, files_version
from shortlist.errors import ArtifactError, InputError, ResourceError
from tiny_bundle import (
    ITEM_IDS,
    ITEM_VECTORS,
    TOWER_TABLES,
    make_contents,
    tower_of,
    vocabulary,
)

FILES = {
    "item_vectors.safetensors",
    "items.arrow",
    "ranker.onnx",
    "tables/ranker.safetensors",
    "tables/retrieval.safetensors",
    "user_tower.onnx",
    "users.arrow",
    "vocabularies/genres.arrow",
    "vocabularies/item.arrow",
    "vocabularies/segment.arrow",
    "vocabularies/user.arrow",
}


@pytest.fixture
def path(tmp_path):
    write_bundle(tmp_path / "bundle", make_contents())
    return tmp_path / "bundle"


def refused(path, file, **options):
    with pytest.raises(ArtifactError) as caught:
        read_bundle(path, **options)
    assert caught.value.file == str(path / file)
    return caught.value


def rewrite_manifest(path, change):
    """Changes the manifest and gives it a valid checksum again."""
    manifest = Manifest.from_json((path / "manifest.json").read_bytes())
    fields = {name: getattr(manifest, name) for name in manifest.__struct_fields__}
    change(fields)
    (path / "manifest.json").write_bytes(Manifest(**fields).to_json())


def test_a_bundle_comes_back_as_it_went(tmp_path):
    contents = make_contents()
    manifest = write_bundle(tmp_path / "b", contents)
    bundle = read_bundle(tmp_path / "b")
    assert bundle.manifest == Manifest.from_json(manifest.to_json())
    assert set(manifest.files) == FILES
    read = bundle.contents
    assert read.items.equals(contents.items) and read.users.equals(contents.users)
    assert read.vocabularies.keys() == contents.vocabularies.keys()
    assert [read.vocabularies["item"].id(i) for i in range(1, 8)] == ITEM_IDS
    assert read.schema == contents.schema
    np.testing.assert_array_equal(tower_of(read).item_vectors, ITEM_VECTORS)
    for name, table in TOWER_TABLES.items():
        np.testing.assert_array_equal(tower_of(read).tables[name], table)
    assert tower_of(read).graph == tower_of(contents).graph
    assert read.ranker.inputs == contents.ranker.inputs
    assert (read.ranker.weight, read.ranker.candidates) == (0.5, 5)
    assert read.metrics == {"ndcg@10": 0.25}


def test_the_manifest_is_as_documented(path):
    manifest = json.loads((path / "manifest.json").read_text())
    assert list(manifest)[:2] == ["format", "format_version"]
    assert manifest["retrieval"] | {"inputs": []} == {
        "graph": "user_tower.onnx",
        "tables": "tables/retrieval.safetensors",
        "inputs": [],
        "history_length": 3,
        "embedding_dim": 4,
        "item_vectors": "item_vectors.safetensors",
    }
    assert manifest["ranker"] | {"inputs": []} == {
        "graph": "ranker.onnx",
        "tables": "tables/ranker.safetensors",
        "inputs": [],
        "history_length": 3,
        "weight": 0.5,
        "candidates": 5,
        "objective": "explicit",
    }
    assert manifest["retrieval"]["inputs"][1] == {
        "feature": "history",
        "kind": "multi_valued",
        "owner": "user",
        "table": "item",
        "dim": 3,
    }
    assert (manifest["popularity"], manifest["quantization"]) == (True, None)


def test_equal_contents_have_an_equal_version(tmp_path):
    first = write_bundle(tmp_path / "a", make_contents())
    second = write_bundle(tmp_path / "b", make_contents(name="other"))
    third = write_bundle(tmp_path / "c", make_contents(ranker=False))
    assert first.version == second.version != third.version
    assert first.version == files_version(first.files)


@pytest.mark.parametrize("name", ["a/b", "..", "tags 🎬", "100%", "x.y"])
def test_vocabularies_of_any_name_come_back(tmp_path, name):
    known = make_contents().vocabularies
    more = {**known, name: vocabulary(name, ["p"], [1])}
    write_bundle(tmp_path / "b", make_contents(vocabularies=more))
    assert read_bundle(tmp_path / "b").contents.vocabularies.keys() == more.keys()


def test_a_popularity_bundle_has_no_graphs(tmp_path):
    manifest = write_bundle(
        tmp_path / "b", make_contents(retrieval=False, ranker=False)
    )
    assert not any(name.endswith((".onnx", ".safetensors")) for name in manifest.files)
    assert read_bundle(tmp_path / "b").contents.retrieval is None


@pytest.mark.parametrize("file", sorted(FILES))
def test_every_changed_file_is_refused(path, file):
    raw = bytearray((path / file).read_bytes())
    for position in (0, len(raw) // 2, len(raw) - 1):
        changed = bytearray(raw)
        changed[position] ^= 0x10
        (path / file).write_bytes(changed)
        error = refused(path, file)
        assert error.code == "bundle-corrupt"
        assert "which lists SHA-256" in str(error)


@pytest.mark.parametrize("file", sorted(FILES))
@pytest.mark.parametrize("verify", [True, False])
def test_every_truncated_or_empty_file_is_refused(path, file, verify):
    raw = (path / file).read_bytes()
    for shorter in (raw[:-1], b""):
        (path / file).write_bytes(shorter)
        error = refused(path, file, verify=verify)
        assert error.code == "bundle-corrupt"
        assert f"which lists {len(raw)} bytes. Found {len(shorter)} bytes" in str(error)


@pytest.mark.parametrize("file", sorted(FILES))
def test_every_missing_file_is_refused(path, file):
    (path / file).unlink()
    error = refused(path, file)
    assert error.code == "bundle-missing-file"
    assert f"The file {file!r} of the bundle is missing" in str(error)


@pytest.mark.parametrize("file", ["extra.txt", "tables/more.safetensors", ".hidden"])
def test_a_file_that_nobody_listed_is_refused(path, file):
    (path / file).write_text("x")
    assert refused(path, file).code == "bundle-extra-file"


def test_a_file_a_part_needs_must_be_listed(path):
    rewrite_manifest(path, lambda fields: fields["files"].pop("ranker.onnx"))
    (path / "ranker.onnx").unlink()
    assert refused(path, "ranker.onnx").code == "bundle-missing-file"


def test_a_changed_manifest_is_refused(path):
    raw = (path / "manifest.json").read_bytes()
    (path / "manifest.json").write_bytes(
        raw.replace(b'"weight": 0.5', b'"weight": 5.0')
    )
    assert refused(path, "manifest.json").code == "bundle-corrupt"


def test_a_path_out_of_the_bundle_is_refused_though_its_hash_is_right(path):
    outside = path.parent / "outside"
    outside.write_text("secret")
    entry = FileEntry(bundle_module._sha256(outside), 6)
    rewrite_manifest(path, lambda fields: fields["files"].update({"../outside": entry}))
    assert refused(path, "manifest.json").code == "bundle-path"


def test_links_and_pipes_are_refused(path, tmp_path):
    moved = tmp_path / "moved"
    shutil.move(path / "items.arrow", moved)
    (path / "items.arrow").symlink_to(moved)
    assert refused(path, "items.arrow").code == "bundle-symlink"
    (path / "items.arrow").unlink()
    os.mkfifo(path / "items.arrow")
    assert refused(path, "items.arrow").code == "bundle-symlink"


def test_a_link_to_a_whole_bundle_is_followed(path, tmp_path):
    (tmp_path / "current").symlink_to(path)
    assert read_bundle(tmp_path / "current").manifest.name == "tiny"


def test_item_vectors_of_another_width_than_the_manifest_says_are_refused(path):
    def wider(fields):
        entry = fields["retrieval"]
        names = entry.__struct_fields__
        values = {name: getattr(entry, name) for name in names} | {"embedding_dim": 5}
        fields["retrieval"] = type(entry)(**values)

    rewrite_manifest(path, wider)
    error = refused(path, "item_vectors.safetensors")
    assert error.code == "bundle-inconsistent"
    assert "vectors of 5 numbers" in str(error) and "shape (8, 4)" in str(error)


@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_what_is_no_bundle_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(
        ArtifactError, match="There is no bundle at .*: it has no manifest.json"
    ) as caught:
        read_bundle(tmp_path / name)
    assert caught.value.code == "bundle-missing"


def test_contents_that_do_not_fit_leave_nothing_behind(tmp_path):
    with pytest.raises(ArtifactError, match="must fit together"):
        write_bundle(tmp_path / "b", make_contents(users=make_contents().users.head(1)))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_directory_stays_unless_overwritten(path):
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="exists already") as caught:
        write_bundle(path, make_contents(ranker=False))
    assert caught.value.code == "output-exists"
    assert (path / "manifest.json").read_bytes() == before
    write_bundle(path, make_contents(ranker=False), overwrite=True)
    assert read_bundle(path).contents.ranker is None
    assert [p.name for p in path.parent.iterdir()] == ["bundle"]


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(path, tensors):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bundle_module, "save_tensors", full)
    with pytest.raises(ResourceError, match="No space left") as caught:
        write_bundle(tmp_path / "b", make_contents())
    assert caught.value.code == "no-space"
    assert list(tmp_path.iterdir()) == []

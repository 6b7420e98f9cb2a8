"""The manifest guards its own bytes and lets no path out of the bundle."""

import hashlib
import json

import pytest

from shortlist.bundle.manifest import (
    FileEntry,
    Manifest,
    check_relative_path,
    files_version,
    vocabulary_path,
)
from shortlist.errors import ArtifactError
from tiny_bundle import SCHEMA


def manifest(**changes):
    fields = {
        "shortlist_version": "0.1.0",
        "created_at": "2026-01-02T03:04:05+00:00",
        "name": "tiny",
        "version": "0123456789ab",
        "files": {"a.arrow": FileEntry("f" * 64, 3)},
        "schema": SCHEMA,
        "retrieval": None,
        "ranker": None,
        "metrics": {"ndcg@10": 0.5},
        "environment": {},
    }
    return Manifest(**(fields | changes))


def refused(raw):
    with pytest.raises(ArtifactError) as caught:
        Manifest.from_json(raw, "here/manifest.json")
    assert caught.value.file == "here/manifest.json"
    return caught.value


def test_a_manifest_comes_back_as_it_went():
    raw = manifest().to_json()
    read = Manifest.from_json(raw)
    assert json.loads(raw)["format"] == "shortlist-bundle"
    assert json.loads(raw)["format_version"] == 2
    assert read.to_json() == raw
    assert read.schema == SCHEMA
    assert read.metrics == {"ndcg@10": 0.5}


def test_repeats_are_written_only_where_seen_items_are_recommended():
    # Versions that do not know the field refuse a manifest that has it.
    assert "repeats" not in json.loads(manifest().to_json())
    raw = manifest(repeats=True).to_json()
    assert json.loads(raw)["repeats"] is True
    assert Manifest.from_json(raw).repeats is True


def test_the_checksum_is_that_of_the_bytes_with_zeros_in_its_place():
    raw = manifest().to_json()
    checksum = json.loads(raw)["checksum"]
    blanked = raw.replace(checksum.encode(), b"0" * 64)
    assert hashlib.sha256(blanked).hexdigest() == checksum


def test_no_changed_byte_goes_unseen():
    raw = manifest().to_json()
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 1
        error = refused(bytes(changed))
        assert error.code in {"bundle-corrupt", "bundle-manifest", "bundle-newer"}


def test_a_later_format_is_refused_whatever_else_it_holds():
    raw = json.dumps({"format": "shortlist-bundle", "format_version": 3, "new": 1})
    error = refused(raw.encode())
    assert error.code == "bundle-newer"
    assert "must be version 2 or earlier. Found version 3. Upgrade" in str(error)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"{}",
        b'{"format": "zip", "format_version": 1}',
        b'{"format": "shortlist-bundle", "format_version": 0}',
        b'{"format": "shortlist-bundle", "format_version": "1"}',
        b'{"format": "shortlist-bundle", "format_version": 1}',
    ],
)
def test_what_is_no_manifest_is_refused(raw):
    assert refused(raw).code == "bundle-manifest"


@pytest.mark.parametrize(
    "path",
    [
        "../escape",
        "tables/../../escape",
        "/etc/passwd",
        "a\\b",
        "a\0b",
        "./a",
        "a//b",
        "a/",
        "..",
        ".",
        "",
        "manifest.json",
    ],
)
def test_paths_out_of_the_bundle_are_refused(path):
    with pytest.raises(ArtifactError, match="must have plain paths inside") as caught:
        check_relative_path(path, "manifest.json")
    assert caught.value.code == "bundle-path"
    raw = manifest(files={path: FileEntry("f" * 64, 3)}).to_json()
    assert refused(raw).code == "bundle-path"


def test_the_version_names_the_files_and_not_the_time():
    files = {"b": FileEntry("1" * 64, 5), "a": FileEntry("2" * 64, 6)}
    lines = f"a {'2' * 64}\nb {'1' * 64}\n"
    assert files_version(files) == hashlib.sha256(lines.encode()).hexdigest()[:12]
    assert files_version(files) == files_version(dict(reversed(files.items())))
    assert files_version(files) != files_version({"a": FileEntry("2" * 64, 6)})


@pytest.mark.parametrize("name", ["user", "a/b", "..", "tags 🎬", "100%", "x.y"])
def test_any_vocabulary_name_makes_a_plain_path(name):
    path = vocabulary_path(name)
    check_relative_path(path, "manifest.json")
    assert path.count("/") == 1

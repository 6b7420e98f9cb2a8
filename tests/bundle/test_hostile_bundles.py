"""Bundles with fitting hashes and hostile contents: a named error, or answers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from shortlist.bundle import read_bundle
from shortlist.bundle.manifest import FileEntry, _checksum, files_version
from shortlist.errors import ArtifactError, ShortlistError
from shortlist.serving import Recommender

GOLDEN = Path(__file__).parents[1] / "golden"
BUNDLES = ["bundle-v1", "bundle-v2"]
HOSTILE: list[Any] = [-1, 0, 2**31, 2**63, 2**100, 1e300, -1e300, 0.5, None, True]
HOSTILE += ["", "x\n\0é", [], {}, [[1]], {"a": {"b": None}}]


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        path.relative_to(folder).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "bytes": path.stat().st_size,
        }
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


def seal(folder: Path, manifest: dict[str, Any], *, version: bool = True) -> None:
    """Writes a manifest with the hashes of the files there, as an attacker can."""
    manifest["files"] = entries(folder)
    if version:
        files = {name: FileEntry(**entry) for name, entry in manifest["files"].items()}
        manifest["version"] = files_version(files)
    write_manifest(folder, json.dumps(manifest).encode())


def write_manifest(folder: Path, raw: bytes) -> None:
    blank = re.sub(rb'"checksum": "[^"]*"', b'"checksum": "' + b"0" * 64 + b'"', raw)
    digest = _checksum(blank).encode()
    (folder / "manifest.json").write_bytes(blank.replace(b"0" * 64, digest, 1))


def read_manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


@pytest.fixture(params=BUNDLES)
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return shutil.copytree(GOLDEN / request.param, tmp_path / "bundle")


def outcome(folder: Path) -> str:
    """The code of the error, or `answers`; anything else is raised."""
    try:
        recommender = Recommender.load(folder)
        for user in (None, "ann", 1, "nobody"):
            with contextlib.suppress(ShortlistError):
                recommender.recommend(user, k=3)
        with contextlib.suppress(ShortlistError):
            recommender.similar(recommender.recommend(k=1).items[0].item_id, k=2)
    except ShortlistError as error:
        assert isinstance(error, ArtifactError), error
        assert error.file, error
        return error.code
    return "answers"


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a manifest may be changed."""
    yield path
    if isinstance(value, dict | list):
        keys = value.keys() if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from places(value[key], (*path, key))


def changed(manifest: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(manifest) if isinstance(manifest, dict) else list(manifest)
    copy[path[0]] = changed(copy[path[0]], path[1:], value)
    return copy


def test_a_sealed_copy_still_answers(bundle):
    seal(bundle, read_manifest(bundle))
    assert outcome(bundle) == "answers"


def test_any_value_in_a_manifest_gives_an_error_or_answers(bundle):
    manifest = read_manifest(bundle)
    seal(bundle, manifest)
    manifest = read_manifest(bundle)
    open_to_all = ("files", "checksum", "environment", "metrics")
    there = [p for p in places(manifest) if p and p[0] not in open_to_all]
    rng = np.random.default_rng(0)
    for place in there:
        for number in rng.permutation(len(HOSTILE))[:3]:
            hostile = changed(manifest, place, HOSTILE[number])
            write_manifest(bundle, json.dumps(hostile).encode())
            outcome(bundle)


NUMBERS = ["1e999", "-1e999", "NaN", "Infinity", "1" * 400, "-1", "9" * 19]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("field", ["history_length", "embedding_dim"])
def test_numbers_without_bounds_are_refused(bundle, field, number):
    raw = (bundle / "manifest.json").read_bytes()
    found = re.sub(rb'"%s": \d+' % field.encode(), b'"%s": X' % field.encode(), raw)
    assert found != raw
    write_manifest(bundle, found.replace(b": X", b": " + number.encode()))
    assert outcome(bundle) in ("bundle-manifest", "bundle-damaged")


@pytest.mark.parametrize("depth", [1000, 100_000])
@pytest.mark.parametrize("pair", ["[]", ('{"a":', "}")])
def test_deep_json_is_no_internal_error(bundle, depth, pair):
    left, right = pair
    deep = left * depth + ("1" if left != "[" else "") + right * depth
    raw = (bundle / "manifest.json").read_text()
    deeper = re.sub(r'"metrics": \{[^}]*\}', f'"metrics": {{"x": {deep}}}', raw)
    write_manifest(bundle, deeper.encode())
    assert outcome(bundle) in ("bundle-manifest", "bundle-damaged", "bundle-corrupt")
    write_manifest(bundle, deep.encode())
    assert outcome(bundle) in ("bundle-manifest", "bundle-damaged")


@pytest.mark.parametrize("version", ["0" * 12, "a\nb", "\0", "é" * 9, "", "x" * 10**5])
def test_the_version_is_that_of_the_files(bundle, version):
    manifest = read_manifest(bundle) | {"version": version}
    seal(bundle, manifest, version=False)
    assert outcome(bundle) == "bundle-corrupt"


def tensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(shape: list[int], end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


TENSORS = {
    "1000 dimensions": tensors({"user": tensor([1] * 1000, 4)}, bytes(4)),
    "huge and empty": tensors({"user": tensor([2**62, 0], 0)}),
    "huge product": tensors({"user": tensor([2**40, 2**40, 0], 0)}),
    "overflow": tensors({"user": tensor([2**32, 2**32], 0)}),
    "no dimensions": tensors({"user": tensor([], 4)}, bytes(4)),
    "other type": tensors({"user": tensor([2], 16, "I64")}, bytes(16)),
    "nothing": b"",
    "half a header": tensors({"user": tensor([1], 4)})[:20],
    "long header": (2**62).to_bytes(8, "little") + b"{}",
    "deep header": tensors(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "no table": tensors({}),
    "text": tensors(b"null"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_hostile_tensors_are_an_error_that_names_the_file(bundle, name):
    for file in bundle.rglob("*.safetensors"):
        before = file.read_bytes()
        file.write_bytes(TENSORS[name])
        seal(bundle, read_manifest(bundle))
        with pytest.raises(ArtifactError) as caught:
            read_bundle(bundle)
        named = caught.value.file or ""
        assert named.endswith((file.name, "scorer")) or "input" in named, named
        file.write_bytes(before)


@pytest.mark.parametrize("value", ["missing", *HOSTILE], ids=repr)
def test_arguments_of_a_scorer_are_checked(tmp_path, value):
    folder = shutil.copytree(GOLDEN / "bundle-v2", tmp_path / "bundle")
    manifest = read_manifest(folder)
    paths = [p for p in places(manifest["scorer"]["config"], ("scorer", "config")) if p]
    for path in paths[1:]:
        hostile = changed(manifest, path, value)
        if value == "missing":
            hostile = json.loads(json.dumps(manifest))
            inner = hostile
            for key in path[:-1]:
                inner = inner[key]
            del inner[path[-1]]
        seal(folder, hostile)
        outcome(folder)


def test_other_arrow_files_in_place_of_ours_are_errors(bundle):
    frames = {
        "empty": pl.DataFrame(),
        "other columns": pl.DataFrame({"a": [1, 2]}),
        "nulls": pl.DataFrame({"id": [None] * 5, "count": [None] * 5}),
        "objects": pl.DataFrame({"id": [{"a": 1}], "count": [[1]]}),
    }
    for file in bundle.rglob("*.arrow"):
        before = file.read_bytes()
        for frame in frames.values():
            frame.write_ipc(file)
            seal(bundle, read_manifest(bundle))
            assert outcome(bundle) != "answers"
        file.write_bytes(before)


@pytest.mark.parametrize("ending", [".onnx", ".safetensors", ".arrow"])
def test_flipped_bytes_give_an_error_or_answers(bundle, ending):
    manifest = read_manifest(bundle)
    rng = np.random.default_rng(7)
    for file in sorted(bundle.rglob(f"*{ending}")):
        before = file.read_bytes()
        for _ in range(12):
            raw = bytearray(before)
            for place in rng.integers(0, len(raw), rng.integers(1, 4)):
                raw[place] = rng.integers(0, 256)
            if rng.random() < 0.2:
                raw = raw[: rng.integers(0, len(raw))]
            file.write_bytes(raw)
            seal(bundle, manifest)
            outcome(bundle)
        file.write_bytes(before)

"""Files that may not be read are said to be so, not called damaged or a fault."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shortlist.atomic import disk_errors
from shortlist.errors import ArtifactError, ResourceError
from shortlist.reading import denied_by, read_errors

CASES = {
    "recipe": ("shortlist.toml", "prepare"),
    "log": ("u.data", "prepare --overwrite"),
    "log of init": ("u.data", "init u.data --out new.toml"),
    "log of check": ("u.data", "check u.data"),
    "attributes": ("u.item", "prepare --overwrite"),
    "dataset": ("dataset/dataset.json", "evaluate"),
    "segment": ("dataset/events/00000.arrow", "evaluate"),
    "ids": ("dataset/vocabularies-0/user.arrow", "evaluate"),
    "run": ("run/run.json", "evaluate"),
    "recipe of the run": ("run/recipe.json", "evaluate"),
    "weights": ("run/retrieval/model.weights.h5", "evaluate"),
    "folder of the dataset": ("dataset", "evaluate"),
    "manifest": ("bundle/manifest.json", "recommend 1"),
    "tensors": ("bundle/item_vectors.safetensors", "recommend 1"),
    "tables": ("bundle/tables", "recommend 1"),
    "graph": ("bundle/user_tower.onnx", "recommend 1"),
    "ids of the bundle": ("bundle/vocabularies/user.arrow", "recommend 1"),
    "items of the bundle": ("bundle/items.arrow", "recommend 1"),
    "folder of the bundle": ("bundle", "recommend 1"),
    "output": ("locked", "prepare --set=output.dataset=locked/dataset"),
    "output of init": ("locked", "init u.data --out locked/new.toml"),
}

# Root may read everything. Without its capabilities it is a user like any other.
CHILD = """
import contextlib, ctypes, io, json, os, sys
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
nothing = (ctypes.c_uint32 * 6)()
assert os.geteuid() or not ctypes.CDLL(None).capset(header, nothing)
from shortlist.cli.app import run
for name, (place, command) in json.loads(sys.argv[1]).items():
    mode = os.stat(place).st_mode
    os.chmod(place, 0o500 if place == "locked" else 0)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = run(command.split())
    os.chmod(place, mode)
    print(json.dumps([name, code, said.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def told(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """Exit code and message of every case."""
    folder = tmp_path_factory.mktemp("denied") / "project"
    shutil.copytree(project, folder)
    (folder / "locked").mkdir()
    command = [sys.executable, "-c", CHILD, json.dumps(CASES)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {name: rest for name, *rest in found}


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_may_not_be_read_is_named(told: dict[str, list], case: str) -> None:
    code, said = told[case]
    place = CASES[case][0]
    assert code == 4, said
    assert "error[no-permission]" in said
    verb = "write" if place == "locked" else "read"
    assert f"Cannot {verb}" in said and "Permission denied" in said
    # HDF5 does not say which file it was.
    named = "run/retrieval" if case == "weights" else place.rpartition("/")[2]
    assert named in said
    assert "space" not in said and "bug in Shortlist" not in said
    assert "again" not in said  # neither prepare, train nor export: that helps nothing


def test_errors_of_reading_say_so_in_the_library(tmp_path: Path) -> None:
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a.csv")
    with pytest.raises(ResourceError, match=r"Cannot read 'a\.csv'") as caught:
        with read_errors("b.csv"):
            raise denied
    assert caught.value.code == "no-permission"
    with pytest.raises(ResourceError, match="'b.csv'"):
        with read_errors("b.csv"):
            raise RuntimeError("Permission denied (os error 13): from Polars")
    for other in (FileNotFoundError(errno.ENOENT, "no"), ValueError("no")):
        with pytest.raises(type(other)), read_errors("b.csv"):
            raise other
    damaged = ArtifactError("run-damaged", "Train again.")
    damaged.__cause__ = denied
    assert denied_by(damaged) is denied
    assert denied_by(ValueError()) is None


def test_advice_fits_the_cause() -> None:
    advice = {
        errno.ENOSPC: "Free some space",
        errno.EROFS: "another file system",
        errno.EACCES: "Check the permissions",
    }
    for number, words in advice.items():
        with pytest.raises(ResourceError, match=words) as caught:
            with disk_errors("out"):
                raise OSError(number, os.strerror(number))
        if number != errno.ENOSPC:
            assert "space" not in caught.value.message

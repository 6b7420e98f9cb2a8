"""Files and directories appear whole or not at all, whatever breaks on the way."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from killed import dead_process
from shortlist import atomic
from shortlist.atomic import (
    atomic_directory,
    atomic_file,
    check_absent,
    disk_errors,
    publish_directory,
)
from shortlist.errors import ArtifactError, InputError, ResourceError
from shortlist.outputs import BUNDLE, DATASET, RUN, Kind

KIND = Kind(name="a test output", names=re.compile(r"b\.txt|deep/(?:a\.txt)?"))
SYSTEM_CALLS = ("fsync", "replace", "mkdir")


class FailingCall:
    """Lets `working` calls of a function of `os` through, then fails once."""

    def __init__(self, call: Callable[..., Any], working: int, number: int) -> None:
        self.call = call
        self.working = working
        self.number = number

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.working -= 1
        if self.working == -1:
            raise OSError(self.number, os.strerror(self.number))
        return self.call(*args, **kwargs)

    @property
    def failed(self) -> bool:
        return self.working < 0


@pytest.fixture
def in_two_steps(monkeypatch):
    """Directories are replaced by two renames, as where the system cannot swap them."""
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder and its text."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def write_directory(path: Path, text: str, *, overwrite: bool = False) -> None:
    with atomic_directory(path, overwrite=overwrite, kind=KIND) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a.txt").write_text(text)
        (folder / "b.txt").write_text(text)


def test_file_appears_with_its_parents_and_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    with atomic_file(path) as temporary:
        assert temporary.parent == path.parent
        temporary.write_text("whole")
        assert not path.exists()
    assert tree(tmp_path) == {"new/folder/file.txt": "whole"}


def test_file_keeps_its_old_content_until_the_end(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with atomic_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert tree(tmp_path) == {"file.txt": "new"}


@pytest.mark.parametrize("interruption", [RuntimeError("x"), KeyboardInterrupt()])
def test_file_keeps_its_old_content_when_the_writer_fails(tmp_path, interruption):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(type(interruption)):
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise interruption
    assert tree(tmp_path) == {"file.txt": "old"}


def test_directory_appears_whole_and_readable(tmp_path):
    write_directory(tmp_path / "new" / "out", "whole")
    assert tree(tmp_path) == {
        "new/out/b.txt": "whole",
        "new/out/deep/a.txt": "whole",
    }
    assert stat.S_IMODE((tmp_path / "new" / "out").stat().st_mode) == 0o755


@pytest.mark.parametrize("interruption", [RuntimeError("x"), KeyboardInterrupt()])
@pytest.mark.parametrize("exists", [True, False])
def test_directory_keeps_its_old_content_when_the_writer_fails(
    tmp_path, exists, interruption
):
    path = tmp_path / "out"
    if exists:
        write_directory(path, "old")
    before = tree(tmp_path)
    with pytest.raises(type(interruption)):
        with atomic_directory(path, overwrite=True, kind=KIND) as folder:
            (folder / "b.txt").write_text("half")
            assert tree(path) == (
                {"b.txt": "old", "deep/a.txt": "old"} if exists else {}
            )
            raise interruption
    assert tree(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == (["out"] if exists else [])


def test_overwritten_directory_holds_nothing_of_the_old_one(tmp_path):
    path = tmp_path / "out"
    write_directory(path, "old")
    with atomic_directory(path, overwrite=True, kind=KIND) as folder:
        (folder / "b.txt").write_text("new")
    assert tree(tmp_path) == {"out/b.txt": "new"}
    assert os.listdir(path) == ["b.txt"]


def test_empty_directory_may_be_filled_without_overwrite(tmp_path):
    (tmp_path / "out").mkdir()
    write_directory(tmp_path / "out", "new")
    assert tree(tmp_path) == {"out/b.txt": "new", "out/deep/a.txt": "new"}


@pytest.mark.parametrize("overwrite", [True, False])
def test_existing_output_is_refused(tmp_path, overwrite):
    path = tmp_path / "out"
    if overwrite:
        path.write_text("a file is never replaced by a directory")
    else:
        write_directory(path, "old")
    before = tree(tmp_path)
    with pytest.raises(InputError, match="exists already.*--overwrite") as caught:
        with atomic_directory(path, overwrite=overwrite):
            pytest.fail("must not begin to write")
    assert caught.value.code == "output-exists"
    assert caught.value.file == str(path)
    assert tree(tmp_path) == before


def test_check_absent_lets_new_and_empty_places_pass(tmp_path):
    check_absent(tmp_path / "new")
    check_absent(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="exists already"):
        check_absent(tmp_path / "file")
    with pytest.raises(InputError, match="only replaces what Shortlist wrote"):
        check_absent(tmp_path, overwrite=True)


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.ENOSPC, "no-space", "No space left"),
        (errno.EDQUOT, "no-space", "quota exceeded"),
        (errno.EFBIG, "no-space", "File too large"),
        (errno.EROFS, "read-only", "Read-only file system"),
        (errno.EACCES, "no-permission", "Cannot write"),
        (errno.EPERM, "no-permission", "Cannot write"),
    ],
)
def test_disk_error_says_what_is_wrong_where(number, code, words):
    with pytest.raises(ResourceError, match=words) as caught:
        with disk_errors("some/place"):
            raise OSError(number, os.strerror(number))
    assert caught.value.code == code
    assert caught.value.file == "some/place"
    assert os.strerror(number) in str(caught.value)
    assert caught.value.exit_code == 4


def test_error_of_polars_on_a_full_disk_is_recognized():
    # Polars raises it without a number: only its text says "(os error 28)".
    with pytest.raises(ResourceError, match="No space left") as caught:
        with disk_errors("place"):
            pl.DataFrame({"a": range(10_000)}).write_ipc("/dev/full")
    assert caught.value.code == "no-space"
    with pytest.raises(ResourceError, match="No space left") as caught:
        with disk_errors("place"):
            pl.DataFrame({"a": range(10_000)}).write_parquet("/dev/full")
    assert caught.value.code == "no-space"


def test_other_errors_pass_unchanged():
    for error in (
        OSError(errno.EIO, "broken"),
        ValueError("28"),
        ArtifactError("a-code", "No."),
    ):
        with pytest.raises(type(error)) as caught:
            with disk_errors("place"):
                raise error
        assert caught.value is error


def test_output_below_a_file_or_in_place_of_a_directory_is_refused(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    for path in (
        tmp_path / "file" / "out",
        tmp_path / "folder",
        tmp_path / ("x" * 300),
    ):
        with pytest.raises(InputError, match="Choose another path") as caught:
            with atomic_file(path) as temporary:
                temporary.write_text("new")
        assert caught.value.code == "output-path"
        assert caught.value.file == str(path)
    with pytest.raises(InputError, match="Choose another path"):
        with atomic_directory(tmp_path / "file" / "out"):
            pytest.fail("must not begin to write")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "no-space"), (errno.EROFS, "read-only")]
)
@pytest.mark.parametrize("name", SYSTEM_CALLS)
@pytest.mark.parametrize("overwrite", [True, False])
def test_directory_survives_the_failure_of_any_system_call(
    tmp_path, monkeypatch, in_two_steps, overwrite, name, number, code
):
    old = {"out/b.txt": "old", "out/deep/a.txt": "old"} if overwrite else {}
    new = {"out/b.txt": "new", "out/deep/a.txt": "new"}
    for working in range(100):
        root = tmp_path / str(working)
        root.mkdir()
        if overwrite:
            write_directory(root / "out", "old")
        failing = FailingCall(getattr(os, name), working, number)
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing)
            try:
                write_directory(root / "out", "new", overwrite=overwrite)
            except ResourceError as error:
                assert error.code == code
        # A failure after the last rename, in flushing the parent, comes too late.
        assert tree(root) in (old, new)
        assert len(os.listdir(root)) == bool(tree(root))
        if not failing.failed:
            break
    assert tree(root) == new
    assert working > 0


@pytest.mark.parametrize("name", SYSTEM_CALLS)
def test_file_survives_the_failure_of_any_system_call(tmp_path, monkeypatch, name):
    path = tmp_path / "file.txt"
    path.write_text("old")
    for working in range(10):
        failing = FailingCall(getattr(os, name), working, errno.ENOSPC)
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing)
            try:
                with atomic_file(path) as temporary:
                    temporary.write_text("new")
            except ResourceError as error:
                assert error.code == "no-space"
        assert os.listdir(tmp_path) == ["file.txt"]
        assert path.read_text() in ("old", "new")
        if not failing.failed:
            break
    assert path.read_text() == "new"
    assert working > 0


def test_old_directory_is_put_back_when_the_new_one_cannot_take_its_place(
    tmp_path, monkeypatch, in_two_steps
):
    path = tmp_path / "out"
    write_directory(path, "old")
    replace = os.replace

    def fail_for_the_new_one(source: Path, target: Path) -> None:
        if Path(target) == path and ".old." not in Path(source).name:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_for_the_new_one)
    with pytest.raises(KeyboardInterrupt):
        write_directory(path, "new", overwrite=True)
    assert tree(tmp_path) == {"out/b.txt": "old", "out/deep/a.txt": "old"}
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("kind", [DATASET, RUN, BUNDLE], ids=lambda kind: kind.name)
def test_a_directory_of_somebody_else_is_never_replaced(tmp_path, kind):
    path, (manifest,) = tmp_path / "photos", kind.manifests
    path.mkdir()
    (path / "holiday.png").write_bytes(b"x")
    with pytest.raises(
        InputError, match="only replaces what Shortlist wrote"
    ) as caught:
        with atomic_directory(path, overwrite=True, kind=kind) as folder:
            (folder / manifest).write_text("{}")
    assert caught.value.code == "output-foreign"
    assert [file.name for file in path.iterdir()] == ["holiday.png"]
    assert list(tmp_path.iterdir()) == [path]
    (path / "holiday.png").unlink()
    ours = json.dumps({"format": f"shortlist-{kind.name.split()[1]}"})
    (path / manifest).write_text(ours)
    with atomic_directory(path, overwrite=True, kind=kind) as folder:
        (folder / manifest).write_text("new")
    assert [file.read_text() for file in path.iterdir()] == ["new"]


@pytest.mark.parametrize("path", ["/proc/shortlist/output", "a" * 300])
def test_impossible_paths_are_the_users_mistake(tmp_path, path):
    with pytest.raises((InputError, ResourceError)) as caught:
        with atomic_directory(tmp_path / path, kind=KIND) as folder:
            (folder / "x").write_text("x")
    assert caught.value.code in ("output-path", "no-permission", "read-only")
    assert list(tmp_path.iterdir()) == []


def test_an_error_inside_names_the_output_and_not_the_temporary(tmp_path, monkeypatch):
    out = tmp_path / "dataset"
    with pytest.raises(ResourceError) as caught:
        with atomic_directory(out) as folder:
            with atomic_file(folder / "part.arrow"):
                raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.file == str(out)
    assert f"{out}/part.arrow" in caught.value.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="swaps two paths on Linux alone")
def test_a_directory_is_replaced_in_one_step(tmp_path, monkeypatch):
    write_directory(tmp_path / "out", "old")
    monkeypatch.setattr(os, "replace", None)  # which leaves a moment without any
    write_directory(tmp_path / "out", "new", overwrite=True)
    assert tree(tmp_path) == {"out/b.txt": "new", "out/deep/a.txt": "new"}
    assert os.listdir(tmp_path) == ["out"]


def test_paths_that_cannot_be_swapped_stay_as_they_are(tmp_path):
    write_directory(tmp_path / "out", "old")
    assert not atomic._exchange(tmp_path / "missing", tmp_path / "out")
    assert tree(tmp_path) == {"out/b.txt": "old", "out/deep/a.txt": "old"}


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("there", ["full", "empty", "nothing"])
def test_a_link_stays_and_what_it_points_to_is_replaced(
    tmp_path, monkeypatch, there, steps
):
    if steps == 2:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    small, big = tmp_path / "small", tmp_path / "big"
    small.mkdir()
    big.mkdir()
    if there == "full":
        write_directory(big / "data", "old")
    elif there == "empty":
        (big / "data").mkdir()
    (small / "out").symlink_to("../big/data")
    left = big / f".data.{dead_process()}.abcd_123"
    left.mkdir()
    if there == "full":
        with pytest.raises(InputError, match="exists already") as caught:
            write_directory(small / "out", "new")
        assert caught.value.file == str(small / "out")
    write_directory(small / "out", "new", overwrite=there == "full")
    assert (small / "out").is_symlink()
    assert os.listdir(small) == ["out"] and os.listdir(big) == ["data"]
    assert tree(big / "data") == {"b.txt": "new", "deep/a.txt": "new"}


def test_a_finished_directory_takes_the_place_behind_a_link(tmp_path):
    write_directory(tmp_path / "there", "old")
    write_directory(tmp_path / "new", "new")
    (tmp_path / "out").symlink_to("there")
    publish_directory(tmp_path / "new", tmp_path / "out", KIND)
    assert (tmp_path / "out").is_symlink()
    assert tree(tmp_path / "there") == {"b.txt": "new", "deep/a.txt": "new"}


def test_a_link_that_leads_nowhere_is_refused(tmp_path):
    (tmp_path / "out").symlink_to("out")
    with pytest.raises(InputError) as caught:
        write_directory(tmp_path / "out", "new", overwrite=True)
    assert caught.value.code in ("output-path", "output-exists")
    assert os.listdir(tmp_path) == ["out"]


OTHERS = [".out.more.{}.abcd_123", ".output.{}.abcd_123", "out.{}.abcd_123"]
OTHERS += [".out.{}.mine", ".out.abcd_123"]

WRITER = """
import sys
from shortlist.atomic import atomic_directory
with atomic_directory(sys.argv[1]) as folder:
    (folder / "b.txt").write_text("theirs")
    print(folder.name, flush=True)
    sys.stdin.read()
"""


def test_what_dead_writers_left_goes_away_and_nothing_else(tmp_path):
    dead = dead_process()
    # In a container the number of the process is often the same in every run.
    numbers = dict.fromkeys([dead, os.getpid(), os.getppid(), 1])
    left = [f".out.{number}.abcd_123" for number in numbers]
    left += [f".out.{dead_process()}.old.abcd_123"]
    kept = [name.format(dead) for name in OTHERS]
    for name in (*left, *kept):
        write_directory(tmp_path / name, name)
    write_directory(tmp_path / "out", "old")
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "out"])
    assert all(tree(tmp_path / name)["b.txt"] == name for name in kept)
    (tmp_path / left[0]).mkdir()
    with pytest.raises(InputError, match="exists already"):
        write_directory(tmp_path / "out", "new")
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "out"])


def test_what_is_being_written_stays_whoever_writes(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "out")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        theirs = tmp_path / other.stdout.readline().strip()
        # Two writers of one process, as on two threads.
        with atomic_directory(tmp_path / "out", overwrite=True, kind=KIND) as ours:
            (ours / "b.txt").write_text("ours")
            write_directory(tmp_path / "out", "old")
            assert tree(theirs) == {"b.txt": "theirs"}
            assert tree(ours) == {"b.txt": "ours"}
        assert tree(tmp_path / "out") == {"b.txt": "ours"}
        other.kill()
    assert theirs.is_dir()
    write_directory(tmp_path / "out", "new", overwrite=True)
    assert os.listdir(tmp_path) == ["out"]


def test_the_old_directory_is_held_while_it_is_moved_aside(
    tmp_path, monkeypatch, in_two_steps
):
    path = tmp_path / "out"
    write_directory(path, "old")
    replace = os.replace
    seen = []

    def tidied_before(source: Path, target: Path) -> None:
        if Path(target) == path and ".old." not in Path(source).name:
            atomic._tidy(path, KIND)  # as another writer does
            seen.append(len(os.listdir(tmp_path)))
        replace(source, target)

    monkeypatch.setattr(os, "replace", tidied_before)
    write_directory(path, "new", overwrite=True)
    assert seen == [2]  # the old one and the new one, nothing at the path
    assert tree(tmp_path) == {"out/b.txt": "new", "out/deep/a.txt": "new"}


def test_a_directory_taken_for_a_left_one_before_it_is_locked_is_made_again(
    tmp_path, monkeypatch
):
    made = []
    new_directory = atomic._new_directory

    def tidied_after(parent: Path, prefix: str) -> Path:
        made.append(new_directory(parent, prefix))
        if len(made) == 1:
            atomic._tidy(tmp_path / "out", KIND)
        return made[-1]

    monkeypatch.setattr(atomic, "_new_directory", tidied_after)
    write_directory(tmp_path / "out", "new")
    assert len(made) == 2
    assert tree(tmp_path) == {"out/b.txt": "new", "out/deep/a.txt": "new"}


def test_without_locks_the_number_of_the_process_decides(tmp_path, monkeypatch):
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    left = [f".out.{dead_process()}.{kind}abcd_123" for kind in ("", "old.")]
    # Of another thread of ours, of our parent, of a user whom we may not even ask.
    numbers = {os.getpid(), os.getppid(), 1}
    kept = [f".out.{number}.abcd_123" for number in numbers]
    for name in (*left, *kept):
        write_directory(tmp_path / name, name)
    write_directory(tmp_path / "out", "old")
    write_directory(tmp_path / "out", "new", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "out"])


def test_the_old_one_is_put_back_only_while_the_new_one_is_not_in_place(tmp_path):
    dead = dead_process()
    new, old = (tmp_path / f".out.{dead}.{kind}aaaaaaaa" for kind in ("", "old."))
    # Killed between the two renames.
    write_directory(new, "new")
    write_directory(old, "old")
    with pytest.raises(InputError, match="exists already"):
        write_directory(tmp_path / "out", "next")
    assert tree(tmp_path) == {"out/b.txt": "old", "out/deep/a.txt": "old"}
    # Killed before the first: there is nothing to put back.
    write_directory(new, "new")
    old.mkdir()
    write_directory(tmp_path / "out", "next", overwrite=True)
    assert tree(tmp_path) == {"out/b.txt": "next", "out/deep/a.txt": "next"}
    # Killed after the second, and the user has moved the new one elsewhere.
    write_directory(old, "old")
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    write_directory(tmp_path / "out", "last")
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "out"]
    assert tree(tmp_path / "out") == {"b.txt": "last", "deep/a.txt": "last"}


@pytest.mark.parametrize("before", ["nothing", "an empty directory"])
def test_what_appears_at_the_place_of_an_output_is_kept(tmp_path, capsys, before):
    path = tmp_path / "out"
    if before != "nothing":
        path.mkdir()
    with atomic_directory(path, kind=KIND) as folder:
        (folder / "b.txt").write_text("new")
        path.mkdir(exist_ok=True)
        (path / "thesis.txt").write_text("mine")
    assert tree(path) == {"b.txt": "new"}
    (kept,) = tmp_path.glob("out.kept-*")
    assert tree(kept) == {"thesis.txt": "mine"}
    assert str(kept) in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {"out", kept.name}

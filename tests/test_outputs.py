"""Only files that Shortlist wrote are ever removed; nothing else is touched."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from killed import dead_process
from shortlist import atomic, outputs
from shortlist.atomic import atomic_directory, atomic_file, check_absent, check_file
from shortlist.bundle import write_bundle
from shortlist.data import Schema, prepare
from shortlist.errors import InputError, ShortlistError
from shortlist.outputs import (
    BUNDLE,
    DATASET,
    FOLDS,
    RUN,
    TRAINING,
    Kind,
    check_place,
    contents_of,
    of_files,
    remove_ours,
)
from stored_runs import write_run
from tiny_bundle import make_contents

GOLDEN = Path(__file__).parent / "golden"
SCHEMA = Schema(user_id="user", item_id="item", timestamp="time")


def write_log(path: Path) -> Path:
    rows = [(u, i, 10 * u + i) for u in range(6) for i in range(5)]
    frame = pl.DataFrame(rows, ["user", "item", "time"], orient="row")
    frame.write_csv(path)
    return path


def write_dataset(path: Path, *, overwrite: bool = False) -> None:
    log = write_log(path.parent / "log.csv")
    prepare(log, SCHEMA, path, overwrite=overwrite)


def write_one_run(path: Path, *, overwrite: bool = False) -> None:
    with atomic_directory(path, overwrite=overwrite, kind=RUN) as folder:
        write_run(folder)


def write_one_bundle(path: Path, *, overwrite: bool = False) -> None:
    write_bundle(path, make_contents(ranker=False), overwrite=overwrite)


Write = Callable[..., None]
WRITERS: dict[str, tuple[Write, Kind]] = {
    "dataset": (write_dataset, DATASET),
    "run": (write_one_run, RUN),
    "bundle": (write_one_bundle, BUNDLE),
}
each = pytest.mark.parametrize("name", WRITERS)


def tree(folder: Path) -> dict[str, bytes]:
    """Every path below a folder and its bytes; of a folder or link nothing."""
    found = {}
    for path in folder.rglob("*"):
        plain = path.is_file() and not path.is_symlink()
        name = path.relative_to(folder).as_posix()
        found[name] = path.read_bytes() if plain else b""
    return found


def refused(action: Callable[[], object], code: str = "output-foreign") -> InputError:
    with pytest.raises(InputError) as caught:
        action()
    assert caught.value.code == code
    assert "Nothing was changed" in caught.value.message
    return caught.value


@each
def test_all_that_is_written_is_known_as_ours(tmp_path, name):
    write, kind = WRITERS[name]
    write(tmp_path / name)
    found = contents_of(tmp_path / name, kind)
    assert found is not None and found.foreign == []
    write(tmp_path / name, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == sorted(
        {name, *(["log.csv"] if name == "dataset" else [])}
    )
    assert remove_ours(tmp_path / name, kind) == []
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("dataset-v2", DATASET), ("bundle-v1", BUNDLE), ("bundle-v2", BUNDLE)],
)
def test_all_of_older_versions_is_known_as_ours(name, kind):
    found = contents_of(GOLDEN / name, kind)
    assert found is not None and found.foreign == []


@each
@pytest.mark.parametrize(
    "theirs", ["thesis.docx", ".env", "notes/today.txt", "vocabularies/mine.txt"]
)
def test_a_file_of_somebody_else_is_named_and_nothing_changes(tmp_path, name, theirs):
    write, _ = WRITERS[name]
    write(tmp_path / name)
    file = tmp_path / name / theirs
    file.parent.mkdir(exist_ok=True)
    file.write_text("years of work")
    before = tree(tmp_path)
    error = refused(lambda: write(tmp_path / name, overwrite=True))
    assert repr(theirs) in error.message
    assert tree(tmp_path) == before


@each
def test_links_folders_and_pipes_in_an_output_are_somebody_elses(tmp_path, name):
    write, _ = WRITERS[name]
    write(tmp_path / name)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"cat")
    (tmp_path / name / "link").symlink_to("../photos")
    refused(lambda: write(tmp_path / name, overwrite=True))
    (tmp_path / name / "link").unlink()
    (tmp_path / name / "empty").mkdir()
    assert "'empty/'" in str(refused(lambda: write(tmp_path / name, overwrite=True)))
    (tmp_path / name / "empty").rmdir()
    os.mkfifo(tmp_path / name / "pipe")
    refused(lambda: write(tmp_path / name, overwrite=True))
    assert (tmp_path / "photos" / "cat.png").read_bytes() == b"cat"


MANIFESTS = {
    "web": {"name": "Shop", "start_url": "/", "icons": []},
    "npm": {"name": "shop", "version": "1.0.0", "files": ["index.js"]},
    "extension": {"manifest_version": 3, "name": "Block", "format": 2},
    "list": ["index.js"],
    "text": "shortlist-bundle",
}


@each
@pytest.mark.parametrize("manifest", MANIFESTS)
def test_the_manifest_of_another_program_makes_nothing_ours(tmp_path, name, manifest):
    write, kind = WRITERS[name]
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / kind.manifests[0]).write_text(json.dumps(MANIFESTS[manifest]))
    (folder / "index.js").write_text("alert(1)")
    before = tree(folder)
    error = refused(lambda: write(folder, overwrite=True))
    assert kind.manifests[0] in error.message
    assert tree(folder) == before


@each
@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b"[" * 100_000, None])
def test_a_manifest_that_cannot_be_read_makes_nothing_ours(tmp_path, name, damage):
    write, kind = WRITERS[name]
    write(tmp_path / name)
    file = tmp_path / name / kind.manifests[0]
    if damage is None:  # a link to one of ours
        file.rename(tmp_path / "elsewhere.json")
        file.symlink_to("../elsewhere.json")
    else:
        file.write_bytes(damage)
    refused(lambda: write(tmp_path / name, overwrite=True))


def test_only_what_a_manifest_lists_is_removed(tmp_path):
    folder = tmp_path / "run"
    write_run(folder)
    info = json.loads((folder / "run.json").read_text())
    info["files"] = {"recipe.json": {"size": 1}, "ranker/new-in-2027.bin": {}}
    (folder / "run.json").write_text(json.dumps(info))
    (folder / "ranker").mkdir()
    (folder / "ranker" / "new-in-2027.bin").write_bytes(b"x")
    (folder / "evaluation.json").write_text("{}")  # after the list was written
    found = contents_of(folder, RUN)
    # The names of the format no longer count: this one is not listed.
    assert found is not None and found.foreign == ["retrieval/weights"]
    assert remove_ours(folder, RUN) == ["retrieval/", "retrieval/weights"]


def test_a_manifest_cannot_name_files_outside(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    folder = tmp_path / "bundle"
    folder.mkdir()
    files = {"../mine.txt": {}, str(tmp_path / "mine.txt"): {}, "a/../../mine.txt": {}}
    manifest = {"format": "shortlist-bundle", "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert remove_ours(folder, BUNDLE) == []
    assert os.listdir(tmp_path) == ["mine.txt"]


@pytest.mark.parametrize("steps", [1, 2])
@each
def test_what_appears_while_an_output_is_replaced_is_kept_in_sight(
    tmp_path, monkeypatch, capsys, name, steps
):
    write, kind = WRITERS[name]
    write(tmp_path / name)
    replace_directory = atomic._replace_directory

    def late(temporary: Path, path: Path) -> Path | None:
        (path / "late").mkdir()
        (path / "late" / "result.txt").write_text("just saved")
        return replace_directory(temporary, path)

    monkeypatch.setattr(atomic, "_replace_directory", late)
    if steps == 2:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    write(tmp_path / name, overwrite=True)
    (kept,) = tmp_path.glob(f"{name}.kept-*")
    assert tree(kept) == {"late": b"", "late/result.txt": b"just saved"}
    err = capsys.readouterr().err
    assert err.startswith("warning[output-kept]") and str(kept) in err
    found = contents_of(tmp_path / name, kind)
    assert found is not None and found.foreign == []
    assert not [n for n in os.listdir(tmp_path) if n.startswith(".")]


def test_what_a_killed_writer_left_is_tidied_without_the_files_of_others(tmp_path):
    write_one_bundle(tmp_path / "bundle")
    # Killed after the two were swapped: the old one has the hidden name.
    left = tmp_path / f".bundle.{dead_process()}.0a1b2c3d"
    shutil.copytree(tmp_path / "bundle", left)
    (left / "late.txt").write_text("mine")
    write_one_bundle(tmp_path / "bundle", overwrite=True)
    assert not left.exists()
    (kept,) = tmp_path.glob("bundle.kept-*")
    assert tree(kept) == {"late.txt": b"mine"}


def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    home, project = tmp_path / "home" / "ann", tmp_path / "work" / "project"
    (project / "below").mkdir(parents=True)
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(project)
    (tmp_path / "link").symlink_to(project)
    (tmp_path / "chain").symlink_to("link")
    return {
        "root": Path("/"),
        "home": home,
        "above home": home.parent,
        "here": Path("."),
        "above": Path(".."),
        "back": Path("below/.."),
        "link": tmp_path / "link",
        "chain": tmp_path / "chain",
    }


NAMES = ["root", "home", "above home", "here", "above", "back", "link", "chain"]


@pytest.mark.parametrize("place", NAMES)
@pytest.mark.parametrize("overwrite", [True, False])
def test_some_places_are_never_an_output_even_empty(
    tmp_path, monkeypatch, place, overwrite
):
    path = places(tmp_path, monkeypatch)[place]
    before = tree(tmp_path)
    for write in (write_one_bundle, write_one_run):
        refused(lambda: write(path, overwrite=overwrite), "output-place")
    assert tree(tmp_path) == before


def test_a_mount_point_is_refused_with_the_reason(tmp_path, monkeypatch):
    with open("/proc/self/mountinfo") as file:
        mounted = [Path(line.split()[4]) for line in file]
    there = [path for path in mounted if path.is_dir() and path != Path("/")]
    assert there  # at least /proc
    for path in there:
        assert "mount point" in str(refused(lambda: check_place(path), "output-place"))
    # One that shows only when the system refuses to rename it.
    write_one_bundle(tmp_path / "bundle")
    before = tree(tmp_path)
    for number in (errno.EBUSY, errno.EXDEV):

        def busy(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(atomic, "_exchange", lambda one, other: False)
            patch.setattr(os, "replace", busy)
            error = refused(
                lambda: write_one_bundle(tmp_path / "bundle", overwrite=True),
                "output-place",
            )
        assert "mount point" in error.message
        assert tree(tmp_path) == before


def test_a_mount_from_the_same_disk_is_found_in_the_list(tmp_path, monkeypatch):
    place = tmp_path / "with blank"
    place.mkdir()
    name = str(place).replace(" ", "\\040")
    listed = f"36 35 98:0 /a {name} rw,noatime - ext3 /dev/root rw\n".encode()
    monkeypatch.setattr(Path, "read_bytes", lambda self: listed)
    refused(lambda: check_place(place), "output-place")
    check_place(tmp_path / "with")


def test_the_state_of_a_training_is_removed_and_nothing_else(tmp_path):
    from shortlist.training.runs.unfinished import State, Unfinished

    def begin(out: Path) -> Unfinished:
        state = State(recipe={}, dataset_fingerprint="1", backend="jax")
        return Unfinished(out, state, overwrite=True)

    hidden = tmp_path / ".run.training"
    (hidden / "e00003-b000000").mkdir(parents=True)
    (hidden / "e00003-b000000" / "model.weights.h5").write_bytes(b"x")
    (hidden / "notes.txt").write_text("mine")
    before = tree(tmp_path)
    assert "'notes.txt'" in str(refused(lambda: begin(tmp_path / "run")))
    assert tree(tmp_path) == before
    (hidden / "notes.txt").unlink()
    with begin(tmp_path / "run"):
        pass
    assert os.listdir(tmp_path) == []
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"cat")
    hidden.symlink_to("photos")
    refused(lambda: begin(tmp_path / "run"))
    assert tree(tmp_path / "photos") == {"cat.png": b"cat"}


def test_a_run_of_a_store_with_notes_in_it_is_not_removed(tmp_path):
    from shortlist.training.runs.run_store import RunStore

    run = write_run(tmp_path / "run")
    (run.path / "huge.zip").write_bytes(b"mine")
    store = RunStore(tmp_path / "runs")
    record = store.add(run)
    assert not (Path(record.path) / "huge.zip").exists()
    (Path(record.path) / "notes.txt").write_text("mine")
    assert "'notes.txt'" in str(refused(lambda: store.remove(record.id)))
    (Path(record.path) / "notes.txt").unlink()
    store.remove(record.id)
    assert store.records() == []
    assert not [n for n in os.listdir(store.path) if n.startswith(".removed")]


def write_database(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE runs (distance REAL)")
    database.execute("CREATE TABLE studies (study_name TEXT)")
    database.execute("INSERT INTO studies VALUES ('my thesis')")
    database.commit()
    database.close()


def test_a_database_of_another_program_is_left_alone(tmp_path):
    from shortlist.training.runs.run_index import INDEX_FILE
    from shortlist.training.runs.run_store import RunStore

    write_database(tmp_path / "runs" / INDEX_FILE)
    before = tree(tmp_path)
    refused(lambda: RunStore(tmp_path / "runs").records())
    assert tree(tmp_path) == before
    index = tmp_path / "runs" / INDEX_FILE
    index.write_bytes(b"no database, but perhaps somebody's")
    assert RunStore(tmp_path / "runs").records() == []
    (kept,) = (tmp_path / "runs").glob(f"{INDEX_FILE}.kept-*")
    assert kept.read_bytes() == b"no database, but perhaps somebody's"


def test_folds_of_a_cross_validation_go_and_the_rest_stays(tmp_path):
    folder = tmp_path / "folds"
    for number in (1, 2):
        write_run(folder / f"fold-{number}" / "run")
    write_dataset(folder / "fold-2" / "dataset")
    (folder / "fold-2" / "log.csv").unlink()
    (folder / "plan.json").write_text(json.dumps({"folds": 2, "recipe": {}}))
    check_absent(folder, overwrite=True, kind=FOLDS)
    (folder / "fold-1" / "paper.tex").write_text("mine")
    refused(lambda: check_absent(folder, overwrite=True, kind=FOLDS))
    assert remove_ours(folder, FOLDS) == ["fold-1/", "fold-1/paper.tex"]
    # A plan of somebody else.
    (folder / "plan.json").write_text(json.dumps({"steps": ["buy milk"]}))
    refused(lambda: check_absent(folder, overwrite=True, kind=FOLDS))


def test_a_checkpoint_never_replaces_a_project(tmp_path):
    from shortlist.models.scorers.popularity import Popularity
    from shortlist.models.scorers.storage import save_scorer

    arrays = {"scores": (1, 2), "segments": (0,), "counts": (2,)}
    scorer = Popularity.from_arrays(
        {}, {name: np.zeros(shape, np.float32) for name, shape in arrays.items()}
    )
    save_scorer(tmp_path / "model", scorer)
    save_scorer(tmp_path / "model", scorer)
    (tmp_path / "model" / "train.py").write_text("mine")
    error = refused(lambda: save_scorer(tmp_path / "model", scorer))
    assert "'train.py'" in error.message


def test_a_folder_without_a_manifest_is_known_by_its_names(tmp_path):
    kind = of_files("public data", "u.data", "README")
    (tmp_path / "ml").mkdir()
    (tmp_path / "ml" / "u.data").write_text("half")
    check_absent(tmp_path / "ml", overwrite=True, kind=kind)
    (tmp_path / "ml" / "u1.base").write_text("mine")
    refused(lambda: check_absent(tmp_path / "ml", overwrite=True, kind=kind))


def test_temporary_files_of_killed_writers_are_ours(tmp_path):
    folder = tmp_path / ".run.training"
    names = [
        ".state.json.0a1b2c3d.tmp",
        ".state.json.4711.tmp",  # of earlier versions
        "run/.metrics.jsonl.0a1b2c3d.tmp",
        "run/.retrieval.4711.0a1b2c3d/model.json",
        "e00001-b000000/.model.weights.h5.ab_cd3f4/model.weights.h5",
        "e00001-b000000/model.weights.h5.tables/user.part",
    ]
    theirs = [".state.json.backup", "run/.secret", "e1/model.json", ".a.0a1b2c3d.tmp"]
    for name in (*names, *theirs):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    found = contents_of(folder, TRAINING)
    assert found is not None
    assert set(names) <= set(found.ours)
    assert sorted(found.foreign) == sorted(theirs)


def test_files_are_replaced_only_by_their_own_kind(tmp_path):
    def check(path: Path, *, overwrite: bool = True, **others: object) -> None:
        check_file(
            path,
            lambda head: head.startswith(b"ours"),
            overwrite=overwrite,
            name="a page",
            **others,  # type: ignore[arg-type]
        )

    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_text("ours, longer than what is compared" * 1000)
    theirs.write_text("not ours")
    check(tmp_path / "new")
    check(ours)
    assert "not a page" in str(refused(lambda: check(theirs)))
    assert "an input" in str(refused(lambda: check(ours, inputs=[theirs, ours])))
    (tmp_path / "link").symlink_to(ours)
    refused(lambda: check(tmp_path / "link", inputs=[ours]))
    refused(lambda: check(tmp_path))
    refused(lambda: check(Path("/dev/null")))
    with pytest.raises(InputError) as caught:
        check(ours, overwrite=False)
    assert caught.value.code == "output-exists"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_are_what_the_umask_says(tmp_path, umask):
    before = os.umask(umask)
    try:
        with atomic_file(tmp_path / "file") as temporary:
            temporary.write_text("x")
        write_one_bundle(tmp_path / "bundle")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o777 & ~umask


def test_a_link_at_a_temporary_name_is_never_written_through(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    drawn = iter(["00000000", "00000000", "11111111"])
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda size: next(drawn))
    (tmp_path / ".page.html.00000000.tmp").symlink_to(victim)
    (tmp_path / f".page.html.{os.getpid()}.tmp").symlink_to(victim)
    with atomic_file(tmp_path / "page.html") as temporary:
        assert temporary.name == ".page.html.11111111.tmp"
        temporary.write_text("page")
    assert victim.read_text() == "precious"
    assert (tmp_path / "page.html").read_text() == "page"


def test_devices_and_pipes_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/null"), tmp_path / "pipe"):
        with pytest.raises(ShortlistError) as caught, atomic_file(path):
            pytest.fail("must not begin to write")
        assert caught.value.code == "output-path"
    assert not Path("/dev/null").is_file()
    assert outputs.is_temporary(".a.0a1b2c3d.tmp") and not outputs.is_temporary(".a")


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_lock_is_neither_a_link_nor_a_pipe(tmp_path, kind):
    from shortlist.training.runs.unfinished import State, Unfinished

    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock = tmp_path / ".run.training" / "lock"
    lock.parent.mkdir()
    lock.symlink_to(victim) if kind == "link" else os.mkfifo(lock)
    state = State(recipe={}, dataset_fingerprint="1", backend="jax")
    with pytest.raises(InputError) as caught:
        Unfinished(tmp_path / "run", state, overwrite=True)
    assert caught.value.code == "output-path"
    assert victim.read_text() == "precious"


def test_files_of_a_download_are_not_written_through_links(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "u.zip.part").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links") as caught:
        open(tmp_path / "u.zip.part", "wb", opener=atomic.no_link).close()
    assert caught.value.errno == errno.ELOOP
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", ["test.arrow", "users.arrow", "pending-items.arrow"])
def test_names_of_an_older_format_are_no_files_of_a_dataset_that_lists_its_own(
    tmp_path, name
):
    write_dataset(tmp_path / "dataset")
    (tmp_path / "dataset" / name).write_text("mine")
    with pytest.raises(InputError, match=name) as caught:
        write_dataset(tmp_path / "dataset", overwrite=True)
    assert caught.value.code == "output-foreign"
    assert (tmp_path / "dataset" / name).read_text() == "mine"

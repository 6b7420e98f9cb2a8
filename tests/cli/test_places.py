"""Where outputs may be, and what --overwrite may replace, from the command line."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import polars as pl
import pytest

from shortlist.cli.app import run
from shortlist.cli.demo import DEMO_FILE, check_folder
from shortlist.drawing import canvas, is_png_of_ours, png_of
from shortlist.errors import InputError
from shortlist.page import is_page, page_html
from small_logs import write_movielens_100k


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a log and its recipe, the current one, within a home."""
    folder = tmp_path / "home" / "shop"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.chdir(folder)
    assert run(["init", *write_movielens_100k(folder)]) == 0
    return folder


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


NOT_OUTPUTS = {
    "the folder of the recipe": ["output.bundle=."],
    "its parent": ["output.run=.."],
    "the home directory": ["output.dataset=~"],
    "the root": ["output.bundle=/"],
    "a roundabout way": ["output.bundle=sub/.."],
    "through a link": ["output.bundle=here"],
    "one in another": ["output.run=dataset/run"],
    "another in one": ["output.dataset=run/data"],
    "the same twice": ["output.bundle=run"],
    "the same through a link": ["output.bundle=here/run"],
    "searches in a run": ["tune.folder=run/tune"],
    "a store in a bundle": ["tracking.store=bundle/runs"],
    "a database in a dataset": ["tracking.mlflow=dataset/mlflow.db"],
}
COMMANDS = ["prepare", "train", "tune", "export", "cross-validate"]


@pytest.mark.parametrize("name", NOT_OUTPUTS)
def test_an_output_is_a_folder_of_its_own(call, shop, name) -> None:
    (shop / "here").symlink_to(".")
    (shop / "sub").mkdir()
    (shop / "manifest.json").write_text(json.dumps({"name": "web shop"}))
    settings = NOT_OUTPUTS[name]
    if settings[0].endswith("~"):  # as a shell has it
        settings = [settings[0].replace("~", os.environ["HOME"])]
    before = snapshot(shop.parent)
    for command in COMMANDS:
        options = [] if command == "tune" else ["--overwrite"]
        result = call(command, *options, *(f"--set={s}" for s in settings))
        assert result.code == 2, (command, result.err)
        assert result.err.startswith("error[output-place]"), command
        assert "Nothing was changed" in result.err
    assert snapshot(shop.parent) == before


@pytest.mark.parametrize("file", ["u.data", "u.user", "u.item"])
def test_a_folder_with_an_input_is_no_output(call, shop, file) -> None:
    (shop / "dataset").mkdir()
    (shop / file).rename(shop / "dataset" / file)
    key = {"u.data": "events", "u.user": "users", "u.item": "items"}[file]
    before = snapshot(shop)
    for options in ([], ["--overwrite"]):
        result = call("prepare", *options, f"--set=log.{key}=dataset/{file}")
        assert result.code == 2 and "output-place" in result.err
        assert f"[log] {key}" in result.err
    assert snapshot(shop) == before


def test_a_dataset_with_a_thesis_is_kept(call, shop) -> None:
    assert call("prepare").code == 0
    assert call("prepare", "--overwrite").code == 0
    (shop / "dataset" / "thesis.docx").write_bytes(b"years of work")
    before = snapshot(shop)
    result = call("prepare", "--overwrite", "--json")
    assert result.code == 2
    assert result.json["error"]["code"] == "output-foreign"
    assert "'thesis.docx'" in result.json["error"]["message"]
    assert snapshot(shop) == before


def test_a_run_in_the_store_and_folders_beside_each_other_are_fine(call, shop) -> None:
    settings = ["output.run=runs/mine", "tracking.store=runs", "output.dataset=data/x"]
    settings += ["output.bundle=data/xy", "tune.folder=runs-tune"]
    assert call("prepare", *(f"--set={s}" for s in settings)).code == 0


def test_a_demo_never_replaces_a_project(tmp_path: Path, shop: Path) -> None:
    recipe = shop / "shortlist.toml"
    before = snapshot(shop)
    for folder in (Path("."), shop):
        with pytest.raises(InputError, match="earlier demo") as caught:
            check_folder(folder)
        assert caught.value.code == "output-foreign"
        assert "'shortlist.toml'" in caught.value.message
    assert run(["demo", "--folder", ".", "--check"]) == 2
    assert snapshot(shop) == before
    # What the demo wrote may be replaced, until somebody changes it.
    digest = hashlib.sha256(recipe.read_bytes()).hexdigest()
    manifest = {"format": "shortlist-demo", "files": {"shortlist.toml": digest}}
    (shop / DEMO_FILE).write_text(json.dumps(manifest))
    (shop / "dataset").mkdir()
    check_folder(shop)
    recipe.write_text(recipe.read_text() + "# my settings\n")
    for change in (lambda: None, recipe.unlink, (shop / DEMO_FILE).unlink):
        change()
        with pytest.raises(InputError):
            check_folder(shop)
    check_folder(tmp_path / "new")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    check_folder(tmp_path / "other")


@pytest.mark.parametrize(
    "text",
    [
        "[project]\nname = 'shop'\n",
        "user,item\n1,2\n",
        "\n".join(f"a{i} = 1" for i in range(999)),
    ],
)
def test_a_recipe_replaces_recipes_alone(call, shop, text) -> None:
    log, recipe = shop / "u.data", shop / "shortlist.toml"
    assert call("init", log, "--overwrite").code == 0
    recipe.write_text("[log]\nevents = 'u.data'\n[columns]\nuser_id = 'a'\n")
    assert call("init", log, "--overwrite").code == 0
    other = shop / ("pyproject.toml" if "=" in text else "log.csv")
    other.write_text(text)
    for out in (other, log):
        before = out.read_bytes()
        result = call("init", log, "--out", out, "--overwrite")
        assert result.code == 2 and "output-foreign" in result.err
        assert out.read_bytes() == before


def test_a_converted_table_replaces_arrow_files_alone(call, tmp_path: Path) -> None:
    table, out = tmp_path / "table.csv", tmp_path / "out.arrow"
    table.write_text("a,b\n1,2\n")
    assert call("convert", table, "--out", out).code == 0
    assert call("convert", table, "--out", out, "--overwrite").code == 0
    before = snapshot(tmp_path)
    for target, source in ((table, table), (out, out), (tmp_path, table)):
        result = call("convert", source, "--out", target, "--overwrite")
        assert result.code == 2, result.err
    (tmp_path / "notes.txt").write_text("mine")
    result = call("convert", table, "--out", tmp_path / "notes.txt", "--overwrite")
    assert result.code == 2 and "output-foreign" in result.err
    (tmp_path / "notes.txt").unlink()
    assert snapshot(tmp_path) == before
    assert pl.read_ipc(out).to_dict(as_series=False) == {"a": [1], "b": [2]}


def test_a_page_replaces_pages_alone(call, shop) -> None:
    (shop / "index.html").write_text("<!DOCTYPE html><title>My shop</title>")
    (shop / "old.html").write_text(page_html("Old", []))
    before = snapshot(shop)
    for name in ("index.html", "shortlist.toml", "u.data"):
        result = call("check", "u.data", "--html", name, "--overwrite")
        assert result.code == 2 and "output-foreign" in result.err
    assert snapshot(shop) == before
    assert is_page((shop / "old.html").read_bytes()[:4096])
    assert call("check", "u.data", "--html", "old.html", "--overwrite").code == 0
    assert "Old" not in (shop / "old.html").read_text()


def test_plots_replace_plots_alone(tmp_path: Path) -> None:
    from shortlist.cli.pages import check_plots

    with canvas("x", (2, 2)) as figure:
        figure.subplots().plot([1, 2])
        (tmp_path / "lists.png").write_bytes(png_of(figure))
    assert is_png_of_ours((tmp_path / "lists.png").read_bytes())
    (tmp_path / "notes.txt").write_text("mine")
    check_plots(tmp_path, overwrite=True)
    (tmp_path / "cat.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR of a camera")
    with pytest.raises(InputError, match=r"cat\.png") as caught:
        check_plots(tmp_path, overwrite=True)
    assert caught.value.code == "output-foreign"

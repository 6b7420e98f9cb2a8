"""Every block of the pages about data runs, in order, beside a small log."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from shop_log import write_shop
from shortlist.cli.app import run

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NEEDED = re.compile(r"# needs (\w+)$", re.MULTILINE)


@pytest.mark.backend
def test_every_block_of_the_data_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shop(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run_page("data.md") == {"sh", "toml", "python"}


def test_a_dataset_is_read_as_its_format_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "tests" / "golden" / "dataset-v2", tmp_path / "dataset")
    monkeypatch.chdir(tmp_path)
    assert run_page("dataset-format.md") == {"python"}


def run_page(name: str) -> set[str]:
    """Runs all blocks that name a language; returns the languages."""
    page = ROOT / "docs" / name
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": page.stem}
    for language, block in blocks:
        if language == "toml":
            Path("shortlist.toml").write_text(block, encoding="utf-8")
        elif language == "sh":
            run_shell(block)
        elif all(map(importlib.util.find_spec, NEEDED.findall(block))):
            exec(compile(block, str(page), "exec"), names)
    return {language for language, _ in blocks}


def run_shell(block: str) -> None:
    for line in block.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "shortlist"
        assert run(arguments) == 0, line

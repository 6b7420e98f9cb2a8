"""The command line in this process, and one trained project for all commands."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shortlist.cli.app import run
from small_logs import TINY, write_movielens_100k


@dataclass(frozen=True)
class Result:
    """What one call of the command line did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last line of the output, which is JSON."""
        return json.loads(self.out.splitlines()[-1])


Call = Callable[..., Result]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """Runs `shortlist ARGUMENTS` in this process."""

    def called(*arguments: str | Path) -> Result:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return called


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained, evaluated and exported recommender."""
    folder = tmp_path_factory.mktemp("project")
    before = os.getcwd()
    os.chdir(folder)
    try:
        arguments = write_movielens_100k(folder)
        assert run(["init", *arguments]) == 0
        assert run(["prepare"]) == 0
        assert run(["train", *TINY]) == 0
        assert run(["evaluate"]) == 0
        assert run(["export"]) == 0
    finally:
        os.chdir(before)
    return folder

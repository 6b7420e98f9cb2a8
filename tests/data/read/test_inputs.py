"""The files of a log and the reading options, as callers give them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from shortlist.data import LogFiles, ReadOptions
from shortlist.data.read.inputs import paths_of
from shortlist.errors import InputError


@pytest.mark.parametrize(
    ("events", "paths"),
    [
        ("a.csv", ["a.csv"]),
        (Path("a.csv"), ["a.csv"]),
        (["a.csv", Path("b.csv")], ["a.csv", "b.csv"]),
        ((), []),
    ],
)
def test_a_log_may_be_a_path_several_or_a_structure(
    events: Any, paths: list[str]
) -> None:
    files = LogFiles.of(events)
    assert files.event_files == [Path(path) for path in paths]
    assert files.attribute_files == []
    assert LogFiles.of(files) is files


def test_all_files_are_listed_in_the_order_of_the_parts() -> None:
    files = LogFiles(
        ["a", "b"],
        users="u",
        items=Path("i"),
        test_events="t",
        validation_events=["v", "w"],
    )
    assert files.event_files == [Path(name) for name in ("a", "b", "v", "w", "t")]
    assert files.attribute_files == [Path("u"), Path("i")]
    assert files.first == Path("a")
    assert LogFiles(None, test_events="t").first == Path("t")
    assert paths_of(None, "x", ["y"]) == [Path("x"), Path("y")]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("on_error", "ignore", "must be 'raise' or 'skip'. Received: 'ignore'"),
        ("on_error", "skp", "Did you mean 'skip'"),
        ("memory_bytes", 0, "must be at least 1. Received: 0"),
        ("memory_bytes", -5, "Received: -5"),
    ],
)
def test_options_that_cannot_be_used_are_refused(
    name: str, value: Any, says: str
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        ReadOptions(**{name: value})
    assert caught.value.code == "invalid-argument"
    assert f"`{name}`" in caught.value.message


def test_both_are_frozen() -> None:
    for frozen, name in ((LogFiles("a"), "events"), (ReadOptions(), "on_error")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(frozen, name, "b")

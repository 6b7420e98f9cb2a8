"""What people get wrong about training, or what their log lacks, told by `train`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from small_logs import TINY

pytestmark = pytest.mark.backend

RECIPE = """
version = 1
[log]
events = "log.csv"
[columns]
user_id = "user"
item_id = "item"
timestamp = "time"
label = "{label}"
label_kind = "{kind}"
[split]
kind = "last_n"
test = 1
validation = 1
[evaluation]
ks = [10]
resamples = 10
"""
Row = tuple[str, str, int, int]


def write_project(folder: Path, rows: Sequence[Row], *, kind: str = "explicit") -> Path:
    columns = ["user", "item", "time", "label"]
    pl.DataFrame(rows, schema=columns, orient="row").write_csv(folder / "log.csv")
    recipe = folder / "shortlist.toml"
    recipe.write_text(RECIPE.format(label="label", kind=kind))
    return recipe


def log(users: int, items: int, *, label: Any = lambda user, item, place: 3) -> Any:
    """Every user takes items one after the other, each beginning elsewhere."""
    return [
        (
            f"u{user}",
            f"i{(user + place) % items}",
            1_600_000_000 + 1000 * place + user,
            label(user, (user + place) % items, place),
        )
        for user in range(users)
        for place in range(min(items, 8))
    ]


@pytest.mark.parametrize(
    ("setting", "code", "told"),
    [
        ("training.optimizer=adm", "recipe-invalid", "Did you mean 'adam'?"),
        ("retrieval.loss=hing", "recipe-invalid", "Did you mean 'hinge'?"),
        ("ranker.interaction=dcm", "recipe-invalid", "Did you mean 'dcn'?"),
        ("evaluation.metrics=['ndgc']", "recipe-invalid", "Did you mean 'ndcg'?"),
        ("retrieval.learning_rate=0.0", "recipe-invalid", "greater than 0"),
        ("ranker.learning_rate=10.0", "recipe-invalid", "must be at most 1"),
        ("version=2", "recipe-newer", "at most 1. Received: 2"),
        ("retrieval.monitor=val_ndgc@10", "monitor-unknown", "'val_ndcg@10'?"),
        ("ranker.monitor=val_los", "monitor-unknown", "Did you mean 'val_loss'?"),
    ],
)
def test_names_and_rates_are_refused_and_nothing_is_written(
    call: Any, project: Path, tmp_path: Path, setting: str, code: str, told: str
) -> None:
    result = call(
        *("train", "-r", project / "shortlist.toml", *TINY, "--fast-dev-run"),
        *("--set", f"output.run={tmp_path / 'run'}", "--set", setting),
    )
    assert (result.code, f"error[{code}]" in result.err) == (2, True), result.err
    assert told in result.err
    assert list(tmp_path.iterdir()) == []


def test_lists_longer_than_the_catalogue_and_users_who_took_all_of_it(
    call: Any, tmp_path: Path
) -> None:
    # Five items. Most users took three before validation and test; one took all of
    # them, and then two again: there is nothing left to recommend.
    times = [(f"i{place % 5}", 1_600_000_000 + 1000 * place) for place in range(7)]
    again = [("full", item, time, 4) for item, time in times]
    recipe = write_project(tmp_path, [*log(12, 5), *again])
    for command in ("prepare", "train", "evaluate", "export"):
        result = call(command, "-r", recipe, *(TINY if command == "train" else []))
        assert result.code == 0, f"{command}: {result.err}"
    metrics = json.loads((tmp_path / "run" / "evaluation.json").read_text())["metrics"]
    assert 0 <= metrics["model"]["ndcg@10"] <= 1
    # A list has all that is unseen, so it has what was held out.
    assert metrics["model"]["recall@10"] == 1
    options = ("--bundle", tmp_path / "bundle", "--json")
    left = call("recommend", "u3", "-k", "10", *options)
    assert left.code == 0, left.err
    assert len(left.json["items"]) <= 2
    nothing = call("recommend", "full", "-k", "10", *options)
    assert nothing.code == 0, nothing.err
    assert nothing.json["items"] == []
    stranger = call("recommend", "nobody", "-k", "1000", *options).json["items"]
    assert sorted(item["item_id"] for item in stranger) == [f"i{i}" for i in range(5)]


def test_a_validation_part_without_positives_stops_nothing(
    call: Any, tmp_path: Path
) -> None:
    # The last but one event of everybody, which is held out, is an item not clicked.
    rows = log(20, 12, label=lambda user, item, place: int(place != 6))
    recipe = write_project(tmp_path, rows, kind="binary")
    assert call("prepare", "-r", recipe).code == 0
    trained = call("train", "-r", recipe, *TINY, "--json")
    assert trained.code == 0, trained.err
    assert "warning: no validation user has an unseen known item" in trained.err
    assert trained.json["epochs"] == {"retrieval": 2, "ranker": 1}  # all there are
    assert trained.json["validation"]["retrieval"] == {}
    assert trained.json["ranker_weight"] == 0
    assert call("evaluate", "-r", recipe).code == 0


def test_a_label_of_one_class_is_refused_where_two_are_told_apart(
    call: Any, tmp_path: Path
) -> None:
    recipe = write_project(tmp_path, log(20, 12, label=lambda *_: 1), kind="binary")
    assert call("prepare", "-r", recipe).code == 0
    apart = call("train", "-r", recipe, *TINY, "--set=ranker.negatives=0")
    assert (apart.code, "error[label-one-class]" in apart.err) == (2, True)
    assert "positives only" in apart.err and not (tmp_path / "run").exists()
    drawn = call("train", "-r", recipe, *TINY, "--set=ranker.negatives=2")
    assert drawn.code == 0, drawn.err


def test_no_positive_at_all_leaves_nothing_to_train_on(
    call: Any, tmp_path: Path
) -> None:
    recipe = write_project(tmp_path, log(20, 12, label=lambda *_: 0), kind="binary")
    assert call("prepare", "-r", recipe).code == 0
    refused = call("train", "-r", recipe, *TINY)
    assert (refused.code, "error[part-empty]" in refused.err) == (2, True)
    assert "labels from 1.0 on" in refused.err and "set positive_from" in refused.err
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_dataset_is_refused(
    call: Any, project: Path, tmp_path: Path
) -> None:
    recipe = write_project(tmp_path, log(20, 12))
    assert call("prepare", "-r", recipe).code == 0
    other = f"--set=output.run={project / 'run'}"
    refused = call("evaluate", "-r", recipe, other)
    assert (refused.code, "error[dataset-mismatch]" in refused.err) == (3, True)

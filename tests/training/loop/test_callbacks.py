"""What is measured, written, shown and refused at the end of an epoch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from shortlist.errors import ShortlistError
from shortlist.training.loop.callbacks import (
    EpochReport,
    RankingValidation,
    StopOnNotFinite,
    check_weights_finite,
    epoch_text,
)

pytestmark = pytest.mark.backend

FEATURES, LABELS = np.ones((8, 2), np.float32), np.zeros((8, 1), np.float32)


def make_model() -> Any:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    return model


def fit(*callbacks: Any, epochs: int = 2) -> Any:
    model = make_model()
    return model.fit(
        FEATURES, LABELS, epochs=epochs, verbose=0, callbacks=list(callbacks)
    )


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_ranking_metrics_reach_the_history_and_the_later_callbacks() -> None:
    measured = iter([{"ndcg@10": 0.25}, {"ndcg@10": 0.5}])
    seen = []
    later = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(logs["val_ndcg@10"])
    )
    history = fit(RankingValidation(lambda: next(measured)), later)
    assert seen == history.history["val_ndcg@10"] == [0.25, 0.5]


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_stops(loss: float) -> None:
    callback = StopOnNotFinite()
    callback.on_epoch_end(0, {"loss": 1.0})
    with pytest.raises(ShortlistError, match="in epoch 4") as caught:
        callback.on_epoch_end(3, {"loss": loss})
    assert caught.value.code == "loss-not-finite"
    assert f"It was {loss}" in str(caught.value)
    assert "Lower learning_rate" in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(value: float) -> None:
    model = make_model()
    check_weights_finite(model, 3)
    kernel, bias = model.get_weights()
    model.set_weights([kernel, np.full_like(bias, value)])
    with pytest.raises(ShortlistError, match="/bias' holds NaN or inf") as caught:
        check_weights_finite(model, 3)
    assert caught.value.code == "loss-not-finite"


def test_each_epoch_becomes_a_json_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    history = fit(EpochReport("retrieval", path, quiet=True))
    fit(EpochReport("ranker", path, quiet=True), epochs=1)
    lines = lines_of(path)
    assert [(line["model"], line["epoch"]) for line in lines] == [
        *[("retrieval", 1), ("retrieval", 2), ("ranker", 1)]
    ]
    assert [line["loss"] for line in lines[:2]] == pytest.approx(
        history.history["loss"]
    )
    assert all(line["seconds"] >= 0 for line in lines)


def test_a_loss_that_is_not_finite_is_still_json(tmp_path: Path) -> None:
    report = EpochReport("ranker", tmp_path / "metrics.jsonl", quiet=True)
    report.on_epoch_end(0, {"loss": float("nan")})
    assert lines_of(tmp_path / "metrics.jsonl")[0]["loss"] is None


def test_without_a_terminal_one_line_per_epoch_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(EpochReport("retrieval", tmp_path / "metrics.jsonl"))
    shown = capsys.readouterr()
    assert shown.out == ""
    first, second = shown.err.splitlines()
    assert first.startswith("retrieval epoch 1: loss ") and first.endswith(" s)")
    assert second.startswith("retrieval epoch 2: loss ")


def test_quiet_shows_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(EpochReport("retrieval", tmp_path / "metrics.jsonl", quiet=True))
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_a_bar_counts_the_batches_until_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    report = EpochReport("retrieval", tmp_path / "metrics.jsonl")
    fit(report)
    assert report.progress is not None
    (task,) = report.progress.tasks
    assert (task.description, task.completed, task.total) == ("retrieval", 2, 2)
    assert report.progress.live.is_started
    report.close()
    assert not report.progress.live.is_started


def test_closing_a_report_that_never_began_is_harmless(tmp_path: Path) -> None:
    EpochReport("retrieval", tmp_path / "metrics.jsonl", quiet=True).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("epoch", [1, 40, 100_000])
@pytest.mark.parametrize("seconds", [1.0, 86_400.0])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("retrieval", {"loss": 7.16, "val_ndcg@10": 0.0021, "val_recall@10": 0.004}),
        ("retrieval", {"loss": 1e6, "val_ndcg@10": 0.5, "val_recall@10": 0.25}),
        ("ranker", {"loss": 0.5, "accuracy": 0.25, "val_loss": 0.75, "val_auc": 1.0}),
        ("ranker", {f"head_{n}_loss": n / 10 for n in range(9)} | {"val_loss": 0.5}),
        ("retrieval", {"loss": float("nan")}),
    ],
)
def test_lines_of_epochs_fit_80_columns(
    name: str, values: dict[str, float], epoch: int, seconds: float
) -> None:
    text = epoch_text(name, epoch, values, seconds)
    lines = text.splitlines()
    assert all(len(line) <= 80 for line in lines), text
    assert lines[0].startswith(f"{name} epoch {epoch}: ")
    assert all(line.startswith("    ") for line in lines[1:])
    assert text.endswith(f"({seconds:.1f} s)")
    told = " ".join(text.split()).partition(": ")[2].rpartition(" (")[0].split(" ")
    shown = dict(zip(told[::2], told[1::2], strict=True))
    expected = {
        key if key.removeprefix("val_") in values else key.removeprefix("val_"): value
        for key, value in values.items()
    }
    assert shown == {key: f"{value:.4f}" for key, value in expected.items()}


def test_the_usual_line_is_one() -> None:
    values = {"loss": 7.1595, "val_ndcg@10": 0.0021, "val_recall@10": 0.004}
    assert epoch_text("retrieval", 12, values, 123.45) == (
        "retrieval epoch 12: loss 7.1595  ndcg@10 0.0021  recall@10 0.0040  (123.5 s)"
    )

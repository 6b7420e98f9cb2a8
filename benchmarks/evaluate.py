"""Evaluation over the whole catalogue, at the size of MovieLens-25M.

Claims: `shortlist evaluate` with all metrics, slices and intervals takes less than half
of a training epoch of the same model; and ranking and measuring all users through the
core is faster than NumPy with `argpartition`, which finds the same.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harness import Claim, against_rival, interleaved, main
from shortlist import native
from shortlist.data import Dataset, Schema, Split, prepare
from shortlist.data.split import KNOWN
from shortlist.evaluation import evaluate_pipeline, evaluate_rankings, ranking_metrics
from shortlist.evaluation.metrics.rankings import Csr
from shortlist.evaluation.truth import relevant_items
from shortlist.models.pipeline import with_row_zero
from shortlist.models.scorers import KnownItems, VectorScorer
from shortlist.public_data.synthetic import SyntheticLog, generate
from shortlist.recipe import Recipe, build_recipe
from shortlist.training import load_pipeline, train
from shortlist.training.runs.run import Run

SCHEMA = Schema(
    user_id="user_id",
    item_id="item_id",
    timestamp="timestamp_ms",
    label="rating",
    label_kind="explicit",
    positive_from=4,
)
FULL = SyntheticLog(num_users=162_541, num_items=59_047, num_events=25_000_000)
SMALL = SyntheticLog(num_users=2_000, num_items=1_500, num_events=100_000)
BATCH_SIZE = 1_024  # the default; negatives are in the batch, so larger is slower
K = 20
REACH = 2.0
RIVAL_USERS = 16_384
_BLOCK = 512  # users at once: their scores of 59,047 items take 121 MB
_TIED = 1e-5  # scores closer than this may change places: sums of other order


def evaluate(quick: bool) -> Iterator[Claim]:
    """The whole command beside an epoch, then the ranking alone beside NumPy."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run = _trained(place, SMALL if quick else FULL)
        epoch = _epoch_seconds(run)
        began = time.perf_counter()
        dataset = Dataset.open(place / "dataset")
        pipeline = load_pipeline(run, dataset)
        report = evaluate_pipeline(pipeline).report
        seconds = time.perf_counter() - began
        size = f"{report['users']:,} users x {report['catalogue']:,} items"
        yield against_rival(
            "evaluate",
            f"a whole evaluation, {size}: models loaded, every metric at 5, 10 and 20,"
            " slices, 1,000 resamples; rival: the second epoch of training the same"
            f" two-tower model on {dataset.info.parts['train']:,} events, batch"
            f" {BATCH_SIZE:,}",
            ours=seconds,
            rival=epoch,
            unit="s",
            better="lower",
            reach=REACH,
        )
        users = np.unique(dataset.part("test").user_index)
        users = users[users > 0][: SMALL.num_users if quick else RIVAL_USERS]
        known = KnownItems(dataset, KNOWN["test"]).of(users)
        retrieval = pipeline.retrieval
        assert isinstance(retrieval, VectorScorer)
        task = _Task(
            users=retrieval.user_vectors(known),
            items=retrieval.item_vectors,
            seen=with_row_zero(*dataset.histories(*KNOWN["test"]).seen(users)),
            relevant=relevant_items(dataset, users, "test"),
        )
    yield _against_numpy(task, quick)


@dataclass(frozen=True)
class _Task:
    """Vectors of users and items, what each user has seen and what counts."""

    users: np.ndarray
    items: np.ndarray
    seen: tuple[np.ndarray, np.ndarray]
    relevant: Csr

    def ours(self) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
        """Scores, lists and metrics, through the core."""
        scores, lists = native.top_k(self.users, self.items, K, exclude=self.seen)
        measured = evaluate_rankings(
            lists,
            self.relevant,
            ks=(K,),
            num_items=len(self.items) - 1,
            names=("ndcg", "recall"),
        )
        return scores, lists, measured.to_dict()

    def rival(self) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
        """The same as one writes it in NumPy: all scores, the seen ones at -inf."""
        scores = np.empty((len(self.users), K), np.float32)
        lists = np.empty((len(self.users), K), np.int64)
        offsets, seen = self.seen
        for begin in range(0, len(self.users), _BLOCK):
            block = self.users[begin : begin + _BLOCK] @ self.items.T
            end = begin + len(block)
            rows = np.repeat(np.arange(len(block)), np.diff(offsets[begin : end + 1]))
            block[rows, seen[offsets[begin] : offsets[end]]] = -np.inf
            best = np.argpartition(block, -K, axis=1)[:, -K:]
            found = np.take_along_axis(block, best, axis=1)
            order = np.argsort(-found, axis=1)
            scores[begin:end] = np.take_along_axis(found, order, axis=1)
            lists[begin:end] = np.take_along_axis(best, order, axis=1)
        return scores, lists, self._measured(lists)

    def _measured(self, lists: np.ndarray) -> dict[str, float]:
        discounts = 1 / np.log2(np.arange(2, K + 2))
        offsets, items = self.relevant
        recalls, gains = [], []
        for user, ranked in enumerate(lists):
            truth = items[offsets[user] : offsets[user + 1]]
            if not len(truth):
                continue
            hits = np.isin(ranked, truth)
            recalls.append(hits.sum() / len(truth))
            gains.append(hits @ discounts / discounts[: len(truth)].sum())
        return {f"ndcg@{K}": np.mean(gains), f"recall@{K}": np.mean(recalls)}


def _against_numpy(task: _Task, quick: bool) -> Claim:
    ours, rival = task.ours(), task.rival()
    np.testing.assert_allclose(ours[0], rival[0], rtol=1e-4, atol=1e-5)
    same = ours[1] == rival[1]
    gaps = np.abs(np.diff(rival[0], axis=1, append=-np.inf, prepend=np.inf))
    # A list may differ only where its scores are tied, or tied with the next one left.
    clear = (np.minimum(gaps[:, 1:], gaps[:, :-1]) > _TIED)[:, :-1]
    assert same[:, :-1][clear].all()
    for name, value in rival[2].items():
        np.testing.assert_allclose(ours[2][name], value, rtol=1e-3, err_msg=name)
    medians = interleaved(
        {"ours": task.ours, "rival": task.rival}, repeats=2 if quick else 3
    )
    return against_rival(
        "evaluate-numpy",
        f"top-{K} of {len(task.items) - 1:,} x {task.items.shape[1]} without what was"
        f" seen, for {len(task.users):,} users, their nDCG and recall; rival: NumPy"
        f" matmul, argpartition; {same.mean():.2%} of the places are equal, the others"
        " tied",
        ours=len(task.users) / medians["ours"],
        rival=len(task.users) / medians["rival"],
        unit="users/s",
        better="higher",
    )


def _trained(place: Path, log: SyntheticLog) -> Run:
    generate(log).write_parquet(place / "log.parquet")
    split = Split(test=0.2, validation=0)
    dataset = prepare(place / "log.parquet", SCHEMA, place / "dataset", split=split)
    return train(
        dataset, place / "run", _recipe(), validate=ranking_metrics, quiet=True
    )


def _recipe() -> Recipe:
    return build_recipe(
        {
            "log": {"events": "log.parquet"},
            "columns": {"user_id": "user_id", "item_id": "item_id"},
            "retrieval": {"epochs": 2, "batch_size": BATCH_SIZE},
            "ranker": {"enabled": False},
        }
    )


def _epoch_seconds(run: Run) -> float:
    """Of the second epoch, for the first one compiles; lines tell seconds in all."""
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    first, second = (float(json.loads(line)["seconds"]) for line in lines)
    return second - first


if __name__ == "__main__":
    main({"evaluate": evaluate})

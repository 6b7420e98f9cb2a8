"""The pipeline against a brute force in NumPy: one user and one item at a time."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import polars as pl
import pytest

import shortlist.models.prediction as module
from shortlist.data import Dataset, Schema, Split, prepare
from shortlist.embeddings.inputs import model_inputs
from shortlist.errors import InputError
from shortlist.models.pipeline import Pipeline, combine, with_row_zero
from shortlist.models.prediction import in_blocks
from shortlist.models.ranker import Ranker
from shortlist.models.scorers import KnownItems
from shortlist.models.tower_scorer import TowerScorer
from shortlist.models.two_tower import TwoTower
from toy import synthetic

pytestmark = pytest.mark.backend

KNOWN = ("train", "validation")
HISTORY = 5
CANDIDATES = 12


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return synthetic(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def pipeline(dataset: Dataset) -> Pipeline:
    """Untrained models: what they answer is as good a test as any."""
    keras.utils.set_random_seed(0)
    inputs = model_inputs(
        dataset.schema, embedding_dim=8, feature_dim=3, history_length=HISTORY
    )
    retrieval = TwoTower(inputs, dataset.table_rows, embedding_dim=8)
    ranker = Ranker(inputs, dataset.table_rows, hidden_units=(8,))
    retrieval.build()
    ranker.build()
    return Pipeline(
        dataset,
        TowerScorer(retrieval, dataset, HISTORY),
        ranker,
        ranker_history=HISTORY,
        candidates=CANDIDATES,
    )


def with_weight(pipeline: Pipeline, weight: float, **changes: object) -> Pipeline:
    arguments = {
        "ranker_history": HISTORY,
        "ranker_weight": weight,
        "candidates": CANDIDATES,
    } | changes
    return Pipeline(
        pipeline.dataset,
        pipeline.retrieval,
        pipeline.ranker,
        **arguments,  # type: ignore[arg-type]
    )


class BruteForce:
    """Everything from the event files and the weights, without batches."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.dataset = pipeline.dataset

    def history(self, user: int, parts: tuple[str, ...]) -> list[int]:
        """Items of the user, oldest first."""
        events = []
        for part in parts:
            rows = self.dataset.part(part)
            events += [
                (time, item)
                for owner, item, time in zip(
                    rows.user_index, rows.item_index, rows.timestamp_ms, strict=True
                )
                if owner == user and item > 0
            ]
        return [int(item) for _, item in sorted(events, key=lambda event: event[0])]

    def vector(self, model: object, inputs: tuple, user: int, item: int, history: list):
        """The looked-up inputs of one user and one item, side by side."""
        tables = model.lookup.tables()  # type: ignore[attr-defined]
        values = {"user_index": user, "item_index": item, "history": history[-HISTORY:]}
        parts = []
        for i in inputs:
            value = values.get(i.feature)
            if value is None:
                row = user if i.owner == "user" else item
                value = self.dataset.features[i.feature][row]
            if i.table is None:
                parts.append([value])
                continue
            entries = [
                entry for entry in np.atleast_1d(value).astype(int) if entry >= 0
            ]
            total = sum((tables[i.table][e] for e in entries), np.zeros(i.dim))
            parts.append(total / max(len(entries), 1))
        return np.concatenate(parts)

    def retrieval_score(self, user: int, item: int, history: list[int]) -> float:
        model = self.pipeline.retrieval.model
        vectors = []
        for inputs, tower in (
            (model.user_inputs, model.user_tower),
            (model.item_inputs, model.item_tower),
        ):
            kernel, bias = tower.get_weights()
            vector = self.vector(model, inputs, user, item, history) @ kernel + bias
            vectors.append(vector / np.linalg.norm(vector))
        return float(vectors[0] @ vectors[1]) / model.options.temperature

    def ranker_output(self, user: int, item: int, history: list[int]) -> float:
        model = self.pipeline.ranker
        assert model is not None
        first, first_bias, last, last_bias = model.scorer.get_weights()
        vector = self.vector(model, model.inputs_spec, user, item, history)
        hidden = np.maximum(vector @ first + first_bias, 0)
        return float((hidden @ last + last_bias)[0])

    def recommend(
        self, user: int, k: int, parts: tuple[str, ...]
    ) -> list[tuple[int, float]]:
        """The k best (item row, score), ties by the lower row."""
        history = self.history(user, parts)
        scores = {
            item: self.retrieval_score(user, item, history)
            for item in range(1, self.dataset.num_items)
            if item not in history
        }
        depth = max(k, self.pipeline.candidates)
        best = sorted(scores, key=lambda item: (-scores[item], item))[:depth]
        weight = self.pipeline.ranker_weight
        if weight:
            scores = {
                item: scores[item] + weight * self.ranker_output(user, item, history)
                for item in best
            }
        best = sorted(best, key=lambda item: (-scores[item], item))[:k]
        return [(item, scores[item]) for item in best]


USERS = np.array([3, 1, 40, 17])


@pytest.mark.parametrize("weight", [0.0, 1.5])
@pytest.mark.parametrize("k", [3, 20])  # fewer and more than the candidates
@pytest.mark.parametrize("parts", [("train",), KNOWN])
def test_recommend_equals_brute_force(
    pipeline: Pipeline, weight: float, k: int, parts: tuple[str, ...]
) -> None:
    pipeline = with_weight(pipeline, weight)
    scores, items = pipeline.recommend(USERS, k, parts=parts)
    assert scores.shape == items.shape == (len(USERS), k)
    assert (scores.dtype, items.dtype) == (np.float32, np.int32)
    brute = BruteForce(pipeline)
    for row, user in enumerate(USERS):
        expected = brute.recommend(int(user), k, parts)
        assert items[row].tolist() == [item for item, _ in expected]
        found = scores[row]
        np.testing.assert_allclose(found, [s for _, s in expected], atol=1e-4)


def test_a_larger_weight_changes_the_order(pipeline: Pipeline) -> None:
    # Otherwise the test above would not test the ranker.
    _, plain = pipeline.recommend(USERS, 10, parts=KNOWN)
    _, ranked = with_weight(pipeline, 1.5).recommend(USERS, 10, parts=KNOWN)
    assert not np.array_equal(plain, ranked)


@pytest.mark.parametrize("weight", [0.0, 1.5])
def test_k_beyond_the_catalogue_pads_after_all_unseen_items(
    pipeline: Pipeline, weight: float
) -> None:
    k = pipeline.dataset.num_items + 7
    scores, items = with_weight(pipeline, weight).recommend(USERS, k, parts=KNOWN)
    brute = BruteForce(pipeline)
    for row, user in enumerate(USERS):
        unseen = set(range(1, pipeline.dataset.num_items))
        unseen -= set(brute.history(int(user), KNOWN))
        assert set(items[row, : len(unseen)].tolist()) == unseen
        assert (items[row, len(unseen) :] == -1).all()
        assert np.isneginf(scores[row, len(unseen) :]).all()
        assert (np.diff(scores[row, : len(unseen)]) <= 0).all()


def test_ties_go_to_the_lower_row(dataset: Dataset) -> None:
    inputs = model_inputs(
        dataset.schema, embedding_dim=4, feature_dim=2, history_length=0
    )
    model = TwoTower(inputs, dataset.table_rows, embedding_dim=4)
    model.build()
    # The same vector for every item.
    model.item_tower.set_weights([w * 0 for w in model.item_tower.get_weights()])
    pipeline = Pipeline(dataset, TowerScorer(model, dataset))
    scores, items = pipeline.recommend(np.array([5]), 6, parts=KNOWN)
    seen = BruteForce(pipeline).history(5, KNOWN)
    unseen = [row for row in range(1, dataset.num_items) if row not in seen]
    assert items[0].tolist() == unseen[:6]
    assert (scores == scores[0, 0]).all()


def test_the_unknown_user_has_no_history_and_nothing_seen(pipeline: Pipeline) -> None:
    _, items = pipeline.recommend(np.array([0]), 200, parts=KNOWN)
    rows = items[0][items[0] >= 0]
    assert sorted(rows.tolist()) == list(range(1, pipeline.dataset.num_items))


def test_nobody_gets_nothing(pipeline: Pipeline) -> None:
    nobody = np.array([], np.int64)
    for weight in (0.0, 1.5):
        scores, items = with_weight(pipeline, weight).recommend(nobody, 5, parts=KNOWN)
        assert scores.shape == items.shape == (0, 5)


def test_score_pairs_are_the_ranker_outputs(pipeline: Pipeline) -> None:
    users, items = np.array([3, 40, 3, 0]), np.array([1, 7, 0, 2])
    found = pipeline.score_pairs(users, items, KNOWN)
    brute = BruteForce(pipeline)
    expected = [
        brute.ranker_output(user, item, brute.history(user, KNOWN) if user else [])
        for user, item in zip(users.tolist(), items.tolist(), strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_score_pairs_without_a_ranker_are_retrieval_scores(pipeline: Pipeline) -> None:
    alone = Pipeline(pipeline.dataset, pipeline.retrieval)
    users, items = np.array([3, 40]), np.array([1, 7])
    brute = BruteForce(pipeline)
    expected = [
        brute.retrieval_score(user, item, brute.history(user, KNOWN))
        for user, item in zip(users.tolist(), items.tolist(), strict=True)
    ]
    found = alone.score_pairs(users, items, KNOWN)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_item_vectors_have_zeros_in_row_zero(pipeline: Pipeline) -> None:
    vectors = pipeline.retrieval.item_vectors
    assert vectors.shape == (pipeline.dataset.num_items, 8)
    assert vectors.dtype == np.float32
    assert (vectors[0] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(vectors[1:], axis=1), 1, rtol=1e-5)


def test_item_vectors_are_computed_once(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = TowerScorer(pipeline.retrieval.model, pipeline.dataset, HISTORY)
    sides = []
    predict = tower.model.predict_on_batch

    def counted(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        sides.append("item" if "item_index" in batch else "user")
        return predict(batch)

    monkeypatch.setattr(tower.model, "predict_on_batch", counted)
    again = Pipeline(pipeline.dataset, tower)
    for _ in range(3):
        again.retrieve(USERS, 5, KNOWN)
    again.score_pairs(USERS, USERS, KNOWN)
    assert tower.similar(3) is not None
    assert sorted(sides) == ["item", *["user"] * 4]


@pytest.mark.parametrize("rows", [[-1], [10**6], [0.5]])
def test_rows_that_no_user_has_are_refused(
    pipeline: Pipeline, rows: list[float]
) -> None:
    alone = Pipeline(pipeline.dataset, pipeline.retrieval)
    for ask in (
        lambda: alone.recommend(np.array(rows), 3, parts=KNOWN),
        lambda: alone.score_pairs(np.array(rows), np.array([1]), KNOWN),
    ):
        with pytest.raises(InputError) as caught:
            ask()
        assert caught.value.code in ("row-out-of-range", "invalid-rows")


def test_block_size_changes_no_answer(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = np.arange(1, 30)
    expected = with_weight(pipeline, 1.5).recommend(users, 10, parts=KNOWN)
    monkeypatch.setattr(module, "BLOCK", 13)
    found = with_weight(pipeline, 1.5).recommend(users, 10, parts=KNOWN)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("num_rows", [0, 1, 4, 5, 8, 11])
def test_in_blocks_calls_with_one_shape_and_keeps_every_row(
    num_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK", 4)
    sizes = []

    def double(block: dict[str, np.ndarray]) -> np.ndarray:
        sizes.append(len(block["x"]))
        return 2.0 * block["x"][:, None]

    found = in_blocks(double, {"x": np.arange(num_rows)}, 1)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, 2.0 * np.arange(num_rows)[:, None])
    assert set(sizes) <= {4 if num_rows > 4 else num_rows}


def test_combine_keeps_absent_items_last_and_breaks_ties_by_row() -> None:
    scores = np.array([[3.0, 2.0, 1.0, -np.inf]], np.float32)
    items = np.array([[9, 4, 6, -1]], np.int32)
    ranked = np.array([[0.0, 2.0, 4.0, 100.0]], np.float32)
    total, rows = combine(scores, items, ranked, 0.5, 4)
    assert rows.tolist() == [[4, 6, 9, -1]]  # 3 for all three
    assert total.tolist() == [[3.0, 3.0, 3.0, -np.inf]]
    assert combine(scores, items, ranked, 1.0, 2)[1].tolist() == [[6, 4]]


def test_with_row_zero_adds_it_to_every_list() -> None:
    offsets, rows = with_row_zero(np.array([0, 2, 2, 3]), np.array([5, 6, 7], np.int32))
    assert offsets.tolist() == [0, 3, 4, 6]
    lists = [
        sorted(rows[a:b].tolist())
        for a, b in zip(offsets[:-1], offsets[1:], strict=True)
    ]
    assert lists == [[0, 5, 6], [0], [0, 7]]
    assert rows.dtype == np.int32


def test_a_user_without_training_events_takes_the_row_that_was_trained_for_it(
    tmp_path: Path,
) -> None:
    first = 1_600_000_000  # 2020-09-13T12:26:40Z
    rows = [(u, i, first + 10 * u + i) for u in range(1, 7) for i in range(1, 6)]
    rows += [(99, i, first + 50_000 + i) for i in (1, 3, 5)]  # in validation only
    rows += [(1, 6, first + 90_000), (2, 6, first + 90_001)]
    log = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    log.write_csv(tmp_path / "log.csv")
    moments = {"validation_from": "2020-09-14", "test_from": "2020-09-14T12:00"}
    late = prepare(
        tmp_path / "log.csv",
        Schema(user_id="user", item_id="item", timestamp="time"),
        tmp_path / "dataset",
        split=Split(kind="time_cut", **moments),
    )
    inputs = model_inputs(
        late.schema, embedding_dim=4, feature_dim=2, history_length=HISTORY
    )
    retrieval = TwoTower(inputs, late.table_rows, embedding_dim=4)
    retrieval.build()
    untrained = TowerScorer(retrieval, late, HISTORY)
    row = late.vocabularies["user"].row(99)
    assert late.vocabularies["user"].counts[row] == 0
    history = late.histories(*KNOWN).last(np.array([row]), HISTORY)
    batch = {"user_index": np.zeros(1, np.int32), "history": history}
    expected = retrieval.predict_on_batch(batch)["user_vector"]
    found = untrained.user_vectors(KnownItems(late, KNOWN).of(np.array([row])))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert (history >= 0).sum() == 3

"""The conformance suite of scorers: what every one of them must keep.

Subclass it in the test file of the class, set `make`, and get its tests.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from shortlist.data import Dataset
from shortlist.models.scorers import (
    LAST,
    KnownItems,
    Queries,
    Scorer,
    load_scorer,
    restore,
    save_scorer,
)
from toy import synthetic


class ScorerSuite:
    """`make` returns a new scorer that can be fitted on the synthetic toy log."""

    make: ClassVar[Callable[[], Scorer]]

    @pytest.fixture(scope="class")
    @classmethod
    def dataset(cls, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
        return synthetic(tmp_path_factory.getbasetemp())

    @pytest.fixture(scope="class")
    @classmethod
    def scorer(cls, dataset: Dataset) -> Scorer:
        return cls.make().fit(dataset)

    @pytest.fixture(scope="class")
    @classmethod
    def queries(cls, dataset: Dataset) -> Queries:
        users = np.arange(dataset.num_users)
        return KnownItems(dataset, ("train",), values=True).of(users)

    def test_config_makes_an_equal_scorer(self, scorer: Scorer) -> None:
        config = json.loads(json.dumps(scorer.get_config()))
        again = restore(scorer.kind, config, scorer.arrays())
        assert again.get_config() == scorer.get_config()

    def test_a_saved_scorer_scores_the_same(
        self, scorer: Scorer, queries: Queries, tmp_path: Path
    ) -> None:
        save_scorer(tmp_path / "scorer", scorer)
        assert {f.suffix for f in (tmp_path / "scorer").iterdir()} == {
            ".json",
            ".safetensors",
        }
        again = load_scorer(tmp_path / "scorer")
        assert type(again) is type(scorer)
        np.testing.assert_array_equal(
            again.score_all(queries), scorer.score_all(queries)
        )
        for name, array in scorer.arrays().items():
            assert array.dtype in (np.float32, np.int32), name

    def test_fitting_twice_gives_the_same(
        self, dataset: Dataset, scorer: Scorer, queries: Queries
    ) -> None:
        again = type(self).make().fit(dataset).fit(dataset)
        np.testing.assert_array_equal(
            again.score_all(queries), scorer.score_all(queries)
        )

    def test_scores_are_finite_and_untrained_items_come_last(
        self, dataset: Dataset, scorer: Scorer, queries: Queries
    ) -> None:
        scores = scorer.score_all(queries)
        counts = dataset.item_counts("train")
        assert scores.shape == (dataset.num_users, dataset.num_items)
        assert scores.dtype == np.float32 and np.isfinite(scores).all()
        assert (scores[:, counts == 0] == LAST).all()
        assert (scores[:, counts > 0] > LAST / 2).all()

    def test_a_query_does_not_depend_on_the_others(
        self, scorer: Scorer, queries: Queries
    ) -> None:
        scores = scorer.score_all(queries)
        for query in (0, 1, 40, len(queries) - 1):
            alone = scorer.score_all(queries.part(query, query + 1))[0]
            np.testing.assert_allclose(alone, scores[query], rtol=1e-4, atol=1e-5)

    def test_pairs_score_as_in_the_whole_table(
        self, scorer: Scorer, queries: Queries
    ) -> None:
        rng = np.random.default_rng(0)
        positions = rng.integers(0, len(queries), 500)
        items = rng.integers(0, scorer.num_items, 500)
        np.testing.assert_allclose(
            scorer.score(queries, positions, items),
            scorer.score_all(queries)[positions, items],
            rtol=1e-4,
            atol=1e-5,
        )

    def test_repetitions_of_known_items_change_nothing(
        self, scorer: Scorer, queries: Queries
    ) -> None:
        query = queries.part(5, 6)
        m = len(query.items)
        twice = query.take(np.array([0]))
        twice = dataclasses.replace(
            twice,
            offsets=np.array([0, 2 * m]),
            items=np.tile(query.items, 2),
            times=np.tile(query.times, 2),
            values=np.tile(query.values, 2),
        )
        np.testing.assert_array_equal(scorer.score_all(twice), scorer.score_all(query))

    def test_the_order_of_known_items_changes_nothing(
        self, scorer: Scorer, queries: Queries
    ) -> None:
        query = queries.part(5, 6).distinct()
        back = dataclasses.replace(
            query,
            items=query.items[::-1],
            times=query.times[::-1],
            values=query.values[::-1],
        )
        # One event of each item: the newest of several would be told by its place.
        np.testing.assert_array_equal(scorer.score_all(back), scorer.score_all(query))

    def test_unknown_users_and_items_are_answered(self, scorer: Scorer) -> None:
        strangers = Queries.from_lists([0, 0, 0], [[], [0, 0], [3, 0]])
        scores = scorer.score_all(strangers)
        assert np.isfinite(scores).all()
        np.testing.assert_array_equal(scores[0], scores[1])

    def test_no_queries_give_no_scores(self, scorer: Scorer) -> None:
        nobody = Queries.from_lists([], [])
        assert scorer.score_all(nobody).shape == (0, scorer.num_items)

    def test_unknown_arguments_are_refused(self, scorer: Scorer) -> None:
        config: dict[str, Any] = {**scorer.get_config(), "depth": 3}
        with pytest.raises((TypeError, ValueError)):
            restore(scorer.kind, config, scorer.arrays())

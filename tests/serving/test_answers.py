"""Where an answer comes from, and when it falls back to popular items."""

from __future__ import annotations

import numpy as np
import pytest

from shortlist.serving.answers import (
    User,
    as_queries,
    best_source,
    excluded_of,
    is_asked,
    or_popular,
)
from shortlist.serving.catalogue import Scored
from shortlist.serving.histories import NO_HISTORY, History
from shortlist.serving.model import Model
from tiny_bundle import make_contents

ONE = History(np.array([4], np.int32))
POPULAR = Scored(np.array([2]), np.array([9.0]))
FOUND = Scored(np.array([1]), np.array([0.5]))


@pytest.fixture(scope="module")
def model() -> Model:
    contents = make_contents(ranker=False)
    assert contents.retrieval is not None
    return Model(contents.retrieval, None, contents)


def user(source: str, history: History = NO_HISTORY, row: int = 0) -> User:
    excluded = np.array([0, *history.items], np.int32)
    return User(row, history, excluded, source == "model", source)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trained", "history", "source"),
    [
        (True, ONE, "model"),
        (True, NO_HISTORY, "model"),
        (False, ONE, "history"),
        (False, NO_HISTORY, "popular"),
    ],
)
def test_the_best_source_is_that_of_what_is_known(
    model: Model, trained: bool, history: History, source: str
) -> None:
    assert best_source(model, trained, history) == source
    assert best_source(None, trained, history) == "popular"
    assert is_asked(model, user(source)) == (source != "popular")
    assert not is_asked(None, user(source))


@pytest.mark.parametrize("source", ["model", "history", "popular"])
def test_an_answer_falls_back_where_the_model_has_none(source: str) -> None:
    kept = or_popular(source, FOUND, lambda: POPULAR)  # type: ignore[arg-type]
    assert kept == (FOUND, source, False)
    half = FOUND._replace(degraded=True)
    assert or_popular(source, half, lambda: POPULAR).degraded  # type: ignore[arg-type]
    fallen = or_popular(source, None, lambda: POPULAR)  # type: ignore[arg-type]
    assert fallen == (POPULAR, "popular", source != "popular")


def test_users_become_queries_with_what_is_known_of_each() -> None:
    timed = History(
        np.array([3, 5], np.int32),
        times=np.array([10, 20]),
        values=np.array([1.0, 4.0], np.float32),
    )
    queries = as_queries([user("model", timed, row=2), user("history", ONE)])
    assert queries.user_index.tolist() == [2, 0]
    assert queries.offsets.tolist() == [0, 2, 3]
    assert queries.items.tolist() == [3, 5, 4]
    assert queries.times is not None and queries.times.tolist() == [10, 20, 0]
    np.testing.assert_array_equal(queries.values, [1.0, 4.0, np.nan])
    alone = as_queries([user("history", ONE)])
    assert alone.times is None and alone.values is None
    offsets, rows = excluded_of([user("model", timed), user("popular")])
    assert offsets.tolist() == [0, 3, 4]
    assert rows.tolist() == [0, 3, 5, 0]

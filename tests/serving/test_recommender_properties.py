"""What holds for every list, whatever the bundle, the user and the request."""

import math
import string

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shortlist.bundle.bundle import write_bundle
from shortlist.errors import UnknownIdError
from shortlist.serving.recommender import Recommender
from tiny_bundle import ITEM_IDS, USER_IDS, make_contents

USERS = st.one_of(
    st.none(), st.sampled_from([*USER_IDS, "zoe"]), st.integers(-(2**63), 2**63 - 1)
)
ITEMS = st.one_of(
    st.sampled_from(ITEM_IDS), st.text(string.printable, min_size=1, max_size=5)
)


@pytest.fixture(scope="module", params=["ranker", "retrieval", "popular"])
def loaded(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "b"
    parts = {
        "ranker": {},
        "retrieval": {"ranker": False},
        "popular": {"ranker": False, "retrieval": False},
    }[request.param]
    write_bundle(path, make_contents(**parts))
    return Recommender.load(path)


def assert_in_order(items):
    scores = [item.score for item in items]
    assert all(math.isfinite(score) for score in scores)
    assert scores == sorted(scores, reverse=True)
    ids = [item.item_id for item in items]
    assert len(set(ids)) == len(ids)
    assert set(ids) <= set(ITEM_IDS)


@settings(max_examples=60, deadline=None)
@given(
    user_id=USERS,
    k=st.integers(1, 1000),
    history=st.none() | st.lists(ITEMS, max_size=6),
    exclude_ids=st.lists(ITEMS, max_size=9),
    exclude_seen=st.booleans(),
)
def test_lists(loaded, user_id, k, history, exclude_ids, exclude_seen):
    answer = loaded.recommend(
        user_id,
        k=k,
        history=history,
        exclude_ids=exclude_ids,
        exclude_seen=exclude_seen,
    )
    assert_in_order(answer.items)
    assert len(answer.items) <= k
    left_out = set(exclude_ids) | (set(history or ()) if exclude_seen else set())
    assert not left_out & {item.item_id for item in answer.items}
    assert answer.cold_start == (user_id not in USER_IDS[:3])
    assert not answer.degraded


@settings(max_examples=40, deadline=None)
@given(user_id=USERS.filter(lambda u: u is not None), item_ids=st.lists(ITEMS))
def test_rankings(loaded, user_id, item_ids):
    ranking = loaded.rank(user_id, item_ids)
    assert_in_order(ranking.items)
    known = {item.item_id for item in ranking.items}
    assert known == set(item_ids) & set(ITEM_IDS)
    assert known | set(ranking.unknown_items) == set(item_ids)


@settings(max_examples=40, deadline=None)
@given(item_id=ITEMS, k=st.integers(1, 1000))
def test_similar_items(loaded, item_id, k):
    if item_id not in ITEM_IDS:
        with pytest.raises(UnknownIdError):
            loaded.similar(item_id, k)
        return
    items = loaded.similar(item_id, k).items
    assert_in_order(items)
    assert len(items) == min(k, len(ITEM_IDS) - 1)
    assert item_id not in {item.item_id for item in items}


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.lists(st.integers(-1, 7), max_size=5), min_size=8, max_size=8))
def test_means_of_ragged_lists_are_those_of_a_plain_loop(lists):
    from shortlist.serving.encoder import rows_of_column

    table = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    ragged = rows_of_column(pl.Series(lists, dtype=pl.List(pl.Int32)))
    rows = np.array([3, 0, 7, 3])
    expected = []
    for row in rows:
        kept = [table[i] for i in lists[row] if i >= 0]
        expected.append(np.mean(kept, axis=0) if kept else np.zeros(3))
        assert ragged.row(row).tolist() == [i for i in lists[row] if i >= 0]
    np.testing.assert_allclose(ragged.take(rows).mean(table), expected, atol=1e-6)

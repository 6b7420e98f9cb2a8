"""Every answer equals one computed by hand from the raw numbers of the tiny bundle."""

import dataclasses
import subprocess
import sys
import time

import msgspec
import numpy as np
import polars as pl
import pytest

from shortlist.bundle.bundle import write_bundle
from shortlist.errors import InputError, UnknownIdError
from shortlist.serving.event_store.events import Event, SqliteEventStore
from shortlist.serving.recommender import Recommender
from tiny_bundle import (
    HISTORIES,
    ITEM_IDS,
    ITEM_VECTORS,
    TITLES,
    expected_list,
    make_contents,
    ranker_score,
    retrieval_scores,
    tower_of,
    vocabulary,
)

NOW_MS = int(time.time() * 1000)
DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def load(tmp_path):
    """Loads a recommender for changed contents of the tiny bundle."""
    loaded = []

    def load_contents(events=None, **changes):
        path = tmp_path / f"bundle-{len(loaded)}"
        write_bundle(path, make_contents(**changes))
        loaded.append(Recommender.load(path, events=events))
        return loaded[-1]

    yield load_contents
    for recommender in loaded:
        recommender.close()


def pairs(answer):
    return [(item.item_id, item.score) for item in answer.items]


def assert_same_list(answer, expected):
    assert [i for i, _ in pairs(answer)] == [i for i, _ in expected]
    np.testing.assert_allclose(
        [s for _, s in pairs(answer)], [s for _, s in expected], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("user", "row"), [("ann", 1), ("bob", 2), ("cat", 3)])
@pytest.mark.parametrize("ranker", [True, False])
@pytest.mark.parametrize("k", [1, 3, 7, 1000])
def test_known_users_get_the_model(load, user, row, ranker, k):
    answer = load(ranker=ranker).recommend(user, k=k)
    assert_same_list(answer, expected_list(row, HISTORIES[row], k=k, ranker=ranker))
    assert (answer.source, answer.cold_start, answer.degraded) == (
        "model",
        False,
        False,
    )


def test_only_the_first_candidates_are_re_scored(load):
    ranker = dataclasses.replace(make_contents().ranker, candidates=2, weight=20.0)
    recommender = load(ranker=ranker)
    two = expected_list(2, [3], k=2, candidates=2, weight=20.0)
    assert_same_list(recommender.recommend("bob", k=2), two)
    assert two != expected_list(2, [3], k=2, candidates=5, weight=20.0)
    # A longer list re-scores as many as it shows, or its order would break.
    six = expected_list(2, [3], k=6, candidates=2, weight=20.0)
    assert_same_list(recommender.recommend("bob", k=6), six)


def test_titles_come_with_the_items(recommender):
    titles = dict(zip(ITEM_IDS, TITLES, strict=True))
    for item in recommender.recommend("ann").items:
        assert item.title == titles[item.item_id]


def test_seen_items_come_back_on_request(recommender):
    answer = recommender.recommend("cat", exclude_seen=False)
    assert_same_list(answer, expected_list(3, HISTORIES[3], excluded=[], k=10))
    assert len(answer.items) == 7


def test_a_bundle_with_repeats_recommends_seen_items_unless_asked_otherwise(load):
    again, asked = load(repeats=True), load()
    for user, row in (("ann", 1), ("bob", 2), ("cat", 3)):
        everything = expected_list(row, HISTORIES[row], excluded=[], k=10)
        assert_same_list(again.recommend(user), everything)
        assert_same_list(again.recommend_batch([user])[0], everything)
        unseen = again.recommend(user, exclude_seen=True)
        assert pairs(unseen) == pairs(asked.recommend(user))
        assert_same_list(unseen, expected_list(row, HISTORIES[row], k=10))
    given = again.recommend(history=["heat"])
    assert "heat" in [item.item_id for item in given.items]
    left_out = again.recommend("ann", exclude_ids=["heat"])
    assert "heat" not in [item.item_id for item in left_out.items]


def test_excluded_items_stay_out_and_unknown_ones_do_no_harm(recommender):
    answer = recommender.recommend("ann", exclude_ids=["a/b", "nowhere", "a/b"])
    assert_same_list(answer, expected_list(1, [1, 2], excluded=[1, 2, 3], k=10))


def test_an_unknown_user_without_history_gets_what_is_popular(recommender):
    for user in (None, "zoe", 42):
        answer = recommender.recommend(user, k=4)
        assert pairs(answer) == [
            ("toy story", 9.0),  # the tie with say "hi" goes to the lower row
            ('say "hi"', 9.0),
            ("heat", 5.0),
            ("100%?&#", 3.0),
        ]
        assert (answer.source, answer.cold_start) == ("popular", True)
        assert not answer.degraded


def test_popular_items_are_filtered_as_well(recommender):
    answer = recommender.recommend("zoe", k=2, exclude_ids=["toy story", "heat"])
    assert [i for i, _ in pairs(answer)] == ['say "hi"', "100%?&#"]


def test_an_unknown_user_with_a_history_is_judged_by_it(recommender):
    answer = recommender.recommend("zoe", history=["heat", "nowhere", "a/b"])
    assert_same_list(answer, expected_list(0, [1, 3]))
    assert (answer.source, answer.cold_start) == ("history", True)
    assert recommender.recommend(history=["heat", "a/b"]) == answer


def test_a_history_of_unknown_items_is_no_history(recommender):
    answer = recommender.recommend("zoe", history=["nowhere"])
    assert answer.source == "popular"


def test_a_given_history_takes_the_place_of_the_stored_one(recommender):
    answer = recommender.recommend("ann", history=["it's 🎬"])
    assert_same_list(answer, expected_list(1, [5], excluded=[1, 2, 5]))
    assert answer.source == "model"


def test_only_the_end_of_a_long_history_is_read(recommender):
    ids = [ITEM_IDS[row - 1] for row in (2, 6, 1, 3, 5)]
    answer = recommender.recommend(history=ids)
    assert_same_list(answer, expected_list(0, [1, 3, 5], excluded=[1, 2, 3, 5, 6]))


def test_a_user_the_training_never_saw_is_cold_though_it_has_a_row(recommender):
    assert recommender.recommend("dan").source == "popular"
    answer = recommender.recommend("dan", history=["heat"], k=1, exclude_seen=False)
    scores = retrieval_scores(0, [1], feature_row=4)  # its own attributes count
    best = max(
        range(1, 8),
        key=lambda row: scores[row] + 0.5 * ranker_score(0, [1], row, feature_row=4),
    )
    assert answer.items[0].item_id == ITEM_IDS[best - 1]
    assert (answer.source, answer.cold_start) == ("history", True)


def test_everything_seen_leaves_an_empty_list(recommender):
    answer = recommender.recommend("ann", exclude_ids=ITEM_IDS)
    assert answer.items == []
    assert recommender.recommend(exclude_ids=ITEM_IDS).items == []


def test_a_bundle_without_a_model_knows_what_is_popular(load):
    recommender = load(retrieval=False, ranker=False)
    answer = recommender.recommend("ann", k=2)
    assert [i for i, _ in pairs(answer)] == ['say "hi"', "100%?&#"]  # two are seen
    assert (answer.source, answer.cold_start) == ("popular", False)
    similar = recommender.similar("toy story", 1)
    assert (pairs(similar), similar.source) == ([('say "hi"', 9.0)], "popular")
    assert recommender.rank("ann", ["heat", "toy story"]).items[0].score == 9.0


@pytest.mark.parametrize(
    ("ranker", "user", "row"), [(True, "bob", 2), (False, "cat", 3)]
)
def test_rank_orders_given_items(load, ranker, user, row):
    recommender = load(ranker=ranker)
    asked = ["heat", "nowhere", "c:\\d", "heat", "100%?&#", 99]
    ranking = recommender.rank(user, asked)
    scores = retrieval_scores(row, HISTORIES[row])
    if ranker:
        scores = {r: ranker_score(row, HISTORIES[row], r) for r in (1, 6, 7)}
    expected = sorted((1, 6, 7), key=lambda r: -scores[r])
    assert_same_list(ranking, [(ITEM_IDS[r - 1], scores[r]) for r in expected])
    assert ranking.unknown_items == ["nowhere", 99]
    assert (ranking.source, ranking.cold_start) == ("model", False)


def test_rank_for_a_new_user_is_by_popularity(recommender):
    ranking = recommender.rank("zoe", ["heat", "toy story"])
    assert pairs(ranking) == [("toy story", 9.0), ("heat", 5.0)]
    assert (ranking.source, ranking.cold_start) == ("popular", True)


@pytest.mark.parametrize("ranker", [True, False])
def test_rank_of_nothing_known_is_empty(load, ranker):
    for user in ("ann", "zoe"):
        ranking = load(ranker=ranker).rank(user, ["nowhere"])
        assert (ranking.items, ranking.unknown_items) == ([], ["nowhere"])


def test_similar_is_the_cosine_of_item_vectors(recommender):
    vectors = ITEM_VECTORS[1:] / np.linalg.norm(ITEM_VECTORS[1:], axis=1)[:, None]
    cosines = vectors @ vectors[2]
    order = [i for i in np.argsort(-cosines) if i != 2]
    answer = recommender.similar("a/b", 10)
    assert_same_list(answer, [(ITEM_IDS[i], cosines[i]) for i in order])
    assert (answer.item_id, answer.source) == ("a/b", "model")


def test_similar_to_an_unknown_item_suggests_a_known_one(recommender):
    with pytest.raises(UnknownIdError) as caught:
        recommender.similar("toystory")
    assert caught.value.code == "unknown-item"
    assert "Received: 'toystory'. Did you mean 'toy story'?" in str(caught.value)


def test_an_item_without_a_direction_is_near_nothing(load):
    vectors = ITEM_VECTORS.copy()
    vectors[3] = 0
    retrieval = dataclasses.replace(tower_of(make_contents()), item_vectors=vectors)
    answer = load(retrieval=retrieval).similar("a/b", 3)
    assert pairs(answer) == [("heat", 0.0), ("toy story", 0.0), ('say "hi"', 0.0)]


@pytest.mark.parametrize("k", [0, -1, 1001, 10**9, 10**400, 1.5, "5", None, True])
def test_a_wrong_k_is_refused(recommender, k):
    for call in (
        lambda: recommender.recommend("ann", k=k),
        lambda: recommender.recommend_batch(["ann"], k=k),
        lambda: recommender.similar("heat", k),
    ):
        with pytest.raises(
            InputError, match="must be a whole number from 1 to 1000"
        ) as c:
            call()
        assert c.value.code == "invalid-k"
        assert len(str(c.value)) < 200


@pytest.mark.parametrize(
    "bad", ["", "x" * 1025, "\ud800", 1.5, True, b"ann", ["ann"], 2**63, -(10**4000)]
)
def test_a_wrong_id_is_refused(recommender, bad):
    for call in (
        lambda: recommender.recommend(bad),
        lambda: recommender.recommend(history=[bad]),
        lambda: recommender.recommend(exclude_ids=[bad]),
        lambda: recommender.rank(bad, ["heat"]),
        lambda: recommender.rank("ann", [bad]),
        lambda: recommender.similar(bad),
        lambda: recommender.add_event(bad, "heat"),
        lambda: recommender.add_event("ann", bad),
    ):
        with pytest.raises(InputError, match="must be a 64-bit integer or a str") as c:
            call()
        assert c.value.code == "invalid-id"
        str(c.value).encode()
        assert len(str(c.value)) < 300


@pytest.mark.parametrize("name", ["ann", "zoe"])
def test_a_posted_event_changes_the_next_answer(recommender, name):
    row, stored = (1, [1, 2]) if name == "ann" else (0, [])
    before = recommender.recommend(name)
    recommender.add_event(name, "it's 🎬")
    after = recommender.recommend(name)
    assert after != before
    assert_same_list(after, expected_list(row, [*stored, 5]))
    assert after.source == ("model" if name == "ann" else "history")


def test_events_are_ordered_by_their_time(recommender):
    for item, second in (("heat", 30), ("a/b", 10), ("c:\\d", 20), ("heat", 20)):
        recommender.add_event("zoe", item, 10**12 + second)
    expected = expected_list(0, [3, 6, 1, 1], excluded=[1, 3, 6])
    assert_same_list(recommender.recommend("zoe"), expected)


def test_batches_answer_as_single_calls_do(recommender):
    recommender.add_event("zoe", "heat")
    users = ["ann", "zoe", "nobody", "cat", "dan", "bob"]
    for exclude_seen in (True, False):
        batch = recommender.recommend_batch(users, 5, exclude_seen=exclude_seen)
        for user, answer in zip(users, batch, strict=True):
            single = recommender.recommend(user, k=5, exclude_seen=exclude_seen)
            assert_same_list(answer, pairs(single))
            assert answer.source == single.source
    assert recommender.recommend_batch([]) == []


def test_a_restart_keeps_the_events(tmp_path, load):
    first = load(events=SqliteEventStore(tmp_path / "e.sqlite"))
    first.add_event("zoe", "heat")
    first.close()
    again = load(events=SqliteEventStore(tmp_path / "e.sqlite"))
    assert_same_list(again.recommend("zoe"), expected_list(0, [1]))


def test_without_a_store_events_last_as_long_as_the_process(load):
    recommender = load()
    recommender.add_event("zoe", "heat")
    assert recommender.recommend("zoe").source == "history"
    assert load().recommend("zoe").source == "popular"


def test_events_of_items_the_bundle_does_not_hold_are_passed_over(tmp_path, load):
    store = SqliteEventStore(tmp_path / "e.sqlite")
    store.append([Event(user_id="zoe", item_id="gone", timestamp_ms=1)])
    assert load(events=store).recommend("zoe").source == "popular"


@pytest.mark.parametrize(
    ("event", "code", "words"),
    [
        ({"item_id": "nowhere"}, "unknown-item", "must be one the model was trained"),
        ({"timestamp_ms": NOW_MS + 2 * DAY_MS}, "future-timestamp", "a day ahead"),
        ({"timestamp_ms": 10**30}, "future-timestamp", "integer of about 31 digits"),
        ({"timestamp_ms": -1}, "invalid-timestamp", "since 1970"),
        ({"timestamp_ms": 1.5}, "invalid-timestamp", "whole milliseconds"),
        ({"label": 5.5}, "invalid-label", "from 1.0 to 5.0. Received: 5.5"),
        ({"label": float("nan")}, "invalid-label", "Received: nan"),
        ({"label": float("inf")}, "invalid-label", "Received: inf"),
    ],
)
def test_a_wrong_event_is_refused_and_nothing_is_kept(recommender, event, code, words):
    good = {"user_id": "zoe", "item_id": "heat", "timestamp_ms": NOW_MS, "label": 4.0}
    events = [Event(**good), Event(**(good | event))]
    with pytest.raises(InputError, match=words) as caught:
        recommender.add_events(events)
    assert caught.value.code == code
    ((index, error),) = recommender.check_events(events)
    assert (index, error.code) == (1, code)
    assert recommender.recommend("zoe").source == "popular"


def test_an_event_of_tomorrow_is_a_clock_and_not_an_error(recommender):
    recommender.add_event("zoe", "heat", NOW_MS + DAY_MS - 60_000, label=5.0)
    assert recommender.recommend("zoe").source == "history"


def test_integer_ids_are_found_as_text_too_and_come_back_as_integers(load):
    contents = make_contents()
    vocabularies = {
        **contents.vocabularies,
        "user": vocabulary("user", [11, 12, 13, 14], [1, 1, 1, 0]),
        "item": vocabulary("item", list(range(101, 108)), [1] * 7),
    }
    recommender = load(vocabularies=vocabularies, items=contents.items)
    assert recommender.recommend("11") == recommender.recommend(11)
    assert recommender.recommend(11).source == "model"
    assert all(isinstance(i, int) for i, _ in pairs(recommender.recommend(11)))
    assert len(recommender.rank(11, ["101", 101]).items) == 1
    recommender.add_event("11", "103")
    assert 103 not in [i for i, _ in pairs(recommender.recommend(11))]


def test_a_catalogue_without_titles_leaves_them_out(load):
    items = make_contents().items.drop("title")
    assert load(items=items).recommend("ann").items[0].title is None


def test_a_numeric_title_is_shown_as_text(load):
    items = make_contents().items.with_columns(title=pl.Series(range(8)))
    assert load(items=items).recommend("ann", k=1).items[0].title in "1234567"


def test_answers_need_no_training_framework(bundle_path):
    script = (
        "import sys\n"
        "from shortlist.serving.recommender import Recommender\n"
        "answer = Recommender.load(sys.argv[1]).recommend('ann')\n"
        "assert answer.source == 'model' and answer.items\n"
        "heavy = {'keras', 'keras_rs', 'jax', 'tensorflow', 'torch', 'onnx'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", script, bundle_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("[]\n", "", 0)


def test_posted_event_below_the_threshold_of_an_implicit_log_is_no_history(load):
    plain = make_contents().schema
    implicit = msgspec.structs.replace(plain, label_kind="implicit", positive_from=3.0)
    recommender = load(schema=implicit)
    recommender.add_event("zoe", "heat", NOW_MS, label=2.0)
    assert recommender.recommend("zoe").source == "popular"
    recommender.add_event("zoe", "heat", NOW_MS, label=3.0)
    assert recommender.recommend("zoe").source != "popular"

"""Folds: nothing of the test part or of a later time, each event tested once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.data import TEST, TRAIN, VALIDATION, Schema, Split, append, prepare
from shortlist.data.preparation.folds import LEFT_OUT, assign_fold
from shortlist.data.split import assign_parts
from shortlist.errors import InputError

EVENTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 50)), max_size=60)
FOLDS = st.integers(2, 4)
TIMED = st.sampled_from(
    [
        Split(kind="last_fraction", test=0.2, validation=0.25),
        Split(kind="last_n", test=1, validation=2),
        Split(kind="last_n", test=3, validation=0),
        Split(kind="time_cut", test=0.15, validation=0.1),
        Split(
            kind="time_cut",
            test_from="1970-01-01T00:00:00.035",
            validation_from="1970-01-01T00:00:00.025",
        ),
    ]
)


def arrays_of(events: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    ordered = np.array(sorted(events), np.int64).reshape(-1, 2)
    return ordered[:, 0].copy(), ordered[:, 1].copy()


def fold(split: Split, number: int, folds: int) -> Split:
    return dataclasses.replace(split, fold=number, folds=folds)


@settings(derandomize=True, deadline=None)
@given(EVENTS, TIMED, FOLDS)
def test_folds_by_time_roll_back_from_the_test_part(
    events: list[tuple[int, int]], split: Split, folds: int
) -> None:
    user, time = arrays_of(events)
    whole = assign_parts(user, time, split)
    later = whole == TEST
    for number in range(folds, 0, -1):
        parts = assign_fold(user, time, fold(split, number, folds))
        # What a fold leaves out is the test part and what newer folds test.
        np.testing.assert_array_equal(parts == LEFT_OUT, later)
        test, known = parts == TEST, (parts == TRAIN) | (parts == VALIDATION)
        if split.kind == "time_cut" and test.any() and known.any():
            assert time[known].max() < time[test].min()
        for each in np.unique(user):
            mine = user == each
            if (test & mine).any() and (known & mine).any():
                assert time[known & mine].max() <= time[test & mine].min()
        if split.test_from is None:
            expected = assign_parts(user[~later], time[~later], split)
            np.testing.assert_array_equal(parts[~later], expected)
        later = later | test


@settings(derandomize=True, deadline=None)
@given(EVENTS, st.sampled_from([0.0, 0.2, 0.5]), FOLDS, st.integers(0, 3))
def test_random_folds_test_each_event_once(
    events: list[tuple[int, int]], test: float, folds: int, seed: int
) -> None:
    user, time = arrays_of(events)
    split = Split(kind="random", test=test, validation=0.25, seed=seed)
    held = assign_parts(user, time, split) == TEST
    found = [assign_fold(user, time, fold(split, n + 1, folds)) for n in range(folds)]
    tested = np.sum([parts == TEST for parts in found], axis=0)
    np.testing.assert_array_equal(tested, np.where(held, 0, 1))
    sizes = [int((parts == TEST).sum()) for parts in found]
    assert max(sizes) - min(sizes) <= 1
    for parts in found:
        np.testing.assert_array_equal(parts == LEFT_OUT, held)
        rest = int((~held).sum()) - int((parts == TEST).sum())
        assert int((parts == VALIDATION).sum()) == rest // 4


def test_the_shares_that_moments_cut_off_are_taken_again() -> None:
    user, time = np.arange(20), np.arange(20) * 1000
    split = Split(
        kind="time_cut",
        test_from="1970-01-01T00:00:16",
        validation_from="1970-01-01T00:00:12",
    )
    parts = assign_fold(user, time, fold(split, 2, 2))
    # A fifth was tested, and a quarter of the other 16 was for validation.
    assert parts.tolist() == [TRAIN] * 10 + [VALIDATION] * 3 + [TEST] * 3 + [-1] * 4
    older = assign_fold(user, time, fold(split, 1, 2))
    assert older.tolist() == [TRAIN] * 9 + [VALIDATION] * 2 + [TEST] * 2 + [-1] * 7


def test_the_share_of_validation_leaves_out_what_is_tested() -> None:
    time = np.arange(1000, dtype=np.int64)
    split = Split(kind="time_cut", test=0.2, validation_from="1970-01-01T00:00:00.700")
    parts = assign_fold(np.zeros(1000, np.int64), time, fold(split, 2, 2))
    # 700, 100 and 200 events: an eighth of what is not tested validates.
    assert np.bincount(parts + 1).tolist() == [200, 560, 80, 160]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"folds": 1, "fold": 1}, "`folds` must be at least 2"),
        ({"folds": 3, "fold": 0}, "fold=0"),
        ({"folds": 3, "fold": 4}, "fold=4"),
        ({"fold": 1}, "folds=0"),
        ({"folds": 2, "fold": 1, "kind": "files"}, "'files' has none"),
        ({"folds": 2, "fold": 1, "test": 0.0}, "Set `test` above 0"),
    ],
)
def test_folds_that_cannot_be_made_are_refused(fields: dict, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        Split(**fields)
    assert caught.value.code == "split-folds"


SCHEMA = Schema(user_id="user", item_id="item", timestamp="time")


def test_a_fold_is_prepared_without_the_events_it_leaves_out(tmp_path: Path) -> None:
    """As if those events were not in the log at all, except for the rows read."""
    rows = [(u, (u * 3 + t) % 11, 1000 * t + u) for u in range(9) for t in range(8)]
    rows.append((99, 77, 90_000))  # the newest of all: a user and an item of their own
    log = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
    log.write_csv(tmp_path / "log.csv")
    split = Split(kind="time_cut", test=0.25, validation=0.2)
    cut = log.sort("time").head(len(log) - int(len(log) * 0.25))
    cut.write_csv(tmp_path / "cut.csv")
    found = prepare(
        tmp_path / "log.csv", SCHEMA, tmp_path / "fold", split=fold(split, 2, 2)
    )
    expected = prepare(tmp_path / "cut.csv", SCHEMA, tmp_path / "cut", split=split)
    assert found.info.parts == expected.info.parts
    assert found.info.fingerprint == expected.info.fingerprint
    assert found.info.split["fold"] == 2
    assert not found.info.pending or found.info.pending == expected.info.pending
    (tmp_path / "new.csv").write_text("user,item,time\n1,2,99000\n")
    with pytest.raises(InputError, match="not to a fold") as caught:
        append(tmp_path / "fold", tmp_path / "new.csv")
    assert caught.value.code == "append-split"

"""A scorer of a bundle is used only where every array is what its kind needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shortlist.bundle import RetrievalContents, read_bundle, write_bundle
from shortlist.bundle.contents import check_contents
from shortlist.errors import ArtifactError
from shortlist.models.scorers import make_scorer
from shortlist.serving.recommender import Recommender
from tiny_bundle import (
    HISTORIES,
    ITEM_COUNTS,
    ITEM_IDS,
    make_contents,
    numbers,
    tower_of,
)

USERS, ITEMS = 5, 8
COUNTS = np.array([0, *ITEM_COUNTS], np.float32)


def arrays_of(kind: str) -> dict[str, np.ndarray]:
    return {
        "popularity": {
            "scores": np.abs(numbers(3, ITEMS, seed=1)),
            "segments": np.array([0, 1, 2, 1, 0], np.int32),
        },
        "item_knn": {
            "offsets": np.array([0, 0, 2, 3, 3, 3, 3, 3, 4], np.int32),
            "indices": np.array([2, 4, 7, 1], np.int32),
            "similarities": np.array([0.5, 0.25, 0.75, 0.1], np.float32),
        },
        "ease": {"weights": numbers(ITEMS, ITEMS, seed=2)},
        "als": {
            "item_factors": numbers(ITEMS, 3, seed=3),
            "mean_confidence": np.ones(1, np.float32),
        },
        "burst_als": {
            "item_factors": numbers(ITEMS, 3, seed=6),
            "label": np.array([3, 1], np.float32),
        },
        "factorization": {
            "users": numbers(USERS, 4, seed=4),
            "items": numbers(ITEMS, 4, seed=5),
            "label": np.array([3, 1, 5], np.float32),
        },
    }[kind] | {"counts": COUNTS}


OPTIONS = {
    "popularity": {"segment": "segment"},
    "item_knn": {},
    "ease": {},
    "als": {"factors": 3},
    "burst_als": {"factors": 3},
    "factorization": {"factors": 3},
}


def scorer_of(kind: str, **changes) -> RetrievalContents:
    config = make_scorer(kind, OPTIONS[kind]).get_config()
    part = RetrievalContents(kind=kind, config=config, arrays=arrays_of(kind))
    return dataclasses.replace(part, **changes)


def blend() -> RetrievalContents:
    members = {kind: scorer_of(kind) for kind in ("item_knn", "ease")}
    entries = {
        name: {"kind": name, "config": part.config} for name, part in members.items()
    }
    return RetrievalContents(
        kind="blend",
        config={
            "members": {**entries, "tower": {"kind": "two_tower"}},
            "weights": {"item_knn": 1.0, "ease": 0.5, "tower": 2.0},
        },
        arrays={"counts": COUNTS}
        | {
            f"{name}/{key}": array
            for name, part in members.items()
            for key, array in part.arrays.items()
        },
        towers={"tower": tower_of(make_contents())},
    )


def refusal(part: RetrievalContents) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        check_contents(make_contents(retrieval=part, ranker=False))
    return caught.value


@pytest.mark.parametrize("kind", [*OPTIONS, "blend"])
def test_every_kind_is_written_read_and_asked(tmp_path: Path, kind: str) -> None:
    part = blend() if kind == "blend" else scorer_of(kind)
    write_bundle(tmp_path / "b", make_contents(retrieval=part, ranker=False))
    bundle = read_bundle(tmp_path / "b")
    assert bundle.manifest.format_version == 2 and bundle.manifest.retrieval is None
    read = bundle.contents.retrieval
    assert (read.kind, read.config) == (kind, part.config)
    for name, array in part.arrays.items():
        np.testing.assert_array_equal(read.arrays[name], array)
        assert read.arrays[name].dtype == array.dtype
    answer = Recommender(bundle).recommend("ann", k=3)
    assert answer.source == "model" and len(answer.items) == 3


def test_a_list_of_ease_is_the_sum_of_rows(tmp_path: Path) -> None:
    part = scorer_of("ease")
    contents = make_contents(retrieval=part, ranker=False)
    weights = part.arrays["weights"]
    history = HISTORIES[1]
    scores = sum(weights[row] for row in set(history))
    left = [r for r in range(1, ITEMS) if r not in history and COUNTS[r] > 0]
    left.sort(key=lambda row: -scores[row])
    write_bundle(tmp_path / "b", contents)
    recommender = Recommender.load(tmp_path / "b")
    listed = recommender.recommend("ann", k=2).items
    assert [i.item_id for i in listed] == [ITEM_IDS[row - 1] for row in left[:2]]
    assert [i.score for i in listed] == pytest.approx([scores[r] for r in left[:2]])


@pytest.mark.parametrize("kind", OPTIONS)
def test_arrays_of_another_shape_type_or_name_are_refused(kind: str) -> None:
    arrays = arrays_of(kind)
    for name, array in arrays.items():
        wider = np.zeros((*array.shape[:-1], array.shape[-1] + 1), array.dtype)
        other = np.float32 if array.dtype == np.int32 else np.int32
        for wrong in (wider, array[None], array.astype(other)):
            if name in ("indices", "similarities", "scores") and wrong is wider:
                continue  # checked against each other below
            error = refusal(scorer_of(kind, arrays={**arrays, name: wrong}))
            assert error.code in ("bundle-inconsistent", "bundle-not-finite")
        missing = {key: value for key, value in arrays.items() if key != name}
        assert refusal(scorer_of(kind, arrays=missing)).code == "bundle-inconsistent"
    refusal(scorer_of(kind, arrays={**arrays, "more": np.zeros(1, np.float32)}))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e35])
@pytest.mark.parametrize("kind", OPTIONS)
def test_numbers_out_of_range_are_refused(kind: str, value: float) -> None:
    arrays = arrays_of(kind)
    for name, array in arrays.items():
        if array.dtype == np.float32:
            broken = array.copy()
            broken.flat[-1] = value
            assert refusal(scorer_of(kind, arrays={**arrays, name: broken}))


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("popularity", "segments", [0, 1, 2, 3, 0]),
        ("popularity", "segments", [0, -1, 0, 0, 0]),
        ("item_knn", "offsets", [0, 3, 2, 3, 3, 3, 3, 3, 4]),
        ("item_knn", "offsets", [0, 0, 0, 0, 0, 0, 0, 0, 5]),
        ("item_knn", "offsets", [1, 1, 1, 1, 1, 1, 1, 1, 4]),
        ("item_knn", "indices", [2, 4, 8, 1]),
        ("item_knn", "indices", [2, 4, -1, 1]),
        ("als", "mean_confidence", [0.0]),
        ("burst_als", "label", [3.0, -1.0]),
        ("factorization", "label", [3.0, 5.0, 1.0]),
        ("ease", "counts", [1.0, *ITEM_COUNTS]),
        ("ease", "counts", [0, -1.0, *ITEM_COUNTS[1:]]),
    ],
)
def test_values_that_would_break_an_answer_are_refused(kind, name, value) -> None:
    arrays = arrays_of(kind)
    wrong = np.array(value, arrays[name].dtype)
    error = refusal(scorer_of(kind, arrays={**arrays, name: wrong}))
    assert error.code == "bundle-inconsistent"


@pytest.mark.parametrize(
    "change",
    [
        {"towers": {}},
        {"towers": {"other": tower_of(make_contents())}},
        {"config": {"l2": 1.0}},
        {"arrays": {"counts": COUNTS}},
    ],
)
def test_a_two_tower_model_is_one_tower_and_nothing_else(change) -> None:
    part = RetrievalContents.of_tower(tower_of(make_contents()))
    check_contents(make_contents(retrieval=part))
    error = refusal(dataclasses.replace(part, **change))
    assert error.code == "bundle-inconsistent"
    assert "one two-tower model and nothing else" in str(error)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "pickle"},
        {"config": {"l2": -1.0}},
        {"config": {"l2": "x"}},
        {"config": {"depth": 1}},
        {"towers": {"t": tower_of(make_contents())}},
    ],
)
def test_another_kind_or_configuration_is_refused(change) -> None:
    part = dataclasses.replace(scorer_of("ease"), **change)
    assert refusal(part).code == "bundle-inconsistent"


@pytest.mark.parametrize(
    "change",
    [
        {"towers": {}},
        {"config": {}},
        {"config": {"members": {}, "weights": {}}},
        {"config": {"members": {"a": {"kind": "blend"}}, "weights": {"a": 1.0}}},
        {"config": {"members": {"a": 3}, "weights": {"a": 1.0}}},
        {"config": {"members": {"a": {"kind": "ease"}}, "weights": {"a": 1.0}}},
        {"config": {**blend().config, "weights": {"ease": 1.0}}},
        {
            "config": {
                **blend().config,
                "weights": {"item_knn": 1.0, "ease": -0.5, "tower": 2.0},
            }
        },
        {"arrays": {"counts": COUNTS}},
        {"arrays": {}},
        {"arrays": {**blend().arrays, "other/x": COUNTS}},
    ],
)
def test_a_blend_must_fit_its_members(change) -> None:
    part = dataclasses.replace(blend(), **change)
    assert refusal(part).code == "bundle-inconsistent"


def test_times_must_go_with_the_history() -> None:
    contents = make_contents(retrieval=scorer_of("item_knn"), ranker=False)
    times = pl.Series("history_times", [[1], [], [], [], []], dtype=pl.List(pl.Int64))
    wrong = dataclasses.replace(contents, users=contents.users.with_columns(times))
    with pytest.raises(ArtifactError, match="one number per item of the history"):
        check_contents(wrong)

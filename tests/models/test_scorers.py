"""Every scorer through the suite, and each against an independent computation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from scorer_suite import ScorerSuite
from shortlist.data import Dataset, Feature, LogFiles, Schema, Split, prepare
from shortlist.errors import ArtifactError, InputError, ResourceError
from shortlist.models.scorers import (
    LAST,
    Blend,
    Ease,
    Factorization,
    ImplicitAls,
    ItemKnn,
    KnownItems,
    Popularity,
    Queries,
    best_items,
    load_scorer,
    make_scorer,
    restore,
)
from shortlist.models.scorers import als as als_module
from shortlist.models.scorers.als import import_implicit
from shortlist.models.scorers.blend import coordinate_search
from shortlist.models.scorers.co_occurrence import co_occurrence_rows
from shortlist.models.scorers.normal_equations import solve_rows
from toy import synthetic

DAY = 86_400


class TestPopularity(ScorerSuite):
    make = Popularity


class TestRecentPopularityOfSegments(ScorerSuite):
    make = staticmethod(lambda: Popularity(half_life_days=30, segment="segment"))


class TestItemKnn(ScorerSuite):
    make = staticmethod(lambda: ItemKnn(neighbours=20))


class TestItemKnnWithDecayAndRatings(ScorerSuite):
    make = staticmethod(
        lambda: ItemKnn(
            similarity="cosine",
            neighbours=None,
            shrinkage=5,
            half_life_days=20,
            rating_weights=True,
        )
    )


class TestEase(ScorerSuite):
    make = staticmethod(lambda: Ease(l2=20))


class TestEaseWithDropout(ScorerSuite):
    make = staticmethod(lambda: Ease(l2=20, dropout=0.3))


class TestAls(ScorerSuite):
    make = staticmethod(lambda: ImplicitAls(factors=8, iterations=5))


class TestAlsByFrequency(ScorerSuite):
    make = staticmethod(lambda: ImplicitAls(factors=8, iterations=5, frequency=1))


class TestFactorization(ScorerSuite):
    make = staticmethod(lambda: Factorization(factors=4, sweeps=6))


class TestBlend(ScorerSuite):
    make = staticmethod(
        lambda: Blend(
            {"ease": Ease(), "knn": ItemKnn(), "als": ImplicitAls(factors=4)},
            weights={"ease": 1.0, "knn": 0.5, "als": 0.25},
        )
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return synthetic(tmp_path_factory.getbasetemp())


def lists_of(dataset: Dataset) -> list[list[int]]:
    """Distinct known items of each user row, from the events one by one."""
    part = dataset.interactions("train")
    found: list[set[int]] = [set() for _ in range(dataset.num_users)]
    for user, item in zip(part.user_index, part.item_index, strict=True):
        if user > 0 and item > 0:
            found[user].add(int(item))
    return [sorted(items) for items in found]


def matrix_of(dataset: Dataset) -> np.ndarray:
    """Who took what, `(num_users, num_items)` float64."""
    taken = np.zeros((dataset.num_users, dataset.num_items))
    for user, items in enumerate(lists_of(dataset)):
        taken[user, items] = 1
    return taken


def queries_of(dataset: Dataset) -> Queries:
    return KnownItems(dataset, ("train",), values=True).everyone()


# --- known items --------------------------------------------------------------------


def test_known_items_are_those_of_the_events(dataset: Dataset) -> None:
    queries = queries_of(dataset)
    part = dataset.interactions("train")
    for user in (1, 7, dataset.num_users - 1):
        mine = part.take((part.user_index == user) & (part.item_index > 0))
        one = queries.part(user, user + 1)
        assert one.items.tolist() == mine.item_index.tolist()
        assert one.times.tolist() == mine.timestamp_ms.tolist()
        assert one.values.tolist() == mine.label.tolist()
    assert queries.offsets[1] == 0  # row 0 knows nothing


def test_distinct_keeps_the_newest_event_of_each_item() -> None:
    queries = Queries(
        np.array([1, 2], np.int32),
        np.array([0, 4, 6]),
        np.array([3, 0, 5, 3, 2, 2], np.int32),
        times=np.array([1, 2, 3, 4, 5, 6]),
        values=np.array([1, 2, 3, 4, 5, 6], np.float32),
    ).distinct()
    assert queries.offsets.tolist() == [0, 2, 3]
    assert queries.items.tolist() == [3, 5, 2]
    assert queries.times.tolist() == [4, 3, 6]
    assert queries.values.tolist() == [4, 3, 6]


def test_the_last_items_are_padded_at_the_end() -> None:
    queries = Queries.from_lists([1, 2, 3], [[4, 5, 6], [], [7]])
    assert queries.last(2).tolist() == [[5, 6], [-1, -1], [7, -1]]


# --- EASE ---------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_ease_is_the_formula_of_the_paper(dataset: Dataset, dropout: float) -> None:
    l2, taken = 30.0, matrix_of(dataset)
    gram = taken.T @ taken
    ridge = l2 + dropout / (1 - dropout) * np.diag(gram)
    inverse = np.linalg.inv(gram + np.diag(ridge))
    expected = np.eye(len(gram)) - inverse @ np.diag(1 / np.diag(inverse))
    np.fill_diagonal(expected, 0)
    model = Ease(l2=l2, dropout=dropout).fit(dataset)
    np.testing.assert_allclose(model.weights, expected, atol=1e-6)
    trained = taken.sum(axis=0) > 0
    users = np.flatnonzero(taken.any(axis=1))
    np.testing.assert_allclose(
        model.score_all(queries_of(dataset))[users][:, trained],
        (taken @ expected)[users][:, trained],
        atol=1e-5,
    )


def test_a_catalogue_beyond_the_memory_is_refused(dataset: Dataset) -> None:
    with pytest.raises(ResourceError, match="item_max_size = 18") as caught:
        Ease(memory_limit_gb=28 * 19.5**2 / 2**30).fit(dataset)
    assert caught.value.code == "catalogue-too-large"
    assert f"{dataset.num_items} rows need" in str(caught.value)


def test_nobody_known_gets_popularity(dataset: Dataset) -> None:
    counts = dataset.item_counts("train")
    trained = counts > 0
    by_counts = np.argsort(-counts[trained], kind="stable")
    for model in (Ease(), ItemKnn(), ImplicitAls(factors=4, iterations=2)):
        scores = model.fit(dataset).score_all(Queries.from_lists([0], [[]]))[0]
        order = np.argsort(-scores[trained], kind="stable")
        assert order.tolist() == by_counts.tolist()


# --- item-kNN -----------------------------------------------------------------------


@pytest.mark.parametrize("similarity", ["jaccard", "cosine", "lift", "cooccurrence"])
def test_item_knn_is_the_brute_force(dataset: Dataset, similarity: str) -> None:
    lists, shrinkage, neighbours = lists_of(dataset), 2.0, 7
    users_of = [
        {u for u, items in enumerate(lists) if item in items}
        for item in range(dataset.num_items)
    ]
    near = np.zeros((dataset.num_items, dataset.num_items))
    for i, a in enumerate(users_of):
        for j, b in enumerate(users_of):
            both = len(a & b)
            if i == j or not both:
                continue
            below = {
                "jaccard": len(a | b) + shrinkage,
                "cosine": (len(a) * len(b)) ** 0.5 + shrinkage,
                "lift": len(a) * len(b) + shrinkage,
                "cooccurrence": 1,
            }[similarity]
            near[i, j] = both / below
    for item in range(dataset.num_items):
        order = sorted(range(dataset.num_items), key=lambda j: (-near[item, j], j))
        near[item, order[neighbours:]] = 0
    model = ItemKnn(
        similarity=similarity, neighbours=neighbours, shrinkage=shrinkage
    ).fit(dataset)
    scores = model.score_all(queries_of(dataset))
    for user in (1, 30, 77):
        for item in range(1, dataset.num_items):
            if users_of[item]:
                expected = sum(near[item, known] for known in lists[user])
                assert scores[user, item] == pytest.approx(expected, rel=1e-5)


def test_decay_and_ratings_weigh_known_items(dataset: Dataset) -> None:
    plain = ItemKnn(neighbours=None).fit(dataset)
    model = ItemKnn(neighbours=None, half_life_days=2, rating_weights=True).fit(dataset)
    query = Queries(
        np.array([0], np.int32),
        np.array([0, 3]),
        np.array([4, 9, 12], np.int32),
        times=np.array([0, 2 * DAY * 1000, 4 * DAY * 1000]),
        values=np.array([4.0, 2.0, np.nan], np.float32),
    )
    rows = [plain.score_all(Queries.from_lists([0], [[i]]))[0] for i in (4, 9, 12)]
    # An event without a label counts as the mean of the others, 3.
    expected = 4 * rows[0] / 4 + 2 * rows[1] / 2 + 3 * rows[2]
    trained = plain.counts > 0
    scores = model.score_all(query)[0]
    np.testing.assert_allclose(scores[trained], expected[trained], rtol=1e-5)
    bare = model.score_all(Queries.from_lists([0], [[4, 9, 12]]))[0]
    same = plain.score_all(Queries.from_lists([0], [[4, 9, 12]]))[0]
    np.testing.assert_allclose(bare, same, rtol=1e-6)


def test_co_occurrences_do_not_depend_on_the_blocks(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = queries_of(dataset).distinct()
    taken = matrix_of(dataset)
    for pairs in (1, 200, 2**22):
        monkeypatch.setattr("shortlist.models.scorers.co_occurrence.PAIRS", pairs)
        found = np.concatenate(
            [rows for _, rows in co_occurrence_rows(known, dataset.num_items)]
        )
        np.testing.assert_array_equal(found, taken.T @ taken)


# --- implicit ALS -------------------------------------------------------------------


def test_fold_in_is_what_implicit_recomputes(dataset: Dataset) -> None:
    model = ImplicitAls(factors=6, iterations=4, regularization=3.0).fit(dataset)
    implicit = import_implicit()
    import scipy.sparse
    import threadpoolctl

    with threadpoolctl.threadpool_limits(1, "blas"):
        rival = implicit.AlternatingLeastSquares(factors=6, regularization=3.0)
        rival.item_factors = model.item_factors
        taken = scipy.sparse.csr_matrix(matrix_of(dataset) * (1 + model.options.alpha))
        theirs = rival.recalculate_user(np.arange(dataset.num_users), taken)
    ours = model.fold_in(queries_of(dataset).distinct())
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_als_by_frequency_solves_its_normal_equations(dataset: Dataset) -> None:
    model = ImplicitAls(
        factors=5, iterations=3, regularization=2, alpha=4, frequency=0.5
    ).fit(dataset)
    items, taken = model.item_factors.astype(np.float64), matrix_of(dataset)
    folded = model.fold_in(queries_of(dataset).distinct())
    sizes, active = taken.sum(axis=1), int((taken.sum(axis=0) > 0).sum())
    mean = 4.0 * sizes.sum() / (sizes > 0).sum() + active
    for user in (1, 50, 100):
        confidence = 1 + 4.0 * taken[user]
        ridge = 2.0 * ((4.0 * sizes[user] + active) / mean) ** 0.5
        matrix = items.T @ (confidence[:, None] * items) + ridge * np.eye(5)
        expected = np.linalg.solve(matrix, items.T @ (confidence * taken[user]))
        np.testing.assert_allclose(folded[user], expected, rtol=1e-4, atol=1e-6)


def test_a_missing_package_is_named_with_its_install_line(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(als_module.importlib, "import_module", missing)
    with pytest.raises(
        ResourceError, match=r"pip install 'shortlist\[als\]'"
    ) as caught:
        ImplicitAls().fit(dataset)
    assert caught.value.code == "package-missing"


def test_many_regressions_at_once_are_those_one_by_one() -> None:
    rng = np.random.default_rng(0)
    sizes = [0, 1, 30, 2, 500, 0, 7]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    columns = rng.integers(0, 40, offsets[-1])
    vectors = rng.normal(size=(40, 3))
    weights, targets = rng.random(offsets[-1]), rng.normal(size=offsets[-1])
    gram, ridge = np.eye(3) * 0.5, rng.random((7, 3)) + 0.1
    solved = solve_rows(
        offsets, columns, vectors, weights, targets, gram=gram, ridge=ridge
    )
    for row, size in enumerate(sizes):
        entries = slice(offsets[row], offsets[row + 1])
        own = vectors[columns[entries]]
        matrix = gram + np.diag(ridge[row]) + (own.T * weights[entries]) @ own
        expected = np.linalg.solve(matrix, own.T @ targets[entries])
        np.testing.assert_allclose(solved[row], expected if size else 0, atol=1e-9)


# --- factorization ------------------------------------------------------------------


def test_biases_alone_solve_the_ridge_regression_of_the_labels(tmp_path: Path) -> None:
    """Many labels per row leave the prior without a say: ordinary least squares."""
    rng = np.random.default_rng(0)
    users, items = (a.ravel() for a in np.meshgrid(range(40), range(30)))
    truth = rng.normal(0, 0.6, 40)[users] + rng.normal(0, 0.8, 30)[items]
    labels = 3 + truth + rng.normal(0, 0.05, len(truth))
    dataset = rated(tmp_path, users, items, labels)
    part = dataset.part("train")
    model = Factorization(factors=1, sweeps=30).fit(dataset)
    queries = Queries.from_lists(part.user_index, [[]] * len(part))
    predicted = model.predict(queries, np.arange(len(part)), part.item_index)
    one_hot = np.hstack(
        [
            np.eye(dataset.num_users)[part.user_index],
            np.eye(dataset.num_items)[part.item_index],
        ]
    )
    best = one_hot @ np.linalg.lstsq(one_hot, part.label, rcond=None)[0]
    assert np.abs(predicted - best).max() < 0.05


def test_factors_find_what_biases_cannot(tmp_path: Path) -> None:
    """Labels of rank 2 with little noise: what was held out is predicted well."""
    rng = np.random.default_rng(1)
    users, items = (a.ravel() for a in np.meshgrid(range(60), range(50)))
    p, q = rng.normal(size=(60, 2)), rng.normal(size=(50, 2))
    labels = 3 + (p[users] * q[items]).sum(axis=1) + rng.normal(0, 0.1, len(users))
    dataset = rated(tmp_path, users, items, labels)
    model = Factorization(factors=6, sweeps=30).fit(dataset)
    held_out = dataset.part("test")
    queries = Queries.from_lists(held_out.user_index, [[]] * len(held_out))
    places = np.arange(len(held_out))
    predicted = model.predict(queries, places, held_out.item_index)
    error = float(np.sqrt(np.mean((predicted - held_out.label) ** 2)))
    assert error < 0.16 < held_out.label.std()


def rated(
    folder: Path, users: np.ndarray, items: np.ndarray, labels: np.ndarray
) -> Dataset:
    log = {
        "user": users,
        "item": items,
        "rating": labels,
        "time": np.arange(len(users)),
    }
    pl.DataFrame(log).write_csv(folder / "log.csv")
    schema = Schema(
        user_id="user",
        item_id="item",
        timestamp="time",
        label="rating",
        label_kind="explicit",
    )
    split = Split(kind="random", test=0.2, validation=0.0, seed=1)
    return prepare(folder / "log.csv", schema, folder / "dataset", split=split)


def test_predicted_labels_stay_within_their_range(dataset: Dataset) -> None:
    model = Factorization(factors=3, sweeps=5).fit(dataset)
    queries = queries_of(dataset)
    positions = np.repeat(np.arange(len(queries)), dataset.num_items)
    items = np.tile(np.arange(dataset.num_items), len(queries))
    predicted = model.predict(queries, positions, items)
    assert predicted.min() >= 1 and predicted.max() <= 5


def test_a_label_is_needed_where_it_is_used(tmp_path: Path) -> None:
    rows = {"user": ["a", "a", "b", "b"], "item": ["x", "y", "x", "y"]}
    pl.DataFrame(rows).write_csv(tmp_path / "log.csv")
    schema = Schema(user_id="user", item_id="item")
    split = Split(kind="random", test=0.0, validation=0.0)
    dataset = prepare(tmp_path / "log.csv", schema, tmp_path / "d", split=split)
    for model in (Factorization(), ItemKnn(rating_weights=True)):
        with pytest.raises(InputError) as caught:
            model.fit(dataset)
        assert caught.value.code == "label-needed"


# --- popularity ---------------------------------------------------------------------


@pytest.fixture
def dated(tmp_path: Path) -> Dataset:
    """Two segments; "old" was taken thrice long ago, "new" twice lately."""
    events = [
        ("a", "old", 0),
        ("b", "old", 0),
        ("c", "old", 0),
        ("a", "new", 100 * DAY),
        ("c", "new", 90 * DAY),
        ("b", "rare", 100 * DAY),
    ]
    columns = zip(*events, strict=True)
    pl.DataFrame(dict(zip(("user", "item", "time"), columns, strict=True))).write_csv(
        tmp_path / "log.csv"
    )
    people = {"user": ["a", "b", "c"], "country": ["x", "y", "x"]}
    pl.DataFrame(people).write_csv(tmp_path / "users.csv")
    schema = Schema(
        user_id="user",
        item_id="item",
        timestamp="time",
        features=(Feature(name="country", owner="user", kind="categorical"),),
    )
    split = Split(kind="random", test=0.0, validation=0.0)
    return prepare(
        LogFiles(tmp_path / "log.csv", users=tmp_path / "users.csv"),
        schema,
        tmp_path / "dataset",
        split=split,
    )


def scores_of(model: Popularity, dataset: Dataset, user: str) -> dict[str, float]:
    rows = dataset.vocabularies["item"].lookup(["old", "new", "rare"])
    (row,) = dataset.vocabularies["user"].lookup([user])
    scores = model.score_all(Queries.from_lists([row], [[]]))[0, rows]
    return dict(zip(("old", "new", "rare"), scores.tolist(), strict=True))


def test_popularity_of_late(dated: Dataset) -> None:
    everything = Popularity().fit(dated)
    assert scores_of(everything, dated, "a") == {"old": 3, "new": 2, "rare": 1}
    window = Popularity(window_days=50).fit(dated)
    assert scores_of(window, dated, "a") == {"old": 0, "new": 2, "rare": 1}
    decayed = Popularity(half_life_days=10).fit(dated)
    assert scores_of(decayed, dated, "a") == pytest.approx(
        {"old": 3 * 0.5**10, "new": 1.5, "rare": 1}
    )


@pytest.mark.parametrize(
    "model",
    [
        Popularity(half_life_days=1),
        Popularity(window_days=1),
        ItemKnn(half_life_days=1),
    ],
    ids=["half-life", "window", "item_knn"],
)
def test_age_needs_times(tmp_path: Path, model: Any) -> None:
    log = {"u": [1, 1, 2, 2], "i": [1, 2, 2, 3]}
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    schema, split = Schema(user_id="u", item_id="i"), Split(test=0, validation=0)
    undated = prepare(tmp_path / "log.csv", schema, tmp_path / "dataset", split=split)
    with pytest.raises(InputError, match="need the time of events") as caught:
        model.fit(undated)
    assert caught.value.code == "times-needed"


def test_popularity_of_segments(dated: Dataset) -> None:
    model = Popularity(segment="country", smoothing=6).fit(dated)
    assert scores_of(model, dated, "b") == pytest.approx(
        {"old": 1 + 3, "new": 2, "rare": 1 + 1}
    )
    assert scores_of(model, dated, "a") == scores_of(model, dated, "c")
    with pytest.raises(InputError, match="Did you mean 'country'") as caught:
        Popularity(segment="contry").fit(dated)
    assert caught.value.code == "segment-unknown"


# --- blend --------------------------------------------------------------------------


class Fixed(Popularity):
    """A member whose scores are given."""

    def __init__(self, scores: list[list[float]]) -> None:
        super().__init__()
        self.scores = np.array(scores, np.float32)

    def score_all(self, queries: Queries) -> np.ndarray:
        return self.scores[: len(queries)]

    def similar(self, row: int) -> np.ndarray | None:
        return None


def test_a_blend_adds_standardized_scores() -> None:
    first = Fixed([[9, 1, 2, 3, 9], [9, 5, 5, 5, 9]])
    second = Fixed([[9, 300, 100, 200, 9], [9, 2, 4, 0, 9]])
    blend = Blend({"a": first, "b": second}, weights={"a": 2.0, "b": 1.0})
    blend.counts = np.array([0, 1, 1, 1, 0], np.float32)
    scores = blend.score_all(Queries.from_lists([1, 2], [[], []]))
    unit = 1.5**0.5  # 1, 2, 3 have deviation sqrt(2/3)
    expected = [
        [LAST, -2 * unit + unit, 0 - unit, 2 * unit + 0, LAST],
        [LAST, 0, unit, -unit, LAST],  # equal scores say nothing
    ]
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_weights_are_found_without_chance() -> None:
    def measured(weights: dict[str, float]) -> float:
        return -((weights["a"] - 1) ** 2) - (weights["b"] - 0.4) ** 2 - weights["c"]

    best = {"a": 1.0, "b": 0.4, "c": 0.0}
    assert coordinate_search(("a", "b", "c"), measured) == best


def test_fitted_weights_are_no_worse_than_any_member(dataset: Dataset) -> None:
    members = {"ease": Ease(), "popularity": Popularity(), "knn": ItemKnn()}
    blend = Blend(members).fit(dataset)
    users = np.arange(1, dataset.num_users)
    seen: Counter[str] = Counter()
    held_out = dataset.interactions("validation")
    relevant = set(zip(held_out.user_index, held_out.item_index, strict=True))

    def quality(users: np.ndarray, ranked: np.ndarray) -> float:
        seen["calls"] += 1
        pairs = zip(np.repeat(users, ranked.shape[1]), ranked.ravel(), strict=True)
        return sum(pair in relevant for pair in pairs)

    weights = blend.fit_weights(dataset, users, quality)
    queries, known = (
        KnownItems(dataset, ("train",)).of(users),
        dataset.histories("train"),
    )

    def hits(model: object) -> float:
        _, ranked = best_items(model.score_all(queries), 10, known.seen(users))
        return quality(users, ranked)

    assert blend.weights == weights
    assert hits(blend) >= max(hits(member) for member in members.values())


@pytest.mark.parametrize("weights", [{}, {"a": 1.0, "b": 1.0}, {"a": -1.0}])
def test_weights_must_be_those_of_the_members(weights: dict[str, float]) -> None:
    with pytest.raises(InputError):
        Blend({"a": Popularity()}, weights=weights)


# --- search, similar items, arguments -------------------------------------------------


def test_best_items_break_ties_by_row_and_fill_up() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (50, 30)).astype(np.float32)
    lists = [rng.choice(30, rng.integers(0, 30), replace=False) for _ in range(50)]
    offsets = np.concatenate([[0], np.cumsum([len(rows) for rows in lists])])
    exclude = (offsets, np.concatenate(lists))
    for k in (1, 7, 30, 40):
        best, items = best_items(scores.copy(), k, exclude)
        for row, excluded in enumerate(lists):
            left = sorted(set(range(1, 30)) - set(excluded.tolist()))
            left.sort(key=lambda item: (-scores[row, item], item))
            expected = (left + [-1] * k)[:k]
            assert items[row].tolist() == expected
            shown = [scores[row, i] if i >= 0 else -np.inf for i in expected]
            assert best[row].tolist() == shown


def test_similar_items_are_those_of_the_same_taste(dataset: Dataset) -> None:
    ease = Ease().fit(dataset)
    assert np.argmax(ease.similar(4)) == np.argmax(ease.weights[4])
    als = ImplicitAls(factors=4, iterations=3).fit(dataset)
    a, b = als.item_factors[4], als.item_factors[9]
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert als.similar(4)[9] == pytest.approx(cosine, rel=1e-5)
    assert Popularity().fit(dataset).similar(4) is None


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("eese", {}, "Did you mean 'ease'"),
        ("ease", {"l2": 0}, "`l2` must be greater than 0"),
        ("ease", {"dropout": 1.0}, "less than 1, received 1.0"),
        ("item_knn", {"similarity": "jacard"}, "Did you mean 'jaccard'"),
        ("item_knn", {"shrinkage": -1}, "equal to 0, received -1"),
        ("item_knn", {"neighbours": 0}, "equal to 1, received 0"),
        ("als", {"factors": 0}, "`factors` must be"),
        ("factorization", {"sweeps": 0}, "`sweeps` must be"),
        ("popularity", {"half_life_days": 0}, "greater than 0"),
    ],
)
def test_unusable_arguments_are_refused(kind: str, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_scorer(kind, options)


def test_what_is_no_saved_scorer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        load_scorer(tmp_path)
    assert caught.value.code == "checkpoint-unreadable"
    with pytest.raises(InputError):
        restore("pickle", {}, {})

"""Slices, notes and stored user metrics of a report, against plain loops."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from fixed_lists import FixedLists
from shortlist.data import Dataset, Feature, LogFiles, Schema, Split, append, prepare
from shortlist.data.store.vocabulary import bucket_rows
from shortlist.errors import ArtifactError, InputError, RecipeError
from shortlist.evaluation.metrics.table import LIST_METRICS
from shortlist.evaluation.options import EvaluationOptions
from shortlist.evaluation.report import evaluate_pipeline
from shortlist.evaluation.slices import groups_of
from shortlist.evaluation.truth import event_values, relevant_items
from shortlist.evaluation.user_values import Evaluation
from shortlist.recipe import build_recipe

KNOWN = ("train", "validation")
SCHEMA = Schema(
    user_id="user",
    item_id="item",
    timestamp="time",
    label="click",
    label_kind="binary",
    features=(
        Feature(name="country", owner="user", kind="categorical"),
        Feature(name="age", owner="user", kind="numeric"),
        Feature(name="genres", owner="item", kind="multi_valued"),
        Feature(name="price", owner="item", kind="bucketized", boundaries=(5.0, 9.0)),
        Feature(name="maker", owner="item", kind="categorical", hash_buckets=7),
    ),
)


class ByRow(FixedLists):
    """Recommends the unseen items in row order; its scores are logits."""

    def recommend(
        self, user_index: np.ndarray, k: int, *, parts: tuple[str, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        offsets, items = self.dataset.histories(*parts).seen(user_index)
        lists = np.full((len(user_index), k), -1, np.int32)
        for place in range(len(user_index)):
            seen = set(items[offsets[place] : offsets[place + 1]].tolist())
            rows = [r for r in range(1, self.dataset.num_items) if r not in seen][:k]
            lists[place, : len(rows)] = rows
        return np.zeros(lists.shape, np.float32), lists

    def score_pairs(
        self, user_index: np.ndarray, item_index: np.ndarray, parts: tuple[str, ...]
    ) -> np.ndarray:
        return (item_index % 5 - 2).astype(np.float32)


def write_log(folder: Path, clicks: tuple[int, ...] = (1, 0)) -> dict[str, Path]:
    rng = np.random.default_rng(1)
    rows = [
        (user, item, clicks[(user + item) % len(clicks)], 1_000_000 + 100 * user + n)
        for user in range(40)
        for n, item in enumerate(rng.permutation(30)[: 6 + user % 20].tolist())
    ]
    files = {name: folder / f"{name}.csv" for name in ("log", "users", "items")}
    pl.DataFrame(rows, ["user", "item", "click", "time"], orient="row").write_csv(
        files["log"]
    )
    pl.DataFrame(
        [(u, "at" if u % 3 else "de", 20 + u) for u in range(40)],
        ["user", "country", "age"],
        orient="row",
    ).write_csv(files["users"])
    pl.DataFrame(
        [(i, "war|love" if i % 2 else "love", i % 12, f"m{i}") for i in range(30)],
        ["item", "genres", "price", "maker"],
        orient="row",
    ).write_csv(files["items"])
    return files


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("slices")
    files = write_log(folder)
    return prepare(
        LogFiles(files["log"], users=files["users"], items=files["items"]),
        SCHEMA,
        folder / "dataset",
        split=Split(test=0.4),
    )


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same events without any feature."""
    folder = tmp_path_factory.mktemp("bare")
    schema = msgspec.structs.replace(SCHEMA, features=())
    log = write_log(folder)["log"]
    return prepare(log, schema, folder / "dataset", split=Split(test=0.4))


@pytest.fixture(scope="module")
def evaluation(dataset: Dataset) -> Evaluation:
    slices = ["country", "age", "genres", "price"]
    return evaluate_pipeline(
        ByRow(dataset),
        EvaluationOptions(objective="binary", ks=(3, 10), resamples=50, slices=slices),
    )


def recall(dataset: Dataset, users: list[int], items: np.ndarray) -> list[float]:
    """Recall@10 of users with relevant items among `items`, counting these alone."""
    every = np.array(users)
    offsets, relevant = relevant_items(dataset, every, "test")
    _, lists = ByRow(dataset).recommend(every, 10, parts=KNOWN)
    found = []
    for place in range(len(every)):
        mine = relevant[offsets[place] : offsets[place + 1]].tolist()
        wanted = {row for row in mine if items[row]}
        if wanted:
            hit = wanted & set(lists[place].tolist())
            found.append(len(hit) / len(wanted))
    return found


def group(evaluation: Evaluation, name: str, label: str) -> dict:
    return next(
        s
        for s in evaluation.report["slices"]
        if (s["slice"], s["group"]) == (name, label)
    )


def test_a_group_of_users_keeps_these_users(
    dataset: Dataset, evaluation: Evaluation
) -> None:
    countries = dataset.users["feature:country"].to_numpy()
    row = dataset.vocabularies["country"].row("de")
    users = np.flatnonzero(countries == row)
    expected = recall(dataset, users.tolist(), np.ones(dataset.num_items, bool))
    found = group(evaluation, "country", "de")
    assert found["users"] == len(expected)
    assert found["small"] is True
    assert found["metrics"]["model"]["recall@10"] == pytest.approx(np.mean(expected))
    low, high = found["intervals"]["model"]["recall@10"]
    assert low <= np.mean(expected) <= high


@pytest.mark.parametrize("name", ["item_popularity", "item_events", "genres", "price"])
def test_a_group_of_items_asks_for_these_items_alone(
    dataset: Dataset, evaluation: Evaluation, name: str
) -> None:
    users = list(range(1, dataset.num_users))
    for items in groups_of(dataset, name, "test"):
        expected = recall(dataset, users, items.rows)
        if expected:
            found = group(evaluation, name, items.name)
            assert found["users"] == len(expected)
            mean = found["metrics"]["model"]["recall@10"]
            assert mean == pytest.approx(np.mean(expected))


def test_the_head_has_a_fifth_of_the_events(dataset: Dataset) -> None:
    counts = dataset.item_counts(*KNOWN)
    head, tail = groups_of(dataset, "item_popularity", "test")
    assert not (head.rows & tail.rows).any()
    in_head = counts[head.rows]
    assert in_head.sum() >= 0.2 * counts.sum() > in_head.sum() - in_head.min()
    assert in_head.min() >= counts[tail.rows].max()


def test_users_and_items_are_grouped_by_known_events(dataset: Dataset) -> None:
    taken = dataset.interactions(*KNOWN).user_index
    counts = np.bincount(taken, minlength=dataset.num_users)
    groups = {g.name: g.rows for g in groups_of(dataset, "user_events", "test")}
    assert groups["cold (0 to 4)"].tolist() == (counts < 5).tolist()
    names = [g.name for g in groups_of(dataset, "price", "test")]
    assert names == ["below 5", "5 to 9", "9 or more"]
    quarters = groups_of(dataset, "age", "test")
    assert [int(g.rows.sum()) for g in quarters] == [10, 10, 10, 10]
    genres = {g.name: int(g.rows.sum()) for g in groups_of(dataset, "genres", "test")}
    assert genres == {"love": 30, "war": 15}


def test_an_unknown_slice_is_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="Did you mean 'country'") as caught:
        groups_of(dataset, "contry", "test")
    assert caught.value.code == "slice-unknown"


def test_hashed_values_are_grouped_by_bucket(dataset: Dataset) -> None:
    stored = dataset.items["feature:maker"].to_list()
    groups = {
        g.name: np.flatnonzero(g.rows) for g in groups_of(dataset, "maker", "test")
    }
    assert set(groups) == {f"bucket {row}" for row in stored[1:]}
    for name, rows in groups.items():
        bucket = int(name.removeprefix("bucket "))
        assert rows.tolist() == [i for i, v in enumerate(stored) if i and v == bucket]


def test_missing_values_are_apart_from_the_word_unknown(tmp_path: Path) -> None:
    files = write_log(tmp_path)
    texts = ["unknown", "at", None, None]
    countries = pl.Series("country", [texts[u % 4] for u in range(40)])
    pl.read_csv(files["users"]).with_columns(countries).write_csv(files["users"])
    price = pl.when(pl.col("item") % 3 > 0).then(pl.col("price")).alias("price")
    maker = pl.when(pl.col("item") % 2 > 0).then(pl.col("maker")).alias("maker")
    items = pl.read_csv(files["items"]).with_columns(price, maker)
    items.write_csv(files["items"])
    given = prepare(
        LogFiles(files["log"], users=files["users"], items=files["items"]),
        SCHEMA,
        tmp_path / "dataset",
        split=Split(test=0.4),
    )
    found = {g.name: int(g.rows.sum()) for g in groups_of(given, "country", "test")}
    assert found == {"(unknown)": 20, "unknown": 10, "at": 10}
    for name, missing in (("price", 10), ("maker", 15)):
        sizes = {g.name: int(g.rows.sum()) for g in groups_of(given, name, "test")}
        assert sizes["(unknown)"] == missing
    # A missing number is stored as a number, and nobody can tell which.
    assert len(groups_of(given, "age", "test")) == 4


CONTEXT_SCHEMA = msgspec.structs.replace(
    SCHEMA,
    features=(
        Feature(name="device", owner="context", kind="categorical"),
        Feature(name="hour", owner="context", kind="numeric"),
        Feature(name="page", owner="context", kind="categorical", hash_buckets=3),
        Feature(name="tags", owner="context", kind="multi_valued"),
    ),
)


@pytest.fixture(scope="module")
def in_context(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Dataset, pl.DataFrame]:
    """Events with a context, those of a user in two files."""
    folder = tmp_path_factory.mktemp("context")
    log = pl.read_csv(write_log(folder)["log"]).with_row_index("n")
    log = log.with_columns(
        pl.when(pl.col("n") % 7 > 0)
        .then(pl.format("d{}", pl.col("n") * 5 % 3))
        .alias("device"),
        (pl.col("n") * 11 % 24).alias("hour"),
        pl.format("p{}", pl.col("n") * 3 % 5).alias("page"),
        pl.when(pl.col("n") % 2 > 0)
        .then(pl.lit("a|b"))
        .otherwise(pl.lit("b"))
        .alias("tags"),
    )
    days = (log.filter(pl.col("n") % 3 == 0), log.filter(pl.col("n") % 3 > 0))
    files = [folder / f"day{place}.csv" for place in range(2)]
    for file, rows in zip(files, days, strict=True):
        rows.drop("n").write_csv(file)
    dataset = prepare(
        files, CONTEXT_SCHEMA, folder / "dataset", split=Split(test=0.4, validation=0.1)
    )
    return dataset, log


@pytest.mark.parametrize("name", ["device", "hour", "page", "tags"])
def test_a_group_of_a_context_asks_for_its_events_alone(
    in_context: tuple[Dataset, pl.DataFrame], name: str
) -> None:
    dataset, log = in_context
    users, items = dataset.vocabularies["user"], dataset.vocabularies["item"]
    value_of = {
        (users.row(str(row["user"])), items.row(str(row["item"]))): row
        for row in log.to_dicts()
    }
    every = np.arange(1, dataset.num_users)
    offsets, relevant = relevant_items(dataset, every, "test")
    _, lists = ByRow(dataset).recommend(every, 10, parts=KNOWN)
    held_out = dataset.interactions("test")
    hours = np.array(
        [
            value_of[pair]["hour"]
            for pair in zip(
                held_out.user_index.tolist(), held_out.item_index.tolist(), strict=True
            )
        ]
    )
    edges = np.quantile(hours, [0.25, 0.5, 0.75])

    def labels(row: dict) -> list[str]:
        if name == "device":
            return [row["device"] or "(unknown)"]
        if name == "tags":
            return row["tags"].split("|")
        if name == "hour":
            return [f"quarter {1 + int((row['hour'] >= edges).sum())} of 4"]
        code = bucket_rows(pl.Series([row["page"]]), 3)[0]
        return [f"bucket {1 + code}"]

    expected: dict[str, list[float]] = {}
    for place, user in enumerate(every.tolist()):
        wanted: dict[str, set[int]] = {}
        for item in relevant[offsets[place] : offsets[place + 1]].tolist():
            for label in labels(value_of[user, item]):
                wanted.setdefault(label, set()).add(item)
        for label, mine in wanted.items():
            share = len(mine & set(lists[place].tolist())) / len(mine)
            expected.setdefault(label, []).append(share)
    report = evaluate_pipeline(
        ByRow(dataset), EvaluationOptions(ks=(10,), resamples=5, slices=[name])
    ).report
    found = {s["group"]: s for s in report["slices"] if s["slice"] == name}
    assert {each["owner"] for each in found.values()} == {"context"}
    assert {label: each["users"] for label, each in found.items()} == {
        label: len(shares) for label, shares in expected.items()
    }
    for label, shares in expected.items():
        mean = found[label]["metrics"]["model"]["recall@10"]
        assert mean == pytest.approx(np.mean(shares))


def test_values_of_events_are_theirs_also_after_days_were_appended(
    tmp_path: Path,
) -> None:
    rows = [(f"u{n % 5}", f"i{n % 7}", n, f"d{n * 3 % 4}") for n in range(60)]
    names = ["user", "item", "time", "device"]
    files = [tmp_path / f"{name}.csv" for name in ("old", "new", "newest")]
    cuts = (rows[:40], rows[40:50], rows[50:])
    for file, cut in zip(files, cuts, strict=True):
        pl.DataFrame(cut, names, orient="row").write_csv(file)
    schema = Schema(
        user_id="user",
        item_id="item",
        timestamp="time",
        features=(Feature(name="device", owner="context", kind="categorical"),),
    )
    split = Split(kind="time_cut", test=0.2)
    dataset = prepare(files[0], schema, tmp_path / "dataset", split=split)
    for file in files[1:]:
        append(dataset.path, [file])
    dataset = Dataset.open(dataset.path)
    for part in ("train", "test"):  # the first is then of several files
        events = dataset.interactions(part)
        users, devices = dataset.vocabularies["user"], dataset.vocabularies["device"]
        found = event_values(dataset, part, "device").tolist()
        keys = zip(events.user_index, events.timestamp_ms, strict=True)
        value_of = {
            (users.row(u), 1000 * time): devices.row(d) for u, _, time, d in rows
        }
        assert found == [value_of[int(user), int(time)] for user, time in keys]
        assert len(set(found)) > 1


def test_a_slice_named_twice_is_divided_by_once(dataset: Dataset) -> None:
    slices = ["user_events", "country", "country", "item_events"]
    report = evaluate_pipeline(
        ByRow(dataset), EvaluationOptions(ks=(3,), resamples=5, slices=slices)
    ).report
    groups = [(each["slice"], each["group"]) for each in report["slices"]]
    assert len(groups) == len(set(groups))


def test_every_metric_is_there_and_can_be_chosen(
    dataset: Dataset, evaluation: Evaluation
) -> None:
    report = evaluation.report
    for model in ("model", "popularity"):
        found = {name.partition("@")[0] for name in report["metrics"][model]}
        assert found == set(LIST_METRICS)
    assert report["measured_in"] == {
        "diversity": "item features",
        "taste_divergence": "feature genres",
    }
    assert {"log_loss", "calibration_error"} <= set(report["pairs"])
    assert sum(b["count"] for b in report["reliability"]) == report["pairs"]["pairs"]
    few = evaluate_pipeline(
        ByRow(dataset),
        EvaluationOptions(ks=(3,), resamples=5, metrics=["ndcg", "gini"]),
    ).report
    assert list(few["metrics"]["model"]) == ["ndcg@3", "gini@3"]


@pytest.mark.parametrize("metric", LIST_METRICS)
@pytest.mark.parametrize("has_features", [True, False])
def test_each_metric_can_be_measured_alone(
    dataset: Dataset, bare: Dataset, tmp_path: Path, metric: str, has_features: bool
) -> None:
    found = evaluate_pipeline(
        ByRow(dataset if has_features else bare),
        EvaluationOptions(ks=(3,), resamples=5, metrics=[metric]),
    )
    without = not has_features and metric in ("diversity", "taste_divergence")
    names = [] if without else [f"{metric}@3"]
    for model in ("model", "popularity"):
        assert list(found.report["metrics"][model]) == names
    per_user = metric not in (
        "coverage",
        "gini",
        "personalization",
        "popularity_lift",
    )
    assert found.values.shape == (found.report["users"], len(names) * per_user)
    assert any(metric in note for note in found.report["notes"]) == without
    found.save(tmp_path)
    again = Evaluation.load(tmp_path)
    assert (again.names, again.report) == (found.names, found.report)
    assert again.values.tolist() == found.values.tolist()
    assert again.users.tolist() == found.users.tolist()
    if metric == "coverage":
        _, lists = ByRow(dataset).recommend(found.users, 3, parts=KNOWN)
        share = len(set(lists.ravel().tolist()) - {-1}) / (dataset.num_items - 1)
        assert found.report["metrics"]["model"]["coverage@3"] == share


def test_users_without_a_taste_are_left_out_of_its_mean(tmp_path: Path) -> None:
    files = write_log(tmp_path)
    items = pl.read_csv(files["items"])
    genres = pl.when(pl.col("item") % 10 == 3).then(pl.lit("war"))
    items.with_columns(genres.alias("genres")).write_csv(files["items"])
    given = prepare(
        LogFiles(files["log"], users=files["users"], items=files["items"]),
        SCHEMA,
        tmp_path / "dataset",
        split=Split(test=0.4),
    )
    found = evaluate_pipeline(ByRow(given), EvaluationOptions(ks=(3,), resamples=5))
    offsets, seen = given.histories(*KNOWN).seen(found.users)
    row = given.vocabularies["genres"].row("war")
    has_taste = [
        any((given.features["genres"][item] == row).any() for item in seen[low:high])
        for low, high in zip(offsets[:-1], offsets[1:], strict=True)
    ]
    assert 0 < sum(has_taste) < len(has_taste)
    values = found.values[:, found.names.index("taste_divergence@3")]
    assert np.isfinite(values).tolist() == has_taste
    mean = found.report["metrics"]["model"]["taste_divergence@3"]
    assert mean == pytest.approx(values[has_taste].mean())
    low, high = found.report["intervals"]["model"]["taste_divergence@3"]
    assert [low, high] == pytest.approx([mean, mean])  # of all without any war
    left = len(has_taste) - sum(has_taste)
    assert any(f"leaves out {left} users" in note for note in found.report["notes"])


def test_unknown_names_are_refused(dataset: Dataset) -> None:
    with pytest.raises(InputError, match="Did you mean 'ndcg'") as caught:
        evaluate_pipeline(ByRow(dataset), EvaluationOptions(metrics=["ndgc"]))
    assert caught.value.code == "metric-unknown"
    with pytest.raises(InputError, match="Did you mean 'genres'") as caught:
        evaluate_pipeline(ByRow(dataset), EvaluationOptions(taste="genre"))
    assert caught.value.code == "taste-feature"
    with pytest.raises(InputError, match="Did you mean 'test'") as caught:
        evaluate_pipeline(ByRow(dataset), EvaluationOptions(part="tset"))
    assert caught.value.code == "part-unknown"
    raw = {
        "log": {"events": "a"},
        "columns": {"user_id": "u", "item_id": "i"},
        "evaluation": {"metrics": ["recal"]},
    }
    with pytest.raises(RecipeError, match="Did you mean 'recall'"):
        build_recipe(raw)


def test_k_beyond_the_catalogue_is_noted(dataset: Dataset) -> None:
    report = evaluate_pipeline(
        ByRow(dataset), EvaluationOptions(ks=(1000,), resamples=5)
    ).report
    assert "[1000] exceeds the catalogue of 30 items" in report["notes"][0]


def test_a_part_of_one_class_has_no_auc_and_says_so(tmp_path: Path) -> None:
    files = write_log(tmp_path, clicks=(1,))
    schema = Schema(user_id="user", item_id="item", timestamp="time", label="click")
    all_positive = prepare(files["log"], schema, tmp_path / "d", split=Split(test=0.4))
    report = evaluate_pipeline(
        ByRow(all_positive), EvaluationOptions(objective="binary", ks=(3,), resamples=5)
    ).report
    assert "auc" not in report["pairs"]
    assert "log_loss" not in report["pairs"]
    assert any("are positives" in note for note in report["notes"])


def test_a_part_without_positives_is_refused(tmp_path: Path) -> None:
    log = pl.DataFrame(
        [
            (u, i, int(n < 6), 1_000_000 + n)
            for u in range(4)
            for n, i in enumerate(range(8))
        ],
        ["user", "item", "click", "time"],
        orient="row",
    )
    log.write_csv(tmp_path / "log.csv")
    schema = Schema(
        user_id="user",
        item_id="item",
        timestamp="time",
        label="click",
        label_kind="binary",
    )
    split = Split(kind="last_n", test=2, validation=0)
    nobody = prepare(tmp_path / "log.csv", schema, tmp_path / "d", split=split)
    with pytest.raises(InputError, match="at least `positive_from`") as caught:
        evaluate_pipeline(ByRow(nobody), EvaluationOptions(ks=(3,), resamples=5))
    assert caught.value.code == "no-relevant-items"


def test_user_metrics_are_stored_beside_the_report(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    evaluation.save(tmp_path)
    again = Evaluation.load(tmp_path)
    assert again.names == evaluation.names
    assert again.users.tolist() == evaluation.users.tolist()
    assert again.values.tolist() == evaluation.values.tolist()
    assert again.report == evaluation.report
    mean = again.values[:, again.names.index("ndcg@10")].mean()
    assert mean == pytest.approx(again.report["metrics"]["model"]["ndcg@10"])


def test_missing_and_damaged_evaluations_are_refused(
    evaluation: Evaluation, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="must be evaluated") as caught:
        Evaluation.load(tmp_path)
    assert caught.value.code == "evaluation-missing"
    evaluation.save(tmp_path)
    (tmp_path / "evaluation.arrow").write_bytes(b"no arrow")
    with pytest.raises(ArtifactError, match="Evaluate again") as caught:
        Evaluation.load(tmp_path)
    assert caught.value.code == "evaluation-damaged"

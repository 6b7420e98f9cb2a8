"""The synthetic log against the law it promises to follow."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shortlist.errors import InputError
from shortlist.public_data.synthetic import Generated, SyntheticLog, generate

SMALL = SyntheticLog(num_users=50, num_items=40, num_events=3_000, seed=7)
EVENTS = ("user", "item", "timestamp_ms", "rating")


@pytest.fixture(scope="module")
def small() -> Generated:
    return generate(SMALL)


def digest(generated: Generated) -> str:
    parts = [getattr(generated, name).tobytes() for name in EVENTS]
    parts += [generated.user_factors.tobytes(), generated.item_factors.tobytes()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_arrays_have_the_promised_shapes_types_and_ranges(small: Generated) -> None:
    for name in EVENTS:
        assert getattr(small, name).shape == (3_000,)
    assert small.user.dtype == small.item.dtype == small.timestamp_ms.dtype == np.int64
    assert 0 <= small.user.min() and small.user.max() < 50
    assert 0 <= small.item.min() and small.item.max() < 40
    assert set(np.unique(small.rating)) <= {1, 2, 3, 4, 5}
    assert small.user_factors.shape == (50, 8) and small.item_factors.shape == (40, 8)
    assert small.popularity.sum() == pytest.approx(1.0)
    assert SMALL.start_ms <= small.timestamp_ms.min()
    assert small.timestamp_ms.max() < SMALL.end_ms


def test_same_seed_gives_the_same_bytes_and_another_seed_others(
    small: Generated,
) -> None:
    assert digest(generate(SMALL)) == digest(small)
    other = SyntheticLog(num_users=50, num_items=40, num_events=3_000, seed=8)
    assert digest(generate(other)) != digest(small)


def test_bytes_are_those_of_every_other_machine(small: Generated) -> None:
    expected = "142575bc550041f160c900e881ab1f1dfb7980335d7dc67aa8ebe37bda1f7ab2"
    assert digest(small) == expected


def test_rows_come_by_time_unless_shuffled(small: Generated) -> None:
    assert (np.diff(small.timestamp_ms) >= 0).all()
    shuffled = generate(
        SyntheticLog(
            num_users=50, num_items=40, num_events=3_000, seed=7, shuffled=True
        )
    )
    assert (np.diff(shuffled.timestamp_ms) < 0).any()
    rows = np.stack([getattr(small, name) for name in EVENTS])
    moved = np.stack([getattr(shuffled, name) for name in EVENTS])
    order = np.lexsort(moved)
    np.testing.assert_array_equal(moved[:, order], rows[:, np.lexsort(rows)])


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.2])
def test_popularity_falls_with_the_zipf_exponent(exponent: float) -> None:
    # At a high temperature taste plays no part and counts follow popularity.
    log = SyntheticLog(
        num_items=200,
        num_events=400_000,
        zipf_exponent=exponent,
        temperature=1e6,
        latent_dim=2,
        candidates=1,
    )
    counts = np.sort(np.bincount(generate(log).item, minlength=200))[::-1]
    slope = np.polyfit(np.log(np.arange(1, 201)), np.log(counts), 1)[0]
    assert slope == pytest.approx(-exponent, abs=0.03)


def test_probabilities_are_the_frequencies_of_a_users_choices() -> None:
    log = SyntheticLog(num_users=1, num_items=12, num_events=400_000, candidates=5)
    generated = generate(log)
    found = np.bincount(generated.item, minlength=12) / log.num_events
    np.testing.assert_allclose(generated.probabilities(0), found, atol=0.004)


def test_with_one_candidate_taste_plays_no_part() -> None:
    generated = generate(SyntheticLog(num_events=10, candidates=1))
    np.testing.assert_allclose(
        generated.probabilities(3), generated.popularity, rtol=1e-6
    )


def test_two_equally_popular_items_follow_the_race_formula() -> None:
    log = SyntheticLog(num_users=1, num_items=2, num_events=1, candidates=2)
    generated = generate(SyntheticLog(**{**vars(log), "zipf_exponent": 0.0}))
    affinity = generated.item_factors @ generated.user_factors[0]
    first, second = np.exp(np.rint(affinity * 64) / 64 / log.temperature)
    # Twice the same item: 1/4 each. Both: 1/2, with odds first to second.
    expected = 0.25 + 0.5 * first / (first + second)
    assert generated.probabilities(0)[0] == pytest.approx(expected, rel=1e-7)


def test_expected_top_is_ordered_by_probability(small: Generated) -> None:
    top = small.expected_top(4, 10)
    assert top.shape == (10,)
    chances = small.probabilities(4)
    assert (np.diff(chances[top]) <= 0).all()
    assert chances[top].min() >= np.delete(chances, top).max()
    assert sorted(small.expected_top(4, 1_000)) == list(range(40))


def test_the_truth_recommends_better_than_popularity() -> None:
    log = SyntheticLog(
        num_users=200, num_items=300, num_events=20_000, zipf_exponent=0.6
    )
    generated = generate(log)
    popular = np.argsort(-np.bincount(generated.item, minlength=300))[:10]
    oracle_hits = popular_hits = 0
    for user in range(0, 200, 4):
        items = generated.item[generated.user == user]
        oracle_hits += np.isin(items, generated.expected_top(user, 10)).sum()
        popular_hits += np.isin(items, popular).sum()
    assert oracle_hits > 1.4 * popular_hits


def test_attributes_tell_something_about_taste() -> None:
    generated = generate(SyntheticLog(num_events=10, num_items=2_000))
    total = generated.item_factors.var(axis=0).sum()
    within = [
        generated.item_factors[generated.category == c].var(axis=0).sum()
        for c in range(8)
    ]
    assert np.mean(within) < 0.75 * total


def test_tables_describe_users_and_items(small: Generated) -> None:
    users, items = small.table("users"), small.table("items")
    assert users.columns == ["user_id", "segment"] and users.height == 50
    assert items.columns == ["item_id", "title", "category", "tags", "price"]
    assert items["tags"].str.split("|").list.len().to_list() == [2] * 40
    assert items["price"].min() >= 0.5  # type: ignore[operator]
    factors = small.item_factors[0]
    first = int(np.argmax(np.abs(factors)))
    sign = "more" if factors[first] >= 0 else "less"
    assert items["tags"][0].split("|")[0] == f"{sign}-{first}"


def test_files_hold_the_tables(small: Generated, tmp_path: Path) -> None:
    small.write_csv(tmp_path / "log.csv")
    small.write_parquet(tmp_path / "log.parquet")
    small.write_csv(tmp_path / "items.csv", "items")
    events = small.table("events")
    assert events.columns == ["user_id", "item_id", "rating", "timestamp_ms"]
    assert pl.read_parquet(tmp_path / "log.parquet").equals(events)
    read = pl.read_csv(tmp_path / "log.csv", schema=events.schema)
    assert read.equals(events)
    assert pl.read_csv(tmp_path / "items.csv").height == 40
    assert len(list(tmp_path.iterdir())) == 3


def test_unknown_table_is_refused(small: Generated) -> None:
    with pytest.raises(
        InputError, match="events, users, items. Received: 'x'"
    ) as caught:
        small.table("x")  # type: ignore[arg-type]
    assert caught.value.code == "synthetic-table"


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("num_users", 0, "a whole number from 1"),
        ("num_items", 2.5, "a whole number from 1"),
        ("num_events", True, "a whole number from 1"),
        ("latent_dim", 65, "from 1 to 64"),
        ("candidates", 0, "from 1 to 1024"),
        ("seed", -1, "from 0 to"),
        ("end_ms", SMALL.start_ms, f"from {SMALL.start_ms + 1} to"),
        ("zipf_exponent", -0.1, "from 0 to 10"),
        ("temperature", 0.0, "from 0.1 to"),
        ("temperature", float("nan"), "from 0.1 to"),
        ("rating_noise", float("inf"), "from 0 to"),
        ("rating_noise", "1", "from 0 to"),
    ],
)
def test_field_out_of_range_is_named(field: str, value: object, rule: str) -> None:
    message = f"{field} must be .*{rule}.*Received: {value!r}"
    with pytest.raises(InputError, match=message) as caught:
        SyntheticLog(**{field: value})  # type: ignore[arg-type]
    assert caught.value.code == "synthetic-config"

"""Attributes as a model reads them, one value at a time in plain Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.data import Feature, LogFiles, Schema, Split, Vocabulary, prepare
from shortlist.data.kernels.ids import hash_values
from shortlist.data.preparation.attributes import (
    Attributes,
    count_tokens,
    encode_column,
    feature_vocabularies,
    merge_counts,
)
from shortlist.data.read.feature_values import check_nesting, tokens
from shortlist.data.store.numbers import NumberStatistics, fit_numbers
from shortlist.data.store.table_sizes import table_rows
from shortlist.errors import InputError, LogError

VALUES = st.one_of(st.none(), st.sampled_from(["a", "b", "c", "é", " ", "", "😀😀"]))
LISTS = st.lists(st.one_of(st.none(), st.lists(VALUES, max_size=5)), max_size=8)


def feature(name: str = "x", kind: str = "categorical", **fields: object) -> Feature:
    return Feature(**{"name": name, "owner": "item", "kind": kind, **fields})


def schema(*features: Feature, **fields: object) -> Schema:
    return Schema(user_id="u", item_id="i", features=features, **fields)


def attributes(
    items: dict[str, list[object]], *features: Feature, **fields: object
) -> Attributes:
    """Items 1, 2, ... with the given columns; row 0 has none."""
    columns = {name: pl.Series([None, *values]) for name, values in items.items()}
    size = len(next(iter(columns.values())))
    ids = {"user": pl.Series([None, "ann"]), "item": pl.Series([None, *range(1, size)])}
    return Attributes(
        schema(*features, **fields),
        ids,
        {"user": pl.DataFrame(), "item": pl.DataFrame(columns)},
    )


def trained(*rows: int, num_items: int) -> dict[str, np.ndarray]:
    mask = np.zeros(num_items + 1, bool)
    mask[list(rows)] = True
    return {"user": np.array([False, True]), "item": mask}


def encoded(
    built: Attributes, mask: dict[str, np.ndarray]
) -> tuple[pl.DataFrame, dict[str, Vocabulary], dict[str, NumberStatistics]]:
    vocabularies = feature_vocabularies(built.schema, built.token_counts(mask))
    frames, statistics = built.encode(vocabularies, mask)
    return frames["item"], vocabularies, statistics


# --- tokens -------------------------------------------------------------------------


@given(LISTS, st.one_of(st.none(), st.integers(1, 3)))
def test_tokens_are_the_first_values_that_are_not_empty(lists, max_length):
    one = feature(kind="multi_valued", max_length=max_length)
    column = pl.Series(lists, dtype=pl.List(pl.String))
    expected = [[v for v in values or [] if v][:max_length] for values in lists]
    found = tokens(column, one)
    assert found.to_list() == expected
    assert found.dtype == pl.List(pl.String)
    assert tokens(found, one).to_list() == expected
    joined = pl.Series(
        ["|".join(v or "" for v in values or []) for values in lists], dtype=pl.String
    )
    stripped = [
        [v.strip() for v in values or [] if v and v.strip()][:max_length]
        for values in lists
    ]
    assert tokens(joined, one).to_list() == stripped


def test_tokens_of_a_category_are_one_or_none():
    found = tokens(pl.Series(["a", None, "", "b|c"]), feature())
    assert found.to_list() == [["a"], [], [], ["b|c"]]
    assert tokens(pl.Series([7, None]), feature()).to_list() == [["7"], []]


@pytest.mark.parametrize(
    "dtype", [pl.Float64, pl.Float32, pl.Decimal(20, 4), pl.Int8, pl.UInt64]
)
def test_a_whole_number_has_one_text_whatever_its_type(dtype):
    column = pl.Series([2, 30, None, 0], dtype=pl.Int64).cast(dtype)
    expected = [["2"], ["30"], [], ["0"]]
    assert tokens(column, feature()).to_list() == expected
    assert tokens(column, feature(kind="multi_valued")).to_list() == expected
    lists = pl.Series([[2, 30], [], None, [None, 0]], dtype=pl.List(dtype))
    found = tokens(lists, feature(kind="multi_valued")).to_list()
    assert found == [["2", "30"], [], [], ["0"]]


def test_other_floats_are_themselves_and_nan_is_missing():
    column = pl.Series([2.5, float("nan"), -0.0, 1e300, -7.0])
    expected = [["2.5"], [], ["0"], ["1e+300"], ["-7"]]
    assert tokens(column, feature()).to_list() == expected
    decimals = pl.Series([2.5]).cast(pl.Decimal(20, 4))
    assert tokens(decimals, feature()).to_list() == [["2.5"]]


# --- rows ---------------------------------------------------------------------------


@given(LISTS, LISTS, st.integers(1, 3))
def test_rows_are_those_of_the_vocabulary_chunk_by_chunk(first, later, oov_buckets):
    one = feature(kind="multi_valued", oov_buckets=oov_buckets)
    chunks = [
        pl.Series("x", lists, dtype=pl.List(pl.String)) for lists in (first, later)
    ]
    counts = merge_counts([count_tokens(tokens(chunk, one)) for chunk in chunks[:1]])
    vocabularies = feature_vocabularies(schema(one), {"x": counts})
    for chunk in chunks:
        found = encode_column(chunk, one, vocabularies)
        assert found.dtype == pl.List(pl.Int32)
        assert found.to_list() == [
            [vocabularies["x"].row(v) for v in values]
            for values in tokens(chunk, one).to_list()
        ]


@pytest.mark.parametrize("kind", ["categorical", "multi_valued"])
def test_hashed_values_need_no_vocabulary(kind):
    one = feature(kind=kind, hash_buckets=5)
    words = [f"w{n}" for n in range(40)]
    hashes = 1 + (hash_values(pl.Series(words)) % 5).astype(int)
    found = encode_column(pl.Series([*words, None, ""]), one, {})
    if kind == "categorical":
        assert found.to_list() == [*hashes.tolist(), 0, 0]
        assert found.dtype == pl.Int32
    else:
        assert found.to_list() == [*([h] for h in hashes.tolist()), [], []]
    assert set(hashes.tolist()) == {1, 2, 3, 4, 5}


def test_integers_hash_as_their_text():
    one = feature(hash_buckets=1000)
    assert (
        encode_column(pl.Series([7, 8]), one, {}).to_list()
        == encode_column(pl.Series(["7", "8"]), one, {}).to_list()
    )


def test_empty_columns_are_empty():
    for one in (feature(hash_buckets=3), feature(kind="multi_valued", hash_buckets=3)):
        assert len(encode_column(pl.Series([], dtype=pl.String), one, {})) == 0


# --- what is fitted, and on what ----------------------------------------------------


def test_only_trained_rows_shape_vocabularies_and_statistics():
    features = (
        feature("genre"),
        feature("tags", "multi_valued"),
        feature("price", "numeric"),
        feature("year", "numeric", transform="quantile"),
        feature("age", "bucketized", num_buckets=2),
    )
    columns = {
        "genre": ["a", "b", "a", "z"],
        "tags": ["t|s", "t", None, "y"],
        "price": [1.0, 2.0, 6.0, 1e9],
        "year": [1.0, 2.0, 3.0, -1e9],
        "age": [10.0, 20.0, None, 900.0],
    }
    mask = trained(1, 2, 3, num_items=4)
    frame, vocabularies, statistics = encoded(attributes(columns, *features), mask)
    assert vocabularies["genre"].ids.to_list() == [None, "a", "b"]
    assert vocabularies["tags"].ids.to_list() == [None, "t", "s"]
    assert vocabularies["tags"].counts.tolist() == [0, 2, 1]
    assert statistics["price"].mean == 3.0
    assert statistics["year"].points == (1.0, 2.0, 3.0)
    assert statistics["age"].boundaries == (15.0,)
    assert frame.columns == ["id", *(f"feature:{name}" for name in columns)]
    assert frame["feature:genre"].to_list() == [0, 1, 2, 1, 0]
    assert frame["feature:tags"].to_list() == [[], [1, 2], [1], [], [0]]
    assert frame["feature:year"].to_list() == [0.5, 0.0, 0.5, 1.0, 0.0]
    assert frame["feature:age"].to_list() == [0, 1, 2, 0, 2]
    changed = {
        name: [*values[:3], other]
        for (name, values), other in zip(
            columns.items(), ("q", "q|r|s", -5.0, 7.0, -1.0), strict=True
        )
    }
    other = encoded(attributes(changed, *features), mask)
    assert other[2] == statistics
    for name, vocabulary in vocabularies.items():
        assert other[1][name].ids.to_list() == vocabulary.ids.to_list()
    assert other[0][:4].equals(frame[:4])


def test_limits_and_sharing_shape_one_vocabulary():
    features = (
        feature("main", vocabulary="genres", min_count=2, oov_buckets=2),
        feature("genres", "multi_valued", min_count=2, oov_buckets=2),
    )
    columns = {"main": ["a", "b", "c"], "genres": ["a|d", "b|a", "e"]}
    frame, vocabularies, _ = encoded(
        attributes(columns, *features), trained(1, 2, 3, num_items=3)
    )
    assert list(vocabularies) == ["genres"]
    assert vocabularies["genres"].ids.to_list() == [None, None, "a", "b"]
    assert frame["feature:main"].to_list()[1:3] == [2, 3]
    assert frame["feature:main"][3] == hash_values(pl.Series(["c"]))[0] % 2
    assert frame["feature:main"][0] == 0


def test_title_stands_beside_the_features():
    built = attributes({"name": ["One", None]}, title="name")
    frame, _, _ = encoded(built, trained(1, num_items=2))
    assert frame.columns == ["id", "name"]
    assert frame["name"].to_list() == [None, "One", None]


def test_context_features_are_left_to_the_reader_of_the_events():
    context = Feature(name="device", owner="context", kind="categorical")
    built = attributes({"genre": ["a"]}, feature("genre"), context)
    mask = trained(1, num_items=1)
    assert set(built.token_counts(mask)) == {"genre"}
    vocabularies = feature_vocabularies(
        built.schema, {"device": pl.DataFrame({"id": ["tv"], "count": [3]})}
    )
    assert vocabularies["device"].row("tv") == 1
    assert len(vocabularies["genre"]) == 1
    frames, _ = built.encode(vocabularies, mask)
    assert frames["item"].columns == ["id", "feature:genre"]


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=4), min_size=1, max_size=4))
def test_counts_of_chunks_add_up(chunks):
    lists = [pl.Series([chunk], dtype=pl.List(pl.String)) for chunk in chunks]
    merged = merge_counts([count_tokens(one) for one in lists])
    together = count_tokens(pl.concat(lists))
    assert sorted(merged.rows()) == sorted(together.rows())
    assert merged.schema == {"id": pl.String, "count": pl.Int64}


@pytest.mark.parametrize("kind", ["categorical", "numeric", "bucketized"])
def test_lists_are_no_plain_values(kind):
    with pytest.raises(LogError, match=f"A {kind} feature must hold") as caught:
        check_nesting(feature(kind=kind), pl.Series([[1]]), "items.parquet")
    assert (caught.value.code, caught.value.column) == ("attribute-type", "x")
    check_nesting(feature(kind="multi_valued"), pl.Series([["a"]]), "items.parquet")


@pytest.mark.parametrize(
    "values", [[b"a"], [[b"a"]], [[["a"]]], [{"a": 1}], [[{"a": 1}]]]
)
def test_bytes_and_deeper_nesting_are_no_feature(values):
    with pytest.raises(LogError, match="A multi_valued feature must hold") as caught:
        check_nesting(feature(kind="multi_valued"), pl.Series(values), "items.parquet")
    assert caught.value.code == "attribute-type"


# --- sizes of tables, and a dataset with all kinds ----------------------------------


def test_tables_have_rows_for_values_hashes_and_buckets():
    features = (
        feature("genre"),
        feature("zip", hash_buckets=9),
        feature("age", "bucketized", boundaries=(1.0, 2.0)),
        feature("price", "numeric"),
    )
    vocabulary = Vocabulary("genre", pl.Series(["a"]), np.ones(1, np.int64), 3)
    fitted = {"age": fit_numbers(np.zeros(0), features[2])}
    rows = table_rows(schema(*features), {"genre": vocabulary}, fitted)
    assert rows == {"genre": 4, "zip": 10, "age": 4}
    with pytest.raises(InputError, match="none of 'age'") as caught:
        table_rows(schema(*features), {"genre": vocabulary}, {})
    assert caught.value.code == "boundaries-missing"


def test_dataset_knows_the_tables_of_every_kind(tmp_path: Path):
    rows = [(u, i, 60 * (i + 8 * u)) for u in range(4) for i in range(8)]
    log = pl.DataFrame(rows, schema=["u", "i", "t"], orient="row")
    log.write_csv(tmp_path / "log.csv")
    pl.DataFrame(
        {
            "i": range(8),
            "brand": [*"aaabbc", None, "d"],
            "zip": [f"z{n}" for n in range(8)],
            "price": [0.1, 0.2, 0.3, 19.99, 0.5, 0.6, None, 100.0],
            "year": [*range(1990, 1998)],
        }
    ).write_parquet(tmp_path / "items.parquet")
    features = (
        feature("brand", min_count=2, oov_buckets=2),
        feature("zip", hash_buckets=6),
        feature("price", "bucketized", boundaries=(0.25, 19.99)),
        feature("year", "bucketized", num_buckets=4),
    )
    dataset = prepare(
        LogFiles(tmp_path / "log.csv", items=tmp_path / "items.parquet"),
        Schema(
            user_id="u",
            item_id="i",
            timestamp="t",
            features=features,
            item_max_size=7,
            user_min_count=2,
        ),
        tmp_path / "out",
        split=Split(kind="random", test=0, validation=0),
    )
    assert dataset.table_rows == {
        **{"user": 5, "item": 8, "brand": 4, "zip": 7, "price": 4},
        "year": 2 + len(dataset.info.numbers["year"].boundaries),
    }
    assert dataset.vocabularies["item"].row(7) == 0  # one item more than are kept
    by_id = dict(zip(dataset.items["id"], range(8), strict=True))
    price = dataset.features["price"]
    assert [price[by_id[i]] for i in (0, 2, 3, 6)] == [1, 2, 3, 0]
    assert price[0] == dataset.features["zip"][0] == dataset.features["year"][0] == 0
    for name, values in dataset.features.items():
        assert values.dtype == np.int32
        assert values.max() < dataset.table_rows[name]


@settings(max_examples=30)
@given(st.lists(st.floats(-1e3, 1e3) | st.none(), min_size=1, max_size=12))
def test_numbers_of_a_column_are_transformed_as_alone(values):
    one = feature(kind="numeric", transform="log")
    column = pl.Series("x", values, dtype=pl.Float64)
    fitted = fit_numbers(column.drop_nulls().to_numpy(), one)
    found = encode_column(column, one, {}, fitted)
    assert found.dtype == pl.Float32 and found.name == "x"
    for value, number in zip(values, found.to_list(), strict=True):
        alone = encode_column(pl.Series([value], dtype=pl.Float64), one, {}, fitted)
        assert alone.to_list() == [number]

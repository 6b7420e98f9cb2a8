"""Parts that do not fit together are refused, whichever side they come from."""

import dataclasses

import msgspec
import numpy as np
import polars as pl
import pytest

from shortlist.bundle.contents import check_contents
from shortlist.data import Feature
from shortlist.errors import ArtifactError
from tiny_bundle import (
    ITEM_VECTORS,
    TOWER_TABLES,
    make_contents,
    tower_of,
    vocabulary,
)


def refused(contents):
    with pytest.raises(ArtifactError) as caught:
        check_contents(contents)
    assert caught.value.file is not None
    return caught.value


def with_tower(**changes):
    tower = dataclasses.replace(tower_of(make_contents()), **changes)
    return make_contents(retrieval=tower)


def with_column(name, values, dtype, frame="users"):
    contents = make_contents()
    column = pl.Series(name, values, dtype=dtype)
    changed = getattr(contents, frame).with_columns(column)
    return dataclasses.replace(contents, **{frame: changed})


def changed_input(position, **changes):
    inputs = list(tower_of(make_contents()).inputs)
    fields = {
        f: getattr(inputs[position], f) for f in inputs[position].__struct_fields__
    }
    inputs[position] = type(inputs[position])(**(fields | changes))
    return with_tower(inputs=tuple(inputs))


def without_vocabulary(num_rows, **fields):
    """The tiny bundle, its `segment` of another kind with a table of `num_rows`."""
    contents = make_contents()
    plain = {"name": "segment", "owner": "user"} | fields
    features = (Feature(**plain), *contents.schema.features[1:])
    schema = msgspec.structs.replace(contents.schema, features=features)
    vocabularies = dict(contents.vocabularies)
    del vocabularies["segment"]
    tables = TOWER_TABLES | {"segment": np.zeros((num_rows, 2), np.float32)}
    tower = dataclasses.replace(tower_of(contents), tables=tables)
    return make_contents(schema=schema, vocabularies=vocabularies, retrieval=tower)


HASHED = {"kind": "categorical", "hash_buckets": 4}
BOUNDED = {"kind": "bucketized", "boundaries": (1.0, 2.0)}
FITTED = {"kind": "bucketized", "num_buckets": 5}
LISTS = pl.List(pl.Int32)
INCONSISTENT = {
    "rows of hashes": lambda: without_vocabulary(4, **HASHED),
    "rows of buckets": lambda: without_vocabulary(3, **BOUNDED),
    "bucket out of range": lambda: without_vocabulary(2, **FITTED),
    "vocabulary missing": lambda: without_vocabulary(3, kind="categorical"),
    "no item vocabulary": lambda: make_contents(
        vocabularies={"user": vocabulary("user", ["a"], [1])}
    ),
    "records of users": lambda: make_contents(users=make_contents().users.head(3)),
    "records of items": lambda: make_contents(items=make_contents().items.head(3)),
    "no history": lambda: make_contents(users=make_contents().users.drop("history")),
    "history of text": lambda: with_column("history", [["a"]] * 5, pl.List(pl.String)),
    "null history": lambda: with_column("history", [None] * 5, LISTS),
    "history out of range": lambda: with_column("history", [[8]] * 5, LISTS),
    "padded history": lambda: with_column("history", [[1, -1]] * 5, LISTS),
    "feature out of range": lambda: with_column("feature:segment", [3] * 5, pl.Int32),
    "negative feature": lambda: with_column("feature:segment", [-1] * 5, pl.Int32),
    "feature type": lambda: with_column("feature:age", [1] * 5, pl.Int32),
    "missing feature": lambda: make_contents(
        users=make_contents().users.drop("feature:age")
    ),
    "list out of range": lambda: with_column(
        "feature:genres", [[4]] * 8, LISTS, "items"
    ),
    "number of vectors": lambda: with_tower(item_vectors=ITEM_VECTORS[:7]),
    "vectors of no width": lambda: with_tower(item_vectors=ITEM_VECTORS[:, :0]),
    "row 0 not zeros": lambda: with_tower(item_vectors=ITEM_VECTORS + 1),
    "table rows": lambda: with_tower(
        tables=TOWER_TABLES | {"item": TOWER_TABLES["item"][:-1]}
    ),
    "table missing": lambda: with_tower(tables={}),
    "no inputs": lambda: with_tower(inputs=()),
    "no history length": lambda: with_tower(history_length=0),
    "dim of an input": lambda: changed_input(0, dim=4),
    "table of the user": lambda: changed_input(0, table="item"),
    "numeric with a table": lambda: changed_input(3, table="item"),
    "item input in the tower": lambda: changed_input(2, owner="item"),
    "ranker alone": lambda: make_contents(retrieval=False),
    "no candidates": lambda: dataclasses.replace(
        make_contents(),
        ranker=dataclasses.replace(make_contents().ranker, candidates=0),
    ),
}


def test_the_tiny_bundle_fits_together():
    assert check_contents(make_contents()) is None
    assert check_contents(make_contents(ranker=False)) is None
    assert check_contents(make_contents(retrieval=False, ranker=False)) is None


def test_rows_that_are_hashed_or_buckets_need_no_vocabulary():
    for num_rows, fields in ((5, HASHED), (4, BOUNDED), (3, FITTED), (6, FITTED)):
        assert check_contents(without_vocabulary(num_rows, **fields)) is None


@pytest.mark.parametrize("case", INCONSISTENT, ids=str)
def test_parts_that_do_not_fit_are_refused(case):
    error = refused(INCONSISTENT[case]())
    assert error.code == "bundle-inconsistent"
    assert "must" in str(error) and "Found" in str(error) and "Export" in str(error)


def test_the_message_names_both_shapes():
    error = refused(with_tower(tables=TOWER_TABLES | {"item": np.zeros((7, 3))}))
    assert "input 'history' of retrieval must have a table of shape (8, 3)" in str(
        error
    )
    assert "Found shape (7, 3)" in str(error)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(value):
    vectors = ITEM_VECTORS.copy()
    vectors[3, 1] = value
    table = TOWER_TABLES["user"].copy()
    table[2, 0] = value
    for contents in (
        with_tower(item_vectors=vectors),
        with_tower(tables=TOWER_TABLES | {"user": table}),
        with_column("feature:age", [value] * 5, pl.Float32),
    ):
        error = refused(contents)
        assert error.code == "bundle-not-finite"
        assert "Found NaN or infinity in" in str(error)


def test_a_padded_feature_list_is_allowed():
    lists = [[1, -1], [], [2], [3, -1, -1], [], [], [], []]
    contents = with_column("feature:genres", lists, LISTS, "items")
    assert check_contents(contents) is None

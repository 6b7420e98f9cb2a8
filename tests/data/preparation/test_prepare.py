"""A log and attribute files to a dataset, against plain-Python references."""

from __future__ import annotations

import errno
import importlib
import os
import shutil
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.data import (
    PARTS,
    Dataset,
    Feature,
    LogFiles,
    ReadOptions,
    Schema,
    Split,
    prepare,
)
from shortlist.data.preparation.ingest import ingest
from shortlist.errors import InputError, LogError, ResourceError

prepare_module = importlib.import_module("shortlist.data.preparation.prepare")

T0 = 1_600_000_000  # seconds
PLAIN = Schema(user_id="u", item_id="i", timestamp="t")
RATED = Schema(
    user_id="u", item_id="i", timestamp="t", label="r", label_kind="explicit"
)

Row = tuple[Any, ...]


def write_log(path: Path, rows: list[Row], columns: str = "uitr") -> Path:
    frame = pl.DataFrame(rows, schema=list(columns[: len(rows[0])]), orient="row")
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path)
    return path


def rating_log(num_users: int = 6, num_events: int = 5) -> list[Row]:
    """Every user has `num_events` events; item n % 7 of users' own order."""
    return [
        (f"u{u}", f"i{(u + n) % 7}", T0 + 10 * n + u, 1 + (u + n) % 5)
        for n in range(num_events)
        for u in range(num_users)
    ]


def decoded(dataset: Dataset, part: str) -> list[Row]:
    """The events of a part by external id; None for row 0."""
    events = dataset.part(part)
    users, items = (dataset.vocabularies[n].ids.to_list() for n in ("user", "item"))
    return [
        (users[u], items[i], t, r)
        for u, i, t, r in zip(
            events.user_index.tolist(),
            events.item_index.tolist(),
            events.timestamp_ms.tolist(),
            events.label.tolist(),
            strict=True,
        )
    ]


def attribute_of(dataset: Dataset, name: str) -> dict[Any, Any]:
    """Feature values by external id; looked-up rows as the values they stand for."""
    (feature,) = (f for f in dataset.schema.features if f.name == name)
    ids = dataset.vocabularies[feature.owner].ids.to_list()
    values = dataset.features[name].tolist()
    if feature.kind == "numeric":
        return dict(zip(ids, values, strict=True))
    names = dataset.vocabularies[feature.table].ids.to_list()
    if feature.kind == "categorical":
        return {i: names[row] for i, row in zip(ids, values, strict=True)}
    return {
        i: [names[row] for row in rows if row != -1]
        for i, rows in zip(ids, values, strict=True)
    }


def leftovers(folder: Path, before: set[str]) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*")} - before


# --- the events -------------------------------------------------------------------

IDS = st.one_of(
    st.lists(st.integers(-5, 2**62), min_size=4, max_size=4, unique=True),
    st.lists(
        st.text(st.sampled_from("ab é/'\"😀|,"), min_size=1, max_size=4).filter(
            lambda s: s.strip()
        ),
        min_size=4,
        max_size=4,
        unique=True,
    ),
)


@settings(max_examples=60, deadline=None)
@given(
    IDS,
    IDS,
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(0, 3), st.integers(0, 5), st.integers(1, 5)
        ),
        min_size=16,
        max_size=40,
    ),
    st.sampled_from([0, 0.2, 0.34]),
    st.sampled_from([0, 0.25]),
)
def test_dataset_holds_the_events_of_the_log(
    tmp_path_factory, users, items, events, test, validation
):
    folder = tmp_path_factory.mktemp("prepared")
    # All pairs first, so that the training part surely has two users and items.
    pairs = [(u, i, i % 2, 3) for u in range(4) for i in range(4)]
    rows = [(users[u], items[i], T0 + t, r) for u, i, t, r in pairs + events]
    split = Split(test=test, validation=validation)
    dataset = prepare(
        write_log(folder / "log.parquet", rows), RATED, folder / "out", split=split
    )
    expected: dict[str, list[Row]] = {name: [] for name in PARTS}
    distinct = list(dict.fromkeys(rows))
    for user in users:
        mine = sorted((r for r in distinct if r[0] == user), key=lambda r: r[2])
        held = int(len(mine) * test + 1e-9)
        kept = len(mine) - held
        first = kept - int(kept * validation + 1e-9)
        for name, part in zip(
            PARTS, (mine[:first], mine[first:kept], mine[kept:]), strict=True
        ):
            expected[name] += part
    known = expected["train"] + expected["validation"]
    # An item's count is its popularity, a user's says whether it is trained on.
    for kind, column, counted in (("user", 0, expected["train"]), ("item", 1, known)):
        counts = Counter(row[column] for row in counted)
        vocabulary = dataset.vocabularies[kind]
        fitted = dict(zip(vocabulary.ids.to_list()[1:], vocabulary.counts[1:].tolist()))
        assert fitted == {row[column]: counts[row[column]] for row in known}
    for name in PARTS:
        order = {u: n for n, u in enumerate(dataset.vocabularies["user"].ids.to_list())}
        known_items = set(dataset.vocabularies["item"].ids.to_list())
        rows_of_part = [
            (u, i if i in known_items else None, t * 1000, float(r))
            for u, i, t, r in sorted(expected[name], key=lambda r: (order[r[0]], r[2]))
        ]
        assert decoded(dataset, name) == rows_of_part
    found = dataset.info.statistics
    assert found["events"] == len(distinct)
    assert found["duplicates_dropped"] == len(rows) - len(distinct)
    assert found["first_timestamp_ms"] == min(r[2] for r in rows) * 1000
    assert found["last_timestamp_ms"] == max(r[2] for r in rows) * 1000
    shutil.rmtree(folder)


def test_ids_of_test_events_alone_are_out_of_vocabulary(tmp_path):
    rows = [("a", i, T0 + n) for n, i in enumerate(["x", "y", "x", "y", "new"])]
    rows += [("b", i, T0 + n) for n, i in enumerate(["x", "y"])]
    rows += [("late", "x", T0 + 99)]
    split = Split(kind="time_cut", test_from="2020-09-13T12:26:44", validation=0)
    dataset = prepare(
        write_log(tmp_path / "log.csv", rows), PLAIN, tmp_path / "out", split=split
    )
    assert sorted(dataset.vocabularies["item"].ids.to_list()[1:]) == ["x", "y"]
    assert decoded(dataset, "test") == [
        (None, "x", (T0 + 99) * 1000, 1.0),
        ("a", None, (T0 + 4) * 1000, 1.0),
    ]
    assert dataset.info.statistics["test_events_of_unknown_items"] == 1


def test_nothing_but_the_test_part_follows_the_test_events(tmp_path):
    rows = rating_log()
    held = [r for r in rows if r[2] >= T0 + 40]
    others = [
        ("u9", "i9", T0 + 50, 5),
        *(("u0", f"j{n}", T0 + 50, 1) for n in range(9)),
    ]
    paths = []
    for name, last in (("one", held), ("other", others)):
        kept = [r for r in rows if r not in held]
        log = write_log(tmp_path / f"{name}.csv", kept + last)
        paths.append(tmp_path / name)
        pl.DataFrame(
            {
                "i": [f"i{n}" for n in range(10)] + [f"j{n}" for n in range(9)],
                # Only items of the test part differ between the two.
                "price": [1.0 * n for n in range(9)] + [99.0] * 10,
                "genre": [f"g{n % 3}" for n in range(9)] + [name] * 10,
            }
        ).write_csv(tmp_path / "items.csv")
        prepare(
            LogFiles(log, items=tmp_path / "items.csv"),
            Schema(
                user_id="u",
                item_id="i",
                timestamp="t",
                label="r",
                label_kind="explicit",
                features=(
                    Feature(name="price", owner="item", kind="numeric"),
                    Feature(name="genre", owner="item", kind="categorical"),
                ),
            ),
            paths[-1],
            split=Split(
                kind="time_cut", test_from="2020-09-13T12:27:20", validation=0.2
            ),
        )
    one, other = paths
    of_test = {"00002.arrow", "pending-users-0.arrow", "pending-items-0.arrow"}
    files = [p.relative_to(one) for p in one.rglob("*.arrow") if p.name not in of_test]
    assert len(files) == 7
    for file in files:
        assert (one / file).read_bytes() == (other / file).read_bytes(), file
    infos = [Dataset.open(p).info for p in paths]
    assert infos[0].numbers == infos[1].numbers
    for name in ("users", "items", "density"):
        assert infos[0].statistics[name] == infos[1].statistics[name]
    tests = [p / "events" / "00002.arrow" for p in paths]
    assert tests[0].read_bytes() != tests[1].read_bytes()


def test_order_of_the_file_is_the_time_of_a_log_without_one(tmp_path):
    rows = [(u, f"i{n}") for n in range(5) for u in ("a", "b")]
    schema = Schema(user_id="u", item_id="i")
    dataset = prepare(
        write_log(tmp_path / "log.csv", rows),
        schema,
        tmp_path / "out",
        split=Split(kind="last_n", test=1, validation=1),
    )
    assert [row[:3] for row in decoded(dataset, "train") if row[0] == "b"] == [
        ("b", "i0", 1),
        ("b", "i1", 3),
        ("b", "i2", 5),
    ]
    assert [row[2] for row in decoded(dataset, "validation")] == [6, 7]
    assert [row[2] for row in decoded(dataset, "test")] == [8, 9]


def test_user_with_one_event_trains_and_is_never_tested(tmp_path):
    rows = [*rating_log(), ("lonely", "i0", T0 + 999, 5)]
    split = Split(test=0.9, validation=0.5)
    dataset = prepare(
        write_log(tmp_path / "log.csv", rows), RATED, tmp_path / "out", split=split
    )
    row = dataset.vocabularies["user"].row("lonely")
    assert row in dataset.part("train").user_index
    assert row not in dataset.part("validation", "test").user_index


@pytest.mark.parametrize("kind", ["last_fraction", "last_n", "time_cut", "random"])
def test_parts_may_be_empty(tmp_path, kind):
    dataset = prepare(
        write_log(tmp_path / "log.csv", rating_log()),
        RATED,
        tmp_path / "out",
        split=Split(kind=kind, test=0, validation=0),
    )
    assert dataset.info.parts == {"train": 30, "validation": 0, "test": 0}
    assert len(dataset.part("validation")) == len(dataset.part("test")) == 0
    assert dataset.histories("validation").last(np.array([1]), 2).tolist() == [[-1, -1]]
    assert dataset.item_counts("test").tolist() == [0] * 8


# --- the user's own files ---------------------------------------------------------


def own_files(folder: Path) -> dict[str, Path]:
    rows = rating_log()
    early = [r for r in rows if r[2] < T0 + 30]
    late = [r for r in rows if r[2] >= T0 + 30]
    return {
        "log": write_log(folder / "log.csv", early),
        # One user only, and an item nobody trained on.
        "test": write_log(folder / "test.csv", [("u0", "unseen", T0 + 90, 2)]),
        "validation": write_log(folder / "validation.csv", late),
    }


def test_own_test_and_validation_files_become_the_parts(tmp_path):
    files = own_files(tmp_path)
    dataset = prepare(
        LogFiles(
            files["log"],
            test_events=files["test"],
            validation_events=files["validation"],
        ),
        RATED,
        tmp_path / "out",
        split=Split(kind="files"),
    )
    assert decoded(dataset, "test") == [("u0", None, (T0 + 90) * 1000, 2.0)]
    for name, part in (("log", "train"), ("validation", "validation")):
        rows = pl.read_csv(files[name]).rows()
        assert sorted(decoded(dataset, part)) == sorted(
            (u, i, t * 1000, float(r)) for u, i, t, r in rows
        )


def test_without_a_validation_file_each_user_s_newest_share_is_taken(tmp_path):
    files = own_files(tmp_path)
    dataset = prepare(
        LogFiles([files["log"], files["validation"]], test_events=[files["test"]]),
        RATED,
        tmp_path / "out",
        split=Split(kind="files", validation=0.4),
    )
    assert dataset.info.parts == {"train": 18, "validation": 12, "test": 1}
    assert {row[2] >= (T0 + 30) * 1000 for row in decoded(dataset, "validation")} == {
        True
    }


def test_own_files_without_times_come_one_after_the_other(tmp_path):
    log = write_log(tmp_path / "log.csv", [(u, i) for i in "xyz" for u in "ab"])
    validation = write_log(tmp_path / "validation.csv", [("a", "y")])
    test = write_log(tmp_path / "test.csv", [("b", "x"), ("a", "z")])
    dataset = prepare(
        LogFiles(log, test_events=test, validation_events=validation),
        Schema(user_id="u", item_id="i"),
        tmp_path / "out",
        split=Split(kind="files"),
    )
    assert [row[:3] for row in decoded(dataset, "validation")] == [("a", "y", 6)]
    assert [row[:3] for row in decoded(dataset, "test")] == [
        ("a", "z", 8),
        ("b", "x", 7),
    ]
    events = dataset.part("test")
    before = dataset.histories("train", "validation").before(
        events.user_index, events.timestamp_ms, 5
    )
    assert (before >= 0).sum(axis=1).tolist() == [4, 3]


def test_ids_are_text_everywhere_if_they_are_text_in_one_file(tmp_path):
    log = write_log(
        tmp_path / "log.csv", [(u, i, T0 + i) for u in (1, 2) for i in (7, 8)]
    )
    test = write_log(tmp_path / "test.csv", [("1", "007", T0 + 9), ("2", "7", T0 + 9)])
    dataset = prepare(
        LogFiles(log, test_events=test),
        PLAIN,
        tmp_path / "out",
        split=Split(kind="files"),
    )
    assert not dataset.vocabularies["item"].is_integer
    assert dataset.vocabularies["user"].is_integer
    assert [row[:2] for row in decoded(dataset, "test")] == [(1, None), (2, "7")]


@pytest.mark.parametrize(
    ("kind", "given_files"),
    [
        ("files", []),
        ("files", ["validation"]),
        ("last_n", ["test"]),
        ("last_fraction", ["validation"]),
        ("random", ["test", "validation"]),
    ],
)
def test_own_files_and_their_split_kind_belong_together(tmp_path, kind, given_files):
    files = own_files(tmp_path)
    amounts = {"test": 1, "validation": 1} if kind == "last_n" else {}
    with pytest.raises(InputError, match="needs a test file.*Set ") as caught:
        own = {f"{name}_events": files[name] for name in given_files}
        split = Split(kind=kind, **amounts)
        prepare(LogFiles(files["log"], **own), RATED, tmp_path / "out", split=split)
    assert caught.value.code == "split-files"
    assert not (tmp_path / "out").exists()


# --- the attributes ---------------------------------------------------------------

FEATURES = (
    Feature(name="job", owner="user", kind="categorical"),
    Feature(name="age", owner="user", kind="numeric"),
    Feature(name="genres", owner="item", kind="multi_valued", separator="|"),
    Feature(name="main", owner="item", kind="categorical", vocabulary="genres"),
    Feature(name="price", owner="item", kind="numeric"),
)


def schema_with(*features: Feature, title: str | None = None) -> Schema:
    return Schema(
        user_id="u", item_id="i", timestamp="t", features=features, title=title
    )


def prepared(
    folder: Path,
    *features: Feature,
    users: pl.DataFrame | None = None,
    items: pl.DataFrame | None = None,
    title: str | None = None,
    rows: list[Row] | None = None,
    **options: Any,
) -> Dataset:
    paths = {}
    for name, frame in (("users", users), ("items", items)):
        if frame is not None:
            paths[name] = folder / f"{name}.parquet"
            frame.write_parquet(paths[name])
    log = [row[:3] for row in rows or rating_log()]
    ids = {n: options.pop(n) for n in ("users_id", "items_id") if n in options}
    return prepare(
        LogFiles(write_log(folder / "log.parquet", log), **paths, **ids),
        schema_with(*features, title=title),
        folder / "out",
        **options,
    )


def test_attributes_of_users_and_items(tmp_path):
    users = pl.DataFrame(
        {
            "u": ["u1", "u0", "u2", "nobody"],
            "job": ["writer", None, "", "pilot"],
            "age": [30.0, 20.0, None, 1000.0],
        }
    )
    items = pl.DataFrame(
        {
            "title": ["One", None, "Three", "Unknown"],
            "i": ["i1", "i2", "i3", "i99"],
            "genres": ["War|Drama", "Drama", None, "Secret"],
            "main": ["Drama", "Noir", None, "Secret"],
            "price": [1.0, 2.0, 6.0, 1e9],
        }
    )
    dataset = prepared(tmp_path, *FEATURES, users=users, items=items, title="title")
    jobs = attribute_of(dataset, "job")
    assert jobs == {
        **{None: None, "u0": None, "u1": "writer", "u2": None},
        **{f"u{n}": None for n in (3, 4, 5)},
    }
    genres = attribute_of(dataset, "genres")
    assert {i: g for i, g in genres.items() if g} == {
        "i1": ["War", "Drama"],
        "i2": ["Drama"],
    }
    main = attribute_of(dataset, "main")
    assert {i: m for i, m in main.items() if m} == {"i1": "Drama", "i2": "Noir"}
    # One table for both features; nothing of ids that never came in the log.
    assert set(dataset.vocabularies) == {"user", "item", "job", "genres"}
    assert dataset.vocabularies["genres"].ids.to_list() == [
        None,
        "Drama",
        "Noir",
        "War",
    ]
    assert dataset.vocabularies["genres"].counts.tolist() == [0, 3, 1, 1]
    assert dataset.vocabularies["job"].ids.to_list() == [None, "writer"]
    for name, known in (
        ("age", {"u1": 30, "u0": 20}),
        ("price", {"i1": 1, "i2": 2, "i3": 6}),
    ):
        mean, scale = statistics.mean(known.values()), statistics.stdev(known.values())
        values = attribute_of(dataset, name)
        for external, value in values.items():
            expected = (known[external] - mean) / scale if external in known else 0.0
            assert value == pytest.approx(expected, abs=1e-6)
        numbers = dataset.info.numbers[name]
        assert (numbers.mean, numbers.scale) == pytest.approx((mean, scale))
    titles = dict(zip(dataset.items["id"], dataset.items["title"], strict=True))
    assert titles["i1"] == "One" and titles["i2"] is None and titles["i4"] is None


def test_list_columns_lose_their_empty_values(tmp_path):
    lists = [["b", None, "a", ""], [], None, [None]]
    items = pl.DataFrame({"i": [f"i{n}" for n in range(4)], "tags": lists})
    tags = Feature(name="tags", owner="item", kind="multi_valued")
    dataset = prepared(tmp_path, tags, items=items)
    assert {i: t for i, t in attribute_of(dataset, "tags").items() if t} == {
        "i0": ["b", "a"]
    }


def test_lists_of_integers_and_fixed_size_arrays_are_values_too(tmp_path):
    ids = [f"i{n}" for n in range(7)]
    items = pl.DataFrame(
        {
            "i": ids,
            "codes": pl.Series([[n, n + 1] for n in range(7)], dtype=pl.List(pl.Int16)),
            "pair": pl.Series([["x", "y"]] * 7, dtype=pl.Array(pl.String, 2)),
        }
    )
    dataset = prepared(
        tmp_path,
        Feature(name="codes", owner="item", kind="multi_valued"),
        Feature(name="pair", owner="item", kind="multi_valued"),
        items=items,
    )
    assert attribute_of(dataset, "codes")["i3"] == ["3", "4"]
    assert attribute_of(dataset, "pair")["i5"] == ["x", "y"]


@pytest.mark.parametrize(
    ("text", "separator", "values"),
    [
        ("a|b|a", "|", ["a", "b", "a"]),
        ("a, b ,c", ",", ["a", "b", "c"]),
        ("a||b|", "|", ["a", "b"]),
        ("|", "|", []),
        ("", "|", []),
        ("a.b", ".", ["a", "b"]),
        ("a|b", ",", ["a|b"]),
        ("é😀;ü", ";", ["é😀", "ü"]),
    ],
)
def test_text_is_split_into_values_without_blanks_around_them(
    tmp_path, text, separator, values
):
    items = pl.DataFrame({"i": ["i0", "i1"], "tags": [text, "z"]})
    tags = Feature(name="tags", owner="item", kind="multi_valued", separator=separator)
    assert attribute_of(prepared(tmp_path, tags, items=items), "tags")["i0"] == values


@pytest.mark.parametrize("dtype", [pl.String, pl.Float64, pl.Null, pl.List(pl.String)])
def test_columns_of_nothing_are_all_unknown(tmp_path, dtype):
    ids = [f"i{n}" for n in range(7)]
    names = ["tags"] if dtype == pl.List else ["tags", "genre", "price"]
    if dtype == pl.String:
        names.remove("price")
    kinds = {"tags": "multi_valued", "genre": "categorical", "price": "numeric"}
    items = pl.DataFrame(
        {"i": ids, **{n: pl.Series([None] * 7, dtype=dtype) for n in names}}
    )
    features = [Feature(name=n, owner="item", kind=kinds[n]) for n in names]
    dataset = prepared(tmp_path, *features, items=items)
    assert dataset.features["tags"].tolist() == [[-1]] * 8
    if "genre" in names:
        assert dataset.features["genre"].tolist() == [0] * 8
        assert len(dataset.vocabularies["genre"]) == 1
    if "price" in names:
        assert dataset.features["price"].tolist() == [0.0] * 8


def test_constant_number_is_zero_everywhere(tmp_path):
    items = pl.DataFrame({"i": ["i0", "i1"], "price": [5, 5]})
    price = Feature(name="price", owner="item", kind="numeric")
    assert prepared(tmp_path, price, items=items).features["price"].tolist() == [0] * 8


def test_one_table_may_serve_users_and_items(tmp_path):
    users = pl.DataFrame({"u": ["u0", "u1"], "likes": ["War", "Drama"]})
    items = pl.DataFrame({"i": ["i0", "i1"], "genre": ["Noir", "War"]})
    dataset = prepared(
        tmp_path,
        Feature(name="likes", owner="user", kind="categorical", vocabulary="genre"),
        Feature(name="genre", owner="item", kind="categorical"),
        users=users,
        items=items,
    )
    assert dataset.vocabularies["genre"].ids.to_list() == [None, "War", "Drama", "Noir"]
    assert attribute_of(dataset, "likes")["u1"] == "Drama"
    assert attribute_of(dataset, "genre")["i0"] == "Noir"


@pytest.mark.parametrize("integers", [True, False])
def test_feature_may_share_the_table_of_the_items(tmp_path, integers):
    rows = rating_log()
    if integers:
        rows = [(u, int(i[1:]), t, r) for u, i, t, r in rows]
    ids = sorted({r[1] for r in rows})
    items = pl.DataFrame({"i": ids, "similar": [f"{ids[0]}|{ids[2]}|other"] * len(ids)})
    dataset = prepared(
        tmp_path,
        Feature(name="similar", owner="item", kind="multi_valued", vocabulary="item"),
        items=items,
        rows=rows,
    )
    assert set(dataset.vocabularies) == {"user", "item"}
    assert attribute_of(dataset, "similar")[ids[1]] == [ids[0], ids[2], None]


def test_attribute_ids_may_have_another_column_name_and_type(tmp_path):
    rows = [(u, i, T0 + i) for u in (1, 2, 3) for i in (7, 8, 9)]
    users = pl.DataFrame({"key": ["007", "2", "3", "x"], "job": ["a", "b", "c", "d"]})
    items = pl.DataFrame({"id": ["7", "8", "08"], "genre": ["e", "f", "g"]})
    dataset = prepared(
        tmp_path,
        Feature(name="job", owner="user", kind="categorical"),
        Feature(name="genre", owner="item", kind="categorical"),
        users=users,
        items=items,
        rows=rows,
        users_id="key",
        items_id="id",
    )
    assert attribute_of(dataset, "job") == {None: None, 1: None, 2: "b", 3: "c"}
    assert attribute_of(dataset, "genre") == {None: None, 7: "e", 8: "f", 9: None}


def test_text_ids_find_integer_attributes(tmp_path):
    rows = [(u, i, T0 + n) for u in ("1", "b") for n, i in enumerate(("007", "7", "x"))]
    items = pl.DataFrame({"i": [7, 8], "genre": ["e", "f"]})
    genre = Feature(name="genre", owner="item", kind="categorical")
    dataset = prepared(tmp_path, genre, items=items, rows=rows)
    assert attribute_of(dataset, "genre") == {
        None: None,
        "007": None,
        "7": "e",
        "x": None,
    }


def test_ids_beyond_64_bits_stay_what_they_are(tmp_path):
    huge = [2**64 - 1, 2**64 - 2, 2**63]
    rows = [(u, i, T0 + n) for u in (-(2**63), 2**63 - 1) for n, i in enumerate(huge)]
    log = tmp_path / "log.csv"
    log.write_text("u,i,t\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    dataset = prepare(log, PLAIN, tmp_path / "out", split=Split(test=0, validation=0))
    assert sorted(dataset.vocabularies["item"].ids.to_list()[1:]) == sorted(
        map(str, huge)
    )
    assert dataset.vocabularies["item"].row(huge[1]) > 0
    assert dataset.vocabularies["user"].row(-(2**63)) > 0


@pytest.mark.parametrize(
    "name", ["id", "a/b", "../up", 'quo"te', "new\nline", "é 😀", "i"]
)
def test_feature_may_have_any_name(tmp_path, name):
    ids = [f"i{n}" for n in range(7)]
    items = pl.DataFrame({"i": ids, name: ids if name == "i" else list("abcabca")})
    feature = Feature(name=name, owner="item", kind="categorical")
    dataset = prepared(tmp_path, feature, items=items)
    values = dict(zip(items["i"], items[name], strict=True))
    assert attribute_of(dataset, name) == {None: None, **values}
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "items.parquet",
        "log.parquet",
        "out",
    ]


def test_title_may_be_a_feature_too(tmp_path):
    items = pl.DataFrame({"i": ["i0", "i1"], "name": ["One", "Two"]})
    feature = Feature(name="name", owner="item", kind="categorical")
    dataset = prepared(tmp_path, feature, items=items, title="name")
    assert attribute_of(dataset, "name")["i0"] == "One"
    assert set(dataset.items.columns) == {"id", "name", "feature:name"}


def test_attribute_file_without_features_is_allowed(tmp_path):
    dataset = prepared(tmp_path, users=pl.DataFrame({"u": ["u0"], "job": ["a"]}))
    assert dataset.users.columns == ["id"]
    assert len(dataset.users) == dataset.num_users == 7


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("categorical", [["a"], ["b"]]),
        ("categorical", [{"x": 1}, {"x": 2}]),
        ("multi_valued", [{"x": 1}, {"x": 2}]),
    ],
)
def test_nested_columns_that_are_no_feature_are_refused(tmp_path, kind, values):
    items = pl.DataFrame({"i": ["i0", "i1"], "tags": values})
    feature = Feature(name="tags", owner="item", kind=kind)
    with pytest.raises(LogError, match="one plain value per row") as caught:
        prepared(tmp_path, feature, items=items)
    assert caught.value.code == "attribute-type"
    assert caught.value.column == "tags"
    assert caught.value.file == str(tmp_path / "items.parquet")
    assert not (tmp_path / "out").exists()


# --- what is refused, and what is left behind -------------------------------------


def test_schema_with_attributes_needs_their_file(tmp_path):
    with pytest.raises(LogError, match=r"needs \['genre', 'name'\] of every item") as e:
        prepared(
            tmp_path,
            Feature(name="genre", owner="item", kind="categorical"),
            title="name",
        )
    assert e.value.code == "attributes-missing"


@pytest.mark.parametrize(
    ("split", "column"),
    [
        (Split(kind="time_cut", test_from="2020-09-13"), "u"),
        (Split(kind="time_cut", test=0.1, validation_from="2020-09-13"), "u"),
    ],
)
def test_training_part_needs_two_users_and_items(tmp_path, split, column):
    log = write_log(tmp_path / "log.csv", rating_log())
    with pytest.raises(LogError, match="at least 2 users and 2 items") as caught:
        prepare(log, RATED, tmp_path / "out", split=split)
    assert caught.value.code == "log-too-small"
    assert (caught.value.file, caught.value.column) == (str(log), column)
    assert os.listdir(tmp_path) == ["log.csv"]


def test_too_small_log_of_several_files_names_the_first(tmp_path):
    paths = [write_log(tmp_path / f"{n}.csv", rating_log()[n::2]) for n in range(2)]
    split = Split(kind="time_cut", test_from="2020-09-13")
    with pytest.raises(LogError, match="Received: 0 in user_id") as caught:
        prepare(paths, RATED, tmp_path / "out", split=split)
    assert caught.value.file == str(paths[0])


def test_existing_output_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="exists already") as caught:
        prepare(tmp_path / "missing.csv", RATED, tmp_path / "out")
    assert caught.value.code == "output-exists"
    assert os.listdir(tmp_path / "out") == ["mine.txt"]


def test_failed_overwrite_keeps_the_old_dataset(tmp_path):
    log = write_log(tmp_path / "log.csv", rating_log())
    old = prepare(log, RATED, tmp_path / "out")
    log.write_text("u,i,t,r\na,b,not a time,1\nc,d,neither,1\n")
    with pytest.raises(LogError, match="Times must be"):
        prepare(log, RATED, tmp_path / "out", overwrite=True)
    assert Dataset.open(tmp_path / "out").info == old.info
    assert sorted(os.listdir(tmp_path)) == ["log.csv", "out"]


@pytest.mark.parametrize(
    "wrong", [{"compression": "lz4"}, {"on_error": "ignore"}, {"memory_bytes": -1}]
)
def test_options_are_checked_before_anything_is_replaced(tmp_path, wrong):
    log = write_log(tmp_path / "log.csv", rating_log())
    old = prepare(log, RATED, tmp_path / "out")
    (name,) = wrong
    with pytest.raises(InputError, match=f"`{name}` must be") as caught:
        if name != "compression":
            wrong = {"options": ReadOptions(**wrong)}
        prepare(log, RATED, tmp_path / "out", overwrite=True, **wrong)
    assert caught.value.code == "invalid-argument"
    assert Dataset.open(tmp_path / "out").info == old.info


@pytest.mark.parametrize("given_files", ["log", "items"])
def test_files_written_to_while_they_are_read_are_refused(
    tmp_path, monkeypatch, given_files
):
    log = write_log(tmp_path / "log.csv", rating_log())
    items = tmp_path / "items.csv"
    pl.DataFrame({"i": ["i0", "i1"], "genre": ["a", "b"]}).write_csv(items)
    genre = Feature(name="genre", owner="item", kind="categorical")
    schema = msgspec.structs.replace(RATED, features=(genre,))
    lines = {"log": (log, "u9,i1,1600000000,3\n"), "items": (items, "i2,c\n")}
    file, line = lines[given_files]

    def ingest_while_written(*arguments: Any, **options: Any) -> Any:
        coded = ingest(*arguments, **options)
        with file.open("a") as stream:
            stream.write(line)
        return coded

    monkeypatch.setattr(prepare_module, "ingest", ingest_while_written)
    with pytest.raises(LogError, match="changed while it was being read") as caught:
        prepare(LogFiles(log, items=items), schema, tmp_path / "out")
    assert caught.value.code == "log-changed"
    assert caught.value.file == str(file)
    assert sorted(os.listdir(tmp_path)) == ["items.csv", "log.csv"]


def polars_error(number: int) -> OSError:
    """As Polars raises it: the number is in the text only."""
    return OSError(f"{os.strerror(number)} (os error {number})")


def system_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "no-space"), (errno.EROFS, "read-only")]
)
@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [
        (pl.DataFrame, "write_ipc", polars_error),
        (Path, "write_bytes", system_error),
        (Path, "mkdir", system_error),
        (os, "fsync", system_error),
        (os, "replace", system_error),
    ],
    ids=["write_ipc", "write_bytes", "mkdir", "fsync", "replace"],
)
@pytest.mark.parametrize(
    "overwrite", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_full_or_read_only_disk_at_any_write_leaves_nothing_half_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overwrite: bool,
    owner: Any,
    name: str,
    error: Callable[[int], OSError],
    number: int,
    code: str,
):
    items = pl.DataFrame({"i": ["i0", "i1"], "genre": ["a", "b"]})
    items.write_csv(tmp_path / "items.csv")
    log = write_log(tmp_path / "log.csv", rating_log())
    genre = Feature(name="genre", owner="item", kind="categorical")
    files = LogFiles(log, items=tmp_path / "items.csv")
    original, working = getattr(owner, name), 0
    failures = 0
    while True:
        out = tmp_path / f"out{working}"
        before = prepare(log, PLAIN, out).info if overwrite else None
        calls = 0

        def failing(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == working + 1:
                raise error(number)
            return original(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, failing)
            try:
                dataset = prepare(files, schema_with(genre), out, overwrite=overwrite)
            except ResourceError as caught:
                failures += 1
                assert caught.code == code
                assert caught.exit_code == 4
                dataset = None
        if dataset is not None:
            break
        visible = [p for p in os.listdir(tmp_path) if p not in ("items.csv", "log.csv")]
        assert all(path.startswith("out") for path in visible), visible
        if out.exists():
            # The old one, or the new one whole: the last flush comes after the rename.
            info = Dataset.open(out).info
            assert info == before or info.schema == schema_with(genre)
            shutil.rmtree(out)
        working += 1
    # write_bytes writes dataset.json alone; the others are called more often.
    assert failures >= (1 if name == "write_bytes" else 2)


def test_own_files_must_not_share_events(tmp_path):
    rows = [
        f"{user},{item},3,{100 * user + item}" for user in (1, 2) for item in (1, 2, 3)
    ]
    (tmp_path / "log.csv").write_text("u,i,r,t\n" + "\n".join(rows) + "\n")
    (tmp_path / "test.csv").write_text("u,i,r,t\n" + "\n".join(rows[4:]) + "\n")
    schema = Schema(user_id="u", item_id="i", timestamp="t", label="r")
    with pytest.raises(InputError, match="2 events in more than one") as caught:
        prepare(
            LogFiles(tmp_path / "log.csv", test_events=tmp_path / "test.csv"),
            schema,
            tmp_path / "dataset",
            split=Split(kind="files"),
        )
    assert caught.value.code == "split-overlap"
    assert not (tmp_path / "dataset").exists()

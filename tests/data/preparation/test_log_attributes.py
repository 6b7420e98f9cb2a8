"""Attributes that are columns of the log: the newest value of each id, in any order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.data import Dataset, Feature, LogFiles, Schema, Split, append, prepare
from shortlist.data.preparation.log_attributes import KEY, LogAttributes
from shortlist.errors import InputError, LogError

SCHEMA = Schema(
    user_id="user",
    item_id="item",
    timestamp="time",
    features=(
        Feature(
            name="price", owner="item", kind="numeric", transform="none", from_log=True
        ),
        Feature(name="kind", owner="item", kind="categorical", from_log=True),
        Feature(name="tags", owner="item", kind="multi_valued", from_log=True),
        Feature(name="town", owner="user", kind="categorical", from_log=True),
    ),
    title="name",
    title_from_log=True,
)
HEAD = "user,item,time,price,kind,tags,name,town\n"
SPLIT = Split(kind="last_n", test=1, validation=1)

rows = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 3),
        st.one_of(st.none(), st.floats(-9, 9, width=32)),
        st.sampled_from([None, "", "a", "b", "c"]),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(rows, st.booleans(), st.integers(1, 7))
def test_the_newest_value_is_that_of_a_plain_loop(log, timed, block_size) -> None:
    schema = Schema(
        user_id="u",
        item_id="i",
        features=(
            Feature(name="x", owner="item", kind="numeric", from_log=True),
            Feature(name="c", owner="user", kind="categorical", from_log=True),
        ),
    )
    held, newest = LogAttributes(schema), ({}, {})
    for begin in range(0, len(log), block_size):
        block = log[begin : begin + block_size]
        code, time, x, c = zip(*block, strict=True)
        events = pl.DataFrame(
            {"feature:x": pl.Series(x, dtype=pl.Float64)}
            | {
                "feature:c": pl.Series(
                    [[v] if v else [] for v in c], dtype=pl.List(pl.String)
                )
            }
            | ({"timestamp_ms": time} if timed else {})
        )
        codes = np.array(code, np.int32)
        held.add(events, {"user": codes, "item": codes})
    for place, (code, time, x, c) in enumerate(log):
        when = (time, place) if timed else (place,)
        for values, value in zip(newest, (x, c or None), strict=True):
            if value is not None and (code not in values or values[code][0] <= when):
                values[code] = (when, value)
    for owner, name, values in (("item", "x", newest[0]), ("user", "c", newest[1])):
        frame = held.frame(owner, pl.Series(["k0", "k1", "k2", "k3"]))
        assert frame[KEY].to_list() == ["k0", "k1", "k2", "k3"]
        expected = [values[code][1] if code in values else None for code in range(4)]
        assert frame[name].to_list() == expected


def write(path: Path, lines: list[str]) -> Path:
    path.write_text(HEAD + "".join(f"{line}\n" for line in lines))
    return path


def log_of(first_day: int, users: int = 6, items: int = 5) -> list[str]:
    """Every user takes every item once; prices rise by the day."""
    return [
        f"u{u},i{i},{1_600_000_000 + 86_400 * (first_day + i) + u},{i + first_day}.5,"
        f"k{i % 2},t{i}|t{i + 1},Item {i},town {u % 2}"
        for i in range(items)
        for u in range(users)
    ]


def items_of(dataset: Dataset) -> dict[str, dict[str, object]]:
    """Every known item with the values its rows stand for."""
    names = {t: dataset.vocabularies[t].ids.to_list() for t in ("kind", "tags")}
    found = {}
    for row in dataset.items[1:].to_dicts():
        found[row["id"]] = {
            "price": row["feature:price"],
            "kind": names["kind"][row["feature:kind"]],
            "tags": [names["tags"][place] for place in row["feature:tags"]],
            "name": row["name"],
        }
    return found


def towns_of(dataset: Dataset) -> dict[str, str]:
    names = dataset.vocabularies["town"].ids.to_list()
    rows = dataset.users[1:].to_dicts()
    return {row["id"]: names[row["feature:town"]] for row in rows}


def test_prepare_builds_the_attributes_from_the_log(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", [*log_of(0), "u0,i0,1600900000,,,,,"])
    dataset = prepare(log, SCHEMA, tmp_path / "dataset", split=SPLIT)
    found = items_of(dataset)
    assert found["i3"] == {
        "price": 3.5,
        "kind": "k1",
        "tags": ["t3", "t4"],
        "name": "Item 3",
    }
    assert found["i0"]["name"] == "Item 0"  # what is missing replaces nothing
    assert towns_of(dataset) == {f"u{n}": f"town {n % 2}" for n in range(6)}
    assert "from_log" in (tmp_path / "dataset" / "dataset.json").read_text()


def test_the_newest_value_counts_whatever_the_order_of_the_file(tmp_path: Path) -> None:
    lines = log_of(0)
    lines += ["u0,i1,1600999999,99.5,k0,t9,Newest,town 1"]
    forward = write(tmp_path / "a.csv", lines)
    backward = write(tmp_path / "b.csv", lines[::-1])
    one = prepare(forward, SCHEMA, tmp_path / "one", split=SPLIT)
    other = prepare(backward, SCHEMA, tmp_path / "other", split=SPLIT)
    assert items_of(one) == items_of(other)
    assert items_of(one)["i1"]["name"] == "Newest"
    assert items_of(one)["i1"]["price"] == 99.5


def test_appended_days_renew_values_and_bring_those_of_new_items(
    tmp_path: Path,
) -> None:
    log = write(tmp_path / "log.csv", log_of(0))
    prepare(log, SCHEMA, tmp_path / "dataset", split=SPLIT)
    day = [
        "u0,i0,1610000000,70.5,,,,",  # a new price; the rest stays
        "u1,new,1610000001,8.5,k1,t2,New item,town 1",
        "u2,i1,1610000002,1.5,k1,t1|t2,Item 1,town 0",
    ]
    dataset = append(tmp_path / "dataset", write(tmp_path / "day.csv", day))
    found = items_of(dataset)
    assert found["i0"] == {
        "price": 70.5,
        "kind": "k0",
        "tags": ["t0", "t1"],
        "name": "Item 0",
    }
    assert "new" not in found  # pending: only the test part has it
    later = ["u0,i2,1620000000,2.5,k0,t2|t3,Item 2,town 0"]
    dataset = append(tmp_path / "dataset", write(tmp_path / "later.csv", later))
    assert items_of(dataset)["new"] == {
        "price": 8.5,
        "kind": "k1",
        "tags": ["t2"],
        "name": "New item",
    }
    assert towns_of(dataset)["u1"] == "town 1"


def test_a_file_and_the_log_can_both_have_attributes(tmp_path: Path) -> None:
    schema = Schema(
        user_id="user",
        item_id="item",
        timestamp="time",
        features=(
            Feature(name="color", owner="item", kind="categorical"),
            Feature(name="kind", owner="item", kind="categorical", from_log=True),
        ),
        title="name",
    )
    log = write(tmp_path / "log.csv", log_of(0))
    items = tmp_path / "items.csv"
    items.write_text(
        "item,color,name\n" + "".join(f"i{n},c{n},File {n}\n" for n in range(5))
    )
    dataset = prepare(
        LogFiles(log, items=items), schema, tmp_path / "dataset", split=SPLIT
    )
    day = write(
        tmp_path / "day.csv", ["u0,i0,1610000000,1,k1,,,", "u1,i1,1610000001,1,k1,,,"]
    )
    for found in (dataset, append(dataset.path, LogFiles(day, items=items))):
        rows = {row["id"]: row for row in found.items.to_dicts()}
        colors = found.vocabularies["color"].ids.to_list()
        assert colors[rows["i2"]["feature:color"]] == "c2"
        assert rows["i3"]["name"] == "File 3"
    kinds = found.vocabularies["kind"].ids.to_list()
    assert kinds[rows["i0"]["feature:kind"]] == "k1"  # of the appended day
    with pytest.raises(LogError, match="Set `items` under .log., set from_log"):
        prepare(log, schema, tmp_path / "other", split=SPLIT)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        (
            {
                "features": (
                    Feature(
                        name="sku", owner="item", kind="categorical", from_log=True
                    ),
                )
            },
            "schema-column-twice",
        ),
        ({"title_from_log": True}, "schema-title"),
        (
            {
                "title": "a",
                "features": (
                    Feature(name="a", owner="item", kind="categorical", from_log=True),
                ),
            },
            "schema-title",
        ),
    ],
)
def test_columns_that_do_not_fit_are_refused(changes, code) -> None:
    with pytest.raises(InputError) as caught:
        Schema(user_id="user", item_id="sku", **changes)
    assert caught.value.code == code


def test_a_context_feature_is_of_the_log_anyway() -> None:
    with pytest.raises(InputError, match="from_log") as caught:
        Feature(name="a", owner="context", kind="categorical", from_log=True)
    assert caught.value.code == "schema-feature-field"


def test_a_schema_without_them_is_written_as_before() -> None:
    plain = Schema(
        user_id="u",
        item_id="i",
        features=(Feature(name="a", owner="item", kind="categorical"),),
    )
    assert b"from_log" not in plain.to_json()
    assert Schema.from_json(SCHEMA.to_json()) == SCHEMA

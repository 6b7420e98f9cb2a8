"""Events as they are stored and read back, against plain loops over the raw log."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.data import (
    PARTS,
    Dataset,
    ExampleOptions,
    Feature,
    Loader,
    ReadOptions,
    Schema,
    Split,
    TrainingExamples,
    prepare,
)
from shortlist.data.preparation.event_rows import session_index
from shortlist.data.read import blocks as events_module
from shortlist.data.store import segments as segments_module

T0 = 1_600_000_000
GAP_MINUTES = 30
CONTEXT = (
    Feature(name="device", owner="context", kind="categorical"),
    Feature(name="page", owner="context", kind="categorical", min_count=20),
    Feature(name="hashed", owner="context", kind="categorical", hash_buckets=5),
    Feature(name="tags", owner="context", kind="multi_valued", max_length=2),
    Feature(name="price", owner="context", kind="numeric"),
    Feature(name="raw", owner="context", kind="numeric", transform="none"),
    Feature(
        name="hour", owner="context", kind="bucketized", boundaries=(6.0, 12.0, 18.0)
    ),
)
SCHEMA = Schema(
    user_id="user",
    item_id="item",
    timestamp="time",
    label="seconds",
    positive_from=2,
    weight="log",
    weight_alpha=0.5,
    session_gap_minutes=GAP_MINUTES,
    features=CONTEXT,
)
SPLIT = Split(test=0.25, validation=0.25)
Row = dict[str, Any]


def random_log(num_events: int, seed: int) -> list[Row]:
    """Events in random order, each distinct; with values seldom or never there."""
    rng = np.random.default_rng(seed)
    found = {}
    for _ in range(num_events):
        late = rng.random() < 0.2
        row = {
            "user": f"u{rng.integers(12)}",
            "item": f"i{rng.integers(9) + 6 * late}",
            "seconds": int(rng.integers(0, 9)),
            "time": T0 + int(rng.integers(0, 400)) * 300 + late * 400 * 300,
            "device": [None, "web", "tv", "late only"][rng.integers(0, 3 + late)],
            "page": f"p{int(rng.exponential(3))}",
            "hashed": [None, *"abcdefgh"][rng.integers(0, 9)],
            "tags": [None, "a", "b|a", "c|b|a", "z|a", ""][rng.integers(0, 6)],
            "price": [None, float(rng.integers(1, 50)) / 4][rng.random() < 0.9],
            "raw": [None, float(rng.integers(1, 50)) / 4][rng.random() < 0.9],
            "hour": [None, int(rng.integers(0, 24))][rng.random() < 0.9],
        }
        key = (row["user"], row["item"], row["time"], row["seconds"] >= 2)
        found.setdefault(key, row)
    return list(found.values())


def write_log(path: Path, rows: list[Row]) -> Path:
    pl.DataFrame(rows, infer_schema_length=None).write_csv(path)
    return path


def parts_of(rows: list[Row]) -> dict[str, list[Row]]:
    """The kept events of each part: the newest quarter of each user, and so on."""
    by_user = defaultdict(list)
    for row in rows:
        if row["seconds"] >= SCHEMA.positive_from:
            by_user[row["user"]].append(row)
    parts: dict[str, list[Row]] = {name: [] for name in PARTS}
    for mine in by_user.values():
        mine.sort(key=lambda row: row["time"])
        held = int(len(mine) * 0.25 + 1e-9)
        rest = len(mine) - held
        first = rest - int(rest * 0.25 + 1e-9)
        sliced = (mine[:first], mine[first:rest], mine[rest:])
        for name, part in zip(PARTS, sliced, strict=True):
            parts[name] += part
    return parts


def key_of(row: Row) -> tuple[Any, ...]:
    return row["user"], row["item"], row["time"] * 1000


def stored(dataset: Dataset, part: str) -> list[Row]:
    """The stored events of a part by external id, straight from its segments.

    Ids of the test part alone are those that the dataset keeps as pending.
    """
    ids = {}
    for owner in ("user", "item"):
        ids[owner] = dataset.vocabularies[owner].ids.to_list()
        if file := dataset.info.pending.get(owner):
            ids[owner] += pl.read_ipc(dataset.path / file)["id"].to_list()
    rows = []
    for segment in dataset.info.segments:
        if segment.part == part:
            for row in pl.read_ipc(dataset.path / segment.file).to_dicts():
                row["user"] = ids["user"][row.pop("user_index")]
                row["item"] = ids["item"][row.pop("item_index")]
                rows.append(row)
    return rows


@pytest.fixture(scope="module")
def log() -> list[Row]:
    return random_log(700, seed=5)


@pytest.fixture(scope="module")
def dataset(log: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("events")
    path = write_log(folder / "log.csv", log)
    return prepare(path, SCHEMA, folder / "dataset", split=SPLIT)


def paired(dataset: Dataset, log: list[Row], part: str) -> list[tuple[Row, Row]]:
    """Each event of a part as it is stored, and in the log."""
    wanted: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in parts_of(log)[part]:
        wanted[key_of(row)].append(row)
    pairs = []
    for row in stored(dataset, part):
        key = row["user"], row["item"], row["timestamp_ms"]
        pairs.append((row, wanted[key].pop(0)))
    assert not any(wanted.values()) and len(pairs) > 50
    return pairs


# --- sessions and weights ---------------------------------------------------------


def sessions_by_hand(events: list[tuple[int, int]], gap: float) -> list[int]:
    """Session of each (user, time), in the order given."""
    numbers, last = [], {}
    for user, time in events:
        before = last.get(user)
        number = 0 if before is None else before[1] + (time - before[0] > gap)
        last[user] = (time, number)
        numbers.append(number)
    return numbers


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 40)), max_size=60),
    st.sampled_from([0.5, 1, 3, 10]),
)
def test_sessions_agree_with_a_plain_loop(events, gap):
    events = sorted(events)
    users, times = (np.array([e[n] for e in events], np.int64) for n in (0, 1))
    found = session_index(users.astype(np.int32), times, gap)
    assert found.dtype == np.int32
    assert found.tolist() == sessions_by_hand(events, gap)


def test_sessions_go_on_across_the_parts(dataset, log):
    kept = sorted(
        (row["user"], row["time"] * 1000)
        for row in log
        if row["seconds"] >= SCHEMA.positive_from
    )
    numbers = sessions_by_hand(kept, GAP_MINUTES * 60_000)
    expected = dict(zip(kept, numbers, strict=True))
    found = {
        (row["user"], row["timestamp_ms"]): row["session_index"]
        for part in PARTS
        for row in stored(dataset, part)
    }
    assert found == expected
    assert max(numbers) > 5


@pytest.mark.parametrize("part", PARTS)
def test_weights_are_stored_with_their_events(dataset, log, part):
    for found, row in paired(dataset, log, part):
        assert found["weight"] == pytest.approx(1 + 0.5 * math.log1p(row["seconds"]))
        assert found["label"] == 1


# --- context features -------------------------------------------------------------


def split_tags(text: str | None) -> list[str]:
    return [tag for tag in (text or "").split("|") if tag][:2]


@pytest.mark.parametrize("part", PARTS)
def test_looked_up_context_is_the_row_of_its_value(dataset, log, part):
    train = parts_of(log)["train"]
    pages = Counter(row["page"] for row in train)
    known = {
        "device": {row["device"] for row in train} - {None},
        "page": {page for page, count in pages.items() if count >= 20},
        "tags": {tag for row in train for tag in split_tags(row["tags"])},
    }
    for name, values in known.items():
        assert set(dataset.vocabularies[name].ids.to_list()) - {None} == values
    rows = {n: dataset.vocabularies[n].ids.to_list().index for n in known}
    unknown: Counter[str] = Counter()
    for found, row in paired(dataset, log, part):
        for name in ("device", "page"):
            value = row[name]
            expected = rows[name](value) if value in known[name] else 0
            assert found[f"feature:{name}"] == expected
            unknown[name] += value is not None and not expected
        tags = split_tags(row["tags"])
        expected = [rows["tags"](tag) if tag in known["tags"] else 0 for tag in tags]
        assert found["feature:tags"] == expected
    if part == "test":
        assert unknown["device"] and unknown["page"]
    if part == "train":
        assert not unknown["device"]


@pytest.mark.parametrize("part", PARTS)
def test_hashed_context_has_one_row_per_value_and_none_for_a_missing_one(
    dataset, log, part
):
    rows = {
        row["hashed"]: found["feature:hashed"]
        for found, row in paired(dataset, log, "train")
    }
    assert rows.pop(None) == 0
    assert set(rows.values()) <= {1, 2, 3, 4, 5} and len(set(rows.values())) > 1
    for found, row in paired(dataset, log, part):
        assert found["feature:hashed"] == rows.get(row["hashed"], 0)


@pytest.mark.parametrize("part", PARTS)
def test_context_numbers_use_what_training_shows(dataset, log, part):
    prices = [r["price"] for r in parts_of(log)["train"] if r["price"] is not None]
    mean = sum(prices) / len(prices)
    scale = math.sqrt(sum((p - mean) ** 2 for p in prices) / (len(prices) - 1))
    missing = 0
    for found, row in paired(dataset, log, part):
        price = 0.0 if row["price"] is None else (row["price"] - mean) / scale
        assert found["feature:price"] == pytest.approx(price, rel=1e-5, abs=1e-6)
        assert found["feature:raw"] == (row["raw"] or 0.0)
        hour = row["hour"]
        bucket = 0 if hour is None else 1 + sum(hour >= b for b in (6, 12, 18))
        assert found["feature:hour"] == bucket
        missing += hour is None
    assert missing


def test_values_of_test_events_change_the_test_segment_alone(log, dataset, tmp_path):
    of_test = {id(row) for row in parts_of(log)["test"]}
    changed = {
        "device": "never seen",
        "page": "never seen",
        "hashed": "other",
        "tags": "never|seen",
        "price": 1e6,
        "raw": -1e6,
        "hour": 3,
    }
    rows = [row | changed if id(row) in of_test else row for row in log]
    path = write_log(tmp_path / "log.csv", rows)
    other = prepare(path, SCHEMA, tmp_path / "dataset", split=SPLIT)
    assert other.info.numbers == dataset.info.numbers
    assert differing(dataset, other) == ["events/00002.arrow"]
    for found in stored(other, "test"):
        assert found["feature:device"] == found["feature:page"] == 0
        assert found["feature:tags"] == [0, 0]


def differing(one: Dataset, other: Dataset) -> list[str]:
    """Arrow files that are not the same bytes in both datasets."""
    trees = [
        {p.relative_to(d.path).as_posix(): p.read_bytes() for p in files}
        for d in (one, other)
        for files in [d.path.rglob("*.arrow")]
    ]
    assert trees[0].keys() == trees[1].keys()
    return sorted(name for name in trees[0] if trees[0][name] != trees[1][name])


# --- histories --------------------------------------------------------------------


@pytest.mark.parametrize("session_only", [False, True])
@pytest.mark.parametrize("length", [1, 4])
def test_histories_of_a_loader_hold_strictly_earlier_events(
    dataset, log, length, session_only
):
    items = dataset.vocabularies["item"].ids.to_list()
    users = dataset.vocabularies["user"].ids.to_list()
    train = parts_of(log)["train"]
    source = TrainingExamples(
        dataset,
        options=ExampleOptions(history_length=length, session_only=session_only),
    )
    times = dataset.columns("train").column("timestamp_ms")
    loader = Loader(source, batch_size=16, seed=3, drop_remainder=False)
    seen = filled = 0
    for index in range(len(loader)):
        batch, rows = loader.batch(0, index), loader.indices(0, index)
        for n, row in enumerate(rows):
            user, time = users[batch["user_index"][n]], int(times[row])
            mine = [r for r in train if r["user"] == user and r["time"] * 1000 < time]
            mine.sort(key=lambda r: r["time"])
            newest = allowed(mine, time, session_only)[-length:]
            found = [items[i] for i in batch["history"][n] if i != -1]
            assert found == [r["item"] for r in newest]
            filled += bool(found)
            seen += 1
    assert seen == len(train) and filled > seen / 4


def allowed(mine: list[Row], time: int, session_only: bool) -> list[Row]:
    """Of earlier events in order of time, those of the session that `time` is in."""
    if not session_only:
        return mine
    kept: list[Row] = []
    for row in reversed(mine):
        if time - row["time"] * 1000 > GAP_MINUTES * 60_000:
            break
        kept.insert(0, row)
        time = row["time"] * 1000
    return kept


# --- how it was written makes no difference ---------------------------------------


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "BLOCK_ROWS", 64)


@pytest.mark.parametrize("memory_bytes", [1, 5_000, 30_000])
def test_a_log_that_exceeds_memory_gives_the_same_bytes(
    log, dataset, tmp_path, small_blocks, memory_bytes
):
    path = write_log(tmp_path / "log.csv", log)
    spilled = prepare(
        path,
        SCHEMA,
        tmp_path / "dataset",
        split=SPLIT,
        options=ReadOptions(memory_bytes=memory_bytes),
    )
    assert differing(dataset, spilled) == []
    assert spilled.info.fingerprint == dataset.info.fingerprint
    assert spilled.info.statistics == dataset.info.statistics
    assert not (spilled.path / "spill").exists()


def test_compressed_columns_are_equal(log, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(segments_module, "BATCH_ROWS", 100)
    path = write_log(tmp_path / "log.csv", log)
    packed = prepare(
        path, SCHEMA, tmp_path / "dataset", split=SPLIT, compression="zstd"
    )
    for part in PARTS:
        assert stored(packed, part) == stored(dataset, part)
        one, other = dataset.columns(part), packed.columns(part)
        rows = np.arange(len(one))
        expected, found = (c.take(rows, c.names) for c in (one, other))
        assert expected.keys() == found.keys() and len(found) == 13
        for name in found:
            assert found[name].dtype == expected[name].dtype
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 20_000))
def test_any_log_is_stored_alike_with_any_memory(tmp_path_factory, seed, memory):
    folder = tmp_path_factory.mktemp("any")
    path = write_log(folder / "log.csv", random_log(150, seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events_module, "BLOCK_ROWS", 16)
        one = prepare(path, SCHEMA, folder / "one", split=SPLIT)
        other = prepare(
            path,
            SCHEMA,
            folder / "other",
            split=SPLIT,
            options=ReadOptions(memory_bytes=memory),
        )
    assert differing(one, other) == []
    assert one.info.fingerprint == other.info.fingerprint

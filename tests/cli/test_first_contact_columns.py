"""Logs as people have them: what their columns mean, from `init` to `evaluate`.

Every log is small and made up; its shape is that of a public one.
"""

from __future__ import annotations

import math
import random
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from shortlist.data import Dataset

CHEAP = ("--set=retrieval.kind=item_knn", "--set=ranker.enabled=false")
T0 = 1_700_000_000


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, header: str, rows: Iterable[object]) -> str:
    Path(name).write_text("\n".join([header, *map(str, rows)]) + "\n")
    return name


def triples(
    users: int = 30, items: int = 24, each: int = 12, seed: int = 0
) -> list[tuple[int, int, int]]:
    """User, item and second; each user takes different items, all in order of time."""
    draw = random.Random(seed)
    taken = [(u, i) for u in range(users) for i in draw.sample(range(items), each)]
    draw.shuffle(taken)
    return [(u, i, T0 + 600 * n) for n, (u, i) in enumerate(taken)]


def recipe() -> dict[str, Any]:
    return tomllib.loads(Path("shortlist.toml").read_text())


def init(call, *arguments: str) -> Any:
    result = call("init", *arguments, "--json")
    assert result.code == 0, result.err
    return result.json


def run_all(call) -> tuple[Dataset, Any]:
    """From the recipe that is there to the metrics of a cheap model."""
    for command in ("prepare", "train"):
        result = call(command, *CHEAP)
        assert result.code == 0, result.err
    result = call("evaluate", *CHEAP, "--json")
    assert result.code == 0, result.err
    return Dataset.open("dataset"), result.json


def features(columns: dict[str, Any]) -> dict[str, tuple[str, str, bool]]:
    return {
        f["name"]: (f["owner"], f["kind"], f.get("from_log", False))
        for f in columns.get("features", [])
    }


def findings(call, *arguments: str) -> dict[str, dict[str, Any]]:
    result = call("check", *arguments, "--json")
    assert result.code == 0, result.err
    found = [finding["code"] for finding in result.json["findings"]]
    assert len(found) == len(set(found)), "one finding per kind"
    return {finding["code"]: finding for finding in result.json["findings"]}


# --- attributes inside the log ----------------------------------------------------


def test_a_flat_table_becomes_features_of_items_and_users(call) -> None:
    rows = [
        f"{u},{i},{t},Film {i},g{i % 3}|h{i % 4},{i + 0.5},{20 + u},{'MF'[u % 2]},"
        f"{'abc'[(u + i) % 3]}"
        for u, i, t in triples()
    ]
    log = write(
        "flat.csv",
        "user_id,item_id,timestamp,title,genres,price,age,gender,device",
        rows,
    )
    told = init(call, log)
    columns = recipe()["columns"]
    assert features(columns) == {
        "genres": ("item", "multi_valued", True),
        "price": ("item", "numeric", True),
        "age": ("user", "numeric", True),
        "gender": ("user", "categorical", True),
    }
    assert (columns["title"], columns["title_from_log"]) == ("title", True)
    assert told["columns"]["log"]["device"].startswith("Left out")
    assert told["warnings"] == []
    assert "order-not-time" not in findings(call)
    dataset, report = run_all(call)
    titles = dict(dataset.items.select("id", "title").rows())
    assert titles[7] == "Film 7"
    assert report["users"] > 0
    day = write(
        "day.csv",
        "user_id,item_id,timestamp,title,genres,price,age,gender,device",
        [
            f"{u},{u % 5},{T0 + 10**6 + u},Film {u % 5},g1|h1,9.5,30,M,a"
            for u in range(9)
        ],
    )
    appended = call("prepare", "--append", day, *CHEAP)
    assert appended.code == 0, appended.err


def test_the_newest_title_of_an_item_counts(call) -> None:
    rows = triples()
    old, new = rows[0][1], rows[-1][1]
    assert old != new
    log = write(
        "log.csv",
        "user,item,time,name",
        (f"{u},{i},{t},{'New' if t == rows[-1][2] else 'Old'} {i}" for u, i, t in rows),
    )
    init(call, log)
    assert recipe()["columns"]["title"] == "name"
    assert call("prepare").code == 0
    titles = dict(Dataset.open("dataset").items.select("id", "name").rows())
    assert (titles[old], titles[new]) == (f"Old {old}", f"New {new}")


def test_what_changes_from_event_to_event_is_no_attribute(call) -> None:
    draw = random.Random(1)
    rows = [
        f"{u},{i},{t},{draw.choice('abc')},{draw.random():.3f},{u}-{t // 60000},x,"
        f"{t // 3600 % 24}"
        for u, i, t in triples()
    ]
    log = write("log.csv", "user,item,time,panel,scroll,session,shop,hour", rows)
    told = init(call, log)
    assert features(recipe()["columns"]) == {}
    reasons = told["columns"]["log"]
    assert set(reasons) == {"panel", "scroll", "session", "shop", "hour"}
    assert told["warnings"] == []
    assert all(reason.startswith("Left out") for reason in reasons.values())
    assert "same value" in reasons["shop"]


def test_reasons_stand_beside_the_column_they_are_about(call) -> None:
    rows = [f"{u},{i},{t},Film {i},{i % 3 + 1}.5" for u, i, t in triples()]
    log = write("events.csv", "user_id,item_id,timestamp,title,price", rows)
    items = write(
        "items.csv",
        "item_id,title,price",
        (f"{i},Film {i},{i % 3 + 1}.5" for i in range(24)),
    )
    told = init(call, log, "--items", items)
    assert "items file" in told["columns"]["log"]["price"]
    assert told["columns"]["items"]["price"] == "Its values are quantities."
    text = Path("shortlist.toml").read_text()
    (line,) = (n for n in text.splitlines() if n.startswith("title ="))
    assert "Left out" not in line
    assert features(recipe()["columns"]) == {"price": ("item", "numeric", False)}
    rows = [f"{u}s{t % 3},{u},{i},{t}" for u, i, t in triples()]
    write("sessions.csv", "session_id,user_id,item_id,timestamp", rows)
    init(call, "sessions.csv", "--user", "session_id", "--overwrite")
    text = Path("shortlist.toml").read_text()
    assert 'user_id = "session_id"  # Given by the caller.\n' in text


# --- weights, ratings and event types ---------------------------------------------


@pytest.mark.parametrize("name", ["plays", "Hours", "listen_count", "Quantity"])
def test_amounts_are_offered_as_weights_and_weight_events_when_taken(
    call, name: str
) -> None:
    draw = random.Random(2)
    amounts = [draw.randint(1, 900) for _ in triples()]
    rows = [f"{u},{i},{t},{n}" for (u, i, t), n in zip(triples(), amounts, strict=True)]
    log = write("log.csv", f"user,artist,time,{name}", rows)
    told = init(call, log)
    assert "label" not in recipe()["columns"]
    (warning,) = told["warnings"]
    assert repr(name) in warning and f"--label {name}" in warning
    init(call, log, "--label", name, "--overwrite")
    columns = recipe()["columns"]
    assert (columns["label"], columns["label_kind"]) == (name, "implicit")
    assert (columns["weight"], columns["positive_from"]) == ("log", 1.0)
    assert call("prepare").code == 0
    stored = pl.concat([pl.read_ipc(f) for f in Path("dataset/events").iterdir()])
    expected = sorted(1 + math.log1p(n) for n in amounts)
    assert sorted(stored["weight"]) == pytest.approx(expected)


def test_a_log_of_plays_is_trained_with_its_weights(call) -> None:
    draw = random.Random(3)
    rows = [f"{u},{i},{draw.randint(1, 900)}" for u, i, _ in triples()]
    init(call, write("log.csv", "user,artist,plays", rows), "--label", "plays")
    _, report = run_all(call)
    assert report["metrics"]["model"]


@pytest.mark.parametrize(
    ("header", "values", "shown"),
    [
        ("feedback", ["like", "dislike"], "'like'"),
        ("opinion", ["good", "bad", "five"], "'good'"),
        ("rating", ["one", "two", "five"], "'five'"),
        ("stars", ["5,5", "3,0", "4"], "decimal commas"),
        ("score", ["7,5", "2,25"], "7.5"),
    ],
)
def test_ratings_that_are_not_read_are_said(call, header, values, shown) -> None:
    draw = random.Random(4)
    rows = [f"{u};{i};{t};{draw.choice(values)}" for u, i, t in triples()]
    told = init(call, write("log.csv", f"user;item;time;{header}", rows))
    assert "label" not in recipe()["columns"]
    (warning,) = told["warnings"]
    assert repr(header) in warning and shown in warning
    assert "not read" in warning


@pytest.mark.parametrize("header", ["vote", "reaction", "thumbs"])
def test_plus_and_minus_one_are_a_rating(call, header: str) -> None:
    draw = random.Random(5)
    rows = [f"{u},{i},{t},{draw.choice((-1, 1))}" for u, i, t in triples()]
    init(call, write("log.csv", f"user,item,time,{header}", rows))
    columns = recipe()["columns"]
    assert columns["label"] == header
    assert columns["positive_from"] == 1.0


@pytest.mark.parametrize("top", [5, 10])
def test_a_rating_of_0_below_a_scale_from_1_is_asked_about(call, top: int) -> None:
    draw = random.Random(6)
    rows = [
        f"{u},{i},{draw.choice([0, 0, 0, 0, *range(1, top + 1)])}"
        for u, i, _ in triples()
    ]
    told = init(call, write("log.csv", "user,isbn,Book-Rating", rows))
    assert any("does 0 mean no rating?" in warning for warning in told["warnings"])
    found = findings(call)["label-zero"]
    zeros = sum(row.endswith(",0") for row in rows)
    assert (found["severity"], found["count"]) == ("warning", zeros)
    assert found["column"] == "Book-Rating"


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("event_type", ["view", "cart", "purchase", "remove_from_cart"]),
        ("behavior_type", [1, 2, 3, 4]),
        ("event", ["view", "addtocart", "transaction"]),
        ("action", [0, 1]),
        ("type", ["click", "order"]),
        ("what_happened", ["add_to_cart", "buy", "pv"]),
    ],
)
def test_an_event_type_is_named_and_counted_and_no_rating(call, header, values) -> None:
    draw = random.Random(7)
    kinds = [draw.choice(values) for _ in triples()]
    rows = [f"{u},{i},{t},{k}" for (u, i, t), k in zip(triples(), kinds, strict=True)]
    told = init(call, write("log.csv", f"user,item,time,{header}", rows))
    columns = recipe()["columns"]
    assert "label" not in columns and columns["label_kind"] == "implicit"
    assert features(columns) == {}
    (warning,) = told["warnings"]
    for value in values:
        assert f"{value!r} {kinds.count(value)}" in warning


def test_a_type_of_the_item_is_its_attribute(call) -> None:
    rows = [f"{u},{i},{t},{'book film game'.split()[i % 3]}" for u, i, t in triples()]
    told = init(call, write("log.csv", "user,item,time,type", rows))
    assert features(recipe()["columns"]) == {"type": ("item", "categorical", True)}
    assert told["warnings"] == []


# --- order and repeats ------------------------------------------------------------


def sorted_rows(way: str) -> list[str]:
    draw = random.Random(8)
    rows = [(u, i) for u in range(40) for i in draw.sample(range(90), 15)]
    match way:
        case "ids":
            rows.sort()
        case "ids falling":
            rows.sort(key=lambda row: (row[0], -row[1]))
        case "by item":
            draw.shuffle(rows)
            order = draw.sample(range(90), 90)
            rows.sort(key=lambda row: order[row[1]])
        case "as numbers":
            rows.sort()
            return [f"u{u},item-{i}" for u, i in rows]
        case "as text":
            return sorted(f"u{u},item-{i}" for u, i in rows)
        case "not":
            draw.shuffle(rows)
        case "by user alone":
            pass
    return [f"{u},{i}" for u, i in rows]


@pytest.mark.parametrize(
    "way", ["ids", "ids falling", "by item", "as numbers", "as text"]
)
def test_a_sorted_file_without_times_is_a_problem_and_split_at_random(
    call, way: str
) -> None:
    log = write("log.csv", "user_id,item_id", sorted_rows(way))
    found = findings(call, log)["order-not-time"]
    assert found["severity"] == "problem"
    assert 'kind = "random"' in found["message"]
    told = init(call, log)
    assert recipe()["split"]["kind"] == told["split"] == "random"
    assert any("in the order of time, but" in warning for warning in told["warnings"])
    assert "order-not-time" not in findings(call)


@pytest.mark.parametrize("way", ["not", "by user alone"])
def test_a_file_in_any_other_order_is_not_called_sorted(call, way: str) -> None:
    log = write("log.csv", "user_id,item_id", sorted_rows(way))
    assert "order-not-time" not in findings(call, log)
    init(call, log)
    assert recipe()["split"]["kind"] == "last_fraction"


def test_a_sorted_file_is_measured_after_a_random_split(call) -> None:
    init(call, write("log.csv", "user_id,item_id", sorted_rows("ids")))
    _, report = run_all(call)
    # No taste at all: nothing is many times better than popularity.
    model, popular = (report["metrics"][m]["ndcg@10"] for m in ("model", "popularity"))
    assert model < 2 * popular


def test_a_log_of_repeats_is_a_problem_before_it_is_trained(call) -> None:
    rows = [
        f"u{u},i{u * 4 + k % 4},{T0 + 60 * (100 * k + u)}"
        for u in range(60)
        for k in range(20)
    ]
    log = write("log.csv", "user_id,item_id,timestamp", rows)
    found = findings(call, log)["only-repeats"]
    assert found["severity"] == "problem"
    assert "repeats = true under [evaluation] and [serving]" in found["message"]
    verdict = call("check", log).out.splitlines()[0]
    assert "not ready" in verdict and "only-repeats" in verdict
    told = init(call, log)
    assert any("repeats = true" in warning for warning in told["warnings"])
    assert recipe()["evaluation"]["repeats"] is True
    assert recipe()["serving"]["repeats"] is True
    assert "only-repeats" not in findings(call)
    _, report = run_all(call)
    # Each user takes four items in turn: lists of ten that keep them hold the next one.
    assert report["metrics"]["model"]["hit_rate@10"] > 0.9


# --- what `check` says ------------------------------------------------------------


def test_a_healthy_log_is_called_so_in_the_first_line(call) -> None:
    log = write("log.csv", "user,item,time", (f"{u},{i},{t}" for u, i, t in triples()))
    first, then, *_ = call("check", log).out.splitlines()
    assert first == (
        "This log can be trained on: 360 events of 30 users and 24 items. No problem"
        " was found."
    )
    assert then == "next: shortlist init log.csv"
    init(call, log)
    assert call("check").out.splitlines()[1] == "next: shortlist prepare"


@pytest.mark.parametrize("seed", range(3))
def test_random_events_do_not_drift(call, seed: int) -> None:
    draw = random.Random(seed)
    rows = sorted(
        (
            T0 + draw.randrange(40 * 86_400),
            draw.randrange(48),
            draw.randrange(60),
            draw.randint(1, 5),
        )
        for _ in range(960)
    )
    log = write(
        "log.csv", "time,user,item,rating", (",".join(map(str, r)) for r in rows)
    )
    found = findings(call, log)
    assert [f for f in found.values() if f["severity"] != "note"] == []
    assert "drift" not in found


def test_a_scale_that_changes_is_a_drift(call) -> None:
    draw = random.Random(0)
    rows = [
        f"{u},{i},{t},{draw.randint(1, 2) if n < 180 else draw.randint(4, 5)}"
        for n, (u, i, t) in enumerate(triples())
    ]
    found = findings(call, write("log.csv", "user,item,time,rating", rows))["drift"]
    assert found["severity"] == "warning"
    assert "label of the test events" in found["message"]


def test_daily_files_give_one_finding_with_a_total_and_the_worst_file(call) -> None:
    days = []
    for day in range(6):
        rows = [f"{u},{(u * 7 + day) % 24},{T0 + 86_400 * day + u}" for u in range(30)]
        bad = [f",{day},{T0 + 86_400 * day}"] * (3 if day == 4 else 1)
        days.append(write(f"day{day}.csv", "user,item,time", [*rows, *bad]))
    found = findings(call, *days)["rows-skipped"]
    assert (found["count"], found["file"], found["row"]) == (8, "day4.csv", 32)
    assert "6 files" in found["message"]
    init(call, "day0.csv")
    text = Path("shortlist.toml").read_text()
    named = f"events = {days[:5]}".replace("'", '"')
    Path("shortlist.toml").write_text(text.replace('events = "day0.csv"', named))
    done = call("prepare", "--on-error=skip")
    assert done.code == 0
    (line,) = done.err.splitlines()
    assert "7 rows were left out" in line and "file " in line and "day4.csv" in line
    appended = call("prepare", "--append", "day5.csv", "--on-error=skip", "--json")
    assert appended.code == 0
    (only,) = appended.json["findings"]
    assert only["count"] == 1 and only["file"].endswith("day5.csv")
    again = call("prepare", "--append", "day5.csv", "--on-error=skip")
    assert "2023-11-19T22:13:49Z" in again.err


def test_advice_fits_the_log(call) -> None:
    rows = [f"u{n},i{n % 9}" for n in range(60)]
    log = write("log.csv", "user,item", rows)
    found = findings(call, log)
    assert "time_cut" not in found["users-with-one-event"]["message"]
    assert "try kind = 'last_n'" not in found["empty-part"]["message"]


def test_ambiguity_names_five_columns_and_a_command(call) -> None:
    draw = random.Random(9)
    header = ",".join(f"c{n}" for n in range(90))
    rows = [",".join(str(draw.randrange(40)) for _ in range(90)) for _ in range(60)]
    result = call("init", write("log.csv", header, rows), "--label", "c5")
    assert result.code == 2
    assert result.err.count(" values)") == 5
    assert "and 84 more" in result.err
    assert "--label 'c5'" in result.err
    assert len(result.err) < 500 and "{" not in result.err
    command = result.err[result.err.index("For example: ") + 13 :].split(" (file")[0]
    assert call("init", "log.csv", *command.split()).code == 0

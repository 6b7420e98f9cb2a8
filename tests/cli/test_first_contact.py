"""Logs in the shapes people have them run through every command, untouched by hand.

Each shape holds the same 240 events of made-up ids. The recipe that `init` writes is
asserted, and that `check`, `prepare`, `train` and `evaluate` take it.
"""

from __future__ import annotations

import datetime as dt
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from shortlist.data import Dataset
from shortlist.recipe import Recipe, load_recipe

DAY = 86_400
START = 1_600_283_547  # 2020-09-16T19:12:27Z
USERS, ITEMS, EACH = 30, 20, 8
_DRAW = random.Random(7)
EVENTS = [
    (user, item, START + DAY * day + user)
    for user in range(USERS)
    for day, item in enumerate(_DRAW.sample(range(ITEMS), EACH))
]
"""User, item and seconds; no user takes an item twice."""
CHEAP = ["--set=retrieval.kind=item_knn", "--set=ranker.enabled=false"]


@dataclass(frozen=True)
class Shape:
    """Files, the arguments of `init`, and what the recipe must say.

    Args:
        files: content by name.
        log: what `[log]` must hold beside the names of the files.
        columns: the user, item, time and label columns.
        arguments: of `init`.
        ids: two users that the dataset must hold.
        items_log: what `[log.items_format]` must hold.
        events: number of events in the dataset.
        timed: whether the times are those of `EVENTS`, to the day.
    """

    files: dict[str, str | bytes]
    log: dict[str, Any] = field(default_factory=dict)
    columns: tuple[str, str, str | None] = ("user_id", "item_id", "timestamp")
    arguments: tuple[str, ...] = ()
    ids: tuple[Any, Any] = ("u0", "u29")
    items_log: dict[str, Any] = field(default_factory=dict)
    events: int = USERS * EACH
    timed: bool = True


Row = Callable[[int, int, int], str]


def lines(row: Row, header: str = "user_id,item_id,timestamp", end: str = "\n") -> str:
    rows = [row(*event) for event in EVENTS]
    return end.join([header, *rows] if header else rows) + end


def clock(seconds: int, form: str) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime(form)


def dated(form: str) -> str:
    return lines(lambda u, i, t: f'u{u},i{i},"{clock(t, form)}"')


def of_user(user: int, place: int = 1) -> list[int]:
    return [event[place] for event in EVENTS if event[0] == user]


def plain(u: int, i: int, t: int) -> str:
    return f"u{u},i{i},{t}"


CSV = {"layout": "csv"}
NAMELESS = {"layout": "csv", "has_header": False}
UNTIMED = ("user_id", "item_id", None)
NUMBERS = (0, 29)
SEPARATED = ("user", "item", "time")
ITEMS_FILE = "item_id,title,price\n" + "".join(
    f"i{n},Caf\xe9 {n},{n}.5\n" for n in range(ITEMS)
)


def separated(mark: str) -> str:
    return lines(
        lambda u, i, t: mark.join((f"u{u}", f"i{i}", str(t))), mark.join(SEPARATED)
    )


SHAPES = {
    "no header": Shape(
        {
            "log.csv": lines(
                lambda u, i, t: f"s{u},{clock(t, '%Y-%m-%dT%H:%M:%SZ')},{i},0", ""
            )
        },
        NAMELESS | {"column_names": ["user_id", "timestamp", "item_id", "column_4"]},
        ids=("s0", "s29"),
    ),
    "pairs with a blank": Shape(
        {"log.txt": lines(lambda u, i, t: f"{u} {i}", "")},
        NAMELESS | {"separator": " ", "column_names": ["user_id", "item_id"]},
        UNTIMED,
        ids=NUMBERS,
    ),
    "pairs without numbers": Shape(
        {"log.csv": lines(lambda u, i, t: f"u{u},i{i}", "")},
        NAMELESS | {"column_names": ["user_id", "item_id"]},
        UNTIMED,
    ),
    "a line per user": Shape(
        {
            "log.txt": "".join(
                f"{u} {' '.join(map(str, of_user(u)[: 3 + u % 6]))} \n"
                for u in range(USERS)
            )
        },
        {"layout": "sequences", "separator": " "},
        UNTIMED,
        ids=NUMBERS,
        events=sum(3 + u % 6 for u in range(USERS)),
    ),
    "a line per user with tabs": Shape(
        {
            "log.tsv": "".join(
                "\t".join(map(str, [u, *of_user(u)[: 3 + u % 6]])) + "\n"
                for u in range(USERS)
            )
        },
        {"layout": "sequences", "separator": "\t"},
        UNTIMED,
        ids=NUMBERS,
        events=sum(3 + u % 6 for u in range(USERS)),
    ),
    "row names of R": Shape(
        {
            "log.csv": '"user_id","item_id","timestamp"\n'
            + "".join(
                f'"{n}","u{u}","i{i}",{t}\n' for n, (u, i, t) in enumerate(EVENTS)
            )
        },
        CSV,
    ),
    "semicolons": Shape({"log.csv": separated(";")}, CSV, SEPARATED),
    "the separator in a line of its own": Shape(
        {"log.csv": "sep=;\r\n" + separated(";").replace("\n", "\r\n")}, CSV, SEPARATED
    ),
    "bars": Shape({"log.csv": separated("|")}, CSV, SEPARATED),
    "tabs": Shape({"log.csv": separated("\t")}, {"layout": "tsv"}, SEPARATED),
    "two colons": Shape(
        {"log.dat": separated("::")}, CSV | {"separator": "::"}, SEPARATED
    ),
    "blanks": Shape({"log.txt": separated(" ")}, CSV | {"separator": " "}, SEPARATED),
    "lists of events": Shape(
        {
            "log.jsonl": "".join(
                json.dumps(
                    {
                        "session": u,
                        "events": [
                            {"aid": i, "ts": t * 1000, "type": "clicks"}
                            for user, i, t in EVENTS
                            if user == u
                        ],
                    }
                )
                + "\n"
                for u in range(USERS)
            )
        },
        {"layout": "ndjson", "unroll": ["events"]},
        ("session", "aid", "ts"),
        ("--user", "session", "--item", "aid"),
        NUMBERS,
    ),
    "parallel lists": Shape(
        {
            "log.jsonl": "".join(
                json.dumps({"user_id": u, "items": of_user(u), "times": of_user(u, 2)})
                + "\n"
                for u in range(USERS)
            )
        },
        {"layout": "ndjson", "unroll": ["items", "times"]},
        ("user_id", "items", "times"),
        ids=NUMBERS,
    ),
    "a list in a cell": Shape(
        {
            "log.csv": "user_id,items\n"
            + "".join(f'u{u},"{of_user(u)}"\n' for u in range(USERS))
        },
        CSV | {"unroll": ["items"]},
        ("user_id", "items", None),
    ),
    "floats and an index": Shape(
        {
            "log.csv": lines(
                lambda u, i, t: f"{u * EACH},{u}.0,{i}.0,{t}",
                ",user_id,item_id,timestamp",
            )
        },
        CSV,
        ids=NUMBERS,
    ),
    "ids beyond 64 bits": Shape(
        {
            "log.csv": lines(
                lambda u, i, t: f"{u},{2**64 + u},{i},{t}",
                "Unnamed: 0,user_id,item_id,timestamp",
            )
        },
        CSV,
        ids=("18446744073709551616", "18446744073709551645"),
    ),
    "blanks after commas": Shape(
        {
            "log.csv": lines(
                lambda u, i, t: f"u{u}, i{i}, {t}", "user_id, item_id, timestamp"
            )
        },
        CSV,
    ),
    "latin-1": Shape(
        {"log.csv": lines(lambda u, i, t: f"Jos\xe9{u},i{i},{t}").encode("latin-1")},
        CSV | {"encoding": "latin-1"},
        ids=("Jos\xe90", "Jos\xe929"),
    ),
    "cp1252": Shape(
        {"log.csv": lines(lambda u, i, t: f"\u2019t Hof{u},i{i},{t}").encode("cp1252")},
        CSV | {"encoding": "cp1252"},
        ids=("\u2019t Hof0", "\u2019t Hof29"),
    ),
    "utf-16 and Windows": Shape(
        {"log.csv": lines(plain, end="\r\n").encode("utf-16")},
        CSV | {"encoding": "utf-16"},
    ),
    "days in digits": Shape(
        {"log.csv": dated("%Y%m%d")}, CSV | {"timestamp_format": "%Y%m%d"}
    ),
    "moments in digits": Shape(
        {"log.csv": dated("%Y%m%d%H%M%S")}, CSV | {"timestamp_format": "%Y%m%d%H%M%S"}
    ),
    "European days": Shape(
        {"log.csv": dated("%d.%m.%Y")}, CSV | {"timestamp_format": "%d.%m.%Y"}
    ),
    "American minutes": Shape(
        {"log.csv": dated("%m/%d/%Y %H:%M")},
        CSV | {"timestamp_format": "%m/%d/%Y %H:%M"},
    ),
    "web server": Shape(
        {"log.csv": dated("%d/%b/%Y:%H:%M:%S +0000")},
        CSV | {"timestamp_format": "%d/%B/%Y:%H:%M:%S %z"},
    ),
    "UTC at the end": Shape({"log.csv": dated("%Y-%m-%d %H:%M:%S UTC")}, CSV),
    "missing ids as text": Shape(
        {"log.csv": lines(lambda u, i, t: f"{'NULL' if u == 3 else f'u{u}'},i{i},{t}")},
        CSV | {"null_values": ["NULL"], "on_error": "skip"},
        events=(USERS - 1) * EACH,
    ),
    "one bad time": Shape(
        {
            "log.csv": lines(
                lambda u, i, t: f"u{u},i{i},{'n/a' if (u, i) == EVENTS[9][:2] else t}"
            )
        },
        CSV | {"on_error": "skip"},
        events=USERS * EACH - 1,
    ),
    "times all 0": Shape(
        {"log.tsv": lines(lambda u, i, t: f"{u}\t{i}\t1\t0", "")},
        {"layout": "movielens-100k"},
        UNTIMED,
        ids=NUMBERS,
    ),
    "a file a day": Shape(
        {
            f"day{n}.csv": "user_id,item_id,timestamp\n"
            + "".join(
                f"u{u},i{i},{t}\n" for u, i, t in EVENTS if (t - START) // DAY == n
            )
            for n in range(EACH)
        },
        CSV,
    ),
    "items in Latin-1, one twice": Shape(
        {
            "log.csv": lines(plain),
            "items.csv": (ITEMS_FILE + "i3,Last,9.5\n").encode("latin-1"),
        },
        CSV,
        arguments=("--items", "items.csv"),
        items_log={"encoding": "latin-1", "repeated_ids": "last"},
    ),
    "items with bare quotes": Shape(
        {
            "log.csv": lines(plain),
            "items.tsv": "item_id\tname\n"
            + "".join(f'i{n}\t"Weird {n}" Al\n' for n in range(ITEMS)),
        },
        CSV,
        arguments=("--items", "items.tsv"),
        items_log={"quote_char": ""},
    ),
    "typed headers": Shape(
        {
            "log.inter": lines(
                lambda u, i, t: f"{u}\t{i}\t{1 + i % 5}\t{t}.0",
                "user_id:token\titem_id:token\trating:float\ttimestamp:float",
            ),
            "items.item": "item_id:token\tclass:token_seq\tyear:token\n"
            + "".join(
                f"{n}\t{'xy'[n % 2]} {'zw'[n % 3 == 0]}\t{1990 + n % 4}\n"
                for n in range(ITEMS)
            ),
        },
        {"layout": "tsv"},
        ("user_id:token", "item_id:token", "timestamp:float"),
        ("--items", "items.item"),
        NUMBERS,
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_init_writes_a_recipe_that_reads_the_log(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    shape = SHAPES[name]
    monkeypatch.chdir(tmp_path)
    for file, content in shape.files.items():
        Path(file).write_bytes(
            content.encode() if isinstance(content, str) else content
        )
    logs = [file for file in shape.files if not file.startswith("items")]
    started = call("init", *logs, *shape.arguments)
    assert started.code == 0, started.err
    recipe = load_recipe("shortlist.toml")
    assert_recipe(recipe, shape, logs)
    checked = call("check", "--recipe", "shortlist.toml", "--json")
    assert checked.code == 0, checked.err
    assert checked.json["counts"]["events"] == shape.events
    prepared = call("prepare")
    assert prepared.code == 0, prepared.err
    assert_dataset(Dataset.open("dataset"), shape)
    trained = call("train", *CHEAP)
    assert trained.code == 0, trained.err
    evaluated = call("evaluate", *CHEAP, "--json")
    assert evaluated.code == 0, evaluated.err
    assert 0 <= evaluated.json["metrics"]["model"]["ndcg@10"] <= 1


def assert_recipe(recipe: Recipe, shape: Shape, logs: list[str]) -> None:
    """The recipe says what the shape needs and nothing else."""
    written = recipe.log.model_dump(exclude_unset=True)
    assert written.pop("events") == (logs[0] if len(logs) == 1 else logs)
    items_format = written.pop("items_format", {})
    for name in ("items", "items_id"):
        written.pop(name, None)
    assert written == shape.log
    assert items_format == shape.items_log
    schema = recipe.columns
    assert (schema.user_id, schema.item_id, schema.timestamp) == shape.columns


def assert_dataset(dataset: Dataset, shape: Shape) -> None:
    """All events and ids are there, each by the value it has."""
    assert dataset.info.statistics["events"] == shape.events
    users = dataset.vocabularies["user"]
    assert all(user in users.ids.to_list() for user in shape.ids)
    assert users.ids.dtype == (pl.Int64 if isinstance(shape.ids[0], int) else pl.String)
    if shape.columns[2] is not None:
        first, last = (
            dataset.info.statistics[f"{end}_timestamp_ms"] // 1000 // DAY
            for end in ("first", "last")
        )
        assert (first, last) == (START // DAY, (START + DAY * (EACH - 1)) // DAY)


def test_an_ambiguous_day_is_asked_for_with_the_commands_that_settle_it(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(
        f"u{n % 5},i{n % 7},0{1 + n % 9}/0{1 + n % 8}/2020\n" for n in range(60)
    )
    Path("log.csv").write_text("user_id,item_id,timestamp\n" + rows)
    refused = call("init", "log.csv")
    assert refused.code == 2
    assert "--set 'log.timestamp_format=%d/%m/%Y'" in refused.err
    assert not Path("shortlist.toml").exists()
    assert call("init", "log.csv", "--set", "log.timestamp_format=%m/%d/%Y").code == 0
    assert load_recipe("shortlist.toml").log.timestamp_format == "%m/%d/%Y"
    assert call("prepare").code == 0
    statistics = Dataset.open("dataset").info.statistics
    assert clock(statistics["last_timestamp_ms"] // 1000, "%m-%d") == "09-06"


def test_one_finding_a_kind_and_an_append_tells_of_its_own_day(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = SHAPES["a file a day"].files
    for name, content in files.items():
        assert isinstance(content, str)
        extra = ",i1,1600300000\n" * (2 if name == "day4.csv" else 1)
        Path(name).write_text(content + extra)
    *days, new = files
    assert call("init", *days).code == 0
    prepared = call("prepare", "--on-error", "skip", "--json")
    assert [f["count"] for f in prepared.json["findings"]] == [8]
    assert "8 rows were left out in 7 files, 2 of them in this one" in prepared.err
    assert "(file day4.csv" in prepared.err.replace(f"{tmp_path}/", "")
    appended = call("prepare", "--append", new, "--set=log.on_error=skip", "--json")
    assert appended.code == 0, appended.err
    assert [f["count"] for f in appended.json["findings"]] == [1]


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"s1,2020-09-16T19:12:27Z,37\ns2,2020-09-16T19:13:27Z,38\n", "log-no-header",
         "has_header = false"),
        ("user,item\nJos\xe9,1\nAnn,2\n".encode("latin-1"), "log-encoding",
         'encoding = "latin-1"'),
        ("user,item\nBob,1\nAnn,2\n".encode("utf-16"), "log-encoding",
         'encoding = "utf-16"'),
        (b'user\titem\nBob\t"Weird" Al\nAnn\t"x"\n', "log-quotes", 'quote_char = ""'),
    ],
)  # fmt: skip
def test_what_a_recipe_does_not_say_is_refused_with_the_setting_that_reads_it(
    call, tmp_path: Path, content: bytes, code: str, words: str
) -> None:
    (tmp_path / "log.csv").write_bytes(content)
    (tmp_path / "shortlist.toml").write_text(
        '[log]\nevents = "log.csv"\n[columns]\nuser_id = "user"\nitem_id = "item"\n'
    )
    result = call("prepare", "--recipe", tmp_path / "shortlist.toml", "--json")
    assert (result.code, result.json["error"]["code"]) == (2, code)
    assert words in result.json["error"]["message"]
    assert not (tmp_path / "dataset").exists()


def test_init_finds_what_prepare_would_refuse_in_an_attribute_file(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text(lines(plain) + "u1,i1,1600300000,more\n")
    rows = "".join(f"i{n},T{n},{n}.5\n" for n in range(ITEMS))
    rows += "i5,Again,1.5\nNULL,None,2.5\ni6,Wide,3.5,4\n"
    Path("items.csv").write_text("item_id,title,price\n" + rows)
    started = call("init", "log.csv", "--items", "items.csv", "--json")
    assert started.code == 0, started.err
    assert started.json["reading"]["on_error"] == (
        "1 row has too many fields in log.csv. 1 row has too many fields in items.csv."
        " 1 row has no id in items.csv."
    )
    log = load_recipe("shortlist.toml").log
    assert log.on_error == "skip" and log.null_values == []
    assert log.items_format.null_values == ["NULL"]
    assert log.items_format.repeated_ids == "last"
    prepared = call("prepare", "--json")
    assert prepared.code == 0, prepared.err
    dataset = Dataset.open("dataset")
    assert dataset.info.statistics["events"] == USERS * EACH
    titles = dict(dataset.items.select("id", "title").rows())
    assert (titles["i5"], titles["i6"], titles["i7"]) == ("Again", "T6", "T7")


def test_lines_of_utf8_among_damaged_ones_are_not_taken_for_latin_1(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good = lines(lambda u, i, t: f"Jos\xe9{u},i{i},{t}").encode()
    Path("log.csv").write_bytes(good + "Jos\xe9,i1,1600300000\n".encode("latin-1"))
    refused = call("init", "log.csv", "--json")
    assert refused.code == 2
    error = refused.json["error"]
    assert (error["code"], error["row"]) == ("log-encoding", USERS * EACH + 2)


def test_the_user_may_name_the_columns_of_a_file_without_a_header(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("log.csv").write_text(lines(lambda u, i, t: f"{i},{u},{t}", ""))
    assert call("init", "log.csv", "--user", "column_2", "--item", "column_1").code == 0
    recipe = load_recipe("shortlist.toml")
    assert recipe.log.column_names == ["item_id", "user_id", "timestamp"]
    assert call("prepare").code == 0
    assert Dataset.open("dataset").info.statistics["users"] == USERS


@pytest.mark.parametrize("column", ["user_id", "item_id", "timestamp", "rating"])
def test_init_finds_empty_values_that_prepare_would_refuse(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["user_id", "item_id", "timestamp", "rating"]
    rows = [
        [f"u{n % 40}", f"i{n * 7 % 30}", str(1_700_000_000 + n), str(1 + n % 5)]
        for n in range(400)
    ]
    rows[17][names.index(column)] = ""
    lines = [",".join(row) for row in [names, *rows]]
    Path("log.csv").write_text("\n".join(lines) + "\n")
    result = call("init", "log.csv")
    assert result.code == 0, result.err
    assert f"1 of 400 values of '{column}' are empty" in result.out
    assert 'on_error = "skip"' in Path("shortlist.toml").read_text()
    prepared = call("prepare", "--json")
    assert prepared.code == 0, prepared.err
    assert prepared.json["statistics"]["events"] == 399


def test_a_column_that_one_of_several_files_lacks_is_not_used(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for day, extra in ((1, ""), (2, ",red")):
        lines = ["user_id,item_id,timestamp" + (",color" if extra else "")]
        lines += [
            f"u{n % 40},i{n * 7 % 30},{1_700_000_000 + 86_400 * day + n}{extra}"
            for n in range(300)
        ]
        Path(f"day{day}.csv").write_text("\n".join(lines) + "\n")
    checked = call("check", "day1.csv", "day2.csv")
    assert checked.code == 0, checked.err
    assert "next: shortlist init day1.csv day2.csv" in checked.out
    written = call("init", "day1.csv", "day2.csv")
    assert written.code == 0
    assert "color: Left out: day1.csv does not have this column." in written.out
    assert load_recipe("shortlist.toml").columns.features == ()
    assert call("prepare").code == 0


def test_init_uses_or_refuses_every_setting_it_is_given(
    call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f"u{n % 40},i{n * 7 % 30},{1_700_000_000 + n}" for n in range(300)]
    Path("log.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(lines))
    refused = call("init", "log.csv", "--set", "log.test_events='test.csv'")
    assert refused.code == 2 and "log.test_events" in refused.err
    assert not Path("shortlist.toml").exists()
    assert call("init", "log.csv", "--set", "log.on_error=skip").code == 0
    assert 'on_error = "skip"' in Path("shortlist.toml").read_text()

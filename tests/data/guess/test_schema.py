"""The guessed schema of known logs, and refusals where nothing can be told."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path

import polars as pl
import pytest

from log_events import read_events
from shortlist.data import Feature, FileFormat, LogFiles, ReadOptions, guess_schema
from shortlist.data.guess.roles import NO_TIMES, name_score
from shortlist.data.preparation.attribute_file import read_attributes
from shortlist.data.read.text.layouts import GENRES
from shortlist.errors import LogError

USERS, ITEMS, EVENTS = 40, 60, 600
MULTI = Feature(name="genres", owner="item", kind="multi_valued", separator="|")


def rows(seed: int = 0) -> list[tuple[int, int, int, int]]:
    """User, item, rating 1 to 5 and time; every user and item is there."""
    draw = random.Random(seed)
    return [
        (
            n % USERS + 1,
            n % ITEMS + 1 if n < ITEMS else draw.randint(1, ITEMS),
            draw.randint(1, 5),
            978_300_000 + draw.randint(0, 10**7),
        )
        for n in range(EVENTS)
    ]


def genres(item: int) -> list[str]:
    return [GENRES[1 + item % 6], GENRES[8 + item % 5]]


def write(tmp_path: Path, name: str, lines: list[str]) -> Path:
    path = tmp_path / name
    path.write_bytes(("\n".join(lines) + "\n").encode("latin-1"))
    return path


def joined(mark: str, header: str | None = None) -> list[str]:
    lines = [mark.join(map(str, row)) for row in rows()]
    return lines if header is None else [header, *lines]


def kinds(features: tuple[Feature, ...]) -> dict[str, str]:
    return {feature.name: feature.kind for feature in features}


def test_movielens_100k(tmp_path: Path) -> None:
    data = write(tmp_path, "u.data", joined("\t"))
    jobs = ["artist", "writer", "other", "doctor"]
    users = [
        f"{n}|{18 + n}|{'MF'[n % 2]}|{jobs[n % 4]}|{n * 1371:05}"
        for n in range(1, USERS + 1)
    ]
    items = [
        f"{n}|Film, The nº {n} (1995)|01-Jan-1995||http://x/{n}|"
        + "|".join(str(int(genre in genres(n))) for genre in GENRES)
        for n in range(1, ITEMS + 1)
    ]
    user, item = write(tmp_path, "u.user", users), write(tmp_path, "u.item", items)
    guess = guess_schema(LogFiles(data, users=user, items=item))
    schema = guess.schema
    assert guess.layout == "movielens-100k"
    assert guess.num_rows == EVENTS
    assert (guess.users_id, guess.items_id) == ("user_id", "item_id")
    assert (schema.user_id, schema.item_id) == ("user_id", "item_id")
    assert (schema.timestamp, schema.label) == ("timestamp", "rating")
    assert schema.label_kind == "explicit"
    assert (schema.positive_from, schema.label_min, schema.label_max) == (4, 1, 5)
    assert schema.title == "title"
    assert kinds(schema.features) == {
        "age": "numeric",
        "gender": "categorical",
        "occupation": "categorical",
        "genres": "multi_valued",
    }
    assert MULTI in schema.features
    left_out = ["zip_code", "release_date", "video_release_date", "imdb_url"]
    reasons = {**guess.columns["users"], **guess.columns["items"]}
    assert all(reasons[name].startswith("Left out") for name in left_out)
    assert guess.warnings == ()


def test_movielens_1m(tmp_path: Path) -> None:
    data = write(tmp_path, "ratings.dat", joined("::"))
    users = [
        f"{n}::{'MF'[n % 2]}::{(1, 18, 25, 35)[n % 4]}::{n % 21}::{n * 1371:05}"
        for n in range(1, USERS + 1)
    ]
    items = [f"{n}::Film {n}::{'|'.join(genres(n))}" for n in range(1, ITEMS + 1)]
    guess = guess_schema(
        LogFiles(
            data,
            users=write(tmp_path, "users.dat", users),
            items=write(tmp_path, "movies.dat", items),
        )
    )
    assert guess.layout == "movielens-dat"
    assert guess.schema.label_kind == "explicit"
    assert guess.schema.title == "title"
    assert kinds(guess.schema.features) == {
        "gender": "categorical",
        "age": "numeric",
        "occupation": "categorical",
        "genres": "multi_valued",
    }


def test_movielens_25m(tmp_path: Path) -> None:
    lines = ["userId,movieId,rating,timestamp"]
    lines += [f"{u},{i},{r - 0.5},{t}" for u, i, r, t in rows()]
    movies = ["movieId,title,genres"]
    movies += [
        f'{n},"Film, The {n}",{"|".join(genres(n)) if n % 9 else "(no genres listed)"}'
        for n in range(1, ITEMS + 1)
    ]
    guess = guess_schema(
        LogFiles(
            write(tmp_path, "ratings.csv", lines),
            items=write(tmp_path, "movies.csv", movies),
        )
    )
    schema = guess.schema
    assert (schema.user_id, schema.item_id) == ("userId", "movieId")
    assert (schema.label_min, schema.label_max, schema.positive_from) == (0.5, 5, 4)
    assert schema.features == (MULTI,)
    assert schema.title == "title"
    assert (guess.users_id, guess.items_id) == (None, "movieId")


@pytest.mark.parametrize(
    "header", ["who;what;stars;when", "customerNo;SKU;Score;created_at"]
)
def test_renamed_columns_are_known_by_name(tmp_path: Path, header: str) -> None:
    user, item, label, time = header.split(";")
    path = write(tmp_path, "log.csv", joined(";", header))
    schema = guess_schema(path).schema
    assert (schema.user_id, schema.item_id) == (user, item)
    assert (schema.label, schema.timestamp) == (label, time)
    assert len(read_events(path, schema)) == EVENTS


def test_unknown_names_are_known_by_content_once_the_user_is_given(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, "log.csv", joined(",", "a,b,c,d"))
    guess = guess_schema(path, user_id="a")
    schema = guess.schema
    assert (schema.user_id, schema.item_id) == ("a", "b")
    assert (schema.label, schema.timestamp) == ("c", "d")
    assert guess.reasons["user_id"] == "Given by the caller."
    assert "times since 1990" in guess.reasons["timestamp"]
    other = guess_schema(path, user_id="b", item_id="a", label="c", timestamp="d")
    assert (other.schema.user_id, other.schema.item_id) == ("b", "a")


def test_user_and_item_that_cannot_be_told_apart_are_asked_for(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, "log.csv", joined(",", "a,b,c,d"))
    with pytest.raises(LogError) as caught:
        guess_schema(path)
    error = caught.value
    assert error.code == "guess-ambiguous"
    assert error.file == str(path)
    assert f"'a' ({USERS} values), 'b' ({ITEMS} values)" in error.message
    assert "Pass --user COLUMN and --item COLUMN." in error.message
    with pytest.raises(LogError, match="must be two columns"):
        guess_schema(path, user_id="a", item_id="a")
    with pytest.raises(LogError, match=r"--user must name a column.*'x'"):
        guess_schema(path, user_id="x")


def test_attribute_files_tell_user_and_item_apart(tmp_path: Path) -> None:
    lines = ["a,b,c,d", *(f"u{u},i{i},{r},{t}" for u, i, r, t in rows())]
    path = write(tmp_path, "log.csv", lines)
    users = ["key,plan"] + [f"u{n},{'free' if n % 3 else 'paid'}" for n in range(1, 41)]
    guess = guess_schema(LogFiles(path, users=write(tmp_path, "users.csv", users)))
    assert (guess.schema.user_id, guess.schema.item_id) == ("a", "b")
    assert guess.users_id == "key"
    assert kinds(guess.schema.features) == {"plan": "categorical"}
    table, _ = read_attributes(tmp_path / "users.csv", "key", ["plan"])
    assert table.height == USERS


def test_attribute_file_without_the_ids_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", joined(",", "user,item,stars,time"))
    items = write(tmp_path, "items.csv", ["color,size", "red,1", "red,1"])
    with pytest.raises(LogError, match="Rename the one with the ids to 'item'") as e:
        guess_schema(LogFiles(path, items=items))
    assert (e.value.code, e.value.file) == ("guess-ambiguous", str(items))


def test_few_known_ids_give_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", joined(",", "user,item,stars,time"))
    items = write(tmp_path, "items.csv", ["item,color", "1,red", "2,blue", "3,red"])
    assert guess_schema(LogFiles(path, items=items)).warnings == (
        "Only 5% of the log's items are in items.csv.",
    )


@pytest.mark.parametrize(
    ("values", "kind", "limits", "positive"),
    [
        ([0, 1], "binary", (0, 1), 1),
        ([1], "implicit", (None, None), 1),
        ([1, 2, 3, 4, 5], "explicit", (1, 5), 4),
        ([0.5, 3.0, 4.5], "explicit", (0.5, 5), 4),
        ([0, 2, 5], "explicit", (0, 5), 4),
        ([1, 7, 10], "explicit", (1, 10), 8),
        ([1, 2, 3, 4, 5, 6], "explicit", (1, 10), 5),
        ([0, 50, 85, 100], "explicit", (0, 100), 80),
        ([-1, 1], "explicit", (None, None), 1),
        ([1, 30, 700, 2500], "implicit", (None, None), 1),
    ],
)
def test_label_kind_limits_and_positives(
    tmp_path: Path,
    values: list[float],
    kind: str,
    limits: tuple[float | None, float | None],
    positive: float,
) -> None:
    lines = ["user,item,rating"]
    lines += [f"{n % 9},{n % 7},{values[n % len(values)]}" for n in range(200)]
    guess = guess_schema(write(tmp_path, "log.csv", lines))
    schema = guess.schema
    assert schema.label_kind == kind
    assert (schema.label_min, schema.label_max) == limits
    assert schema.positive_from == positive
    assert schema.label == (None if kind == "implicit" else "rating")
    assert any("keep their order in the file" in text for text in guess.warnings)


def test_other_columns_are_left_out_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame(
        {
            "event_type": ["view", "buy"] * 10,
            "customer_id": [str(n % 5) for n in range(20)],
            "product_id": list(range(20)),
            "ts": pl.Series([0, 1] * 10).cast(pl.Datetime("ms")),
        }
    ).write_parquet(path)
    guess = guess_schema(path)
    schema = guess.schema
    assert guess.layout == "parquet"
    assert (schema.user_id, schema.item_id) == ("customer_id", "product_id")
    assert (schema.timestamp, schema.label) == ("ts", None)
    assert schema.label_kind == "implicit"
    assert guess.columns["log"]["event_type"].startswith("Left out")


def test_attribute_columns_by_content(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", joined(",", "user,item,stars,time"))
    frame = pl.DataFrame({"item": range(1, 61)}).with_columns(
        price=pl.col("item") * 1.25,
        brand_id=pl.col("item") % 7,
        views=pl.col("item") * 1000 % 977,
        serial=pl.col("item") + 10**6,
        name=pl.format("Thing, {}", "item"),
        tags=pl.format("t{}, t{}", pl.col("item") % 5, pl.col("item") % 3),
        words=pl.concat_list(pl.lit("a"), pl.lit("b")),
        shop=pl.lit("same"),
        history=pl.col("item") % 3,
        url=pl.format("http://x/{}", "item"),
        empty=pl.lit(None, pl.String),
        sold=pl.col("item") % 2 == 0,
        added=pl.lit("2024-01-01").str.to_date(),
    )
    items = tmp_path / "items.parquet"
    frame.write_parquet(items)
    guess = guess_schema(LogFiles(path, items=items))
    assert kinds(guess.schema.features) == {
        "price": "numeric",
        "brand_id": "categorical",
        "views": "categorical",
        "serial": "categorical",
        "tags": "multi_valued",
        "words": "multi_valued",
        "sold": "categorical",
    }
    assert guess.schema.title == "name"
    assert next(f for f in guess.schema.features if f.name == "tags").separator == ","
    reasons = guess.columns["items"]
    left_out = {n for n, why in reasons.items() if why.startswith("Left out")}
    assert left_out == {"shop", "history", "url", "empty", "added"}


def test_a_feature_name_is_used_once(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", joined(",", "user,item,stars,time"))
    users = ["user,country"] + [f"{n},{'AB'[n % 2]}" for n in range(1, 41)]
    items = ["item,country"] + [f"{n},{'AB'[n % 2]}" for n in range(1, 61)]
    schema = guess_schema(
        LogFiles(
            path,
            users=write(tmp_path, "users.csv", users),
            items=write(tmp_path, "items.csv", items),
        )
    ).schema
    assert [(f.name, f.owner) for f in schema.features] == [("country", "user")]


def test_empty_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="no row below the header") as caught:
        guess_schema(write(tmp_path, "log.csv", ["user,item,stars"]))
    assert caught.value.code == "log-empty"


@pytest.mark.parametrize(
    ("name", "role", "score"),
    [
        ("userId", "user_id", 2),
        ("user_id:token", "user_id", 2),
        ("UID", "user_id", 2),
        ("reviewerID", "user_id", 2),
        ("user_since", "user_id", 1),
        ("movieid", "item_id", 2),
        ("asin", "item_id", 2),
        ("event_time", "timestamp", 1),
        ("id", "item_id", 0),
        ("color", "item_id", 0),
    ],
)
def test_names_fit_roles_wholly_in_part_or_not(
    name: str, role: str, score: int
) -> None:
    assert name_score(name, role) == score


def test_a_time_that_cannot_be_read_is_warned_of(tmp_path: Path) -> None:
    rows = [f"u{i % 7},i{i % 5},KW {1 + i % 28:02} 2020" for i in range(60)]
    (tmp_path / "log.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
    guess = guess_schema(tmp_path / "log.csv")
    assert guess.schema.timestamp is None
    assert any("'time' is named as a time" in warning for warning in guess.warnings)
    assert any("'KW 01 2020'" in warning for warning in guess.warnings)
    assert guess.events_per_user == 9.0


def test_a_quantity_is_no_rating(tmp_path: Path) -> None:
    rows = [f"u{i % 7},i{i % 5},{1 + i % 5}" for i in range(60)]
    (tmp_path / "log.csv").write_text("user,item,Qty\n" + "\n".join(rows) + "\n")
    assert guess_schema(tmp_path / "log.csv").schema.label is None


@pytest.mark.parametrize(
    ("names", "title"),
    [
        (["original_title", "title"], "title"),
        (["name", "title"], "title"),
        (["author_name", "product_name"], "product_name"),
        (["title_en", "name"], "name"),
        (["caption", "headline"], "headline"),
        (["description"], "description"),
    ],
)
def test_the_title_is_the_text_that_is_called_so(
    tmp_path: Path, names: list[str], title: str
) -> None:
    path = write(tmp_path, "log.csv", joined(",", "user,item,stars,time"))
    lines = [",".join(["item", *names])]
    lines += [",".join([str(n), *(f"{name} {n}" for name in names)]) for n in range(60)]
    guess = guess_schema(LogFiles(path, items=write(tmp_path, "items.csv", lines)))
    assert guess.schema.title == title
    assert guess.columns["items"][title].startswith("The title")


def test_codes_and_moments_are_no_features(tmp_path: Path) -> None:
    path = write(tmp_path, "log.csv", joined(",", "user,item,stars,time"))
    frame = pl.DataFrame({"item": range(60)}).with_columns(
        isbn13=pl.col("item") * 1.0 + 9_780_000_000_000,
        ean=pl.col("item") + 10**12,
        group=pl.col("item") % 4 + 2_053_013_555_631_882_655,
        created_at=pl.col("item") % 3 * 1_000 + 1_600_000_000,
        added_on=pl.format("2020-01-0{}", pl.col("item") % 5 + 1),
        budget=pl.col("item") * 10**8,
        release_year=pl.col("item") % 30 + 1990,
        tags=pl.format("t{} , t{}", pl.col("item") % 5, pl.col("item") % 3),
    )
    items = tmp_path / "items.csv"
    frame.write_csv(items)
    guess = guess_schema(LogFiles(path, items=items))
    assert kinds(guess.schema.features) == {
        "group": "categorical",
        "budget": "numeric",
        "release_year": "numeric",
        "tags": "multi_valued",
    }
    reasons = guess.columns["items"]
    assert "codes" in reasons["isbn13"] and "codes" in reasons["ean"]
    assert "a time" in reasons["created_at"] and "a time" in reasons["added_on"]
    assert reasons["tags"].startswith("5 values")


@pytest.mark.parametrize(
    ("header", "row", "user", "item"),
    [
        ("session_id,aid,site,ts", "{u},{i},1,{t}", "session_id", "aid"),
        ("SessionId,ItemId,Time", "{u},{i},{t}", "SessionId", "ItemId"),
        ("CustomerID,StockCode,when", "{u},{i}A,{t}", "CustomerID", "StockCode"),
        ("visit,user_id,sku,ts", "{t},{u},{i},{t}", "user_id", "sku"),
    ],
)
def test_users_and_items_of_shops_and_sessions(
    tmp_path: Path, header: str, row: str, user: str, item: str
) -> None:
    lines = [header, *(row.format(u=u, i=i, t=t) for u, i, _, t in rows())]
    schema = guess_schema(write(tmp_path, "log.csv", lines)).schema
    assert (schema.user_id, schema.item_id) == (user, item)


def test_the_scale_and_the_reason_say_the_same(tmp_path: Path) -> None:
    lines = ["user,item,EVENT_VALUE,time"]
    lines += [f"{u},{i},{2 * r - 1},{t}" for u, i, r, t in rows()]
    guess = guess_schema(write(tmp_path, "log.csv", lines))
    assert guess.reasons["label"] == "It holds 5 different numbers, 1 to 9."
    assert guess.reasons["label_kind"] == "Its 5 values fit a scale of 1 to 10."


def test_types_that_prepare_refuses_are_left_out(tmp_path: Path) -> None:
    ids = pl.DataFrame({"user": [n % 40 for n in range(240)]}).with_columns(
        item=pl.Series([n % 12 for n in range(240)])
    )
    frame = ids.with_columns(
        price=pl.when(pl.col("item") % 3 == 0).then(float("inf")).otherwise(1.5),
        parts=pl.concat_list(pl.struct("item")),
        raw=pl.format("{}", pl.col("item") % 2).cast(pl.Binary),
        spent=pl.duration(days=pl.col("item") % 2),
        words=pl.concat_list(pl.format("w{}", pl.col("item") % 3)),
    )
    frame.write_parquet(tmp_path / "log.parquet")
    guess = guess_schema(tmp_path / "log.parquet")
    assert kinds(guess.schema.features) == {"words": "multi_valued"}
    assert all(
        guess.columns["log"][name].startswith("Left out")
        for name in ("price", "parts", "raw", "spent")
    )


def test_prices_with_decimal_commas_are_no_lists(tmp_path: Path) -> None:
    log = write(tmp_path, "log.csv", joined(",", "user_id,item_id,rating,timestamp"))
    prices = [f'{item},"{item % 7},5{item % 3}"' for item in range(1, ITEMS + 1)]
    items = write(tmp_path, "items.csv", ["item_id,price", *prices])
    guess = guess_schema(LogFiles(log, items=items))
    assert guess.schema.features == ()
    assert "decimal commas, such as '1,51'" in guess.columns["items"]["price"]
    assert "Write 1.51" in guess.columns["items"]["price"]


def test_of_a_day_and_a_moment_the_moment_is_the_time(tmp_path: Path) -> None:
    lines = [
        f"{user},{item},2001-01-0{1 + time % 9},{time}"
        for user, item, _, time in rows()
    ]
    log = write(tmp_path, "log.csv", ["user_id,item_id,date,timestamp", *lines])
    guess = guess_schema(log)
    assert guess.schema.timestamp == "timestamp"
    assert any("--timestamp date" in warning for warning in guess.warnings)


def dated_log(folder: Path, first: str, second: str) -> Path:
    """A log with two columns of dates; which of them is the time is not in a name."""
    rows = [
        f"u{n % 5},i{n % 7},{moment.strftime(first)},{moment.strftime(second)}"
        for n in range(60)
        for moment in [dt.datetime(2020, 1 + n % 9, 1 + n % 20, n % 24, n, 0)]
    ]
    return write(folder, "log.csv", ["user,item,a,b", *rows])


@pytest.mark.parametrize(
    ("form", "column"),
    [("%d.%m.%Y at %H:%M", "b"), ("%Y|%m|%d", "a"), ("%d/%m/%Y %H", "a")],
)
def test_a_given_time_format_finds_the_time_column(
    tmp_path: Path, form: str, column: str
) -> None:
    forms = (form, "%j") if column == "a" else ("%j", form)
    path = dated_log(tmp_path, *forms)
    options = ReadOptions(format=FileFormat(timestamp_format=form))
    guess = guess_schema(path, options=options)
    assert guess.schema.timestamp == column
    assert guess.format.timestamp_format == form
    assert form in guess.reasons["timestamp"]
    assert NO_TIMES not in guess.warnings


def test_a_given_time_format_decides_between_columns_named_as_times(
    tmp_path: Path,
) -> None:
    days = [1 + n % 28 for n in range(60)]
    rows = [f"u{d % 5},i{d % 7},2020-01-{d:02},{d}|1|2020" for d in days]
    path = write(tmp_path, "log.csv", ["user,item,date,timestamp", *rows])
    assert guess_schema(path).schema.timestamp == "date"
    options = ReadOptions(format=FileFormat(timestamp_format="%d|%m|%Y"))
    assert guess_schema(path, options=options).schema.timestamp == "timestamp"


@pytest.mark.parametrize("given", [None, "b", "user"])
def test_a_time_format_that_fits_no_column_is_refused(
    tmp_path: Path, given: str | None
) -> None:
    path = dated_log(tmp_path, "%Y-%m-%d", "%j")
    options = ReadOptions(format=FileFormat(timestamp_format="%d|%m|%Y"))
    with pytest.raises(LogError, match="does not fit most values") as caught:
        guess_schema(path, timestamp=given, options=options)
    assert (caught.value.code, caught.value.column) == ("log-time-type", given)
    assert "%d|%m|%Y" in caught.value.message


def test_times_that_are_not_in_the_given_format_are_counted(tmp_path: Path) -> None:
    path = dated_log(tmp_path, "%d|%m|%Y", "%j")
    path.write_text(path.read_text() + "u1,i2,unknown,7\n")
    options = ReadOptions(format=FileFormat(timestamp_format="%d|%m|%Y"))
    guess = guess_schema(path, timestamp="a", options=options)
    told = "1 of 61 times cannot be read, such as 'unknown'"
    assert any(told in warning for warning in guess.warnings)
    assert "on_error" in guess.format_reasons


@pytest.mark.parametrize("column", ["who", "thing", "sku"])
def test_one_column_for_user_and_item_is_refused_with_a_command_that_works(
    tmp_path: Path, column: str
) -> None:
    rows = [f"w{n % 5},t{n % 7},s{n % 11}" for n in range(80)]
    path = write(tmp_path, "log.csv", ["who,thing,sku", *rows])
    with pytest.raises(LogError, match="must be two columns") as caught:
        guess_schema(path, user_id=column, item_id=column)
    flags = caught.value.message.split("For example: ")[1].split()
    user, item = flags[1], flags[3]
    assert user != item and column in (user, item)
    schema = guess_schema(path, user_id=user, item_id=item).schema
    assert (schema.user_id, schema.item_id) == (user, item)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_columns_that_only_some_files_have_are_named(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    extra = ["device", "shop", None]
    paths = []
    for number, name in enumerate(extra):
        rows = [f"u{n % 5},i{n % 7},{1_600_000_000 + n}" for n in range(40)]
        header = "user,item,time"
        if name:
            header, rows = f"{header},{name}", [f"{row},{name}1" for row in rows]
        paths.append(write(tmp_path, f"day{number}.csv", [header, *rows]))
    guess = guess_schema([paths[place] for place in order])
    assert guess.schema.timestamp == "time"
    for name, file in (("device", {"day1", "day2"}), ("shop", {"day0", "day2"})):
        reason = guess.columns["log"][name]
        assert "does not have this column" in reason
        assert any(f"{stem}.csv" in reason for stem in file)


@pytest.mark.parametrize("missing", ["user", "item", "time"])
@pytest.mark.parametrize("last", [True, False])
def test_a_file_without_a_column_that_is_needed_is_refused(
    tmp_path: Path, missing: str, last: bool
) -> None:
    names = ["user", "item", "time", "shop"]
    paths = []
    for number in range(2):
        kept = [n for n in names if not (number == last and n == missing)]
        values = {"user": "u{}", "item": "i{}", "time": "16000000{:02}", "shop": "s{}"}
        numbers = [10 + k % 40 for k in range(80)]
        rows = [",".join(values[n].format(k) for n in kept) for k in numbers]
        paths.append(write(tmp_path, f"day{number}.csv", [",".join(kept), *rows]))
    with pytest.raises(LogError, match=f"must have a column '{missing}'") as caught:
        guess_schema(paths)
    assert caught.value.code == "log-column-missing"
    assert caught.value.file == str(paths[last])

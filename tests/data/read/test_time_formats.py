"""Times that are neither numbers since 1970 nor ISO: read where they are clear."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from log_events import read_events
from shortlist.data import FileFormat, Schema
from shortlist.data.guess.time_columns import guess_times
from shortlist.data.read.blocks import ReadState, read_blocks
from shortlist.data.read.time_formats import (
    check_format,
    compact_format,
    find_format,
    parse_times,
)
from shortlist.data.read.validate import iso_to_ms
from shortlist.errors import InputError, LogError

SCHEMA = Schema(user_id="user", item_id="item", timestamp="time")
MOMENTS = [
    dt.datetime(2020, 9, 16, 19, 12, 27, tzinfo=dt.UTC),
    dt.datetime(2019, 2, 3, 4, 5, 6, tzinfo=dt.UTC),
    dt.datetime(2021, 12, 31, 23, 59, 59, tzinfo=dt.UTC),
]


def series(*texts: str) -> pl.Series:
    return pl.Series("time", texts)


def log(tmp_path: Path, *times: str) -> Path:
    path = tmp_path / "log.csv"
    rows = "".join(f'{n},{n + 1},"{time}"\n' for n, time in enumerate(times))
    path.write_text("user,item,time\n" + rows)
    return path


@pytest.mark.parametrize(
    ("form", "written"),
    [
        ("%d.%m.%Y %H:%M:%S", None),
        ("%d-%m-%Y %H:%M:%S", None),
        ("%m/%d/%Y %H:%M:%S", None),
        ("%Y/%m/%d %H:%M:%S", None),
        ("%d.%m.%y %H:%M:%S", None),
        ("%Y%m%d%H%M%S", None),
        ("%d/%b/%Y:%H:%M:%S +0000", "%d/%B/%Y:%H:%M:%S %z"),
        ("[%d/%b/%Y:%H:%M:%S +0000]", "[%d/%B/%Y:%H:%M:%S %z]"),
        ("%d %B %Y %H:%M:%S", None),
        ("%d-%b-%Y %H:%M:%S", "%d-%B-%Y %H:%M:%S"),
        ("%b %d, %Y %I:%M:%S %p", "%B %d, %Y %I:%M:%S %p"),
        ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d %B %Y %H:%M:%S %Z"),
        ("%a %b %d %H:%M:%S +0000 %Y", "%A %B %e %H:%M:%S %z %Y"),
        ("%m/%d/%Y %I:%M:%S %p", None),
        ("%Y-%m-%d %H:%M:%S.%f +0000", "%Y-%m-%d %H:%M:%S%.f %z"),
        ("%Y%m%dT%H%M%SZ", "%Y%m%dT%H%M%S%Z"),
        ("%Y%m%dT%H%M%S+0000", "%Y%m%dT%H%M%S%z"),
        ("%Y%m%d-%H:%M:%S", None),
        ("%Y%m%d_%H%M%S", None),
        ("%d.%m.%Y %H.%M.%S", None),
    ],
)
def test_a_column_is_read_in_the_format_it_is_written_in(
    tmp_path: Path, form: str, written: str | None
) -> None:
    texts = [moment.strftime(form) for moment in MOMENTS]
    assert find_format(series(*texts)).formats == (written or form,)
    events = read_events(log(tmp_path, *texts), SCHEMA)
    expected = [moment.timestamp() * 1000 for moment in MOMENTS]
    assert events["timestamp_ms"].to_list() == expected
    given = FileFormat(
        timestamp_format=form.replace("GMT", "%Z")
        .replace("+0000", "%z")
        .replace("SZ", "S%Z")
    )
    again = read_events(log(tmp_path, *texts), SCHEMA, layout=given)
    assert again["timestamp_ms"].to_list() == expected


@pytest.mark.parametrize(
    ("texts", "form", "first"),
    [
        (["2020-09-13 12", "2020-09-14 07"], "%Y-%m-%d %H", "2020-09-13T12:00"),
        (["2020-09-13T07Z", "2020-09-14T23Z"], "%Y-%m-%dT%H%Z", "2020-09-13T07:00"),
        (["2020/09/13 7", "2020/09/14 23"], "%Y/%m/%d %H", "2020-09-13T07:00"),
        (["13.09.2020 7", "14.09.2020 15"], "%d.%m.%Y %H", "2020-09-13T07:00"),
        (["09/13/2020 7 PM", "09/14/2020 11 AM"], "%m/%d/%Y %I %p", "2020-09-13T19:00"),
        (["2020-09-13 12+0200"] * 2, "%Y-%m-%d %H%z", "2020-09-13T10:00"),
        (["20200913T12", "20200914T23"], "%Y%m%dT%H", "2020-09-13T12:00"),
        (["20200913T1226", "20200914T0105"], "%Y%m%dT%H%M", "2020-09-13T12:26"),
        (["20200913 122640.5"] * 2, "%Y%m%d %H%M%S%.f", "2020-09-13T12:26:40.5"),
        (
            ["13.09.2020 07.30", "14.09.2020 18.05"],
            "%d.%m.%Y %H.%M",
            "2020-09-13T07:30",
        ),
        (
            ["13/09/2020 07h30", "14/09/2020 18h05"],
            "%d/%m/%Y %Hh%M",
            "2020-09-13T07:30",
        ),
    ],
)
def test_clocks_of_hours_alone_without_colons_or_with_dots(
    tmp_path: Path, texts: list[str], form: str, first: str
) -> None:
    assert find_format(series(*texts)).formats == (form,)
    expected = round(dt.datetime.fromisoformat(f"{first}+00:00").timestamp() * 1000)
    assert read_events(log(tmp_path, *texts), SCHEMA)["timestamp_ms"][0] == expected
    given = FileFormat(timestamp_format=form)
    again = read_events(log(tmp_path, *texts), SCHEMA, layout=given)
    assert again["timestamp_ms"][0] == expected


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2020-09-13T12:26:40Z[UTC]", "2020-09-13T12:26:40Z"),
        ("2020-09-13T12:26:40[UTC]", "2020-09-13T12:26:40Z"),
        ("2020-09-13T12:26:40.5+02:00[Europe/Berlin]", "2020-09-13T12:26:40.5+02:00"),
        ("2020-09-13T12:26-05:00[America/New_York]", "2020-09-13T12:26-05:00"),
        ("2020-09-13T12:26:40Z", "2020-09-13T12:26:40Z"),
    ],
)
def test_the_name_of_a_zone_behind_its_offset_changes_nothing(
    text: str, same: str
) -> None:
    expected = round(dt.datetime.fromisoformat(same).timestamp() * 1000)
    assert iso_to_ms(series(text, "x")).to_list() == [expected, None]


def test_a_zone_that_is_only_a_name_is_not_read_as_utc() -> None:
    texts = series("2020-09-13T12:26:40[Europe/Berlin]", "2020-09-13T12:26:40[CET]")
    assert iso_to_ms(texts).null_count() == 2
    assert find_format(texts).formats == ()


@pytest.mark.parametrize(
    ("form", "unit"),
    [("%Y%m%d", dt.timedelta(days=1)), ("%Y%m%d%H", dt.timedelta(hours=1))],
)
@pytest.mark.parametrize("dtype", [pl.Int64, pl.Float64, pl.UInt32])
def test_dates_in_digits_are_days_in_typed_files_too(
    tmp_path: Path, form: str, unit: dt.timedelta, dtype: type[pl.DataType]
) -> None:
    digits = [int(moment.strftime(form)) for moment in MOMENTS]
    frame = pl.DataFrame({"user": [1, 2, 3], "item": [4, 5, 6], "time": digits})
    frame.cast({"time": dtype}).write_parquet(tmp_path / "log")
    found = read_events(tmp_path / "log", SCHEMA)["timestamp_ms"].to_list()
    step = int(unit.total_seconds() * 1000)
    assert found == [int(m.timestamp() * 1000) // step * step for m in MOMENTS]


def test_numbers_since_1970_are_no_dates_in_digits() -> None:
    for numbers in ([1_600_283_547, 1_600_283_548], [1_600_283_547_000], [20_201_301]):
        assert compact_format(pl.Series(numbers)) is None
    assert compact_format(pl.Series([20_200_916.5])) is None
    assert compact_format(pl.Series([], dtype=pl.Int64)) is None


def test_a_day_over_12_decides_and_nothing_else() -> None:
    assert find_format(series("01/02/2020", "13/02/2020")).formats == ("%d/%m/%Y",)
    assert find_format(series("01/02/2020", "02/13/2020")).formats == ("%m/%d/%Y",)
    both = ("%d/%m/%Y", "%m/%d/%Y")
    assert find_format(series("01/02/2020", "02/01/2020")).formats == both
    # The same day either way.
    assert find_format(series("01.01.2020", "02.02.2020")).formats == ("%d.%m.%Y",)
    # A year of two digits may stand first, but not in the future.
    assert find_format(series("16.09.20", "31.12.21")).formats == ("%d.%m.%y",)


def test_a_day_that_cannot_be_told_from_a_month_is_refused(tmp_path: Path) -> None:
    path = log(tmp_path, "01/02/2020 10:00", "03/04/2020 11:00")
    with pytest.raises(LogError) as caught:
        read_events(path, SCHEMA)
    assert caught.value.code == "log-time-ambiguous"
    assert caught.value.row == 2
    assert '"%d/%m/%Y %H:%M" or "%m/%d/%Y %H:%M"' in caught.value.message
    american = FileFormat(timestamp_format="%m/%d/%Y %H:%M")
    found = read_events(path, SCHEMA, layout=american)["timestamp_ms"]
    expected = dt.datetime(2020, 1, 2, 10, tzinfo=dt.UTC).timestamp() * 1000
    assert found[0] == expected


def test_the_first_file_decides_for_those_after_it(tmp_path: Path) -> None:
    first = log(tmp_path, "13.02.2020").rename(tmp_path / "a.csv")
    second = log(tmp_path, "01.02.2020")
    found = read_events([first, second], SCHEMA)["timestamp_ms"].to_list()
    assert found[1] == dt.datetime(2020, 2, 1, tzinfo=dt.UTC).timestamp() * 1000


def test_one_bad_time_is_a_bad_row(tmp_path: Path) -> None:
    times = [f"{day}.02.2020" for day in range(1, 29)]
    path = log(tmp_path, *times, "soon")
    with pytest.raises(LogError, match="timestamp_format says, '%d.%m.%Y'") as caught:
        read_events(path, SCHEMA)
    assert (caught.value.code, caught.value.row) == ("log-time-type", 30)
    blocks = list(read_blocks(path, SCHEMA, ReadState(), on_error="skip"))
    assert sum(len(block.events) for block in blocks) == 28


@pytest.mark.parametrize("form", ["", "hello", "%H:%M", "%d.%m.%Q", "100 %"])
def test_a_format_without_a_day_is_refused(form: str) -> None:
    with pytest.raises(InputError, match="timestamp_format") as caught:
        check_format(form)
    assert caught.value.code == "file-format"


def test_seconds_may_be_a_format(tmp_path: Path) -> None:
    check_format("%s")
    found = parse_times(series("1600283547.25", "x"), "%s").to_list()
    assert found == [1_600_283_547_250, None]


def test_what_a_column_says_of_itself() -> None:
    times = [str(1_600_000_000 + n) for n in range(300)]
    found = guess_times(pl.Series("time", [*times, "n/a"]))
    assert found.share > 0.99 and (found.unread, found.example) == (1, "n/a")
    dated = [f"{1 + n % 28:02}.09.2020" for n in range(60)]
    found = guess_times(pl.Series("time", [*dated, "later"]))
    assert (found.formats, found.example) == (("%d.%m.%Y",), "later")
    assert guess_times(pl.Series("n", [1, 2, 3])).share == 0
    assert guess_times(pl.Series("t", ["u1", "u2"])).share == 0
    assert guess_times(pl.Series("t", [0, 0, 0])).same

"""No text of a log becomes a formula in a spreadsheet, and none is lost."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.data import ReadOptions, Schema, prepare
from shortlist.data.read.rejected import without_formulas

BAD = ["=cmd|' /C calc'!A0", "+1+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1"]


def test_formulas_get_an_apostrophe_and_numbers_stay() -> None:
    kept = ["-5", "+1.5", "-1e3", "a=b", "", None]
    frame = pl.DataFrame({"value": [*BAD, *kept], "n": range(len(BAD) + len(kept))})
    found = without_formulas(frame)["value"].to_list()
    assert found == [*("'" + text for text in BAD), *kept]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.sampled_from("'=+-@\t1ab")), min_size=1))
def test_one_apostrophe_less_is_what_was_there(texts: list[str]) -> None:
    found = without_formulas(pl.DataFrame({"value": texts}))["value"].to_list()
    assert [text.removeprefix("'") if text != old else old
            for text, old in zip(found, texts)] == texts  # fmt: skip
    assert not any(text.startswith("'") and text == old
                   for text, old in zip(found, texts))  # fmt: skip


def test_rejected_rows_can_be_read_again(tmp_path: Path) -> None:
    rows = "".join(f"u{n % 5},i{n % 7},{1_600_000_000 + n}\n" for n in range(40))
    bad = "\"=cmd|' /C calc'!A0\"", "-7 h", '"two\nlines"'
    rows += "".join(f"u1,i1,{value}\n" for value in bad)
    (tmp_path / "log.csv").write_text("user,item,time\n" + rows)
    schema = Schema(user_id="user", item_id="item", timestamp="time")
    prepare(
        tmp_path / "log.csv",
        schema,
        tmp_path / "out",
        options=ReadOptions(on_error="skip"),
    )
    table = pl.read_csv(tmp_path / "out" / "rejected.csv")
    expected = ["'=cmd|' /C calc'!A0", "'-7 h", "two\nlines"]
    assert table["value"].to_list() == expected
    assert table["row"].to_list() == [42, 43, 44]

"""Makes a dataset such as tests/golden/dataset-v2, which is kept as it was made.

    python tests/golden_dataset.py FOLDER

makes FOLDER with a dataset in it. A golden dataset is never made again: a new format
gets a new one.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import msgspec

from shortlist.data import (
    Feature,
    LogFiles,
    ReadOptions,
    Schema,
    Split,
    append,
    prepare,
)
from shortlist.data.store.dataset_info import write_info

SCHEMA = Schema(
    user_id="user",
    item_id="item",
    timestamp="time",
    label="plays",
    positive_from=1.0,
    weight="linear",
    weight_alpha=0.5,
    session_gap_minutes=30.0,
    item_max_size=3,
    title="name",
    features=(
        Feature(name="age", owner="user", kind="bucketized", boundaries=(20.0, 40.0)),
        Feature(name="genres", owner="item", kind="multi_valued"),
        Feature(name="artist", owner="item", kind="categorical", hash_buckets=8),
        Feature(name="price", owner="item", kind="numeric"),
        Feature(name="device", owner="context", kind="categorical", oov_buckets=2),
        Feature(name="tags", owner="context", kind="multi_valued", separator=","),
    ),
)
HEADER = "user;item;time;plays;device;tags\n"
# Item 40 is one more than item_max_size; the row without an item is set aside.
LOG = """\
ann;10;1700000000;1;web;a,b
ann;20;1700000060;3;web;a
ann;30;1700010000;2;tv;
bob;10;1700000100;1;tv;b
bob;20;1700000200;0;tv;b
bob;30;1700000300;5;;a,c
ann;;1700020000;1;web;a
cid;10;1700020100;2;web;c
cid;20;1700020200;1;web;a
ann;40;1700020300;1;tv;b
bob;10;1700030000;4;phone;d
dan;50;1700040000;1;web;a
"""
NEXT_DAY = """\
ann;50;1700100000;1;web;a
dan;10;1700100100;2;radio;b
eve;60;1700100200;3;tv;a,e
"""
USERS = "user,age\nann,19\nbob,40\ncid,\ndan,33\neve,71\n"
ITEMS = """\
item,name,genres,artist,price
10,Ten,rock|pop,X,1
20,Twenty,pop,Y,2
30,Thirty,,X,6
40,Forty,jazz,Z,9
50,Fifty,rock,,
60,Sixty,rock,W,4
"""


def make(folder: Path) -> None:
    """Makes `dataset` in an empty folder."""
    files = {"log.csv": HEADER + LOG, "next.csv": HEADER + NEXT_DAY}
    files |= {"users.csv": USERS, "items.csv": ITEMS}
    with contextlib.chdir(folder):
        for name, text in files.items():
            Path(name).write_text(text, encoding="utf-8")
        prepare(
            LogFiles("log.csv", users="users.csv", items="items.csv"),
            SCHEMA,
            "dataset",
            split=Split(
                kind="time_cut",
                validation_from="2023-11-15T03:00:00Z",
                test_from="2023-11-15T06:00:00Z",
            ),
            options=ReadOptions(on_error="skip"),
        )
        dataset = append(
            "dataset", LogFiles("next.csv", users="users.csv", items="items.csv")
        )
        # Where it was made is nobody's business.
        log, attributes = (
            tuple(
                msgspec.structs.replace(old, path=Path(old.path).name, modified_ns=0)
                for old in stamps
            )
            for stamps in (dataset.info.log, dataset.info.attributes)
        )
        info = msgspec.structs.replace(dataset.info, log=log, attributes=attributes)
        write_info(Path("dataset"), info)


if __name__ == "__main__":
    made = Path(sys.argv[1])
    made.mkdir()
    make(made)

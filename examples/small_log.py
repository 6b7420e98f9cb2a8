"""A small prepared dataset from a generated log, used by the other examples."""

from pathlib import Path

from shortlist.data import Dataset, Feature, LogFiles, Schema, Split, prepare
from shortlist.public_data.synthetic import SyntheticLog, generate

SCHEMA = Schema(
    user_id="user_id",
    item_id="item_id",
    timestamp="timestamp_ms",
    label="rating",
    label_kind="explicit",
    positive_from=4,
    label_min=1,
    label_max=5,
    features=(
        Feature(name="segment", owner="user", kind="categorical"),
        Feature(name="category", owner="item", kind="categorical"),
        Feature(name="price", owner="item", kind="numeric"),
    ),
)


def prepared(folder: Path) -> Dataset:
    """LOG -> DATASET: 300 users, 150 items; the newest 20 % per user are the test."""
    log = generate(SyntheticLog(num_users=300, num_items=150, num_events=12_000))
    for table in ("events", "users", "items"):
        log.write_csv(folder / f"{table}.csv", table)
    return prepare(
        LogFiles(
            folder / "events.csv",
            users=folder / "users.csv",
            items=folder / "items.csv",
        ),
        SCHEMA,
        folder / "dataset",
        split=Split(kind="last_fraction", test=0.2, validation=0.1),
    )

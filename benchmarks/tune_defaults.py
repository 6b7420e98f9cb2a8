"""Compares defaults of the two-tower model and the ranker on validation parts.

Run by hand, with the folder of the logs. Trains every combination of the values in
`RETRIEVAL` and `RANKER` on three logs and prints the validation metric of the best
epoch. The test part is never measured. `docs/models.md` has the table and the choice.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shortlist.data import Dataset, FileFormat, ReadOptions, Schema, Split, prepare
from shortlist.evaluation import ranking_metrics
from shortlist.public_data.logs import fetch
from shortlist.recipe import build_recipe
from shortlist.training import train

RETRIEVAL = {"temperature": [0.1, 0.2], "dropout": [0.0, 0.4]}
RANKER = {"dropout": [0.0, 0.2]}
USERS = 8_000
"""Users of the Amazon log; the others are left out."""


def main() -> None:
    """Prints one line for each log, model and combination."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="holds Beauty.txt and lastfm-data1.txt"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for dataset in datasets(arguments.folder, Path(scratch)):
            for stage, grid, metric in (
                ("retrieval", RETRIEVAL, "val_ndcg@10"),
                ("ranker", RANKER, "val_loss"),
            ):
                for seed, *values in itertools.product(arguments.seeds, *grid.values()):
                    options = dict(zip(grid, values, strict=True))
                    figures = trained(dataset, Path(scratch), stage, options, seed)
                    best = (max if stage == "retrieval" else min)(figures[metric])
                    name, shown = dataset.path.name, round(best, 4)
                    print(name, stage, options, seed, metric, shown, flush=True)


def datasets(folder: Path, scratch: Path) -> Iterator[Dataset]:
    """MovieLens-100K, Amazon Beauty and Last.FM, prepared without features."""
    schema = Schema(user_id="user_id", item_id="item_id", timestamp="timestamp")
    newest = Split(kind="last_n", test=1, validation=1)
    yield prepare(
        fetch("ml-100k").events,
        schema,
        scratch / "ml-100k",
        split=Split(kind="last_fraction", test=0.2, validation=0.1),
    )
    beauty = scratch / "beauty.txt"
    lines = (folder / "Beauty.txt").read_text().splitlines(keepends=True)
    beauty.write_text("".join(lines[:USERS]))
    by_order = Schema(user_id="user_id", item_id="item_id")
    sequences = ReadOptions(format="sequences")
    yield prepare(beauty, by_order, scratch / "beauty", split=newest, options=sequences)
    yield prepare(
        folder / "lastfm-data1.txt",
        by_order,
        scratch / "lastfm",
        split=Split(kind="random", test=0.1, validation=0.1),
        options=ReadOptions(
            format=FileFormat(
                separator="\t",
                has_header=False,
                column_names=["user_id", "item_id", "weight"],
            )
        ),
    )


def trained(
    dataset: Dataset,
    scratch: Path,
    stage: str,
    options: dict[str, Any],
    seed: int,
) -> dict[str, list[float]]:
    """The metrics of every epoch of one stage, by name."""
    fixed: dict[str, Any] = {
        "retrieval": {"kind": "two_tower"},
        "ranker": {"enabled": False},
    }
    if stage == "ranker":
        fixed = {"retrieval": {"kind": "popularity"}, "ranker": {}}
    fixed[stage] |= options
    recipe = build_recipe(
        {
            "seed": seed,
            "log": {"events": "log"},
            "columns": dataset.schema,
            **fixed,
        }
    )
    run = train(
        dataset,
        scratch / "run",
        recipe,
        validate=ranking_metrics,
        overwrite=True,
        quiet=True,
    )
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in lines]
    return {name: [e[name] for e in epochs if name in e] for name in epochs[-1]}


if __name__ == "__main__":
    main()

"""Training end to end: one model, one set of rows, fed in four ways."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from data_claims.rows import Layout, Rows
from data_claims.workers import Worker, in_turns
from harness import Claim, against_rival, within_limit

WAYS: Mapping[str, Layout] = {
    "pydataset": "arrow",
    "generator": "arrow",
    "example": "example",
    "batched": "batched",
}
ROWS = Rows(shards=2, batches=8, batch=16_384, cardinality=200_000)
CHECKED = Rows(shards=2, batches=4, batch=1024, cardinality=500)
WAIT = 0.02  # share of the time of a steady epoch
TOLERANCE = 1e-5  # relative, of the mean loss of an epoch


def claim(quick: bool) -> Iterator[Claim]:
    """Samples per second of each way, asserted to learn the same first."""
    rows = CHECKED if quick else ROWS
    with _feeds(CHECKED.cardinality) as feeds:
        difference = check(feeds)
        if quick:
            found = measure(feeds, rows, repeats=2)
    if not quick:
        with _feeds(rows.cardinality) as feeds:
            found = measure(feeds, rows, repeats=7)
    rates = {
        way: statistics.median(run["rate"] for run in runs)
        for way, runs in found.items()
    }
    fed = (
        f"model.fit on JAX, wide and deep as in flow, 40 tables of"
        f" {rows.cardinality:,} x 16, batch {rows.batch:,}, fed by Loader(ArrowRows)"
        " as a PyDataset"
    )
    for id, rival, words in (
        (
            "train-load-per-example",
            "example",
            "tf.data over TFRecord, one example to a record; losses of all ways on"
            f" the same rows in order agree within {difference:.1e}",
        ),
        (
            "train-load-prebatched",
            "batched",
            "tf.data over TFRecord, a whole batch to a record",
        ),
        ("train-adapters", "generator", "the same loader as a generator"),
    ):
        yield against_rival(
            id,
            f"{fed}; rival: {words}",
            ours=rates["pydataset"],
            rival=rates[rival],
            unit="samples/s",
            better="higher",
        )
    waited = [run["waited"] for run in found["pydataset"]]
    yield within_limit(
        "train-wait",
        "share of the time of fit, fed by the PyDataset, spent waiting for a batch,"
        f" median of {len(waited)} epochs after the first ({min(waited):.2%} to"
        f" {max(waited):.2%})",
        ours=100 * statistics.median(waited),
        unit="%",
        limit=100 * WAIT,
    )


def check(feeds: Mapping[str, Worker]) -> float:
    """Asserts that all ways train alike on the same rows in the files' order.

    Returns: the largest relative difference of the mean loss of an epoch.
    """
    _open(feeds, CHECKED, shuffled=False)
    losses = {
        way: np.array(feed.ask("fit", epochs=4)["losses"])
        for way, feed in feeds.items()
    }
    expected = losses["example"]
    assert expected[-1] < expected[0], "the model learns nothing"
    for way, found in losses.items():
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE, err_msg=way)
    return max(float(np.max(np.abs(each / expected - 1))) for each in losses.values())


def measure(
    feeds: Mapping[str, Worker], rows: Rows, *, repeats: int
) -> dict[str, list[dict[str, Any]]]:
    """What each way found in each of its epochs, the first left out."""
    _open(feeds, rows, shuffled=True)
    for feed in feeds.values():
        feed.ask("fit", epochs=1)
    return in_turns(
        {way: partial(feed.ask, "fit", epochs=1) for way, feed in feeds.items()},
        repeats=repeats,
    )


@contextlib.contextmanager
def _feeds(cardinality: int) -> Iterator[dict[str, Worker]]:
    with contextlib.ExitStack() as stack:
        yield {
            way: stack.enter_context(
                Worker("feeds", "Feed", way=way, cardinality=cardinality)
            )
            for way in WAYS
        }


def _open(feeds: Mapping[str, Worker], rows: Rows, *, shuffled: bool) -> None:
    for way, feed in feeds.items():
        feed.ask(
            "open",
            files=rows.files(WAYS[way]),
            batch=rows.batch,
            steps=rows.shards * rows.batches,
            shuffled=shuffled,
        )

"""Bytes of a row on disk: flat Arrow files against TFRecord files."""

from __future__ import annotations

from collections.abc import Iterator

from data_claims import load
from harness import Claim, reported, within_limit

LIMITS = {"arrow": 1.3, "zstd": 1.05}


def claim(quick: bool) -> Iterator[Claim]:
    """Each way of ours over the smaller of the rival's, and the larger one."""
    rows = load.rows(quick)
    sizes = {
        layout: rows.bytes_per_row(layout)
        for layout in ("arrow", "zstd", "batched", "example")
    }
    for layout, words in (("arrow", "uncompressed"), ("zstd", "zstd")):
        yield within_limit(
            "bytes" if layout == "arrow" else f"bytes-{layout}",
            f"bytes per row of {len(rows):,} rows in Arrow files, {words}"
            f" ({sizes[layout]:.1f}), over TFRecord with a whole batch to a record"
            f" ({sizes['batched']:.1f})",
            ours=sizes[layout] / sizes["batched"],
            unit="times",
            limit=LIMITS[layout],
        )
    yield reported(
        "bytes-example",
        "the same, uncompressed, over TFRecord with one example to a record"
        f" ({sizes['example']:.1f})",
        ours=sizes["arrow"] / sizes["example"],
        unit="times",
    )

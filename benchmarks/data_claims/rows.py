"""Rows to train on and how each side stores them: once made, read again and again.

The columns of the wide-and-deep model: a label, 10 numbers, 37 ids and 3 bags of 10
ids, all uniform. A shard is a file; `batched` records hold a whole batch each, column
after column, so their rows are only mixed by whole batches.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_claims.workers import DATA, Worker
from embedding_claims.flow import LENGTH, NUM_NUMERIC, table_shapes

Layout = Literal["example", "batched", "arrow", "zstd"]
FLOATS = {"label": 1, "numeric": NUM_NUMERIC}
IDS = {
    name: LENGTH if name.startswith("bag") else 1 for name in sorted(table_shapes(1))
}
WIDTHS = FLOATS | IDS
"""Values of each column in a row."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """Shards of rows, by one law for given numbers.

    Args:
        shards: files.
        batches: batches to a shard.
        batch: rows to a batch.
        cardinality: ids are below it.
    """

    shards: int
    batches: int
    batch: int
    cardinality: int

    def __len__(self) -> int:
        return self.shards * self.batches * self.batch

    def files(self, layout: Layout) -> list[str]:
        """The files of a layout, written when they are missing."""
        numbers = dataclasses.astuple(self)
        folder = DATA / ("rows-" + "-".join(map(str, numbers))) / layout
        if not folder.exists():
            source = [] if layout in ("example", "batched") else self.files("example")
            temporary = folder.with_suffix(".part")
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.parent.mkdir(parents=True, exist_ok=True)
            with Worker("rows", "Writer", **dataclasses.asdict(self)) as worker:
                worker.ask(layout, folder=str(temporary), source=source)
            temporary.rename(folder)
        return sorted(str(file) for file in folder.iterdir())

    def bytes_per_row(self, layout: Layout) -> float:
        """Size of all files of a layout by the number of rows."""
        sizes = (Path(file).stat().st_size for file in self.files(layout))
        return sum(sizes) / len(self)

    def shard(self, number: int) -> dict[str, np.ndarray]:
        """All columns of a shard, `(rows,)` or `(rows, width)`, float32 and int64."""
        generator = np.random.default_rng([8, number])
        count = self.batches * self.batch
        columns: dict[str, np.ndarray] = {
            name: generator.integers(self.cardinality, size=(count, width))
            for name, width in IDS.items()
        }
        numeric = generator.normal(size=(count, NUM_NUMERIC)).astype(np.float32)
        parity = columns["identity_0"] % 2 + columns["hashed_0"] % 2
        label = numeric.sum(axis=1, keepdims=True) + 4 * parity > 4
        columns |= {"numeric": numeric, "label": label.astype(np.float32)}
        return {
            name: columns[name][:, 0] if width == 1 else columns[name]
            for name, width in WIDTHS.items()
        }


class Writer:
    """Writes the shards of `Rows`; TensorFlow, where it is needed, is loaded here."""

    def __init__(self, **numbers: int) -> None:
        self.rows = Rows(**numbers)

    def example(self, folder: str, source: list[str]) -> None:
        """A record per row."""
        self._records(folder, 1)

    def batched(self, folder: str, source: list[str]) -> None:
        """A record per batch, the values of a column one after the other."""
        self._records(folder, self.rows.batch)

    def arrow(self, folder: str, source: list[str]) -> None:
        """Shortlist's own file, converted from those with a record per row."""
        self._convert(folder, source, None)

    def zstd(self, folder: str, source: list[str]) -> None:
        """The same, compressed."""
        self._convert(folder, source, "zstd")

    def _convert(
        self, folder: str, source: list[str], compression: Literal["zstd"] | None
    ) -> None:
        from shortlist.data.read.tfrecord.tables import convert_tfrecord

        Path(folder).mkdir()
        out = f"{folder}/rows.arrow"
        rows = convert_tfrecord(source, out, rows_per_record=1, compression=compression)
        assert rows == len(self.rows), rows

    def _records(self, folder: str, rows_per_record: int) -> None:
        import tensorflow as tf

        Path(folder).mkdir()
        for number in range(self.rows.shards):
            columns = self.rows.shard(number)
            with tf.io.TFRecordWriter(f"{folder}/{number:03}.tfrecord") as writer:
                for values in _lists(columns, rows_per_record):
                    example = tf.train.Example()
                    feature = example.features.feature
                    for name in FLOATS:
                        feature[name].float_list.value.extend(values[name])
                    for name in IDS:
                        feature[name].int64_list.value.extend(values[name])
                    writer.write(example.SerializeToString())


def _lists(
    columns: Mapping[str, np.ndarray], rows_per_record: int
) -> Iterator[dict[str, list[Any]]]:
    """The values of each record, flat."""
    flat = [
        columns[name].reshape(-1, rows_per_record * w) for name, w in WIDTHS.items()
    ]
    step = max(1, 8192 // rows_per_record)  # lists take far more memory than arrays
    for start in range(0, len(flat[0]), step):
        lists = (column[start : start + step].tolist() for column in flat)
        for values in zip(*lists, strict=True):
            yield dict(zip(WIDTHS, values, strict=True))


def digest(batch: Mapping[str, Any]) -> int:
    """A sum over the rows of a hash of each row: equal for the same rows, in any order.

    Modulo 2 ** 64; floats count by their bits, integers by their value whatever their
    type.
    """
    rows = len(batch["label"])
    hashes = np.zeros(rows, np.uint64)
    for name, width in sorted(WIDTHS.items()):
        values = np.asarray(batch[name])
        bits = values.view(np.uint32) if name in FLOATS else values
        for column in bits.reshape(rows, width).astype(np.uint64).T:
            # Odd multipliers and a shift: the finalizer of SplitMix64.
            hashes = (hashes + column) * np.uint64(0xBF58476D1CE4E5B9)
            hashes ^= hashes >> np.uint64(29)
    return int(np.sum(hashes, dtype=np.uint64))

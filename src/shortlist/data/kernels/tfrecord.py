"""Reading blocks of TFRecord, in the compiled core or its twin.

Knows bytes and columns of values; knows nothing of files, frames or rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shortlist import native
from shortlist.data.kernels import tfrecord_twin
from shortlist.data.kernels.tfrecord_twin import (
    FAULTS,
    HEADER_BYTES,
    RecordBlock,
    RecordFault,
    Values,
)


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), the checksum of TFRecord."""
    core = native.core()
    if core is None:
        return tfrecord_twin.crc32c(data)
    return int(core.crc32c(np.frombuffer(data, np.uint8)))


def is_tfrecord(head: bytes) -> bool:
    """Whether bytes begin with a plausible length and its checksum."""
    length = tfrecord_twin.header_length(head[:HEADER_BYTES])
    return length is not None and length <= tfrecord_twin.MAX_RECORD_BYTES


def read_records(
    data: bytes,
    features: Sequence[bytes],
    kinds: Sequence[int],
    *,
    only_these: bool,
    threads: int | None = None,
) -> RecordBlock:
    """Reads the whole records at the start of a block of a file into columns.

    As protocol buffers require, unknown fields are skipped, and packed and unpacked
    values are both read. If a record contains a feature twice, the last one counts. A
    feature without a kind has no values.

    Args:
        data: bytes from the start of a record on; the last record may be incomplete.
        features: names of the features wanted, all different; every record must have
            them.
        kinds: the kind of each in earlier blocks; `NO_KIND` if unknown.
        only_these: whether a feature of another name is an error.
        threads: most threads to use; all processors by default. The result does not
            depend on it.
    """
    core = native.core()
    if core is None:
        return tfrecord_twin.read_records(data, features, kinds, only_these)
    records, consumed, columns, smallest, sharing, fault = core.read_records(
        np.frombuffer(data, np.uint8),
        list(features),
        list(kinds),
        only_these,
        native.default_threads() if threads is None else threads,
    )
    return RecordBlock(
        records,
        consumed,
        [Values(*column) for column in columns],
        smallest,
        sharing,
        RecordFault(FAULTS[fault[0]], *fault[1:]) if fault[0] else None,
    )

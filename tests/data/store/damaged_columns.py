"""Reads an Arrow file with each of its bytes changed in turn, in a process of its own.

    python damaged_columns.py FILE

Prints one line for every change that is neither refused nor read: the place, the bit
and the exception.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from shortlist.data.store.columns import Columns
from shortlist.errors import ArtifactError, InputError


def read(file: Path) -> None:
    columns = Columns.open([file])
    rows = np.arange(min(len(columns), 100))
    for name in columns.names:
        columns.column(name)
        columns.take(rows, [name])


def main(file: Path) -> None:
    whole = file.read_bytes()
    changed = file.with_name("changed.arrow")
    for place in range(len(whole)):
        for bit in (0, 6):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            changed.unlink(missing_ok=True)  # what is mapped must not change
            changed.write_bytes(damaged)
            try:
                read(changed)
            except (ArtifactError, InputError):
                continue
            except Exception as error:
                print(place, bit, type(error).__name__, str(error)[:200])


if __name__ == "__main__":
    main(Path(sys.argv[1]))

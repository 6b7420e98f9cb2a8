"""The data path: preparing a log, loading rows, and feeding a model with them.

Rivals: Polars alone, and tf.data over TFRecord files, one example or one batch to a
record. What is measured runs in processes of its own; logs and rows are made once, in
`build/bench-data`. Each part runs alone with `--only`.
"""

from __future__ import annotations

from data_claims import linear, load, prepare, sizes, threads, train
from harness import main

PARTS = {
    "prepare": prepare.claim,
    "linear": linear.claim,
    "load": load.claim,
    "bytes": sizes.claim,
    "train-load": train.claim,
    "threads": threads.claim,
}

if __name__ == "__main__":
    main(PARTS)

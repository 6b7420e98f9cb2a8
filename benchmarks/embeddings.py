"""The embedding engine: training through Keras, its kernels, memory and accuracy.

Rivals: stock Keras Embedding layers, FBGEMM's table-batched embedding on the CPU (in an
environment that this script makes in `build/`), a plain C++ gather loop (needs g++) and
plain PyTorch. Each part runs alone with `--only`; each backend has its own process.
"""

from __future__ import annotations

from functools import partial

from embedding_claims import accuracy, fit, flat, flow, memory, tbe
from harness import main

PARTS = {
    "fit-jax": partial(fit.claim, "jax"),
    "fit-tf": partial(fit.claim, "tensorflow"),
    "fit-torch": partial(fit.claim, "torch"),
    "kernel-flat": flat.flat,
    "tbe-26": tbe.one_id,
    "tbe-bag": tbe.bags,
    "gather": flat.gather,
    "bytes": memory.per_row,
    "bytes-100m": memory.hundred_million,
    "krs-tutorial": accuracy.tutorial,
    "flow": flow.claim,
    "lazy-adam": accuracy.lazy_adam,
}

if __name__ == "__main__":
    main(PARTS)

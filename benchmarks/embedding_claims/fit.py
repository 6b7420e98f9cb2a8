"""Stock `model.fit` of two large tables: Shortlist's layer against Keras' own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from embedding_claims import workers
from harness import Claim, against_rival, interleaved

REACHES = {"jax": 18.0, "tensorflow": 10.0, "torch": 10.0}
LEARNING_RATE = 0.001
TOLERANCE = 1e-3  # relative, of the mean loss of an epoch


def claim(backend: str, quick: bool) -> Iterator[Claim]:
    """Samples per second, asserted to learn the same first."""
    short = {"jax": "jax", "tensorflow": "tf", "torch": "torch"}[backend]
    found = workers.call("fit", "measure", backend, quick=quick)
    yield against_rival(
        f"fit-{short}",
        f"model.fit on {backend}, 2 tables of {found['rows']:,} x 64, batch"
        f" {found['batch']:,}, MLP 128-64-1, Adam; rival: keras.layers.Embedding;"
        f" losses of small tables agree within {found['difference']:.1e}",
        ours=found["ours"],
        rival=found["rival"],
        unit="samples/s",
        better="higher",
        reach=REACHES[backend],
    )


def measure(quick: bool) -> dict[str, Any]:
    """Both sides in turns in this process; Keras is loaded here."""
    from embedding_claims.models import equal_losses

    small = {"user": (1000, 64), "item": (1000, 64)}
    difference = equal_losses(
        [compiled(side, small) for side in ("rival", "ours")],
        small,
        *examples(1000, 8 * 4096),
        batch=4096,
        epochs=5,
        tolerance=TOLERANCE,
    )
    rows, batch = (20_000, 512) if quick else (1_000_000, 8192)
    steps = {"rival": 2, "ours": 4} if quick else {"rival": 4, "ours": 40}
    shapes = {"user": (rows, 64), "item": (rows, 64)}
    fits = {}
    for side in ("rival", "ours"):
        model = compiled(side, shapes)
        inputs, labels = examples(rows, batch * steps[side])

        def fit(model: Any = model, x: Any = inputs, y: np.ndarray = labels) -> None:
            model.fit(x, y, batch_size=batch, verbose=0)

        fits[side] = fit
    seconds = interleaved(fits, repeats=2 if quick else 5)
    rates = {side: steps[side] * batch / seconds[side] for side in fits}
    return {
        **rates,
        "rows": rows,
        "batch": batch,
        "difference": difference,
    }


def compiled(side: str, shapes: dict[str, tuple[int, int]]) -> Any:
    """A compiled model with the tables of one side."""
    import keras

    from embedding_claims.models import Model, StockEmbedding, shortlist_embedding

    if side == "rival":
        embedding = StockEmbedding(shapes)
    else:
        embedding = shortlist_embedding(
            shapes,
            optimizer=keras.optimizers.Adam(LEARNING_RATE),
            placement="host",
            initializer="uniform",
        )
    model = Model(embedding, (128, 64))
    model.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE), loss="mse")
    return model


def examples(rows: int, count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Uniform ids and a label that depends on them."""
    generator = np.random.default_rng(1)
    ids = {
        name: generator.integers(rows, size=count, dtype=np.int32)
        for name in ("user", "item")
    }
    labels = (ids["user"] % 2 == ids["item"] % 3).astype(np.float32)[:, None]
    return ids, labels


if __name__ == "__main__":
    workers.serve(measure)

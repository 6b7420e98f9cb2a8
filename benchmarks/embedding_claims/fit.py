"""Stock `model.fit` of two large tables: Shortlist's layer against Keras' own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import workers
from harness import Claim, against_rival, interleaved

REACHES = {"jax": 18.0, "tensorflow": 10.0, "torch": 10.0}
LEARNING_RATE = 0.001
TOLERANCE = 1e-3  # relative, of the mean loss of an epoch


def claim(backend: str, quick: bool) -> Iterator[Claim]:
    """Samples per second, asserted to learn the same first."""
    short = {"jax": "jax", "tensorflow": "tf", "torch": "torch"}[backend]
    found = workers.call(__name__, "measure", backend, quick=quick)
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

    # Every row once in every batch: a dense step. Not twice, because stock Adam on
    # TensorFlow squares the gradients of a row's entries one by one, not their sum.
    small = {"user": (1000, 64), "item": (1000, 64)}
    difference = equal_losses(
        [compiled(side, small) for side in ("rival", "ours")],
        small,
        *labelled(permuted(1000, 20)),
        batch=1000,
        epochs=5,
        tolerance=TOLERANCE,
    )
    rows, batch = (20_000, 512) if quick else (1_000_000, 8192)
    steps = {"rival": 2, "ours": 4} if quick else {"rival": 4, "ours": 40}
    shapes = {"user": (rows, 64), "item": (rows, 64)}
    fits = {}
    for side in ("rival", "ours"):
        model = compiled(side, shapes)
        inputs, labels = labelled(uniform(rows, batch * steps[side]))

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


def uniform(rows: int, count: int) -> dict[str, np.ndarray]:
    """Ids of two features, each row as likely as another."""
    generator = np.random.default_rng(1)
    return {
        name: generator.integers(rows, size=count, dtype=np.int32)
        for name in ("user", "item")
    }


def permuted(rows: int, times: int) -> dict[str, np.ndarray]:
    """Ids of two features: all rows in one random order after another."""
    generator = np.random.default_rng(1)
    every = np.tile(np.arange(rows, dtype=np.int32), (times, 1))
    return {
        name: generator.permuted(every, axis=1).reshape(-1) for name in ("user", "item")
    }


Examples = tuple[dict[str, np.ndarray], np.ndarray]


def labelled(ids: dict[str, np.ndarray]) -> Examples:
    """The ids and a label that depends on them."""
    return ids, (ids["user"] % 2 == ids["item"] % 3).astype(np.float32)[:, None]


if __name__ == "__main__":
    workers.serve(measure)

"""Training with many features: a wide-and-deep model against stock Keras tables."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import workers
from harness import Claim, against_rival, interleaved

NUM_NUMERIC, NUM_IDENTITY, NUM_HASHED, NUM_BAGS, LENGTH = 10, 20, 17, 3, 10
DIM = 16
LEARNING_RATE = 0.1
TOLERANCE = 1e-4  # relative, of the mean loss of an epoch


def claim(quick: bool) -> Iterator[Claim]:
    """Samples per second, asserted to learn the same first."""
    found = workers.call(__name__, "measure", quick=quick)
    yield against_rival(
        "flow",
        f"model.fit on JAX, wide and deep: {NUM_NUMERIC} numeric,"
        f" {NUM_IDENTITY + NUM_HASHED} one-valued and {NUM_BAGS} {LENGTH}-valued"
        f" features, 40 tables of {found['rows']:,} x {DIM}, MLP 256-64-1 and a linear"
        f" part, SGD, batch {found['batch']:,}; rival: keras.layers.Embedding; losses"
        f" of small tables agree within {found['difference']:.1e}",
        ours=found["ours"],
        rival=found["rival"],
        unit="samples/s",
        better="higher",
    )


def measure(quick: bool) -> dict[str, Any]:
    """Both sides in turns in this process; Keras is loaded here."""
    from embedding_claims.models import equal_losses

    small = table_shapes(500)
    difference = equal_losses(
        [compiled(side, small) for side in ("rival", "ours")],
        small,
        *examples(500, 4 * 1024),
        batch=1024,
        epochs=4,
        tolerance=TOLERANCE,
    )
    rows, batch, steps = (1000, 1024, 2) if quick else (200_000, 131_072, 3)
    inputs, labels = examples(rows, batch * steps)
    models = {side: compiled(side, table_shapes(rows)) for side in ("rival", "ours")}
    seconds = interleaved(
        {
            side: lambda m=model: m.fit(inputs, labels, batch_size=batch, verbose=0)
            for side, model in models.items()
        },
        repeats=2 if quick else 5,
    )
    rates = {side: batch * steps / seconds[side] for side in seconds}
    return {**rates, "rows": rows, "batch": batch, "difference": difference}


def compiled(side: str, shapes: dict[str, tuple[int, int]]) -> Any:
    """A compiled model with the tables of one side."""
    import keras

    from embedding_claims.models import Model, StockEmbedding, shortlist_embedding

    if side == "rival":
        embedding = StockEmbedding(shapes)
    else:
        embedding = shortlist_embedding(
            shapes,
            lengths={name: LENGTH for name in shapes if name.startswith("bag")},
            optimizer=keras.optimizers.SGD(LEARNING_RATE),
            placement="host",
            initializer="uniform",
        )
    model = Model(embedding, (256, 64), wide=True)
    model.compile(
        optimizer=keras.optimizers.SGD(LEARNING_RATE),
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return model


def table_shapes(rows: int) -> dict[str, tuple[int, int]]:
    """One table per categorical feature."""
    counts = {"identity": NUM_IDENTITY, "hashed": NUM_HASHED, "bag": NUM_BAGS}
    return {
        f"{kind}_{index}": (rows, DIM)
        for kind, count in counts.items()
        for index in range(count)
    }


def examples(rows: int, count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Uniform ids, the hashed ones large numbers modulo `rows`, and noisy labels."""
    generator = np.random.default_rng(8)
    inputs: dict[str, np.ndarray] = {}
    for name in table_shapes(rows):
        if name.startswith("hashed"):
            ids = generator.integers(2**62, size=count) % rows
        else:
            shape = (count, LENGTH) if name.startswith("bag") else (count,)
            ids = generator.integers(rows, size=shape)
        inputs[name] = ids.astype(np.int32)
    numeric = generator.normal(size=(count, NUM_NUMERIC)).astype(np.float32)
    inputs["numeric"] = numeric
    parity = sum(inputs[f"{kind}_0"] % 2 for kind in ("identity", "hashed"))
    labels = numeric.sum(axis=1) + 4 * parity + generator.normal(size=count) > 4
    return inputs, labels.astype(np.float32)[:, None]


if __name__ == "__main__":
    workers.serve(measure)

"""Models on MovieLens-100K: the same errors and losses as dense training gives."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import workers
from harness import Claim, within_limit
from shortlist.public_data.logs import fetch

BATCH = 256
SHAPES = {"movie_id": (1683, 32), "user_id": (944, 32)}  # row 0 is not used
WIDTHS = (256, 64)


def tutorial(quick: bool) -> Iterator[Claim]:
    """The model of KerasRS' DistributedEmbedding tutorial against plain PyTorch."""
    request: dict[str, Any] = {
        "seeds": [1] if quick else [1, 2, 3, 4, 5],
        "epochs": 2 if quick else 5,
    }
    with tempfile.TemporaryDirectory() as folder:
        request["folder"] = folder
        ours = workers.call(__name__, "train_keras", **request)
        rival = workers.call(__name__, "train_torch", "torch", **request)

    def words(values: list[float]) -> str:
        spread = max(values) - min(values)
        return f"{statistics.mean(values):.5f} (spread {spread:.5f})"

    errors = [found["rmse"] for found in ours]
    yield within_limit(
        "krs-tutorial",
        "difference of the mean test RMSE of KerasRS' tutorial model on MovieLens-100K"
        f" over {len(errors)} seeds: ours {words(errors)}, plain PyTorch"
        f" {words(rival)}",
        ours=abs(statistics.mean(errors) - statistics.mean(rival)),
        unit="RMSE",
        limit=0.0005,
    )
    yield within_limit(
        "krs-tutorial-step",
        f"one training step of it in stock fit on JAX, batch {BATCH}, median of the"
        " seeds, compilation left out",
        ours=statistics.median(found["milliseconds"] for found in ours),
        unit="ms",
        limit=2.0,
    )


def lazy_adam(quick: bool) -> Iterator[Claim]:
    """Adam that catches up against Adam that moves every row in every step."""
    epochs = 2 if quick else 20
    losses = workers.call(__name__, "train_adams", epochs=epochs)
    # The loss that fit reports for an epoch, and the loss of all examples after it.
    worst = {
        variant: {
            kind: max(
                abs(ours - dense) / dense
                for ours, dense in zip(found[kind], losses["dense"][kind], strict=True)
            )
            for kind in ("loss", "val_loss")
        }
        for variant, found in losses.items()
    }
    yield within_limit(
        "lazy-adam",
        "largest relative difference of the loss of an epoch from dense Adam's, in"
        f" {epochs} epochs of a factorization of MovieLens-100K, width 32, batch"
        f" {BATCH} (all examples after the epoch: {worst['ours']['val_loss']:.4f});"
        f" without catching up {worst['lazy']['loss']:.4f}"
        f" ({worst['lazy']['val_loss']:.4f}); dense Adam from tables changed by a"
        f" millionth {worst['again']['loss']:.1e}",
        ours=worst["ours"]["loss"],
        unit="relative",
        limit=0.01,
    )


def train_keras(seeds: list[int], epochs: int, folder: str) -> list[dict[str, float]]:
    """Our layer in stock fit; leaves the initial weights in `folder`."""
    import keras

    from embedding_claims.models import Model, shortlist_embedding

    found = []
    for seed in seeds:
        keras.utils.set_random_seed(seed)
        (inputs, labels), (test_inputs, test_labels) = split(seed)
        # All options are KerasRS' defaults.
        model = Model(shortlist_embedding(SHAPES), WIDTHS)
        model.compile(
            loss=keras.losses.MeanSquaredError(),
            metrics=[keras.metrics.RootMeanSquaredError(name="rmse")],
            optimizer="adagrad",
        )
        model.predict_on_batch({name: ids[:2] for name, ids in inputs.items()})
        tables = {
            name: np.asarray(rows)
            for name, rows in model.embedding.get_embedding_tables().items()
        }
        for rows in tables.values():
            np.testing.assert_allclose(rows.std(), 32**-0.5, rtol=0.03)
        dense = model.perceptron.get_weights()
        arrays = {f"dense_{index}": values for index, values in enumerate(dense)}
        np.savez(Path(folder) / f"{seed}.npz", **tables, **arrays)
        options = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
        model.fit(inputs, labels, epochs=1, **options)
        began = time.perf_counter()
        model.fit(inputs, labels, epochs=epochs - 1, **options)
        seconds = time.perf_counter() - began
        steps = (epochs - 1) * (len(labels) // BATCH)
        error = model.evaluate(
            test_inputs, test_labels, batch_size=BATCH, return_dict=True, verbose=0
        )
        found.append({"rmse": error["rmse"], "milliseconds": seconds / steps * 1e3})
    return found


def train_torch(seeds: list[int], epochs: int, folder: str) -> list[float]:
    """The same in plain PyTorch: dense tables with Adam, the rest with Adagrad.

    Optimizers have Keras' defaults: Adam 0.001, 0.9, 0.999, epsilon 1e-7; Adagrad
    0.001, accumulators from 0.1, epsilon 1e-7.
    """
    import torch

    errors = []
    for seed in seeds:
        start = np.load(Path(folder) / f"{seed}.npz")
        tables = [
            torch.nn.Embedding.from_pretrained(
                torch.from_numpy(start[name]), freeze=False
            )
            for name in sorted(SHAPES)
        ]
        layers = []
        for index in range(len(WIDTHS) + 1):
            kernel, bias = (start[f"dense_{2 * index + i}"] for i in (0, 1))
            layer = torch.nn.Linear(*kernel.shape)
            layer.weight.data = torch.from_numpy(kernel.T.copy())
            layer.bias.data = torch.from_numpy(bias)
            layers += [layer, torch.nn.ReLU()]
        perceptron = torch.nn.Sequential(*layers[:-1])
        optimizers = [
            torch.optim.Adam([table.weight for table in tables], eps=1e-7),
            torch.optim.Adagrad(
                perceptron.parameters(),
                lr=0.001,
                initial_accumulator_value=0.1,
                eps=1e-7,
            ),
        ]

        def loss(batch: slice, inputs: Any, labels: Any) -> torch.Tensor:
            ids = [torch.from_numpy(inputs[name][batch]) for name in sorted(SHAPES)]
            vectors = [table(one) for table, one in zip(tables, ids, strict=True)]
            output = perceptron(torch.cat(vectors, dim=1))
            target = torch.from_numpy(labels[batch])
            return torch.nn.functional.mse_loss(output, target)

        training, test = split(seed)
        for _ in range(epochs):
            for batch in _batches(len(training[1])):
                for optimizer in optimizers:
                    optimizer.zero_grad()
                loss(batch, *training).backward()
                for optimizer in optimizers:
                    optimizer.step()
        with torch.no_grad():
            squares = [float(loss(batch, *test)) for batch in _batches(len(test[1]))]
        errors.append(statistics.mean(squares) ** 0.5)
    return errors


def train_adams(epochs: int) -> dict[str, dict[str, list[float]]]:
    """Losses per epoch of stock Keras' dense Adam, ours, and ours without catch-up.

    `again` is dense Adam from tables changed by a millionth: how far apart the same
    method ends. (With a perceptron on top it ends percents apart: no base to compare.)
    """
    from embedding_claims.models import (
        Factorization,
        StockEmbedding,
        shortlist_embedding,
    )
    from shortlist.embeddings import Adam

    inputs, labels = shuffled(seed=0)
    ours, lazy = Adam(), Adam(catch_up=False)
    embeddings = {
        "dense": StockEmbedding(SHAPES),
        "again": StockEmbedding(SHAPES),
        "ours": shortlist_embedding(SHAPES, placement="host", optimizer=ours),
        "lazy": shortlist_embedding(SHAPES, placement="host", optimizer=lazy),
    }
    draw = np.random.default_rng(0).standard_normal
    start = {name: 0.1 * draw(shape, np.float32) for name, shape in SHAPES.items()}
    losses = {}
    for variant, embedding in embeddings.items():
        model = Factorization(embedding)
        model.predict_on_batch({name: ids[:2] for name, ids in inputs.items()})
        change = np.float32(1 + 1e-6 if variant == "again" else 1)
        embedding.set_embedding_tables({n: rows * change for n, rows in start.items()})
        model.compile(optimizer="adam", loss="mse")
        history = model.fit(
            inputs,
            labels,
            batch_size=BATCH,
            epochs=epochs,
            shuffle=False,
            validation_data=(inputs, labels),
            validation_batch_size=8192,
            verbose=0,
        ).history
        losses[variant] = {kind: history[kind] for kind in ("loss", "val_loss")}
    return losses


Examples = tuple[dict[str, np.ndarray], np.ndarray]


def split(seed: int) -> tuple[Examples, Examples]:
    """80,000 training and 20,000 test ratings, both cut to whole batches."""
    inputs, labels = shuffled(seed)

    def part(first: int, last: int) -> Examples:
        last -= (last - first) % BATCH
        ids = {name: values[first:last] for name, values in inputs.items()}
        return ids, labels[first:last]

    return part(0, 80_000), part(80_000, 100_000)


def shuffled(seed: int) -> Examples:
    """All ratings in an order of the seed, as (rating - 1) / 4 like the tutorial's."""
    events = np.loadtxt(fetch("ml-100k").events, dtype=np.int32, usecols=(0, 1, 2))
    users, movies, ratings = np.random.default_rng(seed).permutation(events).T
    inputs = {
        "movie_id": np.ascontiguousarray(movies),
        "user_id": np.ascontiguousarray(users),
    }
    return inputs, ((ratings - 1) / 4).astype(np.float32)[:, None]


def _batches(count: int) -> Iterator[slice]:
    return (slice(first, first + BATCH) for first in range(0, count, BATCH))


if __name__ == "__main__":
    workers.serve(train_keras, train_torch, train_adams)

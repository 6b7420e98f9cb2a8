"""The two-tower model of the table in other precisions, steps and backends.

Each way is trained in a process of its own, with three seeds. What is drawn is the same
under every backend, but sums round otherwise, so what must agree is the mean, within
the spread of the seeds under JAX in float32. Three seeds tell a spread roughly: a way
that is far off fails, one that is a little worse may not.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import workers
from accuracy_claims import models, protocol
from accuracy_claims.table import SEEDS
from harness import Claim
from shortlist.recipe import RetrievalSection

WAYS: dict[str, tuple[str, dict[str, Any], float]] = {
    # name: backend, fields of [training], share of the batch size
    "float32": ("jax", {}, 1.0),
    "bfloat16": ("jax", {"precision": "mixed_bfloat16"}, 1.0),
    "float16": ("jax", {"precision": "mixed_float16"}, 1.0),
    "accumulate": ("jax", {"accumulate": 2}, 0.5),
    "tensorflow": ("tensorflow", {}, 1.0),
    "torch": ("torch", {}, 1.0),
}


def claims(quick: bool) -> Iterator[Claim]:
    """Every way against JAX in float32."""
    seeds = list(SEEDS[:1] if quick else SEEDS)
    base: list[float] = []
    for name, (backend, training, share) in WAYS.items():
        found = workers.call(
            __name__,
            "measure",
            backend,
            training=training,
            share=share,
            seeds=seeds,
        )
        base = base or found
        mean, middle = statistics.mean(found), statistics.mean(base)
        spread = max(base) - min(base)
        told = f"{min(found):.4f} to {max(found):.4f}"
        yield Claim(
            id=f"mixed-{name}",
            name=f"nDCG@10 of the two-tower model, {backend}, {training or 'float32'},"
            f" seeds {told}; rival: JAX in float32, whose spread is {spread:.4f}",
            ours=mean,
            rival=middle,
            unit="nDCG@10",
            ratio=mean / middle,
            reach=None if quick else 1 - spread / middle,
            met=quick or mean >= middle - spread,
            values=tuple(found),
        )


def measure(training: dict[str, Any], share: float, seeds: list[int]) -> list[float]:
    """nDCG@10 on the test part with each seed, in this process."""
    from accuracy_claims import two_tower

    settings = dict(models.stored()[models.TWO_TOWER])
    settings["batch_size"] = int(RetrievalSection().batch_size * share)
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        parts = protocol.public_split(protocol.movielens())
        dataset = two_tower.as_dataset(*parts, folder / "dataset", settings)
        users = protocol.user_ids(dataset)
        found = []
        for seed in seeds:
            member = two_tower.fit(dataset, settings, folder, seed, training)
            lists = two_tower.ranked_items(member, dataset)
            found.append(float(protocol.measure(users, lists, parts[1])["ndcg"]))
    return found


if __name__ == "__main__":
    workers.serve(measure)

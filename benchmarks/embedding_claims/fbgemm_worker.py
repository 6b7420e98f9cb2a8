"""FBGEMM's CPU table-batched embedding behind a pipe, in an environment of its own.

Reads one JSON object a line: `{"do": name, ...}`; answers each with one line.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
    ComputeDevice,
    OptimType,
    SplitTableBatchedEmbeddingBagsCodegen,
)


class Worker:
    """Tables, prepared ids and gradients; each step takes the next ids."""

    def prepare(
        self, folder: str, rows: int, dim: int, learning_rate: float, threads: int
    ) -> None:
        """Takes `ids.npy` `(sets, tables, batch, length)` and `gradients.npy`."""
        torch.set_num_threads(threads)
        self.folder = Path(folder)
        ids = np.load(self.folder / "ids.npy")
        sets, tables, batch, length = ids.shape
        location = (EmbeddingLocation.HOST, ComputeDevice.CPU)
        self.tables = SplitTableBatchedEmbeddingBagsCodegen(
            [(rows, dim, *location)] * tables,
            optimizer=OptimType.EXACT_ROWWISE_ADAGRAD,
            learning_rate=learning_rate,
            eps=1e-8,
        )
        self.ids = [torch.from_numpy(one.reshape(-1)).long() for one in ids]
        self.offsets = torch.arange(0, tables * batch * length + 1, length)
        gradients = torch.from_numpy(np.load(self.folder / "gradients.npy"))
        # (tables, batch, dim) -> (batch, tables * dim), as the output lies.
        self.gradients = gradients.transpose(0, 1).reshape(batch, -1).contiguous()
        given = self.folder / "rows.npy"
        for index, weights in enumerate(self.tables.split_embedding_weights()):
            if given.exists():
                weights.data.copy_(torch.from_numpy(np.load(given)[index]))
            else:
                weights.data.uniform_(-0.05, 0.05)
        self.step = 0

    def forward(self, steps: int) -> None:
        """Only lookups."""
        with torch.no_grad():
            for _ in range(steps):
                self.output = self.tables(self._next(), self.offsets)

    def train(self, steps: int) -> None:
        """Lookups and the update that is fused into the backward pass."""
        for _ in range(steps):
            self.tables(self._next(), self.offsets).backward(self.gradients)

    def save(self) -> None:
        """Writes the last output of `forward` and the rows of all tables."""
        np.save(self.folder / "output.npy", self.output.numpy())
        rows = [weights.numpy() for weights in self.tables.split_embedding_weights()]
        np.save(self.folder / "updated.npy", np.stack(rows))

    def _next(self) -> torch.Tensor:
        ids = self.ids[self.step % len(self.ids)]
        self.step += 1
        return ids


def main() -> None:
    """Answers until the pipe is closed."""
    # What libraries print must not come between the answers.
    answers: Any = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        request = json.loads(line)
        getattr(worker, request.pop("do"))(**request)
        print("done", file=answers, flush=True)


if __name__ == "__main__":
    main()

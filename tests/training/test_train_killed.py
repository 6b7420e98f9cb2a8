"""A training killed (`kill -9`) at 20 random moments, and resumed after each."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from toy import checkerboard

# Under one backend: files and their order are the same for all, and TensorFlow starts
# threads when it is imported, which a fork loses.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

KILLS = 20

# Keras is imported once; each process that is killed is a fork of this one. Moments are
# counted in calls: of what makes batches, writes, renames, removes and reports.
TRAINER = """
import functools, json, os, shutil, signal, sys
from pathlib import Path

import numpy as np
from shortlist import atomic
from shortlist.data.store.dataset import Dataset
from shortlist.evaluation import ranking_metrics
from shortlist.training import TrainOptions, fit, train
from shortlist.training.batches import keras_batches as batches
from shortlist.training.loop import callbacks
from shortlist.training.runs import checkpoint
from shortlist.training.loop import checkpointing
from shortlist.training.runs import unfinished
from shortlist.recipe import build_recipe

dataset_path, out, kills, recipe = sys.argv[1:5]
recipe = build_recipe(json.loads(recipe))
POINTS = [
    (batches.Batches, "__getitem__"), (os, "replace"), (os, "fsync"), (os, "unlink"),
    (shutil, "rmtree"), (np, "savez"), (Path, "write_bytes"), (Path, "mkdir"),
    (callbacks.EpochReport, "on_epoch_end"),
    (checkpointing.Checkpointing, "on_epoch_end"),
    (atomic, "_exchange"), (unfinished.Unfinished, "publish"),
]

def go(out, kill_at):
    calls = 0

    def counting(call):
        @functools.wraps(call)
        def counted(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)
        return counted

    for owner, name in POINTS:
        setattr(owner, name, counting(getattr(owner, name)))
    train(Dataset.open(dataset_path), out, recipe, validate=ranking_metrics,
          quiet=True, options=TrainOptions(resume=True))
    return calls

def forked(out, kill_at):
    "How the process ended, and its calls if it was not killed."
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            os.write(writing, str(go(out, kill_at)).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    told = os.read(reading, 20)
    os.close(reading)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told

ended, calls = forked(out + "/whole", -1)
assert ended == 0, ended
rng = np.random.default_rng(20)
killed, runs = 0, 0
while killed < int(kills) or ended:
    # The last one is left alone.
    kill_at = rng.integers(1, int(calls) // 4) if killed < int(kills) else -1
    ended, told = forked(f"{out}/run-{runs}", int(kill_at))
    assert ended in (0, -signal.SIGKILL), ended
    killed += ended != 0
    runs += ended == 0
print(json.dumps({"killed": killed, "runs": runs}))
"""

RECIPE = {
    "log": {"events": "events.csv"},
    "columns": {
        **{"user_id": "user", "item_id": "item"},
        **{"timestamp": "time", "label": "rating"},
    },
    "retrieval": {
        **{"embedding_dim": 8, "history_length": 3, "batch_size": 32, "dropout": 0.3},
        **{"hidden_units": [8], "epochs": 8, "patience": 3, "learning_rate": 0.02},
    },
    "ranker": {
        **{"embedding_dim": 8, "history_length": 3, "batch_size": 64, "dropout": 0.3},
        **{"hidden_units": [8], "epochs": 5, "patience": 3, "weights": [0, 0.1]},
        "negatives": 2,
    },
}


def contents(run: Path) -> dict[str, str]:
    """A digest of every file, clocks left out."""
    told = {}
    for path in sorted(p for p in run.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path.suffix in (".json", ".jsonl"):
            lines = data.splitlines() if path.suffix == ".jsonl" else [data]
            values = [json.loads(line) for line in lines]
            for value in values:
                # Checksums differ where a file says how long something took.
                for clock in ("seconds", "created_at", "checksum"):
                    value.pop(clock, None)
                value["files"] = sorted(value.get("files", ()))
            data = json.dumps(values).encode()
        told[path.relative_to(run).as_posix()] = hashlib.sha256(data).hexdigest()
    return told


def test_it_ends_as_if_it_had_not_been_killed(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    dataset = checkerboard(tmp_path_factory.getbasetemp())
    done = subprocess.run(
        [
            *(sys.executable, "-c", TRAINER, dataset.path, tmp_path),
            *(str(KILLS), json.dumps(RECIPE)),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["killed"] == KILLS and told["runs"] >= 1
    names = [f"run-{number}" for number in range(told["runs"])]
    for name in names:
        assert contents(tmp_path / name) == contents(tmp_path / "whole"), name
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "whole"])

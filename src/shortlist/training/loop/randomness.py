"""The state of the random generators of a training, as plain JSON.

Keras seeds layers without a seed from Python's `random`, and PyTorch uses its own
generator for dropout. Under JAX and TensorFlow a layer uses its `SeedGenerator`, whose
state is saved with the model.
"""

from __future__ import annotations

import base64
import random
import sys
from typing import Any

import numpy as np


def random_state() -> dict[str, Any]:
    """The state of the generators of Python, NumPy and, if it is imported, PyTorch."""
    version, numbers, spare = random.getstate()
    name, keys, place, has_spare, other = np.random.get_state()
    state: dict[str, Any] = {
        "python": [version, list(numbers), spare],
        "numpy": [name, np.asarray(keys).tolist(), place, has_spare, other],
    }
    if torch := sys.modules.get("torch"):
        bits = torch.get_rng_state().numpy().tobytes()
        state["torch"] = base64.b64encode(bits).decode()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Sets the generators to what `random_state` returned."""
    version, numbers, spare = state["python"]
    random.setstate((version, tuple(numbers), spare))
    name, keys, place, has_spare, other = state["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), place, has_spare, other))
    torch = sys.modules.get("torch")
    if torch is not None and "torch" in state:
        bits = np.frombuffer(base64.b64decode(state["torch"]), np.uint8)
        torch.set_rng_state(torch.from_numpy(bits.copy()))

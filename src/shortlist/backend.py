"""The Keras backend: the user's choice, or the first one that is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

BACKENDS = ("jax", "tensorflow", "torch")


def choose_backend() -> str | None:
    """Sets `KERAS_BACKEND` unless the user chose a backend or Keras is loaded.

    Keras itself defaults to TensorFlow even if only JAX is installed. `KERAS_BACKEND`
    has priority. The backend in Keras's configuration file is used if it is installed,
    except for TensorFlow: Keras writes this default into the file at its first import,
    so it is not a user's choice. To use it, set `KERAS_BACKEND=tensorflow`.

    Returns: the name of the backend, or `None` when none is installed.
    """
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen:
        return chosen
    if "keras" in sys.modules:
        return str(sys.modules["keras"].config.backend())
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    configured = _configured()
    if configured not in installed or configured == "tensorflow":
        configured = installed[0] if installed else None
    if configured is not None:
        os.environ["KERAS_BACKEND"] = configured
    return configured


def _configured() -> str | None:
    # Not Path.home(), which fails for a user without a home.
    home = Path(os.path.expanduser(os.environ.get("KERAS_HOME") or "~/.keras"))
    try:
        backend = json.loads((home / "keras.json").read_text())["backend"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(backend)

"""Which backend Keras uses: the user's choice, else the first one installed."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

BACKENDS = ("jax", "tensorflow", "torch")


def choose_backend() -> str | None:
    """Sets `KERAS_BACKEND` unless the user chose a backend or Keras is loaded.

    Keras itself would take TensorFlow even where only JAX is installed. A choice in
    `KERAS_BACKEND` stands. One in Keras's configuration file stands if that backend
    is installed, but for TensorFlow: Keras writes the file itself when it is first
    imported, and its default is nobody's choice. Set `KERAS_BACKEND=tensorflow`.

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

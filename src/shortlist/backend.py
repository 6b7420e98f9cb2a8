"""Which backend Keras uses: the user's choice, else the first one installed."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

BACKENDS = ("jax", "tensorflow", "torch")


def choose_backend() -> str | None:
    """Sets `KERAS_BACKEND` unless the user chose a backend or Keras is loaded.

    Keras itself would take TensorFlow even where only JAX is installed. A choice in
    `KERAS_BACKEND` or in Keras's own configuration file stands.

    Returns: the name of the backend, or `None` when none is installed.
    """
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen or "keras" in sys.modules or _has_keras_config():
        return chosen
    for name in BACKENDS:
        if importlib.util.find_spec(name) is not None:
            os.environ["KERAS_BACKEND"] = name
            return name
    return None


def _has_keras_config() -> bool:
    home = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"))
    return (home / "keras.json").is_file()

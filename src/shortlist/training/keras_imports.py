"""Keeps Keras from importing TensorFlow under another backend."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import keras


@contextlib.contextmanager
def without_tensorflow() -> Iterator[None]:
    """Keras does not import TensorFlow in here, unless something really needs it.

    Keras asks whether TensorFlow is available, which imports it, to set its seed and
    to compare types when it serializes: seconds, and lines of its log on standard
    error. In here the answer is no, if nothing has imported TensorFlow before.
    Also a decorator.
    """
    lazy: Any = None
    if "tensorflow" not in sys.modules and keras.backend.backend() != "tensorflow":
        with contextlib.suppress(ImportError):  # a Keras that asks in another way
            from keras.src.utils import module_utils

            lazy = module_utils.tensorflow
    if getattr(lazy, "_available", False) is not None:
        yield
        return
    lazy._available = False
    try:
        yield
    finally:
        lazy._available = None

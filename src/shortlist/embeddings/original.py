"""KerasRS, whose configurations and layer ours stand in for."""

from __future__ import annotations

import importlib
import random

# Its import draws the seed of a default from Python's generator: tables that are made
# after it must not begin with other rows for that.
_state = random.getstate()
keras_rs = importlib.import_module("keras_rs")
random.setstate(_state)

"""KerasRS, whose configurations and layer ours stand in for."""

from __future__ import annotations

import random

# The import draws the seed of a default from Python's generator: tables that are made
# after it must not begin with other rows for that.
_state = random.getstate()
import keras_rs  # noqa: E402

random.setstate(_state)

__all__ = ["keras_rs"]

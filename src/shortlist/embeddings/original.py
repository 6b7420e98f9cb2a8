"""KerasRS, whose configurations and layer are extended here."""

from __future__ import annotations

import random

# The import draws the seed of a default from Python's generator, which must not change
# the initial rows of tables that are created after it.
_state = random.getstate()
import keras_rs  # noqa: E402

random.setstate(_state)

__all__ = ["keras_rs"]

"""Large buffers that are reused when nothing refers to them any more.

The allocator returns every buffer above 32 MB to the system, which clears all of its
pages at the next allocation. Knows nothing of what a buffer holds.
"""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np

_MOST_KEPT = 4


class BufferPool:
    """Buffers for short-lived arrays of about the same size.

    Keeps up to 4 unused buffers. Several threads may call it at the same time.
    """

    def __init__(self) -> None:
        self._free: deque[np.ndarray] = deque(maxlen=_MOST_KEPT)

    def get(self, num_bytes: int) -> np.ndarray:
        """An exclusive buffer, `(num_bytes,)` uint8, uninitialized.

        It returns to the pool when the array and all of its views are deleted.
        """
        try:
            piece = self._free.pop()
        except IndexError:
            piece = np.empty(num_bytes, np.uint8)
        if len(piece) < num_bytes:
            piece = np.empty(num_bytes, np.uint8)
        # Views of `lent` refer to `lent`, which is deleted with the last of them. Views
        # of `piece` would refer to `piece`, which stays.
        lent = np.frombuffer(piece.data, np.uint8)
        weakref.finalize(lent, self._free.append, piece).atexit = False
        return lent[:num_bytes]

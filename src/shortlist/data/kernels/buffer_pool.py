"""Large pieces of memory, used again as soon as nothing refers to them.

The allocator gives every piece above 32 MB back to the system, which clears each of its
pages when it hands it out anew. Knows nothing of what a piece holds.
"""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np

_MOST_KEPT = 4


class BufferPool:
    """Memory for arrays that come and go, all of about one size.

    Keeps up to 4 pieces that are not in use. Several threads may ask at once.
    """

    def __init__(self) -> None:
        self._free: deque[np.ndarray] = deque(maxlen=_MOST_KEPT)

    def get(self, num_bytes: int) -> np.ndarray:
        """Memory of nobody else, `(num_bytes,)` uint8, of any content.

        It comes back by itself when the array and all views of it are gone.
        """
        try:
            piece = self._free.pop()
        except IndexError:
            piece = np.empty(num_bytes, np.uint8)
        if len(piece) < num_bytes:
            piece = np.empty(num_bytes, np.uint8)
        # An array over a buffer is what every view of it refers to; views of `piece`
        # itself would refer to `piece`, which must live on.
        lent = np.frombuffer(piece.data, np.uint8)
        weakref.finalize(lent, self._free.append, piece).atexit = False
        return lent[:num_bytes]

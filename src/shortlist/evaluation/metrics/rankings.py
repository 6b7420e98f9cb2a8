"""What is ranked and what is relevant, as arrays, and the popularity baseline.

A ranking is `(num_users, max_k)` int32: item rows, best first, padded with -1 at the
end. Sets of items per user are a pair `(offsets, indices)`: the items of user u are
`indices[offsets[u]:offsets[u + 1]]`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from shortlist.data.store.ragged import Ragged, grouped, ranges
from shortlist.errors import InputError

Csr = tuple[NDArray[np.int64], NDArray[np.int32]]

_CELLS = 1 << 23  # block size: users times list length


def build_csr(
    user_index: NDArray[Any], item_index: NDArray[Any], num_users: int
) -> Csr:
    """Groups (user, item) pairs by user, keeping the order of each user's items.

    Args:
        user_index: `(n,)` integers from 0 to `num_users - 1`.
        item_index: `(n,)` item rows from 0 up.
        num_users: number of users of the result.

    Returns:
        `offsets` `(num_users + 1,)` int64 and `indices` `(n,)` int32.

    Raises:
        InputError: arrays of other shapes or types, or values out of range
            (`relevance-shape`).
    """
    users, items = np.asarray(user_index), np.asarray(item_index)
    if users.ndim != 1 or users.shape != items.shape or not _whole(users, items):
        raise _csr_error(
            "Users and items must be two lists of integers of one length",
            f"{users.dtype} {users.shape} and {items.dtype} {items.shape}",
        )
    if users.size and not (0 <= users.min() and users.max() < num_users):
        spread = f"{users.min()} to {users.max()}"
        raise _csr_error(f"User rows must be from 0 to {num_users - 1}", spread)
    if items.size and items.min() < 0:
        raise _csr_error("Item rows must be at least 0", str(items.min()))
    places = grouped(users, num_users)
    return Ragged(places.offsets, items[places.values].astype(np.int32))


def check_csr(csr: Csr, num_users: int) -> None:
    """Raises `InputError` (`relevance-shape`) unless `csr` describes `num_users`."""
    offsets, indices = csr
    if offsets.shape != (num_users + 1,) or indices.ndim != 1:
        raise _csr_error(
            f"There must be {num_users + 1} offsets for {num_users} users",
            f"offsets {offsets.shape} and indices {indices.shape}",
        )
    falls = bool((np.diff(offsets) < 0).any())
    if falls or offsets[0] != 0 or offsets[-1] != len(indices):
        raise _csr_error(
            f"Offsets must rise from 0 to the number of indices, {len(indices)}",
            f"{offsets[0]} to {offsets[-1]}{', falling in between' if falls else ''}",
        )
    if indices.size and indices.min() < 0:
        raise _csr_error("Item rows must be at least 0", str(indices.min()))


def check_ranking(ranked: NDArray[Any], *, first: int = 0) -> None:
    """Checks shape, type, padding and that no item is twice in a list.

    Args:
        ranked: `(num_users, max_k)`, or a block of it.
        first: number of the block's first list, for the message.

    Raises:
        InputError: `ranking-shape`, `ranking-padding` or `ranking-duplicate`.
    """
    if ranked.ndim != 2 or not _whole(ranked):
        raise InputError(
            "ranking-shape",
            "A ranking must be integers of shape (num_users, max_k). Received:"
            f" {ranked.dtype} of shape {ranked.shape}. Give one list per user.",
        )
    padding = ranked < 0
    wrong = (ranked < -1).any(axis=1) | (padding[:, :-1] & ~padding[:, 1:]).any(axis=1)
    if wrong.any():
        user = int(wrong.argmax())
        raise InputError(
            "ranking-padding",
            "Short lists must be padded with -1 at their end only. Received in list"
            f" {first + user}: {ranked[user].tolist()[:20]}. Move the items"
            " to the front.",
        )
    ordered = np.sort(ranked, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if twice.any():
        user, place = (int(i) for i in np.argwhere(twice)[0])
        raise InputError(
            "ranking-duplicate",
            "An item must stand at most once in a list, or its hits would count twice."
            f" Received: item row {ordered[user, place]} twice in list"
            f" {first + user}. Remove the repetition.",
        )


def popularity_ranking(counts: NDArray[Any], seen: Csr, k: int) -> NDArray[np.int32]:
    """The most counted unseen items of each user: the baseline of every report.

    Args:
        counts: `(num_rows,)` events of each item row; row 0 is never ranked.
        seen: items of each user to leave out, `(offsets, indices)`.
        k: length of the lists.

    Returns:
        `(num_users, k)` int32, best first, ties by the lower row, padded with -1
        where fewer than `k` items are left.

    Raises:
        InputError: `seen` holds a row that `counts` lacks or is no CSR
            (`relevance-shape`), or `k` is below 1 (`k-out-of-range`).
    """
    check_k(k)
    offsets, indices = seen
    check_csr(seen, len(offsets) - 1)
    if indices.size and indices.max() >= len(counts):
        raise _csr_error(f"Item rows must be below {len(counts)}", str(indices.max()))
    order = np.argsort(-np.asarray(counts)[1:], kind="stable") + 1
    place = np.full(len(counts), len(counts))  # row 0 comes last
    place[order] = np.arange(len(order))
    num_seen = np.diff(offsets)
    ranked = np.full((len(num_seen), k), -1, np.int32)
    # Users with equally long histories share a block, so that one long history does
    # not widen the block of everyone.
    by_length = np.argsort(num_seen, kind="stable")
    start = 0
    while start < len(by_length):
        shortest = int(num_seen[by_length[start]])
        users = by_length[start : start + max(1, _CELLS // (shortest + k))]
        users = users[num_seen[users] <= 2 * shortest + k]
        # The first k unseen items are among the first k + num_seen.
        width = min(len(order), int(num_seen[users].max()) + k)
        free = np.ones((len(users), width), bool)
        rows = np.repeat(np.arange(len(users)), num_seen[users])
        places = place[indices[ranges(offsets[users], num_seen[users])]]
        free[rows[places < width], places[places < width]] = False
        taken = free & (np.cumsum(free, axis=1, dtype=np.int32) <= k)
        row, column = np.nonzero(taken)
        slot = np.arange(len(row)) - np.searchsorted(row, np.arange(len(users)))[row]
        ranked[users[row], slot] = order[column]
        start += len(users)
    return ranked


def check_k(k: int) -> None:
    """Raises `InputError` (`k-out-of-range`) unless `k` is at least 1."""
    if k < 1:
        raise InputError(
            "k-out-of-range", f"k must be at least 1. Received: {k}. Ask for one item."
        )


def _whole(*arrays: NDArray[Any]) -> bool:
    return all(np.issubdtype(array.dtype, np.integer) for array in arrays)


def _csr_error(rule: str, received: str) -> InputError:
    return InputError(
        "relevance-shape", f"{rule}. Received: {received}. Use build_csr to make them."
    )

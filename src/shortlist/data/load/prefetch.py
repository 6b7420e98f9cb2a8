"""Values computed ahead by threads and returned in order."""

from __future__ import annotations

import collections
import itertools
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from shortlist import native

Key = TypeVar("Key")
Value = TypeVar("Value")

THREAD_NAME = "shortlist-prefetch"


def prefetch(
    make: Callable[[Key], Value], keys: Iterable[Key], depth: int
) -> Generator[Value, None, None]:
    """Yields `make(key)` for each key in order, computed ahead by threads.

    Closing the iterator cancels what has not started, waits for what has, and ends the
    threads. So does an error of `make`, which is raised in place of its value.

    Args:
        make: called from several threads at once.
        keys: consumed in the caller's thread, `depth` ahead.
        depth: values computed ahead; 0 computes each on request, without threads.
    """
    if not depth:
        yield from map(make, keys)
        return
    workers: set[int] = set()
    executor = ThreadPoolExecutor(
        min(depth, native.default_threads()),
        thread_name_prefix=THREAD_NAME,
        initializer=lambda: workers.add(threading.get_ident()),
    )
    left = iter(keys)
    pending: collections.deque[Future[Value]] = collections.deque()
    try:
        while True:
            for key in itertools.islice(left, depth + 1 - len(pending)):
                pending.append(executor.submit(make, key))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        # The garbage collector may close an abandoned iterator in one of these
        # threads, which cannot wait for itself.
        wait = threading.get_ident() not in workers
        executor.shutdown(wait=wait, cancel_futures=True)

"""Prefetch the items of a generator in a background thread.

Order is kept and the number of prefetched items is bounded, so memory is bounded and results do not change. The thread
ends with the consumer's loop: at the end, at an exception on either side, and when the generator is closed. A thread is
enough because gathers, checksums and page faults run without the GIL.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

Item = TypeVar("Item")


def prefetched(items: Generator[Item, None, None], ahead: int) -> Generator[Item, None, None]:
    """Yield the same items, of which at most `ahead` (at least 1) are produced before they are requested.

    An exception in `items` is raised here after the items before it. `items` is closed in the background thread.
    """
    made: queue.SimpleQueue[tuple[bool, Item | None, BaseException | None]] = queue.SimpleQueue()
    permits = threading.Semaphore(ahead)
    stopped = threading.Event()

    def work() -> None:
        failure: BaseException | None = None
        try:
            permits.acquire()
            for item in items:
                made.put((True, item, None))
                del item  # only the consumer's reference may keep it alive
                permits.acquire()
                if stopped.is_set():
                    break
        except BaseException as error:  # raised again in the consumer's thread
            failure = error
        finally:
            items.close()
            made.put((False, None, failure))

    thread = threading.Thread(target=work, name="shardtrain-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            more, item, failure = made.get()
            if not more:
                break
            permits.release()
            yield item  # type: ignore[misc]
            del item
        if failure is not None:
            raise failure
    finally:
        stopped.set()
        permits.release()
        thread.join()

"""Makes the next items of an iterator in a background thread while the consumer works on this one.

A bounded number of items is ahead, in order, so memory is bounded and nothing about the result changes. The thread ends
with the consumer's loop: at the end, at an exception on either side, and when the generator is closed. It pays because
gathers, checksums and page faults run without the GIL.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import TypeVar

Item = TypeVar("Item")


def prefetched(items: Generator[Item, None, None], ahead: int) -> Generator[Item, None, None]:
    """The same items; at most `ahead` of them (at least 1) are made before they are asked for.

    What `items` raises is raised here, after the items before it. `items` is closed in its own thread.
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
                del item  # the consumer alone decides how long it lives
                permits.acquire()
                if stopped.is_set():
                    break
        except BaseException as error:  # handed to the consumer
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

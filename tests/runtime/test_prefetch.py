"""A background thread makes items ahead: same items, same order, same failures, and it never outlives its consumer."""

from __future__ import annotations

import threading

import pytest

from shardtrain.runtime.prefetch import prefetched


def threads() -> int:
    return sum(thread.name == "shardtrain-prefetch" for thread in threading.enumerate())


@pytest.fixture(autouse=True)
def no_thread_is_left():
    assert threads() == 0
    yield
    assert threads() == 0


def counted(stop: int, log: list[object]):
    try:
        for number in range(stop):
            log.append(number)
            yield number
    finally:
        log.append(threading.current_thread().name)


@pytest.mark.parametrize("ahead", [1, 2, 100])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_the_items_come_in_order(count, ahead):
    assert list(prefetched(counted(count, []), ahead)) == list(range(count))


def test_no_more_items_than_allowed_are_made_before_they_are_asked_for():
    log: list[object] = []
    reached = threading.Event()

    def items():
        for number in range(10):
            log.append(number)
            if number == 3:
                reached.set()
            yield number

    running = prefetched(items(), 3)
    assert next(running) == 0
    assert reached.wait(30)  # 1, 2 and 3 are ahead of the consumer, who has 0
    assert next(running) == 1
    assert max(log) <= 4
    running.close()


def test_closing_ends_the_thread_and_closes_the_items_in_it():
    log: list[object] = []
    running = prefetched(counted(1000, log), 2)
    next(running)
    running.close()
    assert log[-1] == "shardtrain-prefetch"
    assert len(log) < 10


def test_a_consumer_that_raises_ends_the_thread():
    def consume():
        for _ in prefetched(counted(1000, []), 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()


def test_a_failure_comes_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise ValueError("here")

    running = prefetched(items(), 5)
    assert [next(running), next(running)] == [1, 2]
    with pytest.raises(ValueError, match="here"):
        next(running)

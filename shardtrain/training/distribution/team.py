"""Let the workers of a training act as one: what the chief decides, all do, and at the same step.

A `Team` of one worker exchanges nothing, so training on one machine is the same code. All workers call the same
methods in the same order; each call is one message to the chief and one back, some tenths of a millisecond.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from shardtrain.errors import RunError, ShardtrainError, WorkerLostError
from shardtrain.runtime.progress import QUIET, verbosity
from shardtrain.runtime.terminal import tell_now
from shardtrain.training.distribution.channel import Link, gather_workers, reach_chief
from shardtrain.training.distribution.cluster import ALONE, Cluster, this_cluster

_NOTICED = 5.0  # seconds after an error of a collective operation in which the worker that caused it is known
_UNWOUND = 20.0  # seconds after a loss in which this process has to end by itself


class Team:
    """The workers of a training, seen from one of them.

    Attributes:
        cluster: the workers.
        where: the place in the training, for messages.
        advice: what to do when a worker is lost, for messages.
        abort: called when one is lost, to end what waits for it.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.where = "before the training began"
        self.advice = "start all workers again"
        self.abort: Callable[[str], None] = lambda reason: None
        self._links: dict[int, Link] = {}
        self._gone: dict[str, Any] = {}  # which worker has ended, how and why
        self._parted: set[int] = set()  # those that have said farewell
        self._left = False  # whether this one has
        self._needs_others = True
        self._changed = threading.Condition()

    def join(self, seconds: float) -> None:
        """Connect to the others.

        Raises:
            WorkerLostError: some did not appear in time.
            UsageError: they were started differently.
        """
        self._needs_others = True
        if self.size == 1 or self._links:
            return
        found = gather_workers(self.cluster, seconds) if self.is_chief else {0: reach_chief(self.cluster, seconds)}
        self._links = {
            number: Link(connection, functools.partial(self._told, number)) for number, connection in found.items()
        }
        for link in self._links.values():
            link.start()

    @property
    def size(self) -> int:
        """The number of workers."""
        return self.cluster.size

    @property
    def index(self) -> int:
        """The place of this worker, from 0."""
        return self.cluster.index

    @property
    def part(self) -> tuple[int, int]:
        """Which part of each batch is this worker's, of how many."""
        return self.index, self.size

    @property
    def is_chief(self) -> bool:
        """Whether this worker decides and writes files."""
        return self.index == 0

    def exchange(self, mine: Any, combine: Callable[[list[Any]], Any]) -> Any:
        """Send a value to the chief, which combines those of all, in order, and return the result; JSON values.

        Raises:
            WorkerLostError: a worker has ended.
        """
        try:
            if not self.is_chief:
                self._links[0].put({"value": mine})
                return self._links[0].get()
            result = combine([mine, *(self._links[number].get() for number in range(1, self.size))])
        except (EOFError, KeyError):
            raise self.lost() from None
        for link in self._links.values():
            link.put({"value": result})
        return result

    def shared(self, value: Any = None) -> Any:
        """Return the chief's value in all workers."""
        return self.exchange(value, lambda values: values[0])

    def agreed(self, *wishes: bool) -> list[bool]:
        """Return for each wish whether any worker has it."""
        return list(self.exchange(wishes, lambda values: [any(each) for each in zip(*values, strict=True)]))

    def gathered(self, value: Any) -> list[Any]:
        """Return the values of all workers, in order, to the chief; nothing to the others."""
        kept: list[Any] = []
        self.exchange(value, kept.extend)
        return kept

    def release(self) -> None:
        """Go on without the others, as the chief: from now on the end of one is no loss."""
        with self._changed:
            self._needs_others = False

    def dismiss(self) -> None:
        """Answer, as the chief, what the others wait for in `shared`, as far as they are still there."""
        for link in self._links.values():
            with contextlib.suppress(EOFError):
                link.get()
            link.put({"value": True})

    def check(self, problem: str) -> None:
        """Raise the first problem of any worker in all of them.

        Raises:
            RunError: there is one.
        """
        found = self.exchange(problem, lambda values: next(((n, each) for n, each in enumerate(values) if each), None))
        if found:
            self.leave()  # all raise it
            raise RunError(f"{self.cluster.name(found[0])} {found[1]}")

    def lost(self) -> WorkerLostError:
        """Return the error that says which worker has ended, where, and what to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._gone, _NOTICED)
        return WorkerLostError(self._report())

    def _report(self) -> str:
        gone = self._gone
        who = self.cluster.name(gone["worker"]) if gone else "a worker"
        why = f": {gone['why']}" if gone and gone["why"] else ""
        return f"{who} {gone.get('gone', 'was lost')} {self.where}{why}; {self.advice}"

    def explained(self, error: Exception) -> Exception:
        """Return an error of this worker, or, if it is a consequence of another one's end, that; tell the others."""
        if self.size == 1 or isinstance(error, WorkerLostError):
            return error
        if self._gone or type(error).__module__.startswith("tensorflow"):  # a collective operation failed
            with self._changed:
                self._changed.wait_for(lambda: self._gone, _NOTICED)
            if self._gone:
                return self.lost()
        said = error.on_command_line if isinstance(error, ShardtrainError) else f"{type(error).__name__}: {error}"
        self.leave("failed", said)
        return error

    def leave(self, how: str = "", why: str = "") -> None:
        """Part from the others, in peace, or, as said with `how` and `why`, so that they end as well."""
        with self._changed:
            if self._left or not self._links:
                return
            self._left = True
        for link in self._links.values():
            link.put({"gone": how, "why": why, "worker": self.index} if how else {"bye": True})
            link.finish()
        self.abort = lambda reason: None

    def _told(self, number: int, message: Any) -> None:
        """Take note of what a connection's thread received: a farewell, the news of an end, or, None, an end."""
        with self._changed:
            if message and message.get("bye"):
                self._parted.add(number)
            if self._left or self._gone or number in self._parted or not self._needs_others:
                return
            self._gone = message or {"gone": "was lost", "why": "", "worker": number}
            self._changed.notify_all()
        for other, link in self._links.items():
            link.end()
            if other != number:
                link.put(self._gone)
        threading.Thread(target=self._end_in_time, name="shardtrain-end", daemon=True).start()
        with contextlib.suppress(Exception):  # TensorFlow may not have begun
            self.abort(self._report())

    def _end_in_time(self) -> None:
        """End the process if what waits for the lost worker does not end by itself."""
        time.sleep(_UNWOUND)
        if not self._left:
            tell_now(f"error: {self._report()}")
            os._exit(1)


@functools.cache
def _team_of(cluster: Cluster) -> Team:
    """Return the one team of this process: the chief's address is TensorFlow's once the training has begun."""
    team = Team(cluster)
    if cluster.size > 1:
        atexit.register(team.leave)
    return team


@contextlib.contextmanager
def together(seconds: float) -> Iterator[Team]:
    """Yield the team of this process, joined; all workers but the chief are silent in the block.

    An error that is the consequence of another worker's end is raised as that; any other one ends all workers.

    Args:
        seconds: in which all workers have to appear.

    Raises:
        UsageError: TF_CONFIG makes no sense, or the workers were started differently.
        WorkerLostError: a worker did not appear in time, or has ended.
    """
    cluster = this_cluster()
    if cluster.size == 1:
        yield Team(ALONE)
        return
    team = _team_of(cluster)
    with contextlib.nullcontext() if team.is_chief else verbosity(QUIET):
        try:
            team.join(seconds)
            yield team
        except Exception as error:
            found = team.explained(error)
            team.leave()  # what is lost is known: nothing ends this process for it
            if found is error:
                raise
            raise found from error
        except BaseException:
            team.leave("was interrupted")
            raise

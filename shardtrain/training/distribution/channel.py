"""Join the workers of a training over TCP, send small messages, and notice at once when one ends.

Each worker connects to the chief's address before TensorFlow opens its own server on the same port: the chief stops
listening when all are there, and connections that exist stay. So no second port has to be configured. The kernel closes
the connection of a process that ends, however it ends; keep-alive probes find a machine that is gone.

A message is its length in four bytes and JSON. Nothing that is received is executed. As with TensorFlow's own
connections there is no password: the workers trust their network.
"""

from __future__ import annotations

import contextlib
import errno
import json
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from shardtrain.errors import UsageError, WorkerLostError
from shardtrain.runtime.progress import say
from shardtrain.training.distribution.cluster import Cluster, split_address
from shardtrain.version import __version__

_GREETING = "shardtrain worker 1"
_LENGTH = struct.Struct(">I")
_LARGEST = 1 << 26  # bytes of a message
_AGAIN = 0.2  # seconds between attempts to reach the chief
_SHORT = 5.0  # seconds in which whoever connects has to say who it is, and after which waiting is reported
_PROBES = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 5}  # a machine that is gone is noticed in 15 s


class Link:
    """A connection to another worker; a thread receives, so that its end is noticed at once.

    Args:
        connection: open, and greeted.
        received: called by the thread with each message that is not for `get`, and with None at the end.
    """

    def __init__(self, connection: socket.socket, received: Callable[[Any], None]) -> None:
        self._connection = connection
        self._received = received
        self._lock = threading.Lock()
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def start(self) -> None:
        """Begin to receive."""
        threading.Thread(target=self._receive, name="shardtrain-worker", daemon=True).start()

    def put(self, message: Any) -> None:
        """Send a message; one to a worker that has ended is dropped, as its end is reported otherwise."""
        with self._lock, contextlib.suppress(OSError):
            send(self._connection, message)

    def get(self) -> Any:
        """Wait for the next value.

        Raises:
            EOFError: the other one ended.
        """
        found = self._messages.get()
        if found is None:
            self.end()
            raise EOFError
        return found[0]

    def end(self) -> None:
        """Let `get` wait for nothing more."""
        self._messages.put(None)

    def finish(self) -> None:
        """Send nothing more; what was sent arrives, and the connection is closed when the other one does the same."""
        with self._lock, contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def _receive(self) -> None:
        while True:
            try:
                message = receive(self._connection)
            except (OSError, ValueError):
                message = None
            if message is not None and "value" in message:
                self._messages.put((message["value"],))
                continue
            self._received(message)
            if message is None:
                self.end()
                with self._lock:
                    self._connection.close()
                return


def send(connection: socket.socket, message: Any) -> None:
    """Send a message.

    Raises:
        OSError: the other one has ended.
    """
    content = json.dumps(message).encode()
    connection.sendall(_LENGTH.pack(len(content)) + content)


def receive(connection: socket.socket) -> Any:
    """Receive a message; None where the other one has closed the connection.

    Raises:
        OSError: the connection broke.
        ValueError: something else than a message came.
    """
    head = _read(connection, _LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > _LARGEST:
        raise ValueError("no message of a worker")
    content = _read(connection, length)
    if len(content) < length:
        return None
    message = json.loads(content)
    if not isinstance(message, dict):
        raise ValueError("no message of a worker")
    return message


def _read(connection: socket.socket, length: int) -> bytes:
    content = bytearray()
    while len(content) < length and (part := connection.recv(min(length - len(content), 1 << 20))):
        content += part
    return bytes(content)


def greeting(cluster: Cluster) -> dict[str, Any]:
    """Return what a worker says of itself: what has to be the same in all, and its index."""
    return {
        "greeting": _GREETING,
        "workers": list(cluster.addresses),
        "shardtrain": __version__,
        "tensorflow": version("tensorflow"),
        "keras": version("keras"),
        "index": cluster.index,
    }


def gather_workers(cluster: Cluster, seconds: float) -> dict[int, socket.socket]:
    """Wait, as the chief, until all others have connected; return their connections by index.

    Raises:
        WorkerLostError: some did not come in time.
        UsageError: the address is not one of this machine, or in use; or a worker has another version.
    """
    found: dict[int, socket.socket] = {}
    begun, told = time.monotonic(), False
    with _listening(cluster) as listener:
        while len(found) < cluster.size - 1:
            missing = [number for number in range(1, cluster.size) if number not in found]
            waited = time.monotonic() - begun
            if waited > seconds:
                whom = ", ".join(map(cluster.name, missing))
                raise _ended(
                    found,
                    WorkerLostError(
                        f"{whom} did not appear within {seconds:g} s; start all workers, and check that they reach "
                        f"{cluster.name(0)}, or raise --worker-timeout"
                    ),
                )
            if waited > _SHORT and not told:
                say(f"waiting for {', '.join(map(cluster.name, missing))}")
                told = True
            with contextlib.suppress(TimeoutError, OSError):
                listener.settimeout(0.5)
                connection, _ = listener.accept()
                _admit(cluster, connection, found)
    for connection in found.values():
        connection.settimeout(None)
        send(connection, {"welcome": True})
    return found


def _admit(cluster: Cluster, connection: socket.socket, found: dict[int, socket.socket]) -> None:
    """Take a worker in that greets as expected; another program's connection is closed.

    Raises:
        UsageError: a worker was started differently.
    """
    connection.settimeout(_SHORT)
    try:
        hello = receive(connection)
        index = hello["index"] if hello and hello.get("greeting") == _GREETING else None
    except (OSError, ValueError, KeyError):
        index = None
    if not isinstance(index, int) or index not in range(1, cluster.size) or index in found:
        connection.close()
        return
    _keep_alive(connection)
    found[index] = connection
    ours = greeting(cluster)
    for key in ("workers", "shardtrain", "tensorflow", "keras"):
        if hello.get(key) != ours[key]:
            theirs = ", ".join(hello[key]) if isinstance(hello.get(key), list) else hello.get(key)
            mine = ", ".join(ours[key]) if isinstance(ours[key], list) else ours[key]
            what = "TF_CONFIG with the workers" if key == "workers" else key
            raise _ended(
                found, UsageError(f"{cluster.name(index)} has {what} {theirs}; the chief has {mine}: make them equal")
            )


def _ended(found: dict[int, socket.socket], error: Any) -> Any:
    """Tell the workers that are there why it ends; return the error."""
    for connection in found.values():
        with contextlib.suppress(OSError):
            send(connection, {"refused": error.on_command_line})
            connection.close()
    return error


def _listening(cluster: Cluster) -> socket.socket:
    host, port = split_address(cluster.addresses[0])
    for place in (host, ""):  # "": behind a translated address, as in some containers
        family = socket.AF_INET6 if ":" in place else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # so that TensorFlow can listen there later
        try:
            listener.bind((place, port))
            listener.listen(cluster.size)
            return listener
        except OSError as error:
            listener.close()
            if error.errno == errno.EADDRINUSE:
                raise UsageError(
                    f"the port of {cluster.name(0)}, which is this process, is in use; choose another one"
                ) from error
            if not place:
                raise UsageError(f"{cluster.name(0)}: {error.strerror}; name an address of this machine") from error
    raise AssertionError("the last place raises")


def reach_chief(cluster: Cluster, seconds: float) -> socket.socket:
    """Connect to the chief and wait until all workers are there; return the connection.

    Raises:
        WorkerLostError: the chief does not answer in time, or ends.
        UsageError: it refuses this worker.
    """
    place, deadline, reason = split_address(cluster.addresses[0]), time.monotonic() + seconds, "no answer"
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.ExitStack() as failing:
            try:
                connection = failing.enter_context(socket.create_connection(place, timeout=min(left, _SHORT)))
                connection.settimeout(left)
                _keep_alive(connection)
                send(connection, greeting(cluster))
                answer = receive(connection)
            except TimeoutError:
                reason = "no answer"
            except OSError as error:
                reason = error.strerror or str(error)
            except ValueError:
                reason = "something else answers there"
            else:
                if answer and answer.get("welcome"):
                    connection.settimeout(None)
                    failing.pop_all()
                    return connection
                if answer and "refused" in answer:
                    raise WorkerLostError(str(answer["refused"]))
                reason = "it closed the connection"
        time.sleep(_AGAIN)
    raise WorkerLostError(
        f"{cluster.name(0)}, the chief, did not appear within {seconds:g} s ({reason}); start all workers, and check "
        "the address, or raise --worker-timeout"
    )


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES.items():
        if hasattr(socket, name):  # Linux has all
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

"""Start the workers of a training on this machine, on loopback addresses, and end all when one ends.

The chief has the streams of this process. What the others print is kept, and shown only where the chief had no chance
to say what happened: it was killed, or a worker failed before it had joined.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO, Any

from shardtrain.errors import UsageError
from shardtrain.runtime.terminal import tell
from shardtrain.training.distribution.cluster import VARIABLE, Cluster

HOST = "127.0.0.1"
_PORTS = range(20000, 32768)  # below those that Linux gives to connections, which would take them meanwhile
_POLL = 0.1  # seconds
_ENDING = 30.0  # seconds in which all others end by themselves when one has ended
_ENDING_KILLED = 15.0  # or was killed, when the chief has noticed it at once, unless they had not joined yet
_GPUS = "CUDA_VISIBLE_DEVICES"
# The command line in a process that ends when its standard input does.
_COMMAND = """
import sys
sys.argv[0] = "shardtrain"  # as who holds the run folder is described
from shardtrain.runtime.process import end_with_parent
end_with_parent()
from shardtrain.cli.start import main
sys.exit(main())
"""


def run_local(number: int, words: Sequence[str]) -> int:
    """Run a command in so many workers; return the exit code of the chief, or of the one that ended all.

    Args:
        number: of workers.
        words: of the command, such as ["fit", "shards"].
    """
    addresses = tuple(f"{HOST}:{port}" for port in free_ports(number))
    with tempfile.TemporaryDirectory(prefix="shardtrain-launch-") as folder:
        printed = [open(os.path.join(folder, str(index)), "w+b") for index in range(1, number)]  # noqa: SIM115
        workers = [
            _start(Cluster(addresses=addresses, index=index), words, printed[index - 1] if index else None)
            for index in range(number)
        ]
        try:
            return _wait(workers, printed)
        finally:
            for worker in workers:
                worker.kill()
                worker.communicate()
            for file in printed:
                file.close()


def free_ports(number: int, host: str = HOST) -> list[int]:
    """Return ports of an address of this machine that are free now.

    Raises:
        UsageError: there are not so many.
    """
    found = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == number:
            return found
    raise UsageError(f"there are no {number:,} free ports for --local; start fewer workers")


def start_worker(cluster: Cluster, words: Sequence[str], **how: Any) -> subprocess.Popen[bytes]:
    """Start a worker that ends with this process, however that ends.

    It has a process group of its own: what a terminal sends comes to it from this process alone.

    Args:
        cluster: that says which one it is.
        words: of the command.
        how: other arguments of `subprocess.Popen`.
    """
    return subprocess.Popen(
        [sys.executable, "-c", _COMMAND, *words],
        stdin=subprocess.PIPE,
        process_group=0,
        **{**how, "env": {**os.environ, **how.get("env", {}), VARIABLE: cluster.as_tf_config()}},
    )


def _start(cluster: Cluster, words: Sequence[str], prints_to: IO[bytes] | None) -> subprocess.Popen[bytes]:
    """Start a worker with its share of the GPUs; the chief prints to the streams of this process."""
    gpus = [each for each in os.environ.get(_GPUS, "").split(",") if each]
    each = len(gpus) // cluster.size
    mine = {_GPUS: ",".join(gpus[cluster.index * each : (cluster.index + 1) * each])} if each else {}
    return start_worker(cluster, words, env=mine, stdout=prints_to and subprocess.DEVNULL, stderr=prints_to)


def _wait(workers: Sequence[subprocess.Popen[bytes]], printed: Sequence[IO[bytes]]) -> int:
    """Wait until all have ended, and pass interruptions on; return the exit code."""
    first: int | None = None  # that ended other than with success
    ended_at, stopped = None, False
    while any(worker.poll() is None for worker in workers):
        try:
            ended = [number for number, worker in enumerate(workers) if worker.poll() is not None]
            failed = [number for number in ended if workers[number].returncode]
            if failed and first is None:
                first = failed[0]
            if ended and ended_at is None and (first is not None or 0 in ended):
                ended_at = time.monotonic()
            most = _ENDING_KILLED if any(workers[number].returncode < 0 for number in ended) else _ENDING
            if ended_at is not None and time.monotonic() - ended_at > most:
                stopped = stopped or workers[0].poll() is None
                _send(workers, signal.SIGKILL)
            time.sleep(_POLL)
        except KeyboardInterrupt:  # once: all save and end; twice: all end
            _send(workers, signal.SIGINT)
    chief = workers[0].returncode
    if first is None:
        first = next((number for number, worker in enumerate(workers) if worker.returncode), 0)
    if chief < 0 or stopped:
        code = workers[first].returncode
        teller = first or next((number for number, file in enumerate(printed, 1) if os.fstat(file.fileno()).st_size), 0)
        lines = _read(printed[teller - 1]) if teller else []
        if code < 0 and not any(line.startswith("error:") for line in lines):
            lines.append(
                f"error: worker {first} was killed by signal {-code}, and the others were ended; run the same command "
                "again, which goes on from the last checkpoint"
            )
        tell(*lines)
        return code if code > 0 else 1
    return chief


def _read(file: IO[bytes]) -> list[str]:
    """Return the lines that a worker printed."""
    file.seek(0)
    return file.read().decode(errors="replace").splitlines()


def _send(workers: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(number)

"""Laws of everything that writes a file itself: whichever call fails, the error names the file and nothing is left."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faulted import FULL, SURVIVED, Fault, faults_of
from support.forked import Forking, forking
from support.supervised import Call, supervised

_LOADED = """
import h5py, numpy, support.supervised, shardtrain.shards.write
import shardtrain.arrays.scratch, shardtrain.runtime.atomic
"""
_WRITTEN = """
import sys
from pathlib import Path
import numpy as np
from shardtrain.errors import DiskFullError, StorageError

def write(path):
    {body}

try:
    write(Path("file"))
except StorageError as error:
    print(type(error).__name__, error)
    sys.exit(1)
"""
WRITERS = {
    "commit": """
    from shardtrain.runtime.atomic import committed
    with committed(path) as file:
        file.write(b"x" * 20_000)
        file.seek(10)
        file.write(b"y")
        file.truncate(15_000)
        file.seek(0)
        assert file.read(11) == b"x" * 10 + b"y"
    """,
    "scratch file": """
    from shardtrain.arrays.scratch import spill
    spill(path, {"small": np.arange(3), "none": np.zeros(0), "large": np.arange(5000)}, {"fact": 1})
    """,
    "scratch file in pieces": """
    from shardtrain.arrays.scratch import spilling
    with spilling(path, {"a": (np.int64, (3000,)), "b": (np.uint8, (9, 2))}) as out:
        out.append(a=np.arange(2000), b=np.ones((2, 2)))
        out.append(b=np.ones((3, 2)), a=np.arange(500))
    """,
    "shard": """
    from shardtrain.shards.write import ShardShape, new_shard
    sizes = {"rows": 9, "num_features": 2, "nonzeros": 0, "num_classes": 3, "vocabulary_size": 0}
    with new_shard(path, ShardShape(kind="dense", **sizes)) as writer:
        writer.append(np.ones((9, 2), np.float32), np.arange(9) % 3, np.arange(9))
    """,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    with forking(tmp_path_factory.mktemp("writers"), _LOADED) as server:
        yield server


@pytest.mark.parametrize("name", WRITERS)
def test_whichever_call_fails_the_error_names_the_file_and_nothing_is_left(
    server: Forking, tmp_path: Path, name: str
) -> None:
    """A call that a signal interrupts, or that does a part of its work, is made again."""
    code = _WRITTEN.format(body=WRITERS[name].strip())

    def run(fault: Fault | None) -> tuple[list[Call], str, dict[str, bytes]]:
        for left in tmp_path.iterdir():
            left.unlink()
        calls: list[Call] = []

        def decide(call: Call) -> int:
            if not Path(call.path).is_relative_to(tmp_path):
                return 0
            calls.append(call)
            number = sum(each.kind == call.kind for each in calls)
            if not fault or (call.kind, number) != (fault.kind, fault.number):
                return 0
            return errno.ENOSPC if fault.error == FULL else fault.error

        done = supervised(server, decide, code=code, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (1 if done.stdout else 0, b""), (fault, done.stderr)
        return calls, done.stdout.decode(), {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    calls, said, whole = run(None)
    assert (said, list(whole)) == ("", ["file"])
    faults = faults_of(calls)
    assert {fault.error for fault in faults} >= {errno.EIO, *SURVIVED}
    for fault in faults:
        _, said, left = run(fault)
        if fault.error in SURVIVED:
            assert (said, left) == ("", whole), fault
        elif said:
            full = fault.error in (errno.ENOSPC, FULL)
            assert said.startswith("DiskFullError" if full else "StorageError"), (fault, said)
            assert "'file'" in said or (fault.kind == "open" and "'.' could not be read" in said), fault
            assert left == {} or (left == whole and "is there and complete" in said), fault
        else:
            assert left == whole, fault

"""A call that fails while libhdf5 lays out a shard is an error of ours, and the process ends well."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Fails every call once, each in a file of its own, and counts what came of it.
CODE = """
    import errno, os, sys
    from pathlib import Path
    from support.handmade import make_rows, write_shard
    from shardtrain.errors import StorageError
    from shardtrain.shards import descriptor_file

    made, failing = 0, 0

    def counted(real):
        def call(*arguments):
            global made
            made += 1
            if made == failing:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*arguments)
        return call

    os.ftruncate = counted(os.ftruncate)
    for name in ("write_all", "read_into"):
        setattr(descriptor_file, name, counted(getattr(descriptor_file, name)))
    folder, kind, outcomes = Path(sys.argv[1]), sys.argv[2], []
    while True:
        made, failing = 0, failing + 1
        try:
            write_shard(folder / f"{failing}.h5", make_rows(kind, 200))
        except StorageError as error:
            outcomes.append("Input/output error (write by libhdf5)" in str(error))
        if made < failing:
            break
    print(len(outcomes), all(outcomes), len(list(folder.iterdir())))
"""


@pytest.mark.parametrize("kind", ["ngram", "sequence"])
def test_every_call_of_libhdf5_may_fail(kind: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CODE), str(tmp_path), kind],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    number, all_named, left = done.stdout.split()
    assert int(number) > 5
    assert all_named == "True"
    assert left == "1"  # the last, in which nothing failed

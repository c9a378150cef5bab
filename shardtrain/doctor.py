"""What this installation and machine have: for people who wonder why something is slow, missing or refused.

Nothing heavy is imported, so that it works where an import is what fails: versions come from the packages' metadata,
and TensorFlow is tried in a process of its own, which may crash. The disk is measured with a file that has no name and
is gone however this ends.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from shardtrain.errors import UsageError
from shardtrain.runtime.machine import cores, machine_memory_bytes, memory_bytes
from shardtrain.version import __version__

NEEDED = ("h5py", "numba", "numpy", "scipy", "tensorflow", "tqdm", "xxhash")
EXTRAS = {  # extra: what it is for, and its packages; a test compares both lists with pyproject.toml
    "completion": ("completing commands and options in a shell (completion)", ("shtab",)),
    "compress": ("compressed shards (--compress, recompress)", ("blosc2", "hdf5plugin", "lz4", "zstandard")),
    "parquet": ("Parquet files in convert and predict", ("pyarrow",)),
    "sklearn": ("ShardClassifier, the scikit-learn estimator", ("scikit-learn",)),
    "tensorboard": ("curves in TensorBoard (fit --tensorboard)", ("tensorboard",)),
    "tune": ("trying sizes and rates (tune)", ("optuna",)),
}
DISK_BYTES = 256 << 20  # written at the most
DISK_SECONDS = 3.0  # of writing at the most
DISK_SHARE = 10  # of the free space at the most one in so many bytes
_PIECE = 4 << 20
_TRY_SECONDS = 300  # a first import from a slow disk can take a minute
_TRY = """
import json
import tensorflow as tf, keras
names = [tf.config.experimental.get_device_details(each).get("device_name", each.name)
         for each in tf.config.list_physical_devices("GPU")]
print(json.dumps({"tensorflow": tf.__version__, "keras": keras.__version__, "gpus": names}))
"""


@dataclass(frozen=True, kw_only=True)
class Extra:
    """An extra: what it is for, versions of its packages (None: not installed), and how to get what is missing."""

    purpose: str
    packages: dict[str, str | None]
    install: str | None


@dataclass(frozen=True, kw_only=True)
class TensorFlow:
    """Whether TensorFlow works: its and Keras' version and the GPUs that it sees, or what is wrong."""

    tensorflow: str | None = None
    keras: str | None = None
    gpus: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Disk:
    """A folder's disk; speeds in bytes a second, None where nothing could be measured."""

    folder: str
    free_bytes: int
    measured_bytes: int = 0
    write: float | None = None
    read: float | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What was found.

    Attributes:
        python: version, and where it is.
        shardtrain: version.
        packages: versions of what is needed; None: not installed.
        tensorflow: whether it works.
        extras: by name.
        cores: that this process may use.
        machine_cores: of the machine.
        memory_bytes: that this process may use, which a control group may limit.
        machine_memory_bytes: of the machine.
        disk: of the folder that was asked for.
    """

    python: str
    shardtrain: str
    packages: dict[str, str | None]
    tensorflow: TensorFlow
    extras: dict[str, Extra]
    cores: int
    machine_cores: int
    memory_bytes: int
    machine_memory_bytes: int
    disk: Disk

    @property
    def problems(self) -> list[str]:
        """What keeps shardtrain from working, each with the next step."""
        missing = [name for name, version in self.packages.items() if version is None]
        found = [f"not installed: {' '.join(missing)}; run: pip install --upgrade shardtrain"] if missing else []
        return [*found, *filter(None, [self.tensorflow.problem, self.disk.problem])]


def examine(folder: Path) -> Examination:
    """Look at the installation, the machine, and the disk of a folder.

    Raises:
        UsageError: there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"'{folder}' is no folder; name one that exists on the disk that is to be measured")
    return Examination(
        python=f"{platform.python_version()}, {sys.executable}",
        shardtrain=__version__,
        packages={name: version_of(name) for name in NEEDED},
        tensorflow=try_tensorflow(sys.executable),
        extras={name: _extra(name, purpose, packages) for name, (purpose, packages) in EXTRAS.items()},
        cores=cores(),
        machine_cores=os.cpu_count() or 1,
        memory_bytes=memory_bytes(),
        machine_memory_bytes=machine_memory_bytes(),
        disk=measure_disk(folder),
    )


def version_of(package: str) -> str | None:
    """The version of an installed package; None where it is not installed. TensorFlow goes by several names."""
    names = ("tensorflow", "tensorflow-cpu", "tf-nightly") if package == "tensorflow" else (package,)
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _extra(name: str, purpose: str, packages: tuple[str, ...]) -> Extra:
    versions = {package: version_of(package) for package in packages}
    install = f"pip install 'shardtrain[{name}]'" if None in versions.values() else None
    return Extra(purpose=purpose, packages=versions, install=install)


def try_tensorflow(python: str) -> TensorFlow:
    """Import TensorFlow and look for GPUs, in a new process of that interpreter."""
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(
            [python, "-c", _TRY], capture_output=True, text=True, errors="replace", env=quiet, timeout=_TRY_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return TensorFlow(problem=f"TensorFlow could not be tried: {error}")
    if done.returncode == 0:
        found = json.loads(done.stdout.splitlines()[-1])
        return TensorFlow(tensorflow=found["tensorflow"], keras=found["keras"], gpus=tuple(found["gpus"]))
    said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
    how = f"it was ended by signal {-done.returncode}" if done.returncode < 0 else said[-1].strip()
    return TensorFlow(
        problem=f"TensorFlow cannot be imported ({how}), so nothing can be trained or predicted, but shards can be "
        "built; run: pip install --upgrade --force-reinstall tensorflow"
    )


def measure_disk(folder: Path) -> Disk:
    """Write a file to a folder's disk and read it again, past the page cache; for a few seconds and MiB at the most."""
    stat = os.statvfs(folder)
    free = stat.f_bavail * stat.f_frsize
    size = min(DISK_BYTES, free // DISK_SHARE) // _PIECE * _PIECE
    if not size:
        return Disk(folder=str(folder), free_bytes=free, problem=f"the disk of '{folder}' is nearly full")
    try:
        written, write, read = _timed(folder, size)
    except OSError as error:
        return Disk(
            folder=str(folder), free_bytes=free, problem=f"'{folder}' cannot be written to: {error.strerror or error}"
        )
    return Disk(folder=str(folder), free_bytes=free, measured_bytes=written, write=write, read=read)


def _timed(folder: Path, size: int) -> tuple[int, float, float]:
    """Bytes written, and how many a second were written and read."""
    piece = os.urandom(_PIECE)  # a disk that compresses gains nothing
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        written, began = 0, time.perf_counter()
        while written < size and time.perf_counter() - began < DISK_SECONDS:
            written += file.write(piece)
        os.fsync(file.fileno())
        write = written / (time.perf_counter() - began)
        if hasattr(os, "posix_fadvise"):  # elsewhere it is the page cache that is measured
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        began, left = time.perf_counter(), written
        while left:
            left -= len(file.read(_PIECE))
        return written, write, written / (time.perf_counter() - began)

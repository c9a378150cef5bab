"""Examine the installation and the machine: versions, cores, memory, disk speed, GPUs, extras.

No heavy package is imported, so that it works where an import fails: versions come from the packages' metadata, and
TensorFlow is tried in a child process, which may crash. Disk speed is measured with an unnamed temporary file.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from shardtrain.errors import UsageError
from shardtrain.runtime.backend import EXPECTED, backend_problem
from shardtrain.runtime.engines.examine import EngineExamined, examine_engine
from shardtrain.runtime.engines.names import ExecutorName
from shardtrain.runtime.machine import cores, machine_memory_bytes, memory_bytes
from shardtrain.runtime.system import description
from shardtrain.version import __version__

NEEDED = ("h5py", "keras", "numba", "numpy", "scipy", "tensorflow", "tqdm", "xxhash")
EXTRAS = {  # extra: its purpose and packages; a test compares both lists with pyproject.toml
    "completion": ("completing commands and options in a shell (completion)", ("shtab",)),
    "compress": ("compressed shards (--compress, recompress)", ("blosc2", "hdf5plugin", "lz4", "zstandard")),
    "dask": ("workers of a Dask scheduler (--executor dask:ADDRESS)", ("distributed",)),
    "onnx": ("ONNX graphs of export", ("onnx",)),
    "parquet": ("Parquet files in build, convert and predict", ("pyarrow",)),
    "ray": ("workers of a Ray cluster (--executor ray)", ("ray",)),
    "sklearn": ("ShardClassifier, the scikit-learn estimator", ("scikit-learn",)),
    "tensorboard": ("curves in TensorBoard (fit --tensorboard)", ("tensorboard",)),
    "tune": ("trying sizes and rates (tune)", ("optuna",)),
}
_DISK_BYTES = 256 << 20  # maximum to write
_DISK_SECONDS = 3.0  # maximum time of writing
_DISK_SHARE = 10  # at most 1/10 of the free space is written
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
    """An extra: its purpose, the versions of its packages (None: not installed), and the command to install it."""

    purpose: str
    packages: dict[str, str | None]
    install: str | None


@dataclass(frozen=True, kw_only=True)
class TensorFlow:
    """Versions of TensorFlow and Keras and the GPUs they see, or why TensorFlow does not work."""

    tensorflow: str | None = None
    keras: str | None = None
    gpus: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Disk:
    """The disk of a folder; speeds in bytes per second, None if they could not be measured."""

    folder: str
    free_bytes: int
    measured_bytes: int = 0
    write: float | None = None
    read: float | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Examination:
    """All findings.

    `system` is the operating system and the processor, and how far shardtrain was tested on them. `packages` has the
    versions of required packages, None if not installed; `backend` says what keeps Keras from running on TensorFlow
    although it is installed, empty if nothing does; `cores` and `memory_bytes` are what this process may use, which a
    control group may limit, the other two are the machine's. `executor` is the engine that was tried, if any.
    """

    system: str
    python: str
    shardtrain: str
    packages: dict[str, str | None]
    tensorflow: TensorFlow
    backend: str
    extras: dict[str, Extra]
    cores: int
    machine_cores: int
    memory_bytes: int
    machine_memory_bytes: int
    disk: Disk
    executor: EngineExamined | None = None

    @property
    def problems(self) -> list[str]:
        """List what keeps shardtrain from working, each with the next step."""
        missing = [name for name, version in self.packages.items() if version is None]
        found = [f"not installed: {' '.join(missing)}; run: pip install --upgrade shardtrain"] if missing else []
        tried = self.executor.problem if self.executor else None
        return [*found, *filter(None, [self.tensorflow.problem, self.backend, self.disk.problem, tried])]


def examine(folder: Path, executor: ExecutorName | None = None) -> Examination:
    """Examine the installation, the machine, the disk of a folder, and an executor.

    Args:
        folder: on the disk to measure; workers of the executor should see it.
        executor: to try; None or one of this machine: none is tried.

    Raises:
        UsageError: the folder does not exist, or the executor cannot be made.
        MissingExtraError: the executor's package is not installed.
    """
    if not folder.is_dir():
        raise UsageError(f"'{folder}' is not a folder; name an existing folder on the disk to measure")
    return Examination(
        system=description(),
        python=f"{platform.python_version()}, {sys.executable}",
        shardtrain=__version__,
        packages={name: _version_of(name) for name in NEEDED},
        tensorflow=try_tensorflow(sys.executable),
        backend=backend_problem(),
        extras={name: _extra(name, purpose, packages) for name, (purpose, packages) in EXTRAS.items()},
        cores=cores(),
        machine_cores=os.cpu_count() or 1,
        memory_bytes=memory_bytes(),
        machine_memory_bytes=machine_memory_bytes(),
        disk=measure_disk(folder),
        executor=None if executor is None or executor.local else examine_engine(executor, folder),
    )


def _version_of(package: str) -> str | None:
    names = ("tensorflow", "tensorflow-cpu", "tf-nightly") if package == "tensorflow" else (package,)
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


def _extra(name: str, purpose: str, packages: tuple[str, ...]) -> Extra:
    versions = {package: _version_of(package) for package in packages}
    install = f"pip install 'shardtrain[{name}]'" if None in versions.values() else None
    return Extra(purpose=purpose, packages=versions, install=install)


def try_tensorflow(python: str) -> TensorFlow:
    """Import TensorFlow and list GPUs in a child process of that interpreter, whatever backend Keras would use."""
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": EXPECTED}
    try:
        done = subprocess.run(
            [python, "-c", _TRY], capture_output=True, text=True, errors="replace", env=quiet, timeout=_TRY_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return TensorFlow(problem=f"TensorFlow could not be tried: {error}")
    if done.returncode == 0:
        found = json.loads(done.stdout.splitlines()[-1])
        return TensorFlow(**{**found, "gpus": tuple(found["gpus"])})
    lines = done.stderr.split("\n") if done.returncode > 0 else [f"it was ended by signal {-done.returncode}"]
    reason = next((line.strip() for line in reversed(lines) if line.strip()), "no message")
    return TensorFlow(
        problem=f"TensorFlow cannot be imported ({reason}), so nothing can be trained or predicted, but shards can be "
        "built; run: pip install --upgrade --force-reinstall tensorflow"
    )


def measure_disk(folder: Path) -> Disk:
    """Write a file to a folder's disk and read it again, bypassing the page cache, within limits of time and size."""
    free = shutil.disk_usage(folder).free
    size = min(_DISK_BYTES, free // _DISK_SHARE) // _PIECE * _PIECE
    if not size:
        return Disk(folder=str(folder), free_bytes=free, problem=f"the disk of '{folder}' is nearly full")
    piece = os.urandom(_PIECE)  # incompressible
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            written, began = 0, time.perf_counter()
            while written < size and time.perf_counter() - began < _DISK_SECONDS:
                written += file.write(piece)
            os.fsync(file.fileno())
            wrote = time.perf_counter()
            if hasattr(os, "posix_fadvise"):  # elsewhere the page cache is measured
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            began_reading = time.perf_counter()
            while file.read(_PIECE):
                pass
            reading = time.perf_counter() - began_reading
    except OSError as error:
        problem = f"'{folder}' cannot be written to: {error.strerror or error}"
        return Disk(folder=str(folder), free_bytes=free, problem=problem)
    return Disk(
        folder=str(folder),
        free_bytes=free,
        measured_bytes=written,
        write=written / (wrote - began),
        read=written / reading,
    )

"""`doctor`: check this installation and machine, and show what is missing."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from shardtrain.cli.arguments import options_from
from shardtrain.cli.command import Argument, Command
from shardtrain.cli.results import show
from shardtrain.runtime.options import ExecutorOptions
from shardtrain.runtime.quantities import size

if TYPE_CHECKING:
    from shardtrain.doctor import Examination, Extra
    from shardtrain.runtime.engines.examine import EngineExamined


def run(args: argparse.Namespace) -> int:
    """Run the checks, and print the results."""
    from dataclasses import asdict

    from shardtrain.doctor import examine

    found = examine(args.folder, options_from(args, ExecutorOptions).executor_name)
    processes = "executor" in args.given and found.executor is None
    show(args.json, {**asdict(found), "problems": found.problems}, *_lines(found, processes=processes))
    return 1 if found.problems else 0


def _lines(found: Examination, *, processes: bool) -> Iterator[str]:
    """Yield the lines; `processes`: those of this machine are asked for as the executor."""
    works, disk, gib = found.tensorflow, found.disk, 1 << 30
    yield f"shardtrain   {found.shardtrain}"
    yield f"system       {found.system}"
    yield f"python       {found.python}"
    yield f"packages     {_versions(found.packages)}"
    if works.problem is None:
        yield f"training     works: TensorFlow {works.tensorflow}, Keras {works.keras}"
        yield f"GPU          {', '.join(works.gpus) or 'none found; the processor trains'}"
    yield f"cores        {found.cores}{_of_machine(found.cores, found.machine_cores, '{:d}')}"
    memory = found.memory_bytes / gib, found.machine_memory_bytes / gib
    yield f"memory       {memory[0]:.1f} GiB{_of_machine(*memory, '{:.1f} GiB')}"
    speeds = ""
    if disk.write is not None and disk.read is not None:
        speeds = f"; writes {size(disk.write)}/s, reads {size(disk.read)}/s ({size(disk.measured_bytes)})"
    yield f"disk         '{disk.folder}': {size(disk.free_bytes)} free{speeds}"
    if found.executor is not None:
        yield from _executor_lines(found.executor)
    elif processes:
        yield f"executor     processes of this machine, by default one per core; it has {_number(found.cores, 'core')}"
    yield "extras"
    for name, extra in found.extras.items():
        yield _extra(name, extra)
    for problem in found.problems:
        yield f"problem      {problem}"
    if not found.problems:
        yield "everything that shardtrain needs is installed"


def _executor_lines(found: EngineExamined) -> Iterator[str]:
    if not found.nodes:
        yield f"executor     {found.name}: no worker was reached"
        return
    limit = f", at most {found.worker_bytes >> 20:,} MiB of memory per worker" if found.worker_bytes else ""
    yield f"executor     {found.name}: {_number(len(found.nodes), 'machine')}, {found.slots} tasks at once{limit}"
    for node in found.nodes:
        sees = "sees the folder" if node.shared else "does NOT see the folder"
        yield (
            f"  {node.host:<12} {_number(node.workers, 'worker')}, {_number(node.cores, 'core')}, "
            f"{node.memory_bytes / (1 << 30):.1f} GiB of memory, {_versions(node.versions)}; {sees}"
        )


def _number(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _versions(packages: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {version or 'MISSING'}" for name, version in packages.items())


def _of_machine(usable: float, total: float, form: str) -> str:
    return f" of the machine's {form.format(total)}" if usable < total else ""


def _extra(name: str, extra: Extra) -> str:
    how = "installed" if extra.install is None else f"not installed: {extra.install}"
    return f"  {name:<12} {extra.purpose}; {how}"


COMMAND = Command(
    name="doctor",
    help="show versions, machine, disk speed and what is missing",
    description="Show versions, cores, memory, the speed of a disk, GPUs, and what the extras are for. Exit code 1 if "
    "something that shardtrain needs is missing. --executor tries workers elsewhere: what they are, and whether they "
    "see the folder.",
    run=run,
    options=(ExecutorOptions,),
    arguments=(
        Argument(
            name="folder",
            metavar="DIR",
            nargs="?",
            default=Path(),
            help="measure the disk of this folder, with at most 256 MiB that leave no trace (default: the current "
            "folder)",
        ),
    ),
    examples="""\
python -m shardtrain doctor
python -m shardtrain doctor /big/disk --json
python -m shardtrain doctor /shared/disk --executor dask:tcp://10.0.0.1:8786""",
)

"""Say which worker this process is from the variables that Slurm, Kubernetes' indexed jobs and MPI set.

All compute the same list of addresses without talking to each other. What a launcher says of this process' place is
compared with the list, so another placement than assumed is an error, not a training that waits for nobody.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence

from shardtrain.errors import UsageError
from shardtrain.runtime.schema import shown
from shardtrain.training.distribution.cluster import LAST_PORT, Cluster, address_of

# Rank, number of ranks, and rank on its host, by Open MPI; by MPICH and Intel MPI.
_MPI = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
)


def slurm_cluster(environment: Mapping[str, str], port: int) -> Cluster:
    """Return the tasks of a Slurm step as workers.

    Raises:
        UsageError: the variables of a step are missing, or tasks are not placed node by node.
    """
    names = ("SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE")
    _, nodes, tasks = _values(environment, names, "--slurm", "start it with `srun`")
    hosts, counts = expanded(nodes), [count for part in tasks.split(",") for count in _repeated(part)]
    if len(hosts) != len(counts):
        raise UsageError(
            f"the variables of Slurm contradict each other: {names[1]} is '{nodes}', number of nodes {len(hosts)}, but "
            f"{names[2]} is '{tasks}', number of nodes {len(counts)}"
        )
    placed = [host for host, count in zip(hosts, counts, strict=True) for _ in range(count)]
    rank, local = _number(environment, names[0]), _number_if_set(environment, "SLURM_LOCALID")
    return _cluster(placed, rank, port, local, "srun with --distribution=block")


def kubernetes_cluster(environment: Mapping[str, str], workers: int, full_name: str, port: int) -> Cluster:
    """Return the pods of an indexed job as workers.

    Args:
        environment: variables.
        workers: completions of the job.
        full_name: of this pod's host, such as "train-0.workers.default.svc.cluster.local".
        port: of each worker.

    Raises:
        UsageError: this is no pod of such a job, or it has no subdomain.
    """
    advice = "start it as a Job with `completionMode: Indexed`"
    (index,) = _values(environment, ("JOB_COMPLETION_INDEX",), "--kubernetes", advice)
    name, _, domain = full_name.partition(".")
    if not domain or not name.endswith(f"-{index}"):
        raise UsageError(
            f"--kubernetes needs host names such as job-{index}.service.…, this pod is '{full_name}'; set `subdomain` "
            "in the pod's specification to the name of a headless service"
        )
    job = name.removesuffix(f"-{index}")
    number = _number(environment, "JOB_COMPLETION_INDEX")
    if number >= workers:
        raise UsageError(f"--kubernetes {workers} says that there are so many pods, this is number {number}")
    addresses = tuple(f"{job}-{each}.{domain}:{port}" for each in range(workers))
    return Cluster(addresses=addresses, index=number)


def mpi_cluster(environment: Mapping[str, str], hosts: Sequence[str], port: int) -> Cluster:
    """Return the ranks of MPI as workers, as many on each host.

    Raises:
        UsageError: the variables of a rank are missing, or ranks are placed differently.
    """
    names = next((names for names in _MPI if names[0] in environment), None)
    if names is None:
        raise UsageError(f"--mpi needs the variables of mpirun, such as {_MPI[0][0]}; start it with `mpirun`")
    _values(environment, names[:2], "--mpi", "start it with `mpirun`")
    rank, size = (_number(environment, name) for name in names[:2])
    local = _number_if_set(environment, names[2])
    if size % len(hosts):
        raise UsageError(f"--mpi names {len(hosts)} hosts, and {size} ranks do not divide evenly among them")
    each = size // len(hosts)
    return _cluster([host for host in hosts for _ in range(each)], rank, port, local, "mpirun with --map-by slot")


def expanded(nodes: str) -> list[str]:
    """Return the names in a list of Slurm, such as "node[01-03,7],login".

    Raises:
        UsageError: it is none.
    """
    parts = re.findall(r"((?:[^,\[\]]|\[[^\]]*\])+)(?:,|$)", nodes)
    if ",".join(parts) != nodes:
        raise UsageError(f"'{nodes}' is no list of nodes of Slurm")
    return [name for part in parts for name in _expanded(part)]


def _expanded(part: str) -> Iterator[str]:
    pieces = re.split(r"\[([^\]]*)\]", part)
    choices = [[piece] if number % 2 == 0 else list(_numbers(piece)) for number, piece in enumerate(pieces)]
    return ("".join(each) for each in itertools.product(*choices))


def _numbers(text: str) -> Iterator[str]:
    for each in text.split(","):
        if not re.fullmatch("[0-9]{1,9}(-[0-9]{1,9})?", each):
            raise UsageError(f"'[{text}]' is no range of nodes of Slurm")
        first, _, last = each.partition("-")
        for number in range(int(first), int(last or first) + 1):
            yield str(number).zfill(len(first))


def _repeated(part: str) -> list[int]:
    match = re.fullmatch(r"([0-9]{1,6})(?:\(x([0-9]{1,6})\))?", part)
    if match is None:
        raise UsageError(f"'{part}' is no number of tasks of Slurm")
    return [int(match[1])] * int(match[2] or 1)


def _values(environment: Mapping[str, str], names: Sequence[str], option: str, advice: str) -> list[str]:
    if missing := [name for name in names if not environment.get(name)]:
        raise UsageError(f"{option} needs the variable {missing[0]}, which is not set; {advice}")
    return [environment[name] for name in names]


def _number(environment: Mapping[str, str], name: str) -> int:
    """Return the number in a variable that is set.

    Raises:
        UsageError: it holds none.
    """
    text = environment[name]
    if not re.fullmatch("[0-9]{1,9}", text):
        raise UsageError(f"the variable {name} is {shown(text)}, expected a number from 0")
    return int(text)


def _number_if_set(environment: Mapping[str, str], name: str) -> int | None:
    return _number(environment, name) if environment.get(name) else None


def _cluster(hosts: Sequence[str], rank: int, port: int, local: int | None, how: str) -> Cluster:
    """Return workers on hosts, with a port after the other on each."""
    if rank >= len(hosts):
        raise UsageError(
            f"this is rank {rank}, and there are hosts for {len(hosts)}: {', '.join(dict.fromkeys(hosts))}"
        )
    places = [hosts[:number].count(host) for number, host in enumerate(hosts)]
    if local is not None and local != places[rank]:
        raise UsageError(f"rank {rank} is number {local} on its host, and not {places[rank]} as assumed; use {how}")
    if (last := port + max(places)) > LAST_PORT:
        raise UsageError(f"--port {port}: the last worker of a host would have port {last}; choose a smaller one")
    addresses = tuple(address_of(host, port + place) for host, place in zip(hosts, places, strict=True))
    return Cluster(addresses=addresses, index=rank)

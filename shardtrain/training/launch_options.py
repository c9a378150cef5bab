"""Declare how `launch` starts the workers of a training, or finds out which one its process is."""

from __future__ import annotations

from dataclasses import dataclass

from shardtrain.errors import UsageError
from shardtrain.options import checked, flag, option

_HOW, _ADDRESSES = "who starts the workers (one of these)", "addresses"
WAYS = ("local", "slurm", "kubernetes", "mpi", "ray")


@checked
@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """Where the workers of a training run.

    Attributes:
        local: start so many here.
        slurm: each task of a Slurm step is one; `srun` started this process.
        kubernetes: each pod of an indexed job of so many is one; the job started this process.
        mpi: hosts of the ranks, in their order, as many ranks on each; `mpirun` started this process.
        ray: address of a Ray cluster, on each of whose nodes one is started.
        port: of the first worker on each machine; the next ones have the ports after it.

    Raises:
        UsageError: a value outside its range.
    """

    local: int | None = option(
        None, "start N workers on this machine", group=_HOW, metavar="N", parse=int, unset="none", identity=False
    )
    slurm: bool = option(False, "be the task of a step that srun started", group=_HOW, identity=False)
    kubernetes: int | None = option(
        None,
        "be a pod of an indexed job with N completions and a headless service",
        group=_HOW,
        metavar="N",
        parse=int,
        unset="none",
        identity=False,
    )
    mpi: tuple[str, ...] = option(
        (),
        "be a rank that mpirun started on these hosts, in the order of the ranks",
        group=_HOW,
        metavar="HOST",
        nargs="+",
        unset="none",
        identity=False,
    )
    ray: str | None = option(
        None,
        "start a worker on each node of the Ray cluster at ADDRESS, or auto",
        group=_HOW,
        metavar="ADDRESS",
        unset="none",
        identity=False,
    )
    port: int = option(
        29500,  # below the ports that Linux gives to connections, so that none is in use by chance
        "port of the first worker on each machine, where --slurm, --kubernetes or --mpi say which machines",
        group=_ADDRESSES,
        metavar="P",
        parse=int,
        identity=False,
    )

    def __post_init__(self) -> None:
        for name in ("local", "kubernetes"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"{flag(name)} is {value}; it must be at least 1")
        if not 0 < self.port < 1 << 16:
            raise UsageError(f"--port is {self.port}; it must be a port, 1 to 65535")

    @property
    def way(self) -> str:
        """The one that was chosen of `WAYS`.

        Raises:
            UsageError: none or several were.
        """
        chosen = [name for name in WAYS if getattr(self, name) not in (None, False, ())]
        if len(chosen) != 1:
            given = " and ".join(map(flag, chosen)) or "nothing"
            raise UsageError(f"choose one of {', '.join(map(flag, WAYS))}, such as --local 2; {given} is given")
        return chosen[0]

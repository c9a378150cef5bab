"""`launch`: run `fit` or `train` in several workers, which train one model together."""

from __future__ import annotations

import argparse
import os
import socket
import sys

from shardtrain.cli.arguments import options_from
from shardtrain.cli.command import Argument, Command
from shardtrain.errors import UsageError
from shardtrain.training.launch_options import LaunchOptions

TRAINING = ("fit", "train")


def run(args: argparse.Namespace) -> int:
    """Start the workers and wait for them, or become the one that this process is."""
    options = options_from(args, LaunchOptions)
    if args.words[0] not in TRAINING:
        raise UsageError(f"launch runs {' or '.join(TRAINING)}, not {args.words[0]!r}; write: launch … -- fit SHARDS …")
    from shardtrain.training.distribution.cluster import VARIABLE
    from shardtrain.training.distribution.launchers import kubernetes_cluster, mpi_cluster, slurm_cluster

    way, words = options.way, [*args.words, *(["--quiet"] if args.quiet else []), *(["--json"] if args.json else [])]
    if options.local is not None:
        from shardtrain.training.distribution.local import run_local

        return run_local(options.local, words)
    if options.ray is not None:
        from shardtrain.training.distribution.ray_workers import run_on_ray

        return run_on_ray(options.ray, words)
    if way == "slurm":
        cluster = slurm_cluster(os.environ, options.port)
    elif options.kubernetes is not None:
        cluster = kubernetes_cluster(os.environ, options.kubernetes, socket.getfqdn(), options.port)
    else:
        cluster = mpi_cluster(os.environ, options.mpi, options.port)
    return os.execve(
        sys.executable,
        [sys.executable, "-m", "shardtrain", *words],
        {**os.environ, VARIABLE: cluster.as_tf_config()},
    )


COMMAND = Command(
    name="launch",
    help="run fit or train in several workers, on this machine or on many",
    description="Run fit or train in several workers, which train one model together: started here, or by Slurm, "
    "Kubernetes, MPI or Ray. The result is that of one process, to float tolerance, but for dropout, for which "
    "each worker draws its own numbers. Where TF_CONFIG is set already, run fit itself.",
    run=run,
    arguments=(
        Argument(name="words", metavar="COMMAND", nargs="+", parse=str, help="fit or train with its options, after --"),
    ),
    options=(LaunchOptions,),
    examples="""\
python -m shardtrain launch --local 2 -- fit data/shards --engine keras
srun python -m shardtrain launch --slurm -- fit /shared/shards --out /shared/run""",
)

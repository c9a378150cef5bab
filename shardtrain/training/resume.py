"""Whether a training in a run folder is the one that is asked for: then it is gone on with, else refused and not lost.

What decides a training's numbers (options, shards, model) must be the same; the first difference is named. What may
change them in the last bits (versions, threads, machine) is told.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import shardtrain
from shardtrain.errors import RunExistsError, RunNotFoundError
from shardtrain.runtime.progress import say
from shardtrain.training import state
from shardtrain.training.checkpoint import Checkpoints
from shardtrain.training.run_folder import CHECKPOINTS, METRICS, Run, config_of, load_run

NOT_PART_OF_IDENTITY = ("checkpoint_every", "devices", "memory_limit")  # options that decide nothing about the result


def finished_run(folder: Path, job: Mapping[str, Any]) -> Run | None:
    """The run in `folder` if it is this job's and finished; None where it is interrupted.

    Raises:
        RunExistsError: it is another job's.
        RunNotFoundError: there is none.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        raise RunNotFoundError(f"there is no interrupted run in '{folder}'; leave --resume away")
    if not (folder / METRICS).is_file():
        if begun := config_of(folder):  # nothing may have been saved before the interruption
            check_job(begun, job, folder)
        return None
    done = load_run(folder)
    made_by = as_json(
        {name: done.config[name] for name in ("model", "options")} | {"description": asdict(done.description)}
    )
    if said := _difference(made_by, job):
        raise RunExistsError(f"'{folder}' holds a finished run that was another one: {said}; choose another --out")
    Checkpoints(folder / CHECKPOINTS).remove()  # a kill may have come between finishing and this
    say(f"the run in '{folder}' is finished")
    return done


def check_job(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with a training that had other options or shards.

    Raises:
        RunExistsError: it had.
    """
    _refuse(_difference(before, now), folder)


def check_model(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with another model; tell what may change the last bits.

    Raises:
        RunExistsError: it is another one.
    """
    _refuse(state.difference(before["model"], now["model"], "the model's"), folder)
    if said := state.difference(before["environment"], now["environment"]):
        say(f"{said}: the result may differ in the last bits from that of an uninterrupted training")


def _refuse(said: str, folder: Path) -> None:
    if said:
        raise RunExistsError(
            f"'{folder}' holds an interrupted training that was another one: {said}; run that command again to go on "
            "with it, choose another --out, or give it up for this one with --overwrite"
        )


def _difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How two jobs differ, in the words of the command line; empty if they do not."""
    if said := state.difference(before["model"], now["model"], "--model"):
        return said
    then, given = (
        {key: job["options"][key] for key in job["options"] if key not in NOT_PART_OF_IDENTITY} for job in (before, now)
    )
    if said := state.difference(then, given):
        where, _, rest = said.partition(" ")
        return f"--{where.rpartition('.')[2].replace('_', '-')} {rest}"
    said = state.difference(before["description"], now["description"])
    return f"it was trained on other shards ({said})" if said else ""


def as_json(value: Any) -> Any:
    """`value` as it comes back from a JSON file."""
    return json.loads(json.dumps(value))


def versions() -> dict[str, str]:
    """Of what trains."""
    return {
        "shardtrain": shardtrain.__version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


def environment(devices: Sequence[str]) -> dict[str, Any]:
    """What equal numbers in every bit depend on besides the job; `devices` share the work."""
    return {
        **versions(),
        "machine": platform.machine(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads of an operation": tf.config.threading.get_intra_op_parallelism_threads(),
        "threads between operations": tf.config.threading.get_inter_op_parallelism_threads(),
        "GPUs": len(tf.config.list_physical_devices("GPU")),
        "devices": list(devices),
    }

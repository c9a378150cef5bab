"""Train as a worker that is not the chief: take each step with it, and write nothing.

What the chief decided (engine, folder, checkpoint) is taken over, after a check that this worker was started alike and
sees the same files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardtrain.loader.shards import Shards
from shardtrain.models.names import model_name
from shardtrain.options import as_json
from shardtrain.training.checkpoint import Checkpoints, read_checkpoint
from shardtrain.training.distribution.team import Team
from shardtrain.training.loop import Interrupted, Interrupts
from shardtrain.training.options import FitOptions
from shardtrain.training.recipes import Chosen, choose
from shardtrain.training.resume import training_job
from shardtrain.training.run_folder import CHECKPOINTS, CONFIG, RunFolder, sha256
from shardtrain.training.session import Session, reading_plan
from shardtrain.training.state_schema import STATE

if TYPE_CHECKING:
    import keras

_SEEN = 30.0  # seconds in which a file that the chief has written appears: network file systems keep what they know


def follow(
    team: Team,
    shards: Shards,
    options: FitOptions,
    *,
    callbacks: Sequence[keras.callbacks.Callback],
    test: bool,
) -> RunFolder:
    """Train with the chief until it has finished the run; return its folder.

    Raises:
        RunError: a worker was started differently, or does not see the chief's files.
        WorkerLostError: another worker has ended.
        KeyboardInterrupt: the training was interrupted; the chief saves its state.

    It also raises what `training.fit.fit` raises.
    """
    decided = team.shared()
    if decided["finished"]:
        return RunFolder(Path(decided["finished"]))
    from shardtrain.training.staged import KerasTraining

    name = model_name(options.model, shards.description.kind)
    started, problem = time.perf_counter(), ""
    chosen: Chosen | None = None
    try:
        begun = replace(options, engine=decided["engine"], recipe=decided["recipe"])
        chosen, _ = choose(begun, name, shards.description, callbacks)
        job = training_job(chosen, name, shards.description)
        if changed := job.differs_from(decided["job"]):
            problem = f"was started differently: {changed}, where the first is the chief's"
    except Exception as error:
        problem = f"fails: {error}"
    measures = decided["measures"]
    team.check(problem)
    assert chosen is not None
    prepared = KerasTraining(shards, chosen, name, callbacks, team)
    decided = team.shared()
    team.advice = decided["advice"]
    folder = RunFolder(Path(decided["folder"]))
    team.check("" if _seen(lambda: sha256(folder.path / CONFIG) == decided["config"]) else _unseen(folder.path))
    saved: dict[str, Any] | None = None
    if decided["checkpoint"]:
        saved = read_checkpoint(folder.path / CHECKPOINTS / decided["checkpoint"], STATE)
    with Interrupts() as interrupts:
        session = Session(
            shards=shards,
            options=chosen,
            job=as_json(job.record),
            folder=folder,
            checkpoints=Checkpoints(folder.path / CHECKPOINTS),
            team=team,
            interrupts=interrupts,
            prefetch=reading_plan(shards, chosen, prepared.batches_per_call).prefetch,
            test=test,
            started=started,
            measures=measures,
            watch=None,
        )
        try:
            prepared.train(session, saved)
        except Interrupted:
            team.leave()
            raise KeyboardInterrupt from None
        team.shared()
    return folder


def _unseen(path: Path) -> str:
    return (
        f"does not see what the chief writes to '{path}'; the run folder must be on a file system that all workers "
        "share, under the same path"
    )


def _seen(there: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _SEEN
    while True:
        try:
            if there():
                return True
        except OSError:
            pass
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)

"""Train a model on shards in a run folder: build it, run the loop, save it; resume an interrupted training.

The epoch with the lowest validation loss, or the best other metric, is kept, not the last one, so the saved weights are
those that the reported accuracy was measured with. It costs one copy of the weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardtrain.corpus.reading import recorded_source
from shardtrain.errors import DivergedError, UsageError
from shardtrain.loader.shards import Shards
from shardtrain.metrics.names import COMPILED, suited
from shardtrain.metrics.outputs import Measured
from shardtrain.models.names import model_name
from shardtrain.runtime.backend import check_backend
from shardtrain.runtime.interrupts import say_kept
from shardtrain.runtime.jobs import Job
from shardtrain.runtime.machine import peak_memory_bytes
from shardtrain.runtime.progress import say, warn
from shardtrain.training.checkpoint import Checkpoints, checkpoints_in
from shardtrain.training.distribution.cluster import this_cluster
from shardtrain.training.distribution.team import Team, together
from shardtrain.training.engine import Logs
from shardtrain.training.following import follow
from shardtrain.training.loop import Interrupted, Interrupts
from shardtrain.training.options import FitOptions
from shardtrain.training.recipes import Chosen, choose, in_words
from shardtrain.training.resume import as_begun, finished_run, refuse_another, training_job
from shardtrain.training.run_folder import CHECKPOINTS, CONFIG, RunFolder, sha256
from shardtrain.training.session import Preparation, Session, Trained, reading_plan
from shardtrain.training.state_schema import STATE
from shardtrain.training.tensorboard_folder import check_board
from shardtrain.vectorize.saved import DESCRIPTION, check_files

if TYPE_CHECKING:
    import keras

MAX_RECORDED = 100  # classes of a confusion matrix in metrics.json


def fit(
    shards: Shards,
    options: FitOptions,
    *,
    out: Path | str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    test: bool = True,
    measures: Sequence[str] = (),
    watch: Callable[[int, Logs], bool] | None = None,
) -> RunFolder:
    """Train a model on the shards' training split and keep the epoch with the best `options.monitor`.

    At the end all metrics of the kept weights on the validation split are computed, in one more pass over it. If the
    shards have a test split, the weights are evaluated on it once, at the very end; before that, none of its rows is
    read.

    If `out` holds an interrupted run with the same options, shards and model, it is resumed, and the result is
    what it would have been without the interruption. Ctrl-C and SIGTERM finish the running step and save first.

    Where TF_CONFIG names several workers, all of them call this and share each step (`training.distribution`); the
    chief alone writes the folder. Whichever ends early ends all; any number of workers resumes what is interrupted.

    Args:
        shards: with a validation split.
        options: how to train.
        out: the run folder; None for the next free `runs/MODEL-N`, or with `resume` for the newest unfinished one.
        overwrite: replace a finished or interrupted run in `out`.
        resume: require an interrupted run; a finished one is returned unchanged. So is a run in `out` whose process
            ended between finishing it and removing its checkpoints, also without `resume`.
        callbacks: called as `keras.Model.fit` would, after early stopping.
        test: whether the test split is evaluated.
        measures: names of metrics (`metrics.names`) to compute for each epoch, besides accuracy, loss and the monitor.
        watch: called after each epoch, from 0, with its metrics; whether the training is to end.

    Returns:
        The folder of the finished run.

    Raises:
        UsageError: both `overwrite` and `resume`, or options that do not fit the model or the machine.
        ShardsError: there is no validation split, or a shard is damaged.
        VectorizerError: the vectorizer beside the shards is not theirs, or damaged.
        ModelError: the model cannot be built or does not fit the shards.
        RunExistsError: `out` must not be written to, or holds an interrupted run that was started differently; or the
            folder for TensorBoard belongs to another training.
        MissingExtraError: tensorboard is needed and not installed.
        RunNotFoundError: `resume`, and there is nothing to resume.
        CheckpointError: all checkpoints are damaged, or they are of another model or other callbacks.
        DivergedError: the loss is no longer finite; the run stays unfinished.
        DiskFullError: the disk has no room; the run stays unfinished.
        WorkerLostError: another worker did not appear, or has ended.
        KeyboardInterrupt: training was interrupted and its state saved.
    """
    if overwrite and resume:
        raise UsageError("--resume resumes a run and --overwrite discards it; omit one of them")
    _ = shards.validation  # an error where there is none
    if this_cluster().size > 1:
        _refuse_for_workers(shards, options)
    with together(options.worker_timeout) as team:
        if not team.is_chief:
            return follow(team, shards, options, callbacks=callbacks, test=test)
        return _lead(
            team,
            shards,
            options,
            named=None if out is None else RunFolder(Path(out)),
            overwrite=overwrite,
            resume=resume,
            callbacks=callbacks,
            test=test,
            measures=measures,
            watch=watch,
        )


def _refuse_for_workers(shards: Shards, options: FitOptions) -> None:
    """Refuse what only one process can do.

    Raises:
        UsageError: it is asked for.
    """
    if options.devices:
        raise UsageError(
            "--devices is for one process; of several workers, each uses all GPUs that CUDA_VISIBLE_DEVICES shows it"
        )
    _ = shards.train.batches(1, part=(0, 2))  # an error where damaged rows are skipped


def _lead(
    team: Team,
    shards: Shards,
    options: FitOptions,
    *,
    named: RunFolder | None,
    overwrite: bool,
    resume: bool,
    callbacks: Sequence[keras.callbacks.Callback],
    test: bool,
    measures: Sequence[str],
    watch: Callable[[int, Logs], bool] | None,
) -> RunFolder:
    """Train as the chief, which decides and writes files, or in the only process; see `fit`."""
    started = time.perf_counter()
    how = "the same command" + ("" if named else " with --resume") + (" without --overwrite" if overwrite else "")
    name = model_name(options.model, shards.description.kind)
    options.refuse_unused_sizes(name)
    if shards.description.vectorizer and (shards.vectorizer_path / DESCRIPTION).is_file():
        check_files(shards.vectorizer_path, shards.description.vectorizer)
    if resume and named is None:
        named = RunFolder.newest_unfinished(name)
    if named is not None:
        named.check_free(overwrite=overwrite or resume)
        options = options if overwrite else as_begun(options, named)
    chosen, missing = choose(options, name, shards.description, callbacks)
    job = training_job(chosen, name, shards.description)
    if named is not None and (resume or (named.cut_short and not overwrite)) and finished_run(named, job):
        team.shared({"finished": str(named.path.resolve())})
        return named
    if named is not None and not overwrite:
        refuse_another(named, job)
    measures = _measures(chosen, measures, shards.description.num_classes)
    check_board(chosen, named)
    say(in_words(name, chosen, missing))
    decided = {"engine": chosen.engine, "recipe": chosen.recipe, "job": job.record, "measures": measures}
    team.shared({"finished": "", **decided})
    team.check("")
    prepared = _prepared(shards, chosen, name, callbacks, team)
    folder = RunFolder.create(None if named is None else named.path, name)
    with folder.work.held(), Checkpoints(folder.path / CHECKPOINTS, STATE) as checkpoints, Interrupts() as interrupts:
        saved = _saved_state(folder, checkpoints, shards, job, prepared, overwrite=overwrite)
        newest = checkpoints_in(checkpoints.folder)[-1].name if saved is not None else ""
        team.advice = f"{how} resumes the training in '{folder.path}', with any number of workers"
        team.shared(
            {
                "folder": str(folder.path.resolve()),
                "config": sha256(folder.path / CONFIG),
                "checkpoint": newest,
                "advice": team.advice,
            }
        )
        team.check("")
        session = Session(
            shards=shards,
            options=chosen,
            job=job.record,
            folder=folder,
            checkpoints=checkpoints,
            team=team,
            interrupts=interrupts,
            prefetch=reading_plan(shards, chosen, prepared.batches_per_call).prefetch,
            test=test,
            started=started,
            measures=measures,
            watch=watch,
        )
        trained = _trained(prepared, session, saved, how)
        team.release()
        _finish(prepared, session, trained)
        team.dismiss()
    return folder


def _prepared(
    shards: Shards, options: Chosen, name: str, callbacks: Sequence[keras.callbacks.Callback], team: Team
) -> Preparation:
    """Make the model ready for training before a folder is made: one that cannot be trained leaves nothing behind.

    The packages that an engine needs are imported here.
    """
    if options.engine == "fused":
        from shardtrain.training.fused import FusedTraining

        return FusedTraining(shards, options, name)
    check_backend()
    from shardtrain.training.staged import KerasTraining

    return KerasTraining(shards, options, name, callbacks, team)


def _saved_state(
    folder: RunFolder, checkpoints: Checkpoints, shards: Shards, job: Job, prepared: Preparation, *, overwrite: bool
) -> dict[str, Any] | None:
    """Read the state to resume from; where there is none, start a new run in the folder and return None.

    A run that is resumed gets again what it lacks of the files that were written when it was started. Its configuration
    keeps the meaning of the model's outputs, "probabilities" or "logits".

    Raises:
        RunExistsError: the folder holds another training.
        CheckpointError: all checkpoints are damaged.
    """
    saved: dict[str, Any] | None = None if overwrite else checkpoints.newest()
    if saved is not None:
        folder.check_job(job, saved["about"]["job"])
    elif not overwrite and folder.config():
        say(f"the interrupted training in '{folder.path}' had saved no checkpoint yet; it starts again")
    labels = shards.manifest.build.get("labels")
    config = {
        **job.record,
        "outputs": prepared.meaning,
        "versions": prepared.versions,
        "shards": str(shards.path.resolve()),
    }
    corpus = recorded_source(shards.manifest.build)
    known = {name: value for name, value in (("labels", labels), ("corpus", corpus)) if value}
    if saved is None:
        checkpoints.remove()
    begin = folder.start if saved is None else folder.resume
    begin({**config, **known}, shards.description, shards.vectorizer_path)
    return saved


def _save_interrupted(checkpoints: Checkpoints, interrupted: Interrupted, folder: RunFolder, how: str) -> None:
    """Save the state of an interrupted training, and report the command that resumes it, which is `how`."""
    if interrupted.state is not None:
        checkpoints.save(interrupted.state)
    try:
        checkpoints.finish()
    except Exception:  # the writing thread has reported it
        say_kept(f"interrupted after {interrupted.position}; an older checkpoint may be in '{folder.path}'")
        return
    say_kept(f"interrupted after {interrupted.position}, and saved in '{folder.path}'; {how} resumes it")


def _measures(options: Chosen, others: Sequence[str], classes: int) -> tuple[str, ...]:
    """Return the metrics to compute for each epoch besides those that every model is compiled with.

    Raises:
        UsageError: one is undefined for so few classes, or not computed for so many.
    """
    names = tuple(name for name in dict.fromkeys((options.monitor, *others)) if name not in COMPILED)
    for name in names:
        if fitting := suited(name, classes):
            raise UsageError(f"{name} is for {fitting} classes, and the shards have {classes:,}; choose another metric")
    return names


def _trained(prepared: Preparation, session: Session, saved: dict[str, Any] | None, how: str) -> Trained:
    """Train from a saved state or from the start; `how` is the command that resumes it.

    Raises:
        DivergedError: the loss is no longer finite.
        KeyboardInterrupt: training was interrupted and its state saved.
    """
    try:
        return prepared.train(session, saved)
    except DivergedError:
        session.checkpoints.remove()
        raise
    except Interrupted as interrupted:
        session.team.leave()
        _save_interrupted(session.checkpoints, interrupted, session.folder, how)
        raise KeyboardInterrupt from None


def _finish(prepared: Preparation, session: Session, trained: Trained) -> None:
    """Write what a training gave, and remove its checkpoints."""
    shards, checkpoints, folder = session.shards, session.checkpoints, session.folder
    checkpoints.beside(lambda: folder.write_history(trained.history))
    metrics = _metrics(trained, session.measures, shards.description.class_names)
    seconds = trained.clock.before + time.perf_counter() - session.started
    metrics |= {"train_examples": shards.train.num_examples, "fit_seconds": seconds}
    if trained.tested:
        metrics |= _tested(trained.tested, shards.test.num_examples, shards.description.class_names)
    checkpoints.beside(lambda: folder.finish(prepared.write, metrics))
    checkpoints.remove()


def _metrics(trained: Trained, measures: Sequence[str], class_names: Sequence[str]) -> dict[str, Any]:
    """Return the results for metrics.json."""
    best, clock = trained.history[trained.best_epoch], trained.clock
    return {
        **{f"val_{name}": best[f"val_{name}"] for name in (*COMPILED, *measures)},
        "epochs": len(trained.history),
        "best_epoch": trained.best_epoch + 1,
        "examples_per_second": clock.examples / max(clock.seconds, 1e-9),
        "input_wait_fraction": clock.waited / max(clock.seconds, 1e-9),
        "peak_memory_bytes": peak_memory_bytes(),
        **_record("validation", trained.validated, class_names),
    }


def _tested(measured: Measured, examples: int, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the results on the test split for metrics.json: null, and reported, where they are not finite."""
    logs = {f"test_{name}": value for name, value in measured.logs.items()}
    lost = [name for name, value in logs.items() if not math.isfinite(value)]
    if lost:
        warn(f"{', '.join(lost)} of the kept weights: not finite; metrics.json has null there")
    known = {name: None if name in lost else value for name, value in logs.items()}
    return {**known, "test_examples": examples, **_record("test", measured, class_names)}


def _record(split: str, measured: Measured, class_names: Sequence[str]) -> dict[str, Any]:
    """Return all metrics of a split; none, and reported, where the outputs are not probabilities."""
    if measured.metrics is None:
        warn(f"no metrics of the {split} split but those that the model was compiled with: {measured.reason}")
        return {}
    return {split: measured.metrics.record(class_names, matrix=len(class_names) <= MAX_RECORDED)}

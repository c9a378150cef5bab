"""Search sizes and rates of a model, one training per trial, and keep the best run.

A study has a folder: `study.json` is its job record, `study.db` (Optuna's storage) holds trials and the metric of each
epoch, `trials/` the run folders, and `best` links to the best of these. Each trial is a training by `fit`, so the same
command resumes a killed study from the checkpoint of the interrupted training. The next trial's values are a function
of the seed and the trials before, whenever these ran. Trials are compared on the validation split; no row of a test
split is read.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardtrain.errors import DivergedError, MissingExtraError, RunError, RunExistsError, StorageError, UsageError
from shardtrain.loader.shards import Shards
from shardtrain.metrics.names import HIGHER_IS_BETTER
from shardtrain.models.names import model_name
from shardtrain.options import as_json, options_of
from shardtrain.runtime.atomic import commit_json, commit_link, make_folder
from shardtrain.runtime.holders import is_lock
from shardtrain.runtime.jobs import Job, JobFolder
from shardtrain.runtime.progress import say
from shardtrain.training.distribution.cluster import this_cluster
from shardtrain.training.fit import fit
from shardtrain.training.options import FitOptions
from shardtrain.training.recipes import choose
from shardtrain.training.resume import BEFORE, NOT_PART_OF_IDENTITY, recorded_options
from shardtrain.training.run_folder import RunFolder
from shardtrain.training.tune_options import (
    GUIDE,
    Number,
    Range,
    TuneOptions,
    Values,
    changed,
    check_space,
    grid,
    in_words,
    matters,
)

if TYPE_CHECKING:
    import optuna

STUDY, STORAGE, TRIALS, BEST = "study.json", "study.db", "trials", "best"
TPE_TRIALS = 20
WARM_UP = 2  # epochs before which no training is pruned: low rates and many layers start slowly
PRUNED = "pruned"
RESULTS = {"val_accuracy": "accuracy", "val_loss": "loss", "epochs": "epochs", "fit_seconds": "seconds"}
VALUE = "value"  # of the metric that the study compares
_LOG_SCALE = ("learning_rate", "units", "filters", "embedding_dim", "batch_size")  # ranges that span magnitudes


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A finished trial.

    Attributes:
        number: from 0.
        values: of the options that are tuned.
        state: "complete", "pruned" (stopped because it was worse than earlier trials), or "diverged".
        accuracy: on the validation split, in the best epoch; None if it diverged.
        loss: on the validation split, in the best epoch; None if it diverged.
        value: of the metric that the study compares, in the best epoch; None if it diverged.
        epochs: number trained.
        seconds: taken by the training.
    """

    number: int
    values: dict[str, Number]
    state: str
    accuracy: float | None = None
    loss: float | None = None
    value: float | None = None
    epochs: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """A finished study.

    Attributes:
        trials: in order.
        best: the best of them.
        run: its run folder.
        space: values by option.
    """

    trials: tuple[Trial, ...]
    best: Trial
    run: RunFolder
    space: Mapping[str, Values]


def tune(shards: Shards, base: FitOptions, options: TuneOptions, *, out: Path, overwrite: bool = False) -> StudyResult:
    """Train a model with each combination of values, or with those that TPE samples; keep the best run in `out/best`.

    Args:
        shards: with a validation split.
        base: options of every training, except for the tuned values.
        options: the values to try, and how.
        out: folder of the study; the same study in it is resumed, also with more trials.
        overwrite: replace another study in `out`.

    Raises:
        UsageError: a value that an option cannot have, or several workers.
        MissingExtraError: Optuna is not installed.
        RunExistsError: `out` holds something else, or another study.
        DivergedError: every training diverged.
        KeyboardInterrupt: the study was interrupted and its state saved.
    """
    _ = shards.validation  # an error where there is none
    if this_cluster().size > 1:
        raise UsageError(
            "TF_CONFIG names several workers, and tune trains in one process; unset it, and train with the values that "
            "were found in several"
        )
    name = model_name(base.model, shards.description.kind)
    options = replace(options, space=options.space or GUIDE.get(name, {}))
    chosen, _ = choose(base, name, shards.description)
    check_space(base, options, name)
    _require_optuna()
    check_study(out)
    make_folder(out)
    folder = JobFolder(
        path=out, owner=out, noun="study", error=RunExistsError, missing=RunExistsError, record_name=STUDY
    )
    with folder.held():
        _begin(folder, _study_job(shards, chosen, options, name), overwrite=overwrite)
        with _open_storage(out / STORAGE) as storage:
            study = _study(storage, options, name)
            _keep_best(study, out, options)
            for number, trial, known in _trials(study, base.seed, _num_trials(options, name)):
                values = _suggest(trial, options, name)
                say(f"trial {number + 1}: {in_words(values)}")
                _run_trial(trial, shards, changed(base, values, name), out / TRIALS / f"{number:03}", options, known)
                _keep_best(study, out, options)
            finished = tuple(_finished(study, options.metric))
    best = best_of(finished, options.metric)
    if best is None:
        raise DivergedError(f"all {len(finished)} trainings diverged; try a lower --learning-rate")
    return StudyResult(trials=finished, best=best, run=RunFolder(out / BEST), space=options.space)


def check_study(out: Path) -> None:
    """Refuse a folder that holds something other than a study.

    Raises:
        RunExistsError: it does.
    """
    if out.exists() and not (
        out.is_dir() and ((out / STUDY).is_file() or all(is_lock(each.name) for each in out.iterdir()))
    ):
        raise RunExistsError(f"'{out}' exists and is not the folder of a study; choose another --out")


def _require_optuna() -> None:
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError(
            "studies are run with the package 'optuna'; install it with `pip install 'shardtrain[tune]'`"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _study_job(shards: Shards, base: FitOptions, options: TuneOptions, name: str) -> Job:
    """Return the job of a study; the number of trials and of kept runs is not part of it."""
    chosen = {key: getattr(options, key) for key, declared in options_of(TuneOptions).items() if declared.identity}
    config = {key: value for key, value in recorded_options(base, name).items() if key not in NOT_PART_OF_IDENTITY}
    space = {key: asdict(v) if isinstance(v, Range) else v for key, v in options.space.items()}
    record = {**chosen, "space": space, "options": config, "description": asdict(shards.description)}
    return Job(record=as_json(record), defaults=as_json(BEFORE))


def _begin(folder: JobFolder, job: Job, *, overwrite: bool) -> None:
    """Start a new study in the folder, or check that the study in it is the same.

    Raises:
        RunExistsError: the folder holds another study.
    """
    out = folder.path
    if overwrite:
        (out / STUDY).unlink(missing_ok=True)
    if (out / STUDY).is_file():
        found = folder.recorded()
        if found is None:
            raise RunError(f"'{out / STUDY}' cannot be read; start the study again with --overwrite")
        if changed := job.differs_from(found):
            raise RunExistsError(
                f"'{out}' holds a study that was started differently: {changed}; choose another --out, pass "
                "--overwrite to replace it, or run its own command again, which shows its results or resumes it"
            )
        return
    (out / BEST).unlink(missing_ok=True)
    shutil.rmtree(out / TRIALS, ignore_errors=True)
    for path in out.glob(STORAGE + "*"):  # SQLite's journal too
        path.unlink()
    commit_json(out / STUDY, job.record)


@contextlib.contextmanager
def _open_storage(path: Path) -> Iterator[Any]:
    """Open Optuna's storage in a file, and close its connections at the end of the block.

    Raises:
        RunError: the file is damaged.
        StorageError: it could not be written, when it was opened or within the block.
    """
    import optuna
    import sqlalchemy

    address = sqlalchemy.URL.create("sqlite", database=str(path)).render_as_string()
    storage = None
    try:
        storage = optuna.storages.RDBStorage(address)
        yield storage
    except (sqlalchemy.exc.DBAPIError, optuna.exceptions.StorageInternalError) as error:
        failed = error if isinstance(error, sqlalchemy.exc.DBAPIError) else error.__cause__
        reason = getattr(failed, "orig", failed)
        if storage is None and not isinstance(reason, sqlite3.OperationalError):  # which a failed call of the system is
            raise RunError(f"'{path}' is damaged ({reason}); start the study again with --overwrite") from error
        raise StorageError(
            f"'{path}' could not be written: {reason}; finished trials are kept: when the cause is removed, run the "
            "same command again"
        ) from error
    finally:
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()


def _study(storage: Any, options: TuneOptions, name: str) -> optuna.Study:
    """Open or create the study in a storage, with the points of a grid enqueued."""
    import optuna

    study = optuna.create_study(
        storage=storage,
        study_name="tune",
        direction="maximize" if HIGHER_IS_BETTER[options.metric] else "minimize",
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=WARM_UP) if options.prune else optuna.pruners.NopPruner(),
        load_if_exists=True,
    )
    num_enqueued = len(study.get_trials(deepcopy=False))
    for point in grid(options.space, name)[num_enqueued:] if options.sampler == "grid" else ():
        study.enqueue_trial(point)
    return study


def _num_trials(options: TuneOptions, name: str) -> int:
    """Return the number of trials of the whole study."""
    if options.sampler == "tpe":
        return options.trials or TPE_TRIALS
    return min(len(grid(options.space, name)), options.trials or len(grid(options.space, name)))


def _trials(study: optuna.Study, seed: int, num_trials: int) -> Iterator[tuple[int, optuna.Trial, set[int]]]:
    """Yield the remaining trials in order, an interrupted one first: this process holds the lock, so none still runs.

    Yields:
        The number from 0, the trial, and the epochs whose metric is stored already.
    """
    import optuna
    from optuna.trial import TrialState

    while True:
        trials = study.get_trials(deepcopy=False)
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        started = [trial for trial in trials if trial.state != TrialState.WAITING]
        number = running[0].number if running else len(started)
        if number >= num_trials:
            return
        study.sampler = optuna.samplers.TPESampler(seed=(seed + number) % (1 << 32))
        if running:
            yield number, optuna.Trial(study, running[0]._trial_id), set(running[0].intermediate_values)
        else:
            yield number, study.ask(), set()


def _suggest(trial: optuna.Trial, options: TuneOptions, name: str) -> dict[str, Number]:
    """Return the values of a trial; a new one gets them from the sampler here."""
    values: dict[str, Number] = {}
    for key, among in options.space.items():
        if not matters(key, values, name):
            continue
        if not isinstance(among, Range):
            values[key] = trial.suggest_categorical(key, among)
        elif isinstance(among.low, int) and isinstance(among.high, int):
            values[key] = trial.suggest_int(key, among.low, among.high, log=key in _LOG_SCALE)
        else:
            values[key] = trial.suggest_float(key, among.low, among.high, log=key in _LOG_SCALE)
    return values


class ReportEpochs:
    """Report each epoch's metric to the study, and end a training that is to be pruned.

    Args:
        trial: of the study.
        metric: its name.
        known: epochs that the study has stored; after a resume these are still right, unlike what a checkpoint holds.
    """

    def __init__(self, trial: optuna.Trial, metric: str, known: set[int]) -> None:
        self.trial, self.metric, self.known = trial, metric, known

    def __call__(self, epoch: int, logs: Mapping[str, float]) -> bool:
        """Report an epoch once; of the epochs known before, only the latest can have pruned the training."""
        if epoch not in self.known:
            self.trial.report(logs[self.metric], epoch)
            self.known.add(epoch)
        if epoch == max(self.known) and self.trial.should_prune():
            self.trial.set_user_attr(PRUNED, True)
            return True
        return False


def _run_trial(
    trial: optuna.Trial, shards: Shards, options: FitOptions, folder: Path, how: TuneOptions, known: set[int]
) -> None:
    """Train a trial, or resume its training, and store the result in the study."""
    from optuna.trial import TrialState

    metric = f"val_{how.metric}"
    started = folder.is_dir() and any(folder.iterdir())
    try:
        watch = ReportEpochs(trial, metric, known)
        done = fit(shards, options, out=folder, resume=started, watch=watch, measures=(how.metric,), test=False).read()
    except DivergedError as error:
        say(error.on_command_line)
        trial.study.tell(trial, state=TrialState.FAIL)
        return
    for name in RESULTS:
        trial.set_user_attr(name, done.metrics[name])
    trial.set_user_attr(VALUE, done.metrics[metric])
    if trial.user_attrs.get(PRUNED):
        trial.study.tell(trial, state=TrialState.PRUNED)
    else:
        trial.study.tell(trial, done.metrics[metric])


def _finished(study: optuna.Study, metric: str) -> list[Trial]:
    """Return the finished trials in order; `metric` is what the study compares."""
    states = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "diverged"}
    return [
        Trial(
            number=trial.number,
            values=dict(trial.params),
            state=states[trial.state.name],
            **{field: trial.user_attrs.get(name) for name, field in RESULTS.items()},
            value=trial.user_attrs.get(VALUE, trial.user_attrs.get(f"val_{metric}")),
        )
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished()
    ]


def best_of(trials: Sequence[Trial], metric: str) -> Trial | None:
    """Return the best trial, of equal ones that with the lower loss, then the first; None if all diverged."""
    sign = -1 if HIGHER_IS_BETTER[metric] else 1
    found = [(sign * trial.value, trial.loss, trial.number, trial) for trial in trials if trial.value is not None]
    return min(found, key=lambda each: each[:3])[3] if found else None


def _keep_best(study: optuna.Study, out: Path, options: TuneOptions) -> None:
    """Link to the best run so far and remove the rest; it is repeated after a kill."""
    finished = _finished(study, options.metric)
    best = best_of(finished, options.metric)
    if best is not None:
        commit_link(Path(TRIALS, f"{best.number:03}"), out / BEST)
    for trial in finished:
        if trial.state == "diverged" or (trial is not best and not options.keep_all):
            shutil.rmtree(out / TRIALS / f"{trial.number:03}", ignore_errors=True)

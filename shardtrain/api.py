"""Build shards, train and export models from Python: `build`, `fit`, `train` and `export` as functions with keywords.

The keywords are the fields of the option classes, where they are documented. The subpackages hold the rest (conversion
of tables, verification, reports).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from shardtrain.errors import UsageError
from shardtrain.exports.options import ExportOptions
from shardtrain.inference.run import Run, load_run
from shardtrain.loader.options import LoaderOptions
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.options import checked, options_of, subset, with_options
from shardtrain.pipeline.given import CorpusLike
from shardtrain.pipeline.options import BuildOptions, ShardsOutput
from shardtrain.training.options import FitOptions, RunOutput, TrainOutput

if TYPE_CHECKING:
    import keras


@checked
@dataclass(frozen=True, kw_only=True)
class BuildKeywords(BuildOptions, ShardsOutput):
    """The keywords of `build`."""


@checked
@dataclass(frozen=True, kw_only=True)
class FitKeywords(FitOptions, RunOutput):
    """The keywords of `fit`.

    Attributes:
        callbacks: called as `keras.Model.fit` would.

    The other attributes are those of the classes that it extends.
    """

    callbacks: Sequence[keras.callbacks.Callback] = ()


@checked
@dataclass(frozen=True, kw_only=True)
class TrainKeywords(TrainOutput, BuildOptions, FitOptions):
    """The keywords of `train`; `append` and `resume` are refused."""

    def __post_init__(self) -> None:
        if self.append or self.resume:
            raise UsageError("train has no --append or --resume: it resumes by itself, and builds whole shards")
        BuildOptions.__post_init__(self)
        FitOptions.__post_init__(self)


_PLANNED = {"dry_run": "shardtrain.pipeline.plan.plan_build returns the plan of a build"}
_BUILT = dict.fromkeys(options_of(BuildKeywords), "it is an option of shardtrain.build and shardtrain.train")
_OPENING = "pass it to shardtrain.open_shards, and the open shards to fit"
_OPENED = dict.fromkeys(options_of(LoaderOptions), _OPENING)


@with_options(BuildKeywords, elsewhere=_PLANNED)
def build(corpus: CorpusLike, options: BuildKeywords) -> Shards:
    """Make shards in the folder `out` from a corpus, as `python -m shardtrain build` does.

    The corpus is a file, a folder, a pattern such as "part-*.csv", or a list of files; or rows: a table of pandas,
    polars or Arrow, a `datasets.Dataset`, or any iterable of (label, text) pairs or dictionaries, which is read once
    and never held in memory. The keywords are those of `BuildOptions`, and `out`, the folder of the shards.

    Returns:
        The shards, open. Worker processes import the calling script again, so call this under
        `if __name__ == "__main__":`.

    Raises:
        UsageError: options that do not fit together.
        CorpusError: the corpus cannot be read, or no classifier can be trained on it.
        ShardsExistError: `out` holds something that must not be replaced.
    """
    from shardtrain.pipeline.build import build as build_shards

    build_shards(corpus, options.out, subset(options, BuildOptions))
    return open_shards(options.out)


@with_options(FitKeywords, elsewhere={**_BUILT, **_OPENED})
def fit(shards: Shards | Path | str, options: FitKeywords) -> Run:
    """Train a model on shards, open ones or their folder, as `python -m shardtrain fit` does.

    The keywords are those of `FitOptions` and `RunOutput`, and `callbacks`, called as `keras.Model.fit` would.

    Returns:
        The finished run.

    Raises:
        UsageError: options that do not fit together, or another backend is chosen for Keras.
        ShardsError: there is no validation split, or a shard is damaged.
        RunError: the run folder or the model cannot be used.
    """
    from shardtrain.training.fit import fit as fit_model

    how = {"callbacks": options.callbacks, **vars(subset(options, RunOutput))}
    if isinstance(shards, Shards):
        done = fit_model(shards, subset(options, FitOptions), **how)
    else:
        with open_shards(shards) as opened:
            done = fit_model(opened, subset(options, FitOptions), **how)
    return load_run(done.path)


@with_options(TrainKeywords, elsewhere={**_PLANNED, **_OPENED})
def train(corpus: CorpusLike, options: TrainKeywords) -> Run:
    """Build shards from a corpus and train a model on them, as `python -m shardtrain train` does.

    The corpus is what `build` takes. The keywords are those of `BuildOptions`, `FitOptions` and `TrainOutput`;
    `memory_limit` is that of the build, and reading takes at most as much. A repeated call resumes an interrupted one.

    Returns:
        The finished run.

    Raises:
        RunExistsError: the run folder holds a finished run, or an interrupted one that was started differently.

    It also raises what `build` and `fit` raise.
    """
    from shardtrain.training.from_corpus import train as train_on

    building, fitting = subset(options, BuildOptions), subset(options, FitOptions)
    limit = min(options.memory_limit, FitOptions().memory_limit)
    done = train_on(corpus, building, replace(fitting, memory_limit=limit), subset(options, TrainOutput))
    return load_run(done.run.path)


@with_options(ExportOptions)
def export(run: Run | Path | str, options: ExportOptions) -> Path:
    """Write a run, opened or its folder, for use without shardtrain, as `python -m shardtrain export` does.

    The keywords are those of `ExportOptions`.

    Returns:
        The file, or the folder of a SavedModel.

    Raises:
        UsageError: options that do not fit together, or a path that cannot be written.
        RunError: the run is unfinished or damaged, or its model is not a linear one or an mlp over n-grams.
        OutputExistsError: something else is at the output.
        MissingExtraError: `to` is "onnx", and the package onnx is not installed.
    """
    from shardtrain.exports.export import export_run

    return export_run(run if isinstance(run, Run) else load_run(run), options).path

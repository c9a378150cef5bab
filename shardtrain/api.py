"""Build shards and train models from Python: the commands `build` and `fit` as functions with typed keywords.

The keywords are the fields of the option classes, where they are documented. The subpackages hold the rest (conversion
of tables, verification, reports).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shardtrain.inference.run import Run, load_run
from shardtrain.loader.options import LoaderOptions
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.options import checked, options_of, subset, with_options
from shardtrain.pipeline.given import CorpusLike
from shardtrain.pipeline.options import BuildOptions, ShardsOutput
from shardtrain.training.options import FitOptions, RunOutput

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


_PLANNED = {"dry_run": "shardtrain.pipeline.plan.plan_build returns the plan of a build"}
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


@with_options(FitKeywords, elsewhere=_OPENED)
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

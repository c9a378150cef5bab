"""Train a model on a corpus of raw text in one call: build shards, or use those that are there, and train on them.

The shards are kept, by default in the run's folder, so an interrupted call goes on where it was: in the build, or in
the training. The result is that of `build` and `fit`, one after the other.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from shardtrain.corpus.options import STANDARD
from shardtrain.errors import ShardsExistError, UsageError
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.models.embeddings import check_file
from shardtrain.models.names import check_there, model_name
from shardtrain.options import as_json, identity
from shardtrain.pipeline.build import build, job_for
from shardtrain.pipeline.given import CorpusLike, given_files
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime.storage import check_output_folder
from shardtrain.shards.layout import SHARDS, Manifest
from shardtrain.shards.manifest import vectorizer_folder
from shardtrain.training.distribution.team import Team, together
from shardtrain.training.fit import fit
from shardtrain.training.options import FitOptions, TrainOutput
from shardtrain.training.recipes import choose_engine
from shardtrain.training.run_folder import CALL, RunFolder
from shardtrain.training.tensorboard_folder import check_board
from shardtrain.vectorize.fitted import load_vectorizer


@dataclass(frozen=True, kw_only=True)
class TrainedFromCorpus:
    """What `train` made.

    Attributes:
        manifest: of the shards.
        shards: their folder.
        run: the folder of the finished run.
    """

    manifest: Manifest
    shards: Path
    run: RunFolder


def train(
    corpus: CorpusLike,
    build_options: BuildOptions,
    fit_options: FitOptions,
    output: TrainOutput,
    *,
    sizes: Mapping[str, Any] | None = None,
    reading: Mapping[str, Any] | None = None,
    before_fit: Callable[[Shards, Path, FitOptions], None] | None = None,
) -> TrainedFromCorpus:
    """Build shards from a corpus and train a model on them; a repeated call resumes an interrupted one.

    Shards that the same build made of the same corpus are used again. What `fit` would refuse is refused before the
    build, as far as it does not depend on the corpus.

    Args:
        corpus: see `pipeline.given.as_files`.
        build_options: of the shards; they are overwritten if `output` says so.
        fit_options: of the training.
        output: where the results go.
        sizes: of the model, in place of those in `fit_options`; see `FitOptions.with_sizes`.
        reading: options of `open_shards`.
        before_fit: called with the open shards, the run folder and the options of the training.

    Raises:
        RunExistsError: the run folder holds a finished run, or an interrupted one that was started differently.
        ShardsExistError: the folder of the shards holds others, or an interrupted build that was started differently.

    It also raises what `pipeline.build.build` and `training.fit.fit` raise.
    """
    kind = _kind_of(build_options)
    if kind is not None:
        fit_options = fit_options.with_sizes(sizes or {}, kind)
        _check(fit_options, kind)
    with together(fit_options.worker_timeout) as team:
        if not team.is_chief:
            return _follow(team, fit_options, sizes=sizes, reading=reading, before_fit=before_fit)
        return _lead(
            team,
            corpus,
            build_options,
            fit_options,
            output,
            kind=kind,
            sizes=sizes or {},
            reading=reading or {},
            before_fit=before_fit,
        )


def _lead(
    team: Team,
    corpus: CorpusLike,
    build_options: BuildOptions,
    fit_options: FitOptions,
    output: TrainOutput,
    *,
    kind: str | None,
    sizes: Mapping[str, Any],
    reading: Mapping[str, Any],
    before_fit: Callable[[Shards, Path, FitOptions], None] | None,
) -> TrainedFromCorpus:
    """Build and train as the chief of several workers, or in the only process; see `train`."""
    with _folder(corpus, output, partial(_call, corpus, build_options, fit_options, sizes)) as folder:
        folder.check_free(overwrite=output.overwrite)
        check_board(fit_options, folder)
        where = _shards_of(folder, output)
        options = replace(build_options, overwrite=output.overwrite)
        manifest = build(corpus, where, options, reuse=True)
        team.shared({"shards": str(where.resolve()), "run": str(folder.path.resolve())})
        with open_shards(where, **reading) as shards:
            if kind is None:
                fit_options = fit_options.with_sizes(sizes, shards.description.kind)
            if before_fit is not None:
                before_fit(shards, folder.path, fit_options)
            run = fit(shards, fit_options, out=folder.path, overwrite=output.overwrite)
    return TrainedFromCorpus(manifest=manifest, shards=where, run=run)


def _follow(
    team: Team,
    fit_options: FitOptions,
    *,
    sizes: Mapping[str, Any] | None,
    reading: Mapping[str, Any] | None,
    before_fit: Callable[[Shards, Path, FitOptions], None] | None,
) -> TrainedFromCorpus:
    """Wait until the chief has built the shards, and train on them with it."""
    made = team.shared()
    where, folder = Path(made["shards"]), Path(made["run"])
    with open_shards(where, **(reading or {})) as shards:
        fit_options = fit_options.with_sizes(sizes or {}, shards.description.kind)
        if before_fit is not None:
            before_fit(shards, folder, fit_options)
        return TrainedFromCorpus(manifest=shards.manifest, shards=where, run=fit(shards, fit_options, out=folder))


def _kind_of(options: BuildOptions) -> str | None:
    """Return the kind of features that a build makes; None if the corpus decides it."""
    if options.vectorizer_from is not None:
        return load_vectorizer(vectorizer_folder(options.vectorizer_from)).kind
    return {"auto": None, "sequence": "sequence"}.get(options.vectorizer, "ngram")


def _check(options: FitOptions, kind: str) -> None:
    """Refuse options that the training would refuse.

    Raises:
        UsageError: they do not fit the model, or together.
        ModelError: the model takes other features, or a file of it does not exist.
    """
    name = model_name(options.model, kind)
    if not callable(options.model):
        check_there(name)
    options.refuse_unused_sizes(name)
    choose_engine(options, name, kind)
    if options.embeddings is not None:
        check_file(Path(options.embeddings))


def _shards_of(folder: RunFolder, output: TrainOutput) -> Path:
    """Return the folder of the shards.

    Raises:
        UsageError: it is in the way of the run's own files.
    """
    own = folder.path / SHARDS
    if output.shards is None:
        return own
    where = Path(output.shards)
    check_output_folder(where, "--shards", ShardsExistError)
    place = where.resolve()
    if folder.path.resolve() in (place, *place.parents) and place != own.resolve():
        raise UsageError(f"--shards '{where}' is inside of the run folder '{folder.path}'; choose another, or omit it")
    return where


def _call(
    corpus: CorpusLike, build_options: BuildOptions, fit_options: FitOptions, sizes: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what decides the result of a call, as JSON values; of a corpus that exists once, each is another."""
    given = given_files(corpus)
    called = {"fit": identity(fit_options), "sizes": as_json(dict(sizes))}
    if given is None:
        return {**called, "given": f"in process {os.getpid()} at {time.time_ns()}"}
    return {**called, "build": job_for(given, Path(), build_options).record}


@contextmanager
def _folder(corpus: CorpusLike, output: TrainOutput, call: Callable[[], Mapping[str, Any]]) -> Iterator[RunFolder]:
    """Yield the run folder; one that is made here and still empty at the end is removed.

    Args:
        corpus: that is trained on.
        output: says which folder, or leaves it open.
        call: returns what decides the result.
    """
    there = output.out is not None and Path(output.out).exists()
    folder = RunFolder(Path(output.out)) if output.out is not None else RunFolder.of_corpus(_name_of(corpus), call())
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            if not there and {path.name for path in folder.path.iterdir()} <= {CALL}:
                (folder.path / CALL).unlink(missing_ok=True)
                folder.path.rmdir()


def _name_of(corpus: CorpusLike) -> str:
    """Return the name of a corpus, for its runs: that of its folder, or of its file without suffixes."""
    first = corpus[0] if isinstance(corpus, list | tuple) and corpus else corpus
    if not isinstance(first, str | Path) or str(first) == STANDARD:
        return "corpus"
    path = Path(first).resolve()
    name = path.name if path.is_dir() else path.name.split(".")[0]
    return "".join(each if each.isalnum() or each in "-_" else "-" for each in name).strip("-") or "corpus"

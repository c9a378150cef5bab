"""Train a model on a corpus of raw text in one call: build shards, or use those that are there, and train on them.

The shards are kept, by default in the run's folder, so an interrupted call goes on where it was: in the build, or in
the training. The result is that of `build` and `fit`, one after the other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shardtrain.corpus.options import STANDARD
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.pipeline.build import build
from shardtrain.pipeline.given import CorpusLike
from shardtrain.pipeline.options import BuildOptions
from shardtrain.shards.layout import Manifest
from shardtrain.training.fit import fit
from shardtrain.training.options import FitOptions, TrainOutput
from shardtrain.training.run_folder import SHARDS, RunFolder


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
    reading: Mapping[str, Any] | None = None,
    before_fit: Callable[[Shards, Path], FitOptions] | None = None,
) -> TrainedFromCorpus:
    """Build shards from a corpus and train a model on them; a repeated call resumes an interrupted one.

    Shards that the same build made of the same corpus are used again.

    Args:
        corpus: see `pipeline.given.as_files`.
        build_options: of the shards; they are overwritten if `output` says so.
        fit_options: of the training.
        output: where the results go.
        reading: options of `open_shards`.
        before_fit: called with the open shards and the run folder; returns the options of the training.

    Raises:
        RunExistsError: the run folder holds a finished run, or an interrupted one that was started differently.
        ShardsExistError: the folder of the shards holds others, or an interrupted build that was started differently.

    It also raises what `pipeline.build.build` and `training.fit.fit` raise.
    """
    with _folder(corpus, output) as folder:
        folder.check_free(overwrite=output.overwrite)
        where = Path(output.shards) if output.shards is not None else folder.path / SHARDS
        options = replace(build_options, overwrite=output.overwrite)
        manifest = build(corpus, where, options, reuse=True)
        with open_shards(where, **(reading or {})) as shards:
            chosen = before_fit(shards, folder.path) if before_fit else fit_options
            run = fit(shards, chosen, out=folder.path, overwrite=output.overwrite)
    return TrainedFromCorpus(manifest=manifest, shards=where, run=run)


@contextmanager
def _folder(corpus: CorpusLike, output: TrainOutput) -> Iterator[RunFolder]:
    """Yield the run folder; one that is still empty at the end is removed."""
    folder = RunFolder(Path(output.out)) if output.out is not None else RunFolder.of_corpus(_name_of(corpus))
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            folder.path.rmdir()  # only an empty folder can go


def _name_of(corpus: CorpusLike) -> str:
    """Return the name of a corpus, for its runs: that of its folder, or of its file without suffixes."""
    first = corpus[0] if isinstance(corpus, list | tuple) and corpus else corpus
    if not isinstance(first, str | Path) or str(first) == STANDARD:
        return "corpus"
    path = Path(first).resolve()
    name = path.name if path.is_dir() else path.name.split(".")[0]
    return "".join(each if each.isalnum() or each in "-_" else "-" for each in name).strip("-") or "corpus"

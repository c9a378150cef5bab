"""Read units of raw text and make their features, for a model in this process: in threads, or on workers elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from shardtrain.arrays.rows import Features
from shardtrain.corpus.readers import read_unit
from shardtrain.corpus.source import Documents, Source, Unit
from shardtrain.errors import RunError
from shardtrain.inference.options import PredictOptions
from shardtrain.runtime.engines.opening import open_cluster
from shardtrain.runtime.engines.work import made_once
from shardtrain.runtime.executors import threads
from shardtrain.training.run_folder import VECTORIZER
from shardtrain.vectorize.fitted import Vectorizer, load_vectorizer

if TYPE_CHECKING:
    from shardtrain.inference.run import Run


@contextlib.contextmanager
def unit_rows(
    work: PredictOptions, run: Run, source: Source, vectorizer: Vectorizer, scratch: Path
) -> Iterator[Callable[[Sequence[Unit]], Iterator[tuple[Documents, Features]]]]:
    """Yield what reads units and makes their features, in order: in threads, or on workers elsewhere.

    Args:
        work: who works.
        run: whose vectorizer it is.
        source: of the units.
        vectorizer: that this process has loaded.
        scratch: a folder that workers elsewhere must see.
    """
    if work.executor_name.local:
        with threads(work.threads) as pool:
            yield partial(pool.map, partial(_rows_of, source, vectorizer))
        return
    read = partial(_far_rows_of, source, work.placed(run.path / VECTORIZER), run.description.vectorizer)
    with open_cluster(work.executor_name, scratch, workers=work.workers, prepare=_nothing) as cluster:
        yield partial(cluster.map, read)


def _rows_of(source: Source, vectorizer: Vectorizer, unit: Unit) -> tuple[Documents, Features]:
    documents = read_unit(source, unit)
    return documents, vectorizer.transform(documents.texts)


def _far_rows_of(source: Source, folder: Path, fingerprint: str, unit: Unit) -> tuple[Documents, Features]:
    return _rows_of(source, _vectorizer(folder, fingerprint), unit)


@made_once(maxsize=1)
def _vectorizer(folder: Path, fingerprint: str) -> Vectorizer:
    """Load the vectorizer of a run in a worker.

    Raises:
        RunError: it is not the one with the fingerprint, which the driver found.
    """
    found = load_vectorizer(folder)
    if found.describe()["fingerprint"] != fingerprint:
        raise RunError(f"the vectorizer in '{folder}' was changed meanwhile; run the command again")
    return found


def _nothing() -> None:
    """Prepare a worker: it loads the vectorizer with its first unit."""

"""Classify files of raw text of any size with a finished run, resumable, in bounded memory.

The input is cut into units as a build cuts its corpus. One thread reads, vectorizes and classifies a unit and writes
its part of the output; kernels and TensorFlow release the GIL, so threads share one model. Memory holds one unit per
thread, whatever the size of the input. Parts are pure functions of their units in the folder `OUTPUT.predicting`, so
the same command resumes a killed one, with identical bytes. The cost is a pass over the input to find its records
before the first prediction, and standard input is copied to disk first.
"""

from __future__ import annotations

import filecmp
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from shardtrain.corpus.opening import open_texts
from shardtrain.corpus.options import STANDARD
from shardtrain.corpus.source import BadRow, Documents, Unit
from shardtrain.errors import OutputExistsError, UsageError
from shardtrain.inference.notes import TextCounts, warn_of_texts
from shardtrain.inference.options import PredictOptions
from shardtrain.inference.parts import RESULT, FarParts, Input, UnitResult, is_whole, loaded, part_path, writer_of
from shardtrain.inference.predictions import Predictions
from shardtrain.inference.units import units_of
from shardtrain.inference.writers import PredictionWriter
from shardtrain.metrics.thresholds import Thresholds
from shardtrain.options import identity, identity_defaults
from shardtrain.pipeline.facts import MAX_LISTED
from shardtrain.pipeline.given import copy_standard_input, identify_content
from shardtrain.pipeline.workspace import files_of
from shardtrain.runtime.atomic import committed, make_folder
from shardtrain.runtime.checksums import checksum
from shardtrain.runtime.engines.opening import open_cluster
from shardtrain.runtime.executors import Executor, threads
from shardtrain.runtime.jobs import RECORD, Job, JobFolder, file_job
from shardtrain.runtime.locks import check_held
from shardtrain.runtime.passes import UNIT_BYTES, Passes
from shardtrain.runtime.progress import progress, say
from shardtrain.runtime.storage import check_output_file

if TYPE_CHECKING:
    from shardtrain.inference.run import Run

_STDIN_COPY = "standard-input"
_EXPLAINED_PARTS = 16  # of a unit, each a unit where texts are explained: an explanation is larger than most texts


@dataclass(frozen=True, kw_only=True)
class PredictedFile:
    """The result of `predict_file`.

    Attributes:
        output: the file of predictions.
        rows: number of predictions in it.
        undecided: number of these that are "undecided".
        rejected_rows: number of invalid records in the input.
        rejected: the first of them.
        input_bytes: of the text, unpacked.
        counts: of the texts of which the predictions say little.
    """

    output: Path
    rows: int
    undecided: int
    rejected_rows: int
    rejected: tuple[BadRow, ...]
    input_bytes: int
    counts: TextCounts


def predict_file(
    run: Run,
    source: Path | str,
    output: Path | str,
    options: PredictOptions | None = None,
    *,
    module: str | None = None,
) -> PredictedFile:
    """Classify the texts of a file, or of standard input ("-"), in order; a repeated call resumes a killed one.

    It warns of texts of which the predictions say little, and counts them.

    Args:
        run: a finished run with a vectorizer.
        source: CSV, TSV, JSON Lines or, by any other name, lines of text; also with .gz.
        output: a name that ends in .csv, .jsonl or .parquet; `shardtrain.inference.writers` describes the formats.
        options: of reading and writing.
        module: that registers layers of the run's model; workers of another executor import it.

    Raises:
        OutputExistsError: the output exists, or an interrupted one was started with other options or another input.
        CorpusError: the input cannot be read.
        RunError: the run's files are damaged, or the model's outputs are not probabilities.
        DiskFullError: the disk has no room; finished parts are kept.
    """
    options = options or PredictOptions()
    output = options.placed(Path(output))
    writer = writer_of(output, run.description.class_names, options)
    check_output_file(output, "--output")
    if output.exists() and Path(source).exists() and output.samefile(source):
        raise UsageError(f"--output '{output}' is the input; choose another name")
    working = output.with_name(output.name + ".predicting")
    if output.exists() and not options.overwrite and not (working / RECORD).exists():
        raise OutputExistsError(_exists(output))
    folder = JobFolder(
        path=working,
        owner=output,
        noun="prediction",
        error=OutputExistsError,
        missing=OutputExistsError,
        kept=frozenset({_STDIN_COPY}),
    )
    with folder.made_and_held():
        path = _copy_stdin(working) if str(source) == STANDARD else Path(source)
        job = _job(run, path, writer, options)
        with folder.work(job, overwrite=options.overwrite):
            parts = folder.place_of(job)
            make_folder(parts)
            opened = _open(run, options.placed(path), options, parts)
            if options.executor_name.local:
                with threads(options.threads) as pool:
                    return _predict(
                        opened,
                        pool,
                        lambda unit: opened.write_part(unit, writer, parts),
                        writer,
                        output,
                        parts,
                        options,
                    )
            write_far = FarParts(
                run=options.placed(run.path),
                model=run.metrics["model_sha256"],
                module=module,
                source=opened.source,
                options=options,
                output=output,
                folder=parts,
            )
            name = options.executor_name
            with open_cluster(name, parts, workers=options.workers, prepare=_nothing) as cluster:
                return _predict(opened, cluster, write_far, writer, output, parts, options)


def _nothing() -> None:
    """Prepare a worker: it opens the run with its first unit."""


def predict_stream(
    run: Run, source: Path | str, options: PredictOptions | None = None
) -> Iterator[tuple[Documents, Predictions]]:
    """Classify the texts of a file or of standard input; yield units of documents with their predictions, in order.

    It cannot be resumed: it is for results that go to a pipe or a screen. Errors are those of `predict_file`; warnings
    are left to the caller, see `warn_of_texts`.
    """
    options = options or PredictOptions()
    with tempfile.TemporaryDirectory(prefix="shardtrain-") as scratch, threads(options.threads) as pool:
        path = _copy_stdin(Path(scratch)) if str(source) == STANDARD else Path(source)
        opened = _open(run, path, options, Path(scratch))
        with progress("predicting", total=sum(opened.sizes), lasting=False) as shown:
            for size, result in zip(opened.sizes, pool.map(opened.classify, opened.units), strict=True):
                yield result
                shown.add(size)


def _predict(
    opened: Input,
    executor: Executor,
    write: Callable[[Unit], UnitResult],
    writer: PredictionWriter,
    output: Path,
    scratch: Path,
    options: PredictOptions,
) -> PredictedFile:
    paths = [part_path(scratch, unit) for unit in opened.units]
    parts = Passes(executor, scratch, budget=0).run(
        "predicting",
        write,
        opened.units,
        opened.sizes,
        name="parts",
        schema=RESULT,
        encode=asdict,
        decode=UnitResult.from_record,
        fits=partial(is_whole, scratch),
    )
    ours = not output.exists() or options.overwrite or _is_finished(output, writer, paths, scratch)
    if not ours:  # it appeared while the job was interrupted
        raise OutputExistsError(_exists(output))
    check_held(scratch.parent)
    with committed(output) as file:
        writer.join(paths, file)
    rejected = [row for part in parts for row in part.bad_rows]
    counts = sum((part.counts for part in parts), TextCounts())
    warn_of_texts(counts, options)
    return PredictedFile(
        output=output,
        rows=sum(part.rows for part in parts),
        undecided=sum(part.undecided for part in parts),
        rejected_rows=sum(part.num_bad_rows for part in parts),
        rejected=tuple(rejected[:MAX_LISTED]),
        input_bytes=opened.source.num_bytes,
        counts=counts,
    )


def _is_finished(output: Path, writer: PredictionWriter, parts: Iterable[Path], scratch: Path) -> bool:
    """Return whether the output is what the parts make: the job was killed after it was written."""
    whole = scratch / "whole"
    with committed(whole, synced=False) as file:
        writer.join(parts, file)
    return filecmp.cmp(whole, output, shallow=False)


def _exists(output: Path) -> str:
    return f"'{output}' exists already; choose another --output, or replace it with --overwrite"


def _open(run: Run, path: Path, options: PredictOptions, scratch: Path) -> Input:
    """Open the input, report how it is read, and cut it into units."""
    names = run.description.class_names
    source, notes = open_texts(
        path,
        options,
        labels={*names, *run.labels},
        class_names=names,
        scratch=scratch,
        remembered=run.reading,
    )
    if path.name == _STDIN_COPY:
        source = source.named("standard input")
    for note in notes:
        say(note)
    classifier = loaded(run, explain=options.explain, threshold=options.threshold)
    parts = 1 if options.explain is None else _EXPLAINED_PARTS
    units = units_of(source, classifier.vectorizer.settings.density * parts)
    return Input(source=source, units=units, classifier=classifier)


def _copy_stdin(folder: Path) -> Path:
    path = folder / _STDIN_COPY
    copy_standard_input(path)
    return path


def _job(run: Run, path: Path, writer: PredictionWriter, options: PredictOptions) -> Job:
    """Return the job of predicting a file."""
    chosen = {
        "run": f"the model {run.metrics['model_sha256'][:16]}",
        "output": f"a file of {writer.kind}",
        **identity(options),
        "thresholds": _in_words(run.thresholds) if options.threshold else None,
    }
    files = files_of(path) if path.is_file() else {}
    if path.name == _STDIN_COPY:
        files = {"standard input": identify_content(path)}
    program = f"units of {UNIT_BYTES} bytes"
    return file_job(chosen, files, program, defaults={**identity_defaults(PredictOptions), "thresholds": None})


def _in_words(thresholds: Thresholds | None) -> str | None:
    """Return thresholds in words, all digits of which are those of a float32."""
    if thresholds is None:
        return None
    values = list(dict.fromkeys(f"{value:.9g}" for value in thresholds.values))
    others = f" and others, checksum {checksum(repr(thresholds.values).encode())}" if len(values) > 1 else ""
    return f"{thresholds.rule}: {values[0]}{others}"

"""Compare finished runs on the same rows: differences of options, data and metrics, and rows on which they disagree.

All runs are compared with the first. Rows are those of shards or of raw text (`common_rows`); one pass computes the
metrics of every run, the paired differences (`metrics.paired`) and the most confident disagreements. Their texts are
those of the corpus, or are looked up in the corpus that the shards were built from.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from shardtrain.corpus.label_spelling import must_be_literal
from shardtrain.corpus.labels import known_classes
from shardtrain.corpus.options import CorpusOptions
from shardtrain.corpus.source import BadRow
from shardtrain.errors import CorpusNotFoundError, ModelError, ShardsError, ShardsNotFoundError, UsageError
from shardtrain.inference.common_rows import CommonRows, RawText, check_classes, check_readings, rows_of_shards
from shardtrain.inference.disagreements import Disagreement, Disagreements
from shardtrain.inference.evaluate import chosen_split
from shardtrain.inference.given_data import is_raw_text
from shardtrain.inference.known_labels import KnownLabels
from shardtrain.inference.options import PredictOptions
from shardtrain.inference.run import Run, load_run
from shardtrain.inference.run_differences import (
    Differing,
    data_differences,
    option_differences,
    version_differences,
)
from shardtrain.inference.source_texts import find_source_texts
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.metrics.classification import Metrics, MetricSums
from shardtrain.metrics.paired import Paired, PairedSums
from shardtrain.pipeline.given import CorpusLike, as_files
from shardtrain.runtime.progress import say, warn

EXAMPLES = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """A run beside the first.

    Attributes:
        paired: the differences of metrics, this run minus the first.
        only_first: the most confident rows on which only the first run is right.
        only_second: likewise only this run.
    """

    paired: Paired
    only_first: tuple[Disagreement, ...]
    only_second: tuple[Disagreement, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Several runs on the same rows.

    Attributes:
        runs: the runs.
        class_names: of the first run; all indices of classes are places in it.
        data: folder of the shards, or the corpus, that gave the rows.
        split: "train", "validation" or "test"; None: all of a corpus without splits.
        rows: number of rows.
        options: the options that differ, with one value per run; None where a run does not record one.
        trained_on: likewise what differs in the data that they were trained on, and in its features.
        versions: likewise of packages.
        metrics: of each run.
        pairs: each further run beside the first.
        reasons: why texts of disagreements are missing.
        rejected_rows: number of invalid records in a corpus.
        rejected: the first of them.
    """

    runs: tuple[Run, ...]
    class_names: tuple[str, ...]
    data: str
    split: str | None
    rows: int
    options: Differing
    trained_on: Differing
    versions: Differing
    metrics: tuple[Metrics, ...]
    pairs: tuple[Compared, ...]
    reasons: tuple[str, ...] = ()
    rejected_rows: int = 0
    rejected: tuple[BadRow, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        names, first = self.class_names, self.runs[0]
        return {
            "data": self.data,
            "split": self.split,
            "examples": self.rows,
            "rejected_rows": self.rejected_rows,
            "rejected": [asdict(row) for row in self.rejected],
            "runs": [
                {"run": str(run.path), **metrics.record(names)}
                for run, metrics in zip(self.runs, self.metrics, strict=True)
            ],
            "options": {name: list(values) for name, values in self.options.items()},
            "trained_on": {name: list(values) for name, values in self.trained_on.items()},
            "versions": {name: list(values) for name, values in self.versions.items()},
            "pairs": [
                {
                    "first": str(first.path),
                    "second": str(run.path),
                    **pair.paired.record(names),
                    "only_first_right": [each.record(names) for each in pair.only_first],
                    "only_second_right": [each.record(names) for each in pair.only_second],
                }
                for run, pair in zip(self.runs[1:], self.pairs, strict=True)
            ],
            "missing_texts": list(self.reasons),
        }


def compare(
    runs: Sequence[Run | Path | str],
    data: Shards | CorpusLike | None = None,
    read: CorpusOptions | None = None,
    *,
    split: str | None = None,
    examples: int = EXAMPLES,
    workers: int | None = None,
) -> Comparison:
    """Compare finished runs with the first of them, on the same rows, in one pass and bounded memory.

    Args:
        runs: at least two runs, or their folders, with the same classes in whatever order.
        data: shards of the runs' vectorizer, open ones or their folder; or a corpus as for a build, which each run
            classifies with its own vectorizer. None: the shards that the runs were trained on, which may differ if
            they were built from the same corpus with the same seed.
        read: how a corpus is read; by default as that of the first run.
        split: "train", "validation" or "test"; None: of shards validation; of a corpus the test split if there is one,
            else the validation split, else all of it.
        examples: rows to keep on which only one of two runs is right, of each kind.
        workers: threads that read a corpus, as in `PredictOptions`.

    Raises:
        UsageError: fewer than two runs, or one is named twice.
        RunError: a run is unfinished or damaged, or has no vectorizer to read raw text with.
        ModelError: the runs have different classes, or the shards do not fit them.
        ShardsError: the shards are missing or damaged, or do not have the split.
        CorpusError: the corpus cannot be read, or does not have the split or the runs' labels.
    """
    opened = _opened(runs)
    check_classes(opened)
    if examples < 0:
        raise UsageError(f"--examples {examples}: at least 0")
    sums = _Sums(len(opened), opened[0].description.num_classes, examples)
    if data is None or isinstance(data, Shards) or (isinstance(data, Path | str) and not is_raw_text(Path(data))):
        facts = _on_shards(opened, data, split or "validation", sums)
    else:
        facts = _on_corpus(opened, data, read or CorpusOptions(), split, PredictOptions(workers=workers).threads, sums)
    pairs = facts.pop("pairs", sums.pairs())
    return Comparison(
        runs=tuple(opened),
        class_names=opened[0].description.class_names,
        rows=pairs[0].paired.rows,
        options=option_differences(opened),
        trained_on=data_differences(opened),
        versions=version_differences(opened),
        metrics=tuple(each.metrics() for each in sums.metrics),
        pairs=pairs,
        **facts,
    )


class _Sums:
    """What is summed up of all rows: metrics of each run, and each further run beside the first."""

    def __init__(self, num_runs: int, num_classes: int, examples: int) -> None:
        self.metrics = [MetricSums(num_classes) for _ in range(num_runs)]
        self._paired = [PairedSums(num_classes) for _ in range(num_runs - 1)]
        self._kept = [Disagreements(examples) for _ in range(num_runs - 1)]

    def add(self, batches: Iterable[CommonRows]) -> None:
        """Add all rows."""
        for batch in batches:
            first, *others = batch.probabilities
            for sums, outputs in zip(self.metrics, batch.probabilities, strict=True):
                sums.add(batch.y, outputs)
            for paired, kept, other in zip(self._paired, self._kept, others, strict=True):
                paired.add(batch.y, first, other)
                kept.add(batch.y, first, other, documents=batch.documents, texts=batch.texts)

    def pairs(self) -> tuple[Compared, ...]:
        """Return each further run beside the first."""
        return tuple(
            Compared(paired=paired.paired(), only_first=kept.only_first, only_second=kept.only_second)
            for paired, kept in zip(self._paired, self._kept, strict=True)
        )


def _opened(runs: Sequence[Run | Path | str]) -> list[Run]:
    """Open runs.

    Raises:
        UsageError: fewer than two, or one is named twice.
        RunError: a run is unfinished or damaged.
    """
    if isinstance(runs, str) or len(runs) < 2:
        raise UsageError("one run is nothing to compare; name two or more")
    opened = [each if isinstance(each, Run) else load_run(each) for each in runs]
    seen: set[Path] = set()
    for run in opened:
        if (place := run.path.resolve()) in seen:
            raise UsageError(f"'{run.path}' is named twice; name different runs")
        seen.add(place)
    return opened


def _on_shards(runs: Sequence[Run], data: Shards | Path | str | None, split: str, sums: _Sums) -> dict[str, Any]:
    with _shards_of(runs, data) as shards:
        sums.add(rows_of_shards(runs, shards, split=split))
        pairs = sums.pairs()
        texts, reasons = _texts(shards[0], split, pairs)
        found = tuple(
            replace(
                pair,
                only_first=tuple(replace(each, text=texts.get(each.row)) for each in pair.only_first),
                only_second=tuple(replace(each, text=texts.get(each.row)) for each in pair.only_second),
            )
            for pair in pairs
        )
        return {"data": str(shards[0].path), "split": split, "reasons": reasons, "pairs": found}


def _texts(shards: Shards, split: str, pairs: Sequence[Compared]) -> tuple[dict[int, str], tuple[str, ...]]:
    """Look up the texts of disagreements; return them by row, and why some are missing."""
    rows = sorted({each.row for pair in pairs for each in (*pair.only_first, *pair.only_second)})
    if not shards.description.vectorizer and rows:
        return {}, ("the features were not made from text here",)
    with tempfile.TemporaryDirectory(prefix="shardtrain-") as scratch:
        return find_source_texts(shards, shards.split(split), rows, scratch=Path(scratch))


@contextlib.contextmanager
def _shards_of(runs: Sequence[Run], data: Shards | Path | str | None) -> Iterator[list[Shards]]:
    """Open the shards of each run; those with equal fingerprints are the same.

    Raises:
        ModelError: the given shards were made by another vectorizer than that of a run.
        ShardsError: they are missing or damaged.
    """
    with contextlib.ExitStack() as files:
        if data is not None:
            given = data if isinstance(data, Shards) else files.enter_context(open_shards(data))
            _check_vectorizers(runs, given)
            yield [given] * len(runs)
            return
        opened: dict[Path, Shards] = {}
        for run in runs:
            if (place := _own_shards(run)) not in opened:
                opened[place] = files.enter_context(_open_own(run))
        same = {each.manifest.fingerprint: each for each in reversed(opened.values())}
        found = [same[opened[_own_shards(run)].manifest.fingerprint] for run in runs]
        for run, shards in zip(runs, found, strict=True):
            if shards.manifest.fingerprint != run.description.fingerprint:
                warn(
                    f"'{shards.path}' holds other shards than when '{run.path}' was trained on them; the run may have "
                    "been trained on some of the rows"
                )
        yield found


def _check_vectorizers(runs: Sequence[Run], shards: Shards) -> None:
    for run in runs:
        if run.description.vectorizer != shards.description.vectorizer:
            raise ModelError(
                f"the features of '{shards.path}' were made by another vectorizer than those '{run.path}' was trained "
                "on; omit --data to compare each run on its own shards, or compare on raw text: --data CORPUS"
            )


def _own_shards(run: Run) -> Path:
    """Return the folder of the shards that a run was trained on.

    Raises:
        ShardsNotFoundError: it does not record them.
    """
    if (recorded := run.config.get("shards")) is None:
        raise ShardsNotFoundError(f"'{run.path}' does not record its shards; name them with --data SHARDS")
    return Path(recorded).resolve()


def _open_own(run: Run) -> Shards:
    """Open the shards that a run was trained on.

    Raises:
        ShardsError: they are missing or damaged; the message says what else can be compared on.
    """
    try:
        return open_shards(run.config["shards"])
    except ShardsError as error:
        raise type(error)(
            f"the shards that '{run.path}' was trained on cannot be used: {error.on_command_line}; to compare on "
            "others, or on raw text, add --data SHARDS or --data CORPUS"
        ) from error


def _on_corpus(
    runs: Sequence[Run], corpus: CorpusLike, read: CorpusOptions, split: str | None, workers: int, sums: _Sums
) -> dict[str, Any]:
    first = runs[0]
    check_readings(runs)
    if must_be_literal(first.labels):
        read = replace(read, labels="names")
    with tempfile.TemporaryDirectory(prefix="shardtrain-") as scratch, contextlib.ExitStack() as files:
        given = files.enter_context(as_files(corpus, Path(scratch) / "given", read))
        opened = given.open(read, scratch=Path(scratch), remembered=first.reading)
        for note in opened.notes:
            say(note)
        _warn_of_readings(runs)
        name = chosen_split(opened, split)
        labels = KnownLabels(known_classes(first.description.class_names, first.labels))
        texts = RawText(runs=runs, source=opened.sources[name], labels=labels)
        sums.add(texts.rows(workers))
        if not labels.examples.any():
            raise CorpusNotFoundError(f"'{given.paths[0]}' holds no valid document, so there is nothing to compare on")
        for line in labels.warnings(opened.class_names):
            warn(line)
        return {
            "data": str(corpus) if isinstance(corpus, Path | str) else str(given.paths[0]),
            "split": name if split or len(opened.sources) > 1 else None,
            "rejected_rows": texts.rejected_rows,
            "rejected": texts.rejected,
        }


def _warn_of_readings(runs: Sequence[Run]) -> None:
    """Warn of runs that were trained on other columns of their corpus than the first run."""
    expected = runs[0].reading
    for run in runs[1:]:
        found = run.reading
        if expected is not None and found is not None and found.columns != expected.columns:
            warn(
                f"'{run.path}' was trained on other columns ({_columns(found.texts)}) than '{runs[0].path}' "
                f"({_columns(expected.texts)}); both are given the text that the first reads"
            )


def _columns(columns: Sequence[int | str]) -> str:
    return ", ".join(map(str, columns)) or "all text"

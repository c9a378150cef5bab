"""Declare the options for classifying texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shardtrain.corpus.options import TextOptions
from shardtrain.errors import UsageError
from shardtrain.options import checked, option
from shardtrain.runtime.machine import cores
from shardtrain.shards.layout import SPLITS

MOST_WORKERS = 8  # by default: each holds about 100 MiB
MOST_ON_PAGE = 200  # texts that are explained on a page
_TEXTS, _OUTPUT = "texts", "output"


def _count_of_terms(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is not a number of terms; write 1 or more")
    return int(text)


@checked
@dataclass(frozen=True, kw_only=True)
class PredictFiles:
    """What `predict` reads and writes.

    Attributes:
        input: a file of texts, or "-".
        output: a file of predictions, or "-".
        html: a page of explanations.
    """

    input: str | None = option(
        None,
        "CSV, TSV or JSON Lines, otherwise one text per line; also compressed; - is standard input",
        group=_TEXTS,
        metavar="FILE",
        unset="none",
        identity=False,
    )
    output: str | None = option(
        None,
        "write row, class and probability to a .csv, .jsonl or .parquet; - prints CSV",
        group=_OUTPUT,
        metavar="FILE",
        unset="a line per text on standard output",
        identity=False,
    )
    html: Path | None = option(
        None,
        f"with --explain: write a page that shows the terms in the texts, of the first {MOST_ON_PAGE} texts",
        group=_OUTPUT,
        metavar="FILE",
        parse=Path,
        unset="none",
        identity=False,
    )


@checked
@dataclass(frozen=True, kw_only=True)
class PredictOptions(TextOptions):
    """How a file of texts is read and classified.

    Attributes:
        proba: write the probabilities of all classes, not only of the best one.
        notes: write what makes the class of a text mean little: `blank`, `no known feature`, `undecodable`.
        explain: explain the class of each text by so many terms; None: no explanation.
        csv_safe: write cells of CSV that a spreadsheet would take for formulas with an apostrophe in front.
        workers: threads; None: one per core, at most `MOST_WORKERS`.
        overwrite: replace an output that exists, and discard one that was interrupted with other options.

    The other attributes are those of the class that it extends.

    Raises:
        UsageError: a value outside its range.
    """

    proba: bool = option(False, "write the probability of every class", group=_OUTPUT)
    notes: bool = option(
        False,
        "add a column `note`: blank, no known feature, undecodable, or nothing",
        group=_OUTPUT,
    )
    explain: int | None = option(
        None,
        "show the N terms of each text that add most to the logit of its class, for or against it, and their places",
        group=_OUTPUT,
        metavar="N",
        parse=_count_of_terms,
        unset="no explanation",
    )
    csv_safe: bool = option(
        False,
        "in CSV and in tab-separated lines, put an apostrophe before text that a spreadsheet would run as a formula",
        group=_OUTPUT,
    )
    overwrite: bool = option(False, "replace the file in --output if it exists", group=_OUTPUT, identity=False)
    workers: int | None = option(
        None,
        "threads, about 100 MiB each",
        group=_OUTPUT,
        metavar="N",
        parse=int,
        unset=f"one per core, at most {MOST_WORKERS}",
        identity=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers {self.workers}: at least 1")
        if self.explain is not None and self.explain < 1:
            raise UsageError(f"--explain {self.explain}: at least 1 term")

    @property
    def threads(self) -> int:
        """How many work."""
        return self.workers or min(cores(), MOST_WORKERS)


@checked
@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """On what a run is evaluated.

    Attributes:
        split: "train", "validation" or "test"; None: of shards the validation split; of a corpus the test split, else
            the validation split, else all of it.

    Raises:
        UsageError: there is no such split.
    """

    split: str | None = option(
        None,
        "of the shards or of the corpus",
        group="evaluation",
        choices=SPLITS,
        unset="of shards validation; of a corpus test if it has one, else validation, else all of it",
        identity=False,
    )


@checked
@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What a saved model of the user needs to be loaded.

    Attributes:
        module: name of a module that registers layers.
    """

    module: str | None = option(
        None,
        "import this module of the current folder first: it registers the layers of a saved model",
        group="model",
        metavar="MODULE",
        spelled="import",
        unset="none",
        identity=False,
    )

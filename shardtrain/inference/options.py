"""Declare the options for classifying texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shardtrain.corpus.options import Column, TextOptions, parse_column
from shardtrain.errors import UsageError
from shardtrain.metrics.names import MEASURES
from shardtrain.options import checked, flag, option
from shardtrain.runtime.machine import cores
from shardtrain.runtime.options import ExecutorOptions
from shardtrain.shards.layout import SPLITS

MOST_WORKERS = 8  # by default: each holds about 100 MiB
MOST_ON_PAGE, MOST_CHARACTERS = 200, 1_000_000  # texts that are explained on a page, and characters of all
RUN_ORDERS = (*MEASURES, "test_accuracy", "test_loss", "epochs", "time", "date")  # of runs; the first on validation
_TEXTS, _OUTPUT, _EVALUATION = "texts", "output", "evaluation"


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
class PredictOptions(ExecutorOptions, TextOptions):
    """How a file of texts is read and classified.

    Attributes:
        proba: write the probabilities of all classes, not only of the best one.
        notes: write what makes the class of a text mean little: `blank`, `no known feature`, `undecodable`.
        explain: explain the class of each text by so many terms; None: no explanation.
        csv_safe: write cells of CSV that a spreadsheet would take for formulas with an apostrophe in front.
        threshold: whether a text whose class is not probable enough is "undecided", where the run has thresholds.
        workers: threads; None: one per core, at most `MOST_WORKERS`. Of another executor, tasks under way at once, at
            most; None: as many as its workers run at once.
        overwrite: replace an output that exists, and discard one that was interrupted with other options.

    The other attributes are those of the classes that it extends.

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
    threshold: bool = option(
        True,
        "classify every text",
        group=_OUTPUT,
        unset="undecided below a threshold that evaluate chose",
    )
    overwrite: bool = option(False, "replace the file in --output if it exists", group=_OUTPUT, identity=False)
    workers: int | None = option(
        None,
        "threads, about 100 MiB each; with another --executor the tasks under way at once",
        group=_OUTPUT,
        metavar="N",
        parse=int,
        unset=f"one per core, at most {MOST_WORKERS}",
        identity=False,
    )

    def __post_init__(self) -> None:
        ExecutorOptions.__post_init__(self)
        TextOptions.__post_init__(self)
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
class EvaluateOptions(ExecutorOptions):
    """On what a run is evaluated, and what is written of it.

    Attributes:
        split: "train", "validation" or "test"; None: of shards the validation split; of a corpus the test split, else
            the validation split, else all of it.
        by: column of a corpus by whose values the rows are also measured part by part.
        weight: column of a corpus with the weights of its rows.
        choose_threshold: a rule by which thresholds are chosen and saved with the run, below which predictions are
            "undecided" (`metrics.thresholds.Rule`); "none" removes them.
        errors: a file of the wrong rows.
        csv_safe: as in `PredictOptions`.
        overwrite: replace the file in `errors`.

    The other attribute is that of the class that it extends.

    Raises:
        UsageError: there is no such split, or an option that needs `errors` is given without it.
    """

    split: str | None = option(
        None,
        "of the shards or of the corpus",
        group=_EVALUATION,
        choices=SPLITS,
        unset="of shards validation; of a corpus test if it has one, else validation, else all of it",
        identity=False,
    )
    by: Column | None = option(
        None,
        "raw text: also measure the rows of each value of this column, named or counted from 0",
        group=_EVALUATION,
        metavar="COLUMN",
        parse=parse_column,
        unset="none",
        identity=False,
    )
    weight: Column | None = option(
        None,
        "raw text: column with the weights of the rows",
        group=_EVALUATION,
        metavar="COLUMN",
        parse=parse_column,
        unset="each row counts 1",
        identity=False,
    )
    choose_threshold: str | None = option(
        None,
        "choose how sure predictions must be, or else `predict` says undecided, and save it with the run: "
        "'precision>=0.95', 'recall>=0.9', 'coverage>=0.8' or 'max f1', also with ' per class'; none removes it",
        group=_EVALUATION,
        metavar="RULE",
        parse=str,
        unset="keep what is chosen",
        identity=False,
    )
    errors: str | None = option(
        None,
        "write the wrong rows with their texts and probabilities to a .csv, .jsonl or .parquet",
        group=_EVALUATION,
        metavar="FILE",
        unset="none",
        identity=False,
    )
    csv_safe: bool = option(
        False,
        "in CSV, put an apostrophe before text that a spreadsheet would run as a formula",
        group=_EVALUATION,
        identity=False,
    )
    overwrite: bool = option(False, "replace the file in --errors if it exists", group=_EVALUATION, identity=False)

    def __post_init__(self) -> None:
        ExecutorOptions.__post_init__(self)
        for name in ("csv_safe", "overwrite"):
            if getattr(self, name) and self.errors is None:
                raise UsageError(f"{flag(name)} is for the file of --errors, which is not given; omit it")


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


@checked
@dataclass(frozen=True, kw_only=True)
class RunsOptions:
    """How runs are listed.

    Attributes:
        sort: one of `RUN_ORDERS`, best first; None: by name.

    Raises:
        UsageError: there is no such order.
    """

    sort: str | None = option(
        None,
        "order, best first: by a metric on the validation or test split, the shortest time or the newest date",
        group="list",
        choices=RUN_ORDERS,
        unset="by name",
        identity=False,
    )


@checked
@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """On what runs are compared, and what is shown.

    Attributes:
        data: folder of shards, or a corpus as for a build; None: the shards that the runs were trained on.
        split: "train", "validation" or "test"; None: as in `EvaluateOptions`.
        examples: rows that only one of two runs classifies rightly, of each kind.

    Raises:
        UsageError: there is no such split, or a negative number.
    """

    data: str | None = option(
        None,
        "shards of the runs' vectorizer, or raw text with labels, which each run reads with its own vectorizer",
        group="comparison",
        metavar="SHARDS|CORPUS",
        unset="the shards that the runs were trained on",
        identity=False,
    )
    split: str | None = option(
        None,
        "of the shards or of the corpus",
        group="comparison",
        choices=SPLITS,
        unset="of shards validation; of a corpus test if it has one, else validation, else all of it",
        identity=False,
    )
    examples: int = option(
        5,
        "rows to show on which only one run is right, of each kind",
        group="comparison",
        metavar="N",
        parse=int,
        identity=False,
    )

    def __post_init__(self) -> None:
        if self.examples < 0:
            raise UsageError(f"--examples {self.examples}: at least 0")

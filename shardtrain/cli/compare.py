"""`compare`: show what differs between runs, how much better one is, and where they disagree."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardtrain.cli.arguments import given_options, options_from
from shardtrain.cli.build import CORPUS_FORMATS
from shardtrain.cli.command import Argument, Command, Offered
from shardtrain.cli.results import rejected_lines, show
from shardtrain.cli.tensorflow import load_for
from shardtrain.corpus.options import CorpusOptions, TextOptions
from shardtrain.errors import UsageError
from shardtrain.inference.options import CompareOptions, ImportOptions
from shardtrain.runtime.terminal import aligned, printable

if TYPE_CHECKING:
    from shardtrain.inference.compare import Compared, Comparison
    from shardtrain.inference.disagreements import Disagreement
    from shardtrain.metrics.classification import Metrics
    from shardtrain.metrics.paired import Difference, Paired

_NAME = 40  # characters of a name
_VALUE = 60  # of the value of an option
_TEXT = 300  # of a text
_MOST_CLASSES = 20  # in the table; of more, those whose F1 differs most
_METRICS = {  # of which there are intervals
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "balanced_accuracy": "balanced accuracy",
    "log_loss": "log loss",
}


def run(args: argparse.Namespace) -> int:
    """Compare the runs, and print what differs."""
    from shardtrain.inference.given_data import is_raw_text
    from shardtrain.inference.run import load_run
    from shardtrain.runtime.process import own_process

    own_process()
    options, reading = options_from(args, CompareOptions), given_options(args, TextOptions)
    if reading and (options.data is None or not is_raw_text(Path(options.data))):
        raise UsageError("options for reading text are for raw text; add --data CORPUS, or omit them")
    runs = [load_run(each) for each in args.run_folders]
    for each in runs:
        load_for(each, options_from(args, ImportOptions).module)
    from shardtrain.inference.compare import compare

    found = compare(runs, options.data, CorpusOptions(**reading), split=options.split, examples=options.examples)
    show(args.json, found.record(), *_lines(found))
    return 0


def _lines(found: Comparison) -> Iterator[str]:
    names = _names(found)
    yield from rejected_lines([asdict(row) for row in found.rejected], found.rejected_rows)
    yield f"{found.rows:,} {f'{found.split} ' if found.split else ''}rows: {found.data}"
    for name, pair in zip(names[1:], found.pairs, strict=True):
        yield verdict(names[0], name, pair.paired)
    for title, differing in (
        ("options that differ", found.options),
        ("differences of data and features", found.trained_on),
        ("versions that differ", found.versions),
    ):
        yield from _differing(title, differing, names)
    for number, pair in enumerate(found.pairs, 1):
        yield ""
        yield from _pair(found, names, number, pair)
    for reason in found.reasons:
        yield f"texts are missing: {reason}"


def _names(found: Comparison) -> list[str]:
    """Return the names of the runs' folders, or their paths where two have one name."""
    short = [run.path.resolve().name for run in found.runs]
    unique = len(set(short)) == len(short)
    return [_brief(name if unique else str(run.path)) for name, run in zip(short, found.runs, strict=True)]


def verdict(first: str, second: str, paired: Paired) -> str:
    """Say in words which of two runs is more accurate, by how much, or that neither is shown to be."""
    accuracy = paired.metrics["accuracy"]
    if accuracy.interval is None:
        return f"{second} and {first}: no rows"
    low, high = (100 * each for each in accuracy.interval)
    if paired.better:
        winner, loser = (second, first) if paired.better > 0 else (first, second)
        by, low, high = (100 * accuracy.value, low, high) if paired.better > 0 else (-100 * accuracy.value, -high, -low)
        return (
            f"{winner} is more accurate than {loser} by {by:.1f} points (95 % interval {low:.1f} to {high:.1f}; "
            f"p = {_p_value(paired.p_value)})"
        )
    return (
        f"no difference of accuracy shown between {first} and {second}: {100 * accuracy.value:+.1f} points "
        f"(95 % interval {low:+.1f} to {high:+.1f}; p = {_p_value(paired.p_value)})"
    )


def _differing(title: str, differing: Mapping[str, Sequence[Any]], names: Sequence[str]) -> Iterator[str]:
    if differing:
        yield ""
        rows = [(name, *(_value(name, value) for value in values)) for name, values in differing.items()]
        yield from _columns([(title, *names), *rows], text=1 + len(names))


def _pair(found: Comparison, names: Sequence[str], number: int, pair: Compared) -> Iterator[str]:
    first, second, paired = names[0], names[number], pair.paired
    rows = [(label, *_figures(paired.metrics[key])) for key, label in _METRICS.items()]
    rows += [(label, f"{a:.4f}", f"{b:.4f}", f"{b - a:+.4f}", "-") for label, a, b in _further(found.metrics, number)]
    yield from _columns([("metric", first, second, "difference", "95 % interval"), *rows], text=1)
    yield ""
    yield from _classes(found, (first, second), number)
    yield ""
    yield (
        f"both right {paired.both:,}, only {first} {paired.only_first:,}, only {second} {paired.only_second:,}, "
        f"both wrong {paired.neither:,}; McNemar's test p = {_p_value(paired.p_value)}"
    )
    for right, kept in ((first, pair.only_first), (second, pair.only_second)):
        if kept:
            yield ""
            yield f"only {right} is right, the most confident first"
            for each in kept:
                yield from _disagreement(each, (first, second), found.class_names)


def _further(metrics: Sequence[Metrics], number: int) -> Iterator[tuple[str, float, float]]:
    """Yield metrics of which no interval is computed: name, of the first run, of the other one."""
    a, b = metrics[0], metrics[number]
    yield "Matthews correlation", a.matthews, b.matthews
    yield "expected calibration error", a.calibration.error, b.calibration.error
    areas = a.macro_ranking.roc_auc, b.macro_ranking.roc_auc
    if areas[0] is not None and areas[1] is not None:
        yield "macro ROC AUC", areas[0], areas[1]


def _classes(found: Comparison, names: tuple[str, str], number: int) -> Iterator[str]:
    """Yield the table of the classes that occur, or of those of many whose F1 differs most."""
    a, b, paired = found.metrics[0], found.metrics[number], found.pairs[number - 1].paired
    shown = sorted({*a.occurring.tolist(), *b.occurring.tolist()})
    if more := max(0, len(shown) - _MOST_CLASSES):
        shown = sorted(shown, key=lambda each: (-abs(paired.classes[each]["f1"].value), each))[:_MOST_CLASSES]
    rows = []
    for each in shown:
        for place, (key, label) in enumerate((("precision", "precision"), ("recall", "recall"), ("f1", "F1"))):
            about = (_brief(found.class_names[each]), f"{a.support[each]:,}") if not place else ("", "")
            rows.append((*about, label, *_figures(paired.classes[each][key])))
    yield from _columns([("class", "rows", "metric", *names, "difference", "95 % interval"), *rows], text=3)
    if more:
        yield f"  the {_MOST_CLASSES} classes whose F1 differs most; {more:,} more are in --json"


def _figures(found: Difference) -> tuple[str, str, str, str]:
    interval = "-" if found.interval is None else f"{found.interval[0]:+.4f} to {found.interval[1]:+.4f}"
    return f"{found.first:.4f}", f"{found.second:.4f}", f"{found.value:+.4f}", interval


def _disagreement(found: Disagreement, runs: tuple[str, str], class_names: Sequence[str]) -> Iterator[str]:
    said = "; ".join(
        f"{run}: {_brief(class_names[guess])} {probability:.1%}"
        for run, guess, probability in zip(runs, found.predicted, found.probability, strict=True)
    )
    yield f"  row {found.row:,}, true {_brief(class_names[found.label])}; {said}"
    if found.text is not None:
        yield f"    {_cut(printable(' '.join(found.text.split())), _TEXT)}"


def _columns(rows: Sequence[Sequence[str]], *, text: int) -> Iterator[str]:
    for line in aligned(rows, text=text):
        yield f"  {line}".rstrip()


def _p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


def _value(name: str, value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(map(str, value)) or "none"
    shown = "-" if value is None else printable(str(value))
    if name == "shards" and len(shown) > _VALUE:  # paths differ at their ends
        return "…" + shown[1 - _VALUE :]
    return _cut(shown, _VALUE)


def _brief(name: str) -> str:
    return _cut(printable(name), _NAME)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


COMMAND = Command(
    name="compare",
    help="show what differs between runs, and whether one is better",
    description="Compare runs with the first one on the same rows: the options and data that differ; the difference of "
    "each metric, overall and per class, with a 95 % interval; and the texts on which one run is right and the other "
    "wrong. Without --data on the validation rows of the shards that they were trained on.",
    run=run,
    arguments=(Argument(name="run_folders", metavar="RUN", help="folders of two or more finished runs", nargs="+"),),
    options=(CompareOptions, ImportOptions, Offered(cls=TextOptions, choices={"format": CORPUS_FORMATS})),
    examples="""\
python -m shardtrain compare runs/mlp-1 runs/linear-1
python -m shardtrain compare runs/mlp-1 runs/linear-1 runs/mlp-2 --split test --examples 20
python -m shardtrain compare runs/mlp-1 runs/sepcnn-1 --data reviews.csv --label-column stars --json""",
)

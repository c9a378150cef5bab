"""What a run's model makes of the validation rows of shards, measured, worded and drawn.

The rows are read and classified batch by batch, as `evaluate` does, so that memory does not depend on how many there
are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from shardtrain.errors import VectorizerError
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.loader.split import Split
from shardtrain.report import svg
from shardtrain.report.evaluation import BINS, Evaluation, Mistake, evaluate_predictions
from shardtrain.report.formatting import cut
from shardtrain.report.markup import Markup, element, joined
from shardtrain.report.page import Section, charts, figure, legend, notice, table
from shardtrain.report.source_texts import find_source_texts
from shardtrain.report.summary import load_shards_vectorizer
from shardtrain.runtime.progress import progress
from shardtrain.training.run_folder import Run

MISTAKES = 20  # that are shown
_CELLS = 30  # classes of a heat map
_PAIRS = 30  # confusions that are listed
_ROWS = 200  # of a table
_NAME = 40  # characters of a name in a sentence
_CHARACTERS = 600  # of a text
_TERMS = 30  # of a row whose text is gone


@dataclass(frozen=True, kw_only=True)
class MistakeDetails:
    """A mistake and what its row holds: the text, or the terms of its features, or nothing."""

    mistake: Mistake
    document: int
    text: str | None
    terms: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RunEvaluation:
    """What the run's model makes of the validation rows of shards.

    Attributes:
        shards: their folder.
        grown: whether they are others than those that the run was trained on, made by the same vectorizer.
        outcome: what was measured.
        mistakes: the most confident ones.
        reasons: why texts are missing.
    """

    shards: Path
    grown: bool
    outcome: Evaluation
    mistakes: tuple[MistakeDetails, ...]
    reasons: tuple[str, ...]


def evaluate_run(run: Run, folder: Path, *, scratch: Path) -> RunEvaluation:
    """Classify the validation rows of the shards in `folder`, and find the texts of the most confident mistakes.

    Raises:
        ShardsError: there are none, or they are damaged.
        ModelError: they were made by another vectorizer, or have other classes.
        RunError: the run's files are damaged.
    """
    from shardtrain.inference.predict import predict_rows

    with open_shards(folder) as shards:
        split = shards.validation
        with progress("classifying", total=split.num_examples, unit="rows") as done:

            def batches() -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
                for y, predictions in predict_rows(run, shards):
                    yield y, predictions.probabilities
                    done.add(len(y))

            outcome = evaluate_predictions(batches(), run.description.num_classes, mistakes=MISTAKES)
        texts, reasons = find_source_texts(shards, split, [each.row for each in outcome.mistakes], scratch=scratch)
        return RunEvaluation(
            shards=folder,
            grown=shards.manifest.fingerprint != run.description.fingerprint,
            outcome=outcome,
            mistakes=_shown(shards, split, outcome.mistakes, texts),
            reasons=reasons,
        )


def _shown(
    shards: Shards, split: Split, mistakes: Sequence[Mistake], texts: dict[int, str]
) -> tuple[MistakeDetails, ...]:
    vectorizer = None
    if len(texts) < len(mistakes) and shards.manifest.files:
        try:
            vectorizer = load_shards_vectorizer(shards)
        except VectorizerError:  # the rows need none; only their words are missing then
            vectorizer = None
    found = []
    for each in mistakes:
        text = texts.get(each.row)
        terms: list[str] = []
        if text is None and vectorizer is not None and vectorizer.terms:
            terms = vectorizer.decode(split.rows(each.row, each.row + 1)[0])
        document = int(split.documents(each.row, each.row + 1)[0])
        found.append(MistakeDetails(mistake=each, document=document, text=text, terms=tuple(terms[:_TERMS])))
    return tuple(found)


def sections(found: RunEvaluation, names: Sequence[str]) -> list[Section]:
    """The parts of a report that tell of it; `names` are those of the classes."""
    outcome = found.outcome
    classes = charts(*_per_class(outcome, names), _most_confused(outcome, names))
    trust = charts(_matrix(outcome, names), *_calibration(outcome))
    return [
        Section(name="classes", title="Classes", body=joined(_about(found), classes)),
        Section(name="confusions", title="Confusions and calibration", body=trust),
        Section(name="mistakes", title="Most confident mistakes", body=_mistakes(found, names)),
    ]


def _about(found: RunEvaluation) -> Markup:
    outcome = found.outcome
    said = (
        f"{outcome.rows:,} validation rows of {found.shards}, classified for this report: {outcome.accuracy:.2%} right."
    )
    told = [element("p", said)]
    if found.grown:
        told.append(notice("These shards are others than those the run was trained on; the same vectorizer made them."))
    return joined(*told)


def _per_class(outcome: Evaluation, names: Sequence[str]) -> tuple[Markup, Markup]:
    there = [index for index in range(len(names)) if outcome.support[index] or outcome.guessed[index]]
    means = (float(each[there].mean()) for each in (outcome.precision, outcome.recall, outcome.f1))
    rows = [
        (
            names[i],
            f"{outcome.precision[i]:.3f}",
            f"{outcome.recall[i]:.3f}",
            f"{outcome.f1[i]:.3f}",
            f"{outcome.support[i]:,}",
        )
        for i in there[:_ROWS]
    ]
    precision, recall, f1 = means
    rows.append(("mean of all classes", f"{precision:.3f}", f"{recall:.3f}", f"{f1:.3f}", f"{outcome.rows:,}"))
    more = f", the first {_ROWS} of {len(there):,}" if len(there) > _ROWS else ""
    heads = ("class", "precision", "recall", "F1", "rows")
    listed = table(heads, rows, caption=f"Precision and recall of each class{more}")
    drawn = sorted(there, key=lambda index: float(outcome.f1[index]))[:_CELLS]
    bars = [
        svg.Bar(
            label=names[i],
            values=(float(outcome.precision[i]), float(outcome.recall[i])),
            shown=(f"{outcome.precision[i]:.3f}", f"{outcome.recall[i]:.3f}"),
            hint=f"{names[i]}: precision {outcome.precision[i]:.4f}, recall {outcome.recall[i]:.4f}, "
            f"{outcome.support[i]:,} rows",
        )
        for i in drawn
    ]
    told = f"By rising F1; {cut(names[drawn[0]], _NAME)} is hardest."
    if len(there) > _CELLS:
        told += f" The {_CELLS} hardest of {len(there):,} classes are drawn."
    chart = svg.bars(bars, alt=f"Precision and recall of each class. {told}")
    return figure("Precision and recall", told, chart, legend=legend("precision", "recall")), listed


def _pairs(outcome: Evaluation) -> list[tuple[int, int, int]]:
    """Rows, true class and chosen class of each confusion, most frequent first."""
    if outcome.confusions is None:
        return []
    places = zip(*(part.tolist() for part in outcome.confusions.nonzero()), strict=True)
    pairs = [(int(outcome.confusions[i, j]), i, j) for i, j in places if i != j]
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))


def _most_confused(outcome: Evaluation, names: Sequence[str]) -> Markup:
    if outcome.confusions is None:
        return notice(f"Pairs of {len(names):,} classes are not counted one by one.")
    rows = [
        (names[i], names[j], f"{count:,}", f"{count / outcome.support[i]:.1%}")
        for count, i, j in _pairs(outcome)[:_PAIRS]
    ]
    heads, caption = ("class", "taken for", "rows", "share"), "Most frequent confusions"
    return table(heads, rows, caption=caption, text=2, tall=len(rows) > 12) if rows else element("p", "No confusions.")


def _matrix(outcome: Evaluation, names: Sequence[str]) -> Markup:
    matrix = outcome.confusions
    if matrix is None or len(names) > _CELLS:
        return notice(f"A matrix of {len(names):,} classes is too large to be drawn.")
    support = outcome.support
    cells = [
        [
            svg.Cell(
                strength=int(matrix[i, j]) / max(int(support[i]), 1),
                shown=f"{matrix[i, j]:,}" if matrix[i, j] else "",
                hint=f"{names[i]} {'right' if i == j else f'taken for {names[j]}'}: {matrix[i, j]:,} of {support[i]:,}",
            )
            for j in range(len(names))
        ]
        for i in range(len(names))
    ]
    worst = "; ".join(f"{names[i]} is taken for {names[j]} ({count:,} rows)" for count, i, j in _pairs(outcome)[:3])
    alt = f"Confusion matrix. {f'Most often {worst}' if worst else 'All rows are on the diagonal'}."
    told = "Rows are true classes, columns what the model says; the stronger a cell, the larger its share of the row."
    return figure("Confusion matrix", told, svg.heat_map(names, cells, alt=alt, across="taken for class"))


def _calibration(outcome: Evaluation) -> tuple[Markup, Markup]:
    found = outcome.calibration
    spans = [(number / BINS, (number + 1) / BINS) for number in range(BINS)]
    bins, rows = [], []
    for (start, stop), count, mean, right in zip(spans, found.counts, found.confidence, found.accuracy, strict=True):
        name = f"{start:.0%} to {stop:.0%}"
        told = f"confidence {name}: {count:,} rows" + (f", mean {mean:.1%}, right {right:.1%}" if count else "")
        bins.append(svg.Bin(start=start, stop=stop, heights=(right,) if count else (), hint=told))
        rows.append((name, f"{count:,}", f"{mean:.1%}" if count else "", f"{right:.1%}" if count else ""))
    confident = sum(count * mean for count, mean in zip(found.counts, found.confidence, strict=True)) / outcome.rows
    lean = "overconfident" if confident > outcome.accuracy else "underconfident"
    told = (
        f"The expected calibration error is {found.error:.3f}: the model is right in {outcome.accuracy:.1%} of rows "
        f"and on average {confident:.1%} sure, so it is {lean} by {100 * abs(confident - outcome.accuracy):.1f} "
        "points. On the dashed line it would be neither."
    )
    heads = ("confidence", "rows", "mean confidence", "right")
    values = table(heads, rows, caption="Reliability", hide_caption=True)
    shares = [
        svg.Bin(start=start, stop=stop, heights=(count / outcome.rows,), hint=each.hint)
        for (start, stop), count, each in zip(spans, found.counts, bins, strict=True)
    ]
    spread = svg.histogram(
        shares,
        alt="Share of rows by the confidence of the model's answer.",
        x_label="confidence",
        y_label="share of rows",
        shares=True,
    )
    return (
        figure("Reliability diagram", told, svg.reliability(bins, alt=f"Reliability diagram. {told}"), values=values),
        figure("How sure the model is", "Rows by the probability of the class it chose.", spread),
    )


def _mistakes(found: RunEvaluation, names: Sequence[str]) -> Markup:
    if not found.mistakes:
        return element("p", "There is none.")
    told = [
        notice(f"Texts are missing: {reason}. Shown instead are the terms of the rows' features.")
        for reason in found.reasons
    ]
    items = []
    for each in found.mistakes:
        mistake = each.mistake
        verdict = element(
            "p",
            element("b", names[mistake.guess], dir="auto"),
            f" at {mistake.probability:.1%}; it is ",
            element("b", names[mistake.truth], dir="auto"),
            f", which got {mistake.true_probability:.1%}. ",
            f"Document {each.document:,}.",
            class_="verdict",
        )
        content: Markup
        if each.text is not None:
            content = element(
                "p", cut(" ".join(each.text.split()).lstrip(", "), _CHARACTERS) or "(an empty text)", dir="auto"
            )
        else:
            content = element("p", ", ".join(each.terms) or "(no text and no terms)", dir="auto", class_="soft")
        items.append(element("li", verdict, content))
    return joined(*told, element("ol", *items, class_="mistakes"))

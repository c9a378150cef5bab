"""Evaluate a run's model on the validation rows of shards and render the result.

Rows are read and classified batch by batch, as by the command `evaluate`, so memory does not depend on their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from shardtrain.errors import VectorizerError
from shardtrain.inference.run import Run
from shardtrain.inference.source_texts import find_source_texts
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.loader.split import Split
from shardtrain.metrics.classification import BINS, MAX_MATRIX, Metrics
from shardtrain.report import svg
from shardtrain.report.evaluation import Mistake, evaluate_predictions
from shardtrain.report.formatting import truncate
from shardtrain.report.markup import Markup, element, joined
from shardtrain.report.page import Section, figure, grid, legend, notice, table
from shardtrain.report.summary import load_shards_vectorizer
from shardtrain.runtime.progress import progress

MISTAKES = 20
_MAX_CELLS = 30  # classes of a heat map
_MAX_PAIRS = 30  # confusions in the table
_MAX_ROWS = 200  # of a table
_MAX_NAME = 40  # characters of a class name in a sentence
_MAX_CHARACTERS = 600  # of a text
_MAX_TERMS = 30  # of a row whose text is not available


@dataclass(frozen=True, kw_only=True)
class MistakeDetails:
    """A mistake with the text of its document, or else the terms of its features, if available."""

    mistake: Mistake
    document: int
    text: str | None
    terms: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RunEvaluation:
    """Evaluation of a run's model on the validation rows of shards.

    Attributes:
        shards: folder of the shards.
        changed: whether they differ from the shards the run was trained on; the vectorizer is the same.
        metrics: the metrics.
        mistakes: the most confident mistakes.
        reasons: why texts are missing.
    """

    shards: Path
    changed: bool
    metrics: Metrics
    mistakes: tuple[MistakeDetails, ...]
    reasons: tuple[str, ...]


def evaluate_run(run: Run, folder: Path, *, scratch: Path) -> RunEvaluation:
    """Classify the validation rows of the shards in `folder` and look up the texts of the most confident mistakes.

    Raises:
        ShardsError: the shards are missing or damaged.
        ModelError: the shards were built with another vectorizer or have other classes.
        RunError: a file of the run is damaged.
    """
    from shardtrain.inference.rows import predict_rows

    with open_shards(folder) as shards:
        split = shards.validation
        with progress("classifying", total=split.num_examples, unit="rows") as done:

            def batches() -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
                for y, predictions in predict_rows(run, shards):
                    yield y, predictions.probabilities
                    done.add(len(y))

            metrics, mistakes = evaluate_predictions(batches(), run.description.num_classes, mistakes=MISTAKES)
        texts, reasons = find_source_texts(shards, split, [each.row for each in mistakes], scratch=scratch)
        return RunEvaluation(
            shards=folder,
            changed=shards.manifest.fingerprint != run.description.fingerprint,
            metrics=metrics,
            mistakes=_with_texts(shards, split, mistakes, texts),
            reasons=reasons,
        )


def _with_texts(
    shards: Shards, split: Split, mistakes: Sequence[Mistake], texts: dict[int, str]
) -> tuple[MistakeDetails, ...]:
    vectorizer = None
    if len(texts) < len(mistakes) and shards.manifest.files:
        try:
            vectorizer = load_shards_vectorizer(shards)
        except VectorizerError:  # rows are classified without it; only their terms are missing then
            vectorizer = None
    found = []
    for each in mistakes:
        text = texts.get(each.row)
        terms: list[str] = []
        if text is None and vectorizer is not None and vectorizer.terms:
            terms = vectorizer.decode(split.rows(each.row, each.row + 1)[0])
        document = int(split.documents(each.row, each.row + 1)[0])
        found.append(MistakeDetails(mistake=each, document=document, text=text, terms=tuple(terms[:_MAX_TERMS])))
    return tuple(found)


def sections(result: RunEvaluation, names: Sequence[str]) -> list[Section]:
    """Render the sections of the evaluation; `names` are the class names."""
    metrics = result.metrics
    classes = grid(*_per_class(metrics, names), _most_confused(metrics, names))
    matrix = grid(_matrix(metrics, names), *_calibration(metrics))
    return [
        Section(name="classes", title="Classes", body=joined(_accuracy(result, names), classes)),
        Section(name="confusions", title="Confusions and calibration", body=matrix),
        Section(name="mistakes", title="Most confident mistakes", body=_mistakes(result, names)),
    ]


def _accuracy(result: RunEvaluation, names: Sequence[str]) -> Markup:
    metrics = result.metrics
    where = f"on {metrics.rows:,} validation rows of {result.shards}, classified for this report"
    changed = "These are not the shards that the run was trained on; they were built with the same vectorizer."
    low, high = metrics.accuracy_interval
    baseline = (
        f"The 95 % interval of the accuracy is {low:.2%} to {high:.2%}; always predicting "
        f"{truncate(names[metrics.majority_class], _MAX_NAME)} has {metrics.majority_accuracy:.2%}."
    )
    useless = "The model is not shown to be better than always predicting that class."
    return joined(
        element("p", f"Accuracy {metrics.accuracy:.2%} {where}. {baseline}"),
        None if metrics.beats_majority else notice(useless),
        notice(changed) if result.changed else None,
        table(("metric", "value"), _summary(metrics), caption="All classes together"),
    )


def _summary(metrics: Metrics) -> list[tuple[str, str]]:
    macro = metrics.macro_ranking
    figures = (
        ("macro F1", metrics.macro_f1),
        ("weighted F1", metrics.weighted_f1),
        ("balanced accuracy", metrics.balanced_accuracy),
        ("Matthews correlation", metrics.matthews),
        ("log loss", metrics.log_loss),
        ("macro ROC AUC", macro.roc_auc),
        ("macro average precision", macro.average_precision),
        *((f"top-{k} accuracy", value) for k, value in enumerate(metrics.top_accuracy[1:], 2)),
    )
    return [(name, "undefined" if value is None else f"{value:.4f}") for name, value in figures]


def _per_class(metrics: Metrics, names: Sequence[str]) -> tuple[Markup, Markup]:
    occurring = metrics.occurring.tolist()
    rows: list[tuple[str, ...]] = [
        (
            names[i],
            f"{metrics.precision[i]:.3f}",
            f"{metrics.recall[i]:.3f}",
            f"{metrics.f1[i]:.3f}",
            f"{metrics.support[i]:,}",
        )
        for i in occurring[:_MAX_ROWS]
    ]
    means = (metrics.macro_precision, metrics.macro_recall, metrics.macro_f1)
    rows.append(("macro average", *(f"{mean:.3f}" for mean in means), f"{metrics.rows:,}"))
    more = f", the first {_MAX_ROWS} of {len(occurring):,}" if len(occurring) > _MAX_ROWS else ""
    heads = ("class", "precision", "recall", "F1", "rows")
    listed = table(heads, rows, caption=f"Precision and recall of each class{more}")
    drawn = sorted(occurring, key=lambda index: float(metrics.f1[index]))[:_MAX_CELLS]
    bars = [
        svg.Bar(
            label=names[i],
            values=(float(metrics.precision[i]), float(metrics.recall[i])),
            shown=(f"{metrics.precision[i]:.3f}", f"{metrics.recall[i]:.3f}"),
            hint=f"{names[i]}: precision {metrics.precision[i]:.4f}, recall {metrics.recall[i]:.4f}, "
            f"{metrics.support[i]:,} rows",
        )
        for i in drawn
    ]
    note = f"Sorted by F1, lowest first: {truncate(names[drawn[0]], _MAX_NAME)}."
    if len(occurring) > _MAX_CELLS:
        note += f" The {_MAX_CELLS} of {len(occurring):,} classes with the lowest F1 are shown."
    chart = svg.bars(bars, alt=f"Precision and recall of each class. {note}")
    return figure("Precision and recall", note, chart, legend=legend("precision", "recall")), listed


def _most_confused(metrics: Metrics, names: Sequence[str]) -> Markup:
    if metrics.confusions is None:
        return notice(f"Confusions are not counted for more than {MAX_MATRIX:,} classes; the model has {len(names):,}.")
    rows = [
        (names[i], names[j], f"{count:,}", f"{count / metrics.support[i]:.1%}")
        for count, i, j in metrics.confused_pairs()[:_MAX_PAIRS]
    ]
    heads, caption = ("true class", "predicted class", "rows", "share"), "Most frequent confusions"
    return table(heads, rows, caption=caption, text=2, tall=len(rows) > 12) if rows else element("p", "No confusions.")


def _matrix(metrics: Metrics, names: Sequence[str]) -> Markup:
    matrix = metrics.confusions
    if matrix is None or len(names) > _MAX_CELLS:
        return notice(f"The confusion matrix of {len(names):,} classes is too large to draw.")
    support = metrics.support
    cells = [
        [
            svg.Cell(
                strength=int(matrix[i, j]) / max(int(support[i]), 1),
                shown=f"{matrix[i, j]:,}" if matrix[i, j] else "",
                hint=f"{names[i]} predicted as {names[j]}: {matrix[i, j]:,} of {support[i]:,}",
            )
            for j in range(len(names))
        ]
        for i in range(len(names))
    ]
    worst = "; ".join(
        f"{names[i]} predicted as {names[j]} ({count:,} rows)" for count, i, j in metrics.confused_pairs()[:3]
    )
    alt = f"Confusion matrix. {f'Most frequent confusions: {worst}' if worst else 'No confusions'}."
    note = "Rows are true classes, columns predicted classes; the colour shows the share of the row."
    return figure("Confusion matrix", note, svg.heat_map(names, cells, alt=alt, across="predicted class"))


def bias_in_words(confidence: float, accuracy: float) -> str:
    """Compare the mean confidence with the accuracy, in percentage points of one decimal."""
    points = f"{100 * abs(confidence - accuracy):.1f}"
    if points == "0.0":
        return "as confident as it is right"
    return f"{'over' if confidence > accuracy else 'under'}confident by {points} percentage points"


def _calibration(metrics: Metrics) -> tuple[Markup, Markup]:
    found = metrics.calibration
    spans = [(number / BINS, (number + 1) / BINS) for number in range(BINS)]
    bins, rows = [], []
    for (start, stop), count, mean, accuracy in zip(spans, found.counts, found.confidence, found.accuracy, strict=True):
        name = f"{start:.0%} to {stop:.0%}"
        note = f"confidence {name}: {count:,} rows" + (
            f", mean confidence {mean:.1%}, accuracy {accuracy:.1%}" if count else ""
        )
        bins.append(svg.Bin(start=start, stop=stop, heights=(accuracy,) if count else (), hint=note))
        rows.append((name, f"{count:,}", f"{mean:.1%}" if count else "", f"{accuracy:.1%}" if count else ""))
    confident = sum(count * mean for count, mean in zip(found.counts, found.confidence, strict=True)) / metrics.rows
    note = (
        f"Expected calibration error {found.error:.3f}. The accuracy is {metrics.accuracy:.1%} and the mean confidence "
        f"{confident:.1%}, so the model is {bias_in_words(confident, metrics.accuracy)}. The dashed line is perfect "
        "calibration."
    )
    heads = ("confidence", "rows", "mean confidence", "accuracy")
    values = table(heads, rows, caption="Reliability", hide_caption=True)
    shares = [
        svg.Bin(start=start, stop=stop, heights=(count / metrics.rows,), hint=each.hint)
        for (start, stop), count, each in zip(spans, found.counts, bins, strict=True)
    ]
    spread = svg.histogram(
        shares,
        alt="Histogram of the probability of the predicted class.",
        x_label="confidence",
        y_label="share of rows",
        shares=True,
    )
    return (
        figure("Reliability diagram", note, svg.reliability(bins, alt=f"Reliability diagram. {note}"), values=values),
        figure("Confidence distribution", "Rows by the probability of the predicted class.", spread),
    )


def _mistakes(result: RunEvaluation, names: Sequence[str]) -> Markup:
    if not result.mistakes:
        return element("p", "No mistakes.")
    notices = [
        notice(f"Texts are missing: {reason}. The terms of the rows' features are shown instead.")
        for reason in result.reasons
    ]
    items = []
    for each in result.mistakes:
        mistake = each.mistake
        verdict = element(
            "p",
            "Predicted ",
            element("b", names[mistake.predicted_class], dir="auto"),
            f" ({mistake.probability:.1%}), true class ",
            element("b", names[mistake.true_class], dir="auto"),
            f" ({mistake.true_probability:.1%}). Document {each.document:,}.",
            class_="verdict",
        )
        content: Markup
        if each.text is not None:
            content = element(
                "p", truncate(" ".join(each.text.split()).lstrip(", "), _MAX_CHARACTERS) or "(empty text)", dir="auto"
            )
        else:
            content = element(
                "p", ", ".join(each.terms) or "(neither text nor terms available)", dir="auto", class_="soft"
            )
        items.append(element("li", verdict, content))
    return joined(*notices, element("ol", *items, class_="mistakes"))

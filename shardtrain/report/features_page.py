"""Render the sections on features: the most frequent ones, vocabulary coverage, the most distinctive per class."""

from __future__ import annotations

import math

import numpy as np

from shardtrain.report import svg
from shardtrain.report.analysis import FEATURE, MAX_CLASSES, NAMES, ShardsAnalysis
from shardtrain.report.axes import short_number
from shardtrain.report.markup import Markup, element, joined
from shardtrain.report.page import figure, grid, key_value_table, notice, table
from shardtrain.report.row_statistics import MAX_FEATURES, Counts

_FREQUENT = 25  # bars; the table has twice as many rows
_POINTS = 60  # of the coverage curve


def features_section(analysis: ShardsAnalysis) -> Markup:
    """Render the most frequent features and the coverage of the vocabulary."""
    occurrences = analysis.statistics["train"].occurrences
    if occurrences is None:
        return notice(f"Feature counts are not available for more than {MAX_FEATURES:,} columns.")
    return grid(_frequent(analysis, occurrences), _coverage(analysis, occurrences), _coverage_table(analysis))


def _frequent(analysis: ShardsAnalysis, occurrences: Counts) -> Markup:
    best = np.argsort(-occurrences, kind="stable")[: 2 * _FREQUENT]
    best = best[occurrences[best] > 0]
    if not len(best):
        return notice("No training row has any feature.")
    rows = analysis.statistics["train"].rows
    bars = [
        svg.Bar(
            label=analysis.name_of(int(column)),
            values=(int(occurrences[column]),),
            shown=(f"{occurrences[column] / rows:.1%}",),
            hint=f"{analysis.name_of(int(column))}: in {occurrences[column]:,} of {rows:,} training rows",
        )
        for column in best[:_FREQUENT]
    ]
    what = FEATURE[analysis.manifest.kind]
    values = table(
        (what, "training rows"),
        [(analysis.name_of(int(column)), f"{occurrences[column]:,}") for column in best],
        caption=f"The {len(best)} most frequent {what}s",
        tall=True,
        hide_caption=True,
    )
    note = f"The {len(bars)} {what}s that occur in the most training rows."
    if not analysis.terms:
        note += " Columns have no names" + (" because the features are hashed." if _hashed(analysis) else ".")
    alt = f"Share of training rows with each of the most frequent {what}s; highest: {bars[0].label}." if bars else ""
    return figure(f"Most frequent {what}s", note, svg.bars(bars, alt=alt), values=values)


def _hashed(analysis: ShardsAnalysis) -> bool:
    return analysis.manifest.vectorizer.get("kind") == "hashing"


def _coverage(analysis: ShardsAnalysis, occurrences: Counts) -> Markup | None:
    """Draw the share of all occurrences that the n most frequent features account for."""
    ordered = np.sort(occurrences[occurrences > 0])[::-1]
    if not len(ordered):
        return None
    sums = np.cumsum(ordered)
    places = np.unique(np.geomspace(1, len(ordered), _POINTS).astype(int))
    points = tuple((float(place), float(sums[place - 1] / sums[-1])) for place in places)
    hints = tuple(f"the {place:,.0f} most frequent: {share:.1%} of all occurrences" for place, share in points)
    half = int(np.searchsorted(sums, sums[-1] / 2)) + 1
    what = FEATURE[analysis.manifest.kind]
    note = f"{half:,} of {len(ordered):,} {what}s account for half of all occurrences in training rows."
    chart = svg.lines(
        [svg.Line(name="share", points=points, hints=hints)],
        alt=note,
        x_label=f"most frequent {what}s",
        y_label="share of occurrences",
        y_range=(0, 1),
        log_x=True,
        y_share=True,
    )
    values = table(
        (f"{what}s", "share of occurrences"),
        [(f"{place:,.0f}", f"{share:.1%}") for place, share in points],
        caption="Share of occurrences in training rows",
        tall=True,
        hide_caption=True,
    )
    return figure("Vocabulary coverage", note, chart, values=values)


def _coverage_table(analysis: ShardsAnalysis) -> Markup:
    rows = []
    if (chosen := analysis.vocabulary) is not None:
        what = "Distinct words in training documents" if analysis.manifest.kind == "sequence" else "Candidate n-grams"
        rows.append((what, f"{chosen.candidates:,}"))
        rows.append(("In the vocabulary", f"{chosen.chosen:,} ({chosen.chosen / max(chosen.candidates, 1):.1%})"))
        if chosen.covered is not None:
            rows.append(("Share of candidate occurrences covered", f"{chosen.covered:.1%}"))
    for name, statistics in analysis.statistics.items():
        if statistics.occurrences is not None:
            occurring = int((statistics.occurrences > 0).sum())
            rows.append((f"Features that occur in {NAMES[name]} rows", f"{occurring:,}"))
        rows.append(
            (
                f"{NAMES[name].capitalize()} rows without any feature",
                f"{statistics.empty:,} ({statistics.empty / statistics.rows:.2%})",
            )
        )
    return key_value_table("Vocabulary", rows, numbers=True)


def distinctive_section(analysis: ShardsAnalysis) -> Markup:
    """Render the most distinctive features of each class."""
    if analysis.distinctive is None:
        return notice(
            "Not available for hashed features: a column has no name, since several n-grams may share it."
            if _hashed(analysis)
            else f"Not available for more than {MAX_FEATURES:,} columns."
        )
    names = analysis.manifest.class_names
    what = FEATURE[analysis.manifest.kind]
    figures = []
    for index, best in analysis.distinctive.items():
        longest = 1.2 * max((each.score for each in best if math.isfinite(each.score)), default=1.0)
        bars = [
            svg.Bar(
                label=analysis.name_of(each.column),
                values=(min(each.score, longest),),
                shown=(short_number(each.score) if math.isfinite(each.score) else "∞",),
                hint=f"{analysis.name_of(each.column)}: F {each.score:,.1f}; in {each.share:.1%} of the class, "
                f"{each.share_elsewhere:.1%} of other rows",
            )
            for each in best
        ]
        rows = [
            (analysis.name_of(each.column), f"{each.score:,.1f}", f"{each.share:.1%}", f"{each.share_elsewhere:.1%}")
            for each in best
        ]
        values = table((what, "F", "in the class", "in other rows"), rows, caption=names[index], hide_caption=True)
        alt = f"F of the {len(bars)} most distinctive {what}s of {names[index]}."
        body = svg.bars(bars, alt=alt) if bars else element("p", "None.", class_="soft")
        figures.append(figure(names[index], None, body, values=values if bars else None))
    note = (
        f"The {what}s with the highest F score (scikit-learn's f_classif, one class against the rest of the training "
        "rows) among those with a higher mean in the class."
    )
    if len(names) > MAX_CLASSES:
        note += f" The {MAX_CLASSES} most frequent of {len(names):,} classes are shown."
    return joined(element("p", note, class_="soft"), grid(*figures))

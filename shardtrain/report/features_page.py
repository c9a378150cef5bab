"""The features of shards, worded and drawn: the most frequent ones, what they cover, what tells classes apart."""

from __future__ import annotations

import math

import numpy as np

from shardtrain.report import svg
from shardtrain.report.analysis import FEATURE, MAX_CLASSES, NAMES, ShardsAnalysis
from shardtrain.report.axes import short
from shardtrain.report.markup import Markup, element, joined
from shardtrain.report.page import charts, figure, notice, settings, table
from shardtrain.report.row_statistics import MAX_FEATURES, Counts

_FREQUENT = 25  # features that are drawn, and twice as many in their table
_CURVE = 60  # points of a curve of shares


def features(found: ShardsAnalysis) -> Markup:
    """The most frequent features, what they cover, and what they were chosen from."""
    occurrences = found.surveys["train"].occurrences
    if occurrences is None:
        return notice(f"There are more than {MAX_FEATURES:,} columns, so they were not counted.")
    return charts(_frequent(found, occurrences), _coverage(found, occurrences), _coverage_facts(found))


def _frequent(found: ShardsAnalysis, occurrences: Counts) -> Markup:
    best = np.argsort(-occurrences, kind="stable")[: 2 * _FREQUENT]
    best = best[occurrences[best] > 0]
    if not len(best):
        return notice("No training row has any feature.")
    rows = found.surveys["train"].rows
    bars = [
        svg.Bar(
            label=found.name_of(int(column)),
            values=(int(occurrences[column]),),
            shown=(f"{occurrences[column] / rows:.1%}",),
            hint=f"{found.name_of(int(column))}: in {occurrences[column]:,} of {rows:,} training rows",
        )
        for column in best[:_FREQUENT]
    ]
    what = FEATURE[found.manifest.kind]
    values = table(
        (what, "training rows"),
        [(found.name_of(int(column)), f"{occurrences[column]:,}") for column in best],
        caption=f"The {len(best)} most frequent {what}s",
        tall=True,
        hide_caption=True,
    )
    told = f"The {len(bars)} that occur in most training rows."
    if not found.terms:
        told += " Their columns have no names" + (", since they are hashed." if _hashed(found) else ".")
    alt = (
        f"Share of training rows that have each of the most frequent {what}s, {bars[0].label} leading." if bars else ""
    )
    return figure(f"Most frequent {what}s", told, svg.bars(bars, alt=alt), values=values)


def _hashed(found: ShardsAnalysis) -> bool:
    return found.manifest.vectorizer.get("kind") == "hashing"


def _coverage(found: ShardsAnalysis, occurrences: Counts) -> Markup | None:
    """How many of the most frequent features make up which share of all that occur."""
    ordered = np.sort(occurrences[occurrences > 0])[::-1]
    if not len(ordered):
        return None
    sums = np.cumsum(ordered)
    places = np.unique(np.geomspace(1, len(ordered), _CURVE).astype(int))
    points = tuple((float(place), float(sums[place - 1] / sums[-1])) for place in places)
    hints = tuple(f"the {place:,.0f} most frequent: {share:.1%} of all that occur" for place, share in points)
    half = int(np.searchsorted(sums, sums[-1] / 2)) + 1
    what = FEATURE[found.manifest.kind]
    told = f"{half:,} {what}s make up half of everything that occurs in training rows, {len(ordered):,} make up all."
    chart = svg.lines(
        [svg.Line(name="share", points=points, hints=hints)],
        alt=told,
        x_label=f"most frequent {what}s",
        y_label="share of what occurs",
        y_range=(0, 1),
        log_x=True,
        y_share=True,
    )
    values = table(
        (f"{what}s", "share of what occurs"),
        [(f"{place:,.0f}", f"{share:.1%}") for place, share in points],
        caption="Share of what occurs in training rows",
        tall=True,
        hide_caption=True,
    )
    return figure("Vocabulary coverage", told, chart, values=values)


def _coverage_facts(found: ShardsAnalysis) -> Markup:
    rows = []
    if (chosen := found.vocabulary) is not None:
        what = "Distinct words in training documents" if found.manifest.kind == "sequence" else "Candidates"
        rows.append((what, f"{chosen.candidates:,}"))
        rows.append(("Chosen of them", f"{chosen.chosen:,} ({chosen.chosen / max(chosen.candidates, 1):.1%})"))
        if chosen.covered is not None:
            rows.append(("Occurrences of candidates that were chosen", f"{chosen.covered:.1%}"))
    for name, survey in found.surveys.items():
        if survey.occurrences is not None:
            there = int((survey.occurrences > 0).sum())
            rows.append((f"Features that occur in {NAMES[name]} rows", f"{there:,}"))
        rows.append(
            (f"{NAMES[name].capitalize()} rows without any", f"{survey.empty:,} ({survey.empty / survey.rows:.2%})")
        )
    return settings("Vocabulary", rows, numbers=True)


def telling(found: ShardsAnalysis) -> Markup:
    """Of each class the features that tell it from the others best."""
    if found.telling is None:
        return notice(
            "Hashed features have no terms: a column is a hash that many n-grams share."
            if _hashed(found)
            else f"There are more than {MAX_FEATURES:,} columns, so they were not scored."
        )
    names = found.manifest.class_names
    what = FEATURE[found.manifest.kind]
    figures = []
    for index, best in found.telling.items():
        longest = 1.2 * max((each.score for each in best if math.isfinite(each.score)), default=1.0)
        bars = [
            svg.Bar(
                label=found.name_of(each.column),
                values=(min(each.score, longest),),
                shown=(short(each.score) if math.isfinite(each.score) else "∞",),
                hint=f"{found.name_of(each.column)}: F {each.score:,.1f}; in {each.share:.1%} of the class, "
                f"{each.share_elsewhere:.1%} elsewhere",
            )
            for each in best
        ]
        rows = [
            (found.name_of(each.column), f"{each.score:,.1f}", f"{each.share:.1%}", f"{each.share_elsewhere:.1%}")
            for each in best
        ]
        values = table((what, "F", "in the class", "elsewhere"), rows, caption=names[index], hide_caption=True)
        alt = f"F of the {len(bars)} {what}s that tell {names[index]} best."
        body = svg.bars(bars, alt=alt) if bars else element("p", "None.", class_="soft")
        figures.append(figure(names[index], None, body, values=values if bars else None))
    told = (
        f"The {what}s with the highest F (as scikit-learn's f_classif has it) between the training rows of a class and "
        "all others, among those that are higher in the class."
    )
    if len(names) > MAX_CLASSES:
        told += f" Shown are the {MAX_CLASSES} most frequent of {len(names):,} classes."
    return joined(element("p", told, class_="soft"), charts(*figures))

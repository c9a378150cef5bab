"""Render the most confident mistakes, each with its text and the terms for which the model decided so."""

from __future__ import annotations

from collections.abc import Sequence

from shardtrain.report.formatting import truncate
from shardtrain.report.markup import Markup, element, joined
from shardtrain.report.page import notice
from shardtrain.report.run_analysis import MistakeDetails, RunEvaluation

_MAX_CHARACTERS = 600  # of a text


def mistakes_section(result: RunEvaluation, names: Sequence[str]) -> Markup:
    """Render the mistakes by descending confidence; `names` are those of all classes."""
    if not result.mistakes:
        return element("p", "No row is misclassified.")
    notices = [
        notice(f"Texts are missing: {reason}. The terms of the rows' features are shown instead.")
        for reason in result.reasons
    ]
    items = [element("li", _verdict(each, names), _content(each)) for each in result.mistakes]
    return joined(*notices, element("ol", *items, class_="mistakes"))


def _verdict(each: MistakeDetails, names: Sequence[str]) -> Markup:
    mistake = each.mistake
    return element(
        "p",
        "true ",
        element("b", names[mistake.true_class], dir="auto"),
        f" ({mistake.true_probability:.1%}), predicted ",
        element("b", names[mistake.predicted_class], dir="auto"),
        f" ({mistake.probability:.1%})",
        element("span", f" · document {each.document:,}", class_="where"),
        class_="verdict",
    )


def _content(each: MistakeDetails) -> Markup:
    if each.text is None:
        terms = ", ".join(each.terms) or "(neither text nor terms available)"
        return element("p", terms, dir="auto", class_="soft")
    return element(
        "p", truncate(" ".join(each.text.split()).lstrip(", "), _MAX_CHARACTERS) or "(empty text)", dir="auto"
    )

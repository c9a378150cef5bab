"""Render the most confident mistakes, each with its text and the terms for which the model decided so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shardtrain.inference.attribution import EXACT
from shardtrain.inference.explanations import Explanation, Reason
from shardtrain.report.formatting import format_share, truncate
from shardtrain.report.marked_text import marked
from shardtrain.report.markup import Child, Markup, element, joined
from shardtrain.report.page import notice
from shardtrain.report.run_analysis import MistakeDetails, RunEvaluation

_MAX_CHARACTERS = 600  # of a text
_REASONS = 6  # terms below a text
_MAX_TERM = 60  # characters of a term


def mistakes_section(result: RunEvaluation, names: Sequence[str]) -> Markup:
    """Render the mistakes by descending confidence; `names` are those of all classes."""
    if not result.mistakes:
        return element("p", "No row is misclassified.")
    notices = [
        notice(f"Texts are missing: {reason}. The terms of the rows' features are shown instead.")
        for reason in result.reasons
    ]
    if result.no_explanations:
        notices.append(notice(f"Reasons are missing: {result.no_explanations}."))
    items = [element("li", _verdict(each, names), *_content(each)) for each in result.mistakes]
    return joined(*notices, _note(result), element("ol", *items, class_="mistakes"))


def _note(result: RunEvaluation) -> Markup | None:
    """Say how to read the reasons, if there are any."""
    explained = [each.explanation for each in result.mistakes if each.explanation is not None]
    if not explained:
        return None
    exact = all(each.method == EXACT for each in explained)
    note = (
        "Below each text is what its strongest terms add to the score of the predicted class, before softmax or "
        "sigmoid. In the text, terms that speak for that class are underlined, those that speak against it with dashes."
    )
    return element("p", note if exact else f"{note} The figures are estimates: gradient times input.", class_="soft")


def _verdict(each: MistakeDetails, names: Sequence[str]) -> Markup:
    mistake = each.mistake
    return element(
        "p",
        "true ",
        element("b", names[mistake.true_class], dir="auto"),
        f" ({format_share(mistake.true_probability)}), predicted ",
        element("b", names[mistake.predicted_class], dir="auto"),
        f" ({format_share(mistake.probability)}) ",
        element("span", f"· document {each.document:,}", class_="where"),
        class_="verdict",
    )


def _content(each: MistakeDetails) -> Iterator[Markup]:
    """Yield the text of a mistake and its reasons, or the terms of its features."""
    if each.text is None:
        terms = ", ".join(each.terms) or "(neither text nor terms available)"
        yield element("p", terms, dir="auto", class_="soft")
    elif each.explanation is None:
        yield element("p", truncate(" ".join(_shown(each.text).split()), _MAX_CHARACTERS) or "(empty text)", dir="auto")
    else:
        start = len(each.text) - len(_shown(each.text))
        stop = min(len(each.text), start + _MAX_CHARACTERS)
        pieces: list[Child] = list(marked(each.text, each.explanation.reasons, start, stop))
        yield element("p", *pieces, "…" if stop < len(each.text) else None, dir="auto")
        yield _reasons(each.explanation)


def _shown(text: str) -> str:
    """Return a text without the separators that empty columns leave at its start."""
    return text.lstrip(", \t\r\n")


def _reasons(explanation: Explanation) -> Markup:
    """Render the strongest terms with what they add."""
    items = [
        element(
            "li",
            element("span", _term(each), dir="auto"),
            " ",
            element("b", f"{each.contribution:+.2f}".replace("-", "−")),
        )
        for each in explanation.reasons[:_REASONS]
    ]
    return element("ul", *items, class_="reasons", aria_label=f"Reasons for {explanation.label}")


def _term(reason: Reason) -> str:
    return truncate(" or ".join(reason.terms), _MAX_TERM)

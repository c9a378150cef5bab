"""Show why texts got their classes, on one page: the terms marked in each text, and what each adds to the logit.

Texts are marked as `marked_text` says. The table below a text has the same for screen readers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from shardtrain.inference.attribution import EXACT
from shardtrain.inference.explanations import Explanation, Reason
from shardtrain.report.formatting import truncate
from shardtrain.report.marked_text import marked
from shardtrain.report.markup import Child, Markup, element, joined
from shardtrain.report.page import Section, legend, notice, render_page, table, tiles
from shardtrain.runtime.quantities import enumerated

_MOST_CHARACTERS = 4000  # of a text
_PLACES = 6  # of a term in its row


def reasons_page(run: Path, explained: Sequence[tuple[str, Explanation]], *, more: bool) -> str:
    """Return the page of some texts and why they got their classes.

    Args:
        run: folder of the run that explains.
        explained: the texts with their explanations.
        more: whether there were further texts.
    """
    methods = sorted({each.method for _, each in explained})
    figures = tiles(
        ("texts", f"{len(explained):,}", "the first of more" if more else ""),
        ("method", ", ".join(methods) or "none", "the parts sum to the logit" if methods == [EXACT] else ""),
    )
    lead = joined(
        "What each term of a text adds to the logit of its class: the score before softmax or sigmoid. A positive "
        "number speaks for the class, a negative one against it."
    )
    sections = [
        Section(name=f"text-{number}", title=f"{number}. {_verdict(each)}", body=_section(number, text, each))
        for number, (text, each) in enumerate(explained, 1)
    ]
    return render_page("Reasons", str(run), lead, figures, sections)


def _verdict(explanation: Explanation) -> str:
    probability = explanation.probability
    shown = f"{probability:.1%}" if probability < 0.9995 else "over 99.9%"
    if explanation.predicted == explanation.label:
        return f"{explanation.label}, {shown}"
    return f"{explanation.predicted}: {explanation.label}, {shown}"


def _section(number: int, text: str, explanation: Explanation) -> Markup:
    """Return a text with its terms marked, and the table of these."""
    cut = notice(f"The first {_MOST_CHARACTERS:,} of {len(text):,} characters are shown.")
    return joined(
        element("p", *marked(text, explanation.reasons, 0, _MOST_CHARACTERS), class_="text", dir_="auto"),
        cut if len(text) > _MOST_CHARACTERS else None,
        legend(f"for {explanation.label}", f"against {explanation.label}") if explanation.reasons else None,
        table(
            ("term", "places", "adds"),
            [*map(_row, explanation.reasons), *_sums(explanation)],
            caption=f"What the terms of text {number} add to the logit of {explanation.label}",
            text=2,
        ),
    )


def _row(reason: Reason) -> tuple[Child, Child, Child]:
    terms = " or ".join(f"“{term}”" for term in reason.terms)
    places = [f"{start}–{stop}" for start, stop in reason.places]
    return truncate(terms, 200), enumerated(places, _PLACES), _signed(reason.contribution)


def _sums(explanation: Explanation) -> Iterator[tuple[Child, Child, Child]]:
    """Yield the rows below the terms, which lead to the logit."""
    if explanation.num_others:
        yield f"{explanation.num_others:,} other terms", "", _signed(explanation.others)
    yield "bias" if explanation.method == EXACT else "not attributed", "", _signed(explanation.rest)
    yield element("b", "logit"), "", element("b", _signed(explanation.logit))


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "\u2212")

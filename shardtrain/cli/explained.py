"""Print explanations for people: of each text a block of lines with its terms and what they add."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shardtrain.inference.attribution import EXACT
from shardtrain.inference.explanations import Explanation, Reason
from shardtrain.inference.predictions import Predictions
from shardtrain.runtime.quantities import enumerated

_TEXT = 60  # characters shown of a text
_TERM = 32  # of a column of terms; longer ones move what follows
_PLACES = 4  # shown of a term


def lines_of(texts: Sequence[str], predictions: Predictions, *, notes: bool) -> Iterator[str]:
    """Yield the lines of some texts: class and probability, the terms by falling contribution, and a blank line."""
    for text, explanation, note in zip(texts, predictions.explanations, predictions.notes, strict=True):
        shown = [explanation.predicted, f"{explanation.probability:.4f}", " ".join(text.split())[:_TEXT]]
        yield "  ".join(shown[:2] + ([note] if notes and note else []) + shown[2:])
        of = "" if explanation.predicted == explanation.label else f" of {explanation.label}"
        yield f"  logit {explanation.logit:.4f}{of}, {explanation.method}:"
        for reason in explanation.reasons:
            yield f"  {reason.contribution:+9.4f}  {term_in_words(reason):<{_TERM}}  {places_in_words(reason)}".rstrip()
        if explanation.num_others:
            others = f"{explanation.num_others:,} other term" + "s" * (explanation.num_others > 1)
            yield f"  {explanation.others:+9.4f}  {others}"
        yield f"  {explanation.rest:+9.4f}  {rest_in_words(explanation)}"
        yield ""


def term_in_words(reason: Reason) -> str:
    """Return the n-gram or word in quotes; with hashed features all that share the column."""
    return " or ".join(f'"{term}"' for term in reason.terms)


def places_in_words(reason: Reason) -> str:
    """Return the first places of a term."""
    return enumerated([f"{start}-{stop}" for start, stop in reason.places], _PLACES)


def rest_in_words(explanation: Explanation) -> str:
    """Return what the rest of an explanation is."""
    return "bias" if explanation.method == EXACT else "not attributed"

"""Render the terms of each class: those that the model takes for it, beside those that are typical of it in the data.

Where both agree, the model has learned what the data show; a term that is high in the model alone deserves a look.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest

from shardtrain.inference.explanations import TopTerm
from shardtrain.report.axes import short_number
from shardtrain.report.formatting import format_share
from shardtrain.report.markup import Child, Markup, element, joined
from shardtrain.report.page import grid, named, notice, table
from shardtrain.report.run_reasons import ClassTerms, Terms, TypicalTerm


def terms_section(terms: Terms, names: Sequence[str]) -> Markup:
    """Render the terms of the classes in their order; `names` are those of all classes."""
    if not terms.classes:
        return notice(f"The terms of the classes are not available: {terms.reason}.")
    note = (
        "In the model: what the term by itself adds to the score of the class, before softmax or sigmoid. In the data: "
        "F of scikit-learn's f_classif, the class against the rest of the training rows. Terms in both lists are bold."
    )
    if len(terms.classes) < len(names):
        note += f" The {len(terms.classes)} of {len(names):,} classes with the lowest F1 are shown."
    cards = (_card(names[index], each) for index, each in terms.classes.items())
    return joined(element("p", note, class_="soft"), grid(*cards))


def _card(name: str, terms: ClassTerms) -> Markup:
    """Render the table of one class."""
    both = {each.term for each in terms.model} & {each.term for each in terms.data}
    rows = [(*_of_model(model, both), *_of_data(data, both)) for model, data in zip_longest(terms.model, terms.data)]
    heads = ("in the model", "adds", "in the data", "F")
    listed = table(heads, rows, caption=f"Terms of {name}", hide_caption=True, look="terms")
    return element("div", element("h3", name, dir="auto"), listed if rows else element("p", "None.", class_="soft"))


def _of_model(each: TopTerm | None, both: set[str]) -> tuple[Child, Child]:
    return (_term(each.term, both), f"{each.effect:.2f}") if each else ("", "")


def _of_data(each: TypicalTerm | None, both: set[str]) -> tuple[Child, Child]:
    if each is None:
        return "", ""
    hint = f"in {format_share(each.share)} of the class, {format_share(each.share_elsewhere)} of other rows"
    score = short_number(each.score) if math.isfinite(each.score) else "∞"
    return _term(each.term, both), element("span", score, title=hint)


def _term(term: str, both: set[str]) -> Markup:
    return named(term, "b" if term in both else "span")

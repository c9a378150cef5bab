"""Parse the sentence templates of the demo corpus, in which slots in braces are filled with words of one kind.

A phrase is `{open} {close}`: an adjective and a noun that only together say something about the class. No slot follows
"a", because "a" or "an" would depend on the word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shardtrain.datasets.draws import Integers

PERSON, NOUN, NOUNS, VERB, ADJECTIVE, GIVEN_NAME, SURNAME, TOWN, NUMBER, YEAR, OPEN, CLOSE, LITERAL = range(13)
TOPICAL = (PERSON, NOUN, NOUNS, VERB, ADJECTIVE)  # the kinds of words that a topic has

_SLOTS = {
    "{person}": PERSON,
    "{noun}": NOUN,
    "{nouns}": NOUNS,
    "{verb}": VERB,
    "{adjective}": ADJECTIVE,
    "{given}": GIVEN_NAME,
    "{surname}": SURNAME,
    "{town}": TOWN,
    "{number}": NUMBER,
    "{year}": YEAR,
    "{open}": OPEN,
    "{close}": CLOSE,
}

TITLES = """\
the {person} and the {noun}
{surname} {verb} the {noun}
{adjective} {nouns} in {town}
how the {open} {close} {verb} the {noun}
the {noun} of {town}
{number} {nouns} for the {person}
why {given} {surname} {verb} it
more {nouns}, fewer {nouns}
the {open} {close}
{town} and its {adjective} {noun}
no {noun} without the {person}
news of the {open} {close}""".splitlines()

SENTENCES = """\
the {person} {verb} the {open} {close} before the {noun} in {town}
{given} {surname}, the {adjective} {person} from {town}, {verb} the {open} {close}
after {number} {nouns} the {person} {verb} one {adjective} {noun} and the {open} {close}
nobody in {town} had {verb} the {open} {close} since {year}
it was the {open} {close} that the {person} {verb} twice in {year}
{surname} said that the {open} {close} was more {adjective} than the {noun}
the {open} {close} of {town} and the {open} {close} were {verb} for {number} days
when the {open} {close} was {verb}, the {person} wrote to {given} {surname} about the {open} {close}
for {number} years the {person} and the {person} have {verb} every {open} {close} here
why the {person} {verb} the {open} {close} is still not clear
there are {nouns}, {nouns} and the {open} {close} of {surname}
in {town} the {open} {close} was {verb} with the {noun} for {number} dollars
{given} {verb} the {open} {close} twice, but the {person} has the {open} {close} now
this {adjective} {noun} is now in the {open} {close} near {town}
we have {verb} the {noun} and seen the {open} {close} under it
all {nouns} are {adjective}, said the {person} in the {open} {close}
with some {nouns} from {town}, {given} {verb} the {open} {close} again
most of the {nouns} were {adjective} and only one {open} {close} was {verb}
the {person} who {verb} the {open} {close} in {year} would not do it again
at the end of the {noun} they {verb} the {open} {close}
if the {noun} is {adjective}, then the {open} {close} will be {verb} by the {person}
no {person} can say what the {open} {close} has to do with the {nouns}
she had {verb} {number} {nouns} and he had only the {open} {close}
what {surname} calls the {noun} is the {open} {close} of the {person}""".splitlines()


@dataclass(frozen=True, eq=False)
class Templates:
    """Templates one after the other, as arrays over their tokens.

    Attributes:
        starts: the first token of each template, (templates,).
        lengths: the number of tokens of each, (templates,).
        kinds: of each token, (tokens,).
        literals: the index of the word of a literal among `words_of` the templates, else 0, (tokens,).
        commas: whether a comma precedes the token, (tokens,).
    """

    starts: Integers
    lengths: Integers
    kinds: Integers
    literals: Integers
    commas: Integers


def words_of(templates: Sequence[str]) -> list[str]:
    """Return the literal words of templates, each once, in the order of the first occurrence."""
    words = (word.removesuffix(",") for template in templates for word in template.split())
    return list(dict.fromkeys(word for word in words if word not in _SLOTS))


def parse_templates(templates: Sequence[str], words: Sequence[str]) -> Templates:
    """Parse templates whose literals are among `words`."""
    tokens = [template.split() for template in templates]
    index = {word: number for number, word in enumerate(words)}
    bare = [token.removesuffix(",") for template in tokens for token in template]
    after_comma = [i > 0 and template[i - 1].endswith(",") for template in tokens for i in range(len(template))]
    lengths = np.array([len(template) for template in tokens], np.int64)
    return Templates(
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        kinds=np.array([_SLOTS.get(word, LITERAL) for word in bare], np.int64),
        literals=np.array([index.get(word, 0) for word in bare], np.int64),
        commas=np.array(after_comma, np.int64),
    )

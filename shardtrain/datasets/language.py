"""Generate the documents of the demo corpus: sentences whose words and phrases depend on the class.

A slot of a sentence template takes a common word or, at a rate that differs between documents, a word of the class'
topic. A phrase takes an adjective and a noun that are equally frequent in every class, so that only the 2-gram
separates the classes. A few percent of the labels are wrong. Every choice is a hash of the seed, the document and the
position in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from shardtrain.datasets import grammar, lexicon
from shardtrain.datasets.draws import GOLDEN, Hashes, Integers, bits, hashed, key_of, mixed, zipf
from shardtrain.datasets.grammar import OPEN, SENTENCES, TITLES, TOPICAL

_BLOCK = 1_024  # documents generated at a time
_QUANTILES, _TOPIC_QUANTILES = 16, 10  # bits of a draw from the common words, and from those of a topic

# Probabilities in 1/4,096: the lowest rate of topical words in a document's slots, and the step between its eight
# rates; that a topical word or phrase belongs to a random class. Wrong labels are in 1/65,536. With these values,
# 1-grams alone reach an accuracy of about 0.7 and 2-grams about 0.93.
_MIN_TOPIC_RATE, _TOPIC_RATE_STEP = 100, 350
_OFF_TOPIC = 1_100
_WRONG_LABELS = 2_000
_QUOTED = 12  # in 1/1,024

_PLAIN, _WITH_COMMA, _WITH_STOP, _QUOTATION, _FIRST = range(5)
_NUM_FORMS = 5

_DOCUMENT_STREAM, _SENTENCE_STREAM, _MORE_STREAM = 0, 2, 3  # streams of hashes; each split has its own documents
_NAME_STREAM, _CLASS_STREAM = 4, 16


@dataclass(frozen=True, eq=False)
class _Tokens:
    """The tokens of a block of documents, titles included, one array element each.

    Attributes:
        kinds: slot or literal.
        literals: the word of a literal.
        forms: `_FIRST`, `_WITH_STOP`, `_WITH_COMMA` or `_PLAIN`, by the place in the sentence.
        lengths: tokens per document, (documents,).
        title_lengths: tokens of each title, (documents,).
    """

    kinds: Integers
    literals: Integers
    forms: Integers
    lengths: Integers
    title_lengths: Integers


class Language:
    """The words, topics and phrases of one corpus, a function of the number of classes and the seed.

    Attributes:
        class_names: all different.
    """

    def __init__(self, classes: int, seed: int) -> None:
        self.classes, self.seed = classes, seed
        subjects = lexicon.subjects(classes)
        self.class_names = tuple(name for name, _ in subjects)
        literals = grammar.words_of(TITLES + SENTENCES)
        self._templates = grammar.parse_templates(TITLES + SENTENCES, literals)
        index = {word: number for number, word in enumerate(literals)}  # of every word, in the order in which they come

        def indices(words: Sequence[str]) -> Integers:
            return np.array([index.setdefault(word, len(index)) for word in words], np.int64)

        pools = self._pools()
        per_class = -(-len(lexicon.ADJECTIVES) // classes)  # so that all classes have equally many phrases
        self._openings = indices(lexicon.ADJECTIVES)
        self._closings = indices(pools[grammar.NOUN][: classes * per_class])
        quantiles = [indices(pools[kind])[zipf(len(pools[kind]), _QUANTILES)] for kind in range(OPEN)]
        self._common = np.stack(quantiles)  # (kinds, quantiles)
        self._topical = np.empty((len(TOPICAL), classes, 1 << _TOPIC_QUANTILES), np.int64)
        for number, (_, topics) in enumerate(subjects):
            for kind, words in enumerate(self._words_of_class(number, topics)):
                self._topical[kind, number] = indices(words)[zipf(len(words), _TOPIC_QUANTILES)]
        self._spell(tuple(index))

    def _pools(self) -> list[Sequence[str]]:
        """Return the common words of each kind, frequent ones first; the seed decides which names are frequent."""
        compounds, surnames, towns = (
            self._shuffled(names, _NAME_STREAM + i)
            for i, names in enumerate((lexicon.COMPOUNDS, lexicon.SURNAMES, lexicon.TOWNS))
        )
        nouns = (*lexicon.NOUNS, *compounds)
        plurals = tuple(map(lexicon.plural, nouns))
        common = (lexicon.PEOPLE, nouns, plurals, lexicon.VERBS, lexicon.ADJECTIVES)
        return [*common, lexicon.GIVEN_NAMES, surnames, towns, lexicon.NUMBERS, lexicon.YEARS]

    def _words_of_class(self, number: int, topics: Sequence[str]) -> list[tuple[str, ...]]:
        """Return a class' words of each topical kind; classes of the same topic differ in which words are frequent."""
        fields = ("people", "nouns", "verbs", "adjectives")
        kinds = [tuple(word for name in topics for word in getattr(lexicon.TOPICS[name], field)) for field in fields]
        if number >= len(lexicon.TOPICS):
            kinds = [self._shuffled(words, _CLASS_STREAM + 4 * number + i) for i, words in enumerate(kinds)]
        people, nouns, verbs, adjectives = kinds
        return [people, nouns, tuple(map(lexicon.plural, nouns)), verbs, adjectives]

    def _shuffled(self, words: Sequence[str], stream: int) -> tuple[str, ...]:
        order = np.argsort(hashed(np.arange(len(words), dtype=np.uint64), key_of(self.seed, stream)))
        return tuple(words[i] for i in order)

    def _spell(self, words: Sequence[str]) -> None:
        """Store the bytes of all pieces a row is made of: the forms of each word, and what separates and ends cells."""
        pieces = [form for word in words for form in _spelled_forms(word)]
        self._middle, self._end, self._label = len(pieces), len(pieces) + 1, len(pieces) + 2
        pieces += [b'","', b'."\n', *(f'"{label}","'.encode() for label in range(1, self.classes + 1))]
        self._spelled = np.frombuffer(b"".join(pieces), np.uint8)
        self._lengths = np.array([len(piece) for piece in pieces], np.int32)
        self._offsets = (np.cumsum(self._lengths) - self._lengths).astype(np.int32)

    def write(self, documents: int, split: int) -> Iterator[tuple[bytes, int]]:
        """Yield the rows of a split in blocks, as (bytes, number of documents)."""
        for start in range(0, documents, _BLOCK):
            stop = min(start + _BLOCK, documents)
            yield self._block(np.arange(start, stop, dtype=np.uint64), documents, split), stop - start

    def _block(self, places: Hashes, documents: int, split: int) -> bytes:
        label = (places * np.uint64(self.classes) // np.uint64(documents)).astype(np.int64)
        chance = hashed(places, key_of(self.seed, _DOCUMENT_STREAM + split))
        others = 1 + bits(chance, 16, 16) % (self.classes - 1)
        content = (label + np.where(bits(chance, 0, 16) < _WRONG_LABELS, others, 0)) % self.classes
        topic_rate = _MIN_TOPIC_RATE + _TOPIC_RATE_STEP * bits(chance, 32, 3)

        tokens = self._tokens(chance)
        first = np.cumsum(tokens.lengths) - tokens.lengths
        owner = np.repeat(np.arange(len(places)), tokens.lengths)
        position = np.arange(len(owner)) - first[owner]
        draw = mixed(chance[owner] + position.astype(np.uint64) * np.uint64(GOLDEN))
        more = mixed(draw + np.uint64(key_of(self.seed, _MORE_STREAM)))
        off_topic = bits(more, 0, 12) < _OFF_TOPIC
        about = np.where(off_topic, bits(more, 12, 16) % self.classes, content[owner])
        words = self._words(tokens, draw, bits(more, 28, 30), about, topic_rate[owner])
        quoted = (tokens.forms == _PLAIN) & (tokens.kinds < OPEN) & (bits(draw, 44, 10) < _QUOTED)
        pieces = words * _NUM_FORMS + np.where(quoted, _QUOTATION, tokens.forms)

        row_first = first + 3 * np.arange(len(places))
        row = np.empty(len(owner) + 3 * len(places), np.int64)
        row[row_first] = self._label + label
        row[row_first + 1 + tokens.title_lengths] = self._middle
        row[row_first + 2 + tokens.lengths] = self._end
        row[row_first[owner] + position + np.where(position < tokens.title_lengths[owner], 1, 2)] = pieces
        return self._joined(row)

    def _tokens(self, chance: Hashes) -> _Tokens:
        """Choose a title and sentences for each document, and return their tokens."""
        templates = self._templates
        num_chosen = 3 + bits(chance, 35, 1) + bits(chance, 36, 1) + (bits(chance, 37, 10) ** 2 >> 18)
        first = np.cumsum(num_chosen) - num_chosen
        owner = np.repeat(np.arange(len(chance)), num_chosen)
        number = np.arange(len(owner)) - first[owner]  # 0 is the title
        draw = mixed(chance[owner] + number.astype(np.uint64) * np.uint64(GOLDEN))
        pick = bits(mixed(draw + np.uint64(key_of(self.seed, _SENTENCE_STREAM))), 0, 32)
        chosen = np.where(number == 0, pick % len(TITLES), len(TITLES) + pick % len(SENTENCES))
        lengths = templates.lengths[chosen]
        stops = np.cumsum(lengths)
        places = np.arange(stops[-1]) + np.repeat(templates.starts[chosen] - stops + lengths, lengths)
        forms = np.where(templates.commas[places], _WITH_COMMA, _PLAIN)
        forms[stops - lengths] = np.where(number < 2, _FIRST, _WITH_STOP)
        return _Tokens(
            kinds=templates.kinds[places],
            literals=templates.literals[places],
            forms=forms,
            lengths=np.add.reduceat(lengths, first),
            title_lengths=lengths[first],
        )

    def _words(self, tokens: _Tokens, draw: Hashes, spare: Integers, about: Integers, topic_rate: Integers) -> Integers:
        """Choose the word of each token: a literal, a common word, a topical word, or a part of a phrase."""
        words = tokens.literals.copy()
        slots = np.flatnonzero(tokens.kinds < OPEN)
        words[slots] = self._common[tokens.kinds[slots], bits(draw[slots], 0, _QUANTILES)]
        topical = slots[(tokens.kinds[slots] < len(TOPICAL)) & (bits(draw[slots], _QUANTILES, 12) < topic_rate[slots])]
        quantile = bits(draw[topical], 28, _TOPIC_QUANTILES)
        words[topical] = self._topical[tokens.kinds[topical], about[topical], quantile]
        opening = np.flatnonzero(tokens.kinds == OPEN)
        left = spare[opening] % len(self._openings)
        per_class = len(self._closings) // self.classes
        right = (about[opening] - left) % self.classes + self.classes * ((spare[opening] >> 15) % per_class)
        words[opening] = self._openings[left]
        words[opening + 1] = self._closings[right]
        return words

    def _joined(self, pieces: Integers) -> bytes:
        """Join pieces by one gather: the position of each byte of the text among the bytes of all spelled pieces."""
        lengths = self._lengths[pieces]
        stops = np.cumsum(lengths, dtype=np.int32)
        shifts = np.repeat(self._offsets[pieces] - stops + lengths, lengths)
        return self._spelled[shifts + np.arange(len(shifts), dtype=np.int32)].tobytes()


def _spelled_forms(word: str) -> list[bytes]:
    """Return the written forms of a word, in the order of the form numbers; quotes are doubled for CSV."""
    capital = word[0].upper() + word[1:]
    return [form.encode() for form in (f" {word}", f", {word}", f". {capital}", f' ""{word}""', capital)]

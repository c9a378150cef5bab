"""Write a corpus of invented words, which the benchmarks have used from the beginning, so that they stay comparable.

A document mixes words of a Zipf-distributed vocabulary, topic words of its class, and phrases: word pairs whose words
are equally frequent in every class, so that only 2-grams separate the classes. A few percent of the labels are wrong.
Words are numbers spelled in syllables: pronounceable, all different, frequent ones short, some with accents. The bytes
of a seed are those that `shardtrain demo` wrote before its texts were English, and must not change.

    python tools/bench/synthetic.py --out data/synthetic --documents 200000
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shardtrain.datasets.demo import write_corpus
from shardtrain.datasets.draws import GOLDEN, Hashes, Integers, bits, hashed, key_of, mixed, zipf

_BLOCK = 1_024  # documents generated at a time
_NUM_WORDS = 30_000
_QUANTILES = 20  # bits of a draw from the vocabulary
_TOPIC_WORDS, _TOPIC_QUANTILES = 300, 10
_PHRASE_WORDS = 48  # number of words that can open a phrase, and minimum number that can close one
_FIRST_PHRASE_WORD = 60  # their first rank, so that each is frequent on its own as well
_FIRST_TOPIC_WORD = 300

# Probabilities in 1/4,096: that a token begins a phrase; the lowest rate of topic words in a document and the step
# between its eight rates; that a topic word or phrase belongs to a random class. Wrong labels are in 1/65,536. With
# these values, 1-grams alone reach an accuracy of about 0.78 and 2-grams about 0.93.
_PHRASE_RATE = 380
_MIN_TOPIC_RATE, _TOPIC_RATE_STEP = 150, 110
_OFF_TOPIC = 900
_WRONG_LABELS = 2_000


PLAIN, WITH_COMMA, WITH_STOP, QUOTED, FIRST, TITLE = range(6)
NUM_FORMS = 6

_ONSETS = ["b", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z", "br", "dr", "kl", "tr"]
_VOWELS = "aeiou"
_CODAS = ("", "", "n", "s", "l")  # no letter that begins a cluster: a word has one reading, so no two are equal
_SYLLABLES = [onset + vowel + coda for onset in _ONSETS for vowel in _VOWELS for coda in dict.fromkeys(_CODAS)]
_BY_LENGTH = ((1, 120), (2, 6_000), (3, 1 << 40))  # number of syllables, up to this rank
_STRIDE = 15_485_863  # a prime that divides no number of words, so that multiples of it reach every word once

_ACCENTS = str.maketrans("aeiou", "áéíöü")
_GREEK = str.maketrans("abdefghiklmnoprstuvwz", "αβδεφγηικλμνοπρστυβωζ")


class SyntheticLanguage:
    """Vocabulary, topics and phrases of one corpus, a function of the number of classes and the seed."""

    def __init__(self, classes: int, seed: int) -> None:
        self.classes, self.seed = classes, seed
        words = spell(_NUM_WORDS + classes, key_of(seed, 0))
        self.class_names = tuple(word.capitalize() for word in words[_NUM_WORDS:])
        pieces = [form for word in words[:_NUM_WORDS] for form in spelled_forms(word)]
        self._middle, self._end, self._label = len(pieces), len(pieces) + 1, len(pieces) + 2
        pieces += [b'","', b'."\n', *(f'"{label}","'.encode() for label in range(1, classes + 1))]
        self._spelled = np.frombuffer(b"".join(pieces), np.uint8)
        self._lengths = np.array([len(piece) for piece in pieces], np.int32)
        self._offsets = (np.cumsum(self._lengths) - self._lengths).astype(np.int32)
        self._common = zipf(_NUM_WORDS, _QUANTILES)
        self._zipf_topic = zipf(_TOPIC_WORDS, _TOPIC_QUANTILES)
        counters = np.arange(classes * _TOPIC_WORDS, dtype=np.uint64)
        spread = hashed(counters, key_of(seed, 1)) % np.uint64(_NUM_WORDS // 4 - _FIRST_TOPIC_WORD)
        self._topics = spread.astype(np.int64).reshape(classes, _TOPIC_WORDS) + _FIRST_TOPIC_WORD
        self._closings = classes * -(
            -_PHRASE_WORDS // classes
        )  # a multiple, so that all classes have equally many pairs

    def write(self, documents: int, split: int) -> Iterator[tuple[bytes, int]]:
        """Yield the rows of a split in blocks, as (bytes, number of documents)."""
        for start in range(0, documents, _BLOCK):
            stop = min(start + _BLOCK, documents)
            yield self._block(np.arange(start, stop, dtype=np.uint64), documents, split), stop - start

    def _block(self, places: Hashes, documents: int, split: int) -> bytes:
        classes = np.uint64(self.classes)
        label = (places * classes // np.uint64(documents)).astype(np.int64)
        chance = hashed(places, key_of(self.seed, 2 + 8 * split))
        others = 1 + bits(chance, 16, 16) % (self.classes - 1)
        content = (label + np.where(bits(chance, 0, 16) < _WRONG_LABELS, others, 0)) % self.classes
        title_length = 2 + bits(chance, 32, 2)
        length = title_length + 4 + bits(chance, 34, 5) + bits(chance, 39, 4) + (bits(chance, 44, 10) ** 2 >> 14)
        topic_rate = _MIN_TOPIC_RATE + _TOPIC_RATE_STEP * bits(chance, 54, 3)

        first = np.cumsum(length) - length
        owner = np.repeat(np.arange(len(places)), length)
        position = np.arange(int(length.sum())) - first[owner]
        draw = mixed(chance[owner] + position.astype(np.uint64) * np.uint64(GOLDEN))
        more = mixed(draw + np.uint64(key_of(self.seed, 3)))
        in_title = position < title_length[owner]
        starts = (position == 0) | (position == title_length[owner])
        about = np.where(bits(more, 0, 12) < _OFF_TOPIC, bits(more, 12, 16) % self.classes, content[owner])
        words = self._words(draw, bits(more, 28, 30), about, topic_rate[owner], position)
        pieces = words * NUM_FORMS + _forms(bits(draw, 44, 10), starts, in_title)

        row_first = first + 3 * np.arange(len(places))
        row = np.empty(len(owner) + 3 * len(places), np.int64)
        row[row_first] = self._label + label
        row[row_first + 1 + title_length] = self._middle
        row[row_first + 2 + length] = self._end
        row[row_first[owner] + position + np.where(in_title, 1, 2)] = pieces
        return self._joined(row)

    def _joined(self, pieces: Integers) -> bytes:
        """Join pieces by one gather: the position of each byte of the text among the bytes of all spelled pieces."""
        lengths = self._lengths[pieces]
        stops = np.cumsum(lengths, dtype=np.int32)
        shifts = np.repeat(self._offsets[pieces] - stops + lengths, lengths)
        return self._spelled[shifts + np.arange(len(shifts), dtype=np.int32)].tobytes()

    def _words(
        self, draw: Hashes, spare: Integers, about: Integers, topic_rate: Integers, position: Integers
    ) -> Integers:
        """Choose the word of each token: a common word, a topic word, or the first or second word of a phrase."""
        words = self._common[bits(draw, 0, _QUANTILES)]
        kind = bits(draw, _QUANTILES, 12)
        topical = np.flatnonzero(kind < topic_rate)
        quantile = bits(draw[topical], 32, _TOPIC_QUANTILES)
        words[topical] = self._topics[about[topical], self._zipf_topic[quantile]]
        opening = np.flatnonzero(
            (kind[:-1] >= 4_096 - _PHRASE_RATE) & (position[1:] != 0)
        )  # a phrase does not cross a document's end
        left = spare[opening] % _PHRASE_WORDS
        per_class = self._closings // self.classes
        right = (about[opening] - left) % self.classes + self.classes * ((spare[opening] >> 15) % per_class)
        words[opening] = _FIRST_PHRASE_WORD + left
        words[opening + 1] = _FIRST_PHRASE_WORD + _PHRASE_WORDS + right
        return words


def _forms(chance: Integers, starts: npt.NDArray[np.bool_], in_title: npt.NDArray[np.bool_]) -> Integers:
    """Choose the written form of each word by `chance`, 10 random bits."""
    form = np.select([chance < 60, chance < 130, chance < 137], [WITH_COMMA, WITH_STOP, QUOTED], PLAIN)
    return np.where(starts, FIRST, np.where(in_title, TITLE, form)).astype(np.int64)


def spell(number: int, key: int) -> list[str]:
    """Return `number` different words in order of falling frequency; `key` selects them."""
    words: list[str] = []
    for num_syllables, last in _BY_LENGTH:
        choices = len(_SYLLABLES) ** num_syllables
        for rank in range(len(words), min(last, number)):
            words.append(_with_accents(_spelled((key + rank * _STRIDE) % choices, num_syllables), rank))
    return words


def spelled_forms(word: str) -> Sequence[bytes]:
    """Return the written forms of a word, in the order of the form numbers."""
    forms = (
        f" {word}",
        f", {word}",
        f". {word.capitalize()}",
        f' ""{word}""',
        word.capitalize(),
        f" {word.capitalize()}",
    )
    return [form.encode() for form in forms]


def _spelled(number: int, num_syllables: int) -> str:
    word = ""
    for _ in range(num_syllables):
        number, syllable = divmod(number, len(_SYLLABLES))
        word += _SYLLABLES[syllable]
    return word


def _with_accents(word: str, rank: int) -> str:
    if rank % 401 == 200:
        return word.translate(_GREEK)
    return word.translate(_ACCENTS) if rank % 29 == 11 else word


def write_synthetic(out: Path, *, documents: int, classes: int = 8, seed: int = 0) -> None:
    """Write train.csv, test.csv and classes.txt as `shardtrain.datasets.demo.write_demo` does, of invented words."""
    write_corpus(
        out,
        lambda: SyntheticLanguage(classes, seed),
        documents=documents,
        classes=classes,
        overwrite=False,
        advance=lambda num_documents: None,
    )


def main() -> int:
    """Write the corpus."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--documents", type=int, default=20_000, metavar="N", help="in train.csv (20,000)")
    parser.add_argument("--classes", type=int, default=8, metavar="K", help="2 to 1,000 (8)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="from 0 (0)")
    args = parser.parse_args()
    write_synthetic(args.out, documents=args.documents, classes=args.classes, seed=args.seed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

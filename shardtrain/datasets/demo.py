"""Generate a demo corpus of any size, from which a classifier learns well but not perfectly.

A document mixes words of a Zipf-distributed vocabulary, topic words of its class, and phrases: word pairs whose words
are equally frequent in every class, so that only 2-grams separate the classes. A few percent of the labels are wrong.
Every choice is a hash (splitmix64) of the seed, the document and the position, in integers, so the bytes are the same
on every machine and with every numpy version, which numpy's generators do not promise. About 40 MB/s, one block in
memory at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shardtrain.datasets.lexicon import (
    FIRST,
    NUM_FORMS,
    PLAIN,
    QUOTED,
    TITLE,
    WITH_COMMA,
    WITH_STOP,
    spell,
    spelled_forms,
)
from shardtrain.errors import CorpusError, CorpusExistsError, UsageError
from shardtrain.runtime.atomic import committed

MAX_CLASSES = 1_000
MAX_TEST_DOCUMENTS = 70_000  # the size of DBPedia's test split

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

_U64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15

Hashes = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The corpus that was written; `num_bytes` counts train.csv and test.csv together."""

    num_train: int
    num_test: int
    num_bytes: int
    class_names: tuple[str, ...]


def write_demo(
    out: Path,
    *,
    documents: int = 20_000,
    classes: int = 8,
    seed: int = 0,
    overwrite: bool = False,
    advance: Callable[[int], None] = lambda num_documents: None,
) -> Demo:
    """Write train.csv, test.csv and classes.txt in the layout of Zhang et al., sorted by class.

    Args:
        out: folder, created if missing.
        documents: rows of train.csv, at least one per class; test.csv has a tenth, at most `MAX_TEST_DOCUMENTS`.
        classes: 2 to `MAX_CLASSES`.
        seed: 0 to 2^64 - 1.
        overwrite: replace existing files.
        advance: called with the number of documents in each block written.

    Raises:
        UsageError: a number is out of range.
        CorpusExistsError: `out` has one of the files already, and `overwrite` is false.
        CorpusError: `out` cannot be written to.
    """
    out = Path(out)
    num_test = min(MAX_TEST_DOCUMENTS, max(classes, documents // 10))
    if not 2 <= classes <= MAX_CLASSES:
        raise UsageError(f"--classes {classes:,}; expected 2 to {MAX_CLASSES:,}")
    if documents < classes:
        raise UsageError(f"--documents {documents:,} for {classes:,} classes; each class needs at least one")
    if not 0 <= seed <= _U64:
        raise UsageError(f"--seed {seed}; expected 0 to 2^64 - 1")
    train, test, names = (out / name for name in ("train.csv", "test.csv", "classes.txt"))
    for path in (train, test, names):
        if path.exists() and not overwrite:
            raise CorpusExistsError(f"'{path}' exists already; choose another folder, or replace it with --overwrite")
    try:
        out.mkdir(parents=True, exist_ok=True)
        language = _Language(classes, seed)
        num_bytes = 0
        with contextlib.ExitStack() as files:  # committed at the end, train.csv last: it marks the folder as complete
            to_train, to_test, to_names = (files.enter_context(committed(path)) for path in (train, test, names))
            to_names.write("".join(f"{name}\n" for name in language.class_names).encode())
            for file, split, number in ((to_test, 1, num_test), (to_train, 0, documents)):
                for block, count in language.write(number, split):
                    num_bytes += file.write(block)
                    advance(count)
            train.unlink(missing_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise CorpusError(f"cannot write the demo to '{out}': {error.strerror}; choose another folder") from error
    return Demo(num_train=documents, num_test=num_test, num_bytes=num_bytes, class_names=language.class_names)


class _Language:
    """Vocabulary, topics and phrases of one demo, a function of the number of classes and the seed."""

    def __init__(self, classes: int, seed: int) -> None:
        self.classes, self.seed = classes, seed
        words = spell(_NUM_WORDS + classes, _key(seed, 0))
        self.class_names = tuple(word.capitalize() for word in words[_NUM_WORDS:])
        pieces = [form for word in words[:_NUM_WORDS] for form in spelled_forms(word)]
        self._middle, self._end, self._label = len(pieces), len(pieces) + 1, len(pieces) + 2
        pieces += [b'","', b'."\n', *(f'"{label}","'.encode() for label in range(1, classes + 1))]
        self._spelled = np.frombuffer(b"".join(pieces), np.uint8)
        self._lengths = np.array([len(piece) for piece in pieces], np.int32)
        self._offsets = (np.cumsum(self._lengths) - self._lengths).astype(np.int32)
        self._common = _zipf(_NUM_WORDS, _QUANTILES)
        self._zipf_topic = _zipf(_TOPIC_WORDS, _TOPIC_QUANTILES)
        counters = np.arange(classes * _TOPIC_WORDS, dtype=np.uint64)
        spread = _hash(counters, _key(seed, 1)) % np.uint64(_NUM_WORDS // 4 - _FIRST_TOPIC_WORD)
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
        chance = _hash(places, _key(self.seed, 2 + 8 * split))
        others = 1 + _bits(chance, 16, 16) % (self.classes - 1)
        content = (label + np.where(_bits(chance, 0, 16) < _WRONG_LABELS, others, 0)) % self.classes
        title_length = 2 + _bits(chance, 32, 2)
        length = title_length + 4 + _bits(chance, 34, 5) + _bits(chance, 39, 4) + (_bits(chance, 44, 10) ** 2 >> 14)
        topic_rate = _MIN_TOPIC_RATE + _TOPIC_RATE_STEP * _bits(chance, 54, 3)

        first = np.cumsum(length) - length
        owner = np.repeat(np.arange(len(places)), length)
        position = np.arange(int(length.sum())) - first[owner]
        draw = _mix(chance[owner] + position.astype(np.uint64) * np.uint64(_GOLDEN))
        more = _mix(draw + np.uint64(_key(self.seed, 3)))
        in_title = position < title_length[owner]
        starts = (position == 0) | (position == title_length[owner])
        about = np.where(_bits(more, 0, 12) < _OFF_TOPIC, _bits(more, 12, 16) % self.classes, content[owner])
        words = self._words(draw, _bits(more, 28, 30), about, topic_rate[owner], position)
        pieces = words * NUM_FORMS + _forms(_bits(draw, 44, 10), starts, in_title)

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
        words = self._common[_bits(draw, 0, _QUANTILES)]
        kind = _bits(draw, _QUANTILES, 12)
        topical = np.flatnonzero(kind < topic_rate)
        quantile = _bits(draw[topical], 32, _TOPIC_QUANTILES)
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


def _zipf(num_words: int, bits: int) -> Integers:
    """Tabulate the ranks, from 0, at 2^bits equal quantiles of Zipf's law, in integers only."""
    weights = (1 << 40) // (np.arange(num_words, dtype=np.int64) + 3)
    bounds = np.cumsum(weights)
    steps = np.arange(1 << bits, dtype=np.int64) * 2 + 1
    return np.searchsorted(bounds, (int(bounds[-1]) >> (bits + 1)) * steps, side="right").astype(np.int64)


def _bits(values: Hashes, first: int, number: int) -> Integers:
    return ((values >> np.uint64(first)) & np.uint64((1 << number) - 1)).astype(np.int64)


def _key(seed: int, stream: int) -> int:
    """Derive the key of one stream of hashes from the seed."""
    counter = np.array([(seed + (stream + 1) * _GOLDEN) & _U64], np.uint64)
    return int(_mix(counter)[0])


def _hash(counters: Hashes, key: int) -> Hashes:
    return _mix(counters * np.uint64(_GOLDEN) + np.uint64(key))


def _mix(values: Hashes) -> Hashes:
    """Apply splitmix64's finalizer (Steele, Lea and Flood 2014), a bijection of 64-bit integers."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values

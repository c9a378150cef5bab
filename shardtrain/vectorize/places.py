"""Find where in a text each of its terms stands: the terms of a row, or the words behind its token ids.

The terms are those of the tokenizer that makes the rows: the same kernels prepare and split the texts. Only the few
terms that are asked for get places in characters, so memory is that of the n-grams of one block of texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from shardtrain.arrays.texts import Texts
from shardtrain.runtime.kernels import kernel
from shardtrain.vectorize import text
from shardtrain.vectorize.alignment import Alignment, Integers, align, unchanged_lengths
from shardtrain.vectorize.analyzers import ANALYZERS
from shardtrain.vectorize.fitted import HashingVectorizer, NgramVectorizer, SequenceVectorizer, Vectorizer
from shardtrain.vectorize.hashed import hashed_columns
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.indexing import prepare_texts, tokenizer_of
from shardtrain.vectorize.sequences import ids_of
from shardtrain.vectorize.settings import CountedSettings, HashedSettings, SequenceSettings
from shardtrain.vectorize.text import TextBlock
from shardtrain.vectorize.tokens import Tokenizer, find_terms, hashed_words, mix, split_words, word_buffers

_32 = np.uint64(32)

Place = tuple[int, int]  # characters [start, stop) of a text


@dataclass(frozen=True, eq=False)
class TextTerms:
    """The n-grams or words of one text.

    Attributes:
        keys: the column of each occurrence, or the id of the word; -1 if it is not in the row, (occurrences,) int64.
    """

    keys: Integers
    _vectorizer: Vectorizer
    _grams: _Grams
    _document: int

    def of(self, keys: Sequence[int]) -> list[tuple[tuple[str, ...], tuple[Place, ...]]]:
        """Return the terms of each key and all places of these in the text, both in the order of the places.

        A key has one term, except of hashed n-grams, where different n-grams of a text may share a column. The place of
        an n-gram of several words is from its first word to its last, stop words between them included.
        """
        order = np.argsort(self.keys, kind="stable")
        sought = np.asarray(keys, np.int64)
        bounds = [np.searchsorted(self.keys, sought, side=side, sorter=order).tolist() for side in ("left", "right")]
        found = [order[low:high] for low, high in zip(*bounds, strict=True)]
        at = np.concatenate([np.zeros(0, np.int64), *found]) + self._grams.indptr[self._document]
        starts, stops = self._grams.places(self._document, at)
        ends = np.cumsum([0, *map(len, found)]).tolist()
        places = [
            tuple(dict.fromkeys(sorted(zip(starts[first:last].tolist(), stops[first:last].tolist(), strict=True))))
            for first, last in pairwise(ends)
        ]
        return list(zip(self._strings(keys, at, ends), places, strict=True))

    def _strings(self, keys: Sequence[int], at: Integers, ends: Sequence[int]) -> Iterator[tuple[str, ...]]:
        """Yield the terms of each key, whose n-grams are at[ends[i]:ends[i + 1]]."""
        if not isinstance(self._vectorizer, HashingVectorizer):
            first = self._vectorizer.kind == "sequence"  # id 0 is padding
            yield from ((self._vectorizer.terms[key - first],) for key in keys)
            return
        strings = self._grams.strings(self._document, at)
        yield from (tuple(dict.fromkeys(strings[first:last])) for first, last in pairwise(ends))


@dataclass(frozen=True, eq=False)
class _Grams:
    """Every n-gram of a prepared block, in the order of `_occurrences`.

    Attributes:
        block, tokenizer, settings: of the texts.
        alignment: of the block with the texts.
        ids: of each n-gram.
        starts, stops: bytes of the block, (n-grams,) int64.
        indptr: document d has the n-grams [indptr[d], indptr[d + 1]).
    """

    block: TextBlock
    tokenizer: Tokenizer
    settings: CountedSettings
    alignment: Alignment
    ids: TermIds
    starts: Integers
    stops: Integers
    indptr: Integers

    @classmethod
    def of(cls, settings: CountedSettings, texts: Texts) -> _Grams:
        """Find the n-grams of texts."""
        tokenizer, block, hashing = tokenizer_of(settings), prepare_texts(settings, texts), settings.hashing
        hashes, checks, starts, stops, indptr = _occurrences(
            block.data,
            block.bounds,
            block.offsets,
            tokenizer.characters,
            tokenizer.min_chars,
            hashed_words(tokenizer.stop_words, hashing.seed),
            *tokenizer.ngram_range,
            tokenizer.short_whole,
            np.uint64(hashing.seed),
            np.uint64(hashing.mask),
        )
        alignment = _aligned(settings, texts, block)
        return cls(block, tokenizer, settings, alignment, TermIds(hashes, checks), starts, stops, indptr)

    def places(self, document: int, at: Integers) -> tuple[Integers, Integers]:
        """Return the half-open ranges of characters of some n-grams of a document."""
        return self.alignment.characters(document, self.starts[at], self.stops[at])

    def strings(self, document: int, at: Integers) -> list[str]:
        """Return some n-grams of a document."""
        ids, numbers = self.ids.take(at).distinct()
        first, last = self.block.offsets[document], self.block.offsets[document + 1]
        segments = TextBlock(self.block.data, self.block.bounds[first : last + 1], np.array([0, last - first]))
        found = find_terms(segments, self.tokenizer, self.settings.hashing, ids).to_list()
        return [found[number] for number in numbers.tolist()]


def find_places(vectorizer: Vectorizer, texts: Texts) -> Iterator[TextTerms]:
    """Yield the terms of each text, which a caller passes in blocks of a size that may be in memory.

    Args:
        vectorizer: that makes rows of the texts.
        texts: a block of texts.
    """
    settings = vectorizer.settings
    grams = _Grams.of(settings.ngrams if isinstance(settings, HashedSettings) else settings, texts)
    keys = _keys(vectorizer, texts, grams)
    for document, (start, stop) in enumerate(pairwise(grams.indptr.tolist())):
        of_document = keys[start:stop]
        if isinstance(vectorizer, SequenceVectorizer):
            of_document = _last(of_document, vectorizer.num_features)
        yield TextTerms(of_document, vectorizer, grams, document)


def _keys(vectorizer: Vectorizer, texts: Texts, grams: _Grams) -> Integers:
    """Return the column or the id of each n-gram, -1 if it has none."""
    if isinstance(vectorizer, HashingVectorizer):
        columns = hashed_columns(vectorizer.settings, grams.block)
        assert len(columns) == len(grams.ids)
        return columns
    assert isinstance(vectorizer, NgramVectorizer | SequenceVectorizer)
    if isinstance(vectorizer, SequenceVectorizer):
        ids = ids_of(grams.ids, vectorizer.ids).astype(np.int64)
        return np.where(ids > 0, ids, -1)
    at = vectorizer.ids.find(grams.ids)
    return np.where(at >= 0, vectorizer.arrays["columns"][at], -1).astype(np.int64)


def _last(keys: Integers, length: int) -> Integers:
    """Return the keys of words with all but the last `length` known ones unknown: the others were cut off."""
    known = np.flatnonzero(keys >= 0)
    kept = keys.copy()
    kept[known[: max(0, len(known) - length)]] = -1
    return kept


def _aligned(settings: CountedSettings, texts: Texts, block: TextBlock) -> Alignment:
    """Align a block that `prepare_texts` made with its texts."""
    strip = not isinstance(settings, SequenceSettings) and settings.strip_accents == "unicode"
    lengths = unchanged_lengths if isinstance(settings, SequenceSettings) else ANALYZERS[settings.analyzer].lengths
    if lengths is unchanged_lengths:
        return align(texts, block, block, np.zeros(0, np.int64), strip=strip)
    lowered = text.lowered(texts, strip=strip)
    return align(texts, block, lowered, lengths(lowered), strip=strip)


@kernel
def _occurrences(data, bounds, offsets, characters, min_chars, stop_words, low, high, short, seed, mask):  # type: ignore[no-untyped-def]
    """Return hash, check, first byte and end of each n-gram, by its first word, and each document's first n-gram."""
    word_hash, word_check, word_start, word_end = word_buffers(bounds, min_chars)
    room = (len(data) // (min_chars + 1) + len(bounds)) * (high - low + 1)  # what is not used takes no memory
    hashes, checks = np.empty(room, np.uint64), np.empty(room, np.uint32)
    starts, stops = np.empty(room, np.int64), np.empty(room, np.int64)
    indptr = np.zeros(len(offsets), np.int64)
    size = 0
    # Invariant: the first `size` entries are the n-grams of the documents before d.
    for d in range(len(offsets) - 1):
        for s in range(offsets[d], offsets[d + 1]):
            words = split_words(
                data,
                bounds[s],
                bounds[s + 1],
                characters,
                min_chars,
                stop_words,
                seed,
                word_hash,
                word_check,
                word_start,
                word_end,
            )
            least = min(low, max(words, 1)) if short else low
            for i in range(words):
                h, c = word_hash[i], word_check[i]
                for n in range(1, min(high, words - i) + 1):
                    if n > 1:
                        h = mix(h, word_hash[i + n - 1])
                        c = mix(c, word_check[i + n - 1])
                    if n >= least:
                        hashes[size] = h & mask
                        checks[size] = c >> _32
                        starts[size] = word_start[i]
                        stops[size] = word_end[i + n - 1]
                        size += 1
        indptr[d + 1] = size
    return hashes[:size], checks[:size], starts[:size], stops[:size], indptr

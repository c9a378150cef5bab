"""Define how a text is split into terms, by name: n-grams of words, of characters, or of characters within words.

An analyzer prepares texts and defines what the tokenizer's kernels take as a word of an n-gram. Everything after that,
hashes and checks included, is the same for all analyzers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shardtrain.arrays.texts import Bytes
from shardtrain.vectorize import alignment, text
from shardtrain.vectorize.alignment import Integers
from shardtrain.vectorize.text import TextBlock
from shardtrain.vectorize.tokens import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Analyzer:
    """One of scikit-learn's analyzers.

    Attributes:
        prepare: prepares texts for the tokenizer; `strip` says whether accents are removed, `prepared` that the texts
            are in lower case and without accents if they are to be.
        lengths: the bytes that `prepare` makes of each character of texts in lower case; see `alignment`.
        characters, min_chars, separator, short_whole: of the tokenizer.
    """

    prepare: Callable[..., TextBlock]
    lengths: Callable[[TextBlock], Integers]
    characters: Callable[[], Bytes]
    min_chars: int
    separator: bytes
    short_whole: bool = False

    def tokenizer(self, ngram_range: tuple[int, int], stop_words: tuple[str, ...]) -> Tokenizer:
        """Return the tokenizer of prepared texts."""
        return Tokenizer(
            characters=self.characters(),
            min_chars=self.min_chars,
            ngram_range=ngram_range,
            stop_words=stop_words,
            separator=self.separator,
            short_whole=self.short_whole,
        )


ANALYZERS = {
    # words of two or more characters, scikit-learn's (?u)\b\w\w+\b
    "word": Analyzer(
        prepare=text.lowered,
        lengths=alignment.unchanged_lengths,
        characters=text.word_characters,
        min_chars=2,
        separator=b" ",
    ),
    "char": Analyzer(
        prepare=text.with_single_spaces,
        lengths=alignment.single_space_lengths,
        characters=text.single_characters,
        min_chars=0,
        separator=b"",
    ),
    "char_wb": Analyzer(
        prepare=text.in_padded_words,
        lengths=alignment.padded_lengths,
        characters=text.single_characters,
        min_chars=0,
        separator=b"",
        short_whole=True,
    ),
}

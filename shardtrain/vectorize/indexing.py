"""Prepare, split and index texts under the settings of a vectorizer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from shardtrain.vectorize import text
from shardtrain.vectorize.analyzers import ANALYZERS
from shardtrain.vectorize.inverted import Inverted, invert_block
from shardtrain.vectorize.settings import CountedSettings, NgramSettings, SequenceSettings
from shardtrain.vectorize.text import TextBlock
from shardtrain.vectorize.tokens import BlockTerms, Tokenizer, index_block


def tokenizer_of(settings: CountedSettings) -> Tokenizer:
    """Return the tokenizer of prepared texts; for sequences a word is everything between Keras' filters and spaces."""
    if isinstance(settings, SequenceSettings):
        return Tokenizer(characters=text.keras_characters(), min_chars=1, ngram_range=(1, 1))
    return ANALYZERS[settings.analyzer].tokenizer(settings.ngram_range, settings.stop_words)


def prepare_texts(settings: CountedSettings, texts: Sequence[str], *, prepared: bool = False) -> TextBlock:
    """Prepare texts for the tokenizer: lower-case them, strip accents, join spaces, as settings require.

    Texts that are `prepared` were lower-cased and stripped by the caller, or are not to be.
    """
    if isinstance(settings, SequenceSettings):
        return text.lowered(texts)
    return ANALYZERS[settings.analyzer].prepare(texts, strip=settings.strip_accents == "unicode", prepared=prepared)


def index_ngrams(settings: NgramSettings, texts: Sequence[str], *, prepared: bool = False) -> Inverted:
    """Index the n-grams of some documents, each once per document; `prepared` as for `prepare_texts`."""
    return invert_block(prepare_texts(settings, texts, prepared=prepared), tokenizer_of(settings), settings.hashing)


def index_words(settings: SequenceSettings, texts: Sequence[str]) -> BlockTerms:
    """Index the words of some documents, every occurrence in order."""
    return index_block(prepare_texts(settings, texts), tokenizer_of(settings), settings.hashing)


def index_texts(settings: CountedSettings, texts: Sequence[str]) -> Inverted | BlockTerms:
    """Index the terms of some documents as their vectorizer needs them."""
    return index_words(settings, texts) if isinstance(settings, SequenceSettings) else index_ngrams(settings, texts)


def idle_stop_words(settings: NgramSettings) -> list[str]:
    """Return the stop words that can match nothing, because no prepared text contains them as a word."""
    block = prepare_texts(settings, settings.stop_words)
    content, ends = block.data.tobytes(), block.bounds.tolist()
    prepared = [content[start:stop].decode("utf-8", "surrogatepass") for start, stop in pairwise(ends)]
    pairs = zip(settings.stop_words, prepared, strict=True)
    return [word for word, becomes in pairs if word != becomes or not re.fullmatch(r"\w\w+", word)]

"""Report where features of words would be made of texts that have no spaces between words.

Such a build succeeds or fails for a reason that nobody sees: every text is one word. A sample of the first unit
decides; reading that unit once more costs a few hundredths of a second.
"""

from __future__ import annotations

import numpy as np

from shardtrain.corpus.readers import read_unit
from shardtrain.errors import CorpusError
from shardtrain.pipeline.units import Units
from shardtrain.runtime.passes import UNIT_BYTES
from shardtrain.vectorize.settings import HashedSettings, SequenceSettings, Settings
from shardtrain.vectorize.spaces import lack_spaces

CHARACTERS = "--analyzer char"
_TEXTS, _CHARACTERS = 500, 500  # that are looked at, from the start of each text


def texts_lack_spaces(units: Units) -> bool:
    """Tell whether the texts of the first unit have nearly no spaces; rows that cannot be used are left to others."""
    usual = np.flatnonzero(units.table.num_text_bytes <= 2 * UNIT_BYTES)
    if not len(usual):  # documents so long that reading one takes much of the memory limit
        return False
    try:
        texts = read_unit(units.split.source, units.table[int(usual[0])]).texts
    except CorpusError:
        return False
    chosen = np.unique(np.linspace(0, max(0, len(texts) - 1), min(_TEXTS, len(texts))).astype(np.int64))
    return lack_spaces(text[:_CHARACTERS] for text in texts.take(chosen).to_list())


def spacing_note(units: Units, settings: Settings) -> str | None:
    """Return a line that names `--analyzer char` where the texts have no spaces and features are made of words."""
    if isinstance(settings, SequenceSettings):
        remedy = f"a sequence has hardly more than one token; make n-grams with --vectorizer ngram {CHARACTERS}"
    else:
        ngrams = settings.ngrams if isinstance(settings, HashedSettings) else settings
        if ngrams.analyzer != "word":
            return None
        remedy = f"most are one word each; make n-grams of characters with {CHARACTERS}"
    return f"the texts have nearly no spaces between words, so {remedy}" if texts_lack_spaces(units) else None

"""Describe a fitted vectorizer in a bundle: settings, what Unicode says of characters, and the candidates.

A candidate is an n-gram that counts in the norms of texts, and there are several for each column. Their 64-bit hashes
are shortened to keys, of the bits that number the candidates and some more, which decide how often an unknown n-gram is
taken for a candidate: once in 2 ** (more - 1) to 2 ** more times. A key of an ascending list takes about 1.4 bits
beyond these. Where hashes alone do not tell candidates apart, they are mixed with the checks before. Rows of weights
are in the order of keys, so no column numbers are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.errors import UsageError, VectorizerError
from shardtrain.exports.bundle_file import differences
from shardtrain.exports.bundle_reader import (
    CHECK_BITS,
    CODE_POINTS,
    MOST_DOCUMENTS,
    MOST_EQUAL,
    MOST_KEY_BITS,
    NARROW,
    mixed,
)
from shardtrain.vectorize import text
from shardtrain.vectorize.fitted import HashingVectorizer, NgramVectorizer, Vectorizer
from shardtrain.vectorize.settings import HashedSettings, Hashing, NgramSettings
from shardtrain.vectorize.tokens import hashed_words
from shardtrain.vectorize.weights import weights_of

Array = npt.NDArray[Any]

_WHOLE = Hashing().mask


@dataclass(frozen=True, kw_only=True, eq=False)
class BundledTerms:
    """What a bundle has of a vectorizer.

    Attributes:
        header: its settings, as JSON values.
        arrays: tables of characters, stop words and candidates.
        rows: the column whose weights each row of the kernel has, (features,); None: all columns in order.
        version: the oldest of the format that has what is described.
    """

    header: Mapping[str, Any]
    arrays: Mapping[str, Array]
    rows: Array | None
    version: int


def bundled_terms(vectorizer: Vectorizer, *, extra_bits: int) -> BundledTerms:
    """Describe a vectorizer.

    Args:
        vectorizer: of n-grams, fitted or hashed.
        extra_bits: of a candidate's key, beyond those that number the candidates.

    Raises:
        UsageError: it makes token ids.
        VectorizerError: its hashes are too short to tell its columns apart.
    """
    if isinstance(vectorizer, NgramVectorizer):
        about, arrays, rows = _vocabulary(vectorizer, extra_bits)
    elif isinstance(vectorizer, HashingVectorizer):
        about, arrays, rows = {"kind": "hashed", "hash_seed": 0}, {}, None  # of stop words only
    else:
        raise UsageError("a bundle is made of a model over n-grams, and this vectorizer makes token ids")
    settings = vectorizer.settings
    header = {
        **about,
        "analyzer": settings.analyzer,
        "ngram_range": list(settings.ngram_range),
        "binary": settings.binary,
        "features": vectorizer.num_features,
    }
    newer = "hash_mask" in about or about.get("num_documents", 0) >= NARROW
    arrays = {**_characters(settings, about["hash_seed"]), **arrays}
    return BundledTerms(header=header, arrays=arrays, rows=rows, version=2 if newer else 1)


def _vocabulary(vectorizer: NgramVectorizer, extra_bits: int) -> tuple[dict[str, Any], dict[str, Array], Array]:
    """Return what the header says of a vocabulary, the arrays of its candidates, and the column of each row."""
    settings, weights = vectorizer.settings, weights_of(vectorizer.settings)
    if vectorizer.num_documents > MOST_DOCUMENTS or len(vectorizer.ids) >= NARROW:
        raise VectorizerError(
            f"the vectorizer has {len(vectorizer.ids):,} candidates of {vectorizer.num_documents:,} documents, a "
            f"bundle has room for {NARROW - 1:,} of {MOST_DOCUMENTS:,}; build with a higher --min-df"
        )
    hashes, counts, columns = (np.asarray(vectorizer.arrays[name]) for name in ("hashes", "counts", "columns"))
    checked = "checks" in vectorizer.arrays
    if checked:
        hashes = mixed(hashes, vectorizer.arrays["checks"].astype(np.uint64))
        order = np.argsort(hashes)
        hashes, counts, columns = hashes[order], counts[order], columns[order]
    elif settings.hashing.mask != _WHOLE:
        raise VectorizerError("the vectorizer's hashes are shortened, which a bundle does not support; build again")
    bits = _key_bits(hashes, columns >= 0, len(hashes).bit_length() - 1 + extra_bits)
    shift = np.uint64(64 - bits)
    keys = hashes >> shift
    order = np.lexsort((columns < 0, keys))  # where keys are equal, candidates with a column come first
    selected = np.flatnonzero(columns[order] >= 0)
    chosen = order[selected]
    about = {
        "kind": "candidates",
        "hash_seed": settings.hashing.seed,
        **({"hash_mask": settings.hashing.mask} if checked else {}),
        "key_bits": bits,
        "num_documents": vectorizer.num_documents,
        "sublinear_tf": weights.sublinear,
        "idf": weights.idf,
        "norm": weights.norm,
    }
    arrays = {
        "keys": differences(keys[order]),
        "frequencies": counts[order].astype(np.uint32 if vectorizer.num_documents < NARROW else np.uint64),
        "selected": differences(selected).astype(np.uint32),
        "checks": (hashes[chosen] >> (shift - np.uint64(CHECK_BITS))).astype(np.uint8),
    }
    return about, arrays, columns[chosen]


def _key_bits(hashes: Array, selected: Array, bits: int) -> int:
    """Return the fewest bits of a key, at least `bits`, that tell apart what a reader must tell apart.

    Args:
        hashes: of the candidates, ascending.
        selected: whether each has a column.
        bits: that are wanted.

    Raises:
        VectorizerError: no number of bits does.
    """
    for enough in range(min(bits, MOST_KEY_BITS), MOST_KEY_BITS + 1):
        keys, checked = hashes >> np.uint64(64 - enough), hashes[selected] >> np.uint64(64 - enough - CHECK_BITS)
        if (keys[MOST_EQUAL:] != keys[:-MOST_EQUAL]).all() and (checked[1:] != checked[:-1]).all():
            return enough
    raise VectorizerError(
        "the vectorizer's hashes are too much alike to be shortened, so a bundle cannot tell its n-grams apart; build "
        "again"
    )


def _characters(settings: NgramSettings | HashedSettings, seed: int) -> dict[str, Array]:
    """Return the tables of what characters become and are, and the hashes of stop words."""
    starts, lengths, pool = text.replacements(strip=settings.strip_accents == "unicode")
    changed = np.flatnonzero(lengths != text.UNCHANGED)
    become = [
        pool[start : start + length].tobytes().decode("utf-8", "surrogatepass")
        for start, length in zip(starts[changed].tolist(), lengths[changed].tolist(), strict=True)
    ]
    words = hashed_words(settings.stop_words, seed)[:, 0]
    word = settings.analyzer == "word"
    return {
        "fold_codes": differences(changed.astype(np.uint32)),
        "fold_lengths": np.array([len(each) for each in become], np.uint8),
        "fold_pool": np.frombuffer("".join(become).encode("utf-32-le", "surrogatepass"), np.uint32),
        **_runs("around_sigma", text.around_sigma()),
        **_runs("word" if word else "white", text.word_characters() if word else text.white_space()),
        "stop_words": np.sort(words[words != 0]),
    }


def _runs(name: str, table: Array) -> dict[str, Array]:
    """Return a table of all code points as runs of equal values: where they start, and their values."""
    values = np.zeros(CODE_POINTS, np.uint8)
    values[: len(table)] = table
    starts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    return {f"{name}_starts": differences(starts).astype(np.uint32), f"{name}_values": values[starts]}

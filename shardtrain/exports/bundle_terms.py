"""Describe a fitted vectorizer in a bundle: settings, what Unicode says of characters, and the candidates.

A candidate is an n-gram that counts in the norms of texts, and there are several for each column. Their 64-bit hashes
are shortened to keys, of the bits that the number of candidates needs and some more, which decide how often an unknown
n-gram is taken for a candidate: once in 2 ** bits. Ascending keys cost about 1.4 bits beyond those. Rows of weights are
in the order of keys, so no column numbers are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.errors import UsageError, VectorizerError
from shardtrain.exports.bundle_file import differences
from shardtrain.exports.bundle_reader import CHECK_BITS, CODE_POINTS, MOST_KEY_BITS
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
    """

    header: Mapping[str, Any]
    arrays: Mapping[str, Array]
    rows: Array | None


def bundled_terms(vectorizer: Vectorizer, *, extra_bits: int) -> BundledTerms:
    """Describe a vectorizer.

    Args:
        vectorizer: of n-grams, fitted or hashed.
        extra_bits: of a candidate's key, beyond those that number the candidates.

    Raises:
        UsageError: it makes token ids.
        VectorizerError: its hashes are too short to tell its columns apart.
    """
    settings = vectorizer.settings
    if isinstance(vectorizer, NgramVectorizer):
        weights = weights_of(vectorizer.settings)
        how = {
            "kind": "candidates",
            "num_documents": vectorizer.num_documents,
            "sublinear_tf": weights.sublinear,
            "idf": weights.idf,
            "norm": weights.norm,
        }
        more, arrays, rows = _candidates(vectorizer, extra_bits)
        seed = vectorizer.settings.hashing.seed
    elif isinstance(vectorizer, HashingVectorizer):
        how, more, arrays, rows, seed = {"kind": "hashed"}, {}, {}, None, 0
    else:
        raise UsageError("a bundle is made of a model over n-grams, and this vectorizer makes token ids")
    assert isinstance(settings, NgramSettings | HashedSettings)
    header = {
        **how,
        **more,
        "analyzer": settings.analyzer,
        "ngram_range": list(settings.ngram_range),
        "binary": settings.binary,
        "features": vectorizer.num_features,
        "hash_seed": seed,
    }
    return BundledTerms(header=header, arrays={**_characters(settings, seed), **arrays}, rows=rows)


def _candidates(vectorizer: NgramVectorizer, extra_bits: int) -> tuple[dict[str, Any], dict[str, Array], Array]:
    """Return what the header says of the candidates, their arrays, and the column of each row of weights."""
    hashes, columns = (np.asarray(vectorizer.arrays[name]) for name in ("hashes", "columns"))
    if vectorizer.settings.hashing.mask != _WHOLE:
        raise VectorizerError("the vectorizer's hashes are shortened, which a bundle does not support; build again")
    bits = min(MOST_KEY_BITS, len(hashes).bit_length() - 1 + extra_bits)
    while True:
        shift = np.uint64(64 - bits)
        keys = hashes >> shift
        order = np.lexsort((columns < 0, keys))  # where keys are equal, a candidate with a column is found
        selected = np.flatnonzero(columns[order] >= 0)
        if (np.diff(keys[order[selected]]) > 0).all():
            break
        if bits == MOST_KEY_BITS:
            raise VectorizerError(f"two columns of the vectorizer have the same hash but for {64 - bits} bits")
        bits += 1
    chosen = order[selected]
    return (
        {"key_bits": bits},
        {
            "keys": differences(keys[order]),
            "frequencies": vectorizer.arrays["counts"][order].astype(np.uint32),
            "selected": differences(selected).astype(np.uint32),
            "checks": (hashes[chosen] >> (shift - np.uint64(CHECK_BITS))).astype(np.uint8),
        },
        columns[chosen],
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

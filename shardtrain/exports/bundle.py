"""Make a bundle of a run: weights, vocabulary and character tables in one file that needs numpy alone to be used.

Only the first kernel is stored in few bits: it has nearly all weights. With int8 the weights of a unit share one step,
the largest of them by 127, so a text's sums err by a fraction of a step times the length of its row, and rare large
weights leave most others small numbers, which zlib shortens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.engine.network import Network
from shardtrain.errors import ModelError
from shardtrain.exports.bundle_file import packed
from shardtrain.exports.bundle_terms import bundled_terms
from shardtrain.vectorize.fitted import Vectorizer

# Bits of a key beyond those that number the candidates. With int8 one unknown n-gram in 8,192 to 16,384 is taken for
# one that counts in the norm, which changes the values of a text of 100 n-grams by half a percent; with others none.
_EXTRA_BITS = {"int8": 14, "float16": 32, "float32": 32}

Array = npt.NDArray[Any]


def bundle_content(
    network: Network, vectorizer: Vectorizer, class_names: Sequence[str], weights: str, facts: Mapping[str, Any]
) -> bytes:
    """Return the bytes of the bundle of a network and its vectorizer.

    Args:
        network: the trained network.
        vectorizer: of its features.
        class_names: in order.
        weights: how the first kernel is stored: "int8", "float16" or "float32".
        facts: what else the header says, for people.

    Raises:
        UsageError: the vectorizer makes token ids.
        VectorizerError: its hashes are too short.
        ModelError: the weights are not finite, or too large for float16.
    """
    terms = bundled_terms(vectorizer, extra_bits=_EXTRA_BITS[weights])
    kernel, scales = _stored(network.wide if terms.rows is None else network.wide[terms.rows], weights)
    header = {
        **facts,
        "classes": list(class_names),
        "dims": list(network.shape.dims),
        "weights": weights,
        "terms": dict(terms.header),
    }
    arrays = {
        **terms.arrays,
        **{f"kernel_{layer}": found for layer, found in enumerate(network.kernels) if layer},
        **{f"bias_{layer}": found for layer, found in enumerate(network.biases)},
        "scales": scales,
        "kernel": kernel,
    }
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            larger = "; export with --weights float32" if weights == "float16" and name == "kernel" else ""
            raise ModelError(f"the model has weights that are not finite{' in float16' if larger else ''}{larger}")
    return packed(header, arrays, terms.version)


def _stored(kernel: npt.NDArray[np.float32], weights: str) -> tuple[Array, npt.NDArray[np.float32]]:
    """Return a kernel as it is stored, and what the weights of each unit are to be multiplied by, (width,)."""
    if weights != "int8":
        with np.errstate(over="ignore"):  # reported by the caller
            return kernel.astype(weights), np.ones(kernel.shape[1], np.float32)
    largest = np.abs(kernel).max(axis=0)
    if not np.isfinite(largest).all():
        return kernel, largest  # reported by the caller
    scales = np.where(largest > 0, largest / np.float32(127), 1).astype(np.float32)
    return np.rint(kernel / scales).astype(np.int8), scales

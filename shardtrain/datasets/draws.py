"""Draw random numbers as hashes (splitmix64) of counters, in integers only.

The numbers are the same on every machine and with every numpy version, which numpy's generators do not promise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]

MAX_SEED = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def key_of(seed: int, stream: int) -> int:
    """Derive the key of one stream of hashes from the seed."""
    counter = np.array([(seed + (stream + 1) * GOLDEN) & MAX_SEED], np.uint64)
    return int(mixed(counter)[0])


def hashed(counters: Hashes, key: int) -> Hashes:
    """Hash counters with the key of a stream."""
    return mixed(counters * np.uint64(GOLDEN) + np.uint64(key))


def mixed(values: Hashes) -> Hashes:
    """Apply splitmix64's finalizer (Steele, Lea and Flood 2014), a bijection of 64-bit integers."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def bits(values: Hashes, first: int, number: int) -> Integers:
    """Take `number` bits of each hash, from bit `first` on."""
    return ((values >> np.uint64(first)) & np.uint64((1 << number) - 1)).astype(np.int64)


def zipf(num_words: int, num_bits: int) -> Integers:
    """Tabulate the ranks, from 0, at 2^num_bits equal quantiles of Zipf's law, in integers only."""
    weights = (1 << 40) // (np.arange(num_words, dtype=np.int64) + 3)
    bounds = np.cumsum(weights)
    steps = np.arange(1 << num_bits, dtype=np.int64) * 2 + 1
    return np.searchsorted(bounds, (int(bounds[-1]) >> (num_bits + 1)) * steps, side="right").astype(np.int64)

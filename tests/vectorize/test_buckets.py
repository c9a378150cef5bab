"""A bucket is the same range of hashes in an array, in mapped postings and in a file of postings that is read."""

from __future__ import annotations

import numpy as np
import pytest
from support.sampled import sampled

from shardtrain.arrays.scratch import find_spilled, open_spilled
from shardtrain.vectorize.buckets import Bucket, first_at
from shardtrain.vectorize.counts import spill_postings
from shardtrain.vectorize.inverted import Inverted


def inverted(hashes: np.ndarray) -> Inverted:
    terms = len(hashes)
    once = np.ones(terms, np.uint32)
    return Inverted(hashes, once, once, np.arange(terms + 1), np.zeros(terms, np.uint32), once)


BITS = (0, 1, 9, 10, 11, 12)
CASES = [(3000, bits) for bits in BITS] + [(terms, bits) for terms in (0, 1) for bits in reversed(BITS)]


@pytest.mark.parametrize(("terms", "bits"), sampled(CASES, range(7)))
def test_buckets_of_postings_are_the_ranges_of_their_hashes(tmp_path, bits, terms):
    rng = np.random.default_rng(bits)
    hashes = np.unique(np.concatenate([rng.integers(0, 2**64, terms, np.uint64), np.array([0, 2**64 - 1], np.uint64)]))
    spill_postings(tmp_path / "now", inverted(hashes), {}, {})
    both = open_spilled(tmp_path / "now"), find_spilled(tmp_path / "now")
    end = 0
    for number in range(1 << bits):
        bucket = Bucket(number, bits)
        expected = bucket.range(hashes)
        assert expected.start == end
        end = expected.stop
        assert [bucket.part_of(postings) for postings in both] == [expected] * 2
        assert first_at(both[1], number, bits) == expected.start
    assert first_at(find_spilled(tmp_path / "now"), 1 << bits, bits) == end == len(hashes)

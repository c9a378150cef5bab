"""Laws of parts of batches: together they are the batches of one reader, in every order, wherever reading begins."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.learnable import write_shards
from support.sampled import sampled

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import join_examples
from shardtrain.errors import UsageError
from shardtrain.loader.options import SHUFFLES
from shardtrain.loader.parts import Part
from shardtrain.loader.shards import Shards, open_shards

ROWS = 9000  # more than two blocks, so that batches lie in two windows


@pytest.fixture(scope="module", params=["ngram", "sequence"])
def shards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp(request.param) / "shards"
    return open_shards(write_shards(folder, kind=request.param, rows=ROWS, num_features=6))


CASES = [*((shuffle, 3, "map") for shuffle in SHUFFLES), ("window", 3, "read"), ("window", 2, "map")]
NOW = range(len(CASES))
CASES += [(shuffle, number, "map") for shuffle in SHUFFLES for number in (2, 7) if (shuffle, number) != ("window", 2)]
CASES += [(shuffle, 3, "read") for shuffle in ("none", "blocks")]


@pytest.mark.parametrize(("shuffle", "number", "io"), sampled(CASES, NOW))
def test_the_parts_of_a_batch_are_the_batch(shards: Shards, shuffle: str, number: int, io: str) -> None:
    split = open_shards(shards.path, io=io).train
    for size, start in ((250, 0), (97, 3), (ROWS, 0), (5, ROWS // 5 - 2)):
        how = {"seed": 3, "epoch": 1, "shuffle": shuffle, "start_step": start, "as_int32": True}
        whole = list(split.batches(size, **how))
        parts = [list(split.batches(size, **how, part=(index, number))) for index in range(number)]
        assert {len(each) for each in parts} == {len(whole)}
        for batch, *shares in zip(whole, *parts, strict=True):
            x, y = join_examples(list(shares))
            np.testing.assert_array_equal(y, batch[1])
            if isinstance(x, Csr):
                assert isinstance(batch[0], Csr)
                np.testing.assert_array_equal(x.toarray(), batch[0].toarray())
            else:
                np.testing.assert_array_equal(x, batch[0])
            assert max(len(each) for _, each in shares) <= -(-len(y) // number)


@given(of=st.integers(1, 9), batch_size=st.integers(1, 40), num_rows=st.integers(1, 200), data=st.data())
def test_a_part_counts_the_positions_that_it_has(of: int, batch_size: int, num_rows: int, data: st.DataObject) -> None:
    parts = [Part(index, of, batch_size, num_rows) for index in range(of)]
    start = data.draw(st.integers(0, num_rows))
    stop = data.draw(st.integers(start, num_rows))
    found = [part.positions(start, stop) for part in parts]
    assert sorted(np.concatenate(found).tolist()) == list(range(start, stop))
    for part, positions in zip(parts, found, strict=True):
        assert part.count(stop) - part.count(start) == len(positions)


def test_a_part_that_is_not_there_is_refused(shards: Shards) -> None:
    with pytest.raises(UsageError, match=r"part is \(2, 2\); it must be the index"):
        shards.train.batches(10, part=(2, 2))
    skipping = open_shards(shards.path, on_corrupt="skip").train
    with pytest.raises(UsageError, match="on_corrupt skip is for one process"):
        skipping.batches(10, part=(0, 2))

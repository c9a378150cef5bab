"""Gathering from several arrays equals numpy's on their concatenation; impossible row pointers are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardtrain.arrays.csr import Csr, concatenate
from shardtrain.errors import CorruptShardError
from shardtrain.loader.gather import Gatherer

LAWS = settings(max_examples=60, deadline=None, derandomize=True)


def new(count, dtype):
    return np.full(count, 99, dtype)


@LAWS
@given(st.data())
def test_dense_rows_of_any_type_and_shape(data):
    sizes = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(sum))
    dtype = data.draw(st.sampled_from(["u1", "<u2", "<u4", "<f4", "<f8"]))
    shape = data.draw(st.sampled_from([(), (1,), (3,), (70,)]))
    rng = np.random.default_rng(1)
    parts = [
        (rng.integers(0, 200, (size, *shape)).astype(dtype), rng.integers(0, 99, size).astype("u1")) for size in sizes
    ]
    order = np.array(data.draw(st.lists(st.integers(0, sum(sizes) - 1), max_size=30)), np.int64)
    x, y = Gatherer(parts).take(order, new)
    np.testing.assert_array_equal(x, np.concatenate([part[0] for part in parts])[order])
    np.testing.assert_array_equal(y, np.concatenate([part[1] for part in parts])[order])
    assert (x.dtype, y.dtype) == (np.dtype(dtype), np.dtype("u1"))


@LAWS
@given(st.data())
def test_sparse_rows_with_pointers_of_either_type(data):
    lengths = data.draw(st.lists(st.lists(st.integers(0, 5), max_size=8), min_size=1, max_size=5).filter(any))
    kinds = data.draw(st.sampled_from([("<i4", "<i4"), ("<i8", "<i4"), ("<i4", "<i8")]))
    rng = np.random.default_rng(2)
    parts = []
    for number, rows in enumerate(lengths):
        indptr = np.cumsum([0, *rows]).astype(kinds[number % 2])
        values = rng.random(int(indptr[-1])).astype("f4")
        x = Csr(values, rng.integers(0, 40, len(values)).astype("i4"), indptr, (len(rows), 40))
        parts.append((x, np.arange(len(rows), dtype="u1")))
    whole = concatenate([x for x, _ in parts])
    order = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=30)), np.int64)
    x, _ = Gatherer(parts).take(order, new)
    expected = whole.take(order)
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(x, name), getattr(expected, name))
    assert (x.indptr.dtype, x.shape) == (np.dtype(np.int64), (len(order), 40))


@pytest.mark.parametrize("order", [[3], [-1], [1 << 62], [0, 1, -(1 << 62)]])
def test_rows_that_are_not_there_are_refused(order):
    gatherer = Gatherer([(np.zeros((3, 2)), np.zeros(3, "u1"))])
    with pytest.raises(IndexError):
        gatherer.take(np.array(order, np.int64), new)


@pytest.mark.parametrize(
    "indptr", [[0, 2, 1, 4], [-1, 0, 2, 4], [0, 2, 4, 5], [0, 1 << 30, 3, 4], [0, 2, 4, -(1 << 31)]], ids=str
)
def test_impossible_row_pointers_end_in_an_error_and_not_in_the_process(indptr):
    x = Csr(np.zeros(4, "f4"), np.zeros(4, "i4"), np.array(indptr, "i4"), (3, 9))
    with pytest.raises(CorruptShardError, match="row pointers decrease or point outside"):
        Gatherer([(x, np.zeros(3, "u1"))]).take(np.array([0, 1, 2]), new)

"""A buffer is reused once no array refers to it, and never before."""

from __future__ import annotations

import numpy as np

from shardtrain.arrays.buffers import BufferPool


def base_of(array: np.ndarray) -> int:
    return array.base.__array_interface__["data"][0]


def test_a_buffer_is_reused_once_its_views_are_gone():
    buffers = BufferPool()
    first = buffers.allocate(1000, np.int32)
    place = base_of(first)
    del first
    assert base_of(buffers.allocate(900, np.int32)) == place


def test_a_view_of_a_view_keeps_its_values():
    buffers = BufferPool()
    first = buffers.allocate(1000, np.int32)
    first[:] = 7
    kept = first.reshape(10, 100)[2:4].T
    exported = memoryview(first)
    del first
    for _ in range(100):
        buffers.allocate(1000, np.int32)[:] = 9
    assert (kept == 7).all()
    assert set(exported.tolist()) == {7}


def test_more_arrays_in_use_than_the_pool_holds_share_no_memory():
    buffers = BufferPool()
    kept = []
    for number in range(200):
        kept.append(buffers.allocate(50 + number, np.int64))
        kept[-1][:] = number
    assert all((array == number).all() for number, array in enumerate(kept))
    assert buffers._num_buffers < 100


def test_larger_buffers_replace_small_idle_ones():
    buffers = BufferPool()
    for size in range(1, 2000):
        buffers.allocate(size, np.uint8)
    assert buffers._num_buffers < 100
    place = base_of(buffers.allocate(1999, np.uint8))
    assert base_of(buffers.allocate(1999, np.uint8)) == place


def test_an_empty_array_can_be_allocated():
    assert len(BufferPool().allocate(0, np.float32)) == 0

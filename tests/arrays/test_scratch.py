"""Ranges of a scratch file that are read equal those that are mapped, and what the file lacks is reported."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardtrain.arrays.scratch import find_spilled, open_spilled, spill
from shardtrain.errors import ScratchError


@settings(deadline=None)
@given(st.lists(st.integers(0, 200), max_size=30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 9000))
def test_ranges_that_are_read_equal_those_that_are_mapped(tmp_path_factory, values, start, stop, size):
    path = tmp_path_factory.mktemp("scratch") / "file"
    arrays = {"bytes": np.array(values, np.uint8), "floats": np.array(values, np.float64) / 7}
    spill(path, arrays, {"fact": "x" * size})  # a header that is longer than what is read at first
    mapped, found = open_spilled(path), find_spilled(path)
    assert found.facts == mapped.facts
    assert ("bytes" in found, "others" in found) == (True, False)
    part = slice(min(start, len(values)), min(stop, len(values)))
    for parts in ({"bytes": None, "floats": part}, {"floats": None}):
        for read, expected in zip(found.read(**parts), mapped.read(**parts), strict=True):
            assert read.dtype == expected.dtype
            np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "link to a device"])
@pytest.mark.parametrize("read", [find_spilled, open_spilled])
def test_what_is_in_the_place_of_a_scratch_file_is_neither_waited_for_nor_followed(read, kind, tmp_path):
    path = tmp_path / "file"
    spill(tmp_path / "other", {"values": np.arange(1000)})
    {
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
        "link": lambda: path.symlink_to("other"),
        "link to a device": lambda: path.symlink_to("/dev/zero"),
    }[kind]()
    with pytest.raises(ScratchError, match="begins anew"):
        read(path)


@pytest.mark.parametrize("read", [find_spilled, open_spilled])
def test_a_scratch_file_in_the_place_of_another_is_reported(read, tmp_path):
    spill(tmp_path / "file", {"norms": np.arange(10)})
    with pytest.raises(ScratchError, match=r"file' cannot be read .*expected an array 'counts'.*begins anew"):
        read(tmp_path / "file").read(counts=None)


def test_a_scratch_file_that_ends_too_early_is_reported(tmp_path):
    path = tmp_path / "file"
    spill(path, {"values": np.arange(1000)})
    found = find_spilled(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ScratchError, match=r"file.*more bytes of 'values'.*begins anew"):
        found.read(values=slice(900, 1000))
    np.testing.assert_array_equal(found.read(values=slice(0, 3))[0], [0, 1, 2])
    path.write_bytes(b"not a header")
    with pytest.raises(ScratchError, match="begins anew"):
        find_spilled(path)
    path.unlink()
    with pytest.raises(ScratchError, match="begins anew"):
        find_spilled(path)

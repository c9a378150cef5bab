"""Ranges of a scratch file that are read equal those that are mapped, and what the file lacks is reported."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardtrain.arrays.scratch import Pieces, check_spilled, find_spilled, open_spilled, spill, spilling
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


@pytest.fixture(params=["at once", "piece by piece"])
def written(request, tmp_path):
    """A file of three arrays, and what is in it."""
    arrays = {
        "bytes": np.arange(5, dtype=np.uint8),
        "none": np.zeros(0, np.int64),
        "table": np.ones((3, 2), np.float32),
    }
    if request.param == "at once":
        whole = Pieces(np.dtype(np.uint8), (5,), [arrays["bytes"][:2], arrays["bytes"][2:]])
        spill(tmp_path / "file", {**arrays, "bytes": whole}, {"fact": "x"})
    else:
        most = {name: (array.dtype, (9, *array.shape[1:])) for name, array in arrays.items()}
        with spilling(tmp_path / "file", most, {"fact": "x"}) as writer:
            writer.append(bytes=arrays["bytes"][:2], table=arrays["table"][:1])
            writer.append(table=arrays["table"][1:], bytes=arrays["bytes"][2:])
    return tmp_path / "file", arrays


def test_a_flipped_bit_is_found_or_nothing_is_different(written):
    path, arrays = written
    check_spilled(path)
    content, header, found = path.read_bytes(), find_spilled(path).start, 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        try:
            check_spilled(path)
            spilled = open_spilled(path)
        except ScratchError:
            found += 1
        else:
            assert spilled.facts == {"fact": "x"}
            for name, array in arrays.items():
                np.testing.assert_array_equal(spilled[name], array)
    assert found == header + sum(array.nbytes for array in arrays.values())


def test_a_whole_file_in_the_place_of_another_one_is_reported(tmp_path):
    for job in ("one", "two"):
        for name in ("held/00000/1", "held/00000/2", "rows/00000/1"):
            path = tmp_path / job / "scratch" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            spill(path, {"values": np.arange(5)}, {"fact": 1})
    assert (tmp_path / "one/scratch/held/00000/1").read_bytes() == (tmp_path / "two/scratch/held/00000/1").read_bytes()
    for other in ("held/00000/2", "rows/00000/1"):
        content = (tmp_path / "one/scratch" / other).read_bytes()
        (tmp_path / "two/scratch/held/00000/1").write_bytes(content)
        for read in (check_spilled, open_spilled, find_spilled):
            with pytest.raises(ScratchError, match=f"what was written as '{other}'"):
                read(tmp_path / "two/scratch/held/00000/1")


def test_a_file_that_an_older_version_wrote_is_read_and_has_nothing_to_check(tmp_path):
    path, values = tmp_path / "file", np.arange(4, dtype=np.uint16)
    header = json.dumps({"arrays": {"values": ["<u2", [4], 0]}, "facts": {"fact": 1}})
    path.write_bytes(f"{128:>10}{header}".ljust(128).encode() + values.tobytes())
    check_spilled(path)
    assert find_spilled(path).facts == open_spilled(path).facts == {"fact": 1}
    np.testing.assert_array_equal(open_spilled(path)["values"], values)
    np.testing.assert_array_equal(find_spilled(path).read(values=None)[0], values)


def test_what_is_no_scratch_file_has_nothing_to_check(tmp_path):
    (tmp_path / "file").write_bytes(b"        12345678")
    check_spilled(tmp_path / "file")


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

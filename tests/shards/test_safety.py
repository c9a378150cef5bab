"""Each way in which an HDF5 dataset can be other than plain numbers in its own file is refused with its own message."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from support.hostile import HOSTILE, VALUES

from shardtrain.errors import CorruptShardError, ShardsError
from shardtrain.shards.safety import chunk_places, filter_names, open_dataset


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_not_plain_numbers_in_the_file_is_refused_with_its_own_message(case, tmp_path):
    make, reason = HOSTILE[case]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file, tmp_path)
    with h5py.File(tmp_path / "a.h5") as file, pytest.raises(ShardsError, match=reason) as failure:
        open_dataset(file, "g/x" if "on the way" in case else "x")
    assert str(tmp_path / "a.h5") in str(failure.value)


def patch(path: Path, old: int, new: int, behind: bytes) -> None:
    """Change an address, known by what stands behind it, in the file's own structures."""
    content, sought = path.read_bytes(), old.to_bytes(8, "little") + behind
    assert content.count(sought) == 1
    path.write_bytes(content.replace(sought, new.to_bytes(8, "little") + behind))


@pytest.mark.parametrize(
    ("chunks", "move", "reason"),
    [
        (None, lambda offsets, end: end - 100, "is damaged at '/x'"),  # libhdf5 notices this one itself
        ((10, 40), lambda offsets, end: end - 100, "is outside the file"),
        ((10, 40), lambda offsets, end: offsets[1] + 8, "pieces that overlap"),
    ],
    ids=["contiguous, behind the end", "a chunk behind the end", "a chunk over another"],
)
def test_values_that_are_not_where_the_file_says_are_refused(chunks, move, reason, tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        offsets = [place.offset for place in chunk_places(file.create_dataset("x", data=VALUES, chunks=chunks))]
    behind = VALUES.nbytes.to_bytes(8, "little") if chunks is None else b""
    patch(path, offsets[0], move(offsets, path.stat().st_size), behind)
    with h5py.File(path) as file, pytest.raises(CorruptShardError, match=reason):
        open_dataset(file, "x")


SAFE: dict[str, dict[str, object]] = {
    "contiguous": {},
    "chunked": {"chunks": (7, 11)},
    "gzip and shuffle": {"chunks": (7, 11), "compression": "gzip", "shuffle": True},
    "lzf and a checksum": {"chunks": (7, 11), "compression": "lzf", "fletcher32": True},
    "growing": {"chunks": (7, 40), "maxshape": (None, 40)},
}


@pytest.mark.parametrize("case", SAFE)
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "|u1", "<i8", "<f2"])
def test_plain_numbers_are_accepted_and_their_places_are_in_row_major_order(case, dtype, tmp_path):
    path: Path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("g/x", data=VALUES.astype(dtype), **SAFE[case])
        file["g/empty"] = np.zeros((0, 4))
    with h5py.File(path) as file:
        dataset = open_dataset(file, "/g/x/")
        places = chunk_places(dataset)
        if dataset.chunks is not None:
            rows, columns = dataset.chunks
            starts = [(row, column) for row in range(0, 100, rows) for column in range(0, 40, columns)]
            infos = [dataset.id.get_chunk_info_by_coord(start) for start in starts]
            assert [(place.offset, place.size) for place in places] == [(info.byte_offset, info.size) for info in infos]
        filters = {"gzip and shuffle": ("shuffle", "deflate"), "lzf and a checksum": ("lzf", "fletcher32")}
        assert filter_names(dataset) == filters.get(case, ())
        open_dataset(file, "g/empty")

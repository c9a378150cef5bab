"""In a large compressed folder the places of chunks are in lists, which are trusted no more than a manifest is."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
import xxhash
from support.comparing import assert_same_folder
from support.handmade import dense, make_rows, write_shards
from support.listed import lists_forced
from support.manifests import at, reseal

from shardtrain.errors import CorruptShardError, ManifestError, ShardsNotFoundError
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline.index import index
from shardtrain.pipeline.options import IndexOptions, RecompressOptions
from shardtrain.pipeline.recompress import recompress
from shardtrain.shards.verify import verify_shards

KINDS = ("ngram", "sequence", "dense")
ROWS, SIZES = 60_000, [40_000, 20_000]
LIST = "train-00000.h5.chunks"


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    for kind in KINDS:
        write_shards(folder / kind, make_rows(kind, ROWS), SIZES)
    return folder


@pytest.fixture(scope="module")
def listed(plain, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("listed")
    for kind in KINDS:
        with lists_forced():
            recompress(plain / kind, folder / kind, RecompressOptions(compress="lz4"))
    return folder


@pytest.fixture
def copy(listed, tmp_path) -> Path:
    return Path(shutil.copytree(listed / "dense", tmp_path / "copy"))


def body_of(folder: Path):
    return json.loads((folder / "manifest.json").read_bytes())


def faults_of(folder: Path) -> tuple[str, ...]:
    return verify_shards(folder, advance=lambda _: None, workers=2).faults


def places_of(packed: bytes, start: int, count: int) -> list[tuple[int, int]]:
    return list(struct.iter_unpack(">QQ", packed[16 * start : 16 * (start + count)]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_says_of_each_array_by_name_where_hdf5_put_its_chunks(kind, listed):
    body = body_of(listed / kind)
    assert (body["format_version"], body["requires"]) == (3, ["checksum-lists", "chunk-lists"])
    for shard in body["splits"]["train"]["shards"]:
        packed = (listed / kind / shard["chunk_list"]["file"]).read_bytes()
        assert shard["chunk_list"] == {
            "file": f"{shard['file']}.chunks",
            "bytes": len(packed),
            "checksum": xxhash.xxh3_64_hexdigest(packed),
        }
        start = 0
        with h5py.File(listed / kind / shard["file"]) as file:
            for name in sorted(shard["datasets"]):
                chunks = []
                file[name].id.chunk_iter(chunks.append)
                chunks.sort(key=lambda chunk: chunk.chunk_offset)
                assert set(shard["datasets"][name]["chunks"]) == {"shape", "filters", "start"}
                expected = [(chunk.byte_offset, chunk.size) for chunk in chunks]
                assert places_of(packed, start, len(chunks)) == expected
                start += len(chunks)
        assert start * 16 == len(packed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("io", ["map", "read"])
def test_rows_are_those_of_the_plain_shards(kind, io, plain, listed, tmp_path):
    for shuffle in ("none", "window", "global"):
        with open_shards(plain / kind) as theirs, open_shards(listed / kind, io=io) as ours:
            pairs = zip(*(each.train.batches(7_000, seed=2, shuffle=shuffle) for each in (ours, theirs)), strict=True)
            for (x, y), (expected_x, expected_y) in pairs:
                np.testing.assert_array_equal(dense(x), dense(expected_x))
                np.testing.assert_array_equal(y, expected_y)
    assert faults_of(listed / kind) == ()


def test_the_way_back_gives_the_folder_of_a_small_one(plain, listed, tmp_path):
    for codec in ("none", "lz4"):
        recompress(plain / "dense", tmp_path / f"{codec}-expected", RecompressOptions(compress=codec))
        recompress(listed / "dense", tmp_path / codec, RecompressOptions(compress=codec))
        assert_same_folder(tmp_path / codec, tmp_path / f"{codec}-expected")
    assert body_of(tmp_path / "lz4")["format_version"] == 2


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 4
    path.write_bytes(content)


SPOILED = {
    "missing": (Path.unlink, "is missing, but the manifest names it"),
    "too short": (lambda path: path.write_bytes(path.read_bytes()[:-16]), "is not what was written"),
    "too long": (lambda path: path.write_bytes(path.read_bytes() + bytes(16)), "is not what was written"),
    "with a flipped bit": (lambda path: flip(path, 7), "is damaged: its checksum is"),
}


@pytest.mark.parametrize("case", SPOILED)
@pytest.mark.parametrize("verify", [True, False])
def test_a_spoiled_list_is_named_with_its_shard_also_without_verification(case, verify, copy):
    spoil, reason = SPOILED[case]
    spoil(copy / LIST)
    with (
        pytest.raises((CorruptShardError, ShardsNotFoundError), match=reason) as failure,
        open_shards(copy, verify=verify) as shards,
    ):
        shards.train.rows(0, 10)
    assert f"'{copy / LIST}', the list of chunks of '{copy / 'train-00000.h5'}'" in str(failure.value)
    (fault,) = faults_of(copy)
    assert reason in fault


def rewritten(change):
    """Change the places of chunks in a list, and seal the list and the manifest anew, as an attacker would."""

    def spoil(copy: Path) -> None:
        content = bytearray((copy / LIST).read_bytes())
        change(content)
        (copy / LIST).write_bytes(content)
        checksum = xxhash.xxh3_64_hexdigest(bytes(content))
        reseal(copy, at("splits", "train", "shards", 0, "chunk_list", "checksum")(checksum))

    return spoil


def put(place: int, value: int):
    return lambda content: struct.pack_into(">Q", content, 8 * place, value)


IMPOSSIBLE = {
    "beyond the file": (put(0, 1 << 40), "is outside the file or overlaps"),
    "beyond all numbers": (put(0, (1 << 64) - 1), "a number in it is above"),
    "longer than the file": (put(1, 1 << 40), "is outside the file or overlaps"),
    "of a length that wraps around": (put(1, (1 << 64) - 8), "a number in it is above"),
    "of no bytes": (put(1, 0), "has no bytes"),
    "over another chunk": (lambda content: content.__setitem__(slice(0, 8), content[16:24]), "overlaps other bytes"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_places_that_cannot_be_true_are_refused_before_a_byte_is_read(case, copy):
    change, reason = IMPOSSIBLE[case]
    rewritten(change)(copy)
    for verify in (True, False):
        with open_shards(copy, verify=verify) as shards, pytest.raises(CorruptShardError, match=reason) as failure:
            shards.train.rows(0, 10)
        assert "cannot be true" in str(failure.value)
    (fault,) = faults_of(copy)
    assert reason in fault


def test_a_damaged_chunk_is_described_with_its_rows(copy):
    packed = (copy / LIST).read_bytes()
    offset, size = places_of(packed, 0, 1)[0]  # of 'document'
    flip(copy / "train-00000.h5", offset + size // 2)
    with open_shards(copy) as shards, pytest.raises(CorruptShardError, match=r"rows \[0, [\d,]+\) of 'document'"):
        shards.train.documents(0, 10)
    (copy / LIST).unlink()
    assert len(faults_of(copy)) == 2  # of the block, and of the list


def shard(*keys):
    return at("splits", "train", "shards", 0, *keys)


def with_places(body):
    body["splits"]["train"]["shards"][0]["datasets"]["y"]["chunks"]["offsets"] = [4096]


def without_list(body):
    del body["splits"]["train"]["shards"][0]["chunk_list"]


HOSTILE = {
    "an absolute path": (shard("chunk_list", "file")("/etc/passwd"), "reaches outside the folder"),
    "the shard": (shard("chunk_list", "file")("train-00000.h5"), "is named twice"),
    "its list of checksums": (shard("chunk_list", "file")("train-00000.h5.sums"), "is named twice"),
    "one chunk more": (shard("chunk_list", "bytes")(1600), "against 16 per chunk of 'train-00000.h5'"),
    "null": (shard("chunk_list")(None), "mapping"),
    "digits": (shard("chunk_list")("0" * 16), "mapping"),
    "places in both": (with_places, "and a list of chunks as well"),
    "places in none": (without_list, "the key 'offsets' is missing"),
    "not required": (at("requires")(["checksum-lists"]), "its content ['checksum-lists', 'chunk-lists']"),
    "an array of no chunk": (shard("datasets", "y", "chunks", "shape")([0]), "a chunk's size of 'y'"),
    "a filter that is unknown": (shard("datasets", "y", "chunks", "filters")(["rot13"]), "has the filters"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_an_impossible_list_is_refused(case, copy):
    change, reason = HOSTILE[case]
    reseal(copy, change)
    with pytest.raises(ManifestError, match="is not a valid manifest") as failure:
        open_shards(copy)
    assert reason in str(failure.value)


def test_a_list_in_a_folder_without_chunks_is_refused(plain, tmp_path):
    copy = Path(shutil.copytree(plain / "dense", tmp_path / "copy"))

    def change(body):
        shard("chunk_list")({"file": "a", "bytes": 16, "checksum": "0" * 16})(body)
        body.update(format_version=3, requires=["chunk-lists"])

    reseal(copy, change)
    with pytest.raises(ManifestError, match="against 16 per chunk"):
        open_shards(copy)


def test_chunks_of_an_external_file_are_in_the_list_of_the_shard(tmp_path):
    x = np.random.default_rng(1).normal(size=(5_000, 8)).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=x, chunks=(100, 3), compression="gzip")
        file["y"] = np.arange(len(x)) % 2
    options = IndexOptions(x="x", y="y", validation_fraction=0.1)
    index([tmp_path / "a.h5"], tmp_path / "small", options)
    with lists_forced():
        index([tmp_path / "a.h5"], tmp_path / "large", options)
    assert body_of(tmp_path / "large")["requires"] == ["checksum-lists", "chunk-lists"]
    assert faults_of(tmp_path / "large") == ()
    with open_shards(tmp_path / "small") as theirs, open_shards(tmp_path / "large") as ours:
        for name, split in theirs.splits.items():
            np.testing.assert_array_equal(
                ours.splits[name].rows(0, split.num_examples)[0], split.rows(0, split.num_examples)[0]
            )

"""Compressed shards give the batches of plain ones, bit for bit, and any HDF5 tool with the plugin reads them."""

from __future__ import annotations

import errno
import json
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import hdf5plugin  # an outsider's h5py with the plugins
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.comparing import assert_same_folder
from support.handmade import dense, make_rows, write_shards
from support.renames import KILLED_AT_RENAME
from support.sampled import sampled

from shardtrain.arrays.csr import Csr
from shardtrain.cli.main import main
from shardtrain.datasets.demo import write_demo
from shardtrain.errors import CorruptShardError, DiskFullError, MissingExtraError, ShardsExistError
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline import build as job
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions, RecompressOptions
from shardtrain.pipeline.recompress import recompress
from shardtrain.report.summary import summarize_shards
from shardtrain.report.terminal import render
from shardtrain.shards import codecs, packing
from shardtrain.shards.codecs import decode_chunk, encode_chunk
from shardtrain.shards.decoded_array import DECODED, ChunkCache
from shardtrain.shards.descriptor_file import DescriptorFile
from shardtrain.shards.layout import CODECS, MEASURED
from shardtrain.shards.manifest import read_manifest
from shardtrain.shards.safety import h5py_lock
from shardtrain.shards.verify import verify_shards

KINDS = ("ngram", "sequence", "dense")
LAWS = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.fixture(scope="module", params=KINDS)
def plain(request, tmp_path_factory) -> Path:
    """Shards of several chunks."""
    folder = tmp_path_factory.mktemp("plain") / request.param
    rows = make_rows(request.param, 90_000)
    write_shards(folder, rows, [60_000, 30_000])
    return folder


@pytest.fixture(scope="module")
def packed(plain, tmp_path_factory) -> dict[str, Path]:
    """The same in each codec."""
    folders = {codec: tmp_path_factory.mktemp("packed") / codec for codec in CODECS}
    for codec, folder in folders.items():
        recompress(plain, folder, RecompressOptions(compress=codec or "none"))
    return folders


def same(ours, theirs) -> bool:
    if isinstance(ours, Csr):
        return all(same(getattr(ours, name), getattr(theirs, name)) for name in ("data", "indices", "indptr"))
    return np.array_equal(ours, theirs)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("shuffle", ["none", "blocks", "window"])
def test_batches_are_those_of_the_plain_shards(plain, packed, codec, shuffle):
    with open_shards(plain) as theirs, open_shards(packed[codec]) as ours:
        pairs = zip(
            *(each.train.batches(1000, seed=2, epoch=1, shuffle=shuffle) for each in (ours, theirs)), strict=True
        )
        for (x, y), (expected_x, expected_y) in pairs:
            assert same(x, expected_x)
            assert same(y, expected_y)
            assert dense(x).dtype == dense(expected_x).dtype
        assert same(ours.train.documents(0, 90_000), theirs.train.documents(0, 90_000))


@pytest.mark.parametrize(
    "how", [{"shuffle": "global"}, {"shuffle": "window", "prefetch": 4, "as_int32": True}], ids=str
)
@pytest.mark.parametrize("io", ["map", "read"])
def test_every_way_of_reading_gives_the_same_batches(plain, packed, how, io):
    with open_shards(plain) as theirs, open_shards(packed["zstd"], io=io) as ours:
        pairs = zip(*(each.train.batches(1000, seed=3, **how) for each in (ours, theirs)), strict=True)
        for (x, y), (expected_x, expected_y) in pairs:
            assert same(x, expected_x)
            assert same(y, expected_y)
            assert dense(x).dtype == dense(expected_x).dtype


def test_exactly_the_rows_of_chunks_in_damaged_blocks_are_skipped_on_request(tmp_path, capsys):
    rows = make_rows("dense", 200_000)
    rows.x[:] = np.random.default_rng(1).normal(size=rows.x.shape)  # so that it fills several blocks
    write_shards(tmp_path / "plain", rows, [len(rows)])
    recompress(tmp_path / "plain", tmp_path / "packed", RecompressOptions(compress="lz4"))
    entry = read_manifest(tmp_path / "packed").splits["train"].shards[0]
    chunks, block = entry.datasets["x"].chunks, 1
    flip(tmp_path / "packed" / entry.file, block * entry.block_bytes + 1000)
    hit = [
        number
        for number, (offset, size) in enumerate(zip(chunks.offsets, chunks.sizes, strict=True))
        if offset < (block + 1) * entry.block_bytes and offset + size > block * entry.block_bytes
    ]
    left = np.ones(len(rows), np.bool_)
    for number in hit:
        left[number * chunks.shape[0] : (number + 1) * chunks.shape[0]] = False
    assert 1 < len(hit) < len(chunks.offsets)
    for shuffle in ("none", "window"):
        with open_shards(tmp_path / "packed", on_corrupt="skip") as shards:
            found = np.concatenate([x for x, _ in shards.train.batches(1000, shuffle=shuffle)])
        expected = rows.x[left]
        np.testing.assert_array_equal(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)])
    assert f"{len(rows) - int(left.sum()):,} damaged rows" in capsys.readouterr().err


@pytest.mark.parametrize("codec", CODECS)
def test_plain_h5py_with_the_plugins_reads_equal_values(plain, packed, codec):
    for number in (0, 1):
        name = f"train-{number:05}.h5"
        with h5py.File(plain / name) as theirs, h5py.File(packed[codec] / name) as ours:
            datasets = read_manifest(plain).splits["train"].shards[number].datasets
            for dataset in datasets:
                assert ours[dataset].dtype == theirs[dataset].dtype
                np.testing.assert_array_equal(ours[dataset][...], theirs[dataset][...])
                filters = ours[dataset].id.get_create_plist()
                numbers = [filters.get_filter(i)[0] for i in range(filters.get_nfilters())]
                assert numbers[-1] == {"zstd": 32015, "lz4": 32004, "blosc2": 32026}[codec]


@pytest.mark.parametrize("codec", CODECS)
def test_the_way_back_gives_the_plain_shards_in_every_byte(plain, packed, codec, tmp_path):
    recompress(packed[codec], tmp_path / "back", RecompressOptions(compress="none"))
    for name in ("train-00000.h5", "train-00001.h5"):
        assert (tmp_path / "back" / name).read_bytes() == (plain / name).read_bytes()
    assert read_manifest(tmp_path / "back").splits == read_manifest(plain).splits
    assert read_manifest(tmp_path / "back").version == read_manifest(plain).version


def test_from_one_codec_to_another_gives_what_the_direct_way_gives(packed, tmp_path):
    recompress(packed["lz4"], tmp_path / "zstd", RecompressOptions(compress="zstd"))
    assert_same_folder(tmp_path / "zstd", packed["zstd"])


def test_every_block_is_verified_and_the_report_names_the_codec(packed):
    for codec, folder in packed.items():
        assert verify_shards(folder, advance=lambda _: None).faults == ()
        report = summarize_shards(folder, num_rows=1)
        assert {shard.compression for split in report.splits for shard in split.shards} == {codec}
        assert f", {codec}:" in render(report)


def test_a_shard_without_a_non_zero_is_compressed_too(tmp_path):
    write_shards(tmp_path / "plain", make_rows("ngram", 10, empty=True), [10])
    recompress(tmp_path / "plain", tmp_path / "packed", RecompressOptions(compress="zstd"))
    with open_shards(tmp_path / "packed") as shards:
        assert not dense(shards.train.rows(0, 10)[0]).any()


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("codec", CODECS)
def test_a_damaged_chunk_is_named_with_the_rows_that_it_holds(packed, codec, tmp_path):
    copy = Path(shutil.copytree(packed[codec], tmp_path / "copy"))
    entry = read_manifest(copy).splits["train"].shards[0]
    name = "x/indptr" if "x/indptr" in entry.datasets else "x"
    chunks = entry.datasets[name].chunks
    flip(copy / entry.file, chunks.offsets[0] + chunks.sizes[0] // 2)
    with open_shards(copy) as shards, pytest.raises(CorruptShardError, match=rf"rows \[0, [\d,]+\) of '{name}'"):
        shards.train.rows(0, 10)
    assert len(verify_shards(copy, advance=lambda _: None).faults) == 1


@pytest.mark.parametrize("codec", CODECS)
def test_without_verification_a_chunk_that_cannot_be_decoded_is_named(packed, codec, tmp_path):
    copy = Path(shutil.copytree(packed[codec], tmp_path / "copy"))
    entry = read_manifest(copy).splits["train"].shards[0]
    chunks = entry.datasets["y"].chunks
    with open(copy / entry.file, "r+b") as file:
        file.seek(chunks.offsets[0])
        file.write(b"\xff" * chunks.sizes[0])
    with open_shards(copy, verify=False) as shards, pytest.raises(CorruptShardError, match="chunk 0 of 'y' at byte"):
        shards.train.labels()


@LAWS
@given(
    codec=st.sampled_from(CODECS),
    dtype=st.sampled_from(["|u1", "<u2", "<f4", "<i8"]),
    values=st.lists(st.integers(0, 255), min_size=1, max_size=300),
    noise=st.booleans(),
)
def test_what_is_encoded_is_decoded(codec, dtype, values, noise):
    array = np.array(values).astype(dtype)
    if noise:
        array = np.random.default_rng(1).integers(0, 256, array.nbytes, np.uint8).view(dtype)
    raw = encode_chunk(codec, array)
    assert raw == encode_chunk(codec, array)
    decoded = decode_chunk(raw, codecs.PIPELINES[codec], 0, array.itemsize, array.nbytes)
    assert decoded.tobytes() == array.tobytes()
    with pytest.raises(CorruptShardError):
        decode_chunk(raw, codecs.PIPELINES[codec], 0, array.itemsize, array.nbytes + 8)


VALUES = (np.arange(6000, dtype=np.int32) % 50 * 1000).reshape(600, 10)
FILTERS = {
    "gzip": {"compression": "gzip"},
    "shuffle and gzip": {"compression": "gzip", "shuffle": True},
    "lzf": {"compression": "lzf"},
    "shuffle, lzf and a checksum": {"compression": "lzf", "shuffle": True, "fletcher32": True},
    "a checksum": {"fletcher32": True},
    "zstd": dict(hdf5plugin.Zstd(clevel=5)),
    "lz4 in small blocks": dict(hdf5plugin.LZ4(nbytes=1024)),
    "blosc2": dict(hdf5plugin.Blosc2(cname="lz4", clevel=5)),
    "blosc2 without shuffling": dict(hdf5plugin.Blosc2(cname="zlib", clevel=1, filters=0)),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("noisy", [False, True], ids=["that shrink", "of noise"])
def test_chunks_that_libhdf5_wrote_are_decoded_to_the_values_it_reads(name, noisy, tmp_path):
    from shardtrain.shards.safety import chunk_places, filter_names, open_dataset

    values = np.random.default_rng(1).integers(-(1 << 31), 1 << 31, VALUES.shape, np.int32) if noisy else VALUES
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=(200, 10), **FILTERS[name])
    content = (tmp_path / "a.h5").read_bytes()
    with h5py.File(tmp_path / "a.h5") as file:
        dataset = open_dataset(file, "x")
        names = filter_names(dataset)
        for number, place in enumerate(chunk_places(dataset)):
            raw = content[place.offset : place.offset + place.size]
            found = decode_chunk(raw, names, place.mask, 4, 8000).view(np.int32).reshape(200, 10)
            np.testing.assert_array_equal(found, dataset[200 * number : 200 * (number + 1)])


@pytest.mark.parametrize("shape", [(200, 10), (33, 1), (70_000, 3)], ids=str)
@pytest.mark.parametrize("how", [{"fletcher32": True}, {"compression": "gzip"}], ids=["fletcher32", "gzip"])
def test_a_chunk_with_a_checksum_of_its_own_is_never_decoded_to_other_values(how, shape, tmp_path):
    """Nothing else tells of damage while somebody else's file is indexed."""
    from shardtrain.shards.safety import chunk_places, filter_names, open_dataset

    rng = np.random.default_rng(1)
    values = rng.integers(0, 256, shape, np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=values, chunks=shape, **how)
    with h5py.File(tmp_path / "a.h5") as file:
        dataset = open_dataset(file, "x")
        names, (place,) = filter_names(dataset), chunk_places(dataset)
    raw = (tmp_path / "a.h5").read_bytes()[place.offset : place.offset + place.size]
    np.testing.assert_array_equal(decode_chunk(raw, names, 0, 1, values.size), values.ravel())
    for bit in rng.integers(0, 8 * len(raw), 200).tolist():
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = decode_chunk(damaged, names, 0, 1, values.size)
        except CorruptShardError:
            continue
        assert how == {"compression": "gzip"}  # some bits of a header mean nothing
        np.testing.assert_array_equal(found, values.ravel())
    with pytest.raises(CorruptShardError):
        decode_chunk(raw[:-1], names, 0, 1, values.size)


@pytest.mark.parametrize("name", ["deflate", "lzf", "zstd", "lz4", "blosc2"])
def test_bytes_that_no_codec_wrote_are_refused(name):
    rng = np.random.default_rng(3)
    for size in (0, 1, 11, 12, 40, 300):
        for raw in (rng.integers(0, 256, size, np.uint8).tobytes(), b"\0" * size, b"\xff" * size):
            with pytest.raises(CorruptShardError):
                decode_chunk(raw, (name,), 0, 4, 1 << 12)


def test_a_chunk_that_would_grow_beyond_its_size_is_refused_before_it_does():
    bomb = np.zeros(1 << 26, np.uint8)
    for codec in CODECS:
        with pytest.raises(CorruptShardError):
            decode_chunk(encode_chunk(codec, bomb), codecs.PIPELINES[codec], 0, 1, 1 << 10)


def test_the_cache_holds_what_was_used_last_and_never_more_than_its_size():
    cache = ChunkCache(100)
    for number in range(10):
        cache.put((0, number), np.zeros(30, np.uint8))
        cache.get((0, 0))
        assert cache.bytes <= 100
    assert [number for number in range(10) if cache.get((0, number)) is not None] == [0, 8, 9]
    cache.put((1, 0), np.zeros(101, np.uint8))
    assert cache.bytes <= 100
    cache.forget(0)
    assert cache.bytes == 0


def test_decoded_chunks_go_with_their_shards(packed):
    before = DECODED.bytes
    shards = open_shards(packed["lz4"])
    shards.train.rows(0, 90_000)
    assert DECODED.bytes > before
    shards.close()
    del shards
    assert DECODED.bytes == before


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_that_is_not_installed_is_named_with_its_remedy(packed, codec, monkeypatch):
    monkeypatch.setitem(sys.modules, codecs.MODULES[codec], None)
    with open_shards(packed[codec]) as shards, pytest.raises(MissingExtraError, match=r"shardtrain\[compress\]"):
        shards.train.labels()


@pytest.mark.parametrize("calls", [1, 4])
def test_a_full_disk_is_an_ordinary_error_and_leaves_no_shard(plain, calls, tmp_path, monkeypatch):
    real, left = packing.reserve_space, [calls]

    def reserve(*arguments: int, **named: int) -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments, **named)

    monkeypatch.setattr(packing, "reserve_space", reserve)
    with pytest.raises(DiskFullError):
        recompress(plain, tmp_path / "out", RecompressOptions(compress="zstd"))
    assert not (tmp_path / "out").exists()


def test_libhdf5_writes_only_while_h5pys_lock_is_held(plain, tmp_path, monkeypatch):
    """It is not safe for threads, of which a build with little memory has several that compress."""
    lock, write, free = h5py_lock(), DescriptorFile.write, []

    def seen(file, content):
        with ThreadPoolExecutor(1) as other:
            free.append(other.submit(lambda: lock.acquire(blocking=False) and not lock.release()).result())
        return write(file, content)

    monkeypatch.setattr(DescriptorFile, "write", seen)
    recompress(plain, tmp_path / "out", RecompressOptions(compress="lz4"))
    chunks = sum(
        len(entry.chunks.offsets)
        for shard in read_manifest(tmp_path / "out").splits["train"].shards
        for entry in shard.datasets.values()
        if entry.chunks
    )
    assert len(free) > chunks > 5
    assert not any(free)


def test_shards_are_not_rewritten_over_themselves(plain):
    with pytest.raises(ShardsExistError, match="choose another out"):
        recompress(plain, plain, RecompressOptions(compress="zstd", overwrite=True))


# Builds.


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, documents=700, classes=3, seed=3)
    return folder


def options(**changed) -> BuildOptions:
    return BuildOptions(**{"rows_per_shard": 300, "max_features": 500, **changed})


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    """Units of 64 KiB, as the driver below has them."""
    monkeypatch.setattr(job, "UNIT_BYTES", 1 << 16)


@pytest.fixture(scope="module")
def built(demo, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built") / "zstd"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "UNIT_BYTES", 1 << 16)
        build(demo, out, options(compress="zstd", workers=1))
    return out


def test_a_compressed_build_is_the_plain_one_compressed(demo, built, tmp_path):
    build(demo, tmp_path / "plain", options(workers=1))
    recompress(tmp_path / "plain", tmp_path / "packed", RecompressOptions(compress="zstd"))
    assert_same_folder(built, tmp_path / "packed")


@pytest.mark.parametrize("memory_limit", sampled([256 << 20, 2 << 30], ids=["threads", "processes"]))
def test_any_number_of_workers_and_any_memory_give_the_same_bytes(memory_limit, demo, built, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "PARALLEL_BYTES", 0)
    build(demo, tmp_path / "out", options(compress="zstd", workers=2, memory_limit=memory_limit))
    assert json.loads((tmp_path / "out" / MEASURED).read_text())["workers"] == 2
    assert_same_folder(built, tmp_path / "out")


def test_what_is_appended_is_compressed_as_what_is_there(demo, built, tmp_path):
    copy = Path(shutil.copytree(built, tmp_path / "copy"))
    build(demo / "test.csv", copy, BuildOptions(append=True, validation_fraction=0.0))
    shards = read_manifest(copy).splits["train"].shards
    assert len(shards) == 4
    assert [packing.codec_of(shard) for shard in shards] == ["zstd"] * 4
    assert verify_shards(copy, advance=lambda _: None).faults == ()


# Kills itself at the moment of its Nth rename, before it (N below 0) or after it.
DRIVER = (
    KILLED_AT_RENAME
    + """
import sys
from pathlib import Path
from shardtrain.pipeline import build as job
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.pipeline.options import RecompressOptions
from shardtrain.pipeline.recompress import recompress

source, out, what, at = sys.argv[1:]
job.UNIT_BYTES = 1 << 16
renamed = killed_at_rename(int(at), out)
if what == "build":
    build(source, out, BuildOptions(compress="zstd", workers=1, rows_per_shard=300, max_features=500))
else:
    recompress(Path(source), Path(out), RecompressOptions(compress="lz4"))
print("renames", len(renamed))
"""
)


def start(tmp_path: Path, source: Path, out: Path, what: str, at: int = 0) -> tuple[int, str]:
    (tmp_path / "driver.py").write_text(DRIVER)
    command = [sys.executable, tmp_path / "driver.py", source, out, what, str(at)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize("at", sampled([-3, 9, -11], (1,)))
def test_recompressing_killed_at_a_commit_and_run_again_equals_uninterrupted(built, at, tmp_path):
    recompress(built, tmp_path / "whole", RecompressOptions(compress="lz4"))
    code, _ = start(tmp_path, built, tmp_path / "out", "recompress", at)
    assert code == -signal.SIGKILL
    assert not (tmp_path / "out" / "manifest.json").exists()
    recompress(built, tmp_path / "out", RecompressOptions(compress="lz4"))
    assert_same_folder(tmp_path / "out", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.heavy
def test_a_compressed_build_killed_while_it_places_and_resumed_equals_uninterrupted(demo, built, tmp_path):
    _, said = start(tmp_path, demo, tmp_path / "whole", "build")
    renames = int(said.split()[-1])
    for at in (renames * 6 // 10, -(renames * 8 // 10)):
        out = tmp_path / f"out{at}"
        assert start(tmp_path, demo, out, "build", at)[0] == -signal.SIGKILL
        build(demo, out, options(compress="zstd", workers=1))
        assert_same_folder(out, built)


def test_the_command_line_compresses_and_says_how_much_it_saves(built, tmp_path, capsys):
    assert main(["recompress", str(built), "--out", str(tmp_path / "out"), "--compress", "none"]) == 0
    assert "kB, before" in capsys.readouterr().out
    assert read_manifest(tmp_path / "out").version == 3  # the demo corpus has a test split
    assert main(["recompress", str(built), "--out", str(tmp_path / "out"), "--compress", "lz4"]) == 1
    assert "already holds shards" in capsys.readouterr().err

"""Files that are damaged, replaced, truncated or read in another way while batches come from them."""

from __future__ import annotations

import errno
import mmap
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from support.handmade import make_rows, write_shards
from support.hosts import mount_table
from support.sampled import sampled

from shardtrain.arrays.csr import Csr
from shardtrain.errors import CorruptShardError, ShardsError, UsageError
from shardtrain.loader.options import SHUFFLES
from shardtrain.loader.shards import open_shards
from shardtrain.runtime import system
from shardtrain.runtime.machine import memory_bytes
from shardtrain.shards.files import _MIN_DIRECT, ShardFile
from shardtrain.shards.layout import BLOCK_BYTES

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("ngram", "sequence")
SIZES = {"ngram": (90_000, 70_000), "sequence": (60_000, 50_000)}


@pytest.fixture(scope="module", params=KINDS)
def large(request, tmp_path_factory):
    """Two shards of several checksum blocks, and their rows; tests that damage it put it right."""
    folder = tmp_path_factory.mktemp("large")
    sizes = SIZES[request.param]
    rows = make_rows(request.param, sum(sizes))
    return folder, rows, write_shards(folder, rows, sizes)


def parts_of(x) -> list[np.ndarray]:
    return [x.data, x.indices, np.diff(x.indptr)] if isinstance(x, Csr) else [np.asarray(x)]


def flat(batches) -> list[np.ndarray]:
    """All rows of all batches: features and labels, one after the other."""
    found = [[*parts_of(x), y] for x, y in batches]
    return [np.concatenate(part) for part in zip(*found, strict=True)]


def assert_same(found, expected) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def flip(path: Path, offset: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0] ^ 1
        file.seek(offset)
        file.write(bytes([byte]))


# Ways of reading


@pytest.mark.parametrize(
    ("shuffle", "verify"),
    sampled(
        [*((shuffle, True) for shuffle in SHUFFLES), ("window", False)]
        + [(shuffle, False) for shuffle in SHUFFLES if shuffle != "window"],
        range(len(SHUFFLES) + 1),
    ),
)
def test_positioned_reads_and_mappings_with_and_without_a_thread_give_the_same_batches(large, shuffle, verify):
    folder, _, _ = large
    order = {"batch_size": 1000, "seed": 2, "epoch": 1, "shuffle": shuffle, "start_step": 3}
    with open_shards(folder, io="map") as shards:
        expected = flat(shards.train.batches(**order))
    for prefetch in (0, 1, 5, 1000):
        with open_shards(folder, io="read", verify=verify) as shards:
            assert not shards.train.shards[0].file.mapped
            assert_same(flat(shards.train.batches(**order, prefetch=prefetch)), expected)


def test_kept_batches_keep_their_values(large):
    folder, _, _ = large
    with open_shards(folder) as shards:
        kept = list(shards.train.batches(512, seed=1, shuffle="window", prefetch=8))
        copies = [
            [part.copy() for part in [*parts_of(x), y]] for x, y in shards.train.batches(512, seed=1, shuffle="window")
        ]
    for (x, y), copy in zip(kept, copies, strict=True):
        assert_same([*parts_of(x), y], copy)


def test_int32_is_the_same_in_another_type(large):
    folder, _, _ = large
    with open_shards(folder) as shards:
        for shuffle in SHUFFLES:
            plain = flat(shards.train.batches(700, shuffle=shuffle))
            batches = list(shards.train.batches(700, shuffle=shuffle, as_int32=True))
            assert {y.dtype for _, y in batches} == {np.dtype(np.int32)}
            assert isinstance(batches[0][0], Csr) or {x.dtype for x, _ in batches} == {np.dtype(np.int32)}
            assert_same(flat(batches), plain)


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_closing_a_loop_over_batches_leaves_no_thread(large, shuffle):
    folder, _, _ = large
    with open_shards(folder) as shards:
        running = iter(shards.train.batches(100, shuffle=shuffle))
        next(running)
        running.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "shardtrain-prefetch"]


def test_pages_are_given_back_and_read_again_where_data_is_larger_than_memory(large, monkeypatch):
    folder, _, _ = large
    with open_shards(folder) as shards:
        expected = flat(shards.train.batches(512, seed=1, shuffle="blocks"))
        monkeypatch.setattr(shards.train, "larger_than_memory", True)
        released = []
        monkeypatch.setattr(shards.train, "release", released.extend)
        for epoch in range(2):
            assert_same(flat(shards.train.batches(512, seed=1, epoch=0, shuffle="blocks")), expected)
            assert sum(stop - start for start, stop in released) == shards.train.num_examples
            released.clear()
            monkeypatch.undo() if epoch else None
        for shard in shards.train.shards:
            shard.release(0, shard.entry.rows)
        assert_same(flat(shards.train.batches(512, seed=1, shuffle="blocks")), expected)


def test_what_is_larger_than_memory_is_read_and_cannot_be_shuffled_globally(large, monkeypatch):
    folder, _, _ = large
    with open_shards(folder) as shards:
        expected = flat(shards.train.batches(512, shuffle="window"))
    monkeypatch.setattr("shardtrain.loader.shards.memory_bytes", lambda: 1 << 20)
    with open_shards(folder) as shards:
        assert not any(shard.file.mapped for shard in shards.train.shards)
        assert_same(flat(shards.train.batches(512, shuffle="window")), expected)
        with pytest.raises(UsageError, match="would hold all of 'train' in memory"):
            next(iter(shards.train.batches(512, shuffle="global")))
    with open_shards(folder, io="map") as shards:
        assert len(flat(shards.train.batches(512, shuffle="global"))[-1]) == shards.train.num_examples


@pytest.fixture
def direct_file(large, tmp_path) -> ShardFile:
    """A copy of a shard that is read past the page cache; it does not end on a page boundary."""
    folder, _, _ = large
    with open_shards(folder) as shards:
        entry = shards.train.shards[0].entry
    shutil.copy(folder / entry.file, tmp_path / "shard.h5")
    file = ShardFile(tmp_path / "shard.h5", entry, folder=tmp_path, verify=True, io="read", direct_io=True)
    if file._direct is None:
        pytest.skip("this file system reads everything through the page cache")
    return file


def bytes_from_disk() -> int:
    """Bytes that this process has had read from disks so far."""
    counts = Path("/proc/self/io")
    if not counts.exists():
        pytest.skip("this system does not count what a process reads from disks")
    return int(re.findall("^read_bytes: (.*)$", counts.read_text(), re.MULTILINE)[0])


@pytest.mark.parametrize("page", [1 << 12, 1 << 14, 1 << 16], ids=["x86-64", "Apple's", "some of aarch64"])
def test_any_range_can_be_read_past_the_page_cache_whatever_a_page_has(direct_file, page, monkeypatch):
    monkeypatch.setattr(mmap, "PAGESIZE", page)
    content, rng = direct_file.path.read_bytes(), random.Random(4)
    for _ in range(300):
        start = rng.randrange(len(content))
        stop = min(len(content), start + rng.choice([1, 4096, _MIN_DIRECT, 1 << 20]) + rng.randrange(5000))
        assert direct_file.bytes(start, stop).tobytes() == content[start:stop]
    assert direct_file.bytes(0, len(content)).tobytes() == content


def test_the_page_cache_is_bypassed(direct_file):
    size = direct_file.path.stat().st_size
    before = bytes_from_disk()
    assert os.preadv(direct_file._direct, [mmap.mmap(-1, mmap.PAGESIZE)], 0) == mmap.PAGESIZE
    if bytes_from_disk() == before:
        pytest.skip("this file system is in memory")
    direct_file.path.read_bytes()  # now it is in the page cache, where the copy was made or from here on
    before = bytes_from_disk()
    direct_file.bytes(0, size)
    assert bytes_from_disk() - before >= size


def test_where_the_page_cache_cannot_be_bypassed_files_are_read_through_it(direct_file, monkeypatch):
    content, real = direct_file.path.read_bytes(), os.preadv

    def refused(descriptor, buffers, offset):
        if descriptor == direct:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, buffers, offset)

    direct = direct_file._direct
    monkeypatch.setattr(os, "preadv", refused)
    assert direct_file.bytes(5, len(content) - 5).tobytes() == content[5:-5]
    monkeypatch.delattr(os, "O_DIRECT")
    other = ShardFile(
        direct_file.path, direct_file.entry, folder=direct_file.path.parent, verify=True, io="read", direct_io=True
    )
    assert other.bytes(5, len(content) - 5).tobytes() == content[5:-5]


@pytest.mark.parametrize("page", [1 << 12, 1 << 14, 1 << 16], ids=["x86-64", "Apple's", "some of aarch64"])
def test_released_pages_of_any_size_are_whole_pages_and_read_again(page, tmp_path, monkeypatch):
    write_shards(tmp_path, make_rows("sequence", 90_000), [90_000])
    monkeypatch.setattr(mmap, "PAGESIZE", page)
    with open_shards(tmp_path, io="map") as shards:
        (shard,) = shards.train.shards
        whole = shard.file.bytes(0, shard.entry.bytes)
        before = whole.tobytes()
        for start, stop in ((0, len(before)), (1, len(before) - 1), (page + 1, 40 * page - 1)):
            shard.file.release(start, min(stop, len(before)))
        assert whole.tobytes() == before


def test_memory_is_that_of_the_machine_or_of_a_control_group():
    assert 1 << 26 < memory_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("kind", "shared"), [("ext4", False), ("nfs4", True), ("fuse.sshfs", True), ("fuseblk", False)]
)
def test_network_file_systems_are_read_and_not_mapped(kind, shared, tmp_path, monkeypatch):
    write_shards(tmp_path, make_rows("sequence", 4), [4])
    monkeypatch.setattr(system, "MOUNTS", mount_table(tmp_path, kind))
    with open_shards(tmp_path) as shards:
        assert shards.train.shards[0].file.mapped is not shared


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"io": "mmap"}, "io is 'mmap'; choose one of auto, map, read"),
        ({"on_corrupt": "ignore"}, "on_corrupt is 'ignore'; choose one of fail, skip"),
        ({"on_corrupt": "skip", "verify": False}, "finds damage by checksums"),
    ],
)
def test_ways_of_reading_that_there_are_not_are_refused(options, reason, tmp_path):
    write_shards(tmp_path, make_rows("sequence", 4), [4])
    with pytest.raises(UsageError, match=reason):
        open_shards(tmp_path, **options)


# Damage that is left out


def lost_rows(rows, entry, start: int, block: int) -> np.ndarray:
    """Which rows of a shard, the first of which is row `start`, have a byte in a block of its file."""
    first, last = block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES
    mine = rows.between(start, start + entry.rows)

    def touched(name: str, begin: np.ndarray, end: np.ndarray) -> np.ndarray:
        where = entry.datasets[name]
        stride = where.bytes // where.shape[0]
        return (end > begin) & (where.offset + begin * stride < last) & (where.offset + end * stride > first)

    row = np.arange(entry.rows)
    found = touched("y", row, row + 1)
    if not isinstance(mine.x, Csr):
        return found | touched("x", row, row + 1)
    entries = (mine.x.indptr[:-1], mine.x.indptr[1:])
    return found | touched("x/data", *entries) | touched("x/indices", *entries) | touched("x/indptr", row, row + 2)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("large", "shuffle", "io"),
    sampled(
        [("ngram", "window", "read"), ("sequence", "window", "map")]
        + [("ngram", "window", "map"), ("sequence", "window", "read")]
        + [(kind, mode, io) for kind in KINDS for mode in SHUFFLES if mode != "window" for io in ("map", "read")],
        (0, 1),
    ),
    indirect=["large"],
)
def test_skipping_leaves_out_exactly_the_rows_in_damaged_blocks_and_no_others(large, shuffle, io, capsys):
    folder, rows, manifest = large
    entry = manifest.splits["train"].shards[1]
    start = manifest.splits["train"].shards[0].rows
    order = {"batch_size": 512, "seed": 3, "shuffle": shuffle}
    with open_shards(folder) as shards:
        whole = list(shards.train.batches(**order))
        plan = shards.train.batches(**order).plan
    visited = np.concatenate([visited_rows(window) for window in plan.windows()])
    offsets = [where.offset + where.bytes // 2 for name, where in entry.datasets.items() if name != "document"]
    for offset in offsets:
        lost = np.zeros(len(rows), np.bool_)
        lost[start:] = lost_rows(rows, entry, start, offset // BLOCK_BYTES)
        assert 0 < lost.sum() < len(rows) // 2
        flip(folder / entry.file, offset)
        try:
            with open_shards(folder, on_corrupt="skip", io=io) as shards:
                batches = shards.train.batches(**order)
                found = list(batches)
            with open_shards(folder, io=io) as shards, pytest.raises(CorruptShardError, match="is damaged"):
                list(shards.train.batches(**order))
        finally:
            flip(folder / entry.file, offset)
        assert batches.dropped == lost.sum()
        told = capsys.readouterr().err
        assert f"warning: shard '{folder / entry.file}' is damaged: bytes [" in told
        assert told.count("warning: ") == 1
        assert f"{lost.sum():,} damaged rows of 'train' were skipped in epoch 1" in told
        kept = [~lost[visited[position : position + 512]] for position in range(0, len(visited), 512)]
        expected = [row_subset(batch, good) for batch, good in zip(whole, kept, strict=True) if good.any()]
        assert [len(y) for _, y in found] == [len(y) for _, y in expected]
        assert_same(flat(found), flat(expected))


def visited_rows(window) -> np.ndarray:
    rows = np.concatenate([np.arange(*segment) for segment in window.segments])
    return rows if window.order is None else rows[window.order]


def row_subset(batch, good):
    x, y = batch
    rows = np.flatnonzero(good)
    return (x.take(rows) if isinstance(x, Csr) else x[rows]), y[rows]


def test_an_epoch_begun_later_goes_on_exactly_also_with_rows_left_out(large):
    folder, _, manifest = large
    entry = manifest.splits["train"].shards[0]
    offset = entry.datasets["y"].offset
    flip(folder / entry.file, offset)
    try:
        with open_shards(folder, on_corrupt="skip") as shards:
            order = {"seed": 1, "shuffle": "window"}
            whole = list(shards.train.batches(512, **order))
            assert_same(flat(shards.train.batches(512, start_step=9, **order)), flat(whole[9:]))
    finally:
        flip(folder / entry.file, offset)


def test_a_split_that_is_damaged_all_over_is_an_error_all_the_same(tmp_path):
    entry = write_shards(tmp_path, make_rows("ngram", 40), [40]).splits["train"].shards[0]
    flip(tmp_path / entry.file, 0)  # one block: HDF5's own head is part of it
    with open_shards(tmp_path, on_corrupt="skip") as shards:
        for shuffle in SHUFFLES:
            with pytest.raises(CorruptShardError, match="all 40 rows of 'train' are damaged"):
                list(shards.train.batches(7, shuffle=shuffle))


# Files that change


CHANGES = {
    "written to": (lambda path: os.utime(path, (1, 1)), "was written to while it was open"),
    "replaced": (lambda path: (shutil.copy2(path, f"{path}.new"), os.replace(f"{path}.new", path)), "was replaced by"),
    "truncated": (lambda path: os.truncate(path, path.stat().st_size - 1), "is truncated: the manifest says"),
    "grown": (lambda path: os.truncate(path, path.stat().st_size + 1), "is not the file that was written"),
    "removed": (Path.unlink, "cannot be read: No such file or directory"),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("verify", [True, False], ids=["verified", "not verified"])
def test_a_file_that_changed_since_it_was_opened_is_noticed_before_the_next_epoch(name, verify, tmp_path):
    change, reason = CHANGES[name]
    entry = write_shards(tmp_path, make_rows("sequence", 40), [40]).splits["train"].shards[0]
    with open_shards(tmp_path, verify=verify) as shards:
        assert len(list(shards.train.batches(8))) == 5
        change(tmp_path / entry.file)
        with pytest.raises(ShardsError, match=reason) as failure:
            list(shards.train.batches(8))
    assert str(tmp_path / entry.file) in str(failure.value)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems map the rest of a file in another way")
@pytest.mark.parametrize("where", sampled(["held by Python", "in a compiled gather"], (1,)))
def test_a_process_whose_mapped_file_is_truncated_says_so_and_ends_with_1(where, tmp_path):
    write_shards(tmp_path, make_rows("sequence", 100_000), [100_000])
    path = tmp_path / "train-00000.h5"
    touch = {
        "held by Python": "x.sum()",
        "in a compiled gather": "list(batches)",
    }[where]
    done = run_python(
        "import faulthandler, os, shardtrain\n"
        f"shards = shardtrain.open_shards({str(tmp_path)!r}, io='map', verify=False)\n"
        "x, y = shards.train.rows(0, 100_000)\n"
        "batches = iter(shards.train.batches(4096, shuffle='window', prefetch=2))\n"
        "next(batches)\n"
        f"os.truncate({str(path)!r}, 10_000)\n"
        f"{touch}\n"
        "print('survived')\n"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: shard '{path}' was truncated while it was mapped: it had ")
    assert "and now has 10,000" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems map the rest of a file in another way")
def test_another_bus_error_is_left_to_the_handler_before(tmp_path):
    write_shards(tmp_path, make_rows("sequence", 10), [10])
    (tmp_path / "other").write_bytes(b"\0" * 10_000)
    done = run_python(
        "import mmap, os, shardtrain\n"
        f"shards = shardtrain.open_shards({str(tmp_path)!r}, io='map')\n"
        f"file = open({str(tmp_path / 'other')!r}, 'rb')\n"
        "mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "os.truncate(file.name, 0)\n"
        "mapped[9000]\n"
    )
    assert done.returncode == -signal.SIGBUS
    assert "shard" not in done.stderr


# Row pointers that a reader must not follow


@pytest.mark.parametrize("pointers", [(0, 9, 3), (0, 2, 1 << 30), (-5, 2, 3)], ids=str)
@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_hostile_row_pointers_are_refused_without_verification(pointers, shuffle, tmp_path):
    entry = write_shards(tmp_path, make_rows("ngram", 40), [40]).splits["train"].shards[0]
    with open(tmp_path / entry.file, "r+b") as file:
        file.seek(entry.datasets["x/indptr"].offset + 4 * 10)
        file.write(np.array(pointers, "<i4").tobytes())
    with open_shards(tmp_path, verify=False) as shards, pytest.raises(CorruptShardError, match="row pointers"):
        list(shards.train.batches(8, shuffle=shuffle))

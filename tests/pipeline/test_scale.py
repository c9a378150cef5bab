"""What the driver of a build holds does not grow with the corpus, and nothing wraps where numbers pass 2**32."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.comparing import assert_same_folder

from shardtrain.arrays.file_set import FileSet
from shardtrain.arrays.scratch import open_spilled
from shardtrain.corpus.source import Source
from shardtrain.corpus.unit_table import UnitTable
from shardtrain.datasets.demo import write_demo
from shardtrain.loader.order import document_keys
from shardtrain.pipeline.facts import UnitFacts
from shardtrain.pipeline.placing import place_split
from shardtrain.pipeline.planning import plan_shards
from shardtrain.pipeline.row_files import rows_between, spill_rows
from shardtrain.pipeline.units import SplitSource, Units, UnitTask, gather
from shardtrain.runtime.executors import Serial
from shardtrain.runtime.passes import Passes
from shardtrain.shards.shard import Shard
from shardtrain.vectorize.buckets import Bucket
from shardtrain.vectorize.groups import Runs
from shardtrain.vectorize.merging import merge_bucket

BEYOND = (1 << 32) + 5


def many_units(number: int) -> Units:
    """Units of a source that nobody reads, 4 MiB each."""
    values = np.zeros((number, 8), np.int64)
    values[:, 0] = np.arange(number)
    values[:, 5] = values[:, 0] * 4000
    values[:, 6:] = 4000, 4 << 20
    return Units(SplitSource(source=object.__new__(Source), seed=1, threshold=0), UnitTable(values))


def facts_of(task: UnitTask) -> UnitFacts:
    """What a unit of 4,000 documents would report."""
    return UnitFacts(
        train={"a": 2500, "b": 1500},
        held_out={},
        num_bad_rows=0,
        bad_rows=(),
        num_replaced=0,
        num_terms=540_000,
        words={},
    )


def held_by_a_pass(number: int, scratch: Path) -> int:
    """Run a pass over units, twice, and return the peak of what the driver allocated for it beside their table."""
    units = many_units(number)
    files = FileSet(scratch / "run", number).made()
    tracemalloc.start()
    try:
        for _ in range(2):  # the second finds all on record
            gathered = gather(Passes(Serial(), scratch, 1 << 24), "counting", facts_of, units, name="run")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    totals = gathered.totals()
    assert totals.train == {"a": 2500 * number, "b": 1500 * number}
    assert totals.num_terms == 540_000 * number
    assert len({str(files[i]) for i in (0, 1, 999, 1000, number - 1)}) == 5
    return peak


@pytest.mark.parametrize("number", [3_000, pytest.param(250_000, marks=pytest.mark.slow)])
def test_what_a_pass_holds_is_some_bytes_per_unit(number: int, tmp_path: Path) -> None:
    assert held_by_a_pass(number, tmp_path) < (1 << 20) + 40 * number


# Sparse files, which take no room


def sparse(path: Path, arrays: dict[str, tuple[Any, int]], parts: dict[str, list[tuple[int, Sequence[int]]]]) -> Path:
    """Write a scratch file of long arrays that hold zeros but for some parts."""
    offset, entries = 0, {}
    for name, (dtype, length) in arrays.items():
        entries[name] = np.dtype(dtype).str, [length], offset
        offset += -(-length * np.dtype(dtype).itemsize // 64) * 64
    header = json.dumps({"arrays": entries, "facts": {"num_features": 9, "most_times": 1}}).encode()
    with open(path, "wb") as file:
        file.write(f"{4096:>10}".encode() + header.ljust(4086))
        try:
            file.truncate(4096 + offset)
        except OSError:
            pytest.skip("this file system has no sparse files of that length")
        for name, written in parts.items():
            for place, values in written:
                file.seek(4096 + entries[name][2] + place * np.dtype(arrays[name][0]).itemsize)
                file.write(np.array(values, arrays[name][0]).tobytes())
    return path


def test_rows_are_read_where_their_entries_begin_beyond_32_bits(tmp_path: Path) -> None:
    arrays = {"keys": (np.uint64, 3), "y": (np.int64, 3), "documents": (np.int64, 3), "indptr": (np.int64, 4)}
    entries = {"data": (np.float32, BEYOND + 3), "indices": (np.int32, BEYOND + 3)}
    path = sparse(
        tmp_path / "rows",
        {**arrays, **entries},
        {
            "keys": [(0, [10, 20, 30])],
            "y": [(0, [0, 1, 0])],
            "documents": [(0, [1, BEYOND, 1 << 41])],
            "indptr": [(0, [0, BEYOND, BEYOND + 1, BEYOND + 3])],
            "data": [(BEYOND, [1, 2, 3])],
            "indices": [(BEYOND, [4, 5, 6])],
        },
    )
    x, y, documents, keys = rows_between(path, 20, 1 << 64)
    assert (x.data.tolist(), x.indices.tolist(), x.indptr.tolist()) == ([1, 2, 3], [4, 5, 6], [0, 1, 3])
    assert (y.tolist(), documents.tolist(), keys.tolist()) == ([1, 0], [BEYOND, 1 << 41], [20, 30])
    passes = Passes(Serial(), tmp_path, 1 << 24)
    shards = plan_shards(passes, "train", [path], 3)  # of one row each, as the first has more entries than a shard
    assert [(shard.rows, shard.nonzeros) for shard in shards] == [(1, BEYOND), (1, 1), (1, 2)]


def test_a_group_is_merged_where_its_terms_begin_beyond_32_bits(tmp_path: Path) -> None:
    """Two buckets; of the second, which is read, each of two units has a term in common and one of its own."""
    high = 1 << 63
    terms = {"hashes": np.uint64, "checks": np.uint32, "counts": np.uint32, "first": np.uint32}
    path = sparse(
        tmp_path / "group",
        {**{name: (dtype, BEYOND + 4) for name, dtype in terms.items()}, "starts": (np.int64, 5)},
        {
            "hashes": [(BEYOND, [high + 1, high + 2, high + 1, high + 3])],
            "checks": [(BEYOND, [7, 7, 7, 7])],
            "counts": [(BEYOND, [(1 << 32) - 1, 1, (1 << 32) - 1, 2])],
            "first": [(BEYOND, [0, 1, 0, 1])],
            "starts": [(0, [0, 2, BEYOND, BEYOND + 2, BEYOND + 4])],
        },
    )
    runs = Runs([tmp_path / "a", tmp_path / "b"], [path], 1, 2)
    found = merge_bucket(runs, Bucket(1, 1), tmp_path / "bucket", min_count=1, budget=1 << 24)
    merged = open_spilled(tmp_path / "bucket")
    assert found == (3, 3)
    assert merged["counts"].tolist() == [2 * ((1 << 32) - 1), 1, 2]
    assert merged["first"].tolist() == [0, 1, 1 << 32 | 1]
    assert merged["term_counts"].tolist() == [2 * ((1 << 32) - 1), 1, 2 * ((1 << 32) - 1), 2]
    finer = merge_bucket(runs, Bucket(1 << 1, 2), tmp_path / "finer", min_count=1, budget=1 << 24)
    assert finer == (3, 3)


class Words:
    """Columns of n-gram rows."""

    kind, num_features, vocabulary_size = "ngram", 9, 9


def test_ordinals_beyond_32_bits_reach_the_shards_in_the_order_of_their_keys(tmp_path: Path) -> None:
    from shardtrain.arrays.csr import Csr

    files, ordinals = [], np.arange(40) * 987_654_321_987 + BEYOND
    (tmp_path / "ready").mkdir()
    for number, part in enumerate(np.array_split(ordinals, 3)):
        x = Csr(np.ones(len(part), np.float32), np.zeros(len(part), np.int32), np.arange(len(part) + 1), (len(part), 9))
        files.append(tmp_path / f"rows-{number}")
        spill_rows(files[-1], x, np.zeros(len(part), np.int64), part, document_keys(part, 3))
    passes = Passes(Serial(), tmp_path, 1 << 24)
    how = {"first_number": 0, "rows_per_shard": 15, "codec": None}
    split = place_split(passes, "train", files, Words(), 1, tmp_path / "ready", **how)
    read = [Shard(tmp_path / "ready", entry, 9, verify=True).documents(0, entry.rows) for entry in split.shards]
    assert [len(part) for part in read] == [15, 15, 10]
    assert np.concatenate(read).tolist() == ordinals[np.argsort(document_keys(ordinals, 3))].tolist()


def test_no_two_documents_of_a_source_have_one_key() -> None:
    """Keys are a bijection of ordinals, so no shard's edge can fall between two rows with one key."""
    rng = np.random.default_rng(2)
    ordinals = np.unique(rng.integers(0, 1 << 63, 200_000, dtype=np.int64))
    assert len(np.unique(document_keys(ordinals, 7))) == len(ordinals)


# Thousands of units and buckets for real


CODE = """
import resource, sys, tracemalloc
from shardtrain.pipeline import build as building, counting, naming, selecting
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime import passes
from shardtrain.vectorize import groups
if __name__ == "__main__":
    corpus, out, kind, size, bits, files = sys.argv[1:]
    import h5py  # what is imported late opens files too
    building.UNIT_BYTES = int(size)
    groups.MOST_FILES = 16  # also few units are in groups, since what each way compiles takes memory
    passes.Workers.task_budget = lambda workers, limit: 1 << 20
    naming.FEATURE_BYTES, naming.NAME_BYTES = 1, 0  # so little has no room for names, which is not the question
    tied, settle, settled = {}, selecting.settle, []
    if int(bits):
        counting.plan_buckets = lambda *_, **__: int(bits)
        selecting.TIE_BYTES = 1 << 40  # ties are settled unit by unit
        selecting.settle = lambda *given, **how: (settled.append(1), settle(*given, **how))[1]
        tied = {"select": "none", "max_features": 1000} if kind == "ngram" else {}
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(files), int(files)))
    tracemalloc.start()
    build(corpus, out, BuildOptions(vectorizer=kind, workers=1, rows_per_shard=900, **tied))
    assert bool(settled) == bool(tied)
    print(tracemalloc.get_traced_memory()[1])
"""


def peak_of(corpus: Path, out: Path, kind: str, *, units: int, bits: int = 0, files: int) -> int:
    """Build with so many units and open files; return the peak of memory.

    If `bits` is given, there are 2 ** `bits` buckets, and n-grams with the same count that are tied in most of them.
    """
    size = (corpus / "train.csv").stat().st_size // units
    command = [sys.executable, "-c", CODE, *map(str, (corpus, out, kind, size, bits, files))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ngram", "sequence"])
def test_more_than_5_000_units_take_no_more_memory_or_files_than_few(kind: str, tmp_path: Path) -> None:
    write_demo(tmp_path / "demo", documents=13_000, classes=3, seed=5)
    few = peak_of(tmp_path / "demo", tmp_path / "few", kind, units=60, files=400)
    many = peak_of(tmp_path / "demo", tmp_path / "many", kind, units=5_200, files=400)  # those of a group, and others
    assert_same_folder(tmp_path / "many", tmp_path / "few")
    assert many < few + (8 << 20)  # Python's table of interned names, of which paths have many, doubles once


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ngram", "sequence"])
def test_there_may_be_more_buckets_than_open_files(kind: str, tmp_path: Path) -> None:
    write_demo(tmp_path / "demo", documents=600, classes=3, seed=5)
    peak_of(tmp_path / "demo", tmp_path / "few", kind, units=6, bits=1, files=128)
    peak_of(tmp_path / "demo", tmp_path / "many", kind, units=6, bits=10, files=640)
    assert_same_folder(tmp_path / "many", tmp_path / "few")

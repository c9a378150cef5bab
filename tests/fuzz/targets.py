"""Readers of untrusted bytes, as functions that a fuzzer calls: whatever they raise that is no error of ours is a find.

A target is made for a folder on which it works and gets the bytes of one input. Files that have a seal get one that
fits, so that what is behind the comparison of checksums is reached.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from support import resealing

from shardtrain.arrays.scratch import open_spilled
from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.options import CorpusOptions
from shardtrain.corpus.readers import plan_units, read_unit
from shardtrain.errors import ShardtrainError
from shardtrain.pipeline.build_record import read_build_record
from shardtrain.pipeline.workspace import folder_of
from shardtrain.runtime.jobs import JobFolder
from shardtrain.runtime.progress import QUIET, verbosity
from shardtrain.runtime.records import Records
from shardtrain.runtime.schema import ANYTHING
from shardtrain.shards.hdf5 import locate, open_shard_file
from shardtrain.shards.manifest import read_manifest
from shardtrain.shards.safety import open_dataset
from shardtrain.tables.arrays import open_npy, open_npz
from shardtrain.tables.hdf5 import find_matrix, label_blocks, open_file
from shardtrain.training.checkpoint import read_checkpoint
from shardtrain.training.run_folder import RunFolder
from shardtrain.vectorize.fitted import load_vectorizer

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FILES = ("vectorizer.json", "terms.json", "hashes.npy", "counts.npy", "columns.npy", "scores.npy")

Target = Callable[[bytes], None]


def records(folder: Path) -> Target:
    """Fields of CSV, TSV and fastText, lines, and their labels; the first byte chooses the format."""
    return _corpus(folder, ("csv", "tsv", "ft.txt", "txt"))


def json_records(folder: Path) -> Target:
    """JSON Lines, and arrays of objects."""
    return _corpus(folder, ("jsonl", "json"))


def _corpus(folder: Path, suffixes: tuple[str, ...]) -> Target:
    (folder / "scratch").mkdir()

    def read(content: bytes) -> None:
        suffix = suffixes[content[0] % len(suffixes)] if content else suffixes[0]
        path = folder / f"train.{suffix}"
        path.write_bytes(content[1:])
        corpus = open_corpus(path, CorpusOptions(on_bad_row="skip"), scratch=folder / "scratch")
        for unit in plan_units(corpus.train, unit_bytes=100, advance=lambda num_bytes: None):
            documents = read_unit(corpus.train, unit)
            assert len(list(documents.texts)) == len(documents.labels) == len(documents.ordinals)

    return read


def npy(folder: Path) -> Target:
    """A .npy file of features."""
    np.save(folder / "y.npy", np.arange(3))

    def read(content: bytes) -> None:
        (folder / "x.npy").write_bytes(content)
        table = open_npy(folder / "x.npy", (str(folder / "y.npy"),), "auto")
        for start, stop in table.pieces()[:3]:
            list(table.blocks(start, stop))

    return read


def npz(folder: Path) -> Target:
    """An archive of arrays."""

    def read(content: bytes) -> None:
        (folder / "x.npz").write_bytes(content)
        table = open_npz(folder / "x.npz", None, "y", "auto", folder)
        for start, stop in table.pieces()[:3]:
            list(table.blocks(start, stop))

    return read


def scratch(folder: Path) -> Target:
    """A scratch file of arrays."""

    def read(content: bytes) -> None:
        (folder / "spilled").write_bytes(content)
        arrays = open_spilled(folder / "spilled")
        for name in arrays.entries:
            arrays[name].sum()

    return read


def manifest(folder: Path) -> Target:
    """A manifest, sealed."""

    def read(content: bytes) -> None:
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            (folder / "manifest.json").write_bytes(content)
        else:
            _quietly(resealing.write_manifest, folder / "manifest.json", body)
        read_manifest(folder)

    return read


def vectorizer(folder: Path) -> Target:
    """A file of a vectorizer, sealed; the first byte chooses which."""
    shutil.copytree(GOLDEN / "v3-ngram" / "vectorizer", folder / "original")

    def read(content: bytes) -> None:
        name = FILES[content[0] % len(FILES)] if content else FILES[0]
        shutil.rmtree(folder / "copy", ignore_errors=True)
        shutil.copytree(folder / "original", folder / "copy")
        path = folder / "copy" / name
        if name == "vectorizer.json":
            try:
                description = json.loads(content[1:])
            except (ValueError, RecursionError):
                path.write_bytes(content[1:])
            else:
                _quietly(resealing.write_description, path, description)
        else:
            resealing.write_bytes_of_vectorizer(path, content[1:])
        load_vectorizer(folder / "copy").transform(["one text", "bright planet star", ""])

    return read


def checkpoint(folder: Path) -> Target:
    """A checkpoint, sealed."""

    def read(content: bytes) -> None:
        digits = xxhash.xxh3_64_hexdigest(content).encode()
        (folder / "checkpoint").write_bytes(content + digits)
        read_checkpoint(folder / "checkpoint")

    return read


def hdf5(folder: Path) -> Target:
    """A shard as libhdf5 sees it: links, types, layouts, filters and places."""

    def read(content: bytes) -> None:
        (folder / "x.h5").write_bytes(content)
        for name in ("x", "x/data", "x/indptr", "y", "document"):
            with contextlib.suppress(ShardtrainError), open_shard_file(folder / "x.h5") as file:
                locate(open_dataset(file, name))
        with open_file(folder / "x.h5") as file:
            matrix = find_matrix(file, "x")
            list(label_blocks(file, "y", matrix.rows))

    return read


def json_files(folder: Path) -> Target:
    """The records of jobs, runs, builds and tasks; the first byte chooses which."""
    jobs: JobFolder = folder_of(folder)
    jobs.path.mkdir()

    readers: tuple[tuple[str, Callable[[Path], Any]], ...] = (
        ("config.json", lambda path: RunFolder(folder).read()),
        ("metrics.json", lambda path: RunFolder(folder).read()),
        ("build.json", lambda path: read_build_record(folder)),
        (".building/job.json", lambda path: jobs.recorded()),
        ("task.records", lambda path: list(Records(path, ANYTHING).read())),  # a damaged line counts as none
    )
    (folder / "config.json").write_text("{}")
    (folder / "metrics.json").write_text("{}")

    def read(content: bytes) -> None:
        name, use = readers[content[0] % len(readers) if content else 0]
        (folder / name).write_bytes(content[1:])
        use(folder / name)

    return read


def _quietly(write: Callable[[Path, Any], None], path: Path, value: Any) -> None:
    with contextlib.suppress(RecursionError, UnicodeEncodeError, ValueError):
        write(path, value)


TARGETS = {
    each.__name__: each
    for each in (records, json_records, npy, npz, scratch, manifest, vectorizer, checkpoint, hdf5, json_files)
}


def safe(target: Target) -> Target:
    """Return a target that swallows errors of ours, whose messages must be one line."""

    def run(content: bytes) -> None:
        with verbosity(QUIET), np.errstate(all="ignore"):
            try:
                target(content)
            except ShardtrainError as error:
                said = error.on_command_line
                assert "\n" not in said, said
                assert len(said) < 2000, said[:2000]

    return run

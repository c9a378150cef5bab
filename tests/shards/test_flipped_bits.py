"""One bit that flipped anywhere: in values, in HDF5's own structures, in the manifest, in the vectorizer, in a source.

Each flip is found by `verify`, and stops whoever uses what it is in. Where something is used all the same, it equals
what was written, which proves that the bit is outside anything used.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from shardtrain.arrays.csr import Csr
from shardtrain.datasets.demo import write_demo
from shardtrain.errors import CorruptShardError, ManifestError, VectorizerError
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline.build import build
from shardtrain.pipeline.index import index
from shardtrain.pipeline.options import BuildOptions, IndexOptions, RecompressOptions
from shardtrain.pipeline.recompress import recompress
from shardtrain.shards.layout import MANIFEST, VECTORIZER
from shardtrain.shards.manifest import read_manifest
from shardtrain.shards.verify import verify_shards
from shardtrain.vectorize.fitted import load_vectorizer

Place = tuple[Path, int, int]  # a file and a half-open range of its bytes


@dataclass(frozen=True)
class Folder:
    """Finished shards, and the byte ranges of each part of what is on the disk."""

    path: Path
    parts: dict[str, list[Place]]


def parts_of(folder: Path) -> dict[str, list[Place]]:
    """Values and the rest of each shard, the manifest, and the vectorizer or the sources."""
    manifest = read_manifest(folder)
    values: list[Place] = []
    structures: list[Place] = []
    for shard in [shard for split in manifest.splits.values() for shard in split.shards]:
        path, end = folder / shard.file, 0
        pieces = [
            piece
            for entry in shard.datasets.values()
            if entry.source is None
            for piece in (
                zip(entry.chunks.offsets, entry.chunks.sizes, strict=True)
                if entry.chunks
                else [(entry.offset, entry.bytes)]
            )
        ]
        for offset, size in sorted(pieces):
            values.append((path, offset, offset + size))
            structures.append((path, end, offset))
            end = offset + size
        structures.append((path, end, shard.bytes))
    files = [folder / name for name in manifest.files] or [Path(name) for name in manifest.sources]
    return {
        "values": [place for place in values if place[1] < place[2]],
        "HDF5's structures": [place for place in structures if place[1] < place[2]],
        "the manifest": [(folder / MANIFEST, 0, (folder / MANIFEST).stat().st_size)],
        "the vectorizer" if manifest.files else "sources": [(path, 0, path.stat().st_size) for path in files],
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_demo(folder, documents=600, classes=3, seed=1)
    return folder


def make_ngrams(folder: Path, corpus: Path) -> None:
    build(corpus, folder, BuildOptions(workers=1, max_features=500))


def make_sequences(folder: Path, corpus: Path) -> None:
    build(corpus, folder, BuildOptions(workers=1, vectorizer="sequence", max_features=500, max_length=40))


def make_compressed(folder: Path, corpus: Path) -> None:
    make_ngrams(folder.with_name("plain"), corpus)
    recompress(folder.with_name("plain"), folder, RecompressOptions(compress="zstd"))


def make_indexed(folder: Path, corpus: Path) -> None:
    rng = np.random.default_rng(1)
    path = folder.with_name("table.h5")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=rng.normal(size=(500, 20)), chunks=(64, 20), compression="gzip")
        file["y"] = np.arange(500) % 3
    index([path], folder, IndexOptions(x="x", y="y"))


MAKERS: dict[str, Callable[[Path, Path], None]] = {
    "n-grams": make_ngrams,
    "sequences": make_sequences,
    "compressed": make_compressed,
    "indexed": make_indexed,
}


@pytest.fixture(scope="module", params=MAKERS)
def folder(request, corpus, tmp_path_factory) -> Folder:
    path = tmp_path_factory.mktemp(request.param) / "shards"
    MAKERS[request.param](path, corpus)
    return Folder(path, parts_of(path))


def everything_used(folder: Path, texts: list[str]) -> list[bytes]:
    """All that a training and a prediction take from a folder: batches of both splits, and features of some texts."""
    used: list[np.ndarray] = []
    with open_shards(folder) as shards:
        for split in shards.splits.values():
            for x, y in split.batches(128, seed=1, shuffle="window", prefetch=0):
                used += [*arrays_of(x), y]
        if shards.manifest.files:
            used += arrays_of(load_vectorizer(folder / VECTORIZER).transform(texts))
    return [array.tobytes() for array in used]


def arrays_of(x: Csr | np.ndarray) -> list[np.ndarray]:
    return [x.data, x.indices, x.indptr] if isinstance(x, Csr) else [x]


def flip(place: tuple[Path, int], bit: int) -> None:
    """Flip a bit as a disk does: the file's times stay."""
    path, offset = place
    times = path.stat()
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(
    "flips", [6, pytest.param(500, marks=pytest.mark.slow)], ids=["two dozen flips", "two thousand flips"]
)
def test_a_flipped_bit_is_detected_or_provably_outside_anything_used(folder, corpus, flips):
    with open(corpus / "train.csv", newline="") as file:
        texts = [" ".join(row[1:]) for row in list(csv.reader(file))[:5]]
    expected = everything_used(folder.path, texts)
    rng = np.random.default_rng(4)
    detected = 0
    for part, places in folder.parts.items():
        for _ in range(flips):
            path, start, stop = places[rng.integers(len(places))]
            offset, bit = int(rng.integers(start, stop)), int(rng.integers(8))
            flip((path, offset), bit)
            try:
                where = f"{part}: bit {bit} of byte {offset} of {path}"
                assert_verify_names(folder.path, path, where)
                try:
                    assert everything_used(folder.path, texts) == expected, where
                except (CorruptShardError, ManifestError, VectorizerError):
                    detected += 1
            finally:
                flip((path, offset), bit)
    assert detected > flips * len(folder.parts) // 2
    assert everything_used(folder.path, texts) == expected


def assert_verify_names(folder: Path, path: Path, where: str) -> None:
    """`verify` finds one fault, in the damaged file."""
    if path.name == MANIFEST:
        with pytest.raises(ManifestError, match=MANIFEST):
            verify_shards(folder, advance=lambda _: None, workers=1)
        return
    (fault,) = verify_shards(folder, advance=lambda _: None, workers=1).faults
    assert f"'{path}'" in fault, where

"""The on-disk contract, and the only place that spells an HDF5 path: names, types, limits, and what a manifest says.

A folder of shards is a set of ordinary HDF5 files and `manifest.json`, written last, which says where in each file
every array lies. Reading needs the manifest alone: libhdf5 never parses a file on the read path. The price is
that shards are write-once. docs/format.md specifies all of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

FORMAT = "shardtrain"
VERSION = 2  # the latest; a manifest is written in the oldest that can say what it says
MANIFEST = "manifest.json"
VECTORIZER = "vectorizer"  # folder of the fitted vectorizer, beside the shards
KINDS = {1: ("ngram", "sequence"), 2: ("ngram", "sequence", "dense")}  # by version
SPLITS = ("train", "validation")

X = "x"  # (rows, num_features) token ids or dense features; n-grams: the group of the three arrays below
DATA, INDICES, INDPTR = "x/data", "x/indices", "x/indptr"
Y = "y"
DOCUMENT = "document"
CSR_ATTRIBUTES = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0"}  # as AnnData reads them

ALIGNMENT = 4096  # bytes; every chunk begins on a page
CHUNK_BYTES = 1 << 20  # about this many bytes a chunk
PACKED_CHUNK_BYTES = 1 << 18  # of values in a compressed chunk: a block of rows then needs few bytes besides its own
MAX_BYTES = (1 << 63) - 1  # what a file offset can be
MAX_FEATURES = (1 << 31) - 1  # column indices are int32
MAX_VOCABULARY = 1 << 32  # token ids are 32 bits at most
MAX_CLASSES = 1 << 16  # labels are 16 bits at most
BLOCK_BYTES = 1 << 17  # a checksum for each block of so many bytes of the file; rows that lie in one are read with it
DATASETS = {"ngram": {DATA, INDICES, INDPTR, Y, DOCUMENT}, "sequence": {X, Y, DOCUMENT}, "dense": {X, Y, DOCUMENT}}
DTYPES = {
    DATA: {"<f4"},
    INDICES: {"<i4"},
    INDPTR: {"<i4"},
    X: {"|u1", "<u2", "<u4"},
    Y: {"|u1", "<u2"},
    DOCUMENT: {"<i8"},
}
FEATURE_DTYPES = {"dense": {"<f4"}}  # of `x` where it is not token ids
CODECS = ("zstd", "lz4", "blosc2")  # filters that shards can be written with
FILTERS = ("deflate", "shuffle", "fletcher32", "lzf", "lz4", "zstd", "blosc2")  # those of HDF5 that are decoded


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """An array in pieces that are decoded or lie apart.

    Attributes:
        shape: of every chunk, in elements; the last ones of an axis are padded.
        filters: names in `FILTERS`, in the order in which a writer applies them.
        offsets: where each chunk begins in the file, in bytes, in row-major order of the chunks.
        sizes: how many bytes each takes there.
        masks: of each chunk, bit i: filter i was left out; empty where none ever was.
        start: rows of the first chunk that come before the array's first.
    """

    shape: tuple[int, ...]
    filters: tuple[str, ...]
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    masks: tuple[int, ...] = ()
    start: int = 0


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """Where one array lies in its file.

    Attributes:
        dtype: of the values in the file.
        shape: of the array.
        offset: of the values, in bytes, where they lie in one piece; else 0.
        bytes: of the values, decoded.
        chunks: where the pieces lie, if it is not one.
        source: path of the file, one of the manifest's `sources`; None: the shard itself.
        converted: type that a reader gives the values of a source; None: `dtype`.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int
    chunks: Chunks | None = None
    source: str | None = None
    converted: str | None = None


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One HDF5 file; `checksums` holds 16 hex digits (XXH3, 64 bits) for each block of `block_bytes` of the file."""

    file: str
    rows: int
    bytes: int
    datasets: dict[str, DatasetEntry]
    block_bytes: int
    checksums: str


@dataclass(frozen=True, kw_only=True)
class SplitEntry:
    """The shards of one split, in row order, and what they hold together."""

    examples: int
    nonzeros: int
    class_counts: tuple[int, ...]
    shards: tuple[ShardEntry, ...]


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file beside the shards and the XXH3 checksum (64 bits, hex) of its bytes."""

    bytes: int
    checksum: str


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """A file of somebody else's whose arrays are used where they are: what it was like when it was indexed."""

    bytes: int
    mtime_ns: int
    inode: int
    block_bytes: int
    checksums: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about a folder of shards that is not in the arrays.

    `vectorizer` describes the settings of the fitted vectorizer in `files`; `fingerprint` is its identity; `build`
    records how the shards were made and is informative only. `sources` has, by absolute path, the files outside the
    folder that arrays lie in.
    """

    kind: str
    num_features: int
    vocabulary_size: int
    class_names: tuple[str, ...]
    seed: int
    fingerprint: str
    splits: dict[str, SplitEntry]
    files: dict[str, FileEntry]
    vectorizer: dict[str, Any]
    build: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, SourceEntry] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """The oldest version of the format that can say this."""
        entries = (e for split in self.splits.values() for shard in split.shards for e in shard.datasets.values())
        plain = self.kind in KINDS[1] and not self.sources
        return 1 if plain and all(entry.chunks is None for entry in entries) else 2


def rows_in(entry: DatasetEntry, start: int, stop: int) -> tuple[int, int]:
    """The elements [first, last) along an array's first axis that bytes [start, stop) of its file hold parts of."""
    if entry.chunks is None:
        begin, end = max(start, entry.offset), min(stop, entry.offset + entry.bytes)
        stride = entry.bytes // entry.shape[0] if entry.bytes else 1
        return ((begin - entry.offset) // stride, -(-(end - entry.offset) // stride)) if begin < end else (0, 0)
    chunks = entry.chunks
    places = zip(chunks.offsets, chunks.sizes, strict=True)
    hit = [number for number, (offset, size) in enumerate(places) if offset < stop and offset + size > start]
    if not hit:
        return 0, 0
    columns = math.prod(-(-n // m) for n, m in zip(entry.shape[1:], chunks.shape[1:], strict=True))
    first, last = hit[0] // columns * chunks.shape[0], (hit[-1] // columns + 1) * chunks.shape[0]
    return max(first - chunks.start, 0), min(last - chunks.start, entry.shape[0])

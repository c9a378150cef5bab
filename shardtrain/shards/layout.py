"""Define the format on disk: HDF5 paths, types, limits, and the contents of a manifest as values.

A folder of shards is a set of ordinary HDF5 files and `manifest.json`, written last, which records where in each file
every array is. Reading needs only the manifest: libhdf5 never parses a file on the read path. The price is that shards
are write-once. docs/format.md is the specification.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

FORMAT = "shardtrain"
VERSION = 3  # the latest; a manifest is written in the oldest version that can express it
MANIFEST = "manifest.json"
VECTORIZER = "vectorizer"  # folder of the fitted vectorizer, beside the shards
MEASURED = "build.json"  # figures that differ between builds of the same shards: time, memory, workers
SHARDS = "shards"  # folder of the shards in that of a run, where `train` made both
WORKING = ".building"  # folder inside the output folder in which shards are made
READY = "ready"  # folder inside it of finished files; a manifest may name them while they are published
PLAIN_VERSION, NEWER_VERSION = 1, 2  # recorded in shards: of n-grams and sequences without compression; of all others
KINDS = {1: ("ngram", "sequence"), 2: ("ngram", "sequence", "dense"), 3: ("ngram", "sequence", "dense")}  # by version
SPLITS = ("train", "validation", "test")
CHECKSUM_LISTS = "checksum-lists"  # what a manifest of version 3 requires of its readers if checksums are in files
CHUNK_LISTS = "chunk-lists"  # if the places of chunks are in files
TEST_SPLIT = "test-split"  # if it has a test split
REQUIREMENTS = (CHECKSUM_LISTS, CHUNK_LISTS, TEST_SPLIT)  # that can be met; docs/format.md lists those to come

X = "x"  # (rows, num_features) token ids or dense features; n-grams: the group of the three arrays below
DATA, INDICES, INDPTR = "x/data", "x/indices", "x/indptr"
Y = "y"
DOCUMENT = "document"
CSR_ATTRIBUTES = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0"}  # as AnnData reads them

ALIGNMENT = 4096  # bytes; every chunk starts on a page
CHUNK_BYTES = 1 << 20  # approximately, per chunk
PACKED_CHUNK_BYTES = 1 << 18  # of values per compressed chunk, so that a block of rows decodes little besides its own
MAX_BYTES = (1 << 63) - 1  # the largest file offset
MAX_FEATURES = (1 << 31) - 1  # column indices are int32
MAX_VOCABULARY = 1 << 32  # token ids are 32 bits at most
MAX_CLASSES = 1 << 16  # labels are 16 bits at most
BLOCK_BYTES = 1 << 17  # of the file per checksum; a row is verified by reading the whole checksum blocks that hold it
# Blocks and chunks of all files of a folder: 8 GiB if it is not compressed. They are 1 to 3 MiB of the manifest, which
# each process parses in milliseconds. If there are more, they are in lists, and the manifest grows with files alone.
MAX_INLINE = 1 << 16
CHECKSUM_LIST_SUFFIX, CHUNK_LIST_SUFFIX = ".sums", ".chunks"
CHECKSUM_BYTES, PLACE_BYTES = 8, 16  # in a list: of a checksum, and of where a chunk is
MAX_LIST_BYTES = 1 << 30  # of one list, which is held in memory: of a file of 16 TiB in blocks of BLOCK_BYTES
DATASETS = {"ngram": {DATA, INDICES, INDPTR, Y, DOCUMENT}, "sequence": {X, Y, DOCUMENT}, "dense": {X, Y, DOCUMENT}}
DTYPES = {
    DATA: {"<f4"},
    INDICES: {"<i4"},
    INDPTR: {"<i4"},
    X: {"|u1", "<u2", "<u4"},
    Y: {"|u1", "<u2"},
    DOCUMENT: {"<i8"},
}
FEATURE_DTYPES = {"dense": {"<f4"}}  # of `x` if it is not token ids
CODECS = ("zstd", "lz4", "blosc2")  # filters for writing shards
FILTERS = ("deflate", "shuffle", "fletcher32", "lzf", "lz4", "zstd", "blosc2")  # HDF5 filters that can be decoded


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """The chunks of an array that is compressed or not contiguous.

    Attributes:
        shape: of every chunk, in elements; the last chunks along an axis are padded.
        filters: names in `FILTERS`, in the order in which a writer applies them.
        offsets: of each chunk in the file, in bytes, in row-major order of the chunks; empty where a list has them.
        sizes: of each chunk in the file, in bytes, likewise.
        masks: of each chunk; bit i is set if filter i was skipped; empty if none ever was.
        start: rows of the first chunk before the array's first row.
    """

    shape: tuple[int, ...]
    filters: tuple[str, ...]
    offsets: Sequence[int] = ()
    sizes: Sequence[int] = ()
    masks: tuple[int, ...] = ()
    start: int = 0


@dataclass(frozen=True, kw_only=True)
class DatasetEntry:
    """Where one array is in its file.

    Attributes:
        dtype: of the values in the file.
        shape: of the array.
        offset: of contiguous values, in bytes; otherwise 0.
        bytes: of the decoded values.
        chunks: of values that are not contiguous.
        source: path of the external file, one of the manifest's `sources`; None: the shard itself.
        converted: type to which a reader converts values of an external file; None: `dtype`.
    """

    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int
    chunks: Chunks | None = None
    source: str | None = None
    converted: str | None = None


@dataclass(frozen=True, kw_only=True)
class ListEntry:
    """A file with numbers that would be too many for the manifest, and its XXH3 checksum (64 bits, hex)."""

    file: str
    bytes: int
    checksum: str


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """One HDF5 file.

    `checksums` holds 16 hex digits (XXH3, 64 bits) for each block of `block_bytes` of the file, or names the list that
    has them; `chunk_list` is that of the chunks of all arrays that have some, if these do not say it themselves.
    """

    file: str
    rows: int
    bytes: int
    datasets: dict[str, DatasetEntry]
    block_bytes: int
    checksums: str | ListEntry
    chunk_list: ListEntry | None = None

    @property
    def blocks(self) -> int:
        """The number of checksums."""
        return -(-self.bytes // self.block_bytes)


@dataclass(frozen=True, kw_only=True)
class SplitEntry:
    """The shards of one split, in row order, and their totals."""

    examples: int
    nonzeros: int
    class_counts: tuple[int, ...]
    shards: tuple[ShardEntry, ...]


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file of the fitted vectorizer, with the XXH3 checksum (64 bits, hex) of its bytes."""

    bytes: int
    checksum: str


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """An external file whose arrays are used in place, as it was when it was indexed; `checksums` as in a shard."""

    bytes: int
    mtime_ns: int
    inode: int
    block_bytes: int
    checksums: str | ListEntry

    @property
    def blocks(self) -> int:
        """The number of checksums."""
        return -(-self.bytes // self.block_bytes)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything about a folder of shards except the arrays.

    `vectorizer` describes the settings of the fitted vectorizer in `files`; `fingerprint` identifies the shards;
    `build` records how they were built, for information only. `sources` holds, by absolute path, the external files
    that contain arrays.
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
    def vectorizer_folder(self) -> str:
        """The folder of the fitted vectorizer, relative to the manifest's."""
        return next((str(PurePosixPath(name).parent) for name in self.files), VECTORIZER)

    @property
    def checksummed(self) -> list[ShardEntry | SourceEntry]:
        """Return all files that have a checksum per block: the shards, in the order of splits, and external files."""
        return [*(shard for split in self.splits.values() for shard in split.shards), *self.sources.values()]

    @property
    def checksum_lists(self) -> list[ListEntry]:
        """Return the lists of checksums, in the order of the files that they are of."""
        return [entry.checksums for entry in self.checksummed if isinstance(entry.checksums, ListEntry)]

    @property
    def chunk_lists(self) -> list[ListEntry]:
        """Return the lists of chunks, in the order of shards."""
        shards = (shard for split in self.splits.values() for shard in split.shards)
        return [shard.chunk_list for shard in shards if shard.chunk_list is not None]

    @property
    def requires(self) -> tuple[str, ...]:
        """Return what a reader must know beyond version 2, as a manifest of version 3 lists it."""
        needed = {
            CHECKSUM_LISTS: bool(self.checksum_lists),
            CHUNK_LISTS: bool(self.chunk_lists),
            TEST_SPLIT: "test" in self.splits,
        }
        return tuple(name for name, is_needed in needed.items() if is_needed)

    @property
    def version(self) -> int:
        """The oldest version of the format that can express this manifest."""
        if self.requires:
            return 3
        entries = (e for split in self.splits.values() for shard in split.shards for e in shard.datasets.values())
        plain = self.kind in KINDS[1] and not self.sources
        return 1 if plain and all(entry.chunks is None for entry in entries) else 2


def files_in(manifest: Manifest) -> list[str]:
    """List the files that a manifest names, relative to its folder: the vectorizer's, shards and lists."""
    shards = [shard.file for split in manifest.splits.values() for shard in split.shards]
    return [*manifest.files, *shards, *(each.file for each in (*manifest.checksum_lists, *manifest.chunk_lists))]


def below(manifest: Manifest, folder: str) -> Manifest:
    """Return the manifest with all its files below a folder, whose path ends with a slash."""

    def moved(entry: ListEntry | str | None) -> Any:
        return replace(entry, file=folder + entry.file) if isinstance(entry, ListEntry) else entry

    def moved_shard(shard: ShardEntry) -> ShardEntry:
        lists = {"checksums": moved(shard.checksums), "chunk_list": moved(shard.chunk_list)}
        return replace(shard, file=folder + shard.file, **lists)

    return replace(
        manifest,
        splits={
            name: replace(split, shards=tuple(map(moved_shard, split.shards)))
            for name, split in manifest.splits.items()
        },
        sources={path: replace(each, checksums=moved(each.checksums)) for path, each in manifest.sources.items()},
        files={folder + name: entry for name, entry in manifest.files.items()},
    )


def num_chunks(entry: DatasetEntry) -> int:
    """Return how many chunks an array needs; it must have some."""
    chunks = entry.chunks
    assert chunks is not None
    lengths = (chunks.start + entry.shape[0], *entry.shape[1:])
    return math.prod(-(-n // m) for n, m in zip(lengths, chunks.shape, strict=True))


def rows_in(entry: DatasetEntry, start: int, stop: int) -> tuple[int, int]:
    """Return the rows [first, last) of an array that bytes [start, stop) of its file hold, at least in part."""
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

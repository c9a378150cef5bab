"""Index external HDF5 files as shards: write labels and row pointers, and reference the features in place.

The manifest records each file's absolute path, size, modification time, inode and checksums, and where its features
are: mapped if they are contiguous, else decoded chunk by chunk. Each file is read once, for the checksums and to refuse
values that no model can use. Rows keep their order, so a validation fraction is taken from the ends of stretches spread
over the file, and rows sorted by class are reported. Of a class that would lose all its rows, the first one stays in
training, as a shard of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.corpus.labels import Classes, check_validation_labels
from shardtrain.errors import CorpusFormatError, UsageError
from shardtrain.options import identity, identity_defaults
from shardtrain.pipeline.holdout import note_of
from shardtrain.pipeline.options import LEAST_MEMORY, IndexOptions
from shardtrain.pipeline.shards_job import make_shards
from shardtrain.pipeline.workspace import Workspace, files_of
from shardtrain.runtime.checksums import block_checksums
from shardtrain.runtime.executors import Serial
from shardtrain.runtime.jobs import file_job
from shardtrain.runtime.passes import Passes
from shardtrain.runtime.progress import Pass, progress, say
from shardtrain.shards import layout
from shardtrain.shards.decoded_array import DecodedArray
from shardtrain.shards.files import open_source
from shardtrain.shards.layout import DatasetEntry, Manifest, ShardEntry, SourceEntry, SplitEntry
from shardtrain.shards.manifest import fingerprint_of
from shardtrain.shards.safety import open_object
from shardtrain.shards.write import ShardShape, new_shard
from shardtrain.tables.foreign import check_rows, check_sparse, locate, sliced
from shardtrain.tables.hdf5 import Matrix, find_matrix, label_blocks, matrix_kind, open_file
from shardtrain.tables.labels import Order, table_classes

STRETCHES = 8  # per file, each with held-out rows at its end
_LEAST_STRETCH = 64  # rows
_NONZEROS = 1 << 30  # per shard, about: row pointers have 32 bits
_CHECKSUMMED_AT_ONCE = 64  # blocks


@dataclass(frozen=True)
class _IndexedFile:
    """A scanned file: its feature arrays by their names in a shard, and the counts and order of its labels."""

    path: Path
    entry: SourceEntry
    matrix: Matrix
    kind: str
    arrays: dict[str, DatasetEntry]
    most: int
    order: Order


def index(files: Sequence[Path], out: Path, options: IndexOptions) -> Manifest:
    """Index the features in HDF5 files as shards in the folder `out`; return the manifest.

    Raises:
        ShardsError: a file does not hold the named features, or they cannot be used in place.
        CorruptShardError: a file is damaged.
        LabelError: labels that no classifier can be trained on.
        ShardsExistError: `out` holds something that must not be replaced.
    """
    chosen = {"append": None, **identity(options)}
    identities = {name: value for path in (*files, *options.validation) for name, value in files_of(path).items()}
    job = file_job(chosen, identities, "index", defaults=identity_defaults(IndexOptions))
    make = partial(_make, files, options)
    return make_shards(out, job, make, memory_limit=LEAST_MEMORY, overwrite=options.overwrite, resume=False)


def _make(files: Sequence[Path], options: IndexOptions, space: Workspace) -> tuple[Manifest, Passes]:
    paths = [path.resolve() for path in (*files, *options.validation)]
    if len(set(paths)) < len(paths):
        raise UsageError("a file is named twice")
    total = sum(path.stat().st_size for path in paths if path.exists())
    with progress("indexing", total=total) as shown:
        sources = [_scan_file(path, options, shown) for path in paths]
    train, held_out = sources[: len(files)], sources[len(files) :]
    _check_same_features(sources)
    classes = _classes(train, held_out, options)
    shape = _shape(sources, classes)
    share = 0.0 if held_out else options.validation_fraction
    ranges = {
        "train": _row_ranges(train, share, held_out=False),
        "validation": [*_row_ranges(train, share, held_out=True), *_row_ranges(held_out, 0.0, held_out=False)],
    }
    if share:
        ranges = _keep_every_class(train, ranges, classes, options)
    splits = {
        name: _write_split(name, found, shape, classes, options, space.ready) for name, found in ranges.items() if found
    }
    entries = {str(source.path): source.entry for source in sources}
    part = {
        "tables": [str(path) for path in files],
        "validation": [str(path) for path in options.validation],
        "x": options.x,
        "y": options.y,
    }
    manifest = Manifest(
        kind=shape.kind,
        num_features=shape.num_features,
        vocabulary_size=shape.vocabulary_size,
        class_names=classes.names,
        seed=0,
        fingerprint=fingerprint_of(splits, entries),
        splits=splits,
        files={},
        vectorizer={},
        build={"labels": classes.codes, "parts": [part]},
        sources=entries,
    )
    return manifest, Passes(Serial(), space.scratch, LEAST_MEMORY)


def _classes(train: Sequence[_IndexedFile], held_out: Sequence[_IndexedFile], options: IndexOptions) -> Classes:
    """Return the classes of the training files, and report rows that are sorted by class."""
    order = Order()
    for source in train:
        with open_file(source.path) as file:
            order.add(label_blocks(file, options.y, source.matrix.rows))
    others = {label for source in held_out for label in source.order.counts}
    classes = table_classes(order.counts, options.labels, others=others)
    for source in held_out:
        check_validation_labels(source.order.counts, classes, str(source.path))
    if note := order.sorted_note():
        say(note)
    return classes


def _scan_file(path: Path, options: IndexOptions, shown: Pass) -> _IndexedFile:
    """Find the features of a file, read all of it once, and refuse what cannot be used."""
    with open_file(path) as file:
        before = os.stat(path)
        matrix = find_matrix(file, options.x)
        kind = matrix_kind(matrix, options.kind, path)
        names = {layout.DATA: "data", layout.INDICES: "indices"}
        found = (
            {name: f"{matrix.x}/{part}" for name, part in names.items()} if kind == "ngram" else {layout.X: matrix.x}
        )
        arrays = {name: locate(open_object(file, place), str(path)) for name, place in found.items()}
        order = Order().add(label_blocks(file, options.y, matrix.rows))
        entry = SourceEntry(
            bytes=before.st_size,
            mtime_ns=before.st_mtime_ns,
            inode=before.st_ino,
            block_bytes=layout.BLOCK_BYTES,
            checksums=_checksums(path, shown),
        )
        # it also checks that the file did not change meanwhile
        stored = open_source(str(path), entry, folder=path.parent, verify=False)
        readers = {name: DecodedArray(name, where, stored) for name, where in arrays.items()}
        most = (
            check_sparse(file, matrix, readers, path) if kind == "ngram" else check_rows(readers[layout.X], kind, path)
        )
    return _IndexedFile(path, entry, matrix, kind, arrays, most, order)


def _checksums(path: Path, shown: Pass) -> str:
    parts = []
    with open(path, "rb") as file:
        while content := file.read(_CHECKSUMMED_AT_ONCE * layout.BLOCK_BYTES):
            parts.append(block_checksums(content, layout.BLOCK_BYTES))
            shown.add(len(content))
    return "".join(parts)


def _check_same_features(sources: Sequence[_IndexedFile]) -> None:
    found = {(source.kind, source.matrix.num_features) for source in sources}
    if len(found) > 1:
        raise CorpusFormatError(
            "the files do not hold the same features: "
            + "; ".join(f"'{each.path}' has {each.matrix.num_features:,} {each.kind} columns" for each in sources[:5])
        )


def _shape(sources: Sequence[_IndexedFile], classes: Classes) -> ShardShape:
    """Return the shape shared by all shards, whose features are external."""
    kind, columns = sources[0].kind, sources[0].matrix.num_features
    return ShardShape(
        kind=kind,
        rows=0,
        num_features=columns,
        nonzeros=0,
        num_classes=len(classes.names),
        vocabulary_size=max(2, 1 + max(source.most for source in sources)) if kind == "sequence" else columns,
        external=tuple(sources[0].arrays),
    )


@dataclass(frozen=True)
class _RowRange:
    """Rows [start, stop) of a source; `base` is the ordinal of the source's first row among its split's rows."""

    source: _IndexedFile
    base: int
    start: int
    stop: int


def _row_ranges(sources: Sequence[_IndexedFile], share: float, *, held_out: bool) -> list[_RowRange]:
    """Return the training or held-out rows of some sources, in order."""
    bases = accumulate((source.matrix.rows for source in sources), initial=0)
    return [
        _RowRange(source, base, start, stop)
        for source, base in zip(sources, bases, strict=False)
        for start, stop in _ranges(source, share, held_out=held_out)
    ]


def _ranges(source: _IndexedFile, share: float, *, held_out: bool) -> Iterator[tuple[int, int]]:
    """Yield the row ranges of a file that train or are held out: the last rows of each stretch are held out."""
    rows, nonzeros = source.matrix.rows, source.arrays[layout.DATA].shape[0] if source.kind == "ngram" else 0
    stretches = max(1, min(STRETCHES, rows // _LEAST_STRETCH)) if share else 1
    stretches = min(rows, max(stretches, -(-nonzeros // _NONZEROS)))
    for start, stop in pairwise(rows * number // stretches for number in range(stretches + 1)):
        border = stop - round((stop - start) * share)
        first, last = (border, stop) if held_out else (start, border)
        if first < last:
            yield first, last


def _keep_every_class(
    train: Sequence[_IndexedFile], ranges: dict[str, list[_RowRange]], classes: Classes, options: IndexOptions
) -> dict[str, list[_RowRange]]:
    """Move the first row of each class that would lose all its rows from the held-out ranges to those that train."""
    counts, held_out = np.zeros(len(classes.names), np.int64), np.zeros(len(classes.names), np.int64)
    for source in train:
        for label, count in source.order.counts.items():
            counts[classes.codes[label]] += count
    first: dict[int, tuple[int, int]] = {}  # class index -> number of its range, and its row
    for number, rows in enumerate(ranges["validation"]):
        start = rows.start
        with open_file(rows.source.path) as file:
            for labels in label_blocks(file, options.y, rows.source.matrix.rows, start, rows.stop):
                y = labels.classes(classes.codes)
                held_out += np.bincount(y, minlength=len(held_out))
                for code, place in zip(*(found.tolist() for found in np.unique(y, return_index=True)), strict=True):
                    first.setdefault(code, (number, start + place))
                start += len(y)
    kept = sorted(first[code] for code in np.flatnonzero((held_out == counts) & (counts > 0)).tolist())
    if not kept:
        return ranges
    say(note_of(len(kept)))
    held, singles = list[_RowRange](), list[_RowRange]()
    for number, rows in enumerate(ranges["validation"]):
        cuts = [row for where, row in kept if where == number]
        singles += [replace(rows, start=row, stop=row + 1) for row in cuts]
        for start, stop in zip([rows.start, *(row + 1 for row in cuts)], [*cuts, rows.stop], strict=True):
            if start < stop:
                held.append(replace(rows, start=start, stop=stop))
    in_order = sorted([*ranges["train"], *singles], key=lambda rows: (rows.base, rows.start))
    return {"train": in_order, "validation": held}


def _write_split(
    name: str, ranges: Sequence[_RowRange], shape: ShardShape, classes: Classes, options: IndexOptions, ready: Path
) -> SplitEntry:
    """Write the labels and row pointers of a split's shards; return their entries, which reference the features."""
    counts = np.zeros(len(classes.names), np.int64)
    shards = []
    for number, rows in enumerate(ranges):
        path = ready / f"{name}-{number:05}.h5"
        with open_file(rows.source.path) as file:
            shards.append(_write_shard(path, file, rows, shape, classes, options, counts))
    return SplitEntry(
        examples=sum(shard.rows for shard in shards),
        nonzeros=sum(shard.datasets[layout.DATA].shape[0] for shard in shards) if shape.kind == "ngram" else 0,
        class_counts=tuple(counts.tolist()),
        shards=tuple(shards),
    )


def _write_shard(
    path: Path,
    file: Any,
    rows: _RowRange,
    shape: ShardShape,
    classes: Classes,
    options: IndexOptions,
    counts: npt.NDArray[np.int64],
) -> ShardEntry:
    """Write one shard's labels and row pointers, and add its rows to the `counts` by class."""
    source, start, stop = rows.source, rows.start, rows.stop
    sparse = source.kind == "ngram"
    dataset = open_object(file, f"{source.matrix.x}/indptr") if sparse else None
    first, last = (int(dataset[start]), int(dataset[stop])) if dataset is not None else (0, 0)
    position = start
    # it is synced when it is published
    with new_shard(path, replace(shape, rows=stop - start, nonzeros=last - first), synced=False) as writer:
        for labels in label_blocks(file, options.y, source.matrix.rows, start, stop):
            end = position + len(labels.codes)
            y = labels.classes(classes.codes)
            if dataset is None:
                x: Any = np.zeros((len(y), 0), np.float32)
            else:
                pointers = dataset[position : end + 1].astype(np.int64)
                no_values = (np.zeros(0, np.float32), np.zeros(0, np.int32))
                x = Csr(*no_values, pointers - pointers[0], (len(y), shape.num_features))
            writer.append(x, y, rows.base + np.arange(position, end))
            counts += np.bincount(y, minlength=len(counts))
            position = end
    places = {
        name: sliced(array, *((first, last) if sparse else (start, stop)), shape.full_dtypes()[name])
        for name, array in source.arrays.items()
    }
    return replace(writer.entry, datasets={**places, **writer.entry.datasets})

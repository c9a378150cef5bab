"""Convert external tables to shards in globally shuffled order and bounded memory.

Two passes read the files piece by piece: the first surveys labels (and the columns of formats that do not declare
them), the second writes rows to scratch in the order of their keys. Placing rows in shards is the last pass of a build,
so a conversion is resumed, parallel and reproducible in every byte as a build is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from shardtrain.arrays.rows import take_rows
from shardtrain.corpus.labels import Classes, check_validation_labels
from shardtrain.errors import CorpusFormatError, UsageError
from shardtrain.loader.order import document_keys
from shardtrain.options import identity, identity_defaults
from shardtrain.pipeline import titles
from shardtrain.pipeline.crew import crew
from shardtrain.pipeline.holdout import ALL_HELD_OUT, SPARE, Spare, best_spares, note_of, spare_documents, trains
from shardtrain.pipeline.options import ConvertOptions, key_threshold
from shardtrain.pipeline.placing import place_split
from shardtrain.pipeline.row_files import spill_rows
from shardtrain.pipeline.shards_job import FIRST_CONVERT_OPTIONS, make_shards
from shardtrain.pipeline.workspace import Workspace, check_left, files_of, require_room
from shardtrain.runtime.jobs import file_job
from shardtrain.runtime.passes import Passes, Workers, affordable_processes
from shardtrain.runtime.progress import say
from shardtrain.runtime.schema import MAX_INTEGER, Fields, Integer, Keyed, Text
from shardtrain.shards import layout
from shardtrain.shards.layout import MAX_CLASSES, Manifest
from shardtrain.shards.manifest import fingerprint_of
from shardtrain.shards.packing import check_codec
from shardtrain.tables.blocks import BLOCK_BYTES, Table, needs_scan
from shardtrain.tables.labels import table_classes
from shardtrain.tables.libsvm import LibsvmTable, column_range
from shardtrain.tables.opening import open_tables

PARALLEL_BYTES = 64 << 20  # smaller files are converted before a second process has started


@dataclass(frozen=True, kw_only=True)
class TableShape:
    """The kind and width shared by the rows of all tables."""

    kind: str
    num_features: int
    vocabulary_size: int


@dataclass(frozen=True)
class _Piece:
    """A piece of a table: rows or bytes [start, stop), the name of its row files, and the ordinal of its first row.

    The rows with the ordinals `kept` train, whatever their keys are.
    """

    table: Table
    start: int
    stop: int
    name: str
    held_out: bool
    first: int = 0
    kept: tuple[int, ...] = ()


@dataclass(frozen=True)
class _PieceFacts:
    """What the survey counts in a piece: rows by raw label, and the lowest and highest column or token id."""

    labels: dict[str, int]
    least: int
    most: int

    @property
    def rows(self) -> int:
        return sum(self.labels.values())


@dataclass(frozen=True)
class _Written:
    """What was written of a piece: its number of blocks, and the `spares` (`holdout`) by class index."""

    blocks: int
    spares: dict[int, Spare]

    @classmethod
    def from_record(cls, record: Any) -> _Written:
        """Make the value from a record that fits `_WRITTEN`."""
        spares = {int(code): (key, ordinal) for code, (key, ordinal) in record["spares"].items()}
        return cls(record["blocks"], spares)


_SURVEYED = Fields({"labels": Keyed(Integer(1)), "least": Integer(-MAX_INTEGER), "most": Integer(-MAX_INTEGER)})
_WRITTEN = Fields(
    {"blocks": Integer(), "spares": Keyed(SPARE, Text(f"[0-9]{{1,{len(str(MAX_CLASSES))}}}", "class indices"))}
)


def convert(files: Sequence[Path], out: Path, options: ConvertOptions) -> Manifest:
    """Convert tables to shards in the folder `out`; return the manifest.

    Raises:
        CorpusError: a file cannot be read, or no classifier can be trained on it.
        ShardsError: an HDF5 file does not hold the named features.
        ShardsExistError: `out` holds something that must not be replaced.
        MissingExtraError: a package that is needed is not installed.
        DiskFullError: the disk has no room.
    """
    if options.compress:
        check_codec(options.compress)
    label_files = [name for name in options.y if name.endswith(".npy")]
    num_files = len(files) + len(options.validation)
    if label_files and not len(label_files) == len(options.y) == num_files:
        raise UsageError(f"--y has {len(options.y)} names for {num_files} files; give a .npy file for each, in order")
    read = [*files, *options.validation, *map(Path, label_files)]
    identities = {name: value for path in read for name, value in files_of(path).items()}
    chosen = {"append": None, **identity(options)}
    program = f"tables in blocks of {BLOCK_BYTES} bytes"
    placed = replace(
        options,
        validation=tuple(map(options.placed, options.validation)),
        y=tuple(str(options.placed(Path(name))) if name.endswith(".npy") else name for name in options.y),
    )
    return make_shards(
        options.placed(out),
        file_job(
            chosen, identities, program, defaults=identity_defaults(ConvertOptions), digested=FIRST_CONVERT_OPTIONS
        ),
        partial(_make, [options.placed(path) for path in files], placed),
        memory_limit=options.memory_limit,
        overwrite=options.overwrite,
        resume=options.resume,
    )


def _make(files: Sequence[Path], options: ConvertOptions, space: Workspace) -> tuple[Manifest, Passes]:
    local = partial(_workers, files, options)
    with crew(options, space.scratch, local, prepare=_nothing) as (executor, workers):
        opened = partial(open_tables, x=options.x, kind=options.kind, scratch=space.scratch)
        of_worker = options.memory_limit // workers.number
        tables = opened(files, y=options.y, memory_limit=of_worker)
        held_out = opened(options.validation, y=options.y[len(files) :] or options.y, memory_limit=of_worker)
        declared = sum(
            table.num_bytes for table in (*tables, *held_out)
        )  # the rows in scratch files, and then in shards
        require_room(space, declared if options.compress else 2 * declared)
        pieces = [
            _Piece(table, start, stop, f"{name}-{number:03}-{place:05}", held)
            for name, group, held in (("rows", tables, False), ("held", held_out, True))
            for number, table in enumerate(group)
            for place, (start, stop) in enumerate(table.pieces())
        ]
        passes = Passes(executor, space.scratch, workers.task_budget(options.memory_limit), details=titles.DETAILS)
        check_left(space, passes)
        surveyed = passes.run(
            titles.LABELS,
            _survey,
            pieces,
            [piece.stop - piece.start for piece in pieces],
            name="survey",
            unit=_unit(tables),
            schema=_SURVEYED,
            encode=asdict,
            decode=lambda record: _PieceFacts(**record),
        )
        classes = _classes(pieces, surveyed, options)
        shape, base = _common_shape([*tables, *held_out], surveyed)
        pieces = _numbered(pieces, surveyed, shape, base)
        files_of_splits = _write_rows(passes, pieces, surveyed, classes, options)
        splits = {
            split: place_split(
                passes,
                split,
                row_files,
                shape,
                len(classes.names),
                space.ready,
                first_number=0,
                rows_per_shard=options.rows_per_shard,
                codec=options.compress,
            )
            for split, row_files in files_of_splits.items()
        }
    if not splits["validation"].examples and options.validation_fraction:
        say("no row fell into the validation fraction")
    splits = {name: split for name, split in splits.items() if split.examples}
    part = {"tables": [path.name for path in files], "validation": [path.name for path in options.validation]}
    manifest = Manifest(
        kind=shape.kind,
        num_features=shape.num_features,
        vocabulary_size=shape.vocabulary_size,
        class_names=classes.names,
        seed=options.seed,
        fingerprint=fingerprint_of(splits, {}),
        splits=splits,
        files={},
        vectorizer={},
        build={"labels": classes.codes, "parts": [part]},
    )
    return manifest, passes


def _workers(files: Sequence[Path], options: ConvertOptions) -> Workers:
    found = (path for path in (*files, *options.validation) if path.is_file())  # others are refused when opened
    small = sum(path.stat().st_size for path in found) < PARALLEL_BYTES
    return Workers() if small else affordable_processes(options.cores, options.memory_limit)


def _nothing() -> None:
    """Prepare a worker: these passes need no kernels of their own."""


def _write_rows(
    passes: Passes,
    pieces: Sequence[_Piece],
    surveyed: Sequence[_PieceFacts],
    classes: Classes,
    options: ConvertOptions,
) -> dict[str, list[Path]]:
    """Write the rows of all pieces to scratch; return the row files of each split."""
    write = partial(
        _write,
        scratch=passes.scratch,
        seed=options.seed,
        threshold=0 if options.validation else key_threshold(options.validation_fraction),
        codes=classes.codes,
    )
    rows = [facts.rows for facts in surveyed]
    run = partial(passes.run, function=write, unit="rows", schema=_WRITTEN, encode=asdict, decode=_Written.from_record)
    written = run(titles.READ_ROWS, tasks=pieces, sizes=rows, name="rows")
    pieces, changed = _keep_every_class(pieces, surveyed, written, classes)
    if changed:  # files with the rows that stay in training, beside those without them
        say(note_of(sum(len(pieces[i].kept) for i in changed)))
        again = [pieces[i] for i in changed]
        run(titles.KEEP, tasks=again, sizes=[rows[i] for i in changed], name="rows-kept")
    blocks = [(piece, number) for piece, found in zip(pieces, written, strict=True) for number in range(found.blocks)]
    return {
        split: [_block_path(passes.scratch, piece, number, split) for piece, number in blocks]
        for split in ("train", "validation")
    }


def _keep_every_class(
    pieces: Sequence[_Piece], surveyed: Sequence[_PieceFacts], written: Sequence[_Written], classes: Classes
) -> tuple[list[_Piece], list[int]]:
    """Keep a row in training of each class that would lose all of them; return the pieces, and those that changed."""
    trained = {
        classes.codes[label]
        for piece, facts, found in zip(pieces, surveyed, written, strict=True)
        for label, count in facts.labels.items()
        if count and not piece.held_out and classes.codes[label] not in found.spares
    }
    firsts = [piece.first for piece in pieces if not piece.held_out]  # of the training files, which come first
    kept: dict[int, list[int]] = {}
    for _, ordinal in best_spares(trained, (found.spares for found in written)).values():
        kept.setdefault(bisect_right(firsts, ordinal) - 1, []).append(ordinal)
    named = {i: replace(pieces[i], name=f"{pieces[i].name}-kept", kept=tuple(kept[i])) for i in kept}
    return [named.get(i, piece) for i, piece in enumerate(pieces)], sorted(kept)


def _unit(tables: Sequence[Table]) -> str:
    units = {table.units for table in tables}
    return "B" if units == {"bytes"} else units.pop() if len(units) == 1 else "parts"


def _survey(piece: _Piece) -> _PieceFacts:
    """Count a piece's labels; read its features only where the format does not declare its columns."""
    counts: Counter[str] = Counter()
    least, most = 1, 0
    if not needs_scan(piece.table):
        for labels in piece.table.labels(piece.start, piece.stop):
            counts.update(_counted(labels))
        return _PieceFacts(dict(counts), least, most)
    for block in piece.table.blocks(piece.start, piece.stop):
        counts.update(_counted(block.labels))
        low, high = column_range(block.x)
        least, most = (min(least, low), max(most, high)) if low <= high else (least, most)
    return _PieceFacts(dict(counts), least, most)


def _counted(labels: Any) -> dict[str, int]:
    numbers = np.bincount(labels.codes, minlength=len(labels.names)).tolist()
    return dict(zip(labels.names, numbers, strict=True))


def _classes(pieces: Sequence[_Piece], surveyed: Sequence[_PieceFacts], options: ConvertOptions) -> Classes:
    counts: Counter[str] = Counter()
    for piece, facts in zip(pieces, surveyed, strict=True):
        if not piece.held_out:
            counts.update(facts.labels)
    others = {label for piece, facts in zip(pieces, surveyed, strict=True) if piece.held_out for label in facts.labels}
    classes = table_classes(counts, options.labels, others=others)
    for piece, facts in zip(pieces, surveyed, strict=True):
        if piece.held_out:
            check_validation_labels(facts.labels, classes, str(piece.table.path))
    return classes


def _common_shape(tables: Sequence[Table], surveyed: Sequence[_PieceFacts]) -> tuple[TableShape, int]:
    """Return the shape shared by the tables, and the number of a LibSVM file's first column, 0 or 1.

    Raises:
        CorpusFormatError: the tables hold different features.
    """
    kinds = {table.kind for table in tables}
    widths = {table.num_features for table in tables if table.num_features}
    if len(kinds) > 1 or len(widths) > 1:
        raise CorpusFormatError(
            "the files do not hold the same features: "
            + "; ".join(f"'{table.path}' has {table.num_features or '?'} {table.kind} columns" for table in tables[:5])
        )
    kind, most = kinds.pop(), max(facts.most for facts in surveyed)
    base = 0 if any(facts.least == 0 for facts in surveyed) else 1
    width = widths.pop() if widths else most - base + 1
    if not 1 <= width <= layout.MAX_FEATURES:
        raise CorpusFormatError(
            f"'{tables[0].path}' has {width:,} columns; from 1 to {layout.MAX_FEATURES:,} are possible"
        )
    vocabulary = max(most + 1, 2) if kind == "sequence" else width
    return TableShape(kind=kind, num_features=width, vocabulary_size=vocabulary), base


def _numbered(pieces: Sequence[_Piece], surveyed: Sequence[_PieceFacts], shape: TableShape, base: int) -> list[_Piece]:
    """Return the pieces with the ordinals of their first rows, counted across the files of a split, and the columns."""
    numbered: list[_Piece] = []
    for held in (False, True):
        group = [(piece, facts.rows) for piece, facts in zip(pieces, surveyed, strict=True) if piece.held_out is held]
        firsts = accumulate((rows for _, rows in group), initial=0)
        for (piece, _), first in zip(group, firsts, strict=False):
            table = piece.table
            if isinstance(table, LibsvmTable):
                table = table.with_columns(shape.num_features, base)
            numbered.append(_Piece(table, piece.start, piece.stop, piece.name, held, first))
    return numbered


def _write(piece: _Piece, *, scratch: Path, seed: int, threshold: int, codes: dict[str, int]) -> _Written:
    """Write a piece's training and held-out rows in blocks."""
    ordinal, number = piece.first, -1
    trained: set[int] = set()
    spares: list[dict[int, Spare]] = []
    for number, block in enumerate(piece.table.blocks(piece.start, piece.stop)):
        y = block.labels.classes(codes)
        ordinals = np.arange(ordinal, ordinal + len(y))
        ordinal += len(y)
        keys = document_keys(ordinals, seed)
        chosen = trains(keys, ordinals, ALL_HELD_OUT if piece.held_out else threshold, piece.kept)
        for split, rows in (("train", np.flatnonzero(chosen)), ("validation", np.flatnonzero(~chosen))):
            x = take_rows(block.x, rows)
            spill_rows(_block_path(scratch, piece, number, split), x, y[rows], ordinals[rows], keys[rows])
        if not piece.held_out:
            trained.update(np.unique(y[chosen]).tolist())
            spares.append(spare_documents(y[~chosen].tolist(), keys[~chosen], ordinals[~chosen], trained))
    return _Written(number + 1, best_spares(trained, spares))


def _block_path(scratch: Path, piece: _Piece, number: int, split: str) -> Path:
    return scratch / f"{piece.name}-{number:05}-{split}"

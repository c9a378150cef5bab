"""Place the rows of all units in shards, in ascending order of their keys.

Each shard is written on its own, from its key range of all row files, a piece at a time: every file is opened once per
shard and piece. The rows of very many units are therefore first put into fewer files, which is done in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr, concatenate
from shardtrain.arrays.file_set import FileSet
from shardtrain.arrays.scratch import open_spilled, spilling
from shardtrain.pipeline import titles
from shardtrain.pipeline.planning import ShardRange, plan_shards
from shardtrain.pipeline.row_files import rows_between
from shardtrain.runtime.passes import Passes
from shardtrain.runtime.schema import Fields, Integer, Items
from shardtrain.shards.finished import is_finished
from shardtrain.shards.layout import ShardEntry, SplitEntry
from shardtrain.shards.manifest import SHARD, parse_shard, shard_record
from shardtrain.shards.packing import rewrite_shard
from shardtrain.shards.shard import Shard
from shardtrain.shards.write import ShardShape, new_shard
from shardtrain.vectorize.fitted import Rows
from shardtrain.vectorize.groups import files_together
from shardtrain.vectorize.sequences import id_type

_END = 1 << 64
Placed = tuple[Rows, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]  # x, y, documents and keys of some rows


class Columns(Protocol):
    """The kind and width shared by rows; a vectorizer has these attributes for its own rows."""

    @property
    def kind(self) -> str:
        """Kind of the features."""
        ...

    @property
    def num_features(self) -> int:
        """Number of columns."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """For sequences one more than the highest id, else the number of columns."""
        ...


@dataclass(frozen=True)
class PlacedShard:
    """A finished shard and its number of rows per class."""

    entry: ShardEntry
    class_counts: tuple[int, ...]

    def as_record(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"entry": shard_record(self.entry), "class_counts": list(self.class_counts)}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> PlacedShard:
        """Make the value from a record that fits `_PLACED`."""
        return cls(parse_shard(record["entry"]), tuple(record["class_counts"]))


_PLACED = Fields({"entry": SHARD, "class_counts": Items(Integer(), 1)})


def place_split(
    passes: Passes,
    split: str,
    files: Sequence[Path],
    columns: Columns,
    num_classes: int,
    ready: Path,
    *,
    first_number: int,
    rows_per_shard: int,
    codec: str | None,
) -> SplitEntry:
    """Write the shards of one split, or those appended to it, from the rows of all units.

    Args:
        passes: runs the tasks.
        split: its name, the first part of its shards' names.
        files: written by `spill_rows`, one per unit.
        columns: of the rows.
        num_classes: of the labels.
        ready: folder of the shards.
        first_number: in the name of the first shard; the following shards count up from it.
        rows_per_shard: see `plan_shards`.
        codec: compresses the shards; None: uncompressed.

    Returns:
        The entry of these shards, with no examples where the files hold no row.
    """
    files = _grouped(passes, split, files)
    ranges = plan_shards(passes, split, files, rows_per_shard)
    shape = ShardShape(
        kind=columns.kind,
        rows=0,
        num_features=columns.num_features,
        nonzeros=0,
        num_classes=num_classes,
        vocabulary_size=columns.vocabulary_size,
    )
    place = _PlaceShards(files, shape, ready, passes.scratch, split, first_number, codec, passes.budget)
    placed = passes.run(
        titles.write_shards(split),
        place,
        list(enumerate(ranges)),
        [shard.rows for shard in ranges],
        name=f"shards-{split}",
        unit="rows",
        schema=_PLACED,
        encode=PlacedShard.as_record,
        decode=PlacedShard.from_record,
        fits=place.is_placed,
    )
    class_counts = np.zeros(num_classes, np.int64)
    for shard in placed:
        class_counts += shard.class_counts
    return SplitEntry(
        examples=sum(shard.rows for shard in ranges),
        nonzeros=sum(shard.nonzeros for shard in ranges),
        class_counts=tuple(class_counts.tolist()),
        shards=tuple(shard.entry for shard in placed),
    )


@dataclass(frozen=True)
class _PlaceShards:
    """Write shards from the row files of all units, with about `budget` bytes in memory.

    With a codec a shard is written uncompressed to a scratch file and then compressed.

    Attributes:
        files: of rows.
        shape: of the shards, but for the numbers of rows and non-zeros.
        ready: folder of the shards.
        scratch: folder of what will be compressed.
        split: first part of the shards' names.
        first_number: in the name of the first shard.
        codec: compresses the shards; None: uncompressed.
        budget: bytes.
    """

    files: Sequence[Path]
    shape: ShardShape
    ready: Path
    scratch: Path
    split: str
    first_number: int
    codec: str | None
    budget: int

    def __call__(self, task: tuple[int, ShardRange]) -> PlacedShard:
        name = self._name(task)
        if self.codec is None:
            return self._place(task, self.ready / name)
        plain = self.scratch / name
        placed = self._place(task, plain)
        shard = Shard(plain.parent, placed.entry, self.shape.num_features, verify=False)
        packed = rewrite_shard(shard, self._shape(task), self.codec, self.ready / name)
        plain.unlink()
        return PlacedShard(packed, placed.class_counts)

    def is_placed(self, task: tuple[int, ShardRange], placed: PlacedShard) -> bool:
        """Return whether the shard on record is that of the task, and has these rows per class."""
        out = self.ready / self._name(task)
        if not is_finished(out, placed.entry, self._shape(task)):
            return False
        y = Shard(out.parent, placed.entry, self.shape.num_features, verify=False).y(0, task[1].rows)
        return tuple(np.bincount(y, minlength=self.shape.num_classes).tolist()) == placed.class_counts

    def _name(self, task: tuple[int, ShardRange]) -> str:
        return f"{self.split}-{self.first_number + task[0]:05}.h5"

    def _shape(self, task: tuple[int, ShardRange]) -> ShardShape:
        return replace(self.shape, rows=task[1].rows, nonzeros=task[1].nonzeros)

    def _place(self, task: tuple[int, ShardRange], out: Path) -> PlacedShard:
        shape = self._shape(task)
        row_bytes = row_bytes_of(shape)
        class_counts = np.zeros(shape.num_classes, np.int64)
        with new_shard(out, shape, synced=self.codec is None) as writer:
            for x, y, documents, _ in _in_order(self.files, task[1], row_bytes, self.budget):
                writer.append(x, y, documents)
                class_counts += np.bincount(y, minlength=len(class_counts))
        return PlacedShard(writer.entry, tuple(class_counts.tolist()))


def row_bytes_of(shape: ShardShape) -> int:
    """Return the bytes of a row of a shard, on average."""
    itemsize = {"dense": 4}.get(shape.kind, 0)
    if shape.kind == "sequence":
        itemsize = id_type(shape.vocabulary_size).itemsize
    return 8 * shape.nonzeros // max(shape.rows, 1) + itemsize * shape.num_features


def num_pieces(rows: int, row_bytes: int, budget: int) -> int:
    """Return in how many pieces rows are placed within `budget` bytes: as read, concatenated and sorted."""
    return max(1, -(-3 * rows * (row_bytes + 24) // budget))


def _in_order(files: Sequence[Path], rows: ShardRange, row_bytes: int, budget: int) -> Iterator[Placed]:
    """Yield the rows of files with keys in a range, by ascending key, in pieces of about `budget` bytes."""
    if not rows.rows:
        return
    pieces = num_pieces(rows.rows, row_bytes, budget)
    cuts = [rows.first + (rows.last - rows.first) * i // pieces for i in range(pieces + 1)]
    for first, last in pairwise(cuts):
        parts = [rows_between(path, first, last) for path in files]
        features = [part[0] for part in parts]
        y, documents, keys = (np.concatenate([part[i] for part in parts]) for i in (1, 2, 3))
        order = np.argsort(keys)
        sparse = [x for x in features if isinstance(x, Csr)]
        x: Rows = concatenate(sparse).take(order) if sparse else np.concatenate(features)[order]  # type: ignore[arg-type]
        yield x, y[order], documents[order], keys[order]


def _grouped(passes: Passes, split: str, files: Sequence[Path]) -> Sequence[Path]:
    """Put the rows of many files into one, of a split of very many files; return the files to place."""
    if (width := files_together(len(files))) == 1:
        return files
    groups = FileSet(passes.scratch / f"grouped-{split}", -(-len(files) // width)).made()
    name, share = f"grouped-{split}", [width] * len(groups)
    passes.do(titles.GROUP_ROWS, _GroupRows(files, width, groups, passes.budget), range(len(groups)), share, name=name)
    return groups


@dataclass(frozen=True)
class _GroupRows:
    """Write the rows of `width` files to one, with about `budget` bytes in memory."""

    files: Sequence[Path]
    width: int
    outs: FileSet
    budget: int

    def __call__(self, number: int) -> None:
        paths = self.files[number * self.width : (number + 1) * self.width]
        rows, arrays, facts = _extent_of(paths)
        row_bytes = sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in arrays.values())
        with spilling(self.outs[number], arrays, facts) as out:
            entries = 0
            if "indptr" in arrays:
                out.append(indptr=np.zeros(1, np.int64))
            for x, y, documents, keys in _in_order(paths, rows, row_bytes // max(1, rows.rows), self.budget):
                out.append(keys=keys, y=y, documents=documents)
                if isinstance(x, Csr):
                    out.append(data=x.data, indices=x.indices, indptr=x.indptr[1:] + entries)
                    entries += int(x.indptr[-1])
                else:
                    out.append(x=x)


def _extent_of(paths: Sequence[Path]) -> tuple[ShardRange, dict[str, tuple[Any, tuple[int, ...]]], dict[str, Any]]:
    """Return the rows of files, without their non-zeros, and types, shapes and facts of one file of all of them."""
    rows, lowest, end = 0, _END, 0
    shapes: dict[str, tuple[Any, tuple[int, ...]]] = {}
    facts: dict[str, Any] = {}
    for path in paths:
        unit = open_spilled(path)
        facts = unit.facts
        for name in unit.entries:
            before = shapes[name][1][0] if name in shapes else 0
            shapes[name] = unit[name].dtype, (before + len(unit[name]), *unit[name].shape[1:])
        if size := len(unit["keys"]):
            rows, lowest, end = rows + size, min(lowest, int(unit["keys"][0])), max(end, int(unit["keys"][-1]) + 1)
    if "indptr" in shapes:
        shapes["indptr"] = np.int64, (rows + 1,)
    return ShardRange(lowest, end, rows, 0), shapes, facts

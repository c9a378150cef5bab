"""Read NumPy files as tables: .npy arrays, arrays of an .npz, and sparse matrices saved by scipy.

A .npy file is mapped. Members of an .npz are first streamed to scratch files, because compressed data has no random
access. Pickled objects are never loaded.
"""

from __future__ import annotations

import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.npy import map_npy
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError, ShardtrainError, UsageError
from shardtrain.runtime.atomic import committed
from shardtrain.tables.blocks import Block, as_csr, as_features, cut_rows, kind_of, rows_per_block
from shardtrain.tables.labels import RawLabels, joined, raw_labels

_SPARSE = ("data", "indices", "indptr", "shape", "format")
# What zipfile raises for damaged archives: its directory sends it anywhere, and its fields may have any value.
ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, KeyError),
    *(NotImplementedError, RuntimeError, ValueError, OverflowError),
)
_LABELS_AT_ONCE = 1 << 20  # maximum rows of a sparse piece, and labels read at a time


@dataclass(frozen=True, kw_only=True)
class ArrayTable:
    """Features in one .npy file, or of a CSR matrix in three (data, indices, indptr), and labels in another.

    `path` is the file that the user named, `labels_from` says where the labels were found.
    """

    path: Path
    files: tuple[Path, ...]
    y: Path
    labels_from: str
    kind: str
    rows: int
    num_features: int

    @property
    def num_bytes(self) -> int:
        """Bytes of the features in shards; sparse ones are a value and a column each, and an offset per row."""
        if self.kind == "ngram":
            return 8 * (len(open_array(self.files[0])) + self.rows)
        return 4 * self.rows * self.num_features

    @property
    def units(self) -> str:
        """Pieces are ranges of rows."""
        return "rows"

    def pieces(self) -> list[tuple[int, int]]:
        """Cut the rows into ranges of about a block each."""
        if self.kind == "ngram":
            return list(cut_rows(open_array(self.files[2]), _LABELS_AT_ONCE))
        step = rows_per_block(open_array(self.files[0]).dtype.itemsize * self.num_features)
        return [(start, min(start + step, self.rows)) for start in range(0, self.rows, step)]

    def labels(self, start: int, stop: int) -> Iterator[RawLabels]:
        """Yield the labels of rows [start, stop)."""
        labels = open_array(self.y)
        step = max(1, _LABELS_AT_ONCE // (labels.shape[1] if labels.ndim == 2 else 1))
        for begin in range(start, stop, step):
            yield raw_labels(np.array(labels[begin : min(begin + step, stop)]), self.labels_from, first=begin)

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """Yield the features and labels of rows [start, stop)."""
        labels = joined(self.labels(start, stop))
        if self.kind != "ngram":
            yield Block(as_features(open_array(self.files[0])[start:stop], self.kind, str(self.path)), labels)
            return
        data, indices, indptr = map(open_array, self.files)
        pointers = indptr[start : stop + 1].astype(np.int64)
        first, last = int(pointers[0]), int(pointers[-1])
        x = as_csr(data[first:last], indices[first:last], pointers - first, self.num_features, str(self.path))
        yield Block(x, labels)


def open_array(path: Path) -> npt.NDArray[Any]:
    """Map a .npy file.

    Raises:
        CorpusNotFoundError: the file does not exist.
        CorpusFormatError: it is not an array of plain values.
    """
    if not path.exists():
        raise CorpusNotFoundError(f"there is no file '{path}'; name one with --y FILE.npy")
    if path.is_file() and zipfile.is_zipfile(path):
        raise CorpusFormatError(f"'{path}' is an archive of arrays, expected one array; name a .npy file")
    return map_npy(path, CorpusFormatError, advice="write it again with numpy.save")


def open_npy(path: Path, y: Sequence[str], kind: str) -> ArrayTable:
    """Open features in a .npy file with labels in another.

    Raises:
        UsageError: not exactly one file of labels is named.
        CorpusFormatError: an array has the wrong type or shape.
    """
    if len(y) != 1:
        raise UsageError(f"'{path}' has no labels; name their file with --y FILE.npy")
    return _dense(path, path, Path(y[0]), kind, f"'{y[0]}'")


def open_npz(path: Path, x: str | None, y: str, kind: str, scratch: Path) -> ArrayTable:
    """Open the table in an .npz file, whose members are unpacked to `scratch`; `y` names a member or a .npy file.

    Raises:
        CorpusFormatError: it is not an .npz archive, or its arrays cannot be used.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            wanted = _SPARSE[:4] if set(_SPARSE) <= set(names) else (x or "x",)
            members = [*wanted, *([] if y.endswith(".npy") else [y])]
            if missing := [name for name in members if name not in names]:
                raise CorpusFormatError(
                    f"'{path}' has no array '{missing[0]}'; it has {', '.join(map(repr, names[:10]))}: name features "
                    "with --x, and labels (an array or a .npy file) with --y"
                )
            files = {name: scratch / f"{path.stem}-{number}.npy" for number, name in enumerate(members)}
            for name, file in files.items():
                with archive.open(f"{name}.npy") as member, committed(file, synced=False) as out:
                    shutil.copyfileobj(member, out, 1 << 20)
            sparse = set(_SPARSE) <= set(names)
            form = archive.read("format.npy") if sparse else b""
    except ShardtrainError:  # the disk is full
        raise
    except ZIP_ERRORS as error:
        raise CorpusFormatError(f"'{path}' cannot be read as an .npz archive: {error}; write it again") from error
    labels = Path(y) if y.endswith(".npy") else files[y]
    where = f"'{y}'" if y.endswith(".npy") else f"'{y}' in '{path}'"
    if not sparse:
        return _dense(path, files[wanted[0]], labels, kind, where)
    if b"csr" not in form[-16:].replace(b"\0", b""):  # bytes, or text of four bytes per letter
        raise CorpusFormatError(f"'{path}' is a sparse matrix that is not in CSR format; convert it with .tocsr()")
    if kind not in ("auto", "sparse"):
        raise CorpusFormatError(f"'{path}' is a sparse matrix, which --kind {kind} does not fit")
    arrays = tuple(files[name] for name in _SPARSE[:3])
    sizes = _check_csr(open_array(files["shape"]), [open_array(array) for array in arrays], path)
    return _checked(
        ArrayTable(
            path=path,
            files=arrays,
            y=labels,
            labels_from=where,
            kind="ngram",
            rows=sizes[0],
            num_features=sizes[1],
        )
    )


def _check_csr(shape: npt.NDArray[Any], arrays: Sequence[npt.NDArray[Any]], path: Path) -> tuple[int, int]:
    """Check types and sizes of a CSR matrix's arrays; return its rows and columns. Values are checked when read."""
    for name, array, numbers in zip(_SPARSE[:3], arrays, ("iufb", "iu", "iu"), strict=True):
        if array.ndim != 1 or array.dtype.kind not in numbers:
            raise CorpusFormatError(
                f"'{path}' is not a CSR matrix: its '{name}' is {array.dtype} of shape {array.shape}"
            )
    indptr, values = arrays[2], len(arrays[0])
    if shape.shape != (2,) or shape.dtype.kind not in "iu" or indptr.shape != (int(shape[0]) + 1,):
        raise CorpusFormatError(f"'{path}' has the shape {shape.tolist()!r:.60}, which does not match its row pointers")
    if int(indptr[0]) != 0 or int(indptr[-1]) != values:
        raise CorpusFormatError(
            f"'{path}' has row pointers from {int(indptr[0]):,} to {int(indptr[-1]):,} for {values:,} values"
        )
    return int(shape[0]), int(shape[1])


def _dense(path: Path, features: Path, labels: Path, kind: str, where: str) -> ArrayTable:
    array = open_array(features)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "iufb":
        raise CorpusFormatError(
            f"'{path}' holds {array.dtype} of shape {array.shape}; expected numbers of shape (rows, columns)"
        )
    rows, columns = array.shape
    chosen = kind_of(array.dtype, kind, str(path))
    return _checked(
        ArrayTable(
            path=path,
            files=(features,),
            y=labels,
            labels_from=where,
            kind=chosen,
            rows=rows,
            num_features=columns,
        )
    )


def _checked(table: ArrayTable) -> ArrayTable:
    labels = open_array(table.y)
    if labels.ndim not in (1, 2) or labels.shape[0] != table.rows or 0 in labels.shape:
        raise CorpusFormatError(
            f"'{table.path}' has {table.rows:,} rows, its labels in {table.labels_from} have the shape {labels.shape}; "
            "expected one label per row"
        )
    return table

"""NumPy's files as tables: .npy arrays, the arrays of an .npz, and the sparse matrices that scipy saves as one.

A .npy file is mapped. The members of an .npz are streamed out of the archive into scratch files first, because what is
compressed cannot be read from the middle. Pickled objects are never loaded.
"""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.errors import CorpusFormatError, CorpusNotFoundError, ShardtrainError, UsageError
from shardtrain.runtime.atomic import committed
from shardtrain.tables.blocks import BLOCK_BYTES, Block, features_kind, kind_of, tidy
from shardtrain.tables.labels import RawLabels, raw_labels

_SPARSE = ("data", "indices", "indptr", "shape", "format")
_LABELS_AT_ONCE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ArrayTable:
    """Features in one .npy file, or of a CSR matrix in three, and labels in another.

    `files` are the features: one, or data, indices and indptr; `origin` is what the user named.
    """

    path: Path
    files: tuple[Path, ...]
    y: Path
    kind: str
    rows: int
    num_features: int

    @property
    def scanned(self) -> bool:
        """Token ids have to be read to know how many there are."""
        return self.kind == "sequence"

    @property
    def units(self) -> str:
        """Of the pieces."""
        return "rows"

    def pieces(self) -> list[tuple[int, int]]:
        """Row ranges of about a block each; of sparse rows, cut where so many values have gone by."""
        if self.kind != "ngram":
            row_bytes = open_array(self.files[0]).dtype.itemsize * self.num_features
            step = max(1, BLOCK_BYTES // row_bytes)
            return [(start, min(start + step, self.rows)) for start in range(0, self.rows, step)]
        indptr = open_array(self.files[2])
        cuts = [0]
        while cuts[-1] < self.rows:
            stop = int(np.searchsorted(indptr, int(indptr[cuts[-1]]) + BLOCK_BYTES // 8, side="right")) - 1
            cuts.append(min(max(stop, cuts[-1] + 1), cuts[-1] + _LABELS_AT_ONCE, self.rows))
        return list(pairwise(cuts))

    def labels(self, start: int, stop: int) -> Iterator[RawLabels]:
        """Labels of rows [start, stop)."""
        yield raw_labels(np.array(open_array(self.y)[start:stop]), str(self.y))

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """Features and labels of rows [start, stop)."""
        (labels,) = self.labels(start, stop)
        if self.kind != "ngram":
            yield Block(features_kind(open_array(self.files[0])[start:stop], self.kind, str(self.path)), labels)
            return
        data, indices, indptr = map(open_array, self.files)
        pointers = indptr[start : stop + 1].astype(np.int64)
        first, last = int(pointers[0]), int(pointers[-1])
        x = tidy(data[first:last], indices[first:last], pointers - first, self.num_features, str(self.path))
        yield Block(x, labels)


def open_array(path: Path) -> npt.NDArray[Any]:
    """Map a .npy file.

    Raises:
        CorpusNotFoundError: there is no such file.
        CorpusFormatError: it is no array of plain values.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise CorpusNotFoundError(f"there is no file '{path}'") from error
    except (ValueError, OSError, EOFError) as error:
        raise CorpusFormatError(f"'{path}' cannot be read as a NumPy array: {error}") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise CorpusFormatError(f"'{path}' is an archive of arrays, where one array is needed; name a .npy file")
    return array


def open_npy(path: Path, y: Sequence[str], kind: str) -> ArrayTable:
    """The features in a .npy file, labels in another.

    Raises:
        UsageError: no one file of labels is named.
        CorpusFormatError: the arrays do not fit.
    """
    if len(y) != 1:
        raise UsageError(f"'{path}' has features alone; name the file of its labels with --y FILE.npy")
    return _dense(path, path, Path(y[0]), kind)


def open_npz(path: Path, x: str | None, y: str, kind: str, scratch: Path) -> ArrayTable:
    """The table in an .npz file; its members go to `scratch`. `y` names a member, or a .npy file.

    Raises:
        CorpusFormatError: it is no archive, or what it holds cannot be used.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
            wanted = _SPARSE[:4] if set(_SPARSE) <= set(names) else (x or "x",)
            members = [*wanted, *([] if y.endswith(".npy") else [y])]
            if missing := [name for name in members if name not in names]:
                raise CorpusFormatError(
                    f"'{path}' has no array '{missing[0]}'; it has {', '.join(map(repr, names[:10]))}: name features "
                    "with --x and labels with --y, an array or a .npy file"
                )
            files = {name: scratch / f"{path.stem}-{number}.npy" for number, name in enumerate(members)}
            for name, file in files.items():
                with archive.open(f"{name}.npy") as member, committed(file, synced=False) as out:
                    shutil.copyfileobj(member, out, 1 << 20)
            sparse = set(_SPARSE) <= set(names)
            form = archive.read("format.npy") if sparse else b""
    except ShardtrainError:  # the disk is full
        raise
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, OSError, EOFError) as error:
        raise CorpusFormatError(f"'{path}' cannot be read as an .npz archive: {error}") from error
    labels = Path(y) if y.endswith(".npy") else files[y]
    if not sparse:
        return _dense(path, files[wanted[0]], labels, kind)
    if b"csr" not in form[-16:].replace(b"\0", b""):  # bytes, or text of four bytes a letter
        raise CorpusFormatError(f"'{path}' is a sparse matrix of another form than CSR; save it with .tocsr()")
    if kind not in ("auto", "sparse"):
        raise CorpusFormatError(f"'{path}' is a sparse matrix, so it cannot be --kind {kind}")
    arrays = tuple(files[name] for name in _SPARSE[:3])
    sizes = _check_csr(open_array(files["shape"]), [open_array(array) for array in arrays], path)
    table = ArrayTable(path=path, files=arrays, y=labels, kind="ngram", rows=sizes[0], num_features=sizes[1])
    return _checked(table)


def _check_csr(shape: npt.NDArray[Any], arrays: Sequence[npt.NDArray[Any]], path: Path) -> tuple[int, int]:
    """Rows and columns of a CSR matrix, after a look at what its arrays are; values are looked at as they are read."""
    for name, array, numbers in zip(_SPARSE[:3], arrays, ("iufb", "iu", "iu"), strict=True):
        if array.ndim != 1 or array.dtype.kind not in numbers:
            raise CorpusFormatError(
                f"'{path}' holds {array.dtype} of the shape {array.shape} as '{name}', which is no CSR matrix"
            )
    indptr, values = arrays[2], len(arrays[0])
    if shape.shape != (2,) or shape.dtype.kind not in "iu" or indptr.shape != (int(shape[0]) + 1,):
        raise CorpusFormatError(f"'{path}' has the shape {shape.tolist()!r:.60} and other row pointers")
    if int(indptr[0]) != 0 or int(indptr[-1]) != values:
        raise CorpusFormatError(
            f"'{path}' has row pointers from {int(indptr[0]):,} to {int(indptr[-1]):,} for {values:,} values"
        )
    return int(shape[0]), int(shape[1])


def _dense(path: Path, features: Path, labels: Path, kind: str) -> ArrayTable:
    array = open_array(features)
    if array.ndim != 2 or not array.size or array.dtype.kind not in "iufb":
        raise CorpusFormatError(f"'{path}' holds {array.dtype} of the shape {array.shape}; numbers in rows are needed")
    rows, columns = array.shape
    chosen = kind_of(array.dtype, kind, str(path))
    return _checked(ArrayTable(path=path, files=(features,), y=labels, kind=chosen, rows=rows, num_features=columns))


def _checked(table: ArrayTable) -> ArrayTable:
    labels = open_array(table.y)
    if labels.shape != (table.rows,):
        raise CorpusFormatError(
            f"'{table.path}' has {table.rows:,} rows, its labels in '{table.y}' have the shape {labels.shape}; one "
            "label a row is needed"
        )
    return table

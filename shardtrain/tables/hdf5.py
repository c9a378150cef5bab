"""Finds features and labels in other people's HDF5 files: dense arrays, and sparse groups as AnnData and 10x keep them.

Only hard links are followed, and every dataset has to be honest (see `shards.honest`). A sparse group is CSR if its
pointers count rows; a 10x file calls the same thing CSC of the transposed matrix. libhdf5 is used here, to look, to
read labels and to convert; never to read features in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.errors import CorpusFormatError, CorruptShardError, LabelError, ShardsError, ShardtrainError
from shardtrain.shards.codecs import load_plugins
from shardtrain.shards.safety import check_contents, check_storage, open_object, open_untrusted
from shardtrain.tables.blocks import BLOCK_BYTES, Block, features_kind, kind_of, tidy
from shardtrain.tables.labels import RawLabels, raw_labels

LABELS_AT_ONCE = 1 << 20
MAX_CATEGORIES = 1 << 20  # far more than classes can be, and still no burden


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Where features lie in a file: `x` is a dataset, or else the group of the datasets `data`, `indices`, `indptr`."""

    x: str
    sparse: bool
    rows: int
    num_features: int
    dtype: np.dtype[Any]


@contextmanager
def open_file(path: Path) -> Iterator[Any]:
    """An open HDF5 file, with the filters of hdf5plugin where that is installed, and no others.

    Raises:
        ShardsError: it is missing or cannot be read.
        CorruptShardError: it is no HDF5 file, or libhdf5 finds something wrong in the block.
    """
    load_plugins()
    with open_untrusted(path) as file:
        try:
            yield file
        except ShardtrainError:
            raise
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            raise CorruptShardError(f"'{path}' is damaged, or not what HDF5 can read: {error}") from error


def check_readable(dataset: Any) -> None:
    """Refuse a dataset that libhdf5 cannot decode.

    Raises:
        ShardsError: it needs a filter that is not installed.
    """
    import h5py

    properties = dataset.id.get_create_plist()
    for number in range(properties.get_nfilters()):
        code, _, _, title = properties.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            raise ShardsError(
                f"'{dataset.name}' in '{dataset.file.filename}' needs the HDF5 filter {code} "
                f"({title.decode(errors='replace')[:40]!r}); install hdf5plugin, or rewrite the file without it "
                "(h5repack -f NONE)"
            )


def find_matrix(file: Any, name: str) -> Matrix:
    """The features `name` of an open file.

    Raises:
        ShardsError: there are no such features, or what is there cannot be used.
    """
    import h5py

    found = open_object(file, name)
    where = f"'{name}' in '{file.filename}'"
    if isinstance(found, h5py.Dataset):
        check_contents(found)
        if found.ndim != 2 or not found.size:
            raise ShardsError(
                f"{where} has the shape {found.shape}; features have rows and columns, at least one of each"
            )
        return Matrix(x=name, sparse=False, rows=found.shape[0], num_features=found.shape[1], dtype=found.dtype)
    parts = {part: open_object(file, f"{name}/{part}") for part in ("data", "indices", "indptr")}
    for part in parts.values():
        check_contents(part)
        if part.ndim != 1:
            raise ShardsError(f"'{part.name}' in '{file.filename}' has the shape {part.shape}; it has to be a list")
    for part in (parts["indices"], parts["indptr"]):
        if part.dtype.kind not in "iu":
            raise ShardsError(f"'{part.name}' in '{file.filename}' has the type {part.dtype}; it has to be integers")
    encoding = _text(found.attrs.get("encoding-type", "csr_matrix"))
    if encoding not in ("csr_matrix", "csr"):
        raise ShardsError(
            f"{where} is a {encoding}, and rows can be read from a csr_matrix alone: store it as CSR (in anndata: "
            "adata.X = adata.X.tocsr())"
        )
    rows = parts["indptr"].shape[0] - 1
    if rows < 1 or parts["data"].shape != parts["indices"].shape:
        raise ShardsError(
            f"{where} has {parts['indptr'].shape[0]:,} pointers, {parts['indices'].shape[0]:,} indices and "
            f"{parts['data'].shape[0]:,} values, which is no CSR matrix"
        )
    check_readable(parts["indptr"])
    first, last = int(parts["indptr"][0]), int(parts["indptr"][-1])
    if first != 0 or last != parts["data"].shape[0]:
        raise ShardsError(f"{where} has row pointers from {first:,} to {last:,} for {parts['data'].shape[0]:,} values")
    return Matrix(
        x=name, sparse=True, rows=rows, num_features=_num_features(found, rows, where), dtype=parts["data"].dtype
    )


def _num_features(group: Any, rows: int, where: str) -> int:
    """From the attribute `shape` (rows, columns) of AnnData, or the dataset `shape` (columns, rows) of 10x."""
    shape = group.attrs.get("shape", group.attrs.get("h5sparse_shape"))
    if shape is None and "shape" in group:
        dataset = open_object(group.file, f"{group.name}/shape")
        check_contents(dataset)
        check_readable(dataset)
        shape = dataset[...][::-1] if dataset.shape == (2,) else None
    sizes = np.asarray(() if shape is None else shape).ravel()
    if len(sizes) != 2 or sizes.dtype.kind not in "iuf" or sizes[0] != rows or not 0 < sizes[1] < 1 << 31:
        raise ShardsError(
            f"{where} has {rows:,} rows by its pointers, and says that its shape is {sizes.tolist()!r:.60}"
        )
    return int(sizes[1])


def label_blocks(file: Any, name: str, rows: int, start: int = 0, stop: int | None = None) -> Iterator[RawLabels]:
    """Labels of rows [start, stop) of an open file, some at a time: integers or text, or AnnData's categories.

    Raises:
        ShardsError: there are no such labels, or as many as rows.
        LabelError: they cannot be labels.
    """
    import h5py

    stop = rows if stop is None else stop
    found = open_object(file, name)
    where = f"'{name}' in '{file.filename}'"
    categories: npt.NDArray[Any] | None = None
    if isinstance(found, h5py.Group):
        if not {"codes", "categories"} <= set(found):
            raise ShardsError(f"{where} is a group without 'codes' and 'categories'; name a dataset of labels")
        categories = _categories(open_object(file, f"{name}/categories"), where)
        found = open_object(file, f"{name}/codes")
    check_storage(found)
    check_readable(found)
    if categories is not None and found.dtype.kind not in "iu":
        raise LabelError(f"{where} has codes of the type {found.dtype}; codes are the numbers of categories")
    if found.shape != (rows,):
        raise ShardsError(
            f"{where} has the shape {found.shape}, the features have {rows:,} rows; one label a row is needed"
        )
    for begin in range(start, stop, LABELS_AT_ONCE):
        values = found[begin : min(begin + LABELS_AT_ONCE, stop)]
        yield raw_labels(values, where) if categories is None else _of_categories(values, categories, where)


def _categories(dataset: Any, where: str) -> npt.NDArray[Any]:
    check_storage(dataset)
    check_readable(dataset)
    if dataset.ndim != 1 or dataset.size > MAX_CATEGORIES:
        raise LabelError(
            f"{where} has categories of the shape {dataset.shape}; it has to be a list of at most {MAX_CATEGORIES:,}"
        )
    values: npt.NDArray[Any] = dataset[...]
    return values


def _of_categories(codes: npt.NDArray[Any], categories: npt.NDArray[Any], where: str) -> RawLabels:
    """Labels that are numbers of categories; those that no row has are left out, as a subset of a table keeps them."""
    used, place = np.unique(codes, return_inverse=True)
    if len(used) and (used[0] < 0 or used[-1] >= len(categories)):
        wrong = used[0] if used[0] < 0 else used[-1]
        raise LabelError(f"{where} has rows without a label (code {wrong}); every row needs one")
    names = raw_labels(categories[used], where)
    return RawLabels(names.names, names.codes[place])


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


@dataclass(frozen=True, kw_only=True)
class Hdf5Table:
    """Features and labels of one HDF5 file, to be converted; read by libhdf5, with every filter it has."""

    path: Path
    x: str
    y: str
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
        """Row ranges of about a block each."""
        with open_file(self.path) as file:
            if self.kind == "ngram":
                row_bytes = 8 * file[self.x]["data"].shape[0] // self.rows
            else:
                row_bytes = file[self.x].dtype.itemsize * self.num_features
        step = min(max(1, BLOCK_BYTES // max(row_bytes, 1)), LABELS_AT_ONCE)
        return [(start, min(start + step, self.rows)) for start in range(0, self.rows, step)]

    def labels(self, start: int, stop: int) -> Iterator[RawLabels]:
        """Labels of rows [start, stop)."""
        with open_file(self.path) as file:
            yield from label_blocks(file, self.y, self.rows, start, stop)

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """Features and labels of rows [start, stop)."""
        with open_file(self.path) as file:
            (labels,) = label_blocks(file, self.y, self.rows, start, stop)
            if self.kind != "ngram":
                yield Block(features_kind(file[self.x][start:stop], self.kind, str(self.path)), labels)
                return
            group = file[self.x]
            pointers = group["indptr"][start : stop + 1].astype(np.int64)
            first, last = int(pointers[0]), int(pointers[-1])
            x = tidy(
                group["data"][first:last],
                group["indices"][first:last],
                pointers - first,
                self.num_features,
                str(self.path),
            )
            yield Block(x, labels)


def open_table(path: Path, x: str, y: str, kind: str) -> Hdf5Table:
    """The table in an HDF5 file; `kind` decides whether whole numbers are "dense" features or token ids.

    Raises:
        ShardsError: it cannot be used, or needs a filter that is not installed.
    """
    with open_file(path) as file:
        matrix = find_matrix(file, x)
        for name in (f"{x}/data", f"{x}/indices") if matrix.sparse else (x,):
            check_readable(file[name])
        return Hdf5Table(
            path=path,
            x=x,
            y=y,
            kind=matrix_kind(matrix, kind, path),
            rows=matrix.rows,
            num_features=matrix.num_features,
        )


def matrix_kind(matrix: Matrix, kind: str, path: Path) -> str:
    """What features are: as they are where that is plain, else as `kind` says.

    Raises:
        CorpusFormatError: whole numbers, which may be either, or a kind that they cannot be.
    """
    if matrix.sparse:
        if kind not in ("auto", "sparse"):
            raise CorpusFormatError(f"'{matrix.x}' in '{path}' is sparse, so it cannot be --kind {kind}")
        return "ngram"
    return kind_of(matrix.dtype, kind, f"{path}:{matrix.x}")

"""Find features and labels in external HDF5 files: dense arrays, and sparse groups as AnnData and 10x store them.

Only hard links are followed, and every dataset passes the checks of `shards.safety`. A sparse group is CSR if its
pointers count rows; 10x files call the same arrays CSC of the transposed matrix. libhdf5 is used to inspect, to read
labels and to convert, never to read features in training.
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
from shardtrain.shards.safety import HDF5_ERRORS, check_contents, check_storage, open_object, open_untrusted
from shardtrain.tables.blocks import Block, as_csr, as_features, kind_of, rows_per_block
from shardtrain.tables.labels import RawLabels, joined, raw_labels

LABELS_AT_ONCE = 1 << 20
MAX_CATEGORIES = 1 << 20  # far more than the maximum number of classes, and little memory


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Location of features in a file: `x` is a dataset, or a group with the datasets `data`, `indices`, `indptr`."""

    x: str
    sparse: bool
    rows: int
    num_features: int
    dtype: np.dtype[Any]


@contextmanager
def open_file(path: Path) -> Iterator[Any]:
    """Open an HDF5 file, with the filters of hdf5plugin if that is installed, and no others.

    Raises:
        ShardsError: the file is missing or cannot be read.
        CorruptShardError: it is not an HDF5 file, or libhdf5 fails inside the `with` block.
    """
    load_plugins()
    with open_untrusted(path) as file:
        try:
            yield file
        except ShardtrainError:
            raise
        except HDF5_ERRORS as error:
            raise CorruptShardError(f"'{path}' is damaged, or libhdf5 cannot read it: {error}") from error


def check_readable(dataset: Any) -> None:
    """Check that libhdf5 can decode a dataset.

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
    """Return the location and size of the features `name` of an open file.

    Raises:
        ShardsError: they do not exist or cannot be used.
    """
    import h5py

    found = open_object(file, name)
    where = f"'{name}' in '{file.filename}'"
    if isinstance(found, h5py.Dataset):
        check_contents(found)
        if found.ndim != 2 or not found.size:
            raise ShardsError(f"{where} has the shape {found.shape}; expected (rows, columns), at least one of each")
        return Matrix(x=name, sparse=False, rows=found.shape[0], num_features=found.shape[1], dtype=found.dtype)
    parts = {part: open_object(file, f"{name}/{part}") for part in ("data", "indices", "indptr")}
    for part in parts.values():
        check_contents(part)
        if part.ndim != 1:
            raise ShardsError(f"'{part.name}' in '{file.filename}' has the shape {part.shape}; expected one dimension")
    for part in (parts["indices"], parts["indptr"]):
        if part.dtype.kind not in "iu":
            raise ShardsError(f"'{part.name}' in '{file.filename}' has the type {part.dtype}; expected integers")
    encoding = _text(found.attrs.get("encoding-type", "csr_matrix"))
    if encoding not in ("csr_matrix", "csr"):
        raise ShardsError(
            f"{where} is a {encoding}, but rows can only be read from a csr_matrix: store it as CSR (in anndata: "
            "adata.X = adata.X.tocsr())"
        )
    rows = parts["indptr"].shape[0] - 1
    if rows < 1 or parts["data"].shape != parts["indices"].shape:
        raise ShardsError(
            f"{where} is not a CSR matrix: it has {parts['indptr'].shape[0]:,} pointers, {parts['indices'].shape[0]:,} "
            f"indices and {parts['data'].shape[0]:,} values"
        )
    check_readable(parts["indptr"])
    first, last = int(parts["indptr"][0]), int(parts["indptr"][-1])
    if first != 0 or last != parts["data"].shape[0]:
        raise ShardsError(f"{where} has row pointers from {first:,} to {last:,} for {parts['data'].shape[0]:,} values")
    return Matrix(
        x=name, sparse=True, rows=rows, num_features=_num_features(found, rows, where), dtype=parts["data"].dtype
    )


def _num_features(group: Any, rows: int, where: str) -> int:
    """Read the attribute `shape` (rows, columns) of AnnData, or the dataset `shape` (columns, rows) of 10x."""
    shape = group.attrs.get("shape", group.attrs.get("h5sparse_shape"))
    if shape is None and "shape" in group:
        dataset = open_object(group.file, f"{group.name}/shape")
        check_contents(dataset)
        check_readable(dataset)
        shape = dataset[...][::-1] if dataset.shape == (2,) else None
    sizes = np.asarray(() if shape is None else shape).ravel()
    if len(sizes) != 2 or sizes.dtype.kind not in "iuf" or sizes[0] != rows or not 0 < sizes[1] < 1 << 31:
        raise ShardsError(f"{where} has {rows:,} rows by its pointers, but states the shape {sizes.tolist()!r:.60}")
    return int(sizes[1])


def label_blocks(file: Any, name: str, rows: int, start: int = 0, stop: int | None = None) -> Iterator[RawLabels]:
    """Yield labels of rows [start, stop) of an open file in blocks: integers, text, one-hot, or AnnData's categories.

    Raises:
        ShardsError: the labels do not exist, or there are not as many as rows.
        LabelError: the values cannot be labels.
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
        raise LabelError(f"{where} has codes of the type {found.dtype}; expected integers")
    columns = found.shape[1] if found.ndim == 2 else 1
    if found.ndim not in (1, 2) or found.shape[0] != rows or not columns or (categories is not None and columns > 1):
        raise ShardsError(
            f"{where} has the shape {found.shape}, the features have {rows:,} rows; expected one label per row"
        )
    step = max(1, LABELS_AT_ONCE // columns)
    for begin in range(start, stop, step):
        values = found[begin : min(begin + step, stop)]
        if categories is None:
            yield raw_labels(values, where, first=begin)
        else:
            yield _of_categories(values.reshape(len(values)), categories, where)


def _categories(dataset: Any, where: str) -> npt.NDArray[Any]:
    check_storage(dataset)
    check_readable(dataset)
    if dataset.ndim != 1 or dataset.size > MAX_CATEGORIES:
        raise LabelError(
            f"{where} has categories of the shape {dataset.shape}; expected one dimension, at most {MAX_CATEGORIES:,}"
        )
    values: npt.NDArray[Any] = dataset[...]
    return values


def _of_categories(codes: npt.NDArray[Any], categories: npt.NDArray[Any], where: str) -> RawLabels:
    """Convert category codes to labels; unused categories, which a subset of a table keeps, are omitted."""
    used, place = np.unique(codes, return_inverse=True)
    if len(used) and (used[0] < 0 or used[-1] >= len(categories)):
        wrong = used[0] if used[0] < 0 else used[-1]
        raise LabelError(f"{where} has rows without a label (code {wrong}); every row needs a label")
    names = raw_labels(categories[used], where)
    return RawLabels(names.names, names.codes[place])


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


@dataclass(frozen=True, kw_only=True)
class Hdf5Table:
    """Features and labels of one HDF5 file to convert; read by libhdf5, with every installed filter."""

    path: Path
    x: str
    y: str
    kind: str
    rows: int
    num_features: int
    num_values: int

    @property
    def num_bytes(self) -> int:
        """Bytes of the features in shards; sparse ones are a value and a column each, and an offset per row."""
        return 8 * (self.num_values + self.rows) if self.kind == "ngram" else 4 * self.num_values

    @property
    def units(self) -> str:
        """Pieces are ranges of rows."""
        return "rows"

    def pieces(self) -> list[tuple[int, int]]:
        """Cut the rows into ranges of about a block each."""
        with open_file(self.path) as file:
            if self.kind == "ngram":
                row_bytes = 8 * self.num_values // self.rows
            else:
                row_bytes = file[self.x].dtype.itemsize * self.num_features
        step = min(rows_per_block(row_bytes), LABELS_AT_ONCE)
        return [(start, min(start + step, self.rows)) for start in range(0, self.rows, step)]

    def labels(self, start: int, stop: int) -> Iterator[RawLabels]:
        """Yield the labels of rows [start, stop)."""
        with open_file(self.path) as file:
            yield from label_blocks(file, self.y, self.rows, start, stop)

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """Yield the features and labels of rows [start, stop)."""
        with open_file(self.path) as file:
            labels = joined(label_blocks(file, self.y, self.rows, start, stop))
            if self.kind != "ngram":
                yield Block(as_features(file[self.x][start:stop], self.kind, str(self.path)), labels)
                return
            group = file[self.x]
            pointers = group["indptr"][start : stop + 1].astype(np.int64)
            first, last = int(pointers[0]), int(pointers[-1])
            x = as_csr(
                group["data"][first:last],
                group["indices"][first:last],
                pointers - first,
                self.num_features,
                str(self.path),
            )
            yield Block(x, labels)


def open_table(path: Path, x: str, y: str, kind: str) -> Hdf5Table:
    """Open the table in an HDF5 file; `kind` decides whether integers are "dense" features or "tokens".

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
            num_values=file[f"{x}/data"].size if matrix.sparse else file[x].size,
        )


def matrix_kind(matrix: Matrix, kind: str, path: Path) -> str:
    """Return the kind of features: by their storage and type if these decide it, else by the option `kind`.

    Raises:
        CorpusFormatError: integers with `kind` "auto", or a kind that the features cannot have.
    """
    if matrix.sparse:
        if kind not in ("auto", "sparse"):
            raise CorpusFormatError(f"'{matrix.x}' in '{path}' is sparse, which --kind {kind} does not fit")
        return "ngram"
    return kind_of(matrix.dtype, kind, f"{path}:{matrix.x}")

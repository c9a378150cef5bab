"""Open tables by the extension of their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shardtrain.errors import CorpusNotFoundError, UsageError
from shardtrain.tables.arrays import open_npy, open_npz
from shardtrain.tables.blocks import Table
from shardtrain.tables.hdf5 import open_table
from shardtrain.tables.libsvm import open_libsvm
from shardtrain.tables.parquet import open_parquet

HDF5 = (".h5", ".hdf5", ".h5ad", ".hdf", ".loom")
LIBSVM = (".svm", ".libsvm", ".svmlight", ".txt")


def open_tables(
    files: Sequence[Path],
    x: Sequence[str],
    y: Sequence[str],
    kind: str,
    scratch: Path,
    memory_limit: int | None = None,
) -> list[Table]:
    """Open the tables in files; `y` has one name for all files, or one per file.

    Args:
        files: of one or several formats.
        x: names of the features.
        y: names of the labels.
        kind: what integers are; see `kind_of`.
        scratch: existing folder for members of archives.
        memory_limit: for one process that reads them, in bytes; None: there is none.

    Raises:
        UsageError: the type of a file is not supported, or names do not fit the files.
        CorpusError: a file cannot be used.
        ShardsError: an HDF5 file cannot be used.
    """
    if len(y) > 1 and len(y) < len(files):
        raise UsageError(f"--y has {len(y)} names for {len(files)} files; give one for all files, or one per file")
    tables: list[Table] = []
    for number, path in enumerate(files):
        if not path.is_file():
            raise CorpusNotFoundError(f"there is no file '{path}'")
        place = scratch / f"members-{number:03}-{path.stem}"
        place.mkdir(exist_ok=True)
        tables.append(_open(path, x, y[number : number + 1] if len(y) > 1 else y, kind, place, memory_limit))
    return tables


def _open(path: Path, x: Sequence[str], y: Sequence[str], kind: str, scratch: Path, memory_limit: int | None) -> Table:
    ending = path.suffix.lower()
    if ending in LIBSVM:
        if x or y or kind not in ("auto", "sparse"):
            raise UsageError(
                f"'{path}' is a LibSVM file, whose labels and features have no names; omit --x, --y and --kind"
            )
        return open_libsvm(path)
    if ending == ".npy":
        if x:
            raise UsageError(f"'{path}' is one array, which has no names; omit --x")
        return open_npy(path, y, kind)
    if not y:
        raise UsageError(f"name the labels in '{path}' with --y")
    if ending == ".npz":
        return open_npz(path, x[0] if x else None, y[0], kind, scratch)
    if ending in (".parquet", ".pq"):
        return open_parquet(path, x, y[0], kind, memory_limit)
    if ending in HDF5:
        if len(x) != 1:
            raise UsageError(f"name the features in '{path}' with --x, one dataset or group")
        return open_table(path, x[0], y[0], kind)
    raise UsageError(
        f"'{path}' has an unsupported extension; supported are .npy, .npz, .svm, .libsvm, .parquet, .h5 and .h5ad"
    )

"""Laws of the labels of tables: a column and one-hot rows mean what plain labels do, and several labels are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import random, save_npz

from shardtrain.errors import CorpusFormatError, LabelError
from shardtrain.pipeline.convert import convert
from shardtrain.pipeline.index import index
from shardtrain.pipeline.options import ConvertOptions, IndexOptions
from shardtrain.shards.layout import Manifest
from shardtrain.tables import arrays, blocks, hdf5, parquet
from shardtrain.tables.labels import joined, raw_labels

ROWS, CLASSES = 600, 3
RNG = np.random.default_rng(3)
X = RNG.normal(size=(ROWS, 4)).astype(np.float32)
SPARSE = random(ROWS, 30, 0.2, "csr", np.float32, random_state=3)
Y = RNG.integers(0, CLASSES, ROWS)
ONE_HOT = np.eye(CLASSES)[Y]
WRONG = 437  # the row with other labels than one


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks of features and of labels in these little tables."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2_000)
    for module, name in ((hdf5, "LABELS_AT_ONCE"), (arrays, "_LABELS_AT_ONCE"), (parquet, "_ROWS_AT_ONCE")):
        monkeypatch.setattr(module, name, 100)


def options(y: str, **how: Any) -> ConvertOptions:
    return ConvertOptions(y=(y,), workers=1, **how)


def npy(folder: Path, y: np.ndarray) -> Manifest:
    np.save(folder / "x.npy", X)
    np.save(folder / "y.npy", y)
    return convert([folder / "x.npy"], folder / "out", options(str(folder / "y.npy")))


def npz(folder: Path, y: np.ndarray) -> Manifest:
    np.savez(folder / "a.npz", x=X, y=y)
    return convert([folder / "a.npz"], folder / "out", options("y"))


def sparse(folder: Path, y: np.ndarray) -> Manifest:
    save_npz(folder / "a.npz", SPARSE)
    np.save(folder / "y.npy", y)
    return convert([folder / "a.npz"], folder / "out", options(str(folder / "y.npy")))


def hdf5_file(folder: Path, y: np.ndarray) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"], file["y"] = X, y
    return folder / "a.h5"


def converted_hdf5(folder: Path, y: np.ndarray) -> Manifest:
    return convert([hdf5_file(folder, y)], folder / "out", options("y", x=("x",)))


def indexed_hdf5(folder: Path, y: np.ndarray) -> Manifest:
    return index([hdf5_file(folder, y)], folder / "out", IndexOptions(x="x", y="y"))


def lists(folder: Path, y: np.ndarray, kind: pa.DataType | None = None) -> Manifest:
    columns = {f"x{number}": X[:, number] for number in range(X.shape[1])}
    labels = pa.array(y.tolist() if y.ndim > 1 else y, kind if y.ndim > 1 else None)
    pq.write_table(pa.table({**columns, "y": labels}), folder / "a.parquet", row_group_size=250)
    return convert([folder / "a.parquet"], folder / "out", options("y"))


def fixed_lists(folder: Path, y: np.ndarray) -> Manifest:
    return lists(folder, y, pa.list_(pa.int64(), y.shape[1]) if y.ndim > 1 else None)


Write = Callable[[Path, np.ndarray], Manifest]
FORMATS: dict[str, Write] = {
    "npy": npy,
    "npz": npz,
    "sparse npz": sparse,
    "hdf5, converted": converted_hdf5,
    "hdf5, indexed": indexed_hdf5,
    "parquet lists": lists,
    "parquet lists of one size": fixed_lists,
}


@pytest.mark.parametrize("labels", [Y[:, None], ONE_HOT.astype(np.int8)], ids=["a column", "one-hot"])
@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS.keys())
def test_a_column_and_one_hot_rows_give_the_shards_of_plain_labels(
    write: Write, labels: np.ndarray, tmp_path: Path
) -> None:
    found = []
    for name, y in (("plain", Y), ("other", labels)):
        (tmp_path / name).mkdir()
        found.append(write(tmp_path / name, y))
    plain, other = found
    assert other.class_names == plain.class_names == ("0", "1", "2")
    assert {name: split.class_counts for name, split in other.splits.items()} == {
        name: split.class_counts for name, split in plain.splits.items()
    }
    for file in sorted((tmp_path / "plain" / "out").glob("*.h5")):
        assert file.read_bytes() == (tmp_path / "other" / "out" / file.name).read_bytes()


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ([0, 2], "has 2 labels; several labels per row are not supported yet: keep one label per row, or"),
        ([], "has no label; every row needs one"),
    ],
    ids=["two labels", "no label"],
)
@pytest.mark.parametrize("write", FORMATS.values(), ids=FORMATS.keys())
def test_the_first_row_without_exactly_one_label_is_named(
    write: Write, columns: list[int], said: str, tmp_path: Path
) -> None:
    labels = ONE_HOT.astype(np.int64)
    labels[WRONG] = 0
    labels[WRONG, columns] = 1
    labels[WRONG + 60] = 1  # a later one
    with pytest.raises(LabelError, match=f"row {WRONG} .* of the labels in '.*{said}") as refused:
        write(tmp_path, labels)
    where = {npy: "y.npy", sparse: "y.npy", npz: "'y' in '"}.get(write, "'y' in '")  # type: ignore[call-overload]
    assert where in str(refused.value)
    assert ".building" not in str(refused.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([["a"], ["b", "c"], ["a"]], "row 1 .* has 2 labels"),
        ([["a", "b"], ["a", "b"], ["c", "a"]], "row 0 .* has 2 labels"),
        ([[1], [], [0]], "row 1 .* has no label"),
        ([[4, 2], [0, 1], [1, 0]], "row 0 .* has the value 4 in one of 2 columns; .* must be one-hot"),
    ],
    ids=["of several lengths", "of text", "empty", "of numbers"],
)
def test_lists_of_labels_in_parquet_are_refused_by_their_first_row(
    labels: list[list[Any]], said: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"x": [0.5, 1.5, 2.5], "y": labels}), tmp_path / "a.parquet")
    with pytest.raises(LabelError, match=f"{said}"):
        convert([tmp_path / "a.parquet"], tmp_path / "out", options("y"))


def test_lists_of_one_text_are_labels(tmp_path: Path) -> None:
    labels = [["cat"], ["dog"]] * 20
    pq.write_table(pa.table({"x": np.arange(40) / 2, "y": labels}), tmp_path / "a.parquet")
    assert convert([tmp_path / "a.parquet"], tmp_path / "out", options("y")).class_names == ("cat", "dog")


@pytest.mark.parametrize("value", [0.5, -1, 2, np.nan])
def test_rows_of_other_numbers_than_0_and_1_are_no_labels(value: float) -> None:
    labels = ONE_HOT.copy()
    labels[5, 1] = value
    with pytest.raises(LabelError, match=r"row 105 \(from 0\) of the labels in here has the value .* one-hot"):
        raw_labels(labels, "here", first=100)


@pytest.mark.parametrize("shape", [(ROWS, 1, 1), (ROWS, 0), (ROWS - 1, 1)], ids=str)
def test_other_shapes_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(CorpusFormatError, match="expected one label per row"):
        npy(tmp_path, np.zeros(shape, np.int64))


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.sampled_from(["?", "i1", "u8", "f4"]), st.data())
def test_one_hot_rows_in_any_blocks_are_the_numbers_of_their_columns(
    classes: list[int], dtype: str, data: st.DataObject
) -> None:
    rows = np.eye(7, dtype=dtype)[classes]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    parts = np.split(rows, cuts)
    labels = joined(raw_labels(part, "here") for part in parts if len(part))
    assert [labels.names[code] for code in labels.codes] == [str(each) for each in classes]

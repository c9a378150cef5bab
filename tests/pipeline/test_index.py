"""Other people's HDF5 files are read where they are: the same values in every layout, and only what is honest."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import anndata
import h5py
import hdf5plugin
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csc_matrix, csr_matrix, random
from support.handmade import dense
from support.hostile import HOSTILE, VALUES
from support.manifests import at, reseal
from support.sampled import sampled

from shardtrain.cli.main import main
from shardtrain.errors import (
    CorpusFormatError,
    CorruptShardError,
    LabelError,
    ManifestError,
    ShardsError,
    ShardsNotFoundError,
    UsageError,
)
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline.index import index
from shardtrain.pipeline.options import IndexOptions, RecompressOptions
from shardtrain.pipeline.recompress import recompress
from shardtrain.report.summary import summarize_shards
from shardtrain.report.terminal import render
from shardtrain.shards.manifest import read_manifest
from shardtrain.shards.verify import verify_shards

ROWS, COLUMNS = 1500, 12
RNG = np.random.default_rng(5)
X = RNG.normal(size=(ROWS, COLUMNS)).astype(np.float16)  # what every type of fractions below holds exactly
Y = RNG.integers(0, 3, ROWS)
SPARSE = random(ROWS, 40, 0.1, "csr", np.float32, random_state=5)


def interleaved(file: h5py.File) -> None:
    """Two datasets that grew by turns, so that chunks of neither touch."""
    grown = [
        file.create_dataset(name, (0, COLUMNS), "f4", maxshape=(None, COLUMNS), chunks=(100, COLUMNS)) for name in "xz"
    ]
    for start in range(0, ROWS, 100):
        for dataset in grown:
            dataset.resize(start + 100, 0)
            dataset[start:] = X[start : start + 100]
            file.flush()


LAYOUTS = {
    "contiguous": lambda file: file.create_dataset("x", data=X.astype("f4")),
    "contiguous, big-endian doubles": lambda file: file.create_dataset("x", data=X.astype(">f8")),
    "contiguous, half floats": lambda file: file.create_dataset("x", data=X),
    "chunks of whole rows": lambda file: file.create_dataset("x", data=X.astype("f4"), chunks=(128, COLUMNS)),
    "chunks of parts of rows": lambda file: file.create_dataset("x", data=X.astype("f8"), chunks=(130, 5)),
    "chunks between other chunks": interleaved,
    "gzip": lambda file: file.create_dataset("x", data=X.astype("f4"), chunks=(100, 5), compression="gzip"),
    "gzip, shuffle and a checksum": lambda file: file.create_dataset(
        "x", data=X.astype("f8"), chunks=(64, COLUMNS), compression="gzip", shuffle=True, fletcher32=True
    ),
    "lzf": lambda file: file.create_dataset("x", data=X.astype("f4"), chunks=(200, 12), compression="lzf"),
    "zstd": lambda file: file.create_dataset("x", data=X.astype("f4"), chunks=(200, 12), **hdf5plugin.Zstd()),
}
MAPPED = {name for name in LAYOUTS if name.startswith("contiguous")} | {"chunks of whole rows"}


def make(path: Path, x="contiguous", y=Y) -> Path:
    with h5py.File(path, "w") as file:
        LAYOUTS[x](file) if isinstance(x, str) else file.create_dataset("x", data=x)
        file["y"] = y
    return path


def options(**changed) -> IndexOptions:
    return IndexOptions(**{"x": "x", "y": "y", **changed})


def rows_of(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features and class indices of all splits in the order of the source."""
    with open_shards(folder) as shards:
        parts = []
        for split in shards.splits.values():
            x, y = split.rows(0, split.num_examples)
            parts.append((split.documents(0, split.num_examples), dense(x), y))
        order = np.argsort(np.concatenate([part[0] for part in parts]), kind="stable")
        return np.concatenate([part[1] for part in parts])[order], np.concatenate([part[2] for part in parts])[order]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_values_that_h5py_reads(layout, tmp_path):
    index([make(tmp_path / "a.h5", layout)], tmp_path / "out", options())
    x, y = rows_of(tmp_path / "out")
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, X.astype(np.float32))
    np.testing.assert_array_equal(y, Y)
    with open_shards(tmp_path / "out") as shards:
        assert shards.description.kind == "dense"
        batches = list(shards.train.batches(100, seed=1, epoch=2, shuffle="window"))
        found = np.concatenate([x for x, _ in batches])
        expected, _ = shards.train.rows(0, shards.train.num_examples)
        np.testing.assert_array_equal(found[np.lexsort(found.T)], expected[np.lexsort(expected.T)])
        mapped = shards.train.shards[0].entry.datasets["x"].chunks is None
        assert mapped == (layout in MAPPED)
        view, _ = shards.train.rows(3, 9)
        assert view.flags.owndata is False or layout not in ("contiguous", "chunks of whole rows")
    assert verify_shards(tmp_path / "out", advance=lambda _: None).faults == ()


def test_the_features_are_not_copied_and_the_report_says_where_they_are(tmp_path):
    path = make(tmp_path / "a.h5", np.zeros((20_000, 200), np.float32), np.arange(20_000) % 2)
    index([path], tmp_path / "out", options())
    size = sum(file.stat().st_size for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert size < path.stat().st_size / 10
    assert f"features in {path}" in render(summarize_shards(tmp_path / "out", num_rows=1))


@pytest.mark.parametrize(
    "layout", ["contiguous", "contiguous, big-endian doubles", "chunks between other chunks", "lzf"]
)
def test_positioned_reads_give_the_same_rows_as_a_mapping(layout, tmp_path):
    index([make(tmp_path / "a.h5", layout)], tmp_path / "out", options())
    with open_shards(tmp_path / "out", io="map") as one, open_shards(tmp_path / "out", io="read") as other:
        pairs = zip(*(each.train.batches(64, seed=1, shuffle="global") for each in (one, other)), strict=True)
        for (x, y), (expected_x, expected_y) in pairs:
            np.testing.assert_array_equal(x, expected_x)
            np.testing.assert_array_equal(y, expected_y)


@pytest.mark.parametrize("layout", ["contiguous", "chunks of parts of rows", "gzip"])
@pytest.mark.parametrize("shuffle", ["none", "blocks", "window"])
def test_a_file_that_is_larger_than_memory_is_read_past_the_page_cache(layout, shuffle, tmp_path, monkeypatch):
    index([make(tmp_path / "a.h5", layout)], tmp_path / "out", options(validation_fraction=0.1))
    with open_shards(tmp_path / "out") as shards:
        assert all(file.mapped for split in shards.splits.values() for file in split.files)
        expected = list(shards.train.batches(64, seed=1, shuffle=shuffle))
    monkeypatch.setattr("shardtrain.loader.shards.memory_bytes", lambda: 1 << 10)
    with open_shards(tmp_path / "out") as shards:
        assert not any(file.mapped for split in shards.splits.values() for file in split.files)
        for epoch in range(2):  # the first compares checksums
            found = shards.train.batches(64, seed=1, shuffle=shuffle)
            for (x, y), (expected_x, expected_y) in zip(found, expected, strict=True):
                np.testing.assert_array_equal(x, expected_x, err_msg=f"epoch {epoch}")
                np.testing.assert_array_equal(y, expected_y)
        with pytest.raises(UsageError, match="would hold all of 'train' in memory"):
            next(iter(shards.train.batches(64, shuffle="global")))


def test_reading_needs_no_hdf5(tmp_path):
    index([make(tmp_path / "a.h5", "gzip")], tmp_path / "out", options())
    code = (
        f"import sys; from shardtrain.loader.shards import open_shards; s = open_shards({str(tmp_path / 'out')!r})\n"
        "sum(len(y) for _, y in s.train.batches(100, shuffle='window')); print('h5py' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.parametrize("dtype", ["<i8", "|u1", ">i4"])
def test_token_ids_of_any_whole_type_are_sequences(dtype, tmp_path):
    tokens = RNG.integers(0, 120, (ROWS, 7)).astype(dtype)
    with pytest.raises(CorpusFormatError, match="kind tokens"):
        index([make(tmp_path / "a.h5", tokens)], tmp_path / "out", options())
    index([tmp_path / "a.h5"], tmp_path / "out", options(kind="tokens"))
    with open_shards(tmp_path / "out") as shards:
        assert (shards.description.kind, shards.description.vocabulary_size) == ("sequence", tokens.max() + 1)
    x, _ = rows_of(tmp_path / "out")
    assert x.dtype == np.uint8
    np.testing.assert_array_equal(x, tokens)
    index([tmp_path / "a.h5"], tmp_path / "numbers", options(kind="dense"))
    assert rows_of(tmp_path / "numbers")[0].dtype == np.float32


def write_anndata(path: Path, **how) -> None:
    names = pd.Categorical(np.array(["b cell", "t cell", "other"])[Y])
    obs = pd.DataFrame({"kind": names}, index=[str(row) for row in range(ROWS)])
    anndata.AnnData(SPARSE, obs=obs).write_h5ad(path, **how)


def write_10x(path: Path, **how) -> None:
    """Cells are columns of a CSC matrix, which is to say rows of a CSR matrix."""
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group["shape"] = np.array(SPARSE.shape[::-1], np.int32)
        group.create_dataset("data", data=SPARSE.data, **how)
        group.create_dataset("indices", data=SPARSE.indices.astype(np.int64), **how)
        group.create_dataset("indptr", data=SPARSE.indptr.astype(np.int64), **how)
        file.create_group("obs")["kind"] = np.array(["b cell", "t cell", "other"], object)[Y]


@pytest.mark.parametrize("write", [write_anndata, write_10x])
@pytest.mark.parametrize("how", [{}, {"compression": "gzip"}, {"compression": "lzf"}], ids=str)
def test_sparse_groups_of_anndata_and_10x_are_read_where_they_are(write, how, tmp_path):
    write(tmp_path / "a.h5ad", **how)
    index([tmp_path / "a.h5ad"], tmp_path / "out", options(x="X", y="obs/kind"))
    x, y = rows_of(tmp_path / "out")
    np.testing.assert_array_equal(x, SPARSE.toarray())
    manifest = read_manifest(tmp_path / "out")
    assert manifest.class_names == ("b cell", "other", "t cell")
    np.testing.assert_array_equal(np.array(manifest.class_names)[y], np.array(["b cell", "t cell", "other"])[Y])
    assert (manifest.kind, manifest.num_features) == ("ngram", 40)
    assert any(entry.chunks for shard in manifest.splits["train"].shards for entry in shard.datasets.values()) == bool(
        how
    )


def csr_file(path: Path, matrix, **changed) -> Path:
    parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, **changed}
    with h5py.File(path, "w") as file:
        group = file.create_group("x")
        group.attrs["encoding-type"] = "csc_matrix" if isinstance(matrix, csc_matrix) else "csr_matrix"
        group.attrs["shape"] = matrix.shape
        for name, values in parts.items():
            group[name] = values
        file["y"] = Y
    return path


def unsorted() -> csr_matrix:
    matrix = SPARSE.copy()
    start = matrix.indptr[np.argmax(np.diff(matrix.indptr) > 1)]
    matrix.indices[[start, start + 1]] = matrix.indices[[start + 1, start]]
    return matrix


def changed(values: np.ndarray, at: int, to) -> np.ndarray:
    copy = values.copy()
    copy[at] = to
    return copy


BAD_SPARSE = {
    "column by column": (lambda: csc_matrix(SPARSE), {}, "is a csc_matrix"),
    "columns that do not ascend": (unsorted, {}, "shardtrain convert"),
    "a column outside": (lambda: SPARSE, {"indices": changed(SPARSE.indices, 5, 40)}, r"columns outside \[0, 40\)"),
    "a negative column": (lambda: SPARSE, {"indices": changed(SPARSE.indices, 5, -1)}, "columns outside"),
    "a column beyond 32 bits": (
        lambda: SPARSE,
        {"indices": changed(SPARSE.indices.astype(np.int64), 5, 1 << 32)},
        "columns outside",
    ),
    "pointers that fall": (lambda: SPARSE, {"indptr": changed(SPARSE.indptr, 9, 0)}, "row pointers that decrease"),
    "pointers beyond the values": (
        lambda: SPARSE,
        {"indptr": changed(SPARSE.indptr, ROWS, 1 << 30)},
        "row pointers from 0 to 1,073,741,824",
    ),
    "fewer values than pointers say": (lambda: SPARSE, {"indptr": changed(SPARSE.indptr, ROWS, 99)}, "row pointers"),
    "pointers that begin later": (lambda: SPARSE, {"indptr": changed(SPARSE.indptr, 0, 1)}, "row pointers from 1 to"),
    "fractions for columns": (lambda: SPARSE, {"indices": SPARSE.indices + 0.5}, "expected integers"),
    "fractions for pointers": (lambda: SPARSE, {"indptr": SPARSE.indptr + 0.5}, "expected integers"),
    "a value that is not finite": (lambda: SPARSE, {"data": changed(SPARSE.data, 3, np.nan)}, "not finite"),
    "fewer indices than values": (lambda: SPARSE, {"indices": SPARSE.indices[:-1]}, "is not a CSR matrix"),
}


@pytest.mark.parametrize("case", BAD_SPARSE)
def test_a_sparse_matrix_that_cannot_be_true_is_refused(case, tmp_path):
    matrix, parts, reason = BAD_SPARSE[case]
    path = csr_file(tmp_path / "a.h5", matrix(), **parts)
    with pytest.raises((ShardsError, CorpusFormatError), match=reason) as failure:
        index([path], tmp_path / "out", options())
    assert str(path) in str(failure.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", [case for case in HOSTILE if case not in ("a soft link on the way", "a user block")])
def test_features_that_are_not_honest_are_refused(case, tmp_path):
    hostile, reason = HOSTILE[case]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        hostile(file, tmp_path)
        file["y"] = np.arange(len(VALUES)) % 2
    wanted = {"no such name": "has no '/x'", "a group": "has no '/x/data'", "three dimensions": "shape"}.get(
        case, reason
    )
    kind = "dense" if case == "integers of 12 bits" else "auto"
    with pytest.raises((ShardsError, CorpusFormatError), match=wanted):
        index([tmp_path / "a.h5"], tmp_path / "out", options(kind=kind))
    assert not (tmp_path / "out").exists()


BAD_LABELS = {
    "fewer than rows": (Y[:-1], ShardsError, r"has the shape \(1499,\)"),
    "two a row": (np.stack([Y, Y], 1), LabelError, "of the labels in 'y' in .*a.h5' has"),
    "three dimensions": (Y[:, None, None], ShardsError, "one label per row"),
    "fractions": (Y + 0.5, LabelError, "fractions"),
    "missing": (np.where(Y == 1, np.nan, Y), LabelError, "fractions or missing"),
    "one class": (Y * 0, LabelError, "two classes"),
    "a gap": (Y * 2, LabelError, "labels names"),
    "empty text": (np.array(["a", "", "b"], object)[Y], LabelError, "is empty"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_labels_that_no_classifier_can_be_trained_on_are_refused(case, tmp_path):
    labels, error, reason = BAD_LABELS[case]
    with pytest.raises(error, match=reason):
        index([make(tmp_path / "a.h5", y=labels)], tmp_path / "out", options())


@pytest.mark.parametrize("shape", [(ROWS, -40), (ROWS, np.nan), "40", h5py.Empty("f4"), (ROWS,)], ids=str)
def test_a_shape_that_cannot_be_is_refused(shape, tmp_path):
    path = csr_file(tmp_path / "a.h5", SPARSE)
    with h5py.File(path, "r+") as file:
        file["x"].attrs["shape"] = shape
    with pytest.raises(ShardsError, match="but states the shape"):
        index([path], tmp_path / "out", options())


CATEGORIES = {
    "some that no row has": (Y, ["a", "b", "c", "d", ""], ("a", "b", "c")),
    "integers": (Y, [2, 0, 1], ("0", "1", "2")),
    "the same twice": (Y, ["a", "b", "a"], ("a", "b")),
    "fractions": (Y, [0.5, 1, 2], "fractions"),
    "not UTF-8": (Y, [b"\xff", b"b", b"c"], "not UTF-8"),
    "empty text": (Y, ["a", "", "c"], "is empty"),
    "one alone, not in a list": (Y, "a", "categories of the shape"),
    "codes that are text": (Y.astype("S1"), ["a", "b", "c"], "codes of the type"),
    "a code outside": (Y, ["a", "b"], r"without a label \(code 2\)"),
}


@pytest.mark.parametrize("case", CATEGORIES)
def test_categories_are_the_labels_of_the_rows_that_have_them(case, tmp_path):
    codes, categories, expected = CATEGORIES[case]
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        group = file.create_group("kind")
        group["codes"], group["categories"] = codes, categories
    if isinstance(expected, str):
        with pytest.raises(LabelError, match=expected):
            index([path], tmp_path / "out", options(y="kind"))
        return
    assert index([path], tmp_path / "out", options(y="kind")).class_names == expected
    names = [value if isinstance(value, str) else str(value) for value in categories]
    np.testing.assert_array_equal(np.array(expected)[rows_of(tmp_path / "out")[1]], np.array(names)[Y])


@pytest.mark.parametrize("command", sampled(["index", "convert"]))
def test_labels_and_pointers_may_be_compressed_as_features_are(command, tmp_path):
    """In a process of its own, where nothing has loaded the filters before."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in ("data", "indices", "indptr"):
            file.create_dataset(f"x/{name}", data=getattr(SPARSE, name), **hdf5plugin.Zstd())
        file["x"].attrs["shape"] = SPARSE.shape
        file.create_dataset("y", data=Y, **hdf5plugin.Zstd())
    code = (
        "import os, sys; from shardtrain.cli.main import main\n"
        "main(sys.argv[1:]); print(os.environ['HDF5_PLUGIN_PRELOAD'])"
    )
    arguments = [command, tmp_path / "a.h5", "--x", "x", "--y", "y", "--out", tmp_path / "out"]
    environment = {name: value for name, value in os.environ.items() if name != "HDF5_PLUGIN_PRELOAD"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.endswith("::\n"), done.stderr  # no library is looked for on the disk
    np.testing.assert_array_equal(rows_of(tmp_path / "out")[1], Y)


def test_what_h5py_cannot_read_is_named_and_is_no_error_of_ours(tmp_path, monkeypatch):
    from shardtrain.pipeline import index as indexing

    path = make(tmp_path / "a.h5")

    def unreadable(*_):
        raise ValueError("Insufficient precision in available types")

    monkeypatch.setattr(indexing, "find_matrix", unreadable)
    with pytest.raises(CorruptShardError, match=r"a\.h5' is damaged, or libhdf5 cannot read it: Insufficient"):
        index([path], tmp_path / "out", options())


def test_labels_behind_an_unknown_filter_are_refused(tmp_path):
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((100,))
        properties.set_filter(65_000, h5py.h5z.FLAG_OPTIONAL, ())
        h5py.h5d.create(file.id, b"z", h5py.h5t.STD_U8LE, h5py.h5s.create_simple((ROWS,)), properties)
    with pytest.raises(ShardsError, match=r"'/z' in .* needs the HDF5 filter 65000"):
        index([path], tmp_path / "out", options(y="z"))


def test_no_fraction_leaves_a_class_without_a_row_to_train_on(tmp_path, capsys):
    rare = changed(np.zeros(ROWS, int), slice(1, None, 2), 1)
    rare[-1] = 2
    manifest = index([make(tmp_path / "a.h5", y=rare)], tmp_path / "out", options())
    assert "1 class has only rows that the validation fraction would hold out" in capsys.readouterr().err
    assert manifest.splits["train"].class_counts[2] == 1
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"], file["y"] = X[:2], [0, 1]
    manifest = index([tmp_path / "b.h5"], tmp_path / "o", options(validation_fraction=0.99))
    assert {name: split.class_counts for name, split in manifest.splits.items()} == {"train": (1, 1)}


def test_a_row_without_a_category_is_refused(tmp_path):
    write_anndata(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        file["obs/kind/codes"][7] = -1
    with pytest.raises(LabelError, match="without a label"):
        index([tmp_path / "a.h5ad"], tmp_path / "out", options(x="X", y="obs/kind"))


def test_labels_behind_a_link_to_another_file_are_refused(tmp_path):
    make(tmp_path / "other.h5")
    make(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["y"]
        file["y"] = h5py.ExternalLink("other.h5", "y")
    with pytest.raises(ShardsError, match="external link"):
        index([tmp_path / "a.h5"], tmp_path / "out", options())


def test_features_that_are_not_finite_are_refused(tmp_path):
    for value in (np.nan, np.inf, 1e300):
        with pytest.raises(CorpusFormatError, match="not finite 32-bit numbers"):
            index([make(tmp_path / "a.h5", changed(X.astype("f8"), (3, 4), value))], tmp_path / "out", options())


def test_a_sorted_file_is_noticed_with_the_remedy_and_a_mixed_one_is_not(tmp_path, capsys):
    index([make(tmp_path / "mixed.h5")], tmp_path / "mixed", options())
    assert "sorted" not in capsys.readouterr().err
    index([make(tmp_path / "sorted.h5", y=np.sort(Y))], tmp_path / "sorted", options())
    said = capsys.readouterr().err
    assert "the rows are sorted: runs of one label have 500 rows, in random order they would have 1.5" in said
    assert "python -m shardtrain convert" in said


def test_held_out_rows_are_spread_over_the_file_and_none_is_in_both_splits(tmp_path):
    manifest = index([make(tmp_path / "a.h5", y=np.sort(Y))], tmp_path / "out", options(validation_fraction=0.25))
    with open_shards(tmp_path / "out") as shards:
        train, held = (split.documents(0, split.num_examples) for split in shards.splits.values())
    assert sorted([*train, *held]) == list(range(ROWS))
    assert len(held) == pytest.approx(ROWS / 4, abs=16)
    assert np.unique(held // (ROWS // 8)).size >= 8
    assert min(manifest.splits["validation"].class_counts) > 0.2 * ROWS / 12


def test_several_files_and_files_of_their_own_for_validation(tmp_path):
    first, second, third = (
        make(tmp_path / f"{name}.h5", layout) for name, layout in zip("abc", ["gzip", "contiguous", "lzf"], strict=True)
    )
    manifest = index([first, second], tmp_path / "out", options(validation=(third,)))
    assert (manifest.splits["train"].examples, manifest.splits["validation"].examples) == (2 * ROWS, ROWS)
    assert set(manifest.sources) == {str(first), str(second), str(third)}
    with open_shards(tmp_path / "out") as shards:
        np.testing.assert_array_equal(
            shards.train.rows(ROWS - 5, ROWS + 5)[0], np.concatenate([X[-5:], X[:5]]).astype("f4")
        )
        np.testing.assert_array_equal(shards.train.documents(0, 2 * ROWS), np.arange(2 * ROWS))
    with pytest.raises(UsageError, match="named twice"):
        index([first, first], tmp_path / "twice", options())
    make(tmp_path / "other.h5", np.zeros((ROWS, 3), np.float32))
    with pytest.raises(CorpusFormatError, match=r"12 dense columns.*3 dense columns"):
        index([first, tmp_path / "other.h5"], tmp_path / "other", options())


# The file afterwards.


@pytest.fixture(scope="module")
def indexed_once(tmp_path_factory) -> Path:
    """Shards, which tests copy before they change them."""
    folder = tmp_path_factory.mktemp("indexed")
    index([make(folder / "a.h5", "gzip")], folder / "out", options())
    return folder / "out"


@pytest.fixture
def indexed(tmp_path) -> tuple[Path, Path]:
    path = make(tmp_path / "a.h5", "gzip")
    index([path], tmp_path / "out", options())
    return path, tmp_path / "out"


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def swap(path: Path) -> None:
    """Another file with the same bytes and times."""
    stat = path.stat()
    shutil.copyfile(path, path.with_name("copy"))
    os.replace(path.with_name("copy"), path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


SPOILED = {
    "touched": (os.utime, CorruptShardError, "modified at"),
    "cut": (cut, CorruptShardError, "bytes: "),
    "swapped": (swap, CorruptShardError, "inode: "),
    "removed": (Path.unlink, ShardsNotFoundError, "index it at its new location"),
    "a folder": (replace_by_folder, CorruptShardError, "changed or replaced"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_file_that_changed_since_is_refused(case, indexed):
    path, out = indexed
    spoil, error, reason = SPOILED[case]
    spoil(path)
    for verify in (True, False):
        with pytest.raises(error, match=reason) as failure:
            open_shards(out, verify=verify)
    assert str(path) in str(failure.value)
    assert len(verify_shards(out, advance=lambda _: None).faults) == 1


def test_a_bit_that_flipped_without_a_trace_is_found_before_it_is_used(indexed):
    path, out = indexed
    stat = path.stat()
    chunks = read_manifest(out).splits["train"].shards[0].datasets["x"].chunks
    with open(path, "r+b") as file:
        file.seek(chunks.offsets[0] + 10)
        byte = file.read(1)[0]
        file.seek(chunks.offsets[0] + 10)
        file.write(bytes([byte ^ 4]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with open_shards(out) as shards, pytest.raises(CorruptShardError, match=r"a\.h5' is damaged"):
        shards.train.rows(0, 10)
    assert len(verify_shards(out, advance=lambda _: None).faults) == 1


def test_indexed_shards_become_ordinary_ones(indexed, tmp_path):
    path, out = indexed
    recompress(out, tmp_path / "copy", RecompressOptions(compress="lz4"))
    path.unlink()
    x, y = rows_of(tmp_path / "copy")
    np.testing.assert_array_equal(x, X.astype(np.float32))
    np.testing.assert_array_equal(y, Y)
    assert read_manifest(tmp_path / "copy").sources == {}


def x_entry(*keys):
    return at("splits", "train", "shards", 0, "datasets", "x", *keys)


def relative(body):
    (path,) = body["sources"]
    body["sources"]["a.h5"] = body["sources"].pop(path)


def labels_elsewhere(body):
    (path,) = body["sources"]
    body["splits"]["train"]["shards"][0]["datasets"]["y"]["source"] = path


IMPOSSIBLE = {
    "a source by a relative path": (relative, "is not an absolute path"),
    "features in a file that is no source": (x_entry("source")("/etc/passwd"), "cannot be in '/etc/passwd'"),
    "labels in a source": (labels_elsewhere, "cannot be in"),
    "features of objects": (x_entry("dtype")("|O"), "cannot be in"),
    "converted to something else": (x_entry("converted")("<f8"), "has type '<f8'"),
    "labels converted": (at("splits", "train", "shards", 0, "datasets", "y", "converted")("<i8"), "not in an external"),
    "no sources": (lambda body: body.pop("sources") and None, "needs the key 'sources'"),
    "version 1": (at("format_version")(1), "has no key 'sources'"),
    "an unknown filter": (x_entry("chunks", "filters")(["bzip2"]), "has the filters"),
    "a filter that is a number": (x_entry("chunks", "filters")([1]), "has the filters"),
    "too few chunks": (x_entry("chunks", "offsets")([4096]), "chunks of 'x'"),
    "too few sizes": (x_entry("chunks", "sizes")([10]), "sizes of chunks of 'x'"),
    "a chunk behind the end": (x_entry("chunks", "offsets", 0)(1 << 40), "outside the file"),
    "a chunk of no size": (x_entry("chunks", "sizes", 0)(0), "a chunk's size of 'x'"),
    "a chunk at a fraction": (x_entry("chunks", "offsets", 0)(0.5), "a chunk's offset of 'x'"),
    "chunks without rows": (x_entry("chunks", "shape", 0)(0), "a chunk's size of 'x'"),
    "chunks of other dimensions": (x_entry("chunks", "shape")([100]), "has chunks, an offset"),
    "chunks of gigabytes": (x_entry("chunks", "shape", 0)(1 << 40), "bytes of a chunk"),
    "a start behind the first chunk": (x_entry("chunks", "start")(100), "start of 'x'"),
    "a mask of more filters": (x_entry("chunks", "masks")([9]), "masks of chunks"),
    "chunks and an offset": (x_entry("offset")(4096), "has chunks, an offset of 4096"),
    "null for chunks": (x_entry("chunks")(None), "null"),
    "an unknown key of chunks": (x_entry("chunks", "colour")(1), "colour"),
    "a source without size": (lambda body: next(iter(body["sources"].values())).update(bytes=-1), "bytes of"),
    "a source without checksums": (lambda body: next(iter(body["sources"].values())).update(checksums=""), "checksums"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_an_impossible_manifest_of_an_indexed_file_is_refused(case, indexed_once, tmp_path):
    out = Path(shutil.copytree(indexed_once, tmp_path / "out"))
    change, reason = IMPOSSIBLE[case]
    reseal(out, change)
    with pytest.raises(ManifestError, match="is not a valid manifest") as failure:
        open_shards(out)
    assert reason in str(failure.value)


def test_killed_while_indexing_there_are_no_shards_and_the_same_command_makes_them(building, tmp_path):
    path = make(tmp_path / "a.h5")
    code = (
        "import os, signal, sys\nfrom shardtrain.cli.main import main\nreal, left = os.replace, [6]\n"
        "def replace(a, b):\n    left[0] -= 1\n    left[0] or os.kill(os.getpid(), signal.SIGKILL)\n    real(a, b)\n"
        "os.replace = replace\nmain(sys.argv[1:])"
    )
    command = ["index", str(path), "--x", "x", "--y", "y", "--out", str(tmp_path / "out")]
    assert building.run(code, *command).returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert main(command) == 0
    np.testing.assert_array_equal(rows_of(tmp_path / "out")[0], X.astype(np.float32))


def test_the_command_line_says_how_the_features_are_read_and_what_comes_next(tmp_path, capsys):
    make(tmp_path / "a.h5", "gzip, shuffle and a checksum")
    command = ["index", str(tmp_path / "a.h5"), "--x", "x", "--y", "y", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "read chunk by chunk, decoded from deflate and fletcher32 and shuffle" in said
    assert "python -m shardtrain fit" in said
    assert main(command) == 1
    assert "already holds shards" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert main(["index", str(tmp_path / "nowhere.h5"), *command[2:-1], str(tmp_path / "o")]) == 1
    assert "nowhere.h5' cannot be read" in capsys.readouterr().err
    (tmp_path / "no.h5").write_text(json.dumps({}))
    assert main(["index", str(tmp_path / "no.h5"), *command[2:-1], str(tmp_path / "o")]) == 1
    assert "is not an HDF5 file" in capsys.readouterr().err

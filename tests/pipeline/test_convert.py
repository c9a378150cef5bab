"""Tables of other people become shards: the same rows in mixed order, whatever the format, memory or workers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_matrix, random, save_npz
from sklearn.datasets import dump_svmlight_file
from support.comparing import assert_nothing_published, assert_same_folder
from support.handmade import dense
from support.renames import KILLED_AT_RENAME
from support.sampled import sampled

from shardtrain.cli.main import main
from shardtrain.errors import CorpusError, DiskFullError, LabelError, MissingExtraError, ShardsError, UsageError
from shardtrain.loader.order import document_keys
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline import convert as converting
from shardtrain.pipeline.convert import convert
from shardtrain.pipeline.options import ConvertOptions
from shardtrain.runtime.passes import Workers
from shardtrain.shards.manifest import read_manifest
from shardtrain.tables import blocks, libsvm

ROWS, COLUMNS = 1200, 9
RNG = np.random.default_rng(7)
X = RNG.normal(size=(ROWS, COLUMNS)).astype(np.float32)
TOKENS = RNG.integers(0, 300, (ROWS, COLUMNS))
SPARSE = random(ROWS, 30, 0.2, "csr", np.float32, random_state=7)
Y = np.sort(RNG.integers(0, 3, ROWS))  # as sorted as files come
NAMES = np.array(["blue", "green", "red"])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks and pieces in these little files."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 10_000)
    monkeypatch.setattr(libsvm, "PIECE_BYTES", 20_000)


def npy(folder: Path) -> tuple[list[Path], dict, np.ndarray]:
    np.save(folder / "x.npy", X)
    np.save(folder / "y.npy", Y)
    return [folder / "x.npy"], {"y": (str(folder / "y.npy"),)}, X


def npy_of_doubles_in_columns(folder: Path):
    np.save(folder / "x.npy", np.asfortranarray(X.astype("f8")))
    np.save(folder / "y.npy", Y.astype("f8"))
    return [folder / "x.npy"], {"y": (str(folder / "y.npy"),)}, X


def npy_of_tokens(folder: Path):
    np.save(folder / "x.npy", TOKENS)
    np.save(folder / "y.npy", NAMES[Y])
    return [folder / "x.npy"], {"y": (str(folder / "y.npy"),), "kind": "tokens"}, TOKENS


def npz(folder: Path):
    np.savez_compressed(folder / "a.npz", x=X, label=Y)
    return [folder / "a.npz"], {"y": ("label",)}, X


def npz_by_names(folder: Path):
    np.savez(folder / "a.npz", embeddings=X, labels=Y, other=np.zeros(3))
    return [folder / "a.npz"], {"x": ("embeddings",), "y": ("labels",)}, X


def npz_of_scipy(folder: Path):
    save_npz(folder / "a.npz", SPARSE)
    np.save(folder / "y.npy", Y)
    return [folder / "a.npz"], {"y": (str(folder / "y.npy"),)}, SPARSE.toarray()


def libsvm_file(folder: Path):
    dump_svmlight_file(SPARSE, Y, str(folder / "a.svm"), zero_based=False)
    return [folder / "a.svm"], {}, SPARSE.toarray()


def libsvm_from_0_with_comments(folder: Path):
    dump_svmlight_file(SPARSE, Y, str(folder / "a.libsvm"), zero_based=True, query_id=Y, comment="made: by hand")
    text = (folder / "a.libsvm").read_text().replace("\n", " # note 1:2\n\n", 300)
    (folder / "a.libsvm").write_text(text)
    return [folder / "a.libsvm"], {}, SPARSE.toarray()


def parquet(folder: Path):
    columns = {f"f{i}": X[:, i].astype("f8") for i in range(COLUMNS)}
    pq.write_table(pa.table({"name": NAMES[Y], **columns}), folder / "a.parquet", row_group_size=350)
    return [folder / "a.parquet"], {"y": ("name",)}, X


def parquet_of_lists(folder: Path):
    lists = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), COLUMNS)
    names = pa.array(NAMES[Y]).dictionary_encode()
    pq.write_table(
        pa.table({"v": lists, "name": names, "id": np.arange(ROWS)}), folder / "a.parquet", row_group_size=500
    )
    return [folder / "a.parquet"], {"x": ("v",), "y": ("name",)}, X


def hdf5_file(folder: Path):
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("x", data=X, chunks=(100, 4), **hdf5plugin.Bitshuffle())  # a filter that is not ours
        file["y"] = Y
    return [folder / "a.h5"], {"x": ("x",), "y": ("y",)}, X


def hdf5_of_unsorted_sparse_rows(folder: Path):
    """Columns fall within rows, and one is there twice."""
    indices, data = SPARSE.indices.copy(), SPARSE.data.copy()
    for start, stop in zip(SPARSE.indptr[:-1], SPARSE.indptr[1:], strict=True):
        indices[start:stop], data[start:stop] = indices[start:stop][::-1].copy(), data[start:stop][::-1].copy()
    start = int(SPARSE.indptr[np.argmax(np.diff(SPARSE.indptr) > 1)])
    indices[start + 1] = indices[start]
    with h5py.File(folder / "a.h5ad", "w") as file:
        group = file.create_group("X")
        group.attrs["shape"] = SPARSE.shape
        group["data"], group["indices"], group["indptr"] = data, indices, SPARSE.indptr
        file["y"] = Y
    return (
        [folder / "a.h5ad"],
        {"x": ("X",), "y": ("y",)},
        csr_matrix((data, indices, SPARSE.indptr), SPARSE.shape).toarray(),
    )


FORMATS = [
    npy,
    npy_of_doubles_in_columns,
    npy_of_tokens,
    npz,
    npz_by_names,
    npz_of_scipy,
    libsvm_file,
    libsvm_from_0_with_comments,
    parquet,
    parquet_of_lists,
    hdf5_file,
    hdf5_of_unsorted_sparse_rows,
]


def options(**changed) -> ConvertOptions:
    return ConvertOptions(**{"workers": 1, "rows_per_shard": 500, **changed})


def in_source_order(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with open_shards(folder) as shards:
        parts = [
            (split.documents(0, split.num_examples), *split.rows(0, split.num_examples))
            for split in shards.splits.values()
        ]
    order = np.argsort(np.concatenate([part[0] for part in parts]))
    assert np.array_equal(np.concatenate([part[0] for part in parts])[order], np.arange(ROWS))
    return np.concatenate([dense(part[1]) for part in parts])[order], np.concatenate([part[2] for part in parts])[order]


@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_every_format_gives_its_rows_in_the_order_of_their_keys(write, tmp_path):
    files, how, expected = write(tmp_path)
    convert(files, tmp_path / "out", options(**how))
    x, y = in_source_order(tmp_path / "out")
    np.testing.assert_allclose(x, expected, rtol=1e-6)
    np.testing.assert_array_equal(y, Y)
    with open_shards(tmp_path / "out") as shards:
        assert len(shards.train.shards) == 3
        for split in shards.splits.values():
            keys = document_keys(split.documents(0, split.num_examples), 1)
            assert (np.diff(keys.astype(np.float64)) > 0).all()
        held = document_keys(shards.validation.documents(0, shards.validation.num_examples), 1)
        assert held.max() < 0.1 * 2**64


@pytest.mark.parametrize("workers", sampled([Workers(2), Workers(2, 3)], ids=["threads", "processes"]))
def test_any_memory_and_workers_give_the_same_bytes(workers, tmp_path, monkeypatch):
    files, how, _ = libsvm_file(tmp_path)
    convert(files, tmp_path / "one", options(**how, compress="lz4"))
    monkeypatch.setattr(converting, "PARALLEL_BYTES", 0)
    monkeypatch.setattr(converting, "affordable_processes", lambda cores, limit: workers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(libsvm, "PIECE_BYTES", 20_000)
        convert(files, tmp_path / "two", options(**how, compress="lz4", workers=2, memory_limit=2 << 30))
    assert_same_folder(tmp_path / "one", tmp_path / "two")


DRIVER = (
    KILLED_AT_RENAME
    + """
import sys
from pathlib import Path
from shardtrain.tables import blocks
from shardtrain.pipeline.options import ConvertOptions
from shardtrain.pipeline.convert import convert

folder, out, at = sys.argv[1:]
blocks.BLOCK_BYTES = 10_000
renamed = killed_at_rename(int(at), out)
convert([Path(folder, "a.npz")], Path(out), ConvertOptions(y=("label",), workers=1, rows_per_shard=500))
print("renames", len(renamed))
"""
)


def test_killed_at_commits_and_run_again_equals_uninterrupted(building, tmp_path):
    files, how, _ = npz(tmp_path)

    def start(out: Path, at: int) -> subprocess.CompletedProcess[bytes]:
        return building.run(DRIVER, tmp_path, out, at)

    renames = int(start(tmp_path / "whole", 0).stdout.split()[-1])
    for part, sign in ((0.1, 1), (0.5, -1), (0.9, 1)):
        out = tmp_path / f"out{part}"
        assert start(out, sign * max(1, round(part * renames))).returncode == -signal.SIGKILL
        assert not (out / "manifest.json").exists()
        convert(files, out, options(**how))
        assert_same_folder(out, tmp_path / "whole")


def test_files_of_their_own_for_validation_and_several_for_training(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    tables = [npy(tmp_path / name)[0][0] for name in ("a", "b", "c")]
    labels = tuple(str(table.with_name("y.npy")) for table in tables)
    convert(tables[:2], tmp_path / "out", options(y=labels, validation=(tables[2],)))
    with open_shards(tmp_path / "out") as shards:
        assert (shards.train.num_examples, shards.validation.num_examples) == (2 * ROWS, ROWS)
        x, y = shards.validation.rows(0, ROWS)
        order = np.argsort(shards.validation.documents(0, ROWS))
        np.testing.assert_array_equal(x[order], X)
        np.testing.assert_array_equal(y[order], Y)
    with pytest.raises(UsageError, match=r"a \.npy file for each"):
        convert(tables[:2], tmp_path / "o", options(y=labels[:2], validation=(tables[2],)))


def test_the_two_classes_of_libsvm_are_minus_one_and_one(tmp_path):
    (tmp_path / "a.svm").write_text("+1 1:0.5 3:2\n-1.0 2:1e-3\n1 \n" * 20)
    manifest = convert([tmp_path / "a.svm"], tmp_path / "out", options())
    assert manifest.class_names == ("-1", "1")
    assert manifest.num_features == 3
    assert sum(split.nonzeros for split in manifest.splits.values()) == 60


def write_svm(text: str):
    def write(folder: Path):
        (folder / "a.svm").write_text(text)
        return [folder / "a.svm"], {}

    return write


def write_npy(x, y=Y, **how):
    def write(folder: Path):
        np.save(folder / "x.npy", x, allow_pickle=True)
        np.save(folder / "y.npy", y, allow_pickle=True)
        return [folder / "x.npy"], {"y": (str(folder / "y.npy"),), **how}

    return write


def write_parquet(x=(), **columns):
    def write(folder: Path):
        pq.write_table(pa.table(columns), folder / "a.parquet")
        return [folder / "a.parquet"], {"x": x, "y": ("y",)}

    return write


def write_bytes(name: str, content: bytes, **how):
    def write(folder: Path):
        (folder / name).write_bytes(content)
        return [folder / name], how

    return write


def write_npz(**changed):
    """A CSR matrix as scipy saves it, with labels, and something about it changed."""

    def write(folder: Path):
        parts = {"data": SPARSE.data, "indices": SPARSE.indices, "indptr": SPARSE.indptr, "shape": SPARSE.shape}
        np.savez(folder / "a.npz", **{**parts, "format": np.array(b"csr"), "y": Y, **changed})
        return [folder / "a.npz"], {"y": ("y",)}

    return write


def two_columns_of_a_name(folder: Path):
    columns = [pa.array([1.0, 2.0]), pa.array([1.0, 2.0]), pa.array([0, 1])]
    pq.write_table(pa.table(columns, names=["a", "a", "y"]), folder / "a.parquet")
    return [folder / "a.parquet"], {"y": ("y",)}


LIST = [[1.0, 2.0], [3.0]]
BAD = {
    "no such file": (lambda folder: ([folder / "x.npy"], {"y": ("y.npy",)}), CorpusError, "there is no file"),
    "an unknown ending": (write_bytes("a.xls", b"1", y=("y",)), UsageError, "has an unsupported extension"),
    "svm: an empty file": (write_svm(""), CorpusError, "is empty"),
    "svm: compressed": (write_bytes("a.svm", b"\x1f\x8b\x08\x00"), CorpusError, "unpack it first"),
    "svm: a column without value": (write_svm("1 1:2\n0 3 4:5\n"), CorpusError, "column:value pairs: '0 3 4:5'"),
    "svm: colons that only add up": (write_svm("1 1:2:3\n0 3\n"), CorpusError, "column:value pairs: '1 1:2:3'"),
    "svm: two columns for one value": (write_svm("1 1:2\n0 3 4:5:6\n"), CorpusError, "value pairs: '0 3 4:5:6'"),
    "svm: a value that is missing": (write_svm("1 1:2\n0 3 4:5 6:\n"), CorpusError, "value pairs: '0 3 4:5 6:'"),
    "svm: a column too large": (write_svm(f"1 1:2\n0 {10**30}:1\n"), CorpusError, "value pairs: '0 1000"),
    "svm: a word without end": (write_svm("1 1:2\n" + "x" * 5000 + " 1:2\n"), CorpusError, "5,000 characters"),
    "svm: labels not UTF-8": (write_bytes("a.svm", b"\xe9 1:2\n\xe8 1:2\n"), LabelError, "not UTF-8"),
    "svm: beyond 32 bits": (write_svm("1 1:1e39\n0 3:1\n"), CorpusError, "not finite"),
    "svm: text for a value": (write_svm("1 1:2\n0 3:x\n"), CorpusError, "not a label and column:value"),
    "svm: no label": (write_svm("1:2 2:3\n0 1:2\n"), CorpusError, "not a label and column:value pairs: '1:2 2:3'"),
    "svm: a negative column": (write_svm("1 -1:2\n0 3:1\n"), CorpusError, "not a label and column|has the column"),
    "svm: not finite": (write_svm("1 1:nan\n0 3:1\n"), CorpusError, "not finite"),
    "svm: one class": (write_svm("1 1:2\n1 2:2\n"), LabelError, "two classes"),
    "svm: with names": (lambda folder: (write_svm("1 1:2\n")(folder)[0], {"y": ("y",)}), UsageError, "have no names"),
    "npy: of objects": (write_npy(np.array([{}, {}])), CorpusError, "cannot be read as a NumPy array"),
    "npy: one dimension": (write_npy(np.zeros(4)), CorpusError, r"of shape \(4,\)"),
    "npy: of text": (write_npy(np.array([["a"]])), CorpusError, "expected numbers of shape"),
    "npy: whole numbers": (write_npy(TOKENS), CorpusError, "kind tokens"),
    "npy: negative tokens": (write_npy(TOKENS - 1, kind="tokens"), CorpusError, "token id -1"),
    "npy: fractions as tokens": (write_npy(X, kind="tokens"), CorpusError, "which kind tokens does not fit"),
    "npy: not finite": (write_npy(np.where(X > 3, np.nan, X)), CorpusError, "not finite"),
    "npy: fewer labels": (write_npy(X, Y[1:]), CorpusError, r"have the shape \(1199,\)"),
    "npy: fractions for labels": (write_npy(X, Y / 2), LabelError, "fractions"),
    "npy: labels too large": (write_npy(X, Y * 1e30), LabelError, "too large"),
    "npy: with a name": (lambda folder: (npy(folder)[0], {**npy(folder)[1], "x": ("x",)}), UsageError, "omit x"),
    "npy: without labels": (lambda folder: (npy(folder)[0], {}), UsageError, "with y FILE.npy"),
    "npz: no archive": (write_bytes("a.npz", b"PK nothing", y=("y",)), CorpusError, "as an .npz archive"),
    "npz: fractions for columns": (write_npz(indices=SPARSE.indices + 0.5), CorpusError, "its 'indices' is float64"),
    "npz: complex values": (write_npz(data=SPARSE.data * 1j), CorpusError, "its 'data' is complex64"),
    "npz: values in a table": (write_npz(data=SPARSE.data[:, None]), CorpusError, "its 'data' is float32 of shape"),
    "npz: pointers that begin later": (write_npz(indptr=SPARSE.indptr + 1), CorpusError, "row pointers from 1 to"),
    "npz: another form": (write_npz(format=np.array(b"csc")), CorpusError, "not in CSR format"),
    "npz: a shape that cannot be": (write_npz(shape=np.array([np.nan, 3])), CorpusError, r"has the shape \[nan, 3"),
    "npz: no such array": (lambda folder: (npz(folder)[0], {"y": ("nope",)}), CorpusError, "has no array 'nope'"),
    "parquet: no parquet": (write_bytes("a.parquet", b"PAR1", y=("y",)), CorpusError, "as Parquet"),
    "parquet: no such column": (write_parquet(a=[1.0]), CorpusError, "has no column 'y'; it has 'a'"),
    "parquet: missing values": (write_parquet(a=[1.0, None], y=[0, 1]), CorpusError, "'a' in .* 1 missing values"),
    "parquet: missing labels": (write_parquet(a=[1.0, 2.0], y=[0, None]), CorpusError, "missing labels"),
    "parquet: lists of many lengths": (write_parquet(("a",), a=LIST, y=[0, 1]), CorpusError, "different lengths|and 2"),
    "parquet: text for features": (write_parquet(("a",), a=["x", "z"], y=[0, 1]), CorpusError, "columns of numbers"),
    "parquet: whole numbers": (write_parquet(a=[1, 2], y=[0, 1]), CorpusError, "kind tokens"),
    "parquet: lists of whole numbers": (write_parquet(("a",), a=[[1], [2]], y=[0, 1]), CorpusError, "kind tokens"),
    "parquet: a name twice": (write_parquet(("a", "a"), a=[1.0, 2.0], y=[0, 1]), CorpusError, "'a' twice, or it"),
    "parquet: two columns of a name": (two_columns_of_a_name, CorpusError, "'a' .* twice"),
    "parquet: no numbers": (write_parquet(a=["x", "z"], y=[0, 1]), CorpusError, "no column of numbers"),
    "hdf5: no such dataset": (
        lambda folder: (hdf5_file(folder)[0], {"x": ("nope",), "y": ("y",)}),
        ShardsError,
        "has no '/nope'",
    ),
    "hdf5: without names": (lambda folder: (hdf5_file(folder)[0], {"y": ("y",)}), UsageError, "with x"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_table_that_cannot_be_used_is_named_and_nothing_is_published(case, tmp_path):
    write, error, reason = BAD[case]
    files, how = write(tmp_path)
    with pytest.raises(error, match=reason):
        convert(files, tmp_path / "out", options(**how))
    assert_nothing_published(tmp_path / "out")


def test_no_fraction_leaves_no_row_to_train_on(tmp_path, capsys):
    files, _ = write_svm("1 1:2\n0 2:2\n")(tmp_path)
    manifest = convert(files, tmp_path / "out", options(validation_fraction=0.99999))
    assert {name: split.class_counts for name, split in manifest.splits.items()} == {"train": (1, 1)}
    assert "no row fell into the validation fraction" in capsys.readouterr().err


def test_large_integers_stay_labels_of_their_own(tmp_path):
    files, _ = write_svm("9007199254740992 1:2\n9007199254740993 2:2\n")(tmp_path)
    manifest = convert(files, tmp_path / "out", options(labels="names", validation_fraction=0))
    assert manifest.class_names == ("9007199254740992", "9007199254740993")


def test_a_damaged_parquet_file_is_named(tmp_path):
    files, how, _ = parquet(tmp_path)
    content = bytearray(files[0].read_bytes())
    content[200:20_000:7] = bytes(len(content[200:20_000:7]))
    files[0].write_bytes(content)
    with pytest.raises(CorpusError, match=r"'.*a\.parquet' cannot be read as Parquet"):
        convert(files, tmp_path / "out", options(**how))


def test_values_for_which_the_disk_has_no_room_are_refused_at_once(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (1 << 40, 1 << 18), "f4", chunks=(1, 1024))
        file.create_dataset("y", (1 << 40,), "i4", chunks=(1 << 20,))
    with pytest.raises(DiskFullError, match=r"the build needs about 2,305,843,009.21 GB"):
        convert([tmp_path / "a.h5"], tmp_path / "out", options(x=("x",), y=("y",)))
    assert_nothing_published(tmp_path / "out")


def test_files_of_different_features_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, _, _ = npz(tmp_path / "a")
    np.savez(tmp_path / "b" / "a.npz", x=X[:, :3], label=Y)
    with pytest.raises(CorpusError, match=r"9 dense columns.*3 dense columns"):
        convert([*first, tmp_path / "b" / "a.npz"], tmp_path / "out", options(y=("label",)))


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    files, how, _ = parquet(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"shardtrain\[parquet\]"):
        convert(files, tmp_path / "out", options(**how))


@pytest.mark.slow
def test_a_table_larger_than_the_memory_limit_is_converted_below_it(tmp_path):
    rows = 68_000
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (rows, 1000))
    x[:, 0] = np.arange(rows)
    x.flush()
    np.save(tmp_path / "y.npy", np.arange(rows) % 2)
    command = [sys.executable, "-m", "shardtrain", "convert", tmp_path / "x.npy", "--y", tmp_path / "y.npy", "--out"]
    limit = ["--memory-limit", "256MiB", "--workers", "1"]
    subprocess.run([*command, tmp_path / "out", *limit], check=True, capture_output=True)
    measured = json.loads((tmp_path / "out" / "build.json").read_bytes())
    assert 0 < measured["peak_memory_bytes"] < 256 << 20 < x.nbytes
    with open_shards(tmp_path / "out", verify=False) as shards:
        found = np.concatenate([split.rows(0, split.num_examples)[0][:, 0] for split in shards.splits.values()])
        np.testing.assert_array_equal(np.sort(found), np.arange(rows))


def test_dense_features_train_and_are_evaluated_but_no_text_is_predicted(tmp_path, capsys):
    """Through the command line, from a sorted table to an accuracy."""
    x = X.copy()
    x[:, :3] += 3 * np.eye(3, dtype=np.float32)[Y]
    np.savez(tmp_path / "a.npz", x=x, y=NAMES[Y])
    shards, run = tmp_path / "shards", tmp_path / "run"
    assert main(["convert", str(tmp_path / "a.npz"), "--y", "y", "--out", str(shards)]) == 0
    how = ["--epochs", "6", "--batch-size", "32", "--learning-rate", "0.01"]
    assert main(["fit", str(shards), "--out", str(run), *how]) == 0
    assert main(["evaluate", str(run), str(shards)]) == 0
    said = capsys.readouterr().out
    accuracies = [float(line.split()[2].rstrip(",")) for line in said.splitlines() if line.startswith("validation")]
    assert len(accuracies) == 2
    assert accuracies[0] == accuracies[1] > 0.9
    assert main(["predict", str(run), "some text"]) == 1
    assert "not made from text" in capsys.readouterr().err
    np.savez(tmp_path / "b.npz", x=x[:, :4], y=NAMES[Y])
    assert main(["convert", str(tmp_path / "b.npz"), "--y", "y", "--out", str(tmp_path / "narrow")]) == 0
    assert main(["evaluate", str(run), str(tmp_path / "narrow")]) == 1
    assert "has 4 dense features" in capsys.readouterr().err
    assert read_manifest(shards).version == 2

"""Reading maps the files and verifies what it touches: damage anywhere is named, or provably touches nothing used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.handmade import dense, make_rows, write_shards
from support.sampled import sampled

from shardtrain.arrays.csr import Csr
from shardtrain.errors import (
    CorruptShardError,
    ManifestError,
    ShardsError,
    ShardsNotFoundError,
    UsageError,
    VectorizerError,
)
from shardtrain.loader.order import document_keys
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.shards.layout import BLOCK_BYTES
from shardtrain.shards.verify import num_checked_bytes, verify_shards
from shardtrain.vectorize.fitted import load_vectorizer

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("ngram", "sequence")
DAMAGE = (CorruptShardError, ManifestError, VectorizerError)


def everything(folder: Path, *, verify: bool = True):
    """All that can be read from a folder of shards, as plain values."""
    found = []
    with open_shards(folder, verify=verify) as shards:
        for name, split in shards.splits.items():
            x, y = split.rows(0, split.num_examples)
            found += [name, dense(x).tolist(), y.tolist(), split.documents(0, split.num_examples).tolist()]
        found += [shards.description]
        if shards.manifest.files:
            vectorizer = load_vectorizer(shards.vectorizer_path)
            arrays = {name: array.tolist() for name, array in vectorizer.arrays.items()}
            found += [vectorizer.terms, arrays, vectorizer.describe()]
    return found


def flip(path: Path, bit: int) -> None:
    """Turn over one bit of a file; a second time puts it back."""
    with open(path, "r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0] ^ (1 << bit % 8)
        file.seek(bit // 8)
        file.write(bytes([byte]))


@pytest.fixture(scope="module", params=KINDS)
def built(request, tmp_path_factory):
    """Small shards of a small corpus, with a vectorizer and a validation split."""
    folder = tmp_path_factory.mktemp("built")
    topics = {"ball": "team match goal", "coin": "market share price"}
    lines = [
        json.dumps({"label": label, "text": f"{words.split()[i % 3]} {words} w{i % 5} w{i % 7}"})
        for i in range(20)
        for label, words in topics.items()
    ]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    options = BuildOptions(vectorizer=request.param, validation_fraction=0.2, rows_per_shard=20, workers=1)
    build(folder / "corpus.jsonl", folder / "shards", options)
    return folder / "shards"


@pytest.fixture
def copy(built, tmp_path):
    """A copy that may be damaged."""
    return Path(shutil.copytree(built, tmp_path / "copy"))


@given(st.data())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_any_run_of_rows_is_the_same_however_the_rows_are_cut_into_shards(data):
    kind = data.draw(st.sampled_from(KINDS))
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    rows = make_rows(kind, sum(sizes))
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), rows, sizes)
        with open_shards(folder) as shards:
            x, y = shards.train.rows(start, stop)
            assert x.shape == (stop - start, rows.x.shape[1])
            np.testing.assert_array_equal(dense(x), dense(rows.x)[start:stop])
            np.testing.assert_array_equal(y, rows.y[start:stop])
            np.testing.assert_array_equal(shards.train.documents(start, stop), rows.document[start:stop])
            counts = [shard.nonzeros(0, shard.entry.rows) for shard in shards.train.shards]
            np.testing.assert_array_equal(np.concatenate(counts), np.count_nonzero(dense(rows.x), axis=1))


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (0, 31), (31, 31), (7, 3)])
def test_rows_that_are_not_there_are_refused(start, stop, tmp_path):
    write_shards(tmp_path, make_rows("ngram", 30), [20, 10])
    with open_shards(tmp_path) as shards, pytest.raises(UsageError, match=r"which has rows \[0, 30\)"):
        shards.train.rows(start, stop)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_one_shard_are_read_only_views_of_the_file_at_the_manifests_offsets(kind, tmp_path):
    entry = write_shards(tmp_path, make_rows(kind, 40), [40]).splits["train"].shards[0]
    content = (tmp_path / entry.file).read_bytes()
    with open_shards(tmp_path) as shards:
        shard = shards.train.shards[0]
        base = shard.file.bytes(0, entry.bytes)
        x, y = shards.train.rows(8, 30)
        views = {"y": (y, 8)}
        if isinstance(x, Csr):
            first = int(shard.arrays["x/indptr"].read(8, 9)[0])
            views |= {"x/data": (x.data, first), "x/indices": (x.indices, first)}
        else:
            views |= {"x": (x, 8)}
        for name, (view, position) in views.items():
            where = entry.datasets[name]
            offset = where.offset + position * (where.bytes // where.shape[0])
            assert np.shares_memory(view, base)
            assert address(view) - address(base) == offset
            assert content[offset : offset + view.nbytes] == view.tobytes()
            assert not view.flags.writeable


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_views_outlive_the_shards_they_were_read_from(tmp_path):
    rows = make_rows("sequence", 40)
    write_shards(tmp_path, rows, [40])
    with open_shards(tmp_path) as shards:
        x, y = shards.train.rows(0, 40)
    del shards
    np.testing.assert_array_equal(x, rows.x)
    np.testing.assert_array_equal(y, rows.y)


@pytest.mark.parametrize(
    ("built", "shuffle", "without"),
    sampled(
        [
            ("ngram", "window", "h5py tensorflow"),
            ("sequence", "blocks", "h5py numba tensorflow"),
            ("ngram", "blocks", "h5py numba tensorflow"),
            ("sequence", "window", "h5py tensorflow"),
        ],
        (0, 1),
    ),
    indirect=["built"],
)
def test_reading_never_imports_libhdf5_or_tensorflow_and_without_mixing_no_kernels(shuffle, without, built):
    code = (
        "import sys, shardtrain\n"
        f"with shardtrain.open_shards({str(built)!r}) as shards:\n"
        f"    rows = sum(len(y) for x, y in shards.train.batches(7, shuffle={shuffle!r}))\n"
        "    assert rows == shards.train.num_examples\n"
        f"print(sorted(set({without!r}.split()) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_description_says_what_a_model_has_to_know(built):
    with open_shards(built) as shards:
        found = shards.description
        assert (found.num_classes, found.class_names) == (2, ("ball", "coin"))
        assert (found.num_train, found.num_validation) == (shards.train.num_examples, shards.validation.num_examples)
        assert found.num_train + found.num_validation == 40
        assert found.num_features == shards.train.rows(0, 1)[0].shape[1] == shards.train.num_features
        if found.kind == "sequence":
            assert int(shards.train.rows(0, found.num_train)[0].max()) < found.vocabulary_size


def test_shards_without_validation_split_say_so(tmp_path):
    write_shards(tmp_path, make_rows("ngram", 4), [4])
    with open_shards(tmp_path) as shards, pytest.raises(ShardsError, match="has no validation split"):
        _ = shards.validation


def test_rows_lie_in_the_order_of_their_documents_keys_and_low_keys_are_held_out(built):
    with open_shards(built) as shards:
        keys = {
            name: document_keys(split.documents(0, split.num_examples), shards.manifest.seed)
            for name, split in shards.splits.items()
        }
        assert len(shards.train.shards) == 2
    for found in keys.values():
        assert (np.diff(found.astype(object)) > 0).all()
    assert keys["validation"].max() < int(0.2 * 2**64) <= keys["train"].min()


# Damage. A small shard is one checksum block, so that no bit of it goes unnoticed.


@pytest.mark.parametrize("files", ["*.h5", "manifest.json", "vectorizer/*"])
def test_a_flipped_bit_anywhere_is_named_before_its_data_is_used(files, copy):
    rng = np.random.default_rng(1)
    paths = sorted(copy.glob(files))
    assert len(paths) < 16
    for number in range(16):  # test_flipped_bits has thousands, in every kind of folder
        path = paths[number % len(paths)]
        bit = int(rng.integers(path.stat().st_size * 8))
        flip(path, bit)
        with pytest.raises(DAMAGE) as failure:
            everything(copy)
        assert path.name in str(failure.value) or path.parent.name in str(failure.value)
        if files == "manifest.json":
            with pytest.raises(ManifestError):
                verify_shards(copy, advance=lambda _: None)
        else:
            assert [str(path) in fault for fault in verify_shards(copy, advance=lambda _: None).faults] == [True]
        flip(path, bit)


@pytest.fixture(scope="module", params=KINDS)
def large(request, tmp_path_factory):
    """A shard of several checksum blocks, and its rows."""
    folder = tmp_path_factory.mktemp("large")
    rows = make_rows(request.param, 400_000 if request.param == "ngram" else 120_000)
    return folder, rows, write_shards(folder, rows, [len(rows)]).splits["train"].shards[0]


def touched_blocks(entry, rows, start: int, stop: int) -> set[int]:
    """The blocks in which the features and labels of rows [start, stop) lie."""
    ranges = {"y": (start, stop)}
    if isinstance(rows.x, Csr):
        nonzeros = (int(rows.x.indptr[start]), int(rows.x.indptr[stop]))
        ranges |= {"x/indptr": (start, stop + 1), "x/data": nonzeros, "x/indices": nonzeros}
    else:
        ranges |= {"x": (start, stop)}
    found: set[int] = set()
    for name, (first, last) in ranges.items():
        where = entry.datasets[name]
        stride = where.bytes // where.shape[0]
        begin, end = where.offset + first * stride, where.offset + last * stride
        found |= set(range(begin // BLOCK_BYTES, (end - 1) // BLOCK_BYTES + 1))
    return found


def test_damage_in_one_block_spares_exactly_the_rows_that_do_not_lie_in_it(large):
    folder, rows, entry = large
    path, rng = folder / entry.file, np.random.default_rng(2)
    refused = spared = 0
    for bit in rng.integers(8 * entry.bytes, size=16):
        flip(path, int(bit))
        block = int(bit) // 8 // BLOCK_BYTES
        with open_shards(folder) as shards:
            for start in range(0, len(rows), 40_000):
                stop = start + 40_000
                if block in touched_blocks(entry, rows, start, stop):
                    refused += 1
                    with pytest.raises(CorruptShardError) as failure:
                        shards.train.rows(start, stop)
                    assert f"shard '{path}' is damaged: bytes [{block * BLOCK_BYTES:,}, " in str(failure.value)
                else:
                    spared += 1
                    x, y = shards.train.rows(start, stop)
                    assert same(x, rows.between(start, stop).x)
                    np.testing.assert_array_equal(y, rows.y[start:stop])
        assert len(verify_shards(folder, advance=lambda _: None).faults) == 1
        flip(path, int(bit))
    assert refused > 10
    assert spared > 10


def same(found, expected) -> bool:
    if not isinstance(found, Csr):
        return bool((found == expected).all())
    return all((getattr(found, name) == getattr(expected, name)).all() for name in ("data", "indices", "indptr"))


def test_the_message_names_the_array_and_the_rows_that_are_lost(large):
    folder, rows, entry = large
    name = "x/data" if isinstance(rows.x, Csr) else "x"
    where = entry.datasets[name]
    block = where.offset // BLOCK_BYTES + 1  # of a block in the middle of the array
    stride = where.bytes // where.shape[0]
    first, last = (
        (block * BLOCK_BYTES - where.offset) // stride,
        -(-((block + 1) * BLOCK_BYTES - where.offset) // stride),
    )
    if isinstance(rows.x, Csr):
        row_of_entry = np.repeat(np.arange(len(rows)), np.diff(rows.x.indptr))
        first, last = int(row_of_entry[first]), int(row_of_entry[last - 1]) + 1
    flip(folder / entry.file, 8 * block * BLOCK_BYTES)
    with open_shards(folder) as shards, pytest.raises(CorruptShardError) as failure:
        shards.train.rows(0, len(rows))
    flip(folder / entry.file, 8 * block * BLOCK_BYTES)
    assert f"rows [{first:,}, {last:,}) of '{name}'" in str(failure.value)
    assert "rebuild the shards" in str(failure.value)


def test_without_verification_damaged_bytes_are_read_as_they_are(tmp_path):
    entry = write_shards(tmp_path, make_rows("sequence", 40), [40]).splits["train"].shards[0]
    flip(tmp_path / entry.file, 8 * entry.datasets["y"].offset)
    with open_shards(tmp_path, verify=False) as shards:
        assert shards.train.labels()[0] == 1
    with open_shards(tmp_path) as shards, pytest.raises(CorruptShardError):
        shards.train.labels()


def test_a_block_is_verified_once(tmp_path):
    entry = write_shards(tmp_path, make_rows("sequence", 40), [40]).splits["train"].shards[0]
    with open_shards(tmp_path) as shards:
        before = shards.train.labels()[0]
        flip(tmp_path / entry.file, 8 * entry.datasets["y"].offset)
        assert shards.train.labels()[0] == before ^ 1


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


WRONG_FILES = {
    "cut by one byte": (cut, CorruptShardError, "is truncated: the manifest says"),
    "empty": (empty, CorruptShardError, "is truncated: the manifest says"),
    "grown by one byte": (grow, CorruptShardError, "is not the file that was written: the manifest says"),
    "missing": (Path.unlink, ShardsNotFoundError, "is missing, but the manifest names it"),
    "a folder": (make_folder, ShardsError, "cannot be read: Is a directory"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_shard_of_the_wrong_size_is_refused_when_the_folder_is_opened(name, copy):
    spoil, error, reason = WRONG_FILES[name]
    path = copy / "train-00001.h5"
    spoil(path)
    with pytest.raises(error, match=reason) as failure:
        open_shards(copy)
    assert str(path) in str(failure.value)
    with pytest.raises(error):
        open_shards(copy, verify=False)
    faults = verify_shards(copy, advance=lambda _: None).faults
    assert len(faults) == 1
    assert reason in faults[0]


def test_a_shard_swapped_for_another_of_its_size_is_refused(tmp_path):
    rows = make_rows("sequence", 40)
    write_shards(tmp_path, rows, [20, 20])
    first, second = tmp_path / "train-00000.h5", tmp_path / "train-00001.h5"
    assert first.stat().st_size == second.stat().st_size
    shutil.copyfile(first, second)
    with open_shards(tmp_path) as shards:
        shards.train.rows(0, 20)
        with pytest.raises(CorruptShardError, match=r"train-00001\.h5"):
            shards.train.rows(20, 40)


@pytest.mark.parametrize("spoil", [cut, grow, empty, Path.unlink, make_folder], ids=lambda spoil: spoil.__name__)
def test_a_vectorizer_file_that_is_not_as_written_is_found(spoil, copy):
    path = copy / "vectorizer" / "hashes.npy"
    spoil(path)
    with pytest.raises(VectorizerError, match=r"hashes\.npy"):
        load_vectorizer(copy / "vectorizer")
    faults = verify_shards(copy, advance=lambda _: None).faults
    assert len(faults) == 1
    assert str(path) in faults[0]


def test_verification_reads_every_file_names_every_fault_and_counts_its_bytes(copy):
    done: list[int] = []
    whole = verify_shards(copy, advance=done.append)
    with open_shards(copy) as shards:
        total = num_checked_bytes(shards.manifest)
        values = sum(
            where.bytes
            for split in shards.splits.values()
            for shard in split.shards
            for where in shard.entry.datasets.values()
        )
    files = [path for path in copy.rglob("*") if path.is_file() and path.name not in ("manifest.json", "build.json")]
    assert (whole.files, whole.bytes, whole.faults) == (len(files), sum(path.stat().st_size for path in files), ())
    assert sum(done) == total == whole.bytes + values
    spoiled = [files[0], files[-1], *sorted(copy.glob("*.h5"))]
    for path in set(spoiled):
        flip(path, 100)
    faults = verify_shards(copy, advance=lambda _: None).faults
    assert len(faults) == len(set(spoiled))
    assert all(sum(f"'{path}'" in fault for fault in faults) == 1 for path in spoiled)

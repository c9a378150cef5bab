"""A shard is an ordinary HDF5 file, laid out as docs/format.md says; a manifest that cannot be true is refused."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import xxhash
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from support.handmade import NUM_FEATURES, dense, make_rows, write_shard, write_shards
from support.listed import lists_forced
from support.manifests import at, reseal
from support.sampled import sampled

from shardtrain.arrays.csr import Csr
from shardtrain.errors import ManifestError, ShardsError, ShardsNotFoundError
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions, RecompressOptions
from shardtrain.pipeline.recompress import recompress
from shardtrain.shards.finished import is_finished
from shardtrain.shards.manifest import read_manifest
from shardtrain.shards.verify import verify_shards
from shardtrain.shards.write import ShardShape, new_shard
from shardtrain.vectorize.fitted import load_vectorizer

GOLDEN = Path(__file__).parents[1] / "golden"
KINDS = ("ngram", "sequence")
LAWS = settings(max_examples=40, deadline=None, derandomize=True)
SHAPES = {
    "kind": st.sampled_from(KINDS),
    "sizes": st.lists(st.integers(1, 30), min_size=1, max_size=4),
    "num_classes": st.sampled_from([1, 2, 256, 257]),  # the most there can be, slow for its names, is an example
    "empty": st.booleans(),
    "pieces": st.integers(1, 3),
}
MOST_CLASSES = example(kind="sequence", sizes=[30, 2], num_classes=65_535, empty=False, pieces=2)


@pytest.mark.parametrize("examples", sampled([15, 200]))
def test_what_is_written_is_read_back(examples):
    @settings(LAWS, max_examples=examples)
    @MOST_CLASSES
    @given(**SHAPES)
    def check(kind, sizes, num_classes, empty, pieces):
        rows = make_rows(kind, sum(sizes), num_classes=num_classes, empty=empty)
        with tempfile.TemporaryDirectory() as folder:
            write_shards(Path(folder), rows, sizes, num_classes=num_classes, pieces=pieces)
            with open_shards(folder) as shards:
                x, y = shards.train.rows(0, len(rows))
                np.testing.assert_array_equal(dense(x), dense(rows.x))
                np.testing.assert_array_equal(y, rows.y)
                np.testing.assert_array_equal(shards.train.labels(), rows.y)
                np.testing.assert_array_equal(shards.train.documents(0, len(rows)), rows.document)

    check()


@pytest.mark.parametrize("examples", sampled([15, 200]))
def test_plain_h5py_reads_equal_values_and_the_file_holds_them_where_the_manifest_says(examples):
    @settings(LAWS, max_examples=examples)
    @MOST_CLASSES
    @given(**SHAPES)
    def check(kind, sizes, num_classes, empty, pieces):
        rows = make_rows(kind, sum(sizes), num_classes=num_classes, empty=empty)
        with tempfile.TemporaryDirectory() as folder:
            manifest = write_shards(Path(folder), rows, sizes, num_classes=num_classes, pieces=pieces)
            start = 0
            for entry in manifest.splits["train"].shards:
                expected = arrays_of(rows.between(start, start + entry.rows))
                start += entry.rows
                content = Path(folder, entry.file).read_bytes()
                assert len(content) == entry.bytes
                with h5py.File(Path(folder, entry.file)) as file:
                    for name, values in expected.items():
                        where = entry.datasets[name]
                        assert where.offset % 4096 == 0
                        assert file[name].dtype == np.dtype(where.dtype)
                        np.testing.assert_array_equal(file[name][...], values)
                        raw = content[where.offset : where.offset + where.bytes]
                        assert raw == np.ascontiguousarray(values, where.dtype).tobytes()

    check()


def arrays_of(rows):
    """The arrays of one shard, by their names in the file."""
    shared = {"y": rows.y, "document": rows.document}
    if isinstance(rows.x, Csr):
        return {"x/data": rows.x.data, "x/indices": rows.x.indices, "x/indptr": rows.x.indptr, **shared}
    return {"x": rows.x, **shared}


@pytest.fixture(scope="module", params=KINDS)
def large(request, tmp_path_factory):
    """A folder with one shard whose arrays have several chunks and blocks."""
    folder = tmp_path_factory.mktemp("large")
    rows = make_rows(request.param, 400_000 if request.param == "ngram" else 150_000)
    return folder, rows, write_shards(folder, rows, [len(rows)], pieces=7).splits["train"].shards[0]


def test_arrays_of_several_chunks_lie_in_one_piece_in_logical_order(large):
    folder, _, entry = large
    several = 0
    with h5py.File(folder / entry.file) as file:
        for name, where in entry.datasets.items():
            chunks = []
            file[name].id.chunk_iter(chunks.append)
            chunks.sort(key=lambda chunk: chunk.chunk_offset)
            several += len(chunks) > 1
            row_bytes = where.bytes // where.shape[0]
            assert [chunk.byte_offset for chunk in chunks] == [
                where.offset + chunk.chunk_offset[0] * row_bytes for chunk in chunks
            ]
            assert all(chunk.byte_offset % 4096 == 0 for chunk in chunks)
    assert several >= 2


def test_arrays_of_several_chunks_are_read_back_by_h5py(large):
    folder, rows, entry = large
    with h5py.File(folder / entry.file) as file:
        for name, values in arrays_of(rows).items():
            np.testing.assert_array_equal(file[name][...], values)


def test_there_is_a_checksum_for_each_block_of_the_file(large):
    folder, _, entry = large
    content = (folder / entry.file).read_bytes()
    blocks = [content[start : start + entry.block_bytes] for start in range(0, len(content), entry.block_bytes)]
    assert len(blocks) > 2
    assert entry.checksums == "".join(xxhash.xxh3_64_hexdigest(block) for block in blocks)


@pytest.mark.parametrize("kind", KINDS)
def test_datasets_have_no_filter_are_allocated_early_and_never_filled(kind, tmp_path):
    entry = write_shard(tmp_path / "a.h5", make_rows(kind, 10))
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["format"] == "shardtrain"
        assert file.attrs["format_version"] == 1
        for name in entry.datasets:
            properties = file[name].id.get_create_plist()
            assert file[name].chunks is not None
            assert properties.get_nfilters() == 0
            assert properties.get_alloc_time() == h5py.h5d.ALLOC_TIME_EARLY
            assert properties.get_fill_time() == h5py.h5d.FILL_TIME_NEVER


@pytest.mark.parametrize("empty", [False, True], ids=["with non-zeros", "without a non-zero"])
@pytest.mark.skipif(not Path("/proc").exists(), reason="anndata imports dask, which asks /proc")
def test_anndata_and_scipy_open_the_csr_group(empty, tmp_path):
    import anndata

    rows = make_rows("ngram", 17, empty=empty)
    write_shard(tmp_path / "a.h5", rows)
    with h5py.File(tmp_path / "a.h5") as file:
        group = file["x"]
        parts = (group["data"][...], group["indices"][...], group["indptr"][...])
        assert group.attrs["shape"].tolist() == [17, NUM_FEATURES["ngram"]]
        np.testing.assert_array_equal(csr_matrix(parts, shape=group.attrs["shape"]).toarray(), dense(rows.x))
        np.testing.assert_array_equal(anndata.io.read_elem(group).toarray(), dense(rows.x))
        backed = anndata.io.sparse_dataset(group)
        np.testing.assert_array_equal(backed[3:9].toarray(), dense(rows.x)[3:9])


@pytest.mark.parametrize(("kind", "codec"), [("dense", "none"), ("dense", "lz4"), ("ngram", "zstd")])
def test_shards_that_are_dense_or_compressed_say_version_2_whatever_the_version_of_the_manifest(kind, codec, tmp_path):
    write_shards(tmp_path / "plain", make_rows(kind, 10), [10])
    recompress(tmp_path / "plain", tmp_path / "out", RecompressOptions(compress=codec))
    with h5py.File(tmp_path / "out" / "train-00000.h5") as file:
        assert file.attrs["format_version"] == 2


@pytest.mark.parametrize("kind", KINDS)
def test_writing_twice_gives_identical_bytes(kind, tmp_path):
    rows = make_rows(kind, 100)
    write_shards(tmp_path / "first", rows, [60, 40])
    time.sleep(1.1)  # HDF5 keeps times in seconds, if it is let
    write_shards(tmp_path / "second", rows, [60, 40], pieces=5)
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == ["manifest.json", "train-00000.h5", "train-00001.h5"]
    same = filecmp.cmpfiles(tmp_path / "first", tmp_path / "second", names, shallow=False)
    assert same == (names, [], [])


@pytest.mark.parametrize(
    ("vocabulary", "dtype"), [(2, "|u1"), (256, "|u1"), (257, "<u2"), (65536, "<u2"), (65537, "<u4")]
)
def test_token_ids_get_the_smallest_type_that_holds_the_vocabulary(vocabulary, dtype):
    shape = ShardShape(kind="sequence", rows=1, num_features=1, nonzeros=0, num_classes=2, vocabulary_size=vocabulary)
    assert shape.datasets()["x"] == (dtype, (1, 1))


BAD_APPENDS = {
    "one row too many": lambda rows: (rows.x.rows(0, 5), rows.y[:5], rows.document[:5]),
    "fewer labels than rows": lambda rows: (rows.x.rows(0, 4), rows.y[:3], rows.document[:4]),
    "fewer documents than rows": lambda rows: (rows.x.rows(0, 4), rows.y[:4], rows.document[:3]),
    "a class outside the range": lambda rows: (rows.x.rows(0, 4), rows.y[:4] + 2, rows.document[:4]),
    "too many non-zeros": lambda rows: (rows.x.rows(4, 8), rows.y[:4], rows.document[:4]),
    "a row missing": lambda rows: (rows.x.rows(0, 3), rows.y[:3], rows.document[:3]),
}


@pytest.mark.parametrize("bad", BAD_APPENDS)
def test_a_shard_that_is_filled_wrongly_is_refused_and_leaves_no_file(bad, tmp_path):
    rows = make_rows("ngram", 8)
    shape = ShardShape(kind="ngram", rows=4, num_features=50, nonzeros=5, num_classes=3, vocabulary_size=50)
    with pytest.raises(ShardsError), new_shard(tmp_path / "a.h5", shape) as writer:
        writer.append(*BAD_APPENDS[bad](rows))
    assert list(tmp_path.iterdir()) == []


def test_more_non_zeros_than_int32_can_point_at_are_refused(tmp_path):
    shape = ShardShape(kind="ngram", rows=1, num_features=5, nonzeros=1 << 31, num_classes=2, vocabulary_size=5)
    with pytest.raises(ShardsError, match="2,147,483,648 non-zeros"), new_shard(tmp_path / "a.h5", shape):
        pass
    assert list(tmp_path.iterdir()) == []


def test_building_twice_gives_identical_bytes(tmp_path):
    for name in ("first", "second"):
        build_golden_corpus("ngram", tmp_path / name)
    first = sorted(str(path.relative_to(tmp_path / "first")) for path in (tmp_path / "first").rglob("*.*"))
    assert "manifest.json" in first
    assert filecmp.cmpfiles(tmp_path / "first", tmp_path / "second", first, shallow=False) == (first, [], [])


# Shards of format version 1 are committed; `python tests/shards/test_format.py` made them.

GOLDEN_TEXTS = {
    "sport": ["the team won the cup", "a draw in the last match", "the team lost the match", "the cup match"],
    "market": ["shares fell in the market", "the market rose", "shares rose as the market fell", "oil shares fell"],
}


GOLDEN_TESTED = {"sport": ["the team in the cup"], "market": ["the market fell", "shares rose"]}


def build_golden_corpus(kind: str, out: Path, *, tested: bool = False) -> None:
    """Build the golden corpus, a file; `tested`: with a test file beside it."""
    with tempfile.TemporaryDirectory() as folder:
        corpus, test = Path(folder, "golden.jsonl"), Path(folder, "test.jsonl")
        for path, texts in ((corpus, GOLDEN_TEXTS), (test, GOLDEN_TESTED)):
            rows = [(label, each[row]) for row in range(4) for label, each in texts.items() if row < len(each)]
            path.write_text("".join(json.dumps({"label": label, "text": text}) + "\n" for label, text in rows))
        options = BuildOptions(
            vectorizer=kind,
            validation_fraction=0.2,
            test=test if tested else None,
            max_features=8,
            rows_per_shard=4,
            workers=1,
            seed=3,
        )
        build(corpus, out, options)
    (out / "build.json").unlink()  # it has times


GOLDEN_TERMS = {
    "ngram": ["fell", "market", "match", "shares", "team", "the", "the market", "the team"],
    "sequence": ["the", "shares", "fell", "team", "in", "market", "match"],
}
GOLDEN_LABELS = {"train": [0, 0, 1, 1, 0, 1], "validation": [1, 0]}
GOLDEN_DOCUMENTS = {"train": [1, 7, 4, 2, 5, 0], "validation": [6, 3]}
GOLDEN_IDS = {
    "train": [[2, 3, 5, 1, 6], [0, 0, 0, 2, 3], [0, 1, 4, 1, 7], [0, 0, 5, 1, 7], [0, 2, 1, 6, 3], [0, 0, 1, 4, 1]],
    "validation": [[0, 0, 0, 1, 7], [0, 0, 0, 1, 6]],
}
GOLDEN_WEIGHTS = {
    "train": [
        {
            0: 0.32338377833366394,
            1: 0.38303419947624207,
            3: 0.32338377833366394,
            5: 0.23931126296520233,
            6: 0.38303419947624207,
        },
        {0: 0.542091965675354, 3: 0.542091965675354},
        {2: 0.46822160482406616, 4: 0.46822160482406616, 5: 0.5850688815116882, 7: 0.46822160482406616},
        {2: 0.5430976152420044, 5: 0.3393153250217438},
        {
            0: 0.4321959316730499,
            1: 0.5119175314903259,
            3: 0.4321959316730499,
            5: 0.31983470916748047,
            6: 0.5119175314903259,
        },
        {4: 0.529895544052124, 5: 0.6621339321136475, 7: 0.529895544052124},
    ],
    "validation": [
        {2: 0.8480830192565918, 5: 0.5298634171485901},
        {1: 0.6467992067337036, 5: 0.4041058123111725, 6: 0.6467992067337036},
    ],
}


def golden_rows(kind: str, split: str) -> np.ndarray:
    if kind == "sequence":
        return np.array(GOLDEN_IDS[split])
    x = np.zeros((len(GOLDEN_WEIGHTS[split]), 8), np.float32)
    for row, weights in enumerate(GOLDEN_WEIGHTS[split]):
        x[row, list(weights)] = list(weights.values())
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_shards_of_format_version_1_read_for_ever(kind):
    with open_shards(GOLDEN / f"v1-{kind}") as shards:
        assert shards.description.kind == kind
        assert shards.description.class_names == ("market", "sport")
        assert [shard.rows for shard in shards.train.entry.shards] == [4, 2]
        for name, split in shards.splits.items():
            x, y = split.rows(0, split.num_examples)
            np.testing.assert_array_equal(dense(x), golden_rows(kind, name))
            np.testing.assert_array_equal(y, GOLDEN_LABELS[name])
            np.testing.assert_array_equal(split.documents(0, split.num_examples), GOLDEN_DOCUMENTS[name])


# Of version 2: the same rows in each codec, and dense features.
GOLDEN_PACKED = {"v2-ngram-zstd": "ngram", "v2-sequence-lz4": "sequence", "v2-ngram-blosc2": "ngram"}
GOLDEN_DENSE = ("v2-dense", "v2-dense-zstd")


@pytest.mark.parametrize("name", GOLDEN_PACKED)
def test_compressed_shards_of_format_version_2_read_for_ever(name):
    kind = GOLDEN_PACKED[name]
    with open_shards(GOLDEN / name) as shards:
        assert shards.manifest.version == 2
        for split_name, split in shards.splits.items():
            x, y = split.rows(0, split.num_examples)
            np.testing.assert_array_equal(dense(x), golden_rows(kind, split_name))
            np.testing.assert_array_equal(y, GOLDEN_LABELS[split_name])
            np.testing.assert_array_equal(split.documents(0, split.num_examples), GOLDEN_DOCUMENTS[split_name])


@pytest.mark.parametrize("name", GOLDEN_DENSE)
def test_dense_shards_of_format_version_2_read_for_ever(name):
    with open_shards(GOLDEN / name) as shards:
        assert (shards.description.kind, shards.manifest.version) == ("dense", 2)
        x, y = shards.train.rows(0, 7)
        assert x.dtype == np.float32
        third = np.float32(1) / np.float32(3)
        rows = np.arange(7, dtype=np.float32)[:, None]
        np.testing.assert_array_equal(x[:, :4], np.hstack([rows * 0, rows + 1, rows + 1.5, rows - 2]))
        np.testing.assert_array_equal(x[:, 4], rows[:, 0] + third)
        np.testing.assert_array_equal(y, [0, 1, 2, 0, 1, 2, 0])


# Of version 3: the rows of version 1, and a test split.
GOLDEN_TEST_DOCUMENTS = [1, 2, 0]
GOLDEN_TEST_LABELS = [0, 0, 1]
GOLDEN_TEST_ROWS = {
    "ngram": np.array(
        [
            [0.47926998138427734, 0.5676746964454651, 0, 0, 0, 0.35467052459716797, 0.5676746964454651, 0],
            [0, 0, 0, 1, 0, 0, 0, 0],
            [0, 0, 0, 0, 0.4240415096282959, 0.5298634171485901, 0, 0.4240415096282959],
        ],
        np.float32,
    ),
    "sequence": np.array([[0, 0, 1, 6, 3], [0, 0, 0, 0, 2], [0, 1, 4, 5, 1]]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_shards_of_format_version_3_with_a_test_split_read_for_ever(kind):
    with open_shards(GOLDEN / f"v3-{kind}") as shards:
        assert (shards.manifest.version, shards.manifest.requires) == (3, ("test-split",))
        for name in ("train", "validation"):
            split = shards.splits[name]
            x, y = split.rows(0, split.num_examples)
            np.testing.assert_array_equal(dense(x), golden_rows(kind, name))
            np.testing.assert_array_equal(y, GOLDEN_LABELS[name])
        x, y = shards.test.rows(0, shards.test.num_examples)
        np.testing.assert_array_equal(shards.test.documents(0, 3), GOLDEN_TEST_DOCUMENTS)
        np.testing.assert_array_equal(y, GOLDEN_TEST_LABELS)
        np.testing.assert_array_equal(dense(x), GOLDEN_TEST_ROWS[kind])
    body = json.loads((GOLDEN / f"v3-{kind}" / "manifest.json").read_bytes())
    assert (body["format_version"], body["requires"]) == (3, ["test-split"])
    with h5py.File(GOLDEN / f"v3-{kind}" / "test-00000.h5") as file:
        assert file.attrs["format_version"] == 1  # the file itself has nothing new
        assert file["document"][...].tolist() == GOLDEN_TEST_DOCUMENTS


@pytest.mark.parametrize(("name", "kind"), [("v3-lists", "ngram"), ("v3-lists-zstd", "sequence")])
def test_shards_of_format_version_3_with_lists_read_for_ever(name, kind):
    requires = ["checksum-lists", *(["chunk-lists"] if "zstd" in name else []), "test-split"]
    body = json.loads((GOLDEN / name / "manifest.json").read_bytes())
    assert (body["format_version"], body["requires"]) == (3, requires)
    with open_shards(GOLDEN / name) as shards:
        for split_name, split in shards.splits.items():
            x, y = split.rows(0, split.num_examples)
            tested = split_name == "test"
            rows = GOLDEN_TEST_ROWS[kind] if tested else golden_rows(kind, split_name)
            np.testing.assert_array_equal(dense(x), rows)
            np.testing.assert_array_equal(y, GOLDEN_TEST_LABELS if tested else GOLDEN_LABELS[split_name])
    assert verify_shards(GOLDEN / name, advance=lambda _: None).faults == ()
    for split in body["splits"].values():
        for entry in split["shards"]:
            content = (GOLDEN / name / entry["file"]).read_bytes()
            blocks = [content[start : start + (1 << 17)] for start in range(0, len(content), 1 << 17)]
            packed = (GOLDEN / name / entry["checksums"]["file"]).read_bytes()
            assert packed == b"".join(map(xxhash.xxh3_64_digest, blocks))


@pytest.mark.parametrize("kind", KINDS)
def test_the_oldest_version_that_suffices_is_written(kind, tmp_path):
    build_golden_corpus(kind, tmp_path / "two")
    assert json.loads((tmp_path / "two" / "manifest.json").read_bytes())["format_version"] == 1
    build_golden_corpus(kind, tmp_path / "three", tested=True)
    same = [f"{name}.h5" for name in ("train-00000", "train-00001", "validation-00000")]
    assert filecmp.cmpfiles(tmp_path / "two", tmp_path / "three", same, shallow=False) == (same, [], [])
    assert read_manifest(tmp_path / "three").version == 3
    for codec, versions in (("none", (1, 3)), ("zstd", (2, 3))):
        for source, version in zip(("two", "three"), versions, strict=True):
            out = tmp_path / f"{source}-{codec}"
            manifest = recompress(tmp_path / source, out, RecompressOptions(compress=codec))
            assert read_manifest(out) == manifest
            assert (manifest.version, "test" in manifest.splits) == (version, source == "three")


def test_what_a_manifest_requires_and_this_package_does_not_know_is_named_whatever_else_it_has(tmp_path):
    def change(body):
        body["requires"] = ["test-split", "weights"]
        body["colour"] = "red"

    shutil.copytree(GOLDEN / "v3-ngram", tmp_path / "copy")
    reseal(tmp_path / "copy", change)
    with pytest.raises(ManifestError) as failure:
        open_shards(tmp_path / "copy")
    assert "requires 'weights' of its readers, this shardtrain" in str(failure.value)
    assert (
        "reads checksum-lists, chunk-lists, test-split of format version 3; install the version that wrote it"
        in str(failure.value)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_vectorizers_of_format_version_1_transform_for_ever(kind):
    texts = [texts[row] for row in range(4) for texts in GOLDEN_TEXTS.values()]
    vectorizer = load_vectorizer(GOLDEN / f"v1-{kind}" / "vectorizer")
    assert vectorizer.terms == GOLDEN_TERMS[kind]
    for name, documents in GOLDEN_DOCUMENTS.items():
        x = dense(vectorizer.transform([texts[document] for document in documents]))
        np.testing.assert_allclose(x, golden_rows(kind, name), rtol=1e-6)


# Manifests that cannot be true: each is sealed anew, so that it is the check that finds it.


def test_a_manifest_sealed_as_the_document_says_is_read(tmp_path):
    shutil.copytree(GOLDEN / "v1-ngram", tmp_path / "copy")
    reseal(tmp_path / "copy", lambda body: body["class_names"].__setitem__(0, "Märkte"))
    assert read_manifest(tmp_path / "copy").class_names == ("Märkte", "sport")


def shard(*keys):
    return at("splits", "train", "shards", 0, *keys)


def array(name, *keys):
    return shard("datasets", name, *keys)


def without(*keys):
    def change(body):
        for key in keys[:-1]:
            body = body[key]
        del body[keys[-1]]

    return change


def twice(body):
    shards = body["splits"]["train"]["shards"]
    shards[1] = shards[0]
    body["splits"]["train"].update(examples=8, nonzeros=26, class_counts=[4, 4])


HUGE = 10**30
HOSTILE = {
    "no kind": (without("kind"), "kind"),
    "no build": (without("build"), "'build' is missing"),
    "no offset": (without("splits", "train", "shards", 0, "datasets", "y", "offset"), "offset"),
    "unknown kind": (at("kind")("dense"), "kind is 'dense'"),
    "the other kind": (at("kind")("sequence"), "has the arrays"),
    "an unknown key": (at("colour")("red"), "colour"),
    "an unknown key of a shard": (shard("colour")("red"), "colour"),
    "features: none": (at("num_features")(0), "num_features is 0"),
    "features: negative": (at("num_features")(-8), "num_features is -8"),
    "features: huge": (at("num_features")(HUGE), "num_features is 1000"),
    "features: a fraction": (at("num_features")(8.0), "num_features is 8.0"),
    "features: text": (at("num_features")("8"), "num_features is '8'"),
    "features: true": (at("num_features")(True), "num_features is True"),
    "vocabulary: another size": (at("vocabulary_size")(9), "vocabulary_size is 9"),
    "seed: text": (at("seed")("1"), "seed is"),
    "class names: none": (at("class_names")([]), "number of classes is 0"),
    "class names: text": (at("class_names")("ab"), "is not a list"),
    "class names: numbers": (at("class_names")([1, 2]), "is not a string"),
    "class names: one more": (at("class_names")(["a", "b", "c"]), "class counts against class names"),
    "fingerprint: a number": (at("fingerprint")(1), "is not a string"),
    "vectorizer: a list": (at("vectorizer")([]), "`vectorizer` is a list of 0, expected an object"),
    "build: a list": (at("build")([]), "`build` is a list of 0, expected an object"),
    "splits: a list": (at("splits")([]), "list"),
    "splits: none": (at("splits")({}), "splits are"),
    "splits: no train": (without("splits", "train"), "splits are"),
    "splits: an unknown one": (at("splits", "test")({}), "'shards' is missing"),
    "splits: a test split in version 1": (
        lambda body: at("splits", "test")(body["splits"]["validation"])(body),
        "its content ['test-split']",
    ),
    "requires: in version 1": (at("requires")([]), "version 1 has no key 'requires'"),
    "split: no shards": (at("splits", "train", "shards")([]), "against"),
    "split: shards are no list": (at("splits", "train", "shards")({}), "is not a list"),
    "split: more examples": (at("splits", "train", "examples")(7), "examples against rows"),
    "split: examples huge": (at("splits", "train", "examples")(HUGE), "examples of train"),
    "split: other class counts": (at("splits", "train", "class_counts")([3, 4]), "of all classes"),
    "split: negative class counts": (at("splits", "train", "class_counts")([-1, 7]), "a class count of train is -1"),
    "split: other nonzeros": (at("splits", "train", "nonzeros")(20), "nonzeros against"),
    "split: a shard twice": (twice, "named twice"),
    "shard: of another split": (shard("file")("validation-00000.h5"), "named twice"),
    "shard: same by another name": (shard("file")("./train-00001.h5"), "named twice"),
    "file: above the folder": (shard("file")("../x.h5"), "reaches outside"),
    "file: above by a detour": (shard("file")("a/../../x.h5"), "reaches outside"),
    "file: absolute": (shard("file")("/etc/passwd"), "reaches outside"),
    "file: with a backslash": (shard("file")("..\\x.h5"), "reaches outside"),
    "file: with a null byte": (shard("file")("a\0.h5"), "reaches outside"),
    "file: empty": (shard("file")(""), "reaches outside"),
    "file: the folder": (shard("file")("."), "reaches outside"),
    "file: half a surrogate pair": (shard("file")("\ud800.h5"), "surrogates not allowed"),
    "file: a number": (shard("file")(1), "int"),
    "vectorizer file above the folder": (at("files", "../x")({"bytes": 1, "checksum": "0" * 16}), "reaches outside"),
    "vectorizer file of no size": (at("files", "vectorizer/terms.json", "bytes")(-1), "bytes of 'vectorizer/terms"),
    "vectorizer file without checksum": (at("files", "vectorizer/terms.json", "checksum")(""), "1 checksums"),
    "rows: none": (shard("rows")(0), "rows of 'train-00000.h5' is 0"),
    "rows: negative": (shard("rows")(-4), "rows of 'train-00000.h5' is -4"),
    "rows: huge": (shard("rows")(HUGE), "rows of 'train-00000.h5' is 1000"),
    "rows: one more": (shard("rows")(5), "has shape (5,), not (6,)"),
    "bytes: huge": (shard("bytes")(HUGE), "bytes of 'train-00000.h5' is 1000"),
    "bytes: negative": (shard("bytes")(-1), "bytes of 'train-00000.h5' is -1"),
    "bytes: more than the checksums cover": (shard("bytes")(1 << 40), "1048576 checksums"),
    "block_bytes: zero": (shard("block_bytes")(0), "block_bytes of"),
    "block_bytes: negative": (shard("block_bytes")(-(1 << 20)), "block_bytes of"),
    "block_bytes: smaller": (shard("block_bytes")(4096), "15 checksums"),
    "checksums: none": (shard("checksums")(""), "1 checksums"),
    "checksums: not hex": (shard("checksums")("x" * 16), "1 checksums"),
    "checksums: a list": (shard("checksums")(["0"] * 16), "1 checksums"),
    "arrays: one missing": (without("splits", "train", "shards", 0, "datasets", "y"), "has the arrays"),
    "arrays: one more": (array("x/more")({"dtype": "|u1", "shape": [0], "offset": 0, "bytes": 0}), "has the arrays"),
    "type: of another kind": (array("x/data", "dtype")("<i4"), "has type '<i4'"),
    "type: big-endian": (array("x/indices", "dtype")(">i4"), "has type '>i4'"),
    "type: objects": (array("document", "dtype")("|O"), "has type '|O'"),
    "type: a list": (array("y", "dtype")(["|u1"]), "unhashable"),
    "shape: of two sizes": (array("y", "shape")([2, 2]), "has shape (2, 2)"),
    "shape: none": (array("x/data", "shape")([]), "has shape ()"),
    "shape: a number": (array("x/data", "shape")(13), "is not a list"),
    "shape: negative": (array("x/data", "shape")([-13]), "a size of"),
    "shape: a fraction": (array("y", "shape")([4.0]), "a size of"),
    "shape: huge": (array("x/data", "shape")([HUGE]), "a size of"),
    "shape: data longer than its bytes": (array("x/data", "shape")([14]), "has shape (14,) in 52 bytes"),
    "shape: indices shorter than data": (array("x/indices", "shape")([12]), "has shape (12,), not (13,)"),
    "shape: data of two axes": (array("x/data", "shape")([13, 1]), "has shape (13, 1), not (13,)"),
    "shape: another number of rows": (array("document", "shape")([3]), "has shape (3,), not (4,)"),
    "array bytes: fewer": (array("document", "bytes")(24), "has shape (4,) in 24 bytes"),
    "array bytes: negative": (array("document", "bytes")(-32), "bytes of 'document'"),
    "offset: negative": (array("y", "offset")(-4096), "the offset of 'y'"),
    "offset: huge": (array("y", "offset")(HUGE), "the offset of 'y'"),
    "offset: a fraction": (array("y", "offset")(49152.0), "the offset of 'y'"),
    "offset: not on a page": (array("y", "offset")(49153), "the writer aligns arrays"),
    "offset: beyond the file": (array("document", "offset")(61440), "outside the file"),
    "offset: over another array": (array("x/indices", "offset")(24576), "overlaps another array"),
}


TEST_OF_3 = json.loads((GOLDEN / "v3-ngram" / "manifest.json").read_bytes())["splits"]["test"]
HOSTILE_3 = {
    "requires: missing": (without("requires"), "version 3 needs the key 'requires'"),
    "requires: a text": (at("requires")("test-split"), "is not a list"),
    "requires: a number": (at("requires")([3]), "it requires [3], its content ['test-split']"),
    "requires: nothing, and there is a test split": (at("requires")([]), "it requires [], its content ['test-split']"),
    "requires: a test split, and there is none": (without("splits", "test"), "it requires ['test-split'], its content"),
    "requires: twice": (at("requires")(["test-split"] * 2), "it requires ['test-split', 'test-split']"),
    "splits: an unknown one": (at("splits", "exam")(TEST_OF_3), "splits are ['exam'"),
    "splits: the validation shards as test": (
        lambda body: at("splits", "test")(body["splits"]["validation"])(body),
        "is named twice",
    ),
    "sources: missing": (without("sources"), "version 3 needs the key 'sources'"),
}


@pytest.mark.parametrize("name", HOSTILE_3)
def test_an_impossible_manifest_of_version_3_is_refused(name, tmp_path):
    change, reason = HOSTILE_3[name]
    shutil.copytree(GOLDEN / "v3-ngram", tmp_path / "copy")
    reseal(tmp_path / "copy", change)
    with pytest.raises(ManifestError, match="is not a valid manifest") as failure:
        open_shards(tmp_path / "copy")
    assert reason in str(failure.value)


@pytest.mark.parametrize("name", HOSTILE)
def test_an_impossible_manifest_is_refused(name, tmp_path):
    change, reason = HOSTILE[name]
    shutil.copytree(GOLDEN / "v1-ngram", tmp_path / "copy")
    reseal(tmp_path / "copy", change)
    with pytest.raises(ManifestError, match="is not a valid manifest") as failure:
        open_shards(tmp_path / "copy")
    assert reason in str(failure.value)
    assert len(str(failure.value)) < 1000


def test_an_array_without_values_must_lie_nowhere(tmp_path):
    write_shards(tmp_path, make_rows("ngram", 4, empty=True), [4])
    reseal(tmp_path, array("x/data", "offset")(4096))
    with pytest.raises(ManifestError, match="the writer aligns arrays"):
        read_manifest(tmp_path)


def test_a_sequence_shard_of_another_width_is_refused(tmp_path):
    shutil.copytree(GOLDEN / "v1-sequence", tmp_path / "copy")
    reseal(tmp_path / "copy", at("num_features")(4))
    with pytest.raises(ManifestError, match=r"shape \(4, 5\), not \(4, 4\)"):
        read_manifest(tmp_path / "copy")


UNREADABLE = {
    "empty": (b"", "not valid JSON"),
    "half of it": (b'{"format": "shardtrain", ', "not valid JSON"),
    "not UTF-8": (b'{"format": "\xff\xfe"}', "not valid JSON"),
    "nested without end": (b"[" * 100_000, "not valid JSON"),
    "a number of endless digits": (b'{"format": ' + b"9" * 10_000 + b"}", "not valid JSON"),
    "a list": (b"[]", "not a shardtrain manifest"),
    "of another program": (b'{"format": "zarr"}', "not a shardtrain manifest"),
    "of no version": (b'{"format": "shardtrain"}', "format version None"),
    "of version true": (b'{"format": "shardtrain", "format_version": true}', "format version True"),
    "of version 1.0": (b'{"format": "shardtrain", "format_version": 1.0}', r"format version 1\.0"),
    "of a later version": (
        b'{"format": "shardtrain", "format_version": 4}',
        r"format version 4, this shardtrain \(.*\) reads versions 1 to 3; install the version that wrote it",
    ),
    "of an earlier version": (
        b'{"format": "shardtrain", "format_version": 0}',
        r"format version 0, .* reads versions 1 to 3; restore it from a copy or rebuild the shards",
    ),
    "without a checksum": (b'{"format": "shardtrain", "format_version": 1}', "checksum differs"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_manifest_is_refused(name, tmp_path):
    content, reason = UNREADABLE[name]
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ManifestError, match=reason):
        open_shards(tmp_path)


def test_a_manifest_changed_without_its_checksum_is_refused(tmp_path):
    shutil.copytree(GOLDEN / "v1-ngram", tmp_path / "copy")
    path = tmp_path / "copy" / "manifest.json"
    path.write_text(path.read_text().replace('"seed": 3', '"seed": 4'))
    with pytest.raises(ManifestError, match="checksum differs"):
        open_shards(tmp_path / "copy")


@pytest.mark.parametrize(("name", "reason"), [("", "did not finish"), ("nowhere", "does not exist")])
def test_a_folder_without_manifest_is_no_shards_and_the_message_says_what_makes_some(name, reason, tmp_path):
    with pytest.raises(ShardsNotFoundError, match=reason) as failure:
        open_shards(tmp_path / name)
    assert "shardtrain.build(CORPUS" in str(failure.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_manifest_that_may_not_be_read_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text("{}")
    (tmp_path / "manifest.json").chmod(0)
    with pytest.raises(ManifestError, match="cannot be read"):
        open_shards(tmp_path)


def make_golden() -> None:
    """Write the committed shards; plain ones of text only where they are missing, since they stay what they are."""
    for chosen in KINDS:
        for version, tested in ((1, False), (3, True)):
            if not (GOLDEN / f"v{version}-{chosen}").exists():
                build_golden_corpus(chosen, GOLDEN / f"v{version}-{chosen}", tested=tested)
    with lists_forced():
        if not (GOLDEN / "v3-lists").exists():
            build_golden_corpus("ngram", GOLDEN / "v3-lists", tested=True)
        if not (GOLDEN / "v3-lists-zstd").exists():
            recompress(GOLDEN / "v3-sequence", GOLDEN / "v3-lists-zstd", RecompressOptions(compress="zstd"))
            (GOLDEN / "v3-lists-zstd" / "build.json").unlink()
    for name in (*GOLDEN_PACKED, *GOLDEN_DENSE):
        shutil.rmtree(GOLDEN / name, ignore_errors=True)
    write_shards(GOLDEN / "v2-dense", make_rows("dense", 7), [4, 3])
    for name in (*GOLDEN_PACKED, GOLDEN_DENSE[1]):
        _, chosen, codec = name.split("-")
        source = GOLDEN / ("v2-dense" if chosen == "dense" else f"v1-{chosen}")
        recompress(source, GOLDEN / name, RecompressOptions(compress=codec or "none"))
        (GOLDEN / name / "build.json").unlink()


if __name__ == "__main__":
    make_golden()


def test_a_profiler_that_holds_frames_does_not_disturb_what_writes_and_checks_shards(tmp_path: Path) -> None:
    """As that of Dask's workers does: what a frame holds is alive after its function has returned."""
    held = []
    thread, done = threading.get_ident(), threading.Event()

    def sample() -> None:
        while not done.is_set():
            frame = sys._current_frames().get(thread)
            while frame is not None:
                held.append(frame)
                frame = frame.f_back
            if len(held) > 20_000:
                held.clear()

    shape = ShardShape(kind="dense", rows=9, num_features=2000, nonzeros=0, num_classes=3, vocabulary_size=0)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    profiler = threading.Thread(target=sample)
    profiler.start()
    try:
        for number in range(40):
            with new_shard(tmp_path / f"{number}.h5", shape, synced=False) as writer:
                writer.append(np.ones((9, 2000), np.float32), np.arange(9) % 3, np.arange(9))
            assert is_finished(tmp_path / f"{number}.h5", writer.entry, shape)
    finally:
        done.set()
        profiler.join()
        sys.setswitchinterval(before)

"""A test file is a split of its own: never fitted to, never held out of training, and made as `predict` would."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.comparing import assert_nothing_published, assert_same_folder
from support.forked import Forking

from shardtrain.arrays.csr import Csr
from shardtrain.cli.main import main
from shardtrain.datasets.demo import write_demo
from shardtrain.errors import CorpusNotFoundError, LabelError
from shardtrain.inference.source_texts import find_source_texts
from shardtrain.loader.shards import open_shards
from shardtrain.loader.split import Split
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions, RecompressOptions
from shardtrain.pipeline.origin import open_again, recorded_origins
from shardtrain.pipeline.plan import plan_build
from shardtrain.pipeline.recompress import recompress
from shardtrain.pipeline.splits import with_found_splits
from shardtrain.runtime.jobs import RECORD
from shardtrain.runtime.quantities import size
from shardtrain.shards.layout import MEASURED, WORKING
from shardtrain.shards.manifest import read_manifest
from shardtrain.shards.verify import verify_shards
from shardtrain.vectorize.fitted import load_vectorizer

KINDS = ("ngram", "sequence", "hashing")
Read = Callable[[Path], tuple[list[str], list[str]]]

# Builds as a version before test splits did: its record has no option `test`, and test.csv is the validation split.
# It kills itself when it has written its Nth file.
OLDER = """
import json, os, signal, sys
from dataclasses import replace
from shardtrain.corpus.source import Corpus
from shardtrain.pipeline import build as job, given
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime import jobs

corpus, out, at = sys.argv[1:]
opened, job_for, renames, real = given.open_corpus, job.job_for, 0, os.replace

def older_job(*args):
    made = job_for(*args)
    options = {name: value for name, value in made.record["options"].items() if name != "test"}
    return replace(made, record={**made.record, "options": options})

def rename(source, target):
    global renames
    real(source, target)
    renames += out in str(target)
    if renames == int(at):
        os.kill(os.getpid(), signal.SIGKILL)

given.open_corpus = lambda *args, **how: opened(*args, **how).with_two_splits(named=False)
job.job_for, os.replace = older_job, rename
job.build(corpus, out, BuildOptions(max_features=200, workers=1))
"""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, documents=300, classes=3, seed=5)
    return folder


def options(**changed: object) -> BuildOptions:
    return BuildOptions(**{"max_features": 200, "workers": 1, **changed})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def built(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Shards of every kind, with a test split."""
    outs = {kind: tmp_path_factory.mktemp("built") / kind for kind in KINDS}
    for kind, out in outs.items():
        build(demo, out, options(vectorizer=kind))
    return outs


def rows_of(split: Split, start: int = 0) -> tuple[np.ndarray, list[int], list[int]]:
    """Features, labels and ordinals of the rows from `start` on, in ascending ordinal."""
    x, y = split.rows(start, split.num_examples)
    documents = split.documents(start, split.num_examples)
    order = np.argsort(documents)
    dense = x.toarray() if isinstance(x, Csr) else np.asarray(x)
    return dense[order], np.asarray(y)[order].tolist(), documents[order].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_test_rows_are_all_of_the_test_file_in_the_features_of_the_training_split(
    kind: str, demo: Path, built: dict[str, Path], tmp_path: Path, read_csv: Read
) -> None:
    labels, texts = read_csv(demo / "test.csv")
    vectorizer = load_vectorizer(built[kind] / "vectorizer")
    with open_shards(built[kind]) as shards:
        x, y, documents = rows_of(shards.test)
        expected = vectorizer.transform(texts)
        np.testing.assert_array_equal(x, expected.toarray() if isinstance(expected, Csr) else expected)
        assert (y, documents) == ([int(label) - 1 for label in labels], list(range(len(texts))))
        # the other splits, and the vectorizer, are those of the training file alone
        build(demo / "train.csv", tmp_path / "alone", options(vectorizer=kind))
        with open_shards(tmp_path / "alone") as alone:
            assert set(alone.splits) == {"train", "validation"}
            assert alone.description.vectorizer == shards.description.vectorizer
            for name, split in alone.splits.items():
                assert [entry.checksums for entry in split.entry.shards] == [
                    entry.checksums for entry in shards.splits[name].entry.shards
                ]
    assert verify_shards(built[kind], advance=lambda _: None).faults == ()


def test_the_validation_option_gives_what_a_test_file_gave_before(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    for file, name in (("train.csv", "train.csv"), ("classes.txt", "classes.txt"), ("test.csv", "valid.csv")):
        (tmp_path / "two" / name).write_bytes((demo / file).read_bytes())
    build(tmp_path / "two", tmp_path / "found", options())
    manifest = build(demo, tmp_path / "named", options(validation="test.csv"))
    assert manifest.version == 1
    assert set(manifest.splits) == {"train", "validation"}
    found = read_manifest(tmp_path / "found")
    assert (found.splits, found.files, found.fingerprint) == (manifest.splits, manifest.files, manifest.fingerprint)


def test_a_named_file_is_found_beside_the_corpus_and_a_missing_one_is_reported(demo: Path, tmp_path: Path) -> None:
    manifest = build(demo / "train.csv", tmp_path / "out", options(test="test.csv"))
    assert manifest.splits["test"].examples == 30
    with pytest.raises(CorpusNotFoundError, match=r"test.*'tset\.csv' does not exist, nor in"):
        build(demo / "train.csv", tmp_path / "other", options(test="tset.csv"))
    assert not (tmp_path / "other").exists()


def test_a_label_that_only_the_test_file_has_is_refused_with_its_name(write_csv: Callable, tmp_path: Path) -> None:
    write_csv("corpus/train.csv", [("1", "aa bb"), ("2", "aa cc")] * 20)
    write_csv("corpus/test.csv", [("1", "aa bb"), ("3", "aa bb"), ("3", "cc")])
    for kind in ("ngram", "hashing"):
        with pytest.raises(LabelError, match=r"labels of the test split 'test\.csv' .*: '3' \(2 examples\)"):
            build(tmp_path / "corpus", tmp_path / "out", options(vectorizer=kind))
    assert_nothing_published(tmp_path / "out")


def test_the_manifest_and_the_texts_of_rows_name_the_test_file(
    demo: Path, built: dict[str, Path], tmp_path: Path, read_csv: Read
) -> None:
    _, texts = read_csv(demo / "test.csv")
    with open_shards(built["ngram"]) as shards:
        (part,) = shards.manifest.build["parts"]
        assert (part["train"]["name"], part["validation"], part["test"]["name"]) == ("train.csv", None, "test.csv")
        assert part["documents"] == 330
        assert part["shards"] == {"train": [0, 1], "validation": [0, 1], "test": [0, 1]}
        found, reasons = find_source_texts(shards, shards.test, [0, 7], scratch=tmp_path)
        assert reasons == ()
        assert found == {row: texts[int(shards.test.documents(row, row + 1)[0])] for row in (0, 7)}


@pytest.mark.parametrize("kind", KINDS)
def test_appending_a_corpus_appends_its_test_rows(
    kind: str, built: dict[str, Path], tmp_path: Path, read_csv: Read
) -> None:
    write_demo(tmp_path / "more", documents=90, classes=3, seed=6)
    _, texts = read_csv(tmp_path / "more" / "test.csv")
    subprocess.run(["cp", "-a", built[kind], tmp_path / "out"], check=True)
    before = read_manifest(tmp_path / "out")
    manifest = build(tmp_path / "more", tmp_path / "out", BuildOptions(append=True, workers=1))
    assert [shard.file for shard in manifest.splits["test"].shards] == ["test-00000.h5", "test-00001.h5"]
    assert manifest.splits["test"].examples == before.splits["test"].examples + len(texts)
    assert manifest.build["parts"][1]["shards"]["test"] == [1, 2]
    with open_shards(tmp_path / "out") as shards:
        x, _, documents = rows_of(shards.test, before.splits["test"].examples)
        expected = load_vectorizer(built[kind] / "vectorizer").transform(texts)
        np.testing.assert_array_equal(x, expected.toarray() if isinstance(expected, Csr) else expected)
        assert documents == list(range(len(texts)))
    assert verify_shards(tmp_path / "out", advance=lambda _: None).faults == ()


def test_shards_of_an_older_version_get_a_test_split_by_appending_one(demo: Path, tmp_path: Path) -> None:
    build(demo, tmp_path / "out", options(validation="test.csv"))
    assert read_manifest(tmp_path / "out").version == 1
    manifest = build(demo, tmp_path / "out", BuildOptions(append=True, workers=1, test="test.csv"))
    assert (manifest.version, manifest.splits["test"].examples) == (3, 30)
    assert [set(part["shards"]) for part in manifest.build["parts"]] == [
        {"train", "validation"},
        {"train", "validation", "test"},
    ]
    assert read_manifest(tmp_path / "out") == manifest


def test_a_reused_vectorizer_makes_the_same_test_rows(demo: Path, built: dict[str, Path], tmp_path: Path) -> None:
    manifest = build(demo, tmp_path / "again", BuildOptions(vectorizer_from=built["ngram"], workers=1))
    assert manifest.splits["test"] == read_manifest(built["ngram"]).splits["test"]


def test_recompressing_carries_the_test_split(built: dict[str, Path], tmp_path: Path) -> None:
    manifest = recompress(built["sequence"], tmp_path / "lz4", RecompressOptions(compress="lz4"))
    assert manifest.version == 3
    with open_shards(built["sequence"]) as plain, open_shards(tmp_path / "lz4") as packed:
        assert packed.test.num_examples == plain.test.num_examples
        for ours, theirs in zip(rows_of(packed.test), rows_of(plain.test), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert verify_shards(tmp_path / "lz4", advance=lambda _: None).faults == ()


def test_the_plan_shows_the_test_split_and_counts_its_disk(demo: Path, tmp_path: Path) -> None:
    plan, without = (plan_build(corpus, tmp_path / "out", options()) for corpus in (demo, demo / "train.csv"))
    text = size((demo / "test.csv").stat().st_size)
    assert f"test: test.csv, {text} of text, 30 documents in 1 unit" in plan.lines()
    assert without.test is None
    assert not any(line.startswith("test:") for line in without.lines())
    ratio = without.disk_bytes / without.train.num_bytes
    assert plan.disk_bytes - without.disk_bytes == pytest.approx(ratio * (demo / "test.csv").stat().st_size)


def test_the_commands_show_three_splits(
    demo: Path, built: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["build", str(demo), "--out", str(out), "--max-features", "200"]) == 0
    train, validation = (read_manifest(out).splits[name].examples for name in ("train", "validation"))
    assert f"{train} training, {validation} validation and 30 test examples of 3 classes" in capsys.readouterr().out
    assert main(["build", str(demo), "--out", str(out), "--max-features", "200", "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test"]["examples"] == 30
    assert main(["inspect", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "classes of test, 30 examples" in shown
    assert "format version 3" in shown


@pytest.mark.parametrize("at", [3, 10])
def test_a_build_that_an_older_version_began_is_finished_with_its_splits(
    at: int, building: Forking, demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert building.run(OLDER, demo, tmp_path / "out", at).returncode == -signal.SIGKILL
    assert "test" not in json.loads((tmp_path / "out" / WORKING / RECORD).read_text())["options"]
    assert plan_build(demo, tmp_path / "out", options()).test is None
    build(demo, tmp_path / "out", options())
    assert "began this build without a test split: the validation split is test.csv" in capsys.readouterr().err
    build(demo, tmp_path / "whole", options(validation="test.csv"))
    assert_same_folder(tmp_path / "out", tmp_path / "whole")
    (origin,) = recorded_origins(tmp_path / "out")
    assert origin is not None
    assert Path(open_again(origin, scratch=tmp_path).validation.origin).name == "test.csv"  # type: ignore[union-attr]


def test_the_corpus_of_older_shards_is_opened_again_as_it_was(demo: Path, tmp_path: Path, read_csv: Read) -> None:
    _, texts = read_csv(demo / "test.csv")
    out = tmp_path / "out"
    build(demo, out, options(validation="test.csv"))
    record = json.loads((out / MEASURED).read_text())
    (origin,) = record["origins"]
    older = {name: value for name, value in origin.items() if name != "test"} | {"validation": None}
    (out / MEASURED).write_text(json.dumps({**record, "origins": [older]}))
    with open_shards(out) as shards:
        found, reasons = find_source_texts(shards, shards.validation, [3], scratch=tmp_path)
        assert (found, reasons) == ({3: texts[int(shards.validation.documents(3, 4)[0])]}, ())


def test_options_are_unchanged_where_nothing_is_named(demo: Path) -> None:
    assert with_found_splits([demo], options()) == options()
    found = with_found_splits([demo], options(validation="test.csv"))
    assert found == replace(options(), validation=demo / "test.csv")


def test_a_file_that_validates_shards_does_not_become_their_test_split(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(demo, tmp_path / "shards", options(validation="test.csv"))
    build(demo, tmp_path / "shards", BuildOptions(append=True, workers=1))
    manifest = read_manifest(tmp_path / "shards")
    assert set(manifest.splits) == {"train", "validation"}
    assert manifest.splits["validation"].examples == 60
    assert "test.csv is the validation split, as in the shards that are appended to" in capsys.readouterr().err

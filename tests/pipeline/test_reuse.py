"""Shards of a fitted vectorizer, and shards that grow: what is reused stays as it was, what is added is whole."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.comparing import assert_same_folder
from support.sampled import sampled

from shardtrain.arrays.csr import Csr
from shardtrain.cli.main import main
from shardtrain.datasets.demo import write_demo
from shardtrain.errors import (
    LabelError,
    ShardsError,
    ShardsExistError,
    ShardsNotFoundError,
    UsageError,
    VectorizerError,
)
from shardtrain.loader.order import document_keys
from shardtrain.loader.shards import open_shards
from shardtrain.loader.split import Split
from shardtrain.pipeline import build as job
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime.jobs import RECORD
from shardtrain.shards import layout
from shardtrain.shards.manifest import read_manifest, write_manifest
from shardtrain.shards.verify import verify_shards
from shardtrain.vectorize.fitted import load_vectorizer

KINDS = ["ngram", "sequence", "hashing"]

# Adds a corpus to shards in units of 64 KiB, and kills itself at its Nth rename, before it (N below 0) or after it;
# "cleared" kills it when the shards are finished and the working folder is being removed.
DRIVER = """
import os, shutil, signal, sys
from shardtrain.pipeline import build as job
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions

corpus, out, at = sys.argv[1:]
job.UNIT_BYTES = 1 << 16
renames, real = 0, os.replace

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def replace(source, target):
    global renames
    renames += 1
    if at != "cleared" and renames == -int(at):
        kill()
    real(source, target)
    if at != "cleared" and renames == int(at):
        kill()

os.replace = replace
if at == "cleared":
    shutil.rmtree = kill
build(corpus, out, BuildOptions(append=True, workers=1, rows_per_shard=200))
print("renames", renames)
"""


@pytest.fixture(autouse=True)
def small_units(monkeypatch):
    """Cut corpora into units of 64 KiB, so that small ones have several."""
    monkeypatch.setattr(job, "UNIT_BYTES", 1 << 16)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> dict[str, Path]:
    """Two corpora of the same three classes."""
    folder = tmp_path_factory.mktemp("corpora")
    for name, documents, seed in (("first", 700, 3), ("second", 450, 4)):
        write_demo(folder / name, documents=documents, classes=3, seed=seed)
        (folder / name / "test.csv").rename(folder / name / "valid.csv")
    return {name: folder / name for name in ("first", "second")}


def options(**changed) -> BuildOptions:
    return BuildOptions(**{"rows_per_shard": 200, **changed})


@pytest.fixture(scope="module")
def fitted(corpora, tmp_path_factory) -> dict[str, Path]:
    """Shards of the first corpus, of every kind."""
    outs = {kind: tmp_path_factory.mktemp("fitted") / kind for kind in KINDS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "UNIT_BYTES", 1 << 16)
        for kind, out in outs.items():
            build(corpora["first"], out, options(vectorizer=kind, max_features=500, seed=5))
    return outs


def copied(folder: Path, target: Path) -> Path:
    subprocess.run(["cp", "-a", folder, target], check=True)
    return target


def dense(x) -> np.ndarray:
    return x.toarray() if isinstance(x, Csr) else np.asarray(x)


def rows_of(split: Split, start: int = 0, stop: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and ordinals of rows, in ascending ordinal."""
    stop = split.num_examples if stop is None else stop
    x, y = split.rows(start, stop)
    documents = split.documents(start, stop)
    order = np.argsort(documents)
    return dense(x)[order], np.asarray(y)[order], documents[order]


def identity(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Of every file but the manifest and the measurements: inode, time of change, content."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (layout.MANIFEST, layout.MEASURED)
    }


def assert_same_rows(ours: Path, theirs: Path) -> None:
    """Both have the same splits of the same rows in the same order; values may differ in their last bits."""
    with open_shards(ours) as expected, open_shards(theirs) as found:
        assert expected.description.vectorizer == found.description.vectorizer
        assert expected.manifest.files == found.manifest.files
        assert set(expected.splits) == set(found.splits)
        for name, split in expected.splits.items():
            other, stop = found.splits[name], split.num_examples
            assert other.entry.class_counts == split.entry.class_counts
            np.testing.assert_array_equal(other.documents(0, stop), split.documents(0, stop))
            (x, y), (again, y_again) = split.rows(0, stop), other.rows(0, stop)
            np.testing.assert_array_equal(y_again, y)
            np.testing.assert_allclose(dense(again), dense(x), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_corpus_with_its_own_vectorizer_gives_the_rows_it_was_fitted_with(kind, corpora, fitted, tmp_path):
    build(corpora["first"], tmp_path / "again", options(vectorizer_from=fitted[kind], seed=5))
    assert_same_rows(fitted[kind], tmp_path / "again")


@pytest.mark.parametrize(
    "fitting",
    [
        {"vectorizer": "sequence"},
        {"vectorizer": "count"},
        {"vectorizer": "hashing"},
        {"analyzer": "char_wb", "ngram_range": (2, 3)},
        {"select": "chi2", "sublinear_tf": True},
    ],
)
def test_so_it_does_where_a_fraction_is_held_out_and_with_other_settings(fitting, corpora, tmp_path):
    path, held_out = corpora["second"] / "train.csv", {"validation_fraction": 0.3, "seed": 8}
    build(path, tmp_path / "out", options(**fitting, max_features=200, **held_out))
    build(path, tmp_path / "again", options(vectorizer_from=tmp_path / "out", **held_out))
    assert_same_rows(tmp_path / "out", tmp_path / "again")


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_another_corpus_are_what_the_vectorizer_makes_of_its_texts(kind, corpora, fitted, tmp_path, read_csv):
    run = tmp_path / "run"  # a run has the same folder
    copied(fitted[kind] / layout.VECTORIZER, run.parent / "vectorizer")
    run.mkdir()
    (run.parent / "vectorizer").rename(run / layout.VECTORIZER)
    build(corpora["second"], tmp_path / "out", options(vectorizer_from=run, workers=1))
    vectorizer = load_vectorizer(fitted[kind] / layout.VECTORIZER)
    with open_shards(tmp_path / "out") as shards:
        assert shards.description.vectorizer == vectorizer.describe()["fingerprint"]
        for name, file in (("train", "train.csv"), ("validation", "valid.csv")):
            labels, texts = read_csv(corpora["second"] / file)
            x, y, documents = rows_of(shards.splits[name])
            np.testing.assert_array_equal(documents, np.arange(len(texts)))
            np.testing.assert_array_equal(x, dense(vectorizer.transform(texts)))
            assert y.tolist() == [int(label) - 1 for label in labels]
        assert verify_shards(tmp_path / "out", advance=lambda _: None).faults == ()


def test_options_that_would_fit_another_vectorizer_are_named(corpora, fitted, tmp_path, capsys):
    given = {
        "--max-features": ["20000"],
        "--ngram-range": ["1", "2"],
        "--min-df": ["2"],
        "--max-length": ["500"],
        "--vectorizer": ["ngram"],
        "--select": ["chi2"],
        "--binary": [],
    }
    for reusing in (["--vectorizer-from", str(fitted["ngram"])], ["--append"]):
        for name, values in given.items():  # also where the value is the default
            assert main(["build", str(corpora["second"]), "--out", str(tmp_path / "out"), *reusing, name, *values]) == 2
            assert name in capsys.readouterr().err
    (tmp_path / "given.toml").write_text("[build]\nseed = 1\n")  # a file gives options as the command line does
    words = ["--out", str(tmp_path / "out"), "--append", "--config", str(tmp_path / "given.toml")]
    assert main(["build", str(corpora["second"]), *words]) == 2
    assert "--seed would change nothing" in capsys.readouterr().err
    with pytest.raises(UsageError, match="min_df, max_length"):
        BuildOptions(vectorizer_from=fitted["ngram"], max_length=3, min_df=1)
    with pytest.raises(UsageError, match="seed"):
        BuildOptions(append=True, seed=2)
    with pytest.raises(UsageError, match="overwrite"):
        BuildOptions(append=True, overwrite=True)
    with pytest.raises(UsageError, match="vectorizer_from"):
        BuildOptions(append=True, vectorizer_from=fitted["ngram"])
    assert not (tmp_path / "out").exists()


def test_what_claims_nothing_may_be_given_with_append(corpora, fitted, tmp_path, capsys):
    """Detection of labels, empty values, and the options that --print-config prints."""
    out = copied(fitted["ngram"], tmp_path / "out")
    words = ["build", str(corpora["second"]), "--out", str(out), "--append", "--labels", "auto", "--dry-run"]
    assert main([*words, "--vectorizer-from", "", "--stop-words", "", "--memory-limit", "", "--seed="]) == 0
    capsys.readouterr()
    assert main([*words, "--print-config"]) == 0
    (tmp_path / "printed.toml").write_text(capsys.readouterr().out)
    assert main(["build", str(corpora["second"]), "--config", str(tmp_path / "printed.toml")]) == 0
    with pytest.raises(UsageError, match="labels would change nothing"):
        BuildOptions(append=True, labels="names")


def test_a_folder_without_a_vectorizer_is_refused(corpora, tmp_path):
    with pytest.raises(VectorizerError, match="no readable vectorizer"):
        build(corpora["second"], tmp_path / "out", options(vectorizer_from=tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def grown(corpora, fitted, tmp_path_factory) -> dict[str, Path]:
    """The shards of the first corpus with the second added."""
    outs = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "UNIT_BYTES", 1 << 16)
        for kind in KINDS:
            outs[kind] = copied(fitted[kind], tmp_path_factory.mktemp("grown") / kind)
            build(corpora["second"], outs[kind], options(append=True, workers=1))
    return outs


@pytest.mark.parametrize("kind", KINDS)
def test_added_shards_come_behind_the_older_ones_which_stay_untouched(kind, corpora, fitted, tmp_path):
    out = copied(fitted[kind], tmp_path / "out")
    before, older = identity(out), read_manifest(out)
    build(corpora["second"], out, options(append=True))
    after = identity(out)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"train-00004.h5", "train-00005.h5", "train-00006.h5", "validation-00001.h5"}
    with open_shards(out) as shards:
        for name, split in shards.splits.items():
            assert split.entry.shards[: len(older.splits[name].shards)] == older.splits[name].shards
        assert verify_shards(out, advance=lambda _: None).faults == ()


@pytest.mark.parametrize("kind", KINDS)
def test_added_rows_are_those_of_shards_made_with_the_vectorizer_and_seed(kind, corpora, fitted, grown, tmp_path):
    build(corpora["second"], tmp_path / "alone", options(vectorizer_from=fitted[kind], seed=5))
    with open_shards(grown[kind]) as shards, open_shards(tmp_path / "alone") as alone, open_shards(fitted[kind]) as old:
        assert shards.manifest.seed == 5
        assert shards.description.fingerprint not in (old.description.fingerprint, alone.description.fingerprint)
        for name, split in shards.splits.items():
            parts = (old.splits[name].entry, alone.splits[name].entry)
            assert split.entry.examples == sum(part.examples for part in parts)
            assert split.entry.nonzeros == sum(part.nonzeros for part in parts)
            assert split.entry.class_counts == tuple(map(sum, zip(*(part.class_counts for part in parts), strict=True)))
            start = parts[0].examples
            x, y, documents = rows_of(split, start)
            expected_x, expected_y, expected_documents = rows_of(alone.splits[name])
            np.testing.assert_array_equal(x, expected_x)
            np.testing.assert_array_equal(y, expected_y)
            np.testing.assert_array_equal(documents, expected_documents)
            assert np.all(np.diff(document_keys(split.documents(start, split.num_examples), 5).astype(object)) > 0)


def test_every_part_keeps_its_provenance_and_finds_its_shards(corpora, grown):
    manifest = read_manifest(grown["ngram"])
    assert manifest.build["labels"] == {"1": 0, "2": 1, "3": 2}
    first, second = manifest.build["parts"]
    for name, part, documents in (("first", first, 770), ("second", second, 495)):
        assert part["train"]["bytes"] == (corpora[name] / "train.csv").stat().st_size
        assert part["documents"] == documents
        assert (part["rejected_rows"], part["replaced_bytes"]) == (0, 0)
    assert (first["vectorizer"], second["vectorizer"]) == ("fitted", "reused")
    assert (first["shards"], second["shards"]) == (
        {"train": [0, 4], "validation": [0, 1]},
        {"train": [4, 7], "validation": [1, 2]},
    )


def test_training_sees_every_row_of_both_parts_once_and_mixed(grown, fitted):
    older = read_manifest(fitted["sequence"]).splits["train"].examples
    with open_shards(grown["sequence"]) as shards:
        x, _ = shards.train.rows(0, shards.train.num_examples)
        everything = [row.tobytes() for row in np.asarray(x)]
        seen = [row.tobytes() for x, _ in shards.train.batches(50, seed=1, shuffle="window") for row in np.asarray(x)]
    assert Counter(seen) == Counter(everything)
    added = set(everything[older:]) - set(everything[:older])
    half = len(seen) // 2
    assert 0.2 < sum(row in added for row in seen[:half]) / half < 0.6  # 450 of 1,150 rows


def test_shards_grow_again_and_again(corpora, grown, write_csv, tmp_path):
    out = copied(grown["ngram"], tmp_path / "out")
    before = identity(out)
    path = write_csv("more.csv", [("3", "one two three"), ("1", "four five six")])
    manifest = build(path, out, options(append=True, validation_fraction=0.0))
    assert identity(out).items() > before.items()
    assert [part["documents"] for part in manifest.build["parts"]] == [770, 495, 2]
    assert manifest.build["parts"][2]["shards"] == {"train": [7, 8]}
    assert manifest.splits["train"].shards[-1].file == "train-00007.h5"
    with open_shards(out) as shards:
        assert rows_of(shards.train, shards.train.num_examples - 2)[1].tolist() == [2, 0]


def test_a_validation_split_can_be_added_to_shards_without_one(corpora, tmp_path):
    build(corpora["first"] / "train.csv", tmp_path / "out", options(max_features=300, validation_fraction=0.0))
    manifest = build(corpora["second"], tmp_path / "out", options(append=True))
    assert list(manifest.splits) == ["train", "validation"]
    assert manifest.splits["validation"].shards[0].file == "validation-00000.h5"
    assert verify_shards(tmp_path / "out", advance=lambda _: None).faults == ()


def test_an_unknown_label_is_named_and_leaves_everything_as_it_was(fitted, write_csv, tmp_path):
    out = copied(fitted["ngram"], tmp_path / "out")
    path = write_csv("more.csv", [("1", "aa bb"), ("sport", "cc dd"), ("sport", "ee")])
    with pytest.raises(LabelError, match=r"'sport' \(2 examples\)"):
        build(path, out, options(append=True, validation_fraction=0.0))
    shutil.rmtree(out / layout.WORKING)  # finished work is kept
    assert_same_folder(out, fitted["ngram"])
    assert (out / layout.MANIFEST).read_bytes() == (fitted["ngram"] / layout.MANIFEST).read_bytes()


def test_where_nothing_can_be_added_to_nothing_is_made(corpora, fitted, tmp_path):
    with pytest.raises(ShardsNotFoundError):
        build(corpora["second"], tmp_path / "out", options(append=True))
    assert not (tmp_path / "out").exists()
    unlabelled = copied(fitted["ngram"], tmp_path / "unlabelled")
    manifest = read_manifest(unlabelled)
    write_manifest(unlabelled, replace(manifest, build={}))
    with pytest.raises(ShardsError, match="do not record the labels"):
        build(corpora["second"], unlabelled, options(append=True))
    other = copied(fitted["ngram"], tmp_path / "other")
    subprocess.run(["rm", "-r", other / layout.VECTORIZER], check=True)
    copied(fitted["sequence"] / layout.VECTORIZER, other / layout.VECTORIZER)
    with pytest.raises(VectorizerError, match="were made with"):
        build(corpora["second"], other, options(append=True))


@pytest.mark.slow  # tests/pipeline/test_build.py has the law for whole builds
@pytest.mark.parametrize("kind", KINDS)
def test_workers_change_no_byte_of_what_is_added(kind, corpora, fitted, grown, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "PARALLEL_BYTES", 0)
    out = copied(fitted[kind], tmp_path / "out")
    build(corpora["second"], out, options(append=True, workers=2))
    assert json.loads((out / layout.MEASURED).read_text())["workers"] == 2
    assert_same_folder(out, grown[kind])


def drive(building, corpus, out, at="0") -> tuple[int, str]:
    done = building.run(DRIVER, corpus, out, at)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode, done.stdout.decode()


@pytest.fixture(scope="module")
def renames(building, corpora, fitted, grown, tmp_path_factory) -> int:
    """How many renames an addition makes."""
    out = copied(fitted["ngram"], tmp_path_factory.mktemp("counted") / "out")
    number = int(drive(building, corpora["second"], out)[1].split()[-1])
    assert_same_folder(out, grown["ngram"])
    return number


@pytest.mark.heavy
@pytest.mark.parametrize("part", sampled([0.0, 0.4, 0.8, "published", "last", "cleared"], (1, 3)))
def test_killed_while_adding_leaves_the_old_or_the_new_and_the_same_command_goes_on(
    part, building, corpora, fitted, grown, renames, tmp_path
):
    out = copied(fitted["ngram"], tmp_path / "out")
    older = identity(out)
    at = {"published": -renames, "last": renames, "cleared": part}.get(part) or 1 + round((renames - 1) * part)
    assert drive(building, corpora["second"], out, str(at))[0] == -signal.SIGKILL
    found = read_manifest(out)  # at every moment there is one
    assert found in (read_manifest(fitted["ngram"]), read_manifest(grown["ngram"]))
    assert (found == read_manifest(grown["ngram"])) == (part in ("last", "cleared"))
    assert identity(out).items() >= older.items()
    with open_shards(out) as shards:
        shards.train.rows(0, shards.train.num_examples)
    build(corpora["second"], out, options(append=True, workers=1))
    assert_same_folder(out, grown["ngram"])
    assert identity(out).items() >= older.items()


def test_a_restart_of_the_machine_does_not_add_twice_what_was_published(
    building, corpora, fitted, grown, renames, tmp_path
):
    for name, at in (("ready", str(-renames)), ("published", str(renames))):
        out = copied(fitted["ngram"], tmp_path / name)
        drive(building, corpora["second"], out, at)
        owner = out / layout.WORKING / RECORD
        owner.write_text(json.dumps({**json.loads(owner.read_text()), "store": "another"}))
        build(corpora["second"], out, options(append=True))
        assert_same_folder(out, grown["ngram"])


def test_an_interrupted_addition_is_not_taken_for_another(building, corpora, fitted, renames, tmp_path):
    out = copied(fitted["ngram"], tmp_path / "out")
    drive(building, corpora["second"], out, str(renames // 2))
    with pytest.raises(ShardsExistError, match=r"interrupted build that was started differently.*delete"):
        build(corpora["first"], out, options(append=True))
    with pytest.raises(ShardsExistError, match="append"):
        build(corpora["second"], out, options())
    assert (out / layout.WORKING).exists()
    build(corpora["second"], out, options(append=True, resume=True))
    assert len(read_manifest(out).build["parts"]) == 2


def test_after_a_finished_addition_was_killed_another_one_can_begin(building, corpora, fitted, tmp_path):
    out = copied(fitted["ngram"], tmp_path / "out")
    drive(building, corpora["second"], out, "cleared")
    manifest = build(corpora["first"], out, options(append=True))
    assert [part["documents"] for part in manifest.build["parts"]] == [770, 495, 770]

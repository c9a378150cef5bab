"""Laws of a build: what decides its result, what it leaves behind, what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.comparing import assert_nothing_published, assert_same_folder

from shardtrain.arrays.csr import Csr
from shardtrain.datasets.demo import write_demo
from shardtrain.errors import CorpusFormatError, LabelError, ShardsExistError, UsageError
from shardtrain.loader.order import document_keys
from shardtrain.loader.shards import open_shards
from shardtrain.options import parse_size
from shardtrain.pipeline import build as job
from shardtrain.pipeline import crew, naming, titles
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.pipeline.plan import plan_build
from shardtrain.pipeline.planning import plan_shards
from shardtrain.pipeline.row_files import spill_rows
from shardtrain.runtime import passes
from shardtrain.runtime.executors import Serial
from shardtrain.runtime.jobs import RECORD
from shardtrain.runtime.memory import anonymous_bytes
from shardtrain.shards import layout

DOCUMENTS = 1600


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, documents=DOCUMENTS, classes=5, seed=2)
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """Ten units, and more than a process has at once."""
    folder = tmp_path_factory.mktemp("large")
    write_demo(folder, documents=120_000, classes=4, seed=2)
    return folder


@pytest.fixture
def small_units(monkeypatch):
    """Cut corpora into units of 64 KiB, so that a small one has many."""
    monkeypatch.setattr(job, "UNIT_BYTES", 1 << 16)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("vectorizer", "numbers"),
    [
        ("ngram", (2,)),
        pytest.param("sequence", (2,), marks=pytest.mark.slow),
        pytest.param("ngram", (3, 4), marks=pytest.mark.slow),
        pytest.param("sequence", (3, 4), marks=pytest.mark.slow),
    ],
)
def test_neither_memory_nor_workers_change_a_byte(vectorizer, numbers, demo, tmp_path, small_units, monkeypatch):
    assert (demo / "train.csv").stat().st_size > 6 * job.UNIT_BYTES
    options = BuildOptions(vectorizer=vectorizer, rows_per_shard=400, max_features=2000)
    build(demo, tmp_path / "one", replace(options, workers=1))
    monkeypatch.setattr(job, "PARALLEL_BYTES", 0)
    for workers in numbers:
        build(demo, tmp_path / str(workers), replace(options, workers=workers))
        assert json.loads((tmp_path / str(workers) / layout.MEASURED).read_text())["workers"] == workers
    monkeypatch.setattr(crew, "processes", None)  # for which so little has no room
    build(demo, tmp_path / "threads", replace(options, workers=2, memory_limit=256 << 20))
    assert json.loads((tmp_path / "threads" / layout.MEASURED).read_text())["workers"] == 2
    monkeypatch.setattr(passes.Workers, "task_budget", lambda workers, limit: 20_000)  # many buckets and pieces
    monkeypatch.setattr(naming, "FEATURE_BYTES", 1)  # so little has no room for the names, which is not the question
    monkeypatch.setattr(naming, "NAME_BYTES", 0)
    build(demo, tmp_path / "little", replace(options, workers=1, memory_limit=256 << 20))
    for other in (*map(str, numbers), "threads", "little"):
        assert_same_folder(tmp_path / "one", tmp_path / other)


def test_every_document_is_in_one_split_once_and_rows_lie_in_the_order_of_their_keys(demo, tmp_path, small_units):
    only = tmp_path / "train.csv"
    only.write_bytes((demo / "train.csv").read_bytes())
    build(only, tmp_path / "out", BuildOptions(validation_fraction=0.3, seed=9, rows_per_shard=500))
    with open_shards(tmp_path / "out") as shards:
        ordinals = {name: split.documents(0, split.num_examples) for name, split in shards.splits.items()}
        everything = np.concatenate(list(ordinals.values()))
        np.testing.assert_array_equal(np.sort(everything), np.arange(DOCUMENTS))
        assert 0.25 < len(ordinals["validation"]) / DOCUMENTS < 0.35
        for documents in ordinals.values():
            assert np.all(np.diff(document_keys(documents, 9).astype(object)) > 0)
        assert [entry.rows for entry in shards.train.entry.shards[:-1]] == [500] * (len(shards.train.entry.shards) - 1)


def test_a_corpus_sorted_by_class_is_mixed_on_disk(demo, tmp_path):
    build(demo, tmp_path / "out")
    with open_shards(tmp_path / "out") as shards:
        labels = np.asarray(shards.train.labels()).astype(int)
        runs = 1 + np.count_nonzero(np.diff(labels))
        assert runs > 0.7 * len(labels)  # of five classes in random order, four in five neighbours differ
        assert shards.manifest.splits["train"].class_counts == tuple(np.bincount(labels).tolist())


def test_the_measured_peak_is_the_builds_own_whatever_its_caller_holds(demo, tmp_path):
    held = np.ones(300 << 20, np.uint8)
    build(demo, tmp_path / "out", BuildOptions(memory_limit=256 << 20))
    measured = json.loads((tmp_path / "out" / layout.MEASURED).read_text())
    assert 32 << 20 < measured["peak_memory_bytes"] <= 256 << 20 < len(held)
    assert anonymous_bytes(os.getpid()) > len(held)
    assert set(measured["pass_seconds"]) >= {
        titles.COUNT,
        titles.MERGE,
        titles.NORMS,
        titles.SELECT,
        titles.write_shards("train"),
    }


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("limit", "options"),
    [
        pytest.param("256MiB", ["--vectorizer", "ngram"], id="one process, n-grams of words", marks=pytest.mark.slow),
        pytest.param(
            "512MiB", ["--vectorizer", "ngram", "--ngram-range", "1", "3"], id="two processes", marks=pytest.mark.slow
        ),
        pytest.param("256MiB", ["--vectorizer", "sequence"], id="sequences", marks=pytest.mark.slow),
        pytest.param(
            "512MiB",
            ["--analyzer", "char", "--ngram-range", "2", "4"],
            id="n-grams of characters",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_all_processes_together_stay_below_the_memory_limit(large, tmp_path, limit, options):
    command = ["build", large, "--out", tmp_path / "out", "--memory-limit", limit, "--workers", "2"]
    subprocess.run([sys.executable, "-m", "shardtrain", *command, *options], check=True, capture_output=True)
    measured = json.loads((tmp_path / "out" / layout.MEASURED).read_text())
    assert 60 << 20 < measured["peak_memory_bytes"] <= parse_size(limit)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("kind", "limit"),
    [
        ("csv", "256MiB"),
        pytest.param("folder", "512MiB", marks=pytest.mark.slow),
        pytest.param("csv", "512MiB", marks=pytest.mark.slow),
        pytest.param("folder", "256MiB", marks=pytest.mark.slow),
    ],
)
def test_a_document_too_long_for_the_memory_is_refused_with_the_memory_it_takes(kind, limit, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "PARALLEL_BYTES", 0)
    long = "some words of a long book " * 500_000
    if kind == "csv":
        path = tmp_path / "books.csv"
        path.write_text(f"1,short\n1,short\n2,{long}\n")
    else:
        path = tmp_path / "books"
        for name, text in (("a", "short"), ("b", long)):
            (path / name).mkdir(parents=True)
            (path / name / "1.txt").write_text(text)
    options = BuildOptions(memory_limit=parse_size(limit), workers=2, validation_fraction=0.0, min_df=1)
    for attempt in (plan_build, build):
        with pytest.raises(UsageError, match=r"document of about 13\.0 MB is too long to be indexed") as caught:
            attempt(path, tmp_path / "out", options)
        assert ("line 1 or later" in str(caught.value)) is (kind == "csv")
    assert not (tmp_path / "out").exists()
    advice = re.search(r"build with --workers 1(?: and --memory-limit (\d+MiB))?, or", caught.value.on_command_line)
    enough = parse_size(advice[1] or limit)
    assert (enough > options.memory_limit) is (limit == "256MiB")
    assert plan_build(path, tmp_path / "out", replace(options, memory_limit=enough, workers=1)).train.documents > 1
    if kind == "csv" and advice[1]:
        command = ["build", path, "--out", tmp_path / "out", "--memory-limit", advice[1], "--workers", "1"]
        subprocess.run([sys.executable, "-m", "shardtrain", *command, "--min-df", "1"], check=True, capture_output=True)
        measured = json.loads((tmp_path / "out" / layout.MEASURED).read_text())
        assert measured["peak_memory_bytes"] <= enough


def test_an_existing_folder_is_refused_unless_it_is_ours(demo, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ShardsExistError, match=r"thesis\.txt"):
            build(demo, out, BuildOptions(overwrite=overwrite))
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    (out / "thesis.txt").unlink()
    build(demo, out, BuildOptions(max_features=100))
    with pytest.raises(ShardsExistError, match="overwrite"):
        build(demo, out)
    build(demo, out, BuildOptions(max_features=50, vectorizer="sequence", overwrite=True))
    with open_shards(out) as shards:
        assert shards.description.vocabulary_size == 50


def test_a_failed_build_leaves_nothing_and_older_shards_as_they_were(demo, tmp_path):
    (tmp_path / "bad.csv").write_text('"1","one"\n"2","two')
    with pytest.raises(CorpusFormatError):
        build(tmp_path / "bad.csv", tmp_path / "new")
    assert not (tmp_path / "new").exists()
    build(demo, tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "copy")
    with pytest.raises(CorpusFormatError):
        build(tmp_path / "bad.csv", tmp_path / "old", BuildOptions(overwrite=True))
    assert_same_folder(tmp_path / "old", tmp_path / "copy")


def test_what_a_build_left_that_was_killed_while_it_cleared_is_cleared_by_the_next(demo, tmp_path):
    (tmp_path / "out" / layout.WORKING / "scratch").mkdir(parents=True)
    (tmp_path / "out" / layout.WORKING / RECORD).write_text("{}")
    (tmp_path / "out" / layout.WORKING / "scratch" / "run-00000").write_bytes(b"half")
    build(demo, tmp_path / "out", BuildOptions(validation="test.csv"))
    assert not (tmp_path / "out" / layout.WORKING).exists()
    with open_shards(tmp_path / "out") as shards:
        assert shards.train.num_examples == DOCUMENTS


def test_a_validation_label_never_seen_in_training_is_refused_by_name(write_csv, tmp_path):
    write_csv("corpus/train.csv", [("1", "aa bb"), ("2", "aa bb")] * 5)
    write_csv("corpus/test.csv", [("1", "aa bb"), ("3", "aa bb")])
    with pytest.raises(LabelError, match="3"):
        build(tmp_path / "corpus", tmp_path / "out")
    assert_nothing_published(tmp_path / "out")
    write_csv("corpus/test.csv", [("1", "aa bb")])
    build(tmp_path / "corpus", tmp_path / "out")  # the corrected corpus, without --overwrite
    assert not (tmp_path / "out" / layout.WORKING).exists()


@pytest.mark.parametrize("rows", [[("1", "aa bb")], [("1", "aa bb")] * 5], ids=["one document", "one class"])
@pytest.mark.parametrize("vectorizer", ["ngram", "sequence", "hashing"])
def test_labels_are_refused_before_anything_is_made_of_the_counts(vectorizer, rows, write_csv, tmp_path, capsys):
    path = write_csv("one.csv", rows)
    with pytest.raises(LabelError, match="only '1' was found"):
        build(path, tmp_path / "out", BuildOptions(vectorizer=vectorizer, validation_fraction=0.0))
    assert "merging counts" not in capsys.readouterr().err
    assert_nothing_published(tmp_path / "out")


@pytest.mark.parametrize("vectorizer", ["ngram", "hashing"])
def test_bytes_that_are_not_utf_8_are_counted_and_told_in_every_split(vectorizer, tmp_path, capsys):
    for name, word in (("train.csv", "caf\xe9"), ("test.csv", "th\xe9")):
        (tmp_path / name).write_bytes(f"1,{word}\n2,tea\n1,{word}\n2,tea\n".encode("latin-1"))
    manifest = build(tmp_path, tmp_path / "out", BuildOptions(vectorizer=vectorizer))
    assert manifest.build["parts"][0]["replaced_bytes"] == 4
    assert "warning: 4 bytes are not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("vectorizer", ["ngram", "hashing", "sequence"])
def test_blank_texts_are_counted_and_told(vectorizer, write_csv, tmp_path, capsys):
    texts = ["", "tea", " \u2003", "a cup", ",", "tea"] * 3
    path = write_csv("a.csv", [(str(i % 2), text.strip(","), "") for i, text in enumerate(texts)])
    build(path, tmp_path / "out", BuildOptions(vectorizer=vectorizer, label_column=0, text_columns=(1, 2)))
    assert "warning: 9 of 18 texts are blank: nothing can be learned from them" in capsys.readouterr().err


@pytest.mark.parametrize(("documents", "words", "kind"), [(40, 60, "ngram"), (1600, 1, "sequence")])
def test_auto_chooses_by_the_guides_ratio(documents, words, kind, write_csv, tmp_path, capsys):
    path = write_csv("a.csv", [(str(1 + i % 2), "word other " * (words // 2) or "word") for i in range(documents)])
    manifest = build(path, tmp_path / "out", BuildOptions(vectorizer="auto", validation_fraction=0.0))
    assert manifest.kind == kind
    assert f"--vectorizer {kind}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "size"), [("256MiB", 256 << 20), ("1.5g", 3 << 29), ("2 GB", 2 << 30), ("1073741824", 1 << 30)]
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "1 parsec", "-1GB", "1e9", "9" * 400])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UsageError, match="is not a size"):
        parse_size(text)


def test_options_outside_their_range_are_refused_with_their_value():
    for wrong in ({"memory_limit": 1}, {"workers": 0}, {"validation_fraction": 1.0}, {"rows_per_shard": 0}):
        with pytest.raises(UsageError, match=r"^(memory_limit|workers|validation_fraction|rows_per_shard) "):
            BuildOptions(**wrong)


def test_workers_are_as_many_as_the_memory_allows():
    allowed = [passes.affordable_workers(64, gib << 30) for gib in (1, 2, 4, 64)]
    assert [each.number for each in allowed] == sorted(each.number for each in allowed)
    assert allowed[0].number >= 2
    assert allowed[-1].number == 64
    assert all(each.sharing == 1 and each.processes == each.number + 1 for each in allowed)


def test_workers_are_threads_where_the_memory_has_no_room_for_two_processes():
    assert passes.affordable_workers(8, 256 << 20) == passes.Workers(2)
    assert passes.affordable_processes(8, 256 << 20) == passes.affordable_workers(1, 256 << 20) == passes.Workers(1)
    assert passes.Workers(2).sharing == 2


def test_a_document_too_long_beside_another_unit_is_indexed_alone(tmp_path, monkeypatch):
    path = tmp_path / "books.csv"
    path.write_text(f"1,short\n1,a short\n2,a short book\n2,{'some words of a long book ' * 250_000}\n")
    options = BuildOptions(workers=2, memory_limit=256 << 20, validation_fraction=0.0, min_df=1)
    monkeypatch.setattr(job, "UNIT_BYTES", 1 << 10)
    monkeypatch.setattr(job, "PARALLEL_BYTES", 0)
    assert passes.Workers(2).longest_unit(options.memory_limit, 1) < path.stat().st_size
    build(path, tmp_path / "out", options)
    assert json.loads((tmp_path / "out" / layout.MEASURED).read_text())["workers"] == 1
    assert json.loads((tmp_path / "out" / layout.MEASURED).read_text())["peak_memory_bytes"] <= options.memory_limit


def test_shards_are_planned_to_hold_every_row_once(tmp_path):
    rng = np.random.default_rng(5)
    files, keys, nonzeros = [], [], []
    for number in range(3):
        count = int(rng.integers(0, 400))
        unit_keys = rng.integers(0, 2**64, count, np.uint64)
        per_row = rng.integers(0, 6, count)
        indptr = np.concatenate([[0], np.cumsum(per_row)])
        x = Csr(np.zeros(indptr[-1], np.float32), np.zeros(indptr[-1], np.int32), indptr, (count, 10))
        files.append(tmp_path / f"rows-{number}")
        spill_rows(files[-1], x, np.zeros(count, np.int64), np.arange(count), unit_keys)
        keys.append(unit_keys)
        nonzeros.append(per_row)
    order = np.argsort(np.concatenate(keys))
    all_keys, all_nonzeros = np.concatenate(keys)[order], np.concatenate(nonzeros)[order]
    for size in (1, 7, 100, 10_000):
        shards = plan_shards(passes.Passes(Serial(), tmp_path, 1 << 20), "train", files, size)
        assert sum(shard.rows for shard in shards) == len(all_keys)
        start = 0
        for shard in shards:
            inside = (all_keys >= np.uint64(shard.first)) & (all_keys <= np.uint64(shard.last - 1))
            assert np.count_nonzero(inside) == shard.rows <= size
            assert all_nonzeros[start : start + shard.rows].sum() == shard.nonzeros
            start += shard.rows


@pytest.mark.slow
@pytest.mark.heavy
def test_more_units_than_files_may_be_open_are_no_matter(demo, tmp_path):
    """In a process of its own that may open 40 files."""
    code = """
        import resource, sys
        from shardtrain.pipeline import build as job
        from shardtrain.pipeline.build import build
        from shardtrain.pipeline.options import BuildOptions
        if __name__ == "__main__":
            job.UNIT_BYTES = 8192
            import h5py  # what is imported late opens files too
            resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
            for kind in ("ngram", "sequence"):
                build(sys.argv[1], sys.argv[2] + kind, BuildOptions(vectorizer=kind, workers=1, rows_per_shard=900))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(demo), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    build(demo, tmp_path / "ngram", BuildOptions(rows_per_shard=900))
    with open_shards(tmp_path / "ngram") as ours, open_shards(tmp_path / "outngram") as theirs:
        assert ours.description.fingerprint == theirs.description.fingerprint

"""Test the computations of reports against plain ones: lengths, features, duplicates, metrics, texts, build memory."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_selection import f_classif
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from support.handmade import NUM_FEATURES, dense, make_rows, write_shards

from shardtrain.arrays.csr import Csr
from shardtrain.datasets.demo import write_demo
from shardtrain.inference.source_texts import find_source_texts
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline.build import build
from shardtrain.pipeline.build_record import read_build_record
from shardtrain.pipeline.options import BuildOptions, RecompressOptions
from shardtrain.pipeline.recompress import recompress
from shardtrain.report.analysis import analyze_shards
from shardtrain.report.calibration_page import bias_in_words
from shardtrain.report.distinctive import BUDGET, distinctive_features
from shardtrain.report.duplicates import DuplicateCounter, DuplicateCounts
from shardtrain.report.evaluation import evaluate_predictions
from shardtrain.report.row_statistics import RowEntries, compute_statistics, read_entries
from shardtrain.runtime.memory import MAX_POINTS, PROGRAM_BYTES, Curve, MemoryMeter, anonymous_bytes
from shardtrain.shards.layout import MEASURED
from shardtrain.vectorize.fitted import load_vectorizer

KINDS = ("ngram", "sequence", "dense")


def ignore(entries: RowEntries) -> None:
    """Visit nothing."""


@pytest.fixture(params=KINDS)
def open_split(request, tmp_path):
    """Open a split of 900 rows in two shards; yield it, its rows as a dense array, its labels, its column count."""
    rng = np.random.default_rng(5)
    columns = 40 if request.param == "sequence" else NUM_FEATURES[request.param]
    rows = make_rows(request.param, 900)
    if request.param == "sequence":  # words of which some repeat in a row, padded at the front
        x = rng.integers(1, columns, (900, 6)).astype(np.uint32)
        x[np.arange(6) < rng.integers(0, 7, 900)[:, None]] = 0
        x[rows.y == 0, 5] = 7
        rows = replace(rows, x=x)
    if request.param == "dense":
        rows = replace(rows, x=rng.integers(-2, 3, (900, columns)).astype(np.float32) + rows.y[:, None])
    write_shards(tmp_path / "shards", rows, [500, 400])
    with open_shards(tmp_path / "shards") as shards:
        yield shards.train, dense(rows.x), rows.y, columns


def test_lengths_and_occurrences_are_those_of_the_rows(open_split):
    split, x, _, columns = open_split
    found = compute_statistics(split, columns, ignore)
    lengths = np.count_nonzero(x, axis=1)
    np.testing.assert_array_equal(found.lengths, np.bincount(lengths))
    assert (found.rows, found.empty, found.mean) == (900, (lengths == 0).sum(), pytest.approx(lengths.mean()))
    expected = presence(split.kind, x, columns).sum(axis=0)
    np.testing.assert_array_equal(found.occurrences, expected)


def presence(kind: str, x: np.ndarray, columns: int) -> np.ndarray:
    """Return which features each row has, (rows, columns)."""
    if kind != "sequence":
        return x != 0
    there = np.zeros((len(x), columns), np.bool_)
    there[np.arange(len(x))[:, None], x] = True
    there[:, 0] = False
    return there


def test_scores_of_distinctive_features_are_those_of_f_classif(open_split):
    split, x, y, columns = open_split
    there = presence(split.kind, x, columns)
    values = there.astype(float) if split.kind == "sequence" else x.astype(np.float64)
    found = distinctive_features(split, there.sum(axis=0), [0, 2], most=50)
    for index in (0, 2):
        inside = y == index
        varying = values.std(axis=0) > 0
        scores = np.zeros(columns)
        scores[varying] = f_classif(values[:, varying], inside)[0]
        typical = (values[inside].mean(axis=0) > values[~inside].mean(axis=0)) & np.isfinite(scores)
        ours = {each.column: each.score for each in found[index] if np.isfinite(each.score)}
        assert set(ours) <= set(np.flatnonzero(typical))
        best = np.sort(scores[typical & (scores > 1e-9)])[::-1][: len(ours)]
        np.testing.assert_allclose(sorted(ours.values(), reverse=True), best, rtol=1e-6)
        for each in found[index]:
            assert each.share == pytest.approx(there[inside, each.column].mean())
            assert each.share_elsewhere == pytest.approx(there[~inside, each.column].mean())
    assert any(found.values())


def test_the_most_frequent_features_are_scored_if_not_all_fit(tmp_path, monkeypatch):
    write_shards(tmp_path, make_rows("ngram", 300), [300])
    with open_shards(tmp_path) as shards:
        occurrences = compute_statistics(shards.train, NUM_FEATURES["ngram"], ignore).occurrences
        monkeypatch.setattr("shardtrain.report.distinctive.BUDGET", 8 * 4 * 5)
        found = distinctive_features(shards.train, occurrences, [0], most=50)
    frequent = set(np.argsort(-occurrences, kind="stable")[:5].tolist())
    assert {each.column for each in found[0]} <= frequent
    assert BUDGET == 64 << 20


def brute_force_duplicates(train: list[tuple], validation: list[tuple], test: list[tuple]) -> DuplicateCounts:
    """Count duplicates with dictionaries of whole rows; each row is (features, class)."""
    of_train: dict[bytes, list[int]] = {}
    for x, y in train:
        of_train.setdefault(x, []).append(y)
    shared, tested = ([(x, y) for x, y in rows if x in of_train] for rows in (validation, test))
    return DuplicateCounts(
        train_repeated=len(train) - len(of_train),
        validation_repeated=len(validation) - len({x for x, _ in validation}),
        shared=len(shared),
        shared_same_class=sum(y in of_train[x] for x, y in shared),
        contradicting=sum(len(ys) for ys in of_train.values() if len(set(ys)) > 1),
        test_repeated=len(test) - len({x for x, _ in test}),
        test_shared=len(tested),
        test_shared_same_class=sum(y in of_train[x] for x, y in tested),
    )


@pytest.mark.parametrize("at_once", [1 << 20, 16], ids=["in one partition", "in many partitions"])
@pytest.mark.parametrize("kind", ["ngram", "sequence"])
def test_duplicates_are_counted_as_by_comparing_all_rows(kind, at_once, tmp_path, monkeypatch):
    monkeypatch.setattr("shardtrain.report.duplicates._RECORDS_PER_PARTITION", at_once)
    rng = np.random.default_rng(3)
    with DuplicateCounter(850, tmp_path) as hashes:
        splits = {}
        for split, count in (("train", 500), ("validation", 200), ("test", 150)):
            x = rng.integers(0, 3, (count, 5)).astype(np.uint16)
            y = rng.integers(0, 3, count).astype(np.uint8)
            x[:40] = 0  # empty rows are not compared
            splits[split] = [(row.tobytes(), int(label)) for row, label in zip(x, y, strict=True) if row.any()]
            for start in range(0, count, 64):
                hashes.add(entries(kind, x[start : start + 64], y[start : start + 64]), split=split)
        assert hashes.count() == brute_force_duplicates(**splits)
    assert list(tmp_path.iterdir()) == []


def entries(kind: str, x: np.ndarray, y: np.ndarray) -> RowEntries:
    rows, places = np.nonzero(x)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(x)))])
    values = x[rows, places]
    return RowEntries(y, indptr, places, places, values.astype(np.float32) if kind == "ngram" else values)


def test_rows_of_equal_words_at_other_positions_are_no_duplicates(tmp_path):
    x = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [0, 1, 2]], np.uint16)
    with DuplicateCounter(4, tmp_path) as hashes:
        hashes.add(entries("sequence", x, np.zeros(4, np.uint8)), split="train")
        assert hashes.count() == DuplicateCounts(train_repeated=1)


def predictions(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    y = rng.integers(0, classes, rows)
    scores = rng.normal(size=(rows, classes))
    scores[np.arange(rows), y] += 1.5
    return y, np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [1, 64, 1000])
def test_metrics_are_those_of_scikit_learn_whatever_the_batches(size):
    y, p = predictions(700, 5)
    p[y == 4, 3] += 1  # class 4 is never predicted
    p /= p.sum(axis=1, keepdims=True)
    batches = ((y[i : i + size], p[i : i + size]) for i in range(0, 700, size))
    evaluation = evaluate_predictions(batches, 5, mistakes=12)
    found, mistakes = evaluation.metrics, evaluation.mistakes
    guess = p.argmax(axis=1)
    np.testing.assert_array_equal(found.confusions, confusion_matrix(y, guess, labels=range(5)))
    expected = precision_recall_fscore_support(y, guess, labels=range(5), zero_division=0)
    for ours, theirs in zip((found.precision, found.recall, found.f1, found.support), expected, strict=True):
        np.testing.assert_allclose(ours, theirs)
    assert found.accuracy == pytest.approx((guess == y).mean())
    wrong = np.flatnonzero(guess != y)
    order = wrong[np.argsort(-p[wrong].max(axis=1), kind="stable")][:12]
    assert [each.row for each in mistakes] == order.tolist()
    for each in mistakes:
        assert (each.true_class, each.predicted_class) == (y[each.row], guess[each.row])
        assert (each.probability, each.true_probability) == (p[each.row].max(), p[each.row, y[each.row]])


@pytest.mark.parametrize(
    ("confidence", "said"),
    [
        (0.8, "underconfident by 10.0 percentage points"),
        (0.9123, "overconfident by 1.2 percentage points"),
        (0.9001, "as confident as it is right"),
        (0.9, "as confident as it is right"),
    ],
)
def test_a_bias_that_is_shown_is_not_zero(confidence, said):
    assert bias_in_words(confidence, 0.9) == said


@pytest.mark.parametrize("samples", [1, MAX_POINTS, MAX_POINTS + 1, 12_345])
def test_a_curve_has_few_points_and_loses_no_peak(samples):
    values = np.random.default_rng(samples).integers(0, 1 << 30, samples)
    curve = Curve()
    for second, value in enumerate(values.tolist()):
        curve.add(float(second), value)
    starts = [int(second) for second, _ in curve.points]
    assert len(starts) <= MAX_POINTS
    assert starts[0] == 0
    assert [value for _, value in curve.points] == np.maximum.reduceat(values, starts).tolist()
    assert len(set(np.diff(starts))) <= 1


def test_a_build_records_its_memory_under_the_ceiling_and_when_passes_ran(tmp_path, corpus):
    build(corpus, tmp_path / "out", BuildOptions(workers=1))
    made = read_build_record(tmp_path / "out")
    assert made is not None
    assert max(size for _, size in made.memory_curve) == made.peak_bytes <= made.memory_limit
    assert [title for title, _ in made.passes] == list(dict.fromkeys(title for title, _, _ in made.spans))
    ends = [edge for _, start, stop in made.spans for edge in (start, stop)]
    assert ends == sorted(ends)
    assert 0 <= ends[0] <= ends[-1] <= made.seconds + 0.01
    assert made.memory_curve[-1][0] <= made.seconds


@pytest.mark.parametrize("content", ["", "[]", '{"seconds": 1}', '{"seconds": NaN}', '{"origins": 3}'])
def test_an_invalid_build_json_is_not_an_error(content, tmp_path, corpus):
    build(corpus, tmp_path / "out", BuildOptions(workers=1))
    (tmp_path / "out" / MEASURED).write_text(content)
    assert analyze_shards(tmp_path / "out", scratch=tmp_path).build_record is None
    with open_shards(tmp_path / "out") as shards:
        found = find_source_texts(shards, shards.train, [0], scratch=tmp_path)
    assert found == ({}, ("build.json does not record where the corpus is",))


TOPICS = {"chess": "rook pawn endgame", "sailing": "wind harbour anchor"}


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Write 200 training and 40 validation documents, all different."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name, count in (("train.csv", 200), ("valid.csv", 40)):
        with open(folder / name, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerows(
                [topic, f"{words} {name.partition('.')[0]} number {i}\nand more"]
                for i in range(count // 2)
                for topic, words in TOPICS.items()
            )
    return folder


def documents(path: Path) -> list[str]:
    with open(path, newline="") as file:
        return [row[1] for row in csv.reader(file)]


def packed(corpus: Path) -> Path:
    for name in ("train.csv", "valid.csv"):
        (corpus / f"{name}.gz").write_bytes(gzip.compress((corpus / name).read_bytes()))
        (corpus / name).rename(corpus.parent / name)
    return corpus


def in_folders(corpus: Path) -> Path:
    for name, split in (("train.csv", "train"), ("valid.csv", "valid")):
        with open(corpus / name, newline="") as file:
            rows = list(csv.reader(file))
        for number, (topic, text) in enumerate(rows):
            path = corpus.parent / "folders" / split / topic / f"{number:04}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return corpus.parent / "folders"


def check_texts(shards_folder: Path, scratch: Path, expected: dict[str, list[str]]) -> None:
    """Check that all texts of both splits are found and that each is the document of its row."""
    with open_shards(shards_folder) as shards:
        for name, split in shards.splits.items():
            rows = range(split.num_examples)
            texts, reasons = find_source_texts(shards, split, rows, scratch=scratch)
            assert reasons == ()
            assert sorted(texts) == list(rows)
            assert sorted(texts.values()) == sorted(expected[name])
            vectorizer = load_vectorizer(shards_folder / "vectorizer")
            x, _ = split.rows(0, split.num_examples)
            again = vectorizer.transform([texts[row] for row in rows])
            np.testing.assert_array_equal(dense(x), dense(again))
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("layout", ["plain", "packed", "folders"])
def test_the_source_texts_of_rows_are_found(layout, tmp_path, corpus):
    expected = {"train": documents(corpus / "train.csv"), "validation": documents(corpus / "valid.csv")}
    given = {"plain": lambda path: path, "packed": packed, "folders": in_folders}[layout](corpus)
    build(given, tmp_path / "shards", BuildOptions(workers=1, rows_per_shard=70))
    (tmp_path / "scratch").mkdir()
    check_texts(tmp_path / "shards", tmp_path / "scratch", expected)


def test_the_texts_of_a_held_out_fraction_and_of_every_added_part_are_found(tmp_path, corpus):
    first, second = corpus / "train.csv", corpus / "valid.csv"
    options = BuildOptions(workers=1, validation_fraction=0.3, rows_per_shard=50)
    build(first, tmp_path / "shards", options)
    build(second, tmp_path / "shards", replace(options, append=True))
    recompress(tmp_path / "shards", tmp_path / "again", RecompressOptions(compress="none"))
    everything = sorted(documents(first) + documents(second))
    for folder in ("shards", "again"):
        with open_shards(tmp_path / folder) as shards:
            found = []
            for split in shards.splits.values():
                texts, reasons = find_source_texts(shards, split, range(split.num_examples), scratch=tmp_path)
                assert reasons == ()
                found += texts.values()
        assert sorted(found) == everything


def change(corpus: Path) -> None:
    with open(corpus / "valid.csv", "a") as file:
        file.write("chess,one more\n")


def touch(corpus: Path) -> None:
    os.utime(corpus / "valid.csv", ns=(0, 0))


CHANGES = {
    "changed": (change, "valid.csv' was changed after the shards were built"),
    "touched": (touch, "valid.csv' was changed after the shards were built"),
    "gone": (lambda corpus: (corpus / "valid.csv").unlink(), "valid.csv' no longer exists"),
    "gone altogether": (shutil.rmtree, "no longer exists"),
    "longer": (lambda corpus: (corpus / "classes.txt").write_text("a\nb\n"), "holds other files"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_no_text_is_taken_from_a_changed_corpus(case, tmp_path, corpus):
    build(corpus, tmp_path / "shards", BuildOptions(workers=1))
    alter, said = CHANGES[case]
    alter(corpus)
    with open_shards(tmp_path / "shards") as shards:
        texts, reasons = find_source_texts(shards, shards.validation, [0, 5], scratch=tmp_path)
    assert texts == {}
    assert len(reasons) == 1
    assert said in reasons[0]


def test_the_analysis_agrees_with_the_corpus(tmp_path, corpus):
    lines = (corpus / "train.csv").read_text()
    with open(corpus / "valid.csv", "a") as file:
        file.write(lines[: lines.index('and more"') + 9] + "\n")  # the first document once more
    build(corpus, tmp_path / "shards", BuildOptions(workers=1))
    found = analyze_shards(tmp_path / "shards", scratch=tmp_path)
    assert found.duplicates.shared == found.duplicates.shared_same_class == 1
    assert {name: survey.rows for name, survey in found.statistics.items()} == {"train": 200, "validation": 41}
    assert found.vocabulary is not None
    assert found.vocabulary.chosen == len(found.terms) == found.manifest.num_features
    assert found.vocabulary.candidates >= found.vocabulary.chosen
    assert found.distinctive is not None
    for index, name in enumerate(found.manifest.class_names):
        best = {found.name_of(each.column) for each in found.distinctive[index]}
        assert best & set(TOPICS[name].split())


@pytest.mark.slow
@pytest.mark.heavy
def test_analyzing_shards_takes_little_memory_whatever_their_size(tmp_path):
    """67 MB of token ids, which would be 268 MB as one array of 64-bit integers."""
    rows = make_rows("sequence", 1 << 19)
    x = np.random.default_rng(1).integers(1, 20_000, (1 << 19, 64), np.uint16)
    write_shards(tmp_path / "shards", replace(rows, x=x), [1 << 18, 1 << 18])
    write_shards(tmp_path / "few", rows.between(0, 10_000), [10_000])
    del rows, x
    analyze_shards(tmp_path / "few", scratch=tmp_path)  # exclude imports and compilation
    before = anonymous_bytes(os.getpid())
    with MemoryMeter() as memory:
        found = analyze_shards(tmp_path / "shards", scratch=tmp_path)
    assert found.statistics["train"].rows == 1 << 19
    assert memory.peak_bytes - min(before, PROGRAM_BYTES) < 200 << 20


def test_shards_without_vectorizer_name_columns_by_their_numbers(tmp_path):
    write_shards(tmp_path, make_rows("ngram", 90), [90])
    found = analyze_shards(tmp_path, scratch=tmp_path)
    assert found.name_of(7) == "column 7"
    assert found.vocabulary is None
    assert found.build_record is None
    assert json.loads((tmp_path / "manifest.json").read_text())["build"] == {}


def test_stored_zeros_are_omitted(tmp_path):
    rows = make_rows("ngram", 8)
    data = rows.x.data.copy()
    data[::2] = 0
    x = Csr(data, rows.x.indices, rows.x.indptr, rows.x.shape)
    write_shards(tmp_path, replace(rows, x=x), [8])
    with open_shards(tmp_path) as shards:
        (found,) = read_entries(shards.train)
    assert (found.values != 0).all()
    np.testing.assert_array_equal(np.diff(found.indptr), np.count_nonzero(x.toarray(), axis=1))


def test_the_lengths_of_documents_are_those_of_the_corpus_while_it_is_there(tmp_path):
    write_demo(tmp_path / "demo", documents=400, classes=3)
    build(tmp_path / "demo", tmp_path / "shards", BuildOptions(workers=1, validation="test.csv"))
    with open(tmp_path / "demo" / "train.csv", newline="", encoding="utf-8") as file:
        expected = np.bincount([len(", ".join(row[1:]).split()) for row in csv.reader(file)])
    found = analyze_shards(tmp_path / "shards", scratch=tmp_path).document_lengths
    assert found is not None
    assert found.tolist() == expected.tolist()
    (tmp_path / "demo" / "train.csv").unlink()
    assert analyze_shards(tmp_path / "shards", scratch=tmp_path).document_lengths is None

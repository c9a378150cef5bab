"""A validation fraction leaves every class a row in training, and is the plain draw where it does so anyway."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.comparing import assert_same_folder

from shardtrain.errors import LabelError
from shardtrain.loader.order import document_keys
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline import build as job
from shardtrain.pipeline.build import build
from shardtrain.pipeline.convert import convert
from shardtrain.pipeline.holdout import best_spares, spare_documents, trains
from shardtrain.pipeline.index import index
from shardtrain.pipeline.options import BuildOptions, ConvertOptions, IndexOptions, key_threshold
from shardtrain.tables import blocks
from shardtrain.vectorize.fitted import load_vectorizer

LABELS = [*("ab" * 400), *(f"rare {i}" for i in range(60))]
LABELS = [LABELS[i] for i in np.random.default_rng(4).permutation(len(LABELS))]
FRACTION, SEED = 0.3, 3


def drawn(labels: Sequence[Any], seed: int, fraction: float) -> tuple[list[int], list[int]]:
    """Compute the plain draw, and the draw of which every class keeps a row, class by class: rows that train."""
    keys = document_keys(np.arange(len(labels)), seed).tolist()
    plain = {row for row, key in enumerate(keys) if key >= key_threshold(fraction)}
    fair = set(plain)
    for label in set(labels):
        rows = [row for row, other in enumerate(labels) if other == label]
        if not plain.intersection(rows):
            fair.add(max(rows, key=lambda row: keys[row]))
    return sorted(plain), sorted(fair)


def rows_of(folder: Path) -> dict[str, list[int]]:
    with open_shards(folder) as shards:
        return {name: sorted(split.documents(0, split.num_examples).tolist()) for name, split in shards.splits.items()}


def corpus(folder: Path, labels: Sequence[str] = LABELS) -> Path:
    path = folder / "corpus.csv"
    path.write_text("label,text\n" + "".join(f"{label},w{i % 9} w{i % 7} word\n" for i, label in enumerate(labels)))
    return path


def counts(folder: Path, split: str = "train") -> list[int]:
    with open_shards(folder) as shards:
        return list(shards.manifest.splits[split].class_counts)


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40),
    st.integers(0, 1000),
    st.floats(0.01, 0.99),
    st.lists(st.integers(0, 40), max_size=4),
)
def test_every_class_keeps_a_row_wherever_units_are_cut(
    labels: list[str], seed: int, fraction: float, cuts: list[int]
) -> None:
    keys, ordinals = document_keys(np.arange(len(labels)), seed), np.arange(len(labels))
    threshold = key_threshold(fraction)
    trained, spares = set[str](), []
    edges = sorted({0, *(cut for cut in cuts if cut < len(labels)), len(labels)})
    for unit in (slice(start, stop) for start, stop in pairwise(edges)):
        chosen = trains(keys[unit], ordinals[unit], threshold)
        here = {label for label, trains_it in zip(labels[unit], chosen, strict=True) if trains_it}
        held = [label for label, trains_it in zip(labels[unit], chosen, strict=True) if not trains_it]
        spares.append(spare_documents(held, keys[unit][~chosen], ordinals[unit][~chosen], here))
        trained |= here
    kept = tuple(ordinal for _, ordinal in best_spares(trained, spares).values())
    plain, fair = drawn(labels, seed, fraction)
    assert np.flatnonzero(trains(keys, ordinals, threshold)).tolist() == plain
    assert np.flatnonzero(trains(keys, ordinals, threshold, kept)).tolist() == fair
    assert {labels[row] for row in fair} == set(labels)


@pytest.mark.parametrize("vectorizer", ["ngram", "sequence", "hashing"])
def test_a_build_holds_out_what_the_rule_says_whatever_its_units(vectorizer, tmp_path, monkeypatch, capsys):
    path = corpus(tmp_path)
    options = BuildOptions(vectorizer=vectorizer, validation_fraction=FRACTION, seed=SEED)
    build(path, tmp_path / "one", options)
    plain, fair = drawn(LABELS, SEED, FRACTION)
    lost = len(fair) - len(plain)
    assert lost > 10
    assert f"{lost} classes have only rows that the validation fraction would hold out" in capsys.readouterr().err
    assert rows_of(tmp_path / "one") == {"train": fair, "validation": sorted({*range(len(LABELS))} - {*fair})}
    assert min(counts(tmp_path / "one")) == 1
    monkeypatch.setattr(job, "UNIT_BYTES", 1 << 11)
    build(path, tmp_path / "many", options)
    assert_same_folder(tmp_path / "one", tmp_path / "many")


@pytest.mark.slow
def test_workers_change_no_byte_where_classes_are_rare(tmp_path, monkeypatch):
    path, options = corpus(tmp_path), BuildOptions(validation_fraction=FRACTION, seed=SEED, min_df=1, workers=1)
    build(path, tmp_path / "one", options)
    monkeypatch.setattr(job, "PARALLEL_BYTES", 0)
    monkeypatch.setattr(job, "UNIT_BYTES", 1 << 12)
    build(path, tmp_path / "two", replace(options, workers=2))
    assert_same_folder(tmp_path / "one", tmp_path / "two")


def test_features_are_those_of_the_documents_that_train(tmp_path):
    """A word that only a kept document has is a feature: the units are counted again with the documents kept."""
    labels = [*("ab" * 20), "rare"]
    seed = next(seed for seed in range(99) if len(labels) - 1 not in drawn(labels, seed, 0.2)[0])
    path = tmp_path / "corpus.csv"
    path.write_text("".join(f"{label},{'zebra' if label == 'rare' else 'word other'}\n" for label in labels))
    options = BuildOptions(validation_fraction=0.2, seed=seed, min_df=1)
    build(path, tmp_path / "out", options)
    assert "zebra" in load_vectorizer(tmp_path / "out" / "vectorizer").terms
    build(path, tmp_path / "again", BuildOptions(validation_fraction=0.2, seed=seed, vectorizer_from=tmp_path / "out"))
    assert rows_of(tmp_path / "again") == rows_of(tmp_path / "out")


def test_an_interrupted_build_is_resumed_with_the_same_rows(tmp_path, monkeypatch):
    path, options = corpus(tmp_path), BuildOptions(validation_fraction=FRACTION, seed=SEED, min_df=1)
    build(path, tmp_path / "whole", options)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(job, "fit_rows", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(path, tmp_path / "parts", options)
    assert list((tmp_path / "parts").rglob("0000000-again"))
    build(path, tmp_path / "parts", replace(options, resume=True))
    assert_same_folder(tmp_path / "whole", tmp_path / "parts")


def test_nothing_is_said_where_no_class_is_lost(tmp_path, capsys):
    labels = [*("ab" * 50)]
    build(corpus(tmp_path, labels), tmp_path / "out", BuildOptions(validation_fraction=FRACTION))
    assert "stays in training" not in capsys.readouterr().err
    assert rows_of(tmp_path / "out")["train"] == drawn(labels, BuildOptions().seed, FRACTION)[0]


def test_an_addition_is_drawn_plainly_because_its_classes_exist(tmp_path):
    path, options = corpus(tmp_path), BuildOptions(validation_fraction=FRACTION, seed=SEED, min_df=1)
    build(path, tmp_path / "out", options)
    before = {name: len(rows) for name, rows in rows_of(tmp_path / "out").items()}
    build(path, tmp_path / "out", BuildOptions(append=True, validation_fraction=FRACTION))
    with open_shards(tmp_path / "out") as shards:
        split = shards.splits["train"]
        added = split.documents(before["train"], split.num_examples)
    assert sorted(added.tolist()) == drawn(LABELS, SEED, FRACTION)[0]


def test_a_class_that_only_the_validation_file_has_is_refused_with_the_file(tmp_path):
    train = corpus(tmp_path, ["a", "b"] * 5)
    other = tmp_path / "other.csv"
    other.write_text("label,text\na,x\nc,y\n")
    message = r"other.csv' has validation labels that do not occur .*: 'c' \(1 example\).*both files belong together"
    with pytest.raises(LabelError, match=message):
        build(train, tmp_path / "out", BuildOptions(validation=other, min_df=1))


def table(folder: Path, labels: Sequence[str] = LABELS, name: str = "table.h5", first: int = 0) -> Path:
    """Write rows of features: three times the row's number, counted from `first`, and the two numbers after it."""
    with h5py.File(folder / name, "w") as file:
        file["x"] = np.arange(3 * first, 3 * (first + len(labels)), dtype="f4").reshape(-1, 3)
        file["y"] = np.array(labels, "S")
    return folder / name


def test_convert_holds_out_the_same_rows_as_a_build(tmp_path, monkeypatch, capsys):
    build(
        corpus(tmp_path),
        tmp_path / "built",
        BuildOptions(validation_fraction=FRACTION, seed=SEED, vectorizer="hashing"),
    )
    expected = rows_of(tmp_path / "built")
    capsys.readouterr()
    options = ConvertOptions(x="x", y=("y",), validation_fraction=FRACTION, seed=SEED)
    convert([table(tmp_path)], tmp_path / "one", options)
    assert rows_of(tmp_path / "one") == expected
    assert "classes have only rows that the validation fraction would hold out" in capsys.readouterr().err
    halves = [table(tmp_path, LABELS[:500], "first.h5"), table(tmp_path, LABELS[500:], "second.h5", 500)]
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1 << 10)
    convert(halves, tmp_path / "two", options)
    assert rows_of(tmp_path / "two") == expected
    with open_shards(tmp_path / "one") as one, open_shards(tmp_path / "two") as two:
        for name, split in one.splits.items():
            mine, theirs = (each.splits[name].rows(0, split.num_examples) for each in (one, two))
            for first, second in zip(mine, theirs, strict=True):
                np.testing.assert_array_equal(first, second)
    assert counts(tmp_path / "one") == counts(tmp_path / "two")


def test_index_keeps_the_first_row_of_a_class_that_it_would_hold_out(tmp_path, capsys):
    labels = [*("ab" * 300)]
    places = [595, 596, 594, 70, 71]  # in the last rows of the first and of the last of eight stretches
    for place, label in zip(places, ["c", "c", "d", "e", "f"], strict=True):
        labels[place] = label
    options = IndexOptions(x="x", y="y", validation_fraction=0.1)
    index([table(tmp_path)], tmp_path / "mixed", options)
    capsys.readouterr()
    index([table(tmp_path, ["a", "b"] * 300, "plain.h5")], tmp_path / "plain", options)
    assert "stays in training" not in capsys.readouterr().err
    index([table(tmp_path, labels, "rare.h5")], tmp_path / "rare", options)
    assert "4 classes have only rows" in capsys.readouterr().err
    plain, rare = rows_of(tmp_path / "plain"), rows_of(tmp_path / "rare")
    assert set(rare["train"]) - set(plain["train"]) == {595, 594, 70, 71}
    assert set(plain["validation"]) - set(rare["validation"]) == {595, 594, 70, 71}
    with open_shards(tmp_path / "rare") as shards:
        for split in shards.splits.values():
            x, y = split.rows(0, split.num_examples)
            documents = split.documents(0, split.num_examples)
            np.testing.assert_array_equal(x[:, 0], 3 * documents)
            assert [shards.manifest.class_names[code] for code in y] == [labels[row] for row in documents]
            assert np.all(np.diff(documents) > 0)
    assert min(counts(tmp_path / "mixed")) >= 1


def test_classes_of_which_one_row_trains_are_named_by_whatever_makes_shards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def warned(labels: Sequence[str], name: str, **how: Any) -> str:
        build(corpus(tmp_path, labels), tmp_path / name, BuildOptions(workers=1, validation_fraction=0.1, **how))
        return capsys.readouterr().err

    assert "single training example" not in warned("ab" * 20, "two")
    assert "1 class has a single training example, too few to learn from: 'c'" in warned([*("ab" * 20), "c"], "three")
    many = [*("ab" * 20), *(f"c{i:02}" for i in range(12))]
    assert "12 classes have a single training example, too few to learn from: 'c00', " in (said := warned(many, "many"))
    assert "'c09' and 2 more" in said
    assert "single training example" not in warned([*("ab" * 20), "c"], "three", append=True)
    y = np.array([*(0, 1) * 20, 2])
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file["x"], file["y"] = np.ones((41, 3), np.float32), y
    convert([tmp_path / "table.h5"], tmp_path / "made", ConvertOptions(x=("x",), y=("y",)))
    index([tmp_path / "table.h5"], tmp_path / "mapped", IndexOptions(x="x", y="y"))
    assert capsys.readouterr().err.count("1 class has a single training example, too few to learn from: '2'") == 2

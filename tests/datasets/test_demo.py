"""The generated corpus: the same bytes everywhere, in English, learnable, and better from 2-grams than from 1-grams."""

from __future__ import annotations

import csv
import functools
import hashlib
import os
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import Pipeline, make_pipeline

import shardtrain.datasets.language
from shardtrain.cli.main import main
from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.options import CorpusOptions
from shardtrain.corpus.readers import plan_units, read_unit
from shardtrain.datasets import grammar, lexicon
from shardtrain.datasets.demo import write_demo
from shardtrain.errors import CorpusError, UsageError
from shardtrain.runtime import quantities


@functools.cache
def training(demo: Path) -> list[list[str]]:
    """The rows of the module's corpus."""
    return rows_of(demo / "train.csv")


def rows_of(path: Path) -> list[list[str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file, strict=True))


def digest(folder: Path) -> str:
    return hashlib.sha256(
        b"".join((folder / name).read_bytes() for name in ("train.csv", "test.csv", "classes.txt"))
    ).hexdigest()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder)
    return folder


@functools.cache
def learned(demo: Path, longest: int) -> Pipeline:
    """Train an independent model on n-grams of up to `longest` words."""
    train = training(demo)
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, longest), min_df=2), MultinomialNB(alpha=0.1))
    return model.fit([f"{row[1]}, {row[2]}" for row in train], [row[0] for row in train])


def test_the_bytes_of_a_seed_are_frozen(tmp_path: Path) -> None:
    write_demo(tmp_path, documents=3_000, classes=5, seed=7)
    assert digest(tmp_path) == "00cfd501639c08ad27f1bbc03e1a28fceb8e04027565255c330e2b4a30f15131"


def test_the_bytes_do_not_depend_on_the_size_of_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_demo(tmp_path / "a", documents=2_500, classes=3)
    monkeypatch.setattr(shardtrain.datasets.language, "_BLOCK", 37)
    write_demo(tmp_path / "b", documents=2_500, classes=3)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_another_seed_gives_another_corpus(tmp_path: Path) -> None:
    digests = set()
    for seed in (0, 1, 2**64 - 1):
        write_demo(tmp_path, documents=50, seed=seed, overwrite=True)
        digests.add(digest(tmp_path))
    assert len(digests) == 3


@pytest.mark.parametrize(("documents", "classes"), [(1_003, 7), (2, 2), (300, 300)])
def test_every_class_has_examples_and_the_files_are_sorted_by_class(
    tmp_path: Path, documents: int, classes: int
) -> None:
    told: list[int] = []
    demo = write_demo(tmp_path, documents=documents, classes=classes, advance=told.append)
    names = (tmp_path / "classes.txt").read_text(encoding="utf-8").splitlines()
    assert tuple(names) == demo.class_names
    assert len(set(names)) == classes
    assert sum(told) == demo.num_train + demo.num_test
    for name, number in (("train.csv", documents), ("test.csv", max(classes, documents // 10))):
        labels = [int(row[0]) for row in rows_of(tmp_path / name)]
        assert labels == sorted(labels)
        counts = Counter(labels)
        assert sorted(counts) == list(range(1, classes + 1))
        assert max(counts.values()) - min(counts.values()) <= 1
        assert len(labels) == number
    assert demo.num_bytes == sum((tmp_path / name).stat().st_size for name in ("train.csv", "test.csv"))


def test_rows_are_laid_out_as_the_published_sets_are(demo: Path) -> None:
    content = (demo / "train.csv").read_text(encoding="utf-8")
    rows = training(demo)
    assert all(len(row) == 3 and row[1] and row[2] for row in rows)
    quoted = "".join('"' + '","'.join(cell.replace('"', '""') for cell in row) + '"\n' for row in rows)
    assert content == quoted
    assert '""' in content
    assert not content.isascii()
    lengths = [len(row[2].split()) for row in rows]
    assert 40 < np.mean(lengths) < 60
    assert np.median(lengths) < np.mean(lengths)
    counts = np.sort(np.unique(" ".join(row[2] for row in rows).lower().split(), return_counts=True)[1])[::-1]
    assert counts[0] > 20 * counts[100] > 200 * counts[3_000]  # Zipf-like: a few words make most of the text


def test_the_demo_is_read_by_the_reader(demo: Path, tmp_path: Path) -> None:
    corpus = open_corpus(demo, CorpusOptions(), scratch=tmp_path)
    units = plan_units(corpus.train, unit_bytes=1 << 20, advance=lambda num_bytes: None)
    texts = [text for unit in units for text in read_unit(corpus.train, unit).texts]
    assert texts == [f"{title}, {body}" for _, title, body in training(demo)]
    assert corpus.class_names is not None
    assert len(corpus.class_names) == 8


@pytest.mark.slow
def test_a_model_learns_it_not_perfectly_and_better_from_2_grams(demo: Path) -> None:
    test = rows_of(demo / "test.csv")
    texts, labels = [f"{row[1]}, {row[2]}" for row in test], [row[0] for row in test]
    unigrams, bigrams = (learned(demo, most).score(texts, labels) for most in (1, 2))
    assert 0.5 < unigrams < bigrams - 0.1
    assert 0.88 < bigrams < 0.97


def test_texts_are_of_their_topic_in_english_that_a_person_would_write(demo: Path) -> None:
    names = (demo / "classes.txt").read_text(encoding="utf-8").splitlines()
    assert names == ["Sports", "Business", "Science", "Travel", "Food", "Music", "Health", "Law"]
    model = learned(demo, 2)
    texts = {
        "The striker scored twice in the final": "Sports",
        "The bank merged with a company and its shares lost in price": "Business",
        "She observed the planet through a telescope": "Science",
        "We booked a hotel near the beach": "Travel",
        "Bake the pastry in the oven and season the soup": "Food",
        "The pianist performed a new melody": "Music",
        "The nurse treated the patient in the clinic": "Health",
        "The jury convicted him of robbery": "Law",
    }
    probabilities = model.predict_proba(list(texts))
    found = [names[int(model.classes_[row.argmax()]) - 1] for row in probabilities]
    assert found == list(texts.values())
    assert probabilities.max(axis=1).min() > 0.8


def test_no_word_is_of_two_topics_or_of_a_topic_and_common() -> None:
    topics = lexicon.TOPICS.values()
    lists = [words for topic in topics for words in (topic.people, topic.nouns, topic.verbs, topic.adjectives)]
    lists += [tuple(map(lexicon.plural, topic.nouns)) for topic in topics]
    lists += [lexicon.PEOPLE, lexicon.VERBS, lexicon.ADJECTIVES, lexicon.NOUNS, lexicon.COMPOUNDS]
    lists += [tuple(map(lexicon.plural, lexicon.NOUNS)), lexicon.GIVEN_NAMES, lexicon.SURNAMES, lexicon.TOWNS]
    words = [word for each in lists for word in each]
    assert [word for word, number in Counter(words).items() if number > 1] == []
    assert set(words) & set(grammar.words_of(grammar.TITLES + grammar.SENTENCES)) == set()


@pytest.mark.parametrize(
    ("noun", "expected"),
    [("story", "stories"), ("journey", "journeys"), ("box", "boxes"), ("witness", "witnesses"), ("quiz", "quizzes")],
)
def test_plurals_are_regular(noun: str, expected: str) -> None:
    assert lexicon.plural(noun) == expected


def test_classes_beyond_the_topics_are_pairs_of_topics_then_numbered() -> None:
    subjects = lexicon.subjects(1_000)
    topics = len(lexicon.TOPICS)
    pairs = topics * (topics - 1) // 2
    assert len({name for name, _ in subjects}) == 1_000
    assert [name for name, _ in subjects[:topics]] == list(lexicon.TOPICS)
    assert subjects[topics] == ("Sports and Business", ("Sports", "Business"))
    assert subjects[topics + pairs] == ("Sports 2", ("Sports",))
    assert lexicon.subjects(5) == subjects[:5]


def test_the_words_of_a_phrase_are_equally_frequent_in_all_classes_but_not_the_phrase(demo: Path) -> None:
    single, pairs = Counter[tuple[str, str]](), Counter[tuple[str, tuple[str, str]]]()
    adjectives, nouns = set(lexicon.ADJECTIVES), set(lexicon.NOUNS)
    for label, _, body in training(demo):
        words = re.findall(r"\w+", body.lower())
        single.update((label, word) for word in words if word in adjectives)
        pairs.update((label, pair) for pair in pairwise(words) if pair[0] in adjectives and pair[1] in nouns)
    for word in adjectives:
        counts = [single[str(label), word] for label in range(1, 9)]
        assert max(counts) < 1.5 * min(counts), word
    frequent = [[pairs[str(label), pair] for label in range(1, 9)] for pair in {pair for _, pair in pairs}]
    shares = [max(counts) / sum(counts) for counts in frequent if sum(counts) >= 20]
    assert len(shares) > 1_000
    assert np.median(shares) > 0.6


@pytest.mark.parametrize("name", ["train.csv", "test.csv", "classes.txt"])
def test_a_corpus_that_is_there_is_not_written_over(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(CorpusError, match=rf"{name}' exists already; .* overwrite"):
        write_demo(tmp_path, documents=10)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"
    write_demo(tmp_path, documents=10, overwrite=True)
    assert len(rows_of(tmp_path / "train.csv")) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.txt", "test.csv", "train.csv"]


@pytest.mark.parametrize("before", [{}, {"train.csv": "mine", "test.csv": "mine", "classes.txt": "mine"}])
def test_a_demo_that_fails_leaves_the_folder_as_it_was(tmp_path: Path, before: dict[str, str]) -> None:
    for name, content in before.items():
        (tmp_path / name).write_text(content)

    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path, documents=10, overwrite=True, advance=interrupt)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"classes": 1}, "classes 1; expected 2 to 1,000"),
        ({"classes": 1_001}, "classes 1,001"),
        ({"documents": 7}, "documents 7 for 8 classes; each class needs at least one"),
        ({"seed": -1}, "seed -1; expected 0 to"),
        ({"seed": 2**64}, "expected 0 to"),
    ],
)
def test_numbers_out_of_range_are_refused_before_anything_is_written(
    tmp_path: Path, numbers: dict[str, int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        write_demo(tmp_path / "out", **numbers)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CorpusError, match="is a file; choose another"):
        write_demo(tmp_path / "file", documents=10)


def test_the_command_says_what_it_wrote_and_what_to_do_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["demo", "--out", str(out), "--documents", "40", "--classes", "3", "--seed", "5"]) == 0
    size = (out / "train.csv").stat().st_size + (out / "test.csv").stat().st_size
    assert capsys.readouterr().out == (
        f"wrote 40 training and 4 test documents in 3 classes ({quantities.size(size)}) to {out}; "
        f"next: python -m shardtrain build {out}\n"
    )
    write_demo(tmp_path / "same", documents=40, classes=3, seed=5)
    assert digest(out) == digest(tmp_path / "same")


@pytest.mark.parametrize("name", ["train.csv", "test.csv", "classes.txt"])
@pytest.mark.parametrize("planted", ["link", "dangling link", "folder", "pipe"])
def test_what_is_no_file_in_the_place_of_one_is_refused_before_anything_is_written(
    planted: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / "mine").write_text("mine")
    out = tmp_path / "out"
    out.mkdir()
    if planted == "folder":
        (out / name).mkdir()
    elif planted == "pipe":
        os.mkfifo(out / name)
    else:
        (out / name).symlink_to(tmp_path / ("mine" if planted == "link" else "absent"))
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"is a (link|folder|device or a pipe)"):
            write_demo(out, documents=100, overwrite=overwrite)
        assert [path.name for path in out.iterdir()] == [name]
    assert (tmp_path / "mine").read_text() == "mine"

"""Laws of notes: blank, unknown and undecodable texts are counted as Python counts them, marked and nothing else is."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sampled import sampled
from support.topics import TOPICS, write_corpus
from support.training import fit

from shardtrain.arrays.texts import Texts
from shardtrain.cli.main import main
from shardtrain.corpus.blank import blank_texts
from shardtrain.errors import LabelError
from shardtrain.inference import parts, units
from shardtrain.inference.evaluate import evaluate_corpus
from shardtrain.inference.notes import TextCounts, replace_escaped
from shardtrain.inference.options import PredictOptions
from shardtrain.inference.predict_file import predict_file
from shardtrain.inference.run import Run
from shardtrain.loader.shards import open_shards
from shardtrain.models.options import MlpOptions, SepcnnOptions
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.training.options import FitOptions

KINDS = ["ngram", "hashing", "sequence"]
MODELS = {"mlp": MlpOptions(units=4), "sepcnn": SepcnnOptions(filters=4, embedding_dim=4)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    root = tmp_path_factory.mktemp("notes")
    corpus = write_corpus(root / "corpus", tuple(TOPICS), documents=60)
    made: dict[str, Run] = {}

    def run_of(kind: str) -> Run:
        if kind not in made:
            build(corpus, root / kind, BuildOptions(vectorizer=kind, workers=1, max_features=1 << 10))
            with open_shards(root / kind) as shards:
                made[kind] = fit(shards, FitOptions(epochs=1, batch_size=16, **MODELS), out=root / f"run-{kind}")
        return made[kind]

    return run_of


@pytest.fixture(scope="module")
def run(runs: Callable[[str], Run]) -> Run:
    return runs("ngram")


# Texts as bytes, and the note of each: for hashed n-grams every word is known.
TEXTS_AND_NOTES = [
    (b"oven butter", "", ""),
    (b"", "blank", "blank"),
    (b" \t \xc2\xa0\xe3\x80\x80", "blank", "blank"),
    (b"zzz qqq", "no known feature", ""),
    (b"? !", "no known feature", "no known feature"),
    (b"caf\xe9 oven", "undecodable", "undecodable"),
    (b"\xff\xfe", "undecodable; no known feature", "undecodable; no known feature"),
    ("le gâteau mast".encode(), "", ""),
    ("日本".encode(), "no known feature", ""),
]
COUNTS = TextCounts(replaced_bytes=3, undecodable_texts=2, blank_texts=2, unknown_texts=4)


def as_csv(texts: list[bytes]) -> bytes:
    return b"id,text\n" + b"".join(b'%d,"%s"\n' % (number, text) for number, text in enumerate(texts))


def notes_in(path: Path) -> list[str | None]:
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(path)["note"].to_pylist()  # type: ignore[no-any-return]
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix == ".jsonl":
        return [json.loads(line)["note"] for line in lines]
    assert lines[0] == "row,label,probability,note"
    return [line.split(",")[3] for line in lines[1:]]


@pytest.mark.parametrize("kind", sampled(KINDS))
def test_exactly_the_texts_that_deserve_it_are_noted_and_counted(
    runs: Callable[[str], Run], kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_bytes(as_csv([text for text, _, _ in TEXTS_AND_NOTES]))
    out = tmp_path / "out.csv"
    command = ["predict", str(runs(kind).path), "--input", str(tmp_path / "in.csv"), "--output", str(out), "--json"]
    assert main([*command, "--notes"]) == 0
    captured = capsys.readouterr()
    notes = [hashed if kind == "hashing" else note for _, note, hashed in TEXTS_AND_NOTES]
    assert notes_in(out) == notes
    unknown = sum("no known feature" in note for note in notes)
    told = json.loads(captured.out)
    assert (told["blank_texts"], told["unknown_texts"]) == (notes.count("blank"), unknown)
    assert (told["undecodable_texts"], told["replaced_bytes"]) == (2, 3)
    warnings = [line for line in captured.err.splitlines() if line.startswith("warning: ")]
    assert [re.sub(r"[;,].*", "", line) for line in warnings] == [
        "warning: 3 bytes are not UTF-8 and were read as U+FFFD",
        "warning: 2 texts are blank",
        f"warning: {unknown} texts have no feature that the model knows",
    ]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_format_has_the_notes_and_is_without_them_what_it_was(run: Run, tmp_path: Path, suffix: str) -> None:
    (tmp_path / "in.csv").write_bytes(as_csv([text for text, _, _ in TEXTS_AND_NOTES]))
    noted = predict_file(run, tmp_path / "in.csv", tmp_path / f"noted{suffix}", PredictOptions(notes=True))
    plain = predict_file(run, tmp_path / "in.csv", tmp_path / f"plain{suffix}")
    assert noted.counts == plain.counts == COUNTS
    assert [note or "" for note in notes_in(noted.output)] == [note for _, note, _ in TEXTS_AND_NOTES]
    if suffix == ".parquet":
        without = pyarrow.parquet.read_table(noted.output).drop_columns("note")
        assert without.equals(pyarrow.parquet.read_table(plain.output))
    else:
        cut = r', "note": (null|"[^"]*")' if suffix == ".jsonl" else r"(?<=\d{6}|bility),[^,\n]*$"
        assert re.sub(cut, "", noted.output.read_text(), flags=re.MULTILINE) == plain.output.read_text()


def test_a_replacement_character_in_the_file_is_not_undecodable(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("oven \ufffd\nmast\n", encoding="utf-8")
    done = predict_file(run, tmp_path / "in.txt", tmp_path / "out.csv", PredictOptions(notes=True))
    assert notes_in(done.output) == ["", ""]
    assert done.counts == TextCounts()


def test_a_text_of_several_blank_columns_is_blank(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('a,b,c\noven,,\n,,\n , ,\n,",",\n')
    options = PredictOptions(notes=True, text_columns=("a", "b", "c"))
    done = predict_file(run, tmp_path / "in.csv", tmp_path / "out.csv", options)
    assert notes_in(done.output) == ["", "blank", "blank", "no known feature"]


def as_an_older_version_left_it(working: Path) -> None:
    """Make of interrupted work what a version without notes and counts would have left: fewer fields and columns."""
    job = json.loads((working / "job.json").read_text())
    assert job["options"].pop("notes") is True
    (working / "job.json").write_text(json.dumps(job))
    (records,) = working.rglob("parts.records")
    records.unlink()  # which that version kept in other files


# Counts of many units, interrupted or not


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, int]:
    """A file that is cut into several units, and their number."""
    monkeypatch.setattr(units, "UNIT_BYTES", 500)
    rng = np.random.default_rng(5)
    chosen = rng.integers(0, len(TEXTS_AND_NOTES), 300).tolist()
    (tmp_path / "in.csv").write_bytes(as_csv([TEXTS_AND_NOTES[each][0] for each in chosen]))
    return tmp_path / "in.csv", 300


def test_counts_and_notes_do_not_depend_on_workers_or_interruptions(
    run: Run, many: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, number = many
    whole = predict_file(run, source, tmp_path / "whole.csv", PredictOptions(notes=True, workers=3))
    by_note = {note: sum(found == note for found in notes_in(whole.output)) for note in set(notes_in(whole.output))}
    counts = whole.counts
    assert counts.blank_texts == by_note["blank"]
    assert counts.unknown_texts == by_note["no known feature"] + by_note["undecodable; no known feature"]
    assert counts.undecodable_texts == by_note["undecodable"] + by_note["undecodable; no known feature"]
    assert counts.replaced_bytes == sum(
        byte in (0xE9, 0xFE, 0xFF) for byte in source.read_bytes().replace(b"\xc3", b"")
    )

    read, done = parts.read_unit, 0

    def interrupted_read(*arguments: Any) -> Any:
        nonlocal done
        done += 1
        if done > 4:
            raise KeyboardInterrupt
        return read(*arguments)

    options = PredictOptions(notes=True, workers=1)
    for name in ("out.csv", "older.csv"):
        done = 0
        monkeypatch.setattr(parts, "read_unit", interrupted_read)
        with pytest.raises(KeyboardInterrupt):
            predict_file(run, source, tmp_path / name, options)
        monkeypatch.setattr(parts, "read_unit", read)
        if name == "older.csv":
            as_an_older_version_left_it(tmp_path / "older.csv.predicting")
            options = PredictOptions(workers=1)
            whole = predict_file(run, source, tmp_path / "whole.csv", PredictOptions(overwrite=True))
        resumed = predict_file(run, source, tmp_path / name, options)
        assert (resumed.counts, resumed.rows) == (counts, number)
        assert resumed.output.read_bytes() == whole.output.read_bytes()


# What is printed


def test_printed_texts_are_noted_and_numbered_as_in_the_file(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_bytes(b"id,text\n1,oven\n2,a,b\n3,\n4,caf\xe9\n")
    command = ["predict", str(run.path), "--input", str(tmp_path / "in.csv"), "--on-bad-row", "skip", "--notes"]
    assert main([*command, "--output", "-"]) == 0
    captured = capsys.readouterr()
    rows = [line.split(",") for line in captured.out.splitlines()]
    assert [(row[0], row[3]) for row in rows[1:]] == [("0", ""), ("2", "blank"), ("3", "undecodable; no known feature")]
    assert captured.err.count("warning: ") == 3
    assert main([*command, "--json"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["row"], row["note"]) for row in printed] == [(0, None), (2, "blank"), (3, rows[3][3])]
    assert main(command) == 0
    assert [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()] == [row[3] for row in rows[1:]]


def test_lines_of_standard_input_are_read_like_those_of_a_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = b"\xef\xbb\xbfoven\n\ncaf\xe9 oven\r\n\xe2\x82\n"
    (tmp_path / "in.txt").write_bytes(content)
    found = []
    for source in (str(tmp_path / "in.txt"), "-"):
        stdin = io.TextIOWrapper(io.BytesIO(content), encoding="ascii", errors="strict")
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["predict", str(run.path), "--input", source, "--notes"]) == 0
        captured = capsys.readouterr()
        found.append((captured.out, [line for line in captured.err.splitlines() if line.startswith("warning")]))
    assert found[0] == found[1]
    assert found[0][1][0].startswith("warning: 3 bytes are not UTF-8")


def test_an_argument_that_is_not_utf_8_is_printed_and_counted(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(run.path), "caf\udce9 oven", "--json", "--notes"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["note"] == "undecodable"
    assert captured.err.startswith("warning: 1 byte is not UTF-8 and was read as U+FFFD")
    assert main(["predict", str(run.path), "caf\udce9 oven"]) == 0
    assert capsys.readouterr().out.endswith("\tcaf\ufffd oven\n")


@pytest.mark.parametrize(
    ("texts", "hint"),
    [
        (["the", "match", "ended"], "3 texts without a space; if they are one text, put it in quotes: `"),
        (["the match", "ended"], ""),
        (["match"], ""),
    ],
    ids=["words", "a text with a space", "one word"],
)
def test_words_without_quotes_get_a_hint(
    run: Run, capsys: pytest.CaptureFixture[str], texts: list[str], hint: str
) -> None:
    assert main(["predict", str(run.path), *texts]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == len(texts)
    hints = [line for line in captured.err.splitlines() if "quotes" in line]
    assert len(hints) == bool(hint)
    if hint:
        assert hints[0].startswith(hint)
        assert hints[0].endswith("'the match ended'`")


def test_the_name_of_a_file_gets_a_hint_at_the_option_that_reads_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("new texts.txt").write_text("oven\n")
    for text in ("new texts.txt", "oven", "x" * 5000, "o\0ven", "caf\udce9"):
        assert main(["predict", str(run.path), text]) == 0
        captured = capsys.readouterr()
        assert len(captured.out.splitlines()) == 1
        assert (f"predict {run.path} --input 'new texts.txt'`" in captured.err) == (text == "new texts.txt")


# In Python


def test_predictions_in_python_have_the_notes(run: Run) -> None:
    found = run.predict(["oven", "", "zzz", "\n"])
    assert found.notes == ["", "blank", "no known feature", "blank"]
    assert [note for _, part in run.predict_batches(["oven", ""]) for note in part.notes] == ["", "blank"]


@given(
    st.lists(st.text(alphabet=st.sampled_from(" \t\n\x0b\x1c\x85\xa0\u1680\u2003\u2028\u3000,aé日\u200b")), max_size=8)
)
def test_blank_is_what_python_says_it_is(texts: list[str]) -> None:
    assert blank_texts(Texts.from_strings(texts)).tolist() == [not text.strip() for text in texts]


@given(st.binary(max_size=40))
def test_bytes_of_the_command_line_become_what_files_are_read_as(content: bytes) -> None:
    escaped = content.decode("utf-8", "surrogateescape")
    text, number = replace_escaped(escaped)
    assert text == content.decode("utf-8", "replace")
    assert len(content) - number == len(content.decode("utf-8", "ignore").encode())


# Evaluating raw text


def corpus_of(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_bytes("".join(f'"{label}","{text}"\n' for label, text in rows).encode("utf-8", "surrogateescape"))
    return path


ALL = [("1", "oven"), ("2", "mast"), ("3", "rook")]


def test_evaluate_counts_texts_as_predict_does(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [text.decode("utf-8", "surrogateescape") for text, _, _ in TEXTS_AND_NOTES]
    path = corpus_of(tmp_path / "in.csv", [(str(1 + number % 3), text) for number, text in enumerate(texts)])
    assert main(["evaluate", str(run.path), str(path), "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert {name: told[name] for name in vars(COUNTS)} == vars(COUNTS)
    assert [line.split()[1] for line in captured.err.splitlines() if line.startswith("warning: ")][:3] == [
        "3",
        "2",
        "4",
    ]
    assert told["classes_found"] == 3


@pytest.mark.parametrize(
    ("rows", "found", "respelled", "said"),
    [
        (ALL, 3, {}, ""),
        (ALL[:2], 2, {}, ""),
        (
            [("1", "oven")] * 4,
            1,
            {},
            "only 1 of the model's 3 classes: 'cooking' (4 examples), not 'sailing', 'chess';",
        ),
        ([("cooking", "oven"), ("2", "mast"), ("chess", "rook")], 3, {}, ""),
        (
            [("Cooking", "oven"), ("SAILING", "mast"), ("chess", "rook")],
            3,
            {"Cooking": "cooking", "SAILING": "sailing"},
            "were read as these: 'Cooking' (1 example) as 'cooking', 'SAILING' (1 example) as 'sailing'",
        ),
    ],
    ids=["all classes", "most classes", "one class", "names of classes", "other spellings"],
)
def test_suspicious_labels_are_reported_in_one_line(
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: list[tuple[str, str]],
    found: int,
    respelled: dict[str, str],
    said: str,
) -> None:
    done = evaluate_corpus(run, corpus_of(tmp_path / "in.csv", rows))
    assert (done.classes_found, done.respelled_labels) == (found, respelled)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == bool(said)
    assert said in "".join(warnings)


def test_a_label_of_no_class_is_still_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="was not trained with: 'cook' "):
        evaluate_corpus(run, corpus_of(tmp_path / "in.csv", [*ALL, ("cook", "oven")]))


def test_other_names_of_the_same_numbers_are_reported(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus_of(tmp_path / "train.csv", ALL)
    (tmp_path / "classes.txt").write_text("cooking\nchess\nsailing\n")
    evaluate_corpus(run, tmp_path)
    assert "class 2 is 'chess' in the corpus' classes.txt, 'sailing' in the model" in capsys.readouterr().err

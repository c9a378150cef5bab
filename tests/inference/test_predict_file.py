"""Laws of files through a run: what is written equals what `predict` says, in order, however often it was killed."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from support.forked import Forking, forking
from support.sampled import sampled
from support.topics import TOPICS, write_corpus
from support.training import fit

from shardtrain.cli.main import main
from shardtrain.errors import CorpusError, OutputExistsError, UsageError
from shardtrain.inference import parts, units
from shardtrain.inference.classifier import SPARSE_ROWS
from shardtrain.inference.evaluate import evaluate
from shardtrain.inference.options import PredictOptions
from shardtrain.inference.predict_file import predict_file
from shardtrain.inference.predictions import Predictions
from shardtrain.inference.run import Run
from shardtrain.inference.writers import csv_lines, json_lines
from shardtrain.loader.shards import open_shards
from shardtrain.models.options import MlpOptions
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.training.options import FitOptions

WORDS = [word for words in TOPICS.values() for word in words]
UNIT_BYTES = 1 << 17
SMALL = f"from shardtrain.inference import units\nunits.UNIT_BYTES = {UNIT_BYTES}\n"  # for other processes


@pytest.fixture(scope="module", autouse=True)
def small_units() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "UNIT_BYTES", UNIT_BYTES)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("raw")
    corpus = write_corpus(root / "corpus", tuple(TOPICS))
    build(corpus, root / "shards", BuildOptions(workers=1))
    options = FitOptions(epochs=4, batch_size=16, learning_rate=0.02, mlp=MlpOptions(units=8))
    with open_shards(root / "shards") as shards:
        return fit(shards, options, out=root / "run")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """More text than two units hold; with quotes, commas, newlines and letters outside ASCII."""
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice(WORDS, 40)) for _ in range(2_500)]
    texts[5], texts[6], texts[7] = 'a "quoted", text', "two\nlines of wind", "le gâteau 日本 oven"
    return texts


@pytest.fixture(scope="module")
def large(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The texts as CSV with a header, without labels."""
    path = tmp_path_factory.mktemp("large") / "large.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "text"], *([number, text] for number, text in enumerate(texts))])
    assert path.stat().st_size > 4 * UNIT_BYTES
    return path


@pytest.fixture(scope="module")
def written(run: Run, large: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "out.csv"
    predict_file(run, large, out)
    return out


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
        return rows
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file)) if path.suffix == ".csv" else [json.loads(line) for line in file]


def test_a_file_has_a_row_for_each_text_in_order_that_says_what_predict_says(
    run: Run, texts: list[str], written: Path
) -> None:
    rows = rows_of(written)
    assert [row["row"] for row in rows] == [str(number) for number in range(len(texts))]
    expected = run.predict(texts)
    assert [row["label"] for row in rows] == expected.labels
    best = expected.probabilities.max(axis=1)
    np.testing.assert_allclose([float(row["probability"]) for row in rows], best, rtol=0, atol=2e-6)
    assert not list(written.parent.glob("*.predicting"))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_every_format_has_the_same_rows_and_probabilities_of_all_classes(
    run: Run, large: Path, written: Path, tmp_path: Path, suffix: str
) -> None:
    done = predict_file(run, large, tmp_path / f"out{suffix}", PredictOptions(proba=True, workers=3))
    rows = rows_of(done.output)
    assert done.rows == len(rows)
    for row, other in zip(rows, rows_of(written), strict=True):
        assert (row["row"], row["label"]) == (int(other["row"]), other["label"])
        assert f"{row['probability']:.6f}" == other["probability"]
    every = (
        [[row[f"p({name})"] for name in TOPICS] for row in rows]
        if suffix == ".parquet"
        else [[row["probabilities"][name] for name in TOPICS] for row in rows]
    )
    np.testing.assert_allclose(np.sum(every, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.max(every, axis=1), [row["probability"] for row in rows], atol=1e-6)


@pytest.mark.parametrize("suffix", sampled([".csv", ".parquet"], (1,)))
def test_a_unit_predicted_in_pieces_has_the_rows_of_one_piece(
    run: Run, large: Path, written: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def small(num_classes: int) -> int:
        sizes.append(num_classes)
        return 97

    monkeypatch.setattr(parts, "rows_per_piece", small)
    done = predict_file(run, large, tmp_path / f"out{suffix}", PredictOptions(proba=True, workers=3))
    assert set(sizes) == {len(TOPICS)}
    for row, other in zip(rows_of(done.output), rows_of(written), strict=True):
        assert (int(row["row"]), row["label"]) == (int(other["row"]), other["label"])
        assert float(row["probability"]) == pytest.approx(float(other["probability"]), abs=2e-6)


def test_what_is_predicted_at_a_time_is_bounded_whatever_the_number_of_classes() -> None:
    for num_classes in (2, 64, 1000, 65_536):
        rows = parts.rows_per_piece(num_classes)
        assert rows % SPARSE_ROWS == 0
        assert rows == SPARSE_ROWS or rows * num_classes * 4 <= 16 << 20


def test_names_are_written_so_that_they_are_read_back() -> None:
    names = ['a, "b"', "50% off", "ä\n"]
    predictions = Predictions(tuple(names), np.eye(3, dtype=np.float32), np.zeros(3, np.uint8))
    made = csv_lines(names, proba=True, notes=False)
    content = (made.header + made.part(np.arange(3), predictions)).decode()
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    assert [row["label"] for row in rows] == names
    assert [row["p(50% off)"] for row in rows] == ["0.000000", "1.000000", "0.000000"]
    lines = json_lines(names, proba=True, notes=False).part(np.arange(3), predictions).decode().splitlines()
    assert [json.loads(line)["label"] for line in lines] == names
    assert json.loads(lines[1])["probabilities"] == {names[0]: 0.0, names[1]: 1.0, names[2]: 0.0}


# Interrupted, and gone on with

KILLED = """
import os, signal, sys
from shardtrain.inference import predict_file as raw_text
from shardtrain.inference.options import PredictOptions
from shardtrain.inference.predict_file import predict_file
from shardtrain.inference.run import load_run

run, source, out, left = sys.argv[1:]
answers, parts = raw_text.writer_of, []

def counted(*arguments, **options):
    made = answers(*arguments, **options)
    plain = made.part

    def part(*values):
        parts.append(1)
        if len(parts) > int(left):
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*values)

    made.part = part
    return made

raw_text.writer_of = counted
predict_file(load_run(run), source, out, PredictOptions(workers=1))
"""


@contextlib.contextmanager
def gone_through(module: Any, name: str) -> Iterator[list[Any]]:
    """The arguments of all calls of a module's function, which does what it always does."""
    function, calls = getattr(module, name), []

    def told(*arguments: Any) -> Any:
        calls.append(arguments)
        return function(*arguments)

    setattr(module, name, told)
    try:
        yield calls
    finally:
        setattr(module, name, function)


def killed(forked: Forking, run: Run, source: str, out: Path, left: int, stdin: Path | None = None) -> None:
    """Predict in a process that kills itself when it is about to make one part more than `left`."""
    done = forked.run(KILLED, run.path, source, out, left, stdin=stdin)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.fixture(scope="module")
def forked(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    """Runs code in new processes that have loaded the kernels; none of this needs TensorFlow."""
    before = f"{SMALL}import shardtrain.cli.main, shardtrain.inference.predict_file\n"
    before += f"from shardtrain.inference.run import load_run\nload_run({str(run.path)!r}).predict(['oven'])\n"
    with forking(tmp_path_factory.mktemp("forked"), before) as server:
        yield server


@pytest.fixture(scope="module")
def interrupted(forked: Forking, run: Run, large: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a call was killed when two parts of the output were made."""
    folder = tmp_path_factory.mktemp("interrupted")
    killed(forked, run, str(large), folder / "out.csv", 2)
    return folder


@pytest.mark.heavy
def test_a_killed_call_goes_on_to_the_same_bytes_and_does_no_part_twice(
    run: Run, large: Path, written: Path, interrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "here" / "out.csv"
    shutil.copytree(interrupted, out.parent)
    assert not out.exists()
    assert len(list((out.parent / "out.csv.predicting").rglob("part-*.rows"))) == 2
    with gone_through(parts, "read_unit") as read:
        assert main(["predict", str(run.path), "--input", str(large), "--output", str(out)]) == 0
    assert "resuming the interrupted prediction" in capsys.readouterr().err
    assert sorted(unit.index for _, unit in read) == list(range(2, len(read) + 2))
    assert len(read) > 1
    assert out.read_bytes() == written.read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["out.csv"]


def test_a_part_that_has_changed_since_it_was_written_is_written_again(
    run: Run, large: Path, written: Path, interrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "here" / "out.csv"
    shutil.copytree(interrupted, out.parent)
    (part,) = (out.parent / "out.csv.predicting").rglob("part-000001.rows")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with gone_through(parts, "read_unit") as units:
        predict_file(run, large, out)
    assert sorted(unit.index for _, unit in units) == list(range(1, len(units) + 1))
    assert out.read_bytes() == written.read_bytes()


def test_a_call_that_is_killed_after_its_file_was_finished_ends_well_when_it_is_repeated(
    run: Run, large: Path, written: Path, interrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "here" / "out.csv"
    shutil.copytree(interrupted, out.parent)
    shutil.copy(written, out)
    for path in (out.parent / "out.csv.predicting").rglob("part-*"):
        path.unlink()
    predict_file(run, large, out)
    assert out.read_bytes() == written.read_bytes()
    assert [path.name for path in out.parent.iterdir()] == ["out.csv"]


def test_a_file_that_appeared_while_it_was_interrupted_is_not_written_over(
    run: Run, large: Path, written: Path, interrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "here" / "out.csv"
    shutil.copytree(interrupted, out.parent)
    out.write_text("mine")
    with pytest.raises(OutputExistsError, match="exists already"):
        predict_file(run, large, out)
    assert out.read_text() == "mine"
    out.unlink()
    predict_file(run, large, out)
    assert out.read_bytes() == written.read_bytes()


def test_an_interrupted_one_is_refused_to_other_options_and_given_up_with_overwrite(
    run: Run, large: Path, interrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "here" / "out.csv"
    shutil.copytree(interrupted, out.parent)
    with pytest.raises(OutputExistsError, match="proba was false, it is true now"):
        predict_file(run, large, out, PredictOptions(proba=True))
    other = tmp_path / "other.csv"
    other.write_text("text\noven\n")
    with pytest.raises(OutputExistsError, match=r"now|this one reads"):
        predict_file(run, other, out)
    assert predict_file(run, other, out, PredictOptions(overwrite=True)).rows == 1


def test_a_finished_output_is_not_written_over_unasked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("oven\n")
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(OutputExistsError, match="exists already"):
        predict_file(run, tmp_path / "in.txt", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "mine"
    assert not (tmp_path / "out.csv.predicting").exists()
    predict_file(run, tmp_path / "in.txt", tmp_path / "out.csv", PredictOptions(overwrite=True))
    assert len(rows_of(tmp_path / "out.csv")) == 1


def test_the_input_is_not_written_over(run: Run, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\noven\n")
    with pytest.raises(UsageError, match="is the input"):
        predict_file(run, tmp_path / "in.csv", tmp_path / "in.csv", PredictOptions(overwrite=True))
    assert (tmp_path / "in.csv").read_text() == "text\noven\n"


# What is read


def as_lines(texts: list[str]) -> bytes:
    return "".join(text.replace("\n", " ") + "\n" for text in texts).encode()


INPUTS = {  # name of the file: content, options
    "a text on each line, blank ones too": ("in.txt", b"oven butter\n\nmast\r\nrook", ()),
    "the published layout, labels first": ("in.csv", b'"1","oven butter"\n"2",""\n"2","mast"\n"3","rook"\n', ()),
    "no label at all": ("in.csv", b'text\noven butter\n""\nmast\nrook\n', ()),
    "one column without header": ("in.csv", b'oven butter\n""\nmast\nrook\n', ("--no-header",)),
    "labels nobody knows, one missing": (
        "in.csv",
        b"stars,note\nx,oven butter\n,\nz,mast\nz,rook\n",
        ("--text-columns", "note"),
    ),
    "TSV with a header": ("in.tsv", b"id\ttext\n1\toven butter\n2\t\n3\tmast\n4\trook\n", ()),
    "JSON Lines, one without label": (
        "in.jsonl",
        b'{"text": "oven butter", "label": 1}\n{"text": null}\n{"text": "mast"}\n{"text": "rook"}\n',
        (),
    ),
    "gzip": ("in.csv.gz", gzip.compress(b'text\noven butter\n""\nmast\nrook\n'), ()),
    "a name that says nothing": ("in", b"oven butter\n\nmast\nrook\n", ()),
}


@pytest.mark.parametrize(("name", "content", "options"), INPUTS.values(), ids=INPUTS)
def test_texts_are_found_with_labels_or_without(
    run: Run, tmp_path: Path, name: str, content: bytes, options: tuple[str, ...]
) -> None:
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "out.jsonl"
    command = ["predict", str(run.path), "--input", str(tmp_path / name), "--output", str(out), "--proba", *options]
    assert main(command) == 0
    rows = rows_of(out)
    expected = run.predict(["oven butter", "", "mast", "rook"])
    assert [row["row"] for row in rows] == [0, 1, 2, 3]
    assert [row["label"] for row in rows] == expected.labels
    found = [list(row["probabilities"].values()) for row in rows]
    np.testing.assert_allclose(found, expected.probabilities, atol=2e-6)


def test_bad_rows_stop_it_or_are_left_out_and_told(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text("id,text\n1,oven\n2,mast,keel\n3,rook\n")
    command = ["predict", str(run.path), "--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv")]
    assert main(command) == 1
    assert "line 3: 3 columns where the first record has 2" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    assert main([*command, "--on-bad-row", "skip", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["rejected_rows"], told["rejected"][0]["line"]) == (2, 1, 3)
    assert [row["row"] for row in rows_of(tmp_path / "out.csv")] == ["0", "2"]
    assert main([*command, "--on-bad-row", "skip", "--overwrite"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "line 3: 3 columns" in said[0]
    assert said[1] == f"2 predictions, 1 rows skipped: {tmp_path / 'out.csv'}"


REFUSED: dict[str, tuple[str, bytes, str, type[Exception], str]] = {
    "no such file": ("", b"", "out.csv", CorpusError, "cannot be read"),
    "an output of no known format": ("in.txt", b"x\n", "out.xlsx", UsageError, "has to end in .csv, .jsonl, .parquet"),
    "an empty file": ("in.txt", b"", "out.csv", CorpusError, "is empty"),
    "columns that say nothing": ("in.csv", b"id,one,two\n1,a,b\n2,c,d\n", "out.csv", CorpusError, "text_columns"),
    "a label and nothing else": ("in.csv", b"label\n1\n2\n", "out.csv", CorpusError, "text_columns"),
    "an archive": ("in.zip", b"PK\x03\x04", "out.csv", CorpusError, "damaged zip data"),
}


@pytest.mark.parametrize(("name", "content", "out", "error", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_and_leaves_nothing(
    run: Run, tmp_path: Path, name: str, content: bytes, out: str, error: type[Exception], said: str
) -> None:
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=said):
        predict_file(run, tmp_path / (name or "absent.csv"), tmp_path / out)
    assert [path.name for path in tmp_path.iterdir()] == ([name] if name else [])


# Standard input and output


def piped(forked: Forking, run: Run, stdin: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    done = forked.command("predict", run.path, "--input", "-", *options, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return done


@pytest.mark.heavy
def test_a_pipe_gives_the_same_bytes_as_a_file(forked: Forking, run: Run, large: Path, written: Path) -> None:
    assert piped(forked, run, large, "--format", "csv", "--output", "-").stdout == written.read_bytes()


@pytest.mark.heavy
def test_a_killed_call_on_standard_input_goes_on_when_it_gets_the_same_again(
    forked: Forking, run: Run, texts: list[str], tmp_path: Path
) -> None:
    (tmp_path / "in").write_bytes(as_lines(texts))
    out = tmp_path / "out.csv"
    killed(forked, run, "-", out, 1, stdin=tmp_path / "in")
    done = piped(forked, run, tmp_path / "in", "--output", str(out), "--workers", "1")
    assert b"resuming the interrupted prediction" in done.stderr
    predict_file(run, tmp_path / "in", tmp_path / "whole.csv")
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("proba", [False, True])
def test_json_prints_an_object_for_each_text(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], proba: bool
) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "oven"}\n{"text": "mast"}\n{"text": "rook"}\n')
    flags = ["--json", *(["--proba"] if proba else [])]
    assert main(["predict", str(run.path), "--input", str(tmp_path / "in.jsonl"), *flags]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["row"] for row in rows] == [0, 1, 2]
    assert [row["label"] for row in rows] == run.predict(["oven", "mast", "rook"]).labels
    assert all(("probabilities" in row) is proba for row in rows)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["oven", "--output", "out.csv"], "--output is for the texts of --input"),
        (["oven", "--proba"], "--proba is for files and JSON"),
        (["--input", "in.txt", "--output", "out.csv", "--workers", "0"], "--workers 0: at least 1"),
    ],
    ids=["a text and an output", "probabilities in a table", "no workers"],
)
def test_options_that_do_not_fit_together_are_refused(
    run: Run, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["predict", str(run.path), *arguments]) == 2
    assert said in capsys.readouterr().err


# Evaluating raw text


@pytest.fixture(scope="module")
def corpus(run: Run) -> Path:
    return run.path.parent / "corpus"


def figures(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    assert main(["evaluate", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("name", ["the folder's test split", "a file", "gzip", "a folder per class"])
def test_raw_text_gives_the_figures_that_its_shards_give(
    run: Run, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with open_shards(run.path.parent / "shards") as shards:
        expected = evaluate(run, shards, split="test")
    path = {"the folder's test split": corpus, "a file": corpus / "test.csv"}.get(name, tmp_path / "test.csv.gz")
    if name == "gzip":
        path.write_bytes(gzip.compress((corpus / "test.csv").read_bytes()))
    if name == "a folder per class":
        path = tmp_path / "folders"
        with open(corpus / "test.csv", newline="") as file:
            for number, (label, *texts) in enumerate(csv.reader(file)):
                (path / label).mkdir(parents=True, exist_ok=True)
                (path / label / f"{number}.txt").write_text(", ".join(texts))
    found = figures(capsys, run.path, path)
    assert found["split"] == ("test" if path == corpus else None)
    assert found["examples"] == 60
    assert found["accuracy"] == expected["accuracy"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)


def test_a_split_of_a_folder_is_chosen_and_one_that_it_lacks_is_reported(
    run: Run, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = figures(capsys, run.path, corpus, "--split", "train")
    assert (found["split"], found["examples"]) == ("train", 240)
    assert main(["evaluate", str(run.path), str(corpus), "--split", "train"]) == 0
    assert capsys.readouterr().out.startswith(f"training accuracy {found['accuracy']:.4f}, ")
    assert main(["evaluate", str(run.path), str(corpus), "--split", "validation"]) == 1
    assert "has no validation split, only train, test; a split that `build` held out" in capsys.readouterr().err


def test_rows_without_a_usable_label_are_left_out_and_told(
    run: Run, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.csv").write_text((corpus / "test.csv").read_text() + '"","a title","oven"\n')
    assert main(["evaluate", str(run.path), str(tmp_path / "in.csv")]) == 1
    assert "line 61: the label (column 0) is empty" in capsys.readouterr().err
    found = figures(capsys, run.path, tmp_path / "in.csv", "--on-bad-row", "skip")
    assert (found["examples"], found["rejected_rows"], found["rejected"][0]["line"]) == (60, 1, 61)


@pytest.mark.parametrize(
    ("content", "options", "code", "said"),
    [
        ('"9","oven","butter"\n' * 3, [], 1, "labels that the model was not trained with: '9' (3 examples)"),
        ('"1","oven","butter"\n' * 3, ["--io", "read"], 2, "is not a folder of shards"),
        ("", [], 1, "is empty"),
    ],
    ids=["a strange label", "options of shards", "an empty file"],
)
def test_what_cannot_be_measured_is_said_in_one_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, options: list[str], code: int, said: str
) -> None:
    (tmp_path / "in.csv").write_text(content)
    assert main(["evaluate", str(run.path), str(tmp_path / "in.csv"), *options]) == code
    assert said in capsys.readouterr().err


def test_options_of_raw_text_are_refused_for_shards(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run.path), str(run.path.parent / "shards"), "--format", "csv"]) == 2
    assert "is not raw text" in capsys.readouterr().err

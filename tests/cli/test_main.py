"""The command line on bad input: the exit code, one clear line, nothing half-written, no traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.comparing import assert_nothing_published

from shardtrain.cli.main import main

GOOD = '"1","aa bb cc"\n"2","aa bb dd"\n' * 10


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture
def shards(tmp_path) -> Path:
    out = tmp_path / "shards"
    assert run("build", write(tmp_path / "good.csv", GOOD), "--out", out) == 0
    return out


def test_a_corpus_becomes_shards_and_the_next_step_is_named(tmp_path, capsys):
    assert run("build", write(tmp_path / "good.csv", GOOD), "--out", tmp_path / "out", "--seed", 4) == 0
    out, err = capsys.readouterr()
    assert "2 classes" in out
    assert f"python -m shardtrain fit {tmp_path / 'out'}" in out
    assert "counting" in err
    assert "Traceback" not in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "build.json",
        "manifest.json",
        "train-00000.h5",
        "validation-00000.h5",
        "vectorizer",
    ]


# name of the case: file, its content, extra arguments, what the message must say
BAD_CORPORA = {
    "no such file": (None, "", [], ["nowhere.csv", "no corpus at", "shardtrain demo"]),
    "an empty file": ("empty.csv", "", [], ["empty.csv", "is empty"]),
    "one class": ("one.csv", '"1","aa bb"\n"1","cc dd"\n', [], ["two classes", "'1'"]),
    "a class without examples": ("gap.csv", '"1","aa bb"\n"2","aa bb"\n"4","aa bb"\n' * 4, [], ["3", "--labels names"]),
    "a quote that is never closed": (
        "open.csv",
        '"1","aa"\n"2","bb"\n"1","cc\n"2","dd"\n',
        [],
        ["open.csv", "line 3", "--on-bad-row skip"],
    ),
    "a row with too few columns": ("few.csv", '"1","a","b"\n"2","c"\n', [], ["few.csv", "line 2", "--on-bad-row"]),
    "an empty label": ("nolabel.csv", '"1","a"\n"","b"\n', [], ["nolabel.csv", "line 2", "label"]),
    "an unknown column": ("c.csv", "label,text\n1,a\n2,b\n", ["--text-columns", "body"], ["body", "'label', 'text'"]),
    "an HDF5 file as a corpus": ("x.csv", b"\x89HDF\r\n\x1a\n" + b"\0" * 64, [], ["x.csv", "HDF5"]),
    "no n-gram often enough": ("rare.csv", '"1","aa"\n"2","bb"\n', ["--validation-fraction", "0"], ["--min-df 1"]),
}


@pytest.mark.parametrize("case", BAD_CORPORA)
def test_a_corpus_that_cannot_be_used_is_named_and_nothing_is_left(case, tmp_path, capsys):
    name, content, extra, words = BAD_CORPORA[case]
    path = write(tmp_path / name, content) if name else tmp_path / "nowhere.csv"
    assert run("build", path, "--out", tmp_path / "out", *extra) == 1
    err = capsys.readouterr().err
    message = err[err.index("error: ") :]
    for word in words:
        assert word in message
    assert len(message.splitlines()) == 1
    assert "Traceback" not in err
    assert_nothing_published(tmp_path / "out")


def test_bad_rows_are_listed_when_they_may_be_skipped(tmp_path, capsys):
    path = write(tmp_path / "some.csv", GOOD + '"1"\n"2","cc"x"\n' + GOOD)
    assert run("build", path, "--out", tmp_path / "out", "--on-bad-row", "skip") == 0
    out = capsys.readouterr().out
    assert "line 21" in out
    assert "line 22" in out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--memory-limit", "12MiB"], "256MiB"),
        (["--memory-limit", "lots"], "lots"),
        (["--workers", "0"], "--workers"),
        (["--ngram-range", "2", "1"], "--ngram-range"),
        (["--min-df", "0"], "--min-df"),
        (["--validation-fraction", "2"], "--validation-fraction"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_out_of_range_are_usage_errors(arguments, word, tmp_path, capsys):
    assert run("build", write(tmp_path / "good.csv", GOOD), "--out", tmp_path / "out", *arguments) == 2
    assert word in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_unknown_options_are_usage_errors(capsys):
    with pytest.raises(SystemExit) as stopped:
        run("build", "x", "--no-such-option")
    assert stopped.value.code == 2
    assert "--no-such-option" in capsys.readouterr().err


def test_shards_that_are_not_there_are_an_error_that_names_build(tmp_path, capsys):
    assert run("fit", tmp_path / "nowhere", "--out", tmp_path / "run") == 1
    assert "shardtrain build CORPUS" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_folder_without_manifest_is_unfinished_shards(shards, tmp_path, capsys):
    (shards / "manifest.json").unlink()
    assert run("fit", shards, "--out", tmp_path / "run") == 1
    assert "did not finish" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_shard_cut_by_one_byte_is_named_with_both_sizes(shards, tmp_path, capsys):
    path = shards / "train-00000.h5"
    size = path.stat().st_size
    os.truncate(path, size - 1)
    assert run("fit", shards, "--out", tmp_path / "run") == 1
    err = capsys.readouterr().err
    for word in (path.name, "truncated", f"{size:,}", f"{size - 1:,}"):
        assert word in err
    assert not (tmp_path / "run").exists()


def test_a_shard_with_a_flipped_bit_is_named_before_it_is_used(shards, tmp_path, capsys):
    path = shards / "train-00000.h5"
    content = bytearray(path.read_bytes())
    content[25_000] ^= 4
    path.write_bytes(content)
    assert run("fit", shards, "--out", tmp_path / "run") == 1
    assert "train-00000.h5' is damaged" in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_file_that_is_no_run_is_refused(tmp_path, capsys):
    assert run("predict", tmp_path, "some text") == 1
    assert "error: " in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path, capsys):
    assert run("build", tmp_path / "nowhere", "--out", tmp_path / "out", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_both_ways_to_start_it_are_the_same():
    ways = [[sys.executable, "-m", "shardtrain", "--version"]]
    if script := shutil.which("shardtrain", path=str(Path(sys.executable).parent)):
        ways.append([script, "--version"])
    outputs = {subprocess.run(way, capture_output=True, text=True, check=True).stdout for way in ways}
    assert len(outputs) == 1
    assert outputs.pop().startswith("shardtrain ")


@pytest.mark.slow
def test_a_polite_kill_keeps_the_work_and_says_how_to_go_on(tmp_path):
    path = write(tmp_path / "many.csv", GOOD * 20_000)
    command = [sys.executable, "-m", "shardtrain", "build", str(path), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.rglob("scratch/run-*.json")):
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    _, err = process.communicate()
    assert process.returncode == 130
    assert "the same command resumes the build" in err
    assert err.count("interrupted") == 1
    assert "Traceback" not in err
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0


def test_fit_and_evaluate_leave_out_damaged_rows_when_told_to(tmp_path, capsys):
    """Every way of reading that the two commands know, on shards of which one is damaged."""
    shards = tmp_path / "shards"
    assert run("build", write(tmp_path / "good.csv", GOOD), "--out", shards, "--rows-per-shard", 6) == 0
    assert run("fit", shards, "--epochs", 1, "--out", tmp_path / "run", "--io", "read", "--no-verify") == 0
    path = shards / "train-00000.h5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert run("fit", shards, "--epochs", 1, "--out", tmp_path / "failing") == 1
    assert "is damaged: bytes [0, " in capsys.readouterr().err
    skipping = ("--on-corrupt", "skip")
    assert run("fit", shards, "--epochs", 1, "--out", tmp_path / "skipping", *skipping) == 0
    assert "6 damaged rows of 'train' were skipped in epoch 1" in capsys.readouterr().err
    assert run("evaluate", tmp_path / "run", shards, *skipping) == 0
    assert run("fit", shards, "--no-verify", *skipping) == 2
    with pytest.raises(SystemExit) as left:
        run("fit", shards, "--io", "mmap")
    assert left.value.code == 2

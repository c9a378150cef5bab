"""Test `tools/inspect_shards.py`: its summary of shards, --verify, and errors without a traceback."""

from __future__ import annotations

import io
import json
import runpy
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from support.handmade import make_rows, write_shards

from shardtrain.errors import CorruptShardError, VectorizerError
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.report.formatting import format_value
from shardtrain.report.summary import summarize_shards
from shardtrain.report.terminal import render
from shardtrain.vectorize.fitted import load_vectorizer

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "inspect_shards.py"
KINDS = ("ngram", "sequence")
WORDS = {"sport": "team match goal", "märkte": "oil share price", "bell\x1b[31m": "ring rang rung"}


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    """Build shards of three classes, one of them rarer, with two training shards."""
    path = tmp_path_factory.mktemp("inspect")
    lines = [
        json.dumps({"label": label, "text": f"{words} w{i % 5} {'more ' * (i % 3)}"})
        for number, (label, words) in enumerate(WORDS.items())
        for i in range(24 // (1 + number // 2))
    ]
    (path / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    options = BuildOptions(vectorizer=request.param, validation_fraction=0.2, rows_per_shard=30, workers=1)
    build(path / "corpus.jsonl", path / "shards", options)
    return path / "shards"


@pytest.fixture
def copy(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def inspect(*arguments, check: bool = True) -> SimpleNamespace:
    """Run the script as `python` does, but in this process; a failure shows its messages."""
    code, out, err = 0, io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr("sys.argv", [str(SCRIPT), *map(str, arguments)])
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as left:
            code = left.code or 0
    assert "Traceback" not in err.getvalue()
    assert code == 0 or not check, err.getvalue()
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def test_the_summary_agrees_with_the_files(folder):
    report = summarize_shards(folder, num_rows=4)
    with open_shards(folder) as shards:
        assert (report.kind, report.features) == (shards.description.kind, shards.description.num_features)
        assert report.fingerprint == shards.description.fingerprint
        assert [split.name for split in report.splits] == ["train", "validation"]
        for found, split in zip(report.splits, shards.splits.values(), strict=True):
            assert found.examples == split.num_examples
            counts = np.bincount(split.labels(), minlength=3)
            assert [(each.name, each.examples) for each in found.classes] == list(
                zip(sorted(WORDS), counts, strict=True)
            )
            assert len(found.shards) == len(split.shards) == (2 if found.name == "train" else 1)
    for shard in (shard for split in report.splits for shard in split.shards):
        check_shard(folder, shard)
    assert report.bytes == sum(path.stat().st_size for path in folder.glob("*.h5"))


def check_shard(folder: Path, found) -> None:
    """Compare a summary with the HDF5 file."""
    assert found.bytes == (folder / found.file).stat().st_size
    with h5py.File(folder / found.file) as file:
        sparse = "x/indptr" in file
        nonzeros = np.diff(file["x/indptr"][...]) if sparse else np.count_nonzero(file["x"][...], axis=1)
        assert found.examples == len(nonzeros)
        spread = found.nonzeros
        assert (spread.min, spread.max) == (nonzeros.min(), nonzeros.max())
        assert spread.median == np.median(nonzeros)
        assert spread.mean == pytest.approx(nonzeros.mean())
        assert found.chunks == {name: file[name].chunks for name in found.chunks}
        assert set(found.chunks) >= {"y", "document"}


def test_rows_are_decoded_to_the_words_of_their_documents(folder):
    lines = [json.loads(line) for line in (folder.parent / "corpus.jsonl").read_text().splitlines()]
    vectorizer = load_vectorizer(folder / "vectorizer")
    for split in summarize_shards(folder, num_rows=1000).splits:
        assert len(split.rows) == split.examples
        for row in split.rows:
            source = lines[row.document]
            assert row.label == source["label"]
            assert list(row.terms) == vectorizer.decode(vectorizer.transform([source["text"]]))
            assert {word for term in row.terms for word in term.split()} <= set(source["text"].split())
            assert row.terms


def test_medians_of_even_and_odd_numbers_of_rows(tmp_path):
    for count in (1, 2, 6, 7):
        write_shards(tmp_path / str(count), make_rows("ngram", count), [count])
        spread = summarize_shards(tmp_path / str(count), num_rows=1).splits[0].shards[0].nonzeros
        expected = np.arange(count) % 4
        assert (spread.min, spread.median, spread.max) == (0, np.median(expected), expected.max())


def test_the_text_shows_every_part(folder):
    text = inspect(folder, "--rows", 2).stdout
    report = summarize_shards(folder, num_rows=2)
    lines = text.splitlines()
    assert f"{report.kind} shards, {report.features:,} features" in lines[0]
    for split in report.splits:
        assert f"classes of {split.name}, {split.examples:,} examples" in lines
        assert f"rows of {split.name}" in lines
        for shard in split.shards:
            row = next(line for line in lines if line.startswith(split.name) and shard.file in line)
            assert row.split()[2] == str(shard.examples)
            assert row.split()[-1] == f"{shard.bytes:,}"
        for row in split.rows:
            assert any(f"row {row.row}, document {row.document}, label " in line for line in lines)
    assert any(line.strip() == "max_features: 20000" for line in lines)
    assert not [line for line in lines if line.endswith(": ")]  # no stop words: nothing to show
    assert any("train-00000.h5: x" in line for line in lines)


def test_bars_are_proportional_to_class_counts(folder):
    report = summarize_shards(folder, num_rows=0)
    classes = report.splits[0].classes
    bars = [line.count("#") for line in render(report).split("classes of train")[1].splitlines()[1:4]]
    most = max(each.examples for each in classes)
    assert bars == [round(40 * each.examples / most) for each in classes]
    assert max(bars) == 40


def test_control_characters_of_the_corpus_are_escaped(folder):
    text = render(summarize_shards(folder, num_rows=1000))
    assert "\x1b" not in text
    assert "bell\\x1b[31m" in text
    assert "märkte" in text


def test_json_is_one_object_with_the_same_content(folder):
    found = json.loads(inspect(folder, "--json", "--rows", 1, "--verify").stdout)
    expected = json.loads(json.dumps(asdict(summarize_shards(folder, num_rows=1))))
    assert found.pop("verified") == {
        "files": len(list(folder.glob("*.h5"))) + len(list((folder / "vectorizer").iterdir())),
        "bytes": sum(path.stat().st_size for path in [*folder.glob("*.h5"), *(folder / "vectorizer").iterdir()]),
        "checksums": len(list(folder.glob("*.h5"))) + len(list((folder / "vectorizer").iterdir())),
        "faults": [],
    }
    assert expected.pop("verified") is None
    assert found == expected


def test_verify_reports_what_was_compared(folder):
    done = inspect(folder, "--verify", "--rows", 0)
    assert "verified: " in done.stdout
    assert done.stderr.startswith("verifying: ")
    assert "verified" not in inspect(folder, "--rows", 0).stdout


@pytest.mark.parametrize("name", ["train-00001.h5", "validation-00000.h5", "vectorizer/terms.json", "manifest.json"])
def test_verify_ends_with_exit_code_1_and_names_the_damaged_file(name, copy):
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 4
    (copy / name).write_bytes(content)
    done = inspect(copy, "--verify", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"'{copy / name}'" in errors[0]


def test_verify_names_every_fault(copy):
    (copy / "train-00000.h5").unlink()
    with open(copy / "train-00001.h5", "ab") as file:
        file.write(b"more")
    done = inspect(copy, "--verify", check=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "train-00000.h5' is missing" in errors[0]
    assert "train-00001.h5' is not the file that was written" in errors[1]
    assert errors[2] == f"error: 2 faults in '{copy}'"


def test_a_folder_without_shards_is_an_error_of_one_line(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        done = inspect(folder, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: '{folder}' ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [[], ["DIR", "--rows", "-1"], ["DIR", "--rows", "two"]])
def test_wrong_usage_is_exit_code_2(arguments):
    assert inspect(*arguments, check=False).returncode == 2


def test_the_vectorizer_of_other_shards_is_refused(folder, copy, tmp_path):
    lines = [json.dumps({"label": "ab"[i % 2], "text": "other words and others"}) for i in range(8)]
    (tmp_path / "other.jsonl").write_text("\n".join(lines) + "\n")
    kind = summarize_shards(folder, num_rows=0).kind
    build(tmp_path / "other.jsonl", tmp_path / "other", BuildOptions(vectorizer=kind, workers=1))
    shutil.rmtree(copy / "vectorizer")
    shutil.copytree(tmp_path / "other" / "vectorizer", copy / "vectorizer")
    with pytest.raises(VectorizerError, match="but the shards were built with"):
        summarize_shards(copy, num_rows=1)
    assert inspect(copy, "--verify", check=False).returncode == 1


def test_shards_without_vectorizer_are_shown_without_words(tmp_path):
    write_shards(tmp_path, make_rows("ngram", 10), [10])
    report = summarize_shards(tmp_path, num_rows=2)
    assert [row.terms for row in report.splits[0].rows] == [None, None]
    assert "no vectorizer to decode with" in render(report)


def test_a_file_that_is_not_hdf5_is_named(tmp_path):
    """The arrays are intact but the HDF5 signature is overwritten, which mapped reads would not detect."""
    entry = write_shards(tmp_path, make_rows("sequence", 400_000), [400_000]).splits["train"].shards[0]
    with open(tmp_path / entry.file, "r+b") as file:
        file.write(b"\0" * 8)
    with pytest.raises(CorruptShardError, match=r"train-00000\.h5"):
        summarize_shards(tmp_path, num_rows=0)


def test_reporting_never_imports_tensorflow_and_without_rows_not_the_vectorizer(folder):
    code = (
        "import sys; from pathlib import Path\n"
        "from shardtrain.report.summary import summarize_shards; from shardtrain.report.terminal import render\n"
        f"assert 'h5py' not in sys.modules; render(summarize_shards(Path({str(folder)!r}), num_rows=0))\n"
        "print(sorted({'tensorflow', 'keras', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_a_proportion_of_one_is_not_shown_as_one_document() -> None:
    shown = [format_value({"max_df": value}) for value in (1, 1.0, -2.0, 0.25, 1e-7, 1e20, float("inf"))]
    assert shown == [f"max_df {text}" for text in ("1", "1.0", "-2.0", "0.25", "1e-07", "1e+20", "inf")]

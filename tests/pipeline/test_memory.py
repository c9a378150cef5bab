"""A build's processes together stay within --memory-limit whatever the shape of the text; measured from outside."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.comparing import assert_nothing_published

from shardtrain.errors import UsageError
from shardtrain.pipeline import naming
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "bench"))
hostile_texts, measuring = importlib.import_module("hostile_texts"), importlib.import_module("memory")
Shape = hostile_texts.Shape

# Corpora of this size are built by two processes where the limit allows it, as larger ones are.
PARALLEL = (
    "import sys; from shardtrain.pipeline import build as job; job.PARALLEL_BYTES = 0; "
    "from shardtrain.cli.main import main; sys.exit(main(sys.argv[1:]))"
)
SHAPES = st.builds(
    Shape,
    tokens=st.sampled_from(["distinct", "twice", "one", "short", "few", "growing"]),
    words=st.sampled_from([1, 10, 100, 2000, 20_000]),
    first_words=st.sampled_from([0, 600]),
    letters=st.sampled_from([10, 10, 10, 3000]),
    labels=st.sampled_from([2, 5, 5000, 0]),
    blank=st.sampled_from([0, 9]),
    format=st.sampled_from(["csv", "jsonl"]),
)
OPTIONS = st.sampled_from(
    [
        "--min-df 1",
        "--min-df 1 --select chi2",
        "--min-df 1 --select none",
        "--min-df 1 --ngram-range 1 3 --max-features 100000",
        "--min-df 1 --analyzer char --ngram-range 2 4",
        "--min-df 1 --analyzer char_wb",
        "--vectorizer count --max-features 100",
        "--vectorizer sequence",
        "--vectorizer hashing",
        "",
    ]
)
LIMITS = st.sampled_from(["256MiB", "512MiB"])  # of two threads, and of two processes


def check_peak(shape: Shape, options: str, limit: str, num_bytes: int) -> int:
    """Build a corpus of the shape and check its peak; return the exit status, which is 0 unless it was refused."""
    with tempfile.TemporaryDirectory() as name:
        corpus = hostile_texts.write(shape, Path(name), num_bytes)
        columns = ["--label-column", "label" if shape.format != "csv" else "0", "--labels", "names"]
        command = ["build", corpus, "--out", Path(name, "out"), "--memory-limit", limit, "--workers", "2", *columns]
        found = measuring.run([sys.executable, "-c", PARALLEL, *map(str, command), *options.split()])
    assert found.status == 0 or "error: " in found.last_line
    assert "unexpected" not in found.last_line
    assert found.peak <= measuring.parse_size(limit), (found, shape, options)
    return found.status


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("shape", "options", "limit", "megabytes"),
    [
        pytest.param(Shape(), "--min-df 1", "256MiB", 10, id="every token once"),
        pytest.param(Shape(tokens="short", words=2000), "", "256MiB", 16, id="two letters", marks=pytest.mark.slow),
        pytest.param(
            Shape(), "--min-df 1 --select none", "256MiB", 46, id="every n-gram is tied", marks=pytest.mark.slow
        ),
        pytest.param(
            Shape(tokens="short", words=2000, first_words=2_700_000),
            "",
            "256MiB",
            16,
            id="a long document of two letters",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Shape(tokens="one", words=2000), "--min-df 1", "256MiB", 16, id="one token", marks=pytest.mark.slow
        ),
        pytest.param(
            Shape(tokens="twice"),
            "--select chi2",
            "512MiB",
            16,
            id="every token in two documents",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Shape(tokens="growing", words=10, labels=20_000),
            "",
            "256MiB",
            6,
            id="20,000 labels",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            Shape(tokens="few", words=1, first_words=600),
            "--vectorizer sequence",
            "256MiB",
            12,
            id="one long and many short documents",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_build_of_hostile_text_stays_within_its_memory(shape, options, limit, megabytes):
    assert check_peak(shape, options, limit, megabytes * 1_000_000) == 0


@pytest.mark.slow
def test_more_labels_than_classes_are_refused_within_the_memory():
    assert check_peak(Shape(tokens="one", words=1, labels=0), "", "256MiB", 16_000_000) == 1


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(shape=SHAPES, options=OPTIONS, limit=LIMITS)
@example(shape=Shape(format="parquet"), options="--min-df 1", limit="256MiB")
@example(shape=Shape(words=20_000, format="parquet"), options="--min-df 1", limit="256MiB")
@example(shape=Shape(words=2000, format="parquet"), options="--min-df 1", limit="256MiB")
@example(shape=Shape(words=20_000, labels=5000, format="jsonl"), options="--min-df 1", limit="512MiB")
def test_a_build_of_text_of_any_shape_stays_within_its_memory(shape, options, limit):
    check_peak(shape, options, limit, 30_000_000)


@pytest.mark.parametrize("vectorizer", ["ngram", "sequence"])
@pytest.mark.parametrize(
    ("constant", "message"),
    [
        ("FEATURE_BYTES", "features would be chosen, memory_limit has room for 0"),
        ("NAME_BYTES", "names of the features"),
    ],
)
def test_features_that_memory_has_no_room_for_are_refused(
    vectorizer, constant, message, write_csv, tmp_path, monkeypatch
):
    monkeypatch.setattr(naming, constant, 1 << 40)
    path = write_csv("corpus.csv", [("ab"[i % 2], "some words of a text") for i in range(20)])
    with pytest.raises(UsageError, match=message):
        build(path, tmp_path / "out", BuildOptions(vectorizer=vectorizer, header=False))
    assert_nothing_published(tmp_path / "out")

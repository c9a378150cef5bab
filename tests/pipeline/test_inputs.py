"""Shards are equal byte for byte, whatever the corpus comes from: a file, parts, standard input, tables, rows."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import written
from support.forked import Forking

import shardtrain
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions

Rows = list[tuple[str, str]]

ROWS: Rows = [
    (("bad", "good", "so-so")[i % 3], f"text {i % 7}, it's {('dull', 'fine', 'odd')[i % 3]}") for i in range(120)
]
OPTIONS = {"workers": 1, "rows_per_shard": 40, "min_df": 1}


def as_csv(rows: Rows) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows([("label", "text"), *rows])
    return file.getvalue()


def shards_in(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("build.json", "manifest.json"))
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    manifest = json.loads((folder / "manifest.json").read_bytes())
    return {
        **found,
        "fingerprint": manifest["fingerprint"].encode(),
        "labels": json.dumps(manifest["build"]["labels"]).encode(),
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("expected")
    (folder / "some.csv").write_text(as_csv(ROWS), newline="")
    build(folder / "some.csv", folder / "shards", BuildOptions(**OPTIONS))
    return shards_in(folder / "shards")


@pytest.fixture(scope="module")
def expected_of_written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("written")
    (folder / "some.csv").write_text(as_csv(written.ROWS), newline="")
    build(folder / "some.csv", folder / "shards", BuildOptions(**OPTIONS))
    return shards_in(folder / "shards")


class _Piped:
    closed = False

    """Standard input that holds bytes."""

    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


WAYS = st.tuples(
    st.sampled_from(sorted(written.WRITERS)),
    st.sampled_from(sorted(written.COMPRESSIONS)),
    st.sampled_from(written.ENCODINGS),
    st.booleans(),
    st.integers(0, 3),
    st.sampled_from([256, 1024]),
)
SHARED = [HealthCheck.function_scoped_fixture]


def check_written(
    expected_of_written: dict[str, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    how: str,
    compression: str,
    encoding: str,
    header: bool,
    num_parts: int,
    mebibytes: int,
) -> None:
    """With no parts, the corpus comes from standard input."""
    folder = tmp_path_factory.mktemp("matrix")
    extension, write = written.WRITERS[how]
    files = []
    for part in range(max(num_parts, 1)):
        start, stop = (len(written.ROWS) * place // max(num_parts, 1) for place in (part, part + 1))
        content = write(written.ROWS[start:stop], header).encode(encoding)
        files.append(folder / f"part-{part}{extension}{compression}")
        files[-1].write_bytes(written.COMPRESSIONS[compression](content))
    chosen = {"encoding": encoding} if encoding == "cp1252" else {}
    options = BuildOptions(**{**OPTIONS, **chosen, "memory_limit": mebibytes << 20})
    if num_parts:
        build(files, folder / "shards", options)
    else:
        formats = {".csv": "csv", ".tsv": "tsv"}
        named = replace(options, format=formats.get(extension, "jsonl"))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", _Piped(files[0].read_bytes()))
            build("-", folder / "shards", named)
    assert shards_in(folder / "shards") == expected_of_written


@settings(max_examples=12, deadline=None, suppress_health_check=SHARED)
@given(way=WAYS)
def test_shards_do_not_depend_on_how_documents_are_written(
    expected_of_written: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, way: tuple[Any, ...]
) -> None:
    check_written(expected_of_written, tmp_path_factory, *way)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=SHARED)
@given(way=WAYS)
def test_shards_do_not_depend_on_any_way_in_which_documents_are_written(
    expected_of_written: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, way: tuple[Any, ...]
) -> None:
    check_written(expected_of_written, tmp_path_factory, *way)


def pandas_frame() -> Any:
    return pytest.importorskip("pandas").DataFrame(ROWS, columns=["label", "text"])


def arrow_table() -> Any:
    labels, texts = zip(*ROWS, strict=True)
    return pytest.importorskip("pyarrow").table(
        {"text": list(texts), "label": list(labels), "n": list(range(len(ROWS)))}
    )


def arrow_reader() -> Any:
    return arrow_table().to_reader(max_chunksize=7)


def polars_frame() -> Any:
    return pytest.importorskip("polars").DataFrame(ROWS, schema=["label", "text"], orient="row")


def hugging_face() -> Any:
    labels, texts = zip(*ROWS, strict=True)
    datasets = pytest.importorskip("datasets")
    if not hasattr(datasets, "Dataset"):
        pytest.skip("the package datasets is not installed")
    return datasets.Dataset.from_dict({"text": list(texts), "label": list(labels)})


def generator() -> Iterator[tuple[str, str]]:
    yield from ROWS


def dictionaries() -> Iterator[dict[str, Any]]:
    yield from ({"id": i, "label": label, "text": text} for i, (label, text) in enumerate(ROWS))


def arrays() -> Any:
    return np.array(ROWS, dtype=object)


@pytest.mark.parametrize(
    "made",
    [
        pandas_frame,
        arrow_table,
        arrow_reader,
        polars_frame,
        hugging_face,
        generator,
        dictionaries,
        arrays,
        lambda: ROWS,
    ],
    ids=lambda made: made.__name__,
)
def test_rows_of_a_program_give_the_shards_of_a_file(tmp_path: Path, expected: dict[str, bytes], made: Any) -> None:
    shards = shardtrain.build(made(), tmp_path / "shards", **OPTIONS)
    assert shards_in(tmp_path / "shards") == expected
    part = shards.manifest.build["parts"][0]["train"]
    assert (part["name"], part["format"]) == ("the rows", "rows")
    assert [path.name for path in tmp_path.iterdir()] == ["shards"]


def test_parts_and_compressed_parts_give_the_shards_of_one_file(tmp_path: Path, expected: dict[str, bytes]) -> None:
    for number, (start, stop) in enumerate([(0, 1), (1, 50), (50, 120)]):
        (tmp_path / f"part-{number}.csv.gz").write_bytes(gzip.compress(as_csv(ROWS[start:stop]).encode()))
    for number, corpus in enumerate(
        [[tmp_path / f"part-{n}.csv.gz" for n in range(3)], str(tmp_path / "part-*.gz"), str(tmp_path)]
    ):
        build(corpus, tmp_path / f"shards-{number}", BuildOptions(**OPTIONS))
        assert shards_in(tmp_path / f"shards-{number}") == expected


def test_standard_input_gives_the_shards_of_a_file(
    building: Forking, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    command = ["build", "-", "--out", tmp_path / "shards", "--workers", "1", "--rows-per-shard", "40", "--min-df", "1"]
    with ThreadPoolExecutor() as threads:
        threads.submit((tmp_path / "pipe").write_text, as_csv(ROWS))
        done = building.command(*command, stdin=tmp_path / "pipe")
    assert done.returncode == 0, done.stderr.decode()
    assert b"standard input: CSV, with a header" in done.stderr
    assert shards_in(tmp_path / "shards") == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "x"), ("b", 7)], r"the rows, row 2: the text is 7, a int; expected a str"),
        ([("a", "x"), "bc"], r"the rows, row 2: 'bc' has no label and text"),
        ([{"label": "a", "text": "x"}, {"label": "b"}], r"the rows, row 2: .* has no label and text"),
        ([("a", "x"), (["b"], "y")], r"the rows, row 2: the label is \['b'\], a list"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(CorpusFormatError, match=message):
        shardtrain.build(rows, tmp_path / "shards", **OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusNotFoundError, match="hold no row"):
        shardtrain.build(iter(()), tmp_path / "shards", **OPTIONS)


def test_missing_labels_of_rows_are_bad_rows_and_missing_texts_are_empty(tmp_path: Path) -> None:
    rows = [*ROWS, (None, "no label"), (float("nan"), "no label"), ("bad", None), ("good", float("nan"))]
    shards = shardtrain.build(rows, tmp_path / "shards", on_bad_row="skip", **OPTIONS)
    part = shards.manifest.build["parts"][0]
    assert part["documents"] == len(ROWS) + 2
    assert [(row["line"], row["counted"]) for row in part["rejected"]] == [(121, "row"), (122, "row")]


def test_what_a_killed_build_of_rows_left_is_removed_by_the_next_one(building: Forking, tmp_path: Path) -> None:
    code = f"""
import os, signal, shardtrain
def rows():
    yield from {ROWS[:5]!r}
    os.kill(os.getpid(), signal.SIGKILL)
shardtrain.build(rows(), out={str(tmp_path / "new" / "shards")!r})
"""
    killed = building.run(code)
    assert killed.returncode == -signal.SIGKILL
    assert [path.name[:7] for path in (tmp_path / "new").iterdir()] == [".given-"]
    shardtrain.build(ROWS, tmp_path / "new" / "shards", **OPTIONS)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["shards"]

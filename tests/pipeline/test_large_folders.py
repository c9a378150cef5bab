"""Folders whose checksums and chunks are in lists are built, appended to, replaced, resumed and used as others are."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import xxhash
from support.comparing import assert_same_folder
from support.forked import Forking
from support.listed import lists_forced
from support.renames import KILLED_AT_RENAME
from support.sampled import sampled
from support.topics import EXPECTED, TEXTS, TOPICS, write_corpus

from shardtrain.cli.main import main
from shardtrain.errors import ShardsError, ShardsNotFoundError, StorageError
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline import publishing, shards_job
from shardtrain.pipeline.build import build
from shardtrain.pipeline.convert import convert
from shardtrain.pipeline.options import BuildOptions, ConvertOptions, RecompressOptions
from shardtrain.pipeline.recompress import recompress
from shardtrain.shards.manifest import read_manifest
from shardtrain.shards.verify import verify_shards

OPTIONS = BuildOptions(workers=1, min_df=1, rows_per_shard=100)
PACKED = replace(OPTIONS, compress="lz4")

# Builds with lists, and kills itself at the moment of its Nth rename, before it (N below 0) or after it.
DRIVER = (
    KILLED_AT_RENAME
    + """
import sys
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.shards import listing

corpus, out, at = sys.argv[1:]
listing.MAX_INLINE = 0
killed_at_rename(int(at), out)
build(corpus, out, BuildOptions(workers=1, min_df=1, rows_per_shard=100, compress="lz4"))
"""
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "topics", tuple(TOPICS))


@pytest.fixture
def forced() -> Iterator[None]:
    with lists_forced():
        yield


@pytest.fixture(scope="module")
def large(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("large") / "shards"
    with lists_forced():
        build(corpus, out, PACKED)
    return out


def lists_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix in (".sums", ".chunks"))


def check(folder: Path) -> None:
    assert verify_shards(folder, advance=lambda _: None).faults == ()
    with open_shards(folder) as shards:
        for split in shards.splits.values():
            assert sum(len(y) for _, y in split.batches(32)) == split.num_examples


def test_every_file_but_the_manifest_and_the_lists_is_that_of_a_small_folder(
    corpus: Path, large: Path, tmp_path: Path
) -> None:
    build(corpus, tmp_path / "small", PACKED)
    assert lists_of(tmp_path / "small") == []
    shards = sorted(path.name for path in tmp_path.joinpath("small").glob("*.h5"))
    assert lists_of(large) == sorted(f"{name}.{kind}" for name in shards for kind in ("sums", "chunks"))
    assert all((large / name).read_bytes() == (tmp_path / "small" / name).read_bytes() for name in shards)
    check(large)


def test_a_build_with_lists_that_is_killed_at_any_rename_gives_the_same_bytes(
    building: Forking, corpus: Path, large: Path, tmp_path: Path
) -> None:
    renames: list[str] = []
    with pytest.MonkeyPatch.context() as patch, lists_forced():
        real = os.replace
        patch.setattr(os, "replace", lambda a, b: (renames.append(str(b)), real(a, b))[1])
        build(corpus, tmp_path / "counted", PACKED)
    mine = [name for name in renames if str(tmp_path / "counted") in name]
    lists = [number for number, name in enumerate(mine, 1) if name.endswith((".sums", ".chunks"))]
    made = [number for number in lists if "/.building/" in mine[number - 1] and "/ready/" in mine[number - 1]]
    for at in (-made[0], made[len(made) // 2], lists[-1]):
        out = tmp_path / f"out{at}"
        killed = building.run(DRIVER, corpus, out, at)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        with lists_forced():
            build(corpus, out, PACKED)
        assert_same_folder(out, large)


def test_a_folder_that_becomes_large_by_an_addition_gets_lists_for_all_shards_and_touches_none(
    corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    build(corpus, out, OPTIONS)
    before = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.glob("*.h5")}
    blocks = sum(shard.blocks for shard in read_manifest(out).checksummed)
    with open_shards(out) as opened, lists_forced(blocks):
        build(corpus, out, BuildOptions(workers=1, append=True))
        assert opened.train.rows(0, opened.train.num_examples)[1].size  # what is open is whole
    assert {name: (out / name).stat().st_mtime_ns for name in before} == {name: at for name, (at, _) in before.items()}
    body = json.loads((out / "manifest.json").read_bytes())
    assert body["requires"] == ["checksum-lists", "test-split"]
    for split in body["splits"].values():
        for shard in split["shards"]:
            content = (out / shard["file"]).read_bytes()
            blocks_of = (content[start : start + (1 << 17)] for start in range(0, len(content), 1 << 17))
            assert (out / shard["checksums"]["file"]).read_bytes() == b"".join(map(xxhash.xxh3_64_digest, blocks_of))
    check(out)
    with lists_forced():
        build(corpus, out, BuildOptions(workers=1, append=True))  # to shards that have lists
    check(out)
    assert len(lists_of(out)) == len([*out.glob("*.h5")])


@pytest.mark.parametrize("cut", [False, True], ids=["missing", "cut short"])
@pytest.mark.parametrize("name", ["train-00000.h5", "train-00000.h5.sums", "validation-00000.h5.chunks"])
def test_nothing_is_appended_to_shards_that_lack_a_file(
    name: str, cut: bool, corpus: Path, large: Path, tmp_path: Path, forced: None
) -> None:
    """And the message says what is wrong, before anything is written."""
    out = Path(shutil.copytree(large, tmp_path / "out"))
    if cut:
        os.truncate(out / name, (out / name).stat().st_size - 1)
    else:
        (out / name).unlink()
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    with pytest.raises(ShardsError, match=f"{name}'.*(missing|does not exist|bytes)"):
        build(corpus, out, BuildOptions(workers=1, append=True))
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_lists_go_with_the_shards_that_are_replaced(corpus: Path, large: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(large, tmp_path / "out"))
    build(corpus, out, replace(OPTIONS, overwrite=True))
    assert lists_of(out) == []
    build(corpus, tmp_path / "small", OPTIONS)
    assert_same_folder(out, tmp_path / "small")
    (out / "manifest.json").write_text("{}")  # so that files are known by their names
    for name in lists_of(large):
        (out / name).write_text("older")
    (out / "source-00000.sums").write_text("older")
    (out / "mine.sums").write_text("mine")
    build(corpus, out, replace(OPTIONS, overwrite=True))
    assert lists_of(out) == ["mine.sums"]


@pytest.mark.parametrize("step", sampled([13, 1], ids=["some", "every call"]))
@pytest.mark.parametrize("how", ["new", "overwrite", "append"])
def test_calls_of_publishing_may_fail(
    how: str, step: int, corpus: Path, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forced: None
) -> None:
    options = {
        "new": OPTIONS,
        "overwrite": replace(OPTIONS, overwrite=True),
        "append": BuildOptions(workers=1, append=True),
    }[how]

    def started(name: str) -> Path:
        out = tmp_path / name
        return out if how == "new" else Path(shutil.copytree(large, out))

    calls: list[str] = []

    def failing(number: int) -> None:
        def counted(real):
            def call(*arguments: object, **keywords: object) -> None:
                calls.append(str(arguments))
                if len(calls) == number:
                    raise OSError(errno.EIO, os.strerror(errno.EIO), str(arguments[0]))
                real(*arguments, **keywords)

            return call

        def publish(*arguments: object, **keywords: object) -> None:
            with pytest.MonkeyPatch.context() as patched:
                for name in ("replace", "rename", "link", "unlink"):
                    patched.setattr(os, name, counted(getattr(os, name)))
                publishing.publish(*arguments, **keywords)  # type: ignore[arg-type]

        calls.clear()
        monkeypatch.setattr(shards_job, "publish", publish)

    failing(0)
    expected = started("expected")
    build(corpus, expected, options)
    check(expected)
    for number in range(1, len(calls) + 1, step):
        out = started(f"out{number}")
        failing(number)
        with suppress(StorageError):
            build(corpus, out, options)
        if how != "new" or (out / "manifest.json").exists():
            check(out)
        failing(0)
        with suppress(ShardsNotFoundError):  # all was published, and only tidying up failed
            build(corpus, out, replace(options, resume=True))
        assert_same_folder(out, expected)


def test_a_table_is_converted_to_a_large_folder_and_back(tmp_path: Path, forced: None) -> None:
    x = np.random.default_rng(1).normal(size=(500, 4)).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = x, np.arange(500) % 2
    options = ConvertOptions(x="x", y="y", rows_per_shard=200)
    convert([tmp_path / "a.h5"], tmp_path / "out", options)
    assert lists_of(tmp_path / "out")
    check(tmp_path / "out")
    recompress(tmp_path / "out", tmp_path / "packed", RecompressOptions(compress="zstd"))
    check(tmp_path / "packed")
    with open_shards(tmp_path / "packed") as shards:
        rows = np.concatenate([split.rows(0, split.num_examples)[0] for split in shards.splits.values()])
    np.testing.assert_array_equal(rows[np.lexsort(rows.T)], x[np.lexsort(x.T)])


def test_a_model_is_trained_on_a_large_folder_and_shown_and_used(
    large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (
        ["inspect", str(large), "--verify"],
        ["verify", str(large)],
        ["report", str(large), "--out", str(tmp_path / "page.html")],
        ["fit", str(large), "--out", str(tmp_path / "run"), "--model", "linear", "--epochs", "5"],
        ["evaluate", str(tmp_path / "run"), str(large), "--split", "test"],
    ):
        assert main(command) == 0, (command, capsys.readouterr().err)
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "run"), *TEXTS]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()] == EXPECTED

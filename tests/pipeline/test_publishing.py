"""Publishing is one step that can be repeated: whatever call fails, old or new shards are whole, and it ends well."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from support.comparing import assert_same_folder
from support.sampled import sampled

from shardtrain.errors import ShardsExistError, StorageError
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline import publishing, shards_job
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions, RecompressOptions
from shardtrain.pipeline.recompress import recompress
from shardtrain.shards import layout
from shardtrain.shards.manifest import read_manifest, vectorizer_folder
from shardtrain.shards.verify import verify_shards
from shardtrain.vectorize.fitted import load_vectorizer

OPTIONS = BuildOptions(workers=1, min_df=1, rows_per_shard=40)
CALLS = ("replace", "rename", "link", "unlink", "rmdir", "mkdir", "fsync")


@contextmanager
def failing(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let the `number`th call that changes a folder fail with EIO, from when files are published; yield the calls."""
    made: list[str] = []
    with monkeypatch.context() as patched:

        def publish(*arguments: Any, **keywords: Any) -> None:
            for name in CALLS:
                patched.setattr(os, name, _counted(name, getattr(os, name), number, made))
            publishing.publish(*arguments, **keywords)

        patched.setattr(shards_job, "publish", publish)
        yield made


def _counted(name: str, real: Callable[..., None], number: int, made: list[str]) -> Callable[..., None]:
    def call(*arguments: object, **keywords: object) -> None:
        made.append(name)
        if len(made) == number:
            names = [str(each) for each in arguments[:1] if not isinstance(each, int)]
            raise OSError(errno.EIO, os.strerror(errno.EIO), *names)
        real(*arguments, **keywords)

    return call


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("corpora")
    for name, documents in (("old", 150), ("new", 90)):
        lines = [f'"{"ab"[n % 2]}",{name} w{n % 7} w{n % 5} w{n % 11}' for n in range(documents)]
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return folder / "old.csv", folder / "new.csv"


def readable(out: Path) -> str:
    """Check the shards in a folder completely, their vectorizer too, and return their fingerprint."""
    found = verify_shards(out, advance=lambda _: None)
    assert found.faults == ()
    manifest = read_manifest(out)
    assert load_vectorizer(vectorizer_folder(out)).describe()["fingerprint"] == manifest.vectorizer["fingerprint"]
    with open_shards(out) as shards:
        assert (
            sum(len(y) for _, y in shards.train.batches(32, seed=0, epoch=0, shuffle="none"))
            == shards.train.num_examples
        )
    return manifest.fingerprint


@pytest.mark.parametrize(
    ("how", "again"),
    sampled(product(["new", "overwrite", "append"], ["the same command", "--overwrite"]), (3,)),
)
@pytest.mark.parametrize(
    "step", [pytest.param(1, marks=pytest.mark.slow, id="every call"), pytest.param(19, id="some")]
)
def test_every_call_of_publishing_may_fail(
    step: int, how: str, again: str, corpora: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = corpora
    options = BuildOptions(workers=1, append=True) if how == "append" else replace(OPTIONS, overwrite=how != "new")
    build(old, tmp_path / "old", OPTIONS)
    start = None if how == "new" else tmp_path / "old"
    expected = tmp_path / "expected"
    if start:
        shutil.copytree(start, expected)
    with failing(0, monkeypatch) as made:
        build(new, expected, options)
    fingerprints = {readable(expected), readable(tmp_path / "old")}
    for number in range(1, len(made) + 1, step):
        out = tmp_path / f"out{number}"
        if start:
            shutil.copytree(start, out)
        failed = True
        with failing(number, monkeypatch), suppress(StorageError):
            build(new, out, options)
            failed = False
        if start or (out / layout.MANIFEST).exists():
            assert readable(out) in fingerprints, f"after call {number}, {made[number - 1]}"
        if again == "--overwrite":
            build(old, out, replace(OPTIONS, overwrite=True))
            assert_same_folder(out, tmp_path / "old")
            continue
        if failed:
            build(new, out, options)
            assert_same_folder(out, expected)
        shutil.rmtree(out)


def test_a_publication_that_was_begun_is_completed_before_another_job_starts(
    corpora: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the manifest would name files of a working folder that the other job removes."""
    old, new = corpora
    build(old, tmp_path / "out", OPTIONS)
    overwrite = replace(OPTIONS, overwrite=True)
    shutil.copytree(tmp_path / "out", tmp_path / "expected")
    with failing(0, monkeypatch) as made:
        build(new, tmp_path / "expected", overwrite)
    last = len(made) - made[::-1].index("replace")  # of the final manifest
    with failing(last, monkeypatch), pytest.raises(StorageError):
        build(new, tmp_path / "out", overwrite)
    assert all(name.startswith(layout.WORKING) for name in read_manifest(tmp_path / "out").files)
    with pytest.raises(ShardsExistError, match="already holds shards"):
        build(old, tmp_path / "out", replace(OPTIONS, seed=5))
    build(old, tmp_path / "out", overwrite)
    build(old, tmp_path / "alone", OPTIONS)
    assert_same_folder(tmp_path / "out", tmp_path / "alone")


def test_shards_that_are_being_published_can_be_used_like_others(
    corpora: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = corpora
    build(old, tmp_path / "out", OPTIONS)
    real = os.link

    def refused(*arguments: str) -> None:
        if ".h5" in str(arguments[1]):
            raise KeyboardInterrupt
        real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", refused)
        with pytest.raises(KeyboardInterrupt):
            build(new, tmp_path / "out", replace(OPTIONS, overwrite=True))
    assert any(
        shard.file.startswith(layout.WORKING) for shard in read_manifest(tmp_path / "out").splits["train"].shards
    )
    build(old, tmp_path / "reused", BuildOptions(vectorizer_from=tmp_path / "out"))
    recompress(tmp_path / "out", tmp_path / "packed", RecompressOptions(compress="lz4"))
    build(new, tmp_path / "expected", OPTIONS)
    recompress(tmp_path / "expected", tmp_path / "expected-packed", RecompressOptions(compress="lz4"))
    assert_same_folder(tmp_path / "packed", tmp_path / "expected-packed")


def test_where_the_file_system_has_no_links_files_are_copied(
    corpora: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = corpora
    build(old, tmp_path / "out", OPTIONS)

    def unsupported(*_: str) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", unsupported)
        build(new, tmp_path / "out", replace(OPTIONS, overwrite=True))
    build(new, tmp_path / "expected", OPTIONS)
    assert_same_folder(tmp_path / "out", tmp_path / "expected")


def test_files_that_no_manifest_names_are_left_alone(corpora: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = corpora
    build(old, tmp_path / "out", OPTIONS)
    (tmp_path / "out" / "mine.h5").write_text("mine")
    (tmp_path / "out" / layout.VECTORIZER / "mine.npy").write_text("mine")
    build(new, tmp_path / "out", replace(OPTIONS, overwrite=True))
    assert (tmp_path / "out" / "mine.h5").read_text() == "mine"
    assert (tmp_path / "out" / layout.VECTORIZER / "mine.npy").read_text() == "mine"
    readable(tmp_path / "out")


def test_a_link_in_the_place_of_the_vectorizer_is_refused_and_not_followed(
    corpora: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = corpora
    build(old, tmp_path / "out", OPTIONS)
    shutil.move(tmp_path / "out" / layout.VECTORIZER, tmp_path / "elsewhere")
    (tmp_path / "out" / layout.VECTORIZER).symlink_to(tmp_path / "elsewhere")
    before = {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()}
    with pytest.raises(ShardsExistError, match="is a link"):
        build(new, tmp_path / "out", replace(OPTIONS, overwrite=True))
    assert {path.name: path.read_bytes() for path in (tmp_path / "elsewhere").iterdir()} == before
    (tmp_path / "out" / layout.VECTORIZER).unlink()
    build(new, tmp_path / "out", replace(OPTIONS, overwrite=True))
    readable(tmp_path / "out")


def test_an_interrupted_replacement_is_completed_by_resume_without_overwrite(
    corpora: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = corpora
    build(old, tmp_path / "out", OPTIONS)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shards_job, "publish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build(new, tmp_path / "out", replace(OPTIONS, overwrite=True))
    with pytest.raises(ShardsExistError, match="interrupted build was to replace"):
        build(new, tmp_path / "out", OPTIONS)
    with pytest.raises(ShardsExistError, match="already holds shards"):
        build(old, tmp_path / "out", replace(OPTIONS, resume=True))
    build(new, tmp_path / "out", replace(OPTIONS, resume=True))
    build(new, tmp_path / "expected", OPTIONS)
    assert_same_folder(tmp_path / "out", tmp_path / "expected")

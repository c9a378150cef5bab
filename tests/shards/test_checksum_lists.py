"""In a large folder the checksums of each file are in a list beside it, which is trusted no more than a shard is."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import xxhash
from support.comparing import assert_same_folder
from support.handmade import dense, make_rows, write_shards
from support.listed import lists_forced
from support.manifests import at, reseal

from shardtrain.cli.main import main
from shardtrain.errors import CorruptShardError, ManifestError, ShardsError, ShardsNotFoundError
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline.index import index
from shardtrain.pipeline.options import IndexOptions, RecompressOptions
from shardtrain.pipeline.recompress import recompress
from shardtrain.shards import listing
from shardtrain.shards.layout import SplitEntry
from shardtrain.shards.manifest import read_manifest, write_manifest
from shardtrain.shards.verify import verify_shards

BLOCK = 1 << 17
SIZES = [125_000, 125_000, 50_000]
SHARD = "train-00000.h5"


@pytest.fixture(scope="module")
def inline(tmp_path_factory) -> Path:
    """Shards of several blocks, with a test split, whose checksums are in the manifest."""
    folder = tmp_path_factory.mktemp("inline")
    manifest = write_shards(folder, make_rows("sequence", sum(SIZES)), SIZES)
    train = manifest.splits["train"]
    ours, last = train.shards[:-1], train.shards[-1]
    (folder / last.file).rename(folder / "test-00000.h5")
    splits = {"train": split_of(ours, folder), "test": split_of([replace(last, file="test-00000.h5")], folder)}
    write_manifest(folder, replace(manifest, splits=splits))
    return folder


def split_of(shards, folder: Path) -> SplitEntry:
    counts = np.zeros(3, int)
    for shard in shards:
        with h5py.File(folder / shard.file) as file:
            counts += np.bincount(file["y"][...], minlength=3)
    return SplitEntry(examples=int(counts.sum()), nonzeros=0, class_counts=tuple(counts.tolist()), shards=tuple(shards))


@pytest.fixture(scope="module")
def listed(inline, tmp_path_factory) -> Path:
    """The same shards with lists."""
    folder = tmp_path_factory.mktemp("listed") / "shards"
    with lists_forced():
        recompress(inline, folder, RecompressOptions(compress="none"))
    return folder


@pytest.fixture
def copy(listed, tmp_path) -> Path:
    return Path(shutil.copytree(listed, tmp_path / "copy"))


def body_of(folder: Path):
    return json.loads((folder / "manifest.json").read_bytes())


def shards_of(body):
    return [shard for split in body["splits"].values() for shard in split["shards"]]


def faults_of(folder: Path) -> tuple[str, ...]:
    return verify_shards(folder, advance=lambda _: None, workers=2).faults


def read_all(folder: Path, **options):
    with open_shards(folder, **options) as shards:
        return [split.rows(0, split.num_examples) for split in shards.splits.values()]


def test_a_list_has_the_checksums_of_the_blocks_of_its_file_in_big_endian_order(listed):
    body = body_of(listed)
    assert (body["format_version"], body["requires"]) == (3, ["checksum-lists", "test-split"])
    for shard in shards_of(body):
        content = (listed / shard["file"]).read_bytes()
        blocks = [content[start : start + BLOCK] for start in range(0, len(content), BLOCK)]
        assert len(blocks) > 3
        packed = (listed / shard["checksums"]["file"]).read_bytes()
        assert struct.unpack(f">{len(blocks)}Q", packed) == tuple(map(xxhash.xxh3_64_intdigest, blocks))
        assert shard["checksums"] == {
            "file": f"{shard['file']}.sums",
            "bytes": 8 * len(blocks),
            "checksum": xxhash.xxh3_64_hexdigest(packed),
        }
    joined = "".join(shard["checksums"]["checksum"] for shard in shards_of(body))
    assert body["fingerprint"] == xxhash.xxh3_64_hexdigest(joined.encode())


def test_shards_and_what_is_read_do_not_depend_on_where_checksums_are(inline, listed):
    names = [shard["file"] for shard in shards_of(body_of(inline))]
    assert filecmp.cmpfiles(inline, listed, names, shallow=False) == (names, [], [])
    for (x, y), (expected_x, expected_y) in zip(read_all(listed), read_all(inline), strict=True):
        np.testing.assert_array_equal(dense(x), dense(expected_x))
        np.testing.assert_array_equal(y, expected_y)
    found, expected = (verify_shards(each, advance=lambda _: None) for each in (listed, inline))
    assert (found.faults, expected.faults) == ((), ())
    assert (found.files, found.checksums) == (expected.files + 3, expected.checksums + 3)


def test_as_many_blocks_as_the_limit_stay_in_the_manifest_byte_for_byte(inline, listed, tmp_path):
    blocks = sum(-(-shard["bytes"] // BLOCK) for shard in shards_of(body_of(inline)))
    recompress(inline, tmp_path / "today", RecompressOptions(compress="none"))
    with lists_forced(blocks):
        recompress(listed, tmp_path / "again", RecompressOptions(compress="none"))
    assert body_of(tmp_path / "again")["requires"] == ["test-split"]
    assert_same_folder(tmp_path / "again", tmp_path / "today")
    with lists_forced(blocks - 1):
        recompress(inline, tmp_path / "more", RecompressOptions(compress="none"))
    assert_same_folder(tmp_path / "more", listed)


def test_progress_of_verification_adds_up(listed):
    done = []
    found = verify_shards(listed, advance=done.append)
    values = sum(each["bytes"] for shard in shards_of(body_of(listed)) for each in shard["datasets"].values())
    assert sum(done) == found.bytes + values


def other_bytes(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def replaced_by(make):
    def spoil(path: Path) -> None:
        path.unlink()
        make(path)

    return spoil


SPOILED = {
    "missing": (Path.unlink, "is missing, but the manifest names it"),
    "empty": (lambda path: path.write_bytes(b""), "bytes, it has 0 bytes"),
    "too short": (lambda path: path.write_bytes(path.read_bytes()[:-8]), "is not what was written"),
    "too long": (lambda path: path.write_bytes(path.read_bytes() + bytes(8)), "is not what was written"),
    "with a flipped bit": (flip, "is damaged: its checksum is"),
    "of zeros": (other_bytes, "is damaged: its checksum is"),
    "a folder": (replaced_by(Path.mkdir), "is no regular file"),
    "a pipe": (replaced_by(os.mkfifo), "is no regular file"),
    "a link to an endless file": (replaced_by(lambda path: path.symlink_to("/dev/zero")), "is no regular file"),
    "a link to nowhere": (replaced_by(lambda path: path.symlink_to("nowhere")), "is missing"),
    "a link to another file": (
        replaced_by(lambda path: path.symlink_to(path.with_name("train-00001.h5.sums"))),
        "is damaged: its checksum is",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
@pytest.mark.parametrize("io", ["map", "read"])
def test_a_spoiled_list_is_named_with_its_file_and_the_next_step(case, io, copy):
    spoil, reason = SPOILED[case]
    spoil(copy / f"{SHARD}.sums")
    for on_corrupt in ("fail", "skip"):  # what is damaged is unknown, so nothing can be skipped
        with pytest.raises((CorruptShardError, ShardsNotFoundError)) as failure:
            read_all(copy, io=io, on_corrupt=on_corrupt)
        message = str(failure.value)
        assert reason in message
        assert f"'{copy / SHARD}.sums', the list of checksums of '{copy / SHARD}'" in message
        assert "restore it from a copy, or rebuild the shards" in message
    (fault,) = faults_of(copy)
    assert reason in fault
    assert len(read_all(copy, io=io, verify=False)) == 2  # without checksums, no list is needed


def test_verify_ends_with_exit_code_1_and_one_line_for_the_list(copy, capsys):
    flip(copy / f"{SHARD}.sums")
    assert main(["verify", str(copy)]) == 1
    assert sum("the list of checksums of" in line for line in capsys.readouterr().err.splitlines()) == 1


def test_a_flipped_bit_of_a_shard_is_found_by_its_list(copy):
    flip(copy / SHARD)
    with pytest.raises(CorruptShardError, match=rf"{SHARD}' is damaged: .*{SHARD}\.sums' says [0-9a-f]{{16}}; they ho"):
        read_all(copy)
    (fault,) = faults_of(copy)
    assert f"'{copy / SHARD}' is damaged" in fault


def test_a_link_to_the_right_content_is_followed_as_one_to_a_shard_is(copy, tmp_path):
    for name in (SHARD, f"{SHARD}.sums"):
        shutil.move(copy / name, tmp_path / name)
        (copy / name).symlink_to(tmp_path / name)
    assert faults_of(copy) == ()
    read_all(copy)


def test_lists_are_read_only_when_blocks_of_their_file_are_first_compared(copy):
    with open_shards(copy) as shards:
        for number in range(2):
            (copy / f"train-{number:05}.h5.sums").unlink()
        shards.test.rows(0, 10)
        with pytest.raises(ShardsNotFoundError, match=r"train-00000\.h5\.sums', the list of checksums"):
            shards.train.rows(0, 10)


def test_a_list_that_is_replaced_between_opening_and_use_is_refused(copy):
    with open_shards(copy) as shards:
        path = copy / f"{SHARD}.sums"
        (copy / "other").write_bytes(bytes(path.stat().st_size))
        os.replace(copy / "other", path)
        with pytest.raises(CorruptShardError, match="is damaged: its checksum is"):
            shards.train.rows(0, 10)


def test_a_list_that_is_replaced_after_it_was_read_changes_nothing(copy, inline):
    with open_shards(copy) as shards:
        shards.train.rows(0, 10)
        other_bytes(copy / f"{SHARD}.sums")
        x, y = shards.train.rows(0, SIZES[0])
    with open_shards(inline) as shards:
        expected_x, expected_y = shards.train.rows(0, SIZES[0])
    np.testing.assert_array_equal(dense(x), dense(expected_x))
    np.testing.assert_array_equal(y, expected_y)


def test_the_list_of_an_indexed_file_is_in_the_folder_of_the_shards(tmp_path):
    x = np.random.default_rng(1).normal(size=(40_000, 8)).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = x, np.arange(len(x)) % 2
    with lists_forced():
        index([tmp_path / "a.h5"], tmp_path / "out", IndexOptions(x="x", y="y", validation_fraction=0.0))
    (source,) = body_of(tmp_path / "out")["sources"].values()
    assert source["checksums"]["file"] == "source-00000.sums"
    content = (tmp_path / "a.h5").read_bytes()
    blocks = [content[start : start + BLOCK] for start in range(0, len(content), BLOCK)]
    packed = (tmp_path / "out" / "source-00000.sums").read_bytes()
    assert packed == b"".join(xxhash.xxh3_64_digest(block) for block in blocks)
    assert faults_of(tmp_path / "out") == ()
    ((found, _),) = read_all(tmp_path / "out")
    np.testing.assert_array_equal(found, x)
    flip(tmp_path / "out" / "source-00000.sums")
    with pytest.raises(CorruptShardError, match=r"source-00000\.sums', the list of checksums of '.*a\.h5', is damaged"):
        read_all(tmp_path / "out")
    assert len(faults_of(tmp_path / "out")) == 1
    path = str(tmp_path / "a.h5")
    for file, reason in (("/etc/passwd", "reaches outside the folder"), (SHARD, "is named twice")):
        reseal(tmp_path / "out", at("sources", path, "checksums", "file")(file))
        with pytest.raises(ManifestError, match=reason):
            open_shards(tmp_path / "out")


def test_names_that_are_taken_by_the_files_of_other_writers_are_not_used(inline, tmp_path):
    manifest = read_manifest(inline)
    train = manifest.splits["train"]
    odd = (replace(train.shards[0], file="a/x"), replace(train.shards[1], file="a/x.sums"))
    named = replace(manifest, splits={"train": replace(train, shards=odd)})
    with lists_forced():
        made = listing.with_lists(named, tmp_path)
    assert [each.file for each in made.checksum_lists] == ["a/x.sums~", "a/x.sums.sums"]
    assert all((tmp_path / each.file).stat().st_size == each.bytes for each in made.checksum_lists)


# Manifests that cannot be true.


def of_list(*keys):
    return at("splits", "train", "shards", 0, "checksums", *keys)


def inside(body):
    return body["splits"]["train"]["shards"][0]["checksums"]


def without(key):
    def change(body):
        del inside(body)[key]

    return change


def shared(body):
    body["splits"]["train"]["shards"][1]["checksums"] = inside(body)


def huge(body):
    shard = body["splits"]["train"]["shards"][0]
    shard["bytes"], shard["block_bytes"] = 1 << 62, 1
    shard["checksums"]["bytes"] = 1 << 65


def as_version_2(body):
    del body["requires"], body["splits"]["test"]
    body["format_version"] = 2


HOSTILE = {
    "an absolute path": (of_list("file")("/etc/passwd"), "reaches outside the folder"),
    "a path above the folder": (of_list("file")("../x.sums"), "reaches outside the folder"),
    "a path with a backslash": (of_list("file")("..\\x.sums"), "reaches outside the folder"),
    "a path with a null byte": (of_list("file")("x\0.sums"), "reaches outside the folder"),
    "the folder": (of_list("file")("."), "reaches outside the folder"),
    "no text": (of_list("file")(1), "int"),
    "the shard itself": (of_list("file")(SHARD), "is named twice"),
    "the shard itself by another name": (of_list("file")(f"./{SHARD}"), "is named twice"),
    "another shard": (of_list("file")("test-00000.h5"), "is named twice"),
    "the list of another shard": (of_list("file")("train-00001.h5.sums"), "is named twice"),
    "one list for two shards": (shared, "is named twice"),
    "one block fewer": (lambda body: of_list("bytes")(inside(body)["bytes"] - 8)(body), "8 per block of"),
    "one block more": (lambda body: of_list("bytes")(inside(body)["bytes"] + 8)(body), "8 per block of"),
    "no bytes": (of_list("bytes")(0), "bytes of 'train-00000.h5.sums' is 0"),
    "bytes that are text": (of_list("bytes")("8"), "bytes of 'train-00000.h5.sums' is '8'"),
    "bytes that are true": (of_list("bytes")(True), "bytes of 'train-00000.h5.sums' is True"),
    "more than memory": (huge, "not an integer from 1 to 1073741824"),
    "a checksum that is short": (of_list("checksum")("0" * 15), "1 checksums of 16 hex digits"),
    "a checksum that is not hex": (of_list("checksum")("x" * 16), "1 checksums of 16 hex digits"),
    "no file": (without("file"), "file"),
    "no checksum": (without("checksum"), "checksum"),
    "an unknown key": (of_list("colour")("red"), "the key 'colour' is unknown"),
    "null": (at("splits", "train", "shards", 0, "checksums")(None), "checksums of 16 hex digits"),
    "not required": (at("requires")(["test-split"]), "its content ['checksum-lists', 'test-split']"),
    "required out of order": (at("requires")(["test-split", "checksum-lists"]), "its content ['checksum-lists', 'te"),
    "version 2": (as_version_2, "its content ['checksum-lists']"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_an_impossible_list_is_refused(case, copy):
    change, reason = HOSTILE[case]
    reseal(copy, change)
    with pytest.raises(ManifestError, match="is not a valid manifest") as failure:
        open_shards(copy)
    assert reason in str(failure.value)
    assert len(str(failure.value)) < 1000


def test_a_requirement_of_lists_that_are_not_there_is_refused(inline, tmp_path):
    shutil.copytree(inline, tmp_path / "copy")
    reseal(tmp_path / "copy", at("requires")(["checksum-lists", "test-split"]))
    with pytest.raises(ManifestError, match="it requires"):
        open_shards(tmp_path / "copy")


def test_a_sparse_shard_of_any_size_claims_no_memory_before_it_is_refused(copy):
    """The manifest's numbers agree with each other, and no file is as long as it says."""

    def change(body):
        shard = body["splits"]["train"]["shards"][0]
        shard["bytes"], shard["block_bytes"] = 1 << 57, 1 << 30
        shard["checksums"]["bytes"] = 8 << 27

    reseal(copy, change)
    with pytest.raises(ShardsError, match="is truncated"):
        open_shards(copy)


def test_lists_may_be_anywhere_in_the_folder(copy):
    (copy / "sums").mkdir()
    for number, shard in enumerate(shards_of(body_of(copy))):
        shutil.move(copy / shard["checksums"]["file"], copy / "sums" / f"{number}")

    def change(body):
        for number, shard in enumerate(shards_of(body)):
            shard["checksums"]["file"] = f"sums/{number}"

    reseal(copy, change)
    assert faults_of(copy) == ()

"""An archive is unpacked without believing it: its wanted plain files are written to the folder, or it is refused."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.published import packed

from shardtrain.datasets.archive import unpack_archive
from shardtrain.errors import CorpusFormatError

FILES = {"set/train.csv": b"1,a\n" * 300, "set/test.csv": b"1,b\n", "set/readme.txt": b"about"}
MEMBERS = ("train.csv", "test.csv", "train/*/*.txt")


def member(name: str, type: bytes = tarfile.REGTYPE, link: str = "", pax: dict[str, str] | None = None):  # noqa: A002
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.pax_headers = type, link, pax or {}
    return made


def unpacked(tmp_path: Path, content: bytes, max_bytes: int = 1 << 20) -> dict[str, bytes]:
    """What lies in the folder afterwards."""
    (tmp_path / "set.tgz").write_bytes(content)
    folder = tmp_path / "folder"
    folder.mkdir(exist_ok=True)
    unpack_archive(tmp_path / "set.tgz", folder, members=MEMBERS, max_bytes=max_bytes)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("top", ["set/", "./set/", "", "./"])
def test_wanted_files_are_written_without_the_folder_around_them(tmp_path, top):
    files = {name.replace("set/", top): content for name, content in FILES.items()}
    files |= {f"{top}train/neg/1.txt": b"a", f"{top}train/neg/deep/1.txt": b"no", f"{top}._train.csv": b"no"}
    assert unpacked(tmp_path, packed(files)) == {
        "train.csv": FILES["set/train.csv"],
        "test.csv": b"1,b\n",
        "train/neg/1.txt": b"a",
    }


def test_files_get_the_modes_of_this_user_whatever_the_archive_says(tmp_path):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        made = member("set/train.csv")
        made.mode = 0o6777
        archive.addfile(made)
    unpacked(tmp_path, content.getvalue())
    assert (tmp_path / "folder" / "train.csv").stat().st_mode & 0o7111 == 0


REFUSED = {
    "a path outside": (member("../evil.csv"), "the path '../evil.csv' leads outside its folder"),
    "a path outside, in the middle": (member("set/x/../../../train.csv"), "leads outside"),
    "an absolute path": (member("/tmp/train.csv"), "'/tmp/train.csv' is an absolute path"),
    "a path outside that is not wanted": (member("set/../../notes"), "leads outside"),
    "a symbolic link": (member("set/train", tarfile.SYMTYPE, "/etc"), "'set/train' is a link or a special file"),
    "a hard link": (member("set/x", tarfile.LNKTYPE, "set/train.csv"), "is a link or a"),
    "a device": (member("set/x", tarfile.CHRTYPE), "only plain files and folders"),
    "a pipe": (member("set/x", tarfile.FIFOTYPE), "only plain files and folders"),
    "a kind that nobody knows": (member("set/x", b"Z"), "only plain files and folders"),
    "a file twice": (member("set/train.csv"), "it holds 'set/train.csv' twice"),
    "a file twice, in two folders": (member("other/train.csv"), "it holds 'other/train.csv' twice"),
    "a header of megabytes": (member("set/x", pax={"comment": "x" * (2 << 20)}), "longer than 1 MiB"),
    "a name that speaks to the terminal": (member("../\x1b[2J"), r"'../\x1b[2J'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_archive_that_holds_what_no_published_set_holds_is_refused(case, tmp_path):
    strange, message = REFUSED[case]
    with pytest.raises(CorpusFormatError) as caught:
        unpacked(tmp_path, packed(FILES, strange), max_bytes=8 << 20)
    assert "is not safe to unpack" in str(caught.value)
    assert message in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["folder", "set.tgz"]


def test_a_link_is_refused_before_anything_is_written_through_it(tmp_path):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        archive.addfile(member("set/train", tarfile.SYMTYPE, str(tmp_path)))
        made = member("set/train/neg/1.txt")
        made.size = 1
        archive.addfile(made, io.BytesIO(b"a"))
    with pytest.raises(CorpusFormatError, match="is a link"):
        unpacked(tmp_path, content.getvalue())
    assert not list((tmp_path / "folder").iterdir())


@pytest.mark.parametrize("name", ["set/train.csv", "set/unwanted"])
def test_an_archive_that_unpacks_to_more_than_it_may_is_refused(name, tmp_path):
    bomb = packed({name: bytes(3 << 20)})
    assert len(bomb) < 20_000
    with pytest.raises(CorpusFormatError, match=r"holds more than 1\.0 MB"):
        unpacked(tmp_path, bomb, max_bytes=1_000_000)
    written = tmp_path / "folder" / "train.csv"
    assert not written.exists() or written.stat().st_size <= 1_000_000


def test_many_members_are_refused_as_many_bytes_are(tmp_path):
    with pytest.raises(CorpusFormatError, match="holds more than"):
        unpacked(tmp_path, packed({f"set/{place}": b"" for place in range(3_000)}), max_bytes=1_000_000)


def test_bytes_behind_the_end_of_an_archive_count_as_well(tmp_path):
    content = gzip.compress(gzip.decompress(packed(FILES)) + bytes(3 << 20))
    with pytest.raises(CorpusFormatError, match="holds more than"):
        unpacked(tmp_path, content, max_bytes=1_000_000)


@pytest.mark.parametrize("type", [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_with_a_negative_size_does_not_send_the_reader_back(type, tmp_path):  # noqa: A002
    strange = member("set/x", type)
    strange.size = -1024
    with pytest.raises(CorpusFormatError, match="a header has a negative size"):
        unpacked(tmp_path, gzip.compress(strange.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))


GOOD = packed(FILES)


@pytest.mark.parametrize(
    "content",
    {
        "cut": GOOD[:-20],
        "cut in the middle": GOOD[: len(GOOD) // 2],
        "with a flipped checksum": GOOD[:-6] + bytes([GOOD[-6] ^ 1]) + GOOD[-5:],
        "no gzip": b"<!DOCTYPE html><p>log in first",
        "gzip of something else": gzip.compress(b"1,a\n" * 1000),
        "empty": b"",
    }.items(),
    ids=lambda item: item[0],
)
def test_a_damaged_archive_is_named(content, tmp_path):
    with pytest.raises(CorpusFormatError, match=r"set\.tgz' is damaged or not a \.tar\.gz archive"):
        unpacked(tmp_path, content[1])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_bytes_are_changed_in_headers_nothing_but_wanted_files_comes_out(data, tmp_path_factory):
    plain = bytearray(gzip.decompress(packed(FILES, member("set/x", pax={"path": "set/train/neg/1.txt"}))))
    for _ in range(data.draw(st.integers(1, 6))):
        plain[data.draw(st.integers(0, len(plain) - 1))] = data.draw(st.sampled_from([*b"\0/.05x=\n", 255, 128]))
    if data.draw(st.booleans()):  # make the headers' own checksums right, so that they are looked at
        for start in range(0, len(plain), tarfile.BLOCKSIZE):
            block = plain[start : start + tarfile.BLOCKSIZE]
            if block[257:262] == b"ustar":
                total = 256 + sum(block[:148]) + sum(block[156:])
                plain[start + 148 : start + 156] = b"%06o\0 " % total
    folder = tmp_path_factory.mktemp("fuzz")
    try:
        files = unpacked(folder, gzip.compress(bytes(plain), 1))
    except CorpusFormatError:
        files = {}
    assert all(name in ("train.csv", "test.csv") or name.startswith("train/") for name in files)
    assert sorted(os.listdir(folder)) == ["folder", "set.tgz"]

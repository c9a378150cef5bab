"""A published set is fetched whole and as it was published, or nothing of it is there; `build` reads it as it is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.disk import small_disk
from support.published import Files, Site, files_of, in_small, packed, rows_of, serving
from support.sampled import sampled

from shardtrain.cli.fetch import fetch_and_show
from shardtrain.cli.main import main
from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.options import CorpusOptions
from shardtrain.corpus.published import DATASETS, RECORD, Dataset
from shardtrain.corpus.readers import plan_units, read_unit
from shardtrain.corpus.source import Source
from shardtrain.datasets.fetch import fetch, find_dataset
from shardtrain.datasets.options import FetchOptions
from shardtrain.errors import (
    CorpusExistsError,
    CorpusFormatError,
    CorpusNotFoundError,
    DiskFullError,
    DownloadError,
    UsageError,
)
from shardtrain.runtime.locks import locked_folder

BY_NAME = {dataset.name: dataset for dataset in DATASETS}
Change = Callable[[Files], None]


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        yield site


@pytest.fixture
def out(tmp_path) -> Path:
    """A folder to be made, in one of its own."""
    return tmp_path / "data" / "set"


def published(site: Site, name: str, change: Change | None = None, *others: tarfile.TarInfo) -> Dataset:
    """Put a set in small on the server; `change` changes what is in its archive."""
    files = files_of(BY_NAME[name])
    if change is not None:
        change(files)
    content = packed(files, *others)
    dataset = in_small(BY_NAME[name], site.url, content)
    site.files[dataset.archive.file_name] = content
    return dataset


def read(source: Source) -> list[tuple[str, str]]:
    units = plan_units(source, unit_bytes=1 << 20, advance=lambda num_bytes: None)
    documents = [read_unit(source, unit) for unit in units]
    return [row for found in documents for row in zip(found.labels, found.texts, strict=True)]


def expected(dataset: Dataset, split: str) -> list[tuple[str, str]]:
    rows = [(label, ", ".join(texts)) for label, texts in rows_of(dataset, split)]
    return (
        [(label, text.replace("\\n", "\n").replace('\\"', '"')) for label, text in rows] if dataset.unescape else rows
    )


def left(out: Path) -> list[str]:
    """Everything below the folder in which `out` is to be made."""
    return sorted(str(path.relative_to(out.parent)) for path in out.parent.rglob("*")) if out.parent.is_dir() else []


# What was published comes out.


@pytest.mark.parametrize("name", BY_NAME)
def test_every_set_is_read_as_it_was_published(name, site, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    dataset = published(site, name)
    fetch_and_show(dataset, FetchOptions())
    shown = capsys.readouterr()
    for words in (dataset.licence, dataset.citation, f"in {dataset.num_classes} classes", "MB"):
        assert words in shown.err
    assert shown.out.endswith(f"data/{name}; next: python -m shardtrain build data/{name}\n")
    assert os.listdir("data") == [name]
    corpus = open_corpus(Path("data", name), CorpusOptions(), scratch=tmp_path)
    assert corpus.test is not None
    for split, source in (("train", corpus.train), ("test", corpus.test)):
        assert sorted(read(source)) == sorted(expected(dataset, split))
    assert corpus.class_names == (dataset.class_names or None)


@pytest.mark.parametrize("name", ["dbpedia", "imdb"])
def test_a_set_is_built_as_it_is(name, site, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fetch_and_show(published(site, name), FetchOptions())
    assert main(["build", f"data/{name}", "--out", "shards"]) == 0
    dataset = BY_NAME[name]
    assert f"of {dataset.num_classes} classes" in capsys.readouterr().out
    assert not list(tmp_path.rglob(".*.fetching"))


def test_a_set_in_a_folder_of_any_name_is_recognised(site, out, tmp_path):
    dataset = published(site, "yelp_full")
    fetch(dataset, out)
    corpus = open_corpus(out, CorpusOptions(), scratch=tmp_path)
    assert read(corpus.train) == expected(dataset, "train")
    assert any("Yelp Review Full recognised" in note for note in corpus.notes)


def test_only_what_is_read_is_unpacked_and_where_it_is_from_is_recorded(site, out):
    dataset = published(site, "imdb")
    fetch(dataset, out)
    assert sorted(path.name for path in out.iterdir()) == [RECORD, "README", "test", "train"]
    assert sorted(path.name for path in (out / "train").iterdir()) == ["neg", "pos"]
    record = json.loads((out / RECORD).read_bytes())
    assert record["name"] == "imdb"
    assert record["origin"] == dataset.archive.url
    assert record["archive"] == dataset.archive.checksum
    assert record["training_rows"] == dataset.num_train


# What was not published leaves nothing.


def without(name: str) -> Change:
    return lambda files: [files.pop(path) for path in list(files) if path.endswith(name)] and None


def edited(name: str, edit: Callable[[list[bytes]], list[bytes]]) -> Change:
    def change(files: Files) -> None:
        path = next(path for path in files if path.endswith("/" + name))
        files[path] = b"".join(edit(files[path].splitlines(keepends=True)))

    return change


def member(name: str, type: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:  # noqa: A002
    made = tarfile.TarInfo(name)
    made.type, made.linkname = type, link
    return made


CHANGED: dict[str, tuple[str, Callable[[list[bytes]], list[bytes]], str]] = {
    "a training row too few": ("train.csv", lambda rows: rows[:-1], "55 training rows of 14 classes, expected 56"),
    "a training row too many": ("train.csv", lambda rows: [*rows, rows[0]], "has 57 training rows"),
    "a test row too few": ("test.csv", lambda rows: rows[1:], "has 27 test rows of 14 classes, expected 28"),
    "a class too few": ("train.csv", lambda rows: [*rows[:-4], *rows[:4]], "56 training rows of 13 classes"),
    "a class too many": ("test.csv", lambda rows: [*rows[:-1], b'"15","a","b"\n'], "28 test rows of 15 classes"),
    "other classes": ("test.csv", lambda rows: [row.replace(b'"14",', b'"15",') for row in rows], "classes.txt differ"),
    "a class name too few": ("classes.txt", lambda rows: rows[1:], r"classes\.txt differ"),
    "rows that are no rows": ("train.csv", lambda rows: [b"\x89HDF\r\n\x1a\n"], "cannot be read .* an HDF5 file"),
    "far more than was published": ("readme.txt", lambda rows: [bytes(3 << 20)], "holds more than 2.1 MB, far more"),
}
WRONG: dict[str, tuple[Change | None, tuple[tarfile.TarInfo, ...], str]] = {
    **{case: (edited(name, edit), (), message) for case, (name, edit, message) in CHANGED.items()},
    "no test rows": (without("test.csv"), (), "has no test rows; expected files: train.csv, test.csv"),
    "no rows": (without(".csv"), (), "has no train and no test rows"),
    "a path outside its folder": (None, (member("../../evil.csv"),), "leads outside its folder"),
    "an absolute path": (None, (member("/evil.csv"),), "is an absolute path"),
    "a link": (None, (member("dbpedia_csv/x", tarfile.SYMTYPE, "/etc"),), "is a link or a special file"),
    "a device": (None, (member("dbpedia_csv/x", tarfile.BLKTYPE),), "only plain files and folders"),
}


@pytest.mark.parametrize("origin", ["a server", "a file"])
@pytest.mark.parametrize("case", WRONG)
def test_an_archive_that_is_not_what_was_published_leaves_nothing(case, origin, site, out, tmp_path, capsys):
    change, others, message = WRONG[case]
    dataset = published(site, "dbpedia", change, *others)
    file = tmp_path / "brought.tgz"
    file.write_bytes(site.files["dbpedia_csv.tgz"])
    with pytest.raises(CorpusFormatError, match=message):
        fetch(dataset, out, file=None if origin == "a server" else file)
    assert left(out) == []
    assert sorted(os.listdir(tmp_path)) == ["brought.tgz", "data"]
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", BY_NAME)
def test_an_archive_with_another_checksum_ends_the_command_with_one_line_and_leaves_nothing(
    name, site, out, tmp_path, capsys
):
    """The sets as the command knows them, so that no archive of this test is theirs."""
    dataset = published(site, name)
    assert main(["fetch", name, "--out", str(out), "--mirror", site.url]) == 1
    err = capsys.readouterr().err
    message = err[err.index("error: ") :]
    assert len(message.splitlines()) == 1
    assert BY_NAME[name].archive.checksum in message
    assert f"expected {BY_NAME[name].archive.checksum} and {BY_NAME[name].archive.num_bytes:,}" in message
    assert left(out) == []
    assert site.asked[0]["path"] == f"/{dataset.archive.file_name}"


def test_an_archive_without_a_known_checksum_is_held_against_its_rows(site, out):
    dataset = published(site, "dbpedia")
    fetch(replace(dataset, archive=replace(dataset.archive, checksum="", also=())), out)
    record = json.loads((out / RECORD).read_bytes())
    assert record["archive"] == f"sha256:{hashlib.sha256(site.files['dbpedia_csv.tgz']).hexdigest()}"


def test_rows_that_cannot_be_read_are_counted_and_said(site, out, capsys):
    dataset = published(site, "dbpedia", edited("train.csv", lambda rows: [*rows[:-1], b'"14","a"b","c"\n']))
    fetch(dataset, out)
    assert "1 training rows cannot be read; `build` skips them with --on-bad-row skip" in capsys.readouterr().err


# Downloads that do not end.


def test_a_broken_download_keeps_what_has_arrived_and_goes_on(site, out):
    dataset = published(site, "dbpedia")
    size = len(site.files["dbpedia_csv.tgz"])
    site.cuts = [size // 2]
    with pytest.raises(DownloadError, match=r"run the same command to resume; get dbpedia_csv.tgz from another server"):
        fetch(dataset, out)
    assert left(out) == [
        ".set.fetching",
        ".set.fetching/dbpedia_csv.tgz.download",
        ".set.fetching/dbpedia_csv.tgz.partial",
        ".set.fetching/job.json",
    ]
    fetch(dataset, out)
    assert [asked.get("Range") for asked in site.asked] == [None, f"bytes={size // 2}-"]
    assert os.listdir(out.parent) == ["set"]


def test_an_archive_that_was_replaced_on_the_server_is_not_joined(site, out):
    dataset = published(site, "ag_news")
    site.cuts = [len(site.files["ag_news_csv.tgz"]) // 2]
    with pytest.raises(DownloadError):
        fetch(dataset, out)
    newer = published(site, "ag_news", lambda files: files.update({"ag_news_csv/readme.txt": os.urandom(5000)}))
    assert newer.archive.checksum != dataset.archive.checksum
    fetch(newer, out)
    assert len((out / "readme.txt").read_bytes()) == 5000


def test_an_archive_that_was_replaced_on_a_server_without_etags_is_refused_once(site, out):
    """Whether the kept bytes belong to the new archive is decided by its checksum."""
    dataset = published(site, "ag_news")
    site.tags, site.cuts = False, [100]
    with pytest.raises(DownloadError, match="100 bytes are kept"):
        fetch(dataset, out)
    newer = published(site, "ag_news", lambda files: files.update({"a.txt": os.urandom(5000)}))
    first = site.files["ag_news_csv.tgz"]
    assert first[:100] != (out.parent / ".set.fetching" / "ag_news_csv.tgz.partial").read_bytes()
    with pytest.raises(CorpusFormatError, match="is not what was published"):
        fetch(newer, out)
    assert left(out) == []
    fetch(newer, out)


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_without_the_archive_leaves_nothing(status, site, out):
    dataset = published(site, "dbpedia")
    site.status = status
    with pytest.raises(DownloadError, match=f"status {status}.*use a local copy with file FILE"):
        fetch(dataset, out)
    assert left(out) == []


INTERRUPTED = """
import json, sys
from dataclasses import replace
from pathlib import Path
from shardtrain.cli import main as cli
from shardtrain.cli.command import Command
from shardtrain.cli.fetch import fetch_and_show
from shardtrain.datasets.fetch import find_dataset
from shardtrain.datasets.options import FetchOptions
dataset = find_dataset("ag_news")
archive = replace(dataset.archive, **json.loads(sys.argv[1]))
dataset = replace(dataset, archive=archive, num_train=16, num_test=8)
def run(args):
    fetch_and_show(dataset, FetchOptions(out=Path(sys.argv[2])))
    return 0
cli.COMMANDS = (Command(name="try", help="", description="", run=run, examples="try"),)
sys.exit(cli.main(["try"]))
"""


@pytest.mark.parametrize("number", sampled([signal.SIGINT, signal.SIGTERM]))
def test_an_interrupted_download_says_how_to_go_on_and_does(number, site, out):
    """A real process, stopped while the server holds back the second half."""
    dataset = published(site, "ag_news")
    half = len(site.files["ag_news_csv.tgz"]) // 2
    site.cuts, site.hold = [half], threading.Event()
    values = {key: getattr(dataset.archive, key) for key in ("url", "num_bytes", "checksum", "unpacked_bytes")}
    command = [sys.executable, "-c", INTERRUPTED, json.dumps(values), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    partial = out.parent / ".set.fetching" / "ag_news_csv.tgz.partial"
    while not partial.is_file() or partial.stat().st_size < half:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate()
    site.hold.set()
    assert process.returncode == 130
    (said,) = (line for line in err.splitlines() if line.startswith("interrupted"))  # not a second one, without news
    assert said.startswith("interrupted; the same command resumes the fetch")
    assert "Traceback" not in err
    fetch(dataset, out)
    assert site.asked[-1]["Range"] == f"bytes={half}-"
    assert os.listdir(out.parent) == ["set"]


def test_what_a_killed_fetch_left_half_unpacked_is_swept(site, out):
    dataset = published(site, "dbpedia")
    leftover = out.parent / ".set.fetching" / "unpacked" / "train.csv"
    leftover.parent.mkdir(parents=True)
    (leftover.parent.parent / "job.json").write_text("{}")
    leftover.write_text("half")
    fetch(dataset, out)
    assert os.listdir(out.parent) == ["set"]
    assert sorted(os.listdir(out)) == [RECORD, "classes.txt", "readme.txt", "test.csv", "train.csv"]


def test_two_do_not_fetch_to_one_folder(site, out):
    dataset = published(site, "dbpedia")
    working = out.parent / ".set.fetching"
    working.mkdir(parents=True)
    with locked_folder(working), pytest.raises(CorpusExistsError, match=r"another fetch is running in"):
        fetch(dataset, out)
    assert site.asked == []
    fetch(dataset, out)


# Archives from elsewhere.


def test_a_file_that_was_brought_by_hand_is_used_and_stays(site, out, tmp_path):
    dataset = published(site, "imdb")
    file = tmp_path / "some name.tar.gz"
    file.write_bytes(site.files["aclImdb_v1.tar.gz"])
    fetch(dataset, out, file=file)
    assert site.asked == []
    assert file.read_bytes() == site.files["aclImdb_v1.tar.gz"]
    assert json.loads((out / RECORD).read_bytes())["origin"] == "some name.tar.gz"
    assert os.listdir(out.parent) == ["set"]


def test_another_archive_of_the_same_set_is_as_good(site, out, tmp_path):
    dataset = published(site, "dbpedia")
    file = tmp_path / "dbpedia_csv.tar.gz"
    file.write_bytes(packed(files_of(dataset) | {"dbpedia_csv/readme.txt": b"of the authors"}))
    with pytest.raises(CorpusFormatError, match="is not what was published as DBPedia: its checksum is sha256:"):
        fetch(dataset, out, file=file)
    also = (f"md5:{hashlib.md5(file.read_bytes()).hexdigest()}",)
    fetch(replace(dataset, archive=replace(dataset.archive, also=also)), out, file=file)
    assert json.loads((out / RECORD).read_bytes())["archive"] == also[0]


@pytest.mark.parametrize("address", ["{}/sets", "{}/sets/", "{}/sets/dbpedia_csv.tgz"])
def test_a_mirror_is_the_address_of_a_folder_or_of_the_archive(address, site, out):
    dataset = published(site, "dbpedia")
    site.files = {"sets/dbpedia_csv.tgz": site.files["dbpedia_csv.tgz"]}
    fetch(dataset, out, mirror=address.format(site.url))
    assert (out / "train.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mirror": "ftp://host/x"}, UsageError, "not a URL of a server; expected http"),
        ({"mirror": "/data/x"}, UsageError, "not a URL of a server"),
        ({"mirror": "http://host", "file": __file__}, UsageError, "give one of them"),
        (
            {"file": "nowhere.tgz"},
            CorpusNotFoundError,
            "there is no file 'nowhere.tgz'; give the path of ag_news_csv.tgz",
        ),
        ({"file": "/"}, CorpusNotFoundError, "there is no file '/'"),
    ],
)
def test_an_origin_that_cannot_be_is_refused_before_anything_is_made(arguments, error, message, out):
    with pytest.raises(error, match=message):
        fetch(BY_NAME["ag_news"], out, **arguments)
    assert not out.parent.exists()


# The output folder.


def test_a_set_that_is_there_is_not_fetched_again(site, out, capsys):
    dataset = published(site, "dbpedia")
    fetch_and_show(dataset, FetchOptions(out=out))
    fetch_and_show(dataset, FetchOptions(out=out))
    assert "already there: 56 training and 28 test documents" in capsys.readouterr().out
    assert len(site.asked) == 1


def test_a_set_that_was_changed_is_refused_and_replaced_only_with_overwrite(site, out):
    dataset = published(site, "dbpedia")
    fetch(dataset, out)
    with open(out / "train.csv", "a") as file:
        file.write("more")
    with pytest.raises(CorpusExistsError, match=r"was changed after it was fetched: .* overwrite"):
        fetch(dataset, out)
    assert fetch(dataset, out, overwrite=True).already_fetched is False
    assert not (out / "train.csv").read_bytes().endswith(b"more")
    assert os.listdir(out.parent) == ["set"]


def test_a_set_stays_if_what_was_to_replace_it_is_not_what_was_published(site, out):
    fetch(published(site, "dbpedia"), out)
    before = {path: path.read_bytes() for path in out.iterdir()}
    wrong = published(site, "dbpedia", edited("train.csv", lambda rows: rows[1:]))
    with pytest.raises(CorpusFormatError):
        fetch(wrong, out, overwrite=True)
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert os.listdir(out.parent) == ["set"]


def test_a_set_that_was_moved_aside_by_a_killed_fetch_comes_back(site, out):
    fetch(published(site, "dbpedia"), out)
    (out.parent / ".set.fetching").mkdir()
    (out.parent / ".set.fetching" / "job.json").write_text("{}")
    shutil.move(out, out.parent / ".set.fetching" / "replaced")
    site.status = 500
    with pytest.raises(DownloadError):
        fetch(published(site, "dbpedia"), out)
    assert (out / "train.csv").is_file()
    assert os.listdir(out.parent) == ["set"]


def test_what_others_put_into_the_folder_is_never_touched(site, out):
    dataset, other = published(site, "dbpedia"), published(site, "ag_news")
    out.mkdir(parents=True)
    fetch(dataset, out)  # into an empty folder
    with pytest.raises(CorpusExistsError, match="holds DBPedia; choose another out, or replace it with overwrite"):
        fetch(other, out)
    mine = out.parent / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(CorpusExistsError, match=r"holds other files \(thesis.txt\); choose another out"):
            fetch(dataset, mine, overwrite=overwrite)
        with pytest.raises(CorpusExistsError, match="is a file; choose another"):
            fetch(dataset, mine / "thesis.txt", overwrite=overwrite)
    assert (mine / "thesis.txt").read_text() == "mine"


def test_what_is_put_into_the_folder_while_it_is_fetched_stays(site, out):
    dataset = published(site, "dbpedia")
    out.mkdir(parents=True)
    site.meanwhile = lambda: (out / "thesis.txt").write_text("mine")
    with pytest.raises(CorpusExistsError, match=r"holds other files \(thesis.txt\)"):
        fetch(dataset, out)
    assert [name for name in left(out) if not name.startswith(".set.fetching")] == ["set", "set/thesis.txt"]
    (out / "thesis.txt").unlink()
    asked = len(site.asked)
    fetch(dataset, out)  # the download is kept
    assert len(site.asked) == asked


# The disk.


def test_a_disk_without_room_is_said_before_anything_is_asked_for(site, out):
    dataset = published(site, "dbpedia")
    large = replace(dataset, archive=replace(dataset.archive, unpacked_bytes=1 << 60))
    with pytest.raises(DiskFullError, match=r"DBPedia needs about 1,152,921,504\.61 GB more, the disk of"):
        fetch(large, out)
    assert site.asked == []
    assert left(out) == []


def test_a_disk_that_fills_up_while_it_is_downloaded_keeps_what_has_arrived(site, tmp_path):
    dataset = published(site, "dbpedia", lambda files: files.update({"dbpedia_csv/readme.txt": os.urandom(1 << 20)}))
    dataset = replace(dataset, archive=replace(dataset.archive, num_bytes=len(site.files["dbpedia_csv.tgz"]) * 6 // 10))
    dataset = replace(dataset, archive=replace(dataset.archive, unpacked_bytes=1000))
    with small_disk(tmp_path / "disk", 700_000) as disk:
        with pytest.raises(DiskFullError, match="received bytes are kept: free some space and run the same command"):
            fetch(dataset, disk / "set")
        assert not (disk / "set").exists()
        shutil.copytree(disk, tmp_path / "larger")
    working = tmp_path / "larger" / ".set.fetching"
    assert (working / "dbpedia_csv.tgz.partial").stat().st_size > 500_000


def test_a_disk_that_fills_up_while_it_is_unpacked_keeps_the_archive_only(site, tmp_path):
    dataset = published(site, "dbpedia", lambda files: files.update({"dbpedia_csv/readme.txt": bytes(1 << 20)}))
    dataset = replace(dataset, archive=replace(dataset.archive, unpacked_bytes=600_000))
    with small_disk(tmp_path / "disk", 700_000) as disk:
        with pytest.raises(DiskFullError, match="nothing half-unpacked was kept"):
            fetch(dataset, disk / "set")
        assert [path.name for path in (disk / ".set.fetching").iterdir()].count("dbpedia_csv.tgz") == 1
        assert not (disk / ".set.fetching" / "unpacked").exists()
        assert not (disk / "set").exists()


# The command and its table.


def test_the_list_shows_every_set(capsys):
    assert main(["fetch", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == sorted(BY_NAME)
    assert main(["fetch", "--list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {dataset["name"]: dataset["archive"]["url"] for dataset in found} == {
        name: dataset.archive.url for name, dataset in BY_NAME.items()
    }
    assert all(dataset["licence"] and dataset["citation"] for dataset in found)


def test_what_was_fetched_is_told_as_json(site, out, capsys):
    fetch_and_show(published(site, "ag_news"), FetchOptions(out=out), as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert (found["name"], found["training_rows"], found["folder"]) == ("ag_news", 16, str(out))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the name of a set is missing"),
        (["wikipedia"], "no published set is called 'wikipedia'; choose one of ag_news, amazon_full"),
        (["--list", "--out", "x"], "--list shows all sets and takes no --out"),
        (["dbpedia", "--list"], "takes no NAME"),
    ],
)
def test_a_command_that_says_too_little_or_too_much_is_a_usage_error(arguments, message, capsys):
    assert main(["fetch", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_set_is_found_by_its_other_names_too():
    assert find_dataset("yelp_review_full_csv") is BY_NAME["yelp_full"]
    assert find_dataset("aclImdb") is BY_NAME["imdb"]


def test_the_table_says_what_a_checksum_is_and_encrypts_every_download():
    lengths = {"sha256": 64, "md5": 32}
    checksums = []
    for dataset in DATASETS:
        assert dataset.archive.url.startswith("https://")
        assert dataset.archive.num_bytes < dataset.archive.unpacked_bytes
        for checksum in (dataset.archive.checksum, *dataset.archive.also):
            kind, _, digest = checksum.partition(":")
            assert len(bytes.fromhex(digest)) * 2 == lengths[kind]
            checksums.append(checksum)
    assert len(set(checksums)) == len(checksums)


def test_the_documents_list_is_the_table():
    text = (Path(__file__).resolve().parents[2] / "docs" / "corpora.md").read_text(encoding="utf-8")
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in text.splitlines() if "MB |" in line]
    assert rows == [
        (
            dataset.name,
            f"{dataset.num_train:,} + {dataset.num_test:,}",
            str(dataset.num_classes),
            f"{dataset.archive.num_bytes / 1e6:,.1f} MB",
            f"{dataset.archive.unpacked_bytes / 1e6:,.0f} MB",
            dataset.licence,
        )
        for dataset in DATASETS
    ]

"""Fetch a published set: download its archive, compare its checksum, unpack it, count its rows, and only then show it.

All of it is made in a working folder beside the output folder, which appears by one rename. After a broken connection
or Ctrl-C the working folder keeps what was downloaded; after an archive that is not what was published nothing is
kept. Rows are counted by the reader that `build` uses, so what is accepted here can be built.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.published import DATASETS, RECORD, Archive, Dataset, recognise, recorded
from shardtrain.corpus.readers import plan_units, read_unit
from shardtrain.corpus.source import ReadOptions, Source
from shardtrain.corpus.unpack import unpack_archive
from shardtrain.datasets.download import download, kept_bytes
from shardtrain.errors import (
    CorpusError,
    CorpusExistsError,
    CorpusFormatError,
    CorpusNotFoundError,
    DiskFullError,
    DownloadError,
    UsageError,
)
from shardtrain.runtime.atomic import commit_folder, commit_json, locked_folder
from shardtrain.runtime.progress import Pass, progress, say
from shardtrain.version import __version__

_UNIT_BYTES = 4 << 20  # as `build` reads
_PIECE = 4 << 20
_SLACK = 2  # how many times larger than published an archive and its content may be
_STAGED, _REPLACED = "unpacked", "replaced"  # folders in the working folder


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A published set on this disk.

    Attributes:
        dataset: which one.
        folder: where it is.
        num_bytes: of its files.
        was_there: whether an earlier `fetch` made it.
    """

    dataset: Dataset
    folder: Path
    num_bytes: int
    was_there: bool


def find_dataset(name: str) -> Dataset:
    """Give the published set of a name, or of another name that its folder is known by.

    Raises:
        UsageError: there is none.
    """
    dataset = recognise(name, None)
    if dataset is None:
        known = ", ".join(dataset.name for dataset in DATASETS)
        raise UsageError(f"no published set is called '{name}'; there are {known}")
    return dataset


def fetch(
    dataset: Dataset, out: Path | str, *, file: Path | str | None = None, mirror: str | None = None,
    overwrite: bool = False,
) -> Fetched:  # fmt: skip
    """Make `out` a folder with a published set that `build` reads as it is.

    Args:
        dataset: what to fetch; see `find_dataset`.
        out: the folder; made, or empty. If it holds the set already, nothing is done.
        file: the archive, brought by hand, instead of a download; it stays as it is.
        mirror: address of another server's folder with the archive, or of the archive.
        overwrite: replace a published set that was fetched to `out` before.

    Raises:
        CorpusExistsError: `out` holds something else, or another process fetches to it.
        CorpusNotFoundError: `file` is not there.
        CorpusFormatError: the archive is not what was published: its checksum, its paths, its rows or classes.
        DownloadError: the download failed; the same call goes on with it if anything was kept.
        DiskFullError: the disk has no room; what was downloaded is kept.
        UsageError: `mirror` is no address, or given with `file`.
    """
    out, url = Path(out), _address(dataset.archive, mirror)
    if file is not None and mirror is not None:
        raise UsageError("a file and a mirror are two origins of the archive; give one of them")
    if file is not None and not Path(file).is_file():
        raise CorpusNotFoundError(f"no archive at '{file}'; give the file {dataset.archive.file_name}")
    if _is_there(dataset, out, overwrite):
        return Fetched(dataset=dataset, folder=out, num_bytes=_size(out), was_there=True)
    target = out.resolve()
    with _working_folder(out, target, dataset.archive.file_name) as working:
        archive = working / dataset.archive.file_name
        _require_room(dataset, working, 0 if file is not None else dataset.archive.num_bytes - kept_bytes(archive))
        if file is None:
            _download(url, archive, dataset)
        else:
            archive = Path(file)
        checksum = _check_archive(archive, dataset)
        staged = working / _STAGED
        staged.mkdir()
        limit = _SLACK * dataset.archive.unpacked_bytes
        num_bytes = unpack_archive(archive, staged, members=dataset.archive.members, max_bytes=limit)
        _check_rows(staged, dataset, working)
        _record(staged, dataset, url if file is None else archive.name, checksum, num_bytes)
        if not _is_there(dataset, out, overwrite):  # which may have changed meanwhile
            if target.is_dir() and any(target.iterdir()):
                target.rename(working / _REPLACED)
            commit_folder(staged, target)
    return Fetched(dataset=dataset, folder=out, num_bytes=num_bytes, was_there=False)


def _address(archive: Archive, mirror: str | None) -> str:
    """Where the archive is downloaded from; a mirror may name the folder or the file."""
    if mirror is None:
        return archive.url
    if urlsplit(mirror).scheme not in ("http", "https") or not urlsplit(mirror).hostname:
        raise UsageError(f"'{mirror}' is no address of a server; expected http://… or https://…")
    named = urlsplit(mirror).path.rpartition("/")[2] == archive.file_name
    return mirror if named else f"{mirror.rstrip('/')}/{archive.file_name}"


def _is_there(dataset: Dataset, out: Path, overwrite: bool) -> bool:
    """Whether `out` holds the set already; refuses whatever else it holds."""
    if out.exists() and not out.is_dir():
        raise CorpusExistsError(f"'{out}' is a file; choose another --out")
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if not names:
        return False
    found = recorded(out)
    if found is None:
        raise CorpusExistsError(f"'{out}' holds other files ({', '.join(names[:3])}); choose another --out")
    if overwrite:
        return False
    if found.name != dataset.name:
        raise CorpusExistsError(f"'{out}' holds {found.title}; choose another --out, or replace it with --overwrite")
    size, expected = _size(out), json.loads((out / RECORD).read_bytes()).get("bytes")
    if size != expected:
        raise CorpusExistsError(
            f"'{out}' was changed after it was fetched: its files have {size:,} bytes, {expected:,} were written; "
            "replace it with --overwrite, or choose another --out"
        )
    return True


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != RECORD)


@contextlib.contextmanager
def _working_folder(out: Path, target: Path, archive: str) -> Iterator[Path]:
    """The folder in which `out` is made; it stays only for a download that can go on."""
    working = target.parent / f".{target.name}.fetching"
    working.mkdir(parents=True, exist_ok=True)
    with locked_folder(working) as mine:
        if not mine:
            raise CorpusExistsError(f"another fetch to '{out}' is running; wait for it or stop it")
        try:
            _clear(working, target)
            yield working
        except (KeyboardInterrupt, DownloadError, DiskFullError) as error:
            _clear(working, target)
            kept = kept_bytes(working / archive)
            if not kept:
                shutil.rmtree(working)
            elif isinstance(error, KeyboardInterrupt):
                say(f"interrupted; the same command goes on: {kept / 1e6:,.1f} MB are kept in '{working}'")
            raise
        except BaseException:
            _clear(working, target)
            shutil.rmtree(working)
            raise
        shutil.rmtree(working)


def _clear(working: Path, target: Path) -> None:
    """Remove what is half-unpacked, and move a folder back that was to be replaced and was not."""
    if (working / _REPLACED).is_dir() and not target.exists():
        (working / _REPLACED).rename(target)
    for name in (_STAGED, _REPLACED):
        if (working / name).is_dir():
            shutil.rmtree(working / name)


def _require_room(dataset: Dataset, working: Path, to_download: int) -> None:
    needed = max(to_download, 0) + dataset.archive.unpacked_bytes
    free = shutil.disk_usage(working).free
    if needed > free:
        raise DiskFullError(
            f"{dataset.title} needs about {needed / 1e6:,.0f} MB more, the disk of '{working.parent}' has "
            f"{free / 1e6:,.0f} MB: free some, or choose an --out on another disk"
        )


def _download(url: str, target: Path, dataset: Dataset) -> None:
    try:
        download(url, target, max_bytes=_SLACK * dataset.archive.num_bytes)
    except DownloadError as error:
        raise DownloadError(
            f"{error.on_command_line}; --mirror URL takes {target.name} from another server, --from FILE takes one "
            "that you have"
        ) from error


def _check_archive(path: Path, dataset: Dataset) -> str:
    """Compare an archive with the checksums that are known, and give its own."""
    known = [checksum for checksum in (dataset.archive.checksum, *dataset.archive.also) if checksum]
    kinds = sorted({checksum.partition(":")[0] for checksum in known}) or ["sha256"]
    digests = {kind: hashlib.new(kind, usedforsecurity=False) for kind in kinds}
    size = path.stat().st_size
    with open(path, "rb") as file, progress(f"check {path.name}", total=size) as done:
        while piece := file.read(_PIECE):
            for digest in digests.values():
                digest.update(piece)
            done.add(len(piece))
    found = [f"{kind}:{digest.hexdigest()}" for kind, digest in digests.items()]
    same = set(found) & set(known)
    if known and not same:
        kind = known[0].partition(":")[0]
        raise CorpusFormatError(
            f"'{path.name}' is not what was published as {dataset.title}: its checksum is "
            f"{next(checksum for checksum in found if checksum.startswith(kind))} and it has {size:,} bytes, expected "
            f"{known[0]} and {dataset.archive.num_bytes:,}; it was not used: get it again, or from elsewhere with "
            "--mirror or --from"
        )
    return min(same) if same else found[0]


def _check_rows(folder: Path, dataset: Dataset, scratch: Path) -> None:
    """Read all rows and compare their numbers, and those of the classes, with the published ones."""
    expected = {"training": dataset.num_train, "test": dataset.num_test}
    if missing := [split for split in ("train", "test") if not list(folder.glob(f"{split}*"))]:
        raise CorpusFormatError(
            f"the archive of {dataset.title} holds no {' and no '.join(missing)} rows where they should be, in "
            f"{', '.join(dataset.archive.members)}; nothing of it was kept"
        )
    try:
        corpus = open_corpus(folder, ReadOptions(on_bad_row="skip"), scratch=scratch)
        with progress("count rows", total=sum(expected.values()), unit="rows") as done:
            assert corpus.validation is not None  # there is something in test
            counted = {"training": _count(corpus.train, done), "test": _count(corpus.validation, done)}
    except CorpusError as error:
        reason = error.on_command_line
        raise CorpusFormatError(f"{dataset.title} cannot be read as it was unpacked: {reason}") from error
    for split, number in expected.items():
        rows, bad, labels = counted[split]
        if rows != number or len(labels) != dataset.num_classes:
            raise CorpusFormatError(
                f"what was fetched is not {dataset.title} as it was published: it has {rows:,} {split} rows of "
                f"{len(labels):,} classes, expected {number:,} of {dataset.num_classes:,}; nothing of it was kept"
            )
        if bad:
            say(f"{bad:,} {split} rows cannot be read; `build` leaves them out with --on-bad-row skip")
    names = corpus.class_names
    if counted["training"][2] != counted["test"][2] or (names is not None and len(names) != dataset.num_classes):
        raise CorpusFormatError(
            f"what was fetched is not {dataset.title} as it was published: the classes of training rows, test rows and "
            "classes.txt are not the same; nothing of it was kept"
        )


def _count(source: Source, done: Pass) -> tuple[int, int, set[str]]:
    """Rows, how many of them cannot be read, and the labels of the others."""
    rows, bad, labels = 0, 0, set()
    for unit in plan_units(source, unit_bytes=_UNIT_BYTES, advance=lambda num_bytes: None):
        documents = read_unit(source, unit)
        labels.update(documents.labels)
        bad += len(documents.bad_rows)
        rows += len(documents.labels) + len(documents.bad_rows)
        done.add(unit.num_documents)
    return rows, bad, labels


def _record(folder: Path, dataset: Dataset, origin: str, checksum: str, num_bytes: int) -> None:
    commit_json(
        folder / RECORD,
        {
            "name": dataset.name,
            "title": dataset.title,
            "training_rows": dataset.num_train,
            "test_rows": dataset.num_test,
            "classes": dataset.num_classes,
            "bytes": num_bytes,
            "origin": origin,
            "archive": checksum,
            "licence": dataset.licence,
            "citation": dataset.citation,
            "version": __version__,
        },
    )

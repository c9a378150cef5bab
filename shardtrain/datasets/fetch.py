"""Fetch a published set: download its archive, compare the checksum, unpack, count rows, then publish the folder.

Everything is made in a working folder beside the output folder, which appears by one rename. A broken or interrupted
download stays in the working folder; after an archive that differs from the published one nothing is kept. Rows are
counted by the reader that `build` uses, so a set that is accepted here can be built.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.options import CorpusOptions
from shardtrain.corpus.published import DATASETS, RECORD, Archive, Dataset, fetch_record, recognise, recorded
from shardtrain.corpus.readers import plan_units, read_unit
from shardtrain.corpus.source import Source
from shardtrain.datasets.archive import unpack_archive
from shardtrain.datasets.download import ETAG, download, kept_bytes
from shardtrain.errors import (
    CorpusError,
    CorpusExistsError,
    CorpusFormatError,
    CorpusNotFoundError,
    DiskFullError,
    DownloadError,
    UsageError,
)
from shardtrain.runtime.atomic import PARTIAL, commit_folder, commit_json
from shardtrain.runtime.jobs import Job, JobFolder
from shardtrain.runtime.locks import check_held
from shardtrain.runtime.progress import Pass, progress, say
from shardtrain.runtime.quantities import size
from shardtrain.runtime.storage import check_output_folder
from shardtrain.version import __version__

_UNIT_BYTES = 4 << 20  # as `build` reads
_PIECE = 4 << 20
_SLACK = 2  # maximum size of an archive and of its content, relative to the published sizes
_STAGED, _REPLACED = "unpacked", "replaced"  # folders in the working folder


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A published set on disk.

    Attributes:
        dataset: the set.
        folder: its folder.
        num_bytes: total size of its files.
        already_fetched: whether an earlier `fetch` made the folder.
    """

    dataset: Dataset
    folder: Path
    num_bytes: int
    already_fetched: bool


def find_dataset(name: str) -> Dataset:
    """Return the published set with this name, or with this folder name.

    Raises:
        UsageError: no set has this name.
    """
    dataset = recognise(name, None)
    if dataset is None:
        known = ", ".join(dataset.name for dataset in DATASETS)
        raise UsageError(f"no published set is called '{name}'; choose one of {known}")
    return dataset


def fetch(
    dataset: Dataset,
    out: Path | str,
    *,
    file: Path | str | None = None,
    mirror: str | None = None,
    overwrite: bool = False,
) -> Fetched:
    """Fetch a published set into the folder `out`, which `build` reads as it is.

    Args:
        dataset: the set; see `find_dataset`.
        out: the folder; created, or empty. If it holds the set already, nothing is done.
        file: use this local copy of the archive instead of a download; it is not changed.
        mirror: URL of the archive on another server, or of the folder that has it.
        overwrite: replace a published set that was fetched to `out` before.

    Raises:
        CorpusExistsError: `out` holds something else, or another process fetches to it.
        CorpusNotFoundError: `file` does not exist.
        CorpusFormatError: the archive is not the published one: its checksum, paths, rows or classes differ.
        DownloadError: the download failed; the same call resumes it if anything was kept.
        DiskFullError: the disk has no room; downloaded bytes are kept.
        UsageError: `mirror` is not a URL, or given with `file`.
    """
    out, url = Path(out), _address(dataset.archive, mirror)
    if file is not None and mirror is not None:
        raise UsageError("a file and a mirror are two sources of the archive; give one of them")
    if file is not None and not Path(file).is_file():
        raise CorpusNotFoundError(f"there is no file '{file}'; give the path of {dataset.archive.file_name}")
    if _already_fetched(dataset, out, overwrite):
        return Fetched(dataset=dataset, folder=out, num_bytes=_size(out), already_fetched=True)
    target = out.resolve()
    with _working_folder(dataset, out, target) as working:
        archive = working / dataset.archive.file_name
        _require_room(dataset, working, 0 if file is not None else dataset.archive.num_bytes - kept_bytes(archive))
        if file is None:
            _download(url, archive, dataset)
        else:
            archive = Path(file)
        staged = working / _STAGED
        staged.mkdir()
        try:
            checksum = _check_archive(archive, dataset)
            limit = _SLACK * dataset.archive.unpacked_bytes
            unpack_archive(archive, staged, members=dataset.archive.members, max_bytes=limit)
            _check_rows(staged, dataset, working)
        except CorpusFormatError:
            if file is None:  # a download that is not the published set is not kept: it would never be resumed
                archive.unlink()
                archive.with_name(archive.name + ETAG).unlink(missing_ok=True)
            raise
        num_bytes = _size(staged)
        _record(staged, dataset, url if file is None else archive.name, checksum, num_bytes)
        if not _already_fetched(dataset, out, overwrite):  # it may have changed in the meantime
            if target.is_dir() and any(target.iterdir()):
                target.rename(working / _REPLACED)
            check_held(working)
            commit_folder(staged, target)
    return Fetched(dataset=dataset, folder=out, num_bytes=num_bytes, already_fetched=False)


def _address(archive: Archive, mirror: str | None) -> str:
    """Return the URL of the archive; a mirror may name the folder or the file."""
    if mirror is None:
        return archive.url
    if urlsplit(mirror).scheme not in ("http", "https") or not urlsplit(mirror).hostname:
        raise UsageError(f"'{mirror}' is not a URL of a server; expected http://… or https://…")
    named = urlsplit(mirror).path.rpartition("/")[2] == archive.file_name
    return mirror if named else f"{mirror.rstrip('/')}/{archive.file_name}"


def _already_fetched(dataset: Dataset, out: Path, overwrite: bool) -> bool:
    """Return whether `out` holds the set already; raise CorpusExistsError if it holds anything else."""
    check_output_folder(out, "--out", CorpusExistsError)
    names = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if not names:
        return False
    found, record = recorded(out), fetch_record(out)
    if found is None or record is None:
        raise CorpusExistsError(f"'{out}' holds other files ({', '.join(names[:3])}); choose another --out")
    if overwrite:
        return False
    if found.name != dataset.name:
        raise CorpusExistsError(f"'{out}' holds {found.title}; choose another --out, or replace it with --overwrite")
    size, expected = _size(out), record["bytes"]
    if size != expected:
        raise CorpusExistsError(
            f"'{out}' was changed after it was fetched: its files have {size:,} bytes, {expected:,} were written; "
            "replace it with --overwrite, or choose another --out"
        )
    return True


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != RECORD)


@contextlib.contextmanager
def _working_folder(dataset: Dataset, out: Path, target: Path) -> Iterator[Path]:
    """Hold the working folder; without a download that can be resumed it is removed."""
    archive = dataset.archive.file_name
    folder = JobFolder(
        path=target.parent / f".{target.name}.fetching",
        owner=out,
        noun="fetch",
        error=CorpusExistsError,
        missing=CorpusNotFoundError,
        kept=frozenset({archive, archive + PARTIAL, archive + ETAG}),
    )
    with folder.made_and_held():
        _clear(folder.path, target)
        try:
            with folder.work(Job(record={"options": {"set": dataset.name}}), overwrite=True):
                try:
                    yield folder.path
                finally:
                    _clear(folder.path, target)
        finally:
            if not kept_bytes(folder.path / archive):
                folder.clear()


def _clear(working: Path, target: Path) -> None:
    """Remove half-unpacked files, and move back a folder that was set aside but not replaced."""
    check_held(working)
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
            f"{dataset.title} needs about {size(needed)} more, the disk of '{working.parent}' has "
            f"{size(free)}: free some, or choose an --out on another disk"
        )


def _download(url: str, target: Path, dataset: Dataset) -> None:
    try:
        download(url, target, max_bytes=_SLACK * dataset.archive.num_bytes)
    except DownloadError as error:
        raise DownloadError(
            f"{error.on_command_line}; get {target.name} from another server with --mirror URL, or use a local copy "
            "with --from FILE"
        ) from error


def _check_archive(path: Path, dataset: Dataset) -> str:
    """Compare an archive with the known checksums; return its own."""
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
            f"{known[0]} and {dataset.archive.num_bytes:,}; it was not used: download it again, or from elsewhere "
            "with --mirror or --from"
        )
    return min(same) if same else found[0]


def _check_rows(folder: Path, dataset: Dataset, scratch: Path) -> None:
    """Read all rows and compare the numbers of rows and classes with the published ones."""
    expected = {"training": dataset.num_train, "test": dataset.num_test}
    if missing := [split for split in ("train", "test") if not list(folder.glob(f"{split}*"))]:
        raise CorpusFormatError(
            f"the archive of {dataset.title} has no {' and no '.join(missing)} rows; expected files: "
            f"{', '.join(dataset.archive.members)}; nothing was kept"
        )
    try:
        corpus = open_corpus(folder, CorpusOptions(on_bad_row="skip"), scratch=scratch)
        with progress("count rows", total=sum(expected.values()), unit="rows") as done:
            assert corpus.test is not None  # files of the test split exist, as checked above
            counted = {"training": _count(corpus.train, done), "test": _count(corpus.test, done)}
    except CorpusError as error:
        reason = error.on_command_line
        raise CorpusFormatError(f"{dataset.title} cannot be read after unpacking: {reason}") from error
    for split, number in expected.items():
        rows, bad, labels = counted[split]
        if rows != number or len(labels) != dataset.num_classes:
            raise CorpusFormatError(
                f"the archive is not {dataset.title} as it was published: it has {rows:,} {split} rows of "
                f"{len(labels):,} classes, expected {number:,} of {dataset.num_classes:,}; nothing was kept"
            )
        if bad:
            say(f"{bad:,} {split} rows cannot be read; `build` skips them with --on-bad-row skip")
    names = corpus.class_names
    if counted["training"][2] != counted["test"][2] or (names is not None and len(names) != dataset.num_classes):
        raise CorpusFormatError(
            f"the archive is not {dataset.title} as it was published: the classes of training rows, test rows and "
            "classes.txt differ; nothing was kept"
        )


def _count(source: Source, done: Pass) -> tuple[int, int, set[str]]:
    """Count rows and unreadable rows, and collect the labels of the readable ones."""
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

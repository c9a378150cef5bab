"""Resume interrupted work in a folder: identify the job, compare it with the recorded one, and resume or refuse.

A job is what decides a result, as JSON values: options, inputs, program. Its record lies in the folder in which the
result is made. The same job is resumed, another one is refused with the first difference named, and
`overwrite` discards it. One process at a time holds a folder (see `runtime.locks`). Scratch files are trusted only in
the store in which they were made (see `runtime.store`): on a disk, until the machine restarts.

Finished work is removed by success and by `overwrite` only, whatever ends a job. A job that its own input made fail
would fail again, so another job may take its folder without being asked.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shardtrain.errors import NoRoomError, ScratchError, ShardtrainError, StorageError, TakenOverError, WorkerDiedError
from shardtrain.options import flag
from shardtrain.runtime.atomic import commit_json, final_name, make_folder, remove_partials, sync_folder
from shardtrain.runtime.checksums import checksum
from shardtrain.runtime.holders import is_lock
from shardtrain.runtime.interrupts import interrupted, say_kept
from shardtrain.runtime.leases import HeldError
from shardtrain.runtime.locks import check_held, is_held, locked_folder, remove_held
from shardtrain.runtime.progress import say, warn
from shardtrain.runtime.schema import ANYTHING, Either, Fields, Integer, Keyed, Row, Text, read_if_sound
from shardtrain.runtime.storage import reason_of, remove, storage_errors
from shardtrain.runtime.store import STORE, store_of
from shardtrain.version import __version__

RECORD = "job.json"
_REMOVED = "removed-"  # in names of folders that are being removed
_FAILED = "failed"  # key of a record: the error that ended the job, if its own input caused it
_DAMAGED = "damaged"  # key of a record: whether scratch files are, so that the job cannot be resumed
_SECTIONS = {"options", "corpus", "description", "shardtrain", STORE, "boot"}  # of a record; all else is options
Record = Mapping[str, Any]
# What `identify_files` returns: bytes, time in ns (or number of files) and checksum; of streams, bytes and checksum.
FILES = Keyed(Either((Row((Integer(), Integer(-(1 << 63)), Text())), Row((Integer(), Text())))))
JOB = Fields({"options": Keyed(ANYTHING)}, {"corpus": FILES, "shardtrain": Text()}, others=True)  # any job's record
_ENDS = 1 << 16  # bytes at a file's head and tail that identify it
_MANY_FILES = 64  # above it files are identified together


@dataclass(frozen=True, kw_only=True)
class Job:
    """What decides a result.

    Attributes:
        record: as JSON values. Options are compared first: all keys but the following, and those in `options`. Then
            `corpus` (the files that are read, see `identify_files`), `description` (of shards) and `shardtrain` (the
            program), as far as they are there.
        defaults: of options that older records may lack.
        digested: options that the digest always has; the others, which came later, count where they differ from their
            defaults, so that the digest of an older version is still that of the same job. None: all.
        ignored: options that decide nothing.
        scratch: its unfinished work is scratch files, which only the store in which they were made can be trusted in.
    """

    record: Record
    defaults: Record = field(default_factory=dict)
    digested: frozenset[str] | None = None
    ignored: frozenset[str] = frozenset()
    scratch: bool = False

    def differs_from(self, found: Record) -> str:
        """Describe the first difference from a record; empty where there is none."""
        before, now = _options_in(found), _options_in(self.record)
        for name in (each for each in now if each not in self.ignored):
            if place := first_difference(before.get(name, self.defaults.get(name)), now[name], name, lists=False):
                return f"{flag(place[0].rpartition('.')[2])} was {brief(place[1])}, it is {brief(place[2])} now"
        if "corpus" in self.record and (said := _differing_files(found.get("corpus", {}), self.record["corpus"])):
            return said
        if said := difference_in_words(found.get("description"), self.record.get("description")):
            return f"the shards are different ({said})"
        if found.get("shardtrain") != self.record.get("shardtrain"):
            return f"it was started by shardtrain {found.get('shardtrain')}, this is {self.record.get('shardtrain')}"
        return ""

    @property
    def digest(self) -> str:
        """Identity of the job, wherever it is done; as the first version had it, with a key for the machine's start."""
        record = {**self.record, "boot": None}
        if self.digested is not None:
            record["options"] = {
                name: value
                for name, value in self.record["options"].items()
                if name in self.digested or name not in self.defaults or value != self.defaults[name]
            }
        return checksum(json.dumps(record, sort_keys=True).encode())


def file_job(
    options: Record,
    files: Record,
    program: str,
    *,
    defaults: Record | None = None,
    digested: frozenset[str] | None = None,
) -> Job:
    """Make a job that reads files and makes scratch files.

    Args:
        options: by their names on the command line.
        files: as `identify_files` has them.
        program: what of the program decides the result, beside its version.
        defaults: see `Job`.
        digested: see `Job`.
    """
    record = {"shardtrain": f"{__version__}, {program}", "options": options, "corpus": files}
    return Job(record=record, defaults=defaults or {}, digested=digested, scratch=True)


def identify_files(root: Path, files: Iterable[Path]) -> dict[str, list[Any]]:
    """Return size, modification time and a checksum of the ends of each file; of very many, a summary for `root`."""
    found = list(files)
    if len(found) <= _MANY_FILES:
        return {str(file): _identity(file) for file in found}
    stats = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in found]
    return {str(root): [sum(size for _, size, _ in stats), len(stats), checksum(repr(stats).encode())]}


def _identity(path: Path) -> list[Any]:
    with open(path, "rb") as file:
        stat = os.fstat(file.fileno())
        head = file.read(_ENDS)
        file.seek(max(0, stat.st_size - _ENDS))
        return [stat.st_size, stat.st_mtime_ns, checksum(head + file.read(_ENDS))]


@dataclass(frozen=True, kw_only=True)
class JobFolder:
    """The folder in which a job is done.

    Attributes:
        path: the folder.
        owner: what messages name: the output, or the folder itself.
        noun: what is made there, such as "build".
        error: raised where the folder is another job's, is not ours, or another process holds it.
        missing: raised where an interrupted job is required and there is none.
        record_name: of the file that holds the job's record.
        kept: names of files that belong to no job.
        evidence: names of files that show that the job is finished; they are removed just before the record.
    """

    path: Path
    owner: Path
    noun: str
    error: type[ShardtrainError]
    missing: type[ShardtrainError]
    record_name: str = RECORD
    kept: frozenset[str] = frozenset()
    evidence: frozenset[str] = frozenset()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder, which must exist, for this process.

        Raises:
            ShardtrainError: another process holds it.
            TakenOverError: another process took it over while the block ran, which may be why that failed.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked_folder(self.path))
            except HeldError as held:
                whose = f" ({held.holder})" if held.holder else ""
                raise self.error(
                    f"another {self.noun} is running in '{self.owner}'{whose}; wait until it ends, or stop it"
                ) from None
            try:
                yield
            except Exception as error:
                self._check_held(error)
                raise

    def _check_held(self, error: Exception) -> None:
        """Raise TakenOverError in place of an error that comes of it."""
        try:
            check_held(self.path)
        except TakenOverError as lost:
            if lost is not error:
                raise lost from error
        except StorageError:  # the storage does not answer, as the error says
            pass

    @contextlib.contextmanager
    def made_and_held(self) -> Iterator[None]:
        """Make a folder that is for the job alone, if it is missing, claim it with a record, and hold it.

        Raises:
            ShardtrainError: what is there is not such a folder, or another process holds it.
            StorageError: it cannot be made.
        """
        self._check_ours()
        make_folder(self.path)
        with self.held():
            self._check_ours()
            if not (self.path / self.record_name).exists():
                commit_json(self.path / self.record_name, {})
            remove_partials(self.path, below=not store_of(self.path).shared)  # workers of other machines may write
            yield

    def _check_ours(self) -> None:
        """Refuse a folder that no job of this user made: files in it may be somebody's."""
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return
        what = ""
        if stat.S_ISLNK(found.st_mode):
            what = f"it is a link to '{os.readlink(self.path)}'"
        elif not stat.S_ISDIR(found.st_mode):
            what = "it is not a folder"
        elif found.st_uid != os.geteuid():
            what = "it belongs to another user"
        elif not stat.S_ISREG(_mode_of(self.path / self.record_name)):
            names = [path.name for path in self.path.iterdir()]
            others = [name for name in names if final_name(name) != self.record_name and not is_lock(name)]
            what = f"it holds '{min(others)}' and no {self.record_name}" if others else ""
        if what:
            raise self.error(
                f"'{self.path}' is needed for the {self.noun} and is not a folder that a {self.noun} made: {what}; "
                "move it away, or choose another output"
            )

    def recorded(self) -> Record | None:
        """Read the record of the job that was started here; None where there is none, or none that can be read."""
        found: Record | None = read_if_sound(self.path / self.record_name, JOB)
        return found

    def difference(self, job: Job) -> str | None:
        """Describe how the job started here differs from another: empty if it does not, None where there is none."""
        found = self.recorded()
        if found is None:
            return None
        return job.differs_from(found) or ("" if self._trusts(job, found) else "the machine was restarted")

    def _trusts(self, job: Job, found: Record) -> bool:
        """Return whether unfinished work of a job can be resumed where the folder is."""
        return not job.scratch or store_of(self.path).keeps(found)

    def _record(self, job: Job) -> Record:
        """Return the record of a job that is done here."""
        return {**job.record, STORE: store_of(self.path).identity} if job.scratch else job.record

    def begin(
        self,
        job: Job,
        *,
        overwrite: bool,
        resume: bool = False,
        found: Record | None = None,
        settled: bool = False,
        synced: bool = False,
    ) -> bool:
        """Resume a job, or start it: what another one left is discarded if it may be. Whether it was resumed.

        Args:
            job: that is to be done.
            overwrite: an interrupted job that differs is discarded.
            resume: an interrupted job is required.
            found: the record as it counts here, where that is not what the file says.
            settled: what lies here is finished and published, so it may go.
            synced: all that lies here was synced, so it can be trusted wherever it is.

        Raises:
            KeptWorkError: another job's work is here.
            ShardtrainError: there is no interrupted job, and one is required.
        """
        found = self.recorded() if found is None else found
        changed = job.differs_from(found) if found else ""
        trusted = not found or synced or self._trusts(job, found)
        damaged = bool(found and found.get(_DAMAGED))
        if found and trusted and not changed and not damaged:
            say(f"resuming the interrupted {self.noun} in '{self.owner}'")
            if _FAILED in found:
                commit_json(self.path / self.record_name, self._record(job))
            return True
        if damaged:
            say(f"files of the interrupted {self.noun} in '{self.owner}' are damaged; it starts again")
        elif not trusted:
            say(f"the machine was restarted since the {self.noun} was interrupted, or is another one; it starts again")
        elif found and not overwrite and not settled and not found.get(_FAILED):
            raise KeptWorkError(self.error(self.refusal(job, changed)))
        elif resume:
            raise self.missing(self.nothing_to_resume)
        self.discard()
        commit_json(self.path / self.record_name, self._record(job))
        return False

    def place_of(self, job: Job) -> Path:
        """Return the folder for the files of a job, inside this one.

        Workers that still run tasks of another job, which was discarded, know another folder, which is gone.
        """
        return self.path / job.digest

    def refusal(self, job: Job, changed: str) -> str:
        """Return the message for a folder that holds another job's work; `changed` is the difference."""
        discard = f"delete '{self.path}'" if job.record.get("options", {}).get("append") else "pass --overwrite"
        return (
            f"'{self.owner}' holds an interrupted {self.noun} that was started differently: {changed}; run that "
            f"command again to resume it, or {discard} to discard it"
        )

    @property
    def nothing_to_resume(self) -> str:
        """The message where an interrupted job is required and there is none."""
        return f"there is no interrupted {self.noun} in '{self.owner}'; omit --resume"

    @contextlib.contextmanager
    def work(self, job: Job, *, overwrite: bool, **how: Any) -> Iterator[bool]:
        """Work in the folder, which is held, and remove it at the end; if the block fails, finished work is kept.

        Yields whether work was resumed. `how` are other arguments of `begin`.

        Raises:
            ShardtrainError: another job's work is here, which is kept, or none where one is required.
        """
        try:
            yield self.begin(job, overwrite=overwrite, **how)
        except KeptWorkError as refused:
            raise refused.error from None
        except BaseException as error:
            self._keep_work(job, error)
            raise
        self.clear()

    def _keep_work(self, job: Job, error: BaseException) -> None:
        """Report that finished work is kept, and record a failure that the job's own input causes; never raises."""
        try:
            check_held(self.path)
        except StorageError:  # it is another process' by now, or the storage does not answer
            return
        if not self._has_work():
            self.clear()
            return
        with contextlib.suppress(Exception):
            if isinstance(error, KeyboardInterrupt) or interrupted():  # of which a library may make an error
                say_kept(
                    f"interrupted; the same command resumes the {self.noun}: finished work is kept in '{self.path}'"
                )
            elif isinstance(error, ShardtrainError) and _is_of_input(error):
                how = {_FAILED: error.on_command_line, **({_DAMAGED: True} if isinstance(error, ScratchError) else {})}
                commit_json(self.path / self.record_name, {**self._record(job), **how})

    def _has_work(self) -> bool:
        """Return whether the folder holds more than the record of the job."""
        found = (path.name for path in self.path.rglob("*") if path.is_file())
        return any(name != self.record_name and not is_lock(name) for name in found)

    def discard(self) -> None:
        """Remove what is in the folder, but what belongs to no job.

        The record is emptied first, so that no half-removed work is ever resumed.

        Raises:
            StorageError: it cannot be removed.
            TakenOverError: it is another process' by now.
        """
        check_held(self.path)
        commit_json(self.path / self.record_name, {})
        for path in self.path.iterdir():
            if path.name not in {self.record_name, *self.kept} and not is_lock(path.name):
                _remove_aside(path)

    def clear(self) -> None:
        """Remove the folder, the record last: until then it is known as ours.

        A removal that fails is tried a second time. What cannot be removed then stays, and is reported: the result does
        not depend on it. A folder that this process does not hold any more may be another one's.
        """
        try:
            check_held(self.path)
        except StorageError:
            return
        if not is_held(self.path):
            return
        try:
            try:
                self._remove()
            except OSError:
                self._remove()
        except OSError as error:
            with contextlib.suppress(Exception):
                warn(f"'{self.path}' is no longer needed and could not be removed ({reason_of(error)}); delete it")

    def _remove(self) -> None:
        """Remove the folder, or what an earlier attempt left of it.

        Raises:
            OSError: a call fails.
        """
        last = [*sorted(self.evidence), self.record_name]
        if not self.evidence and self.path.is_dir():  # nothing shows that the work is finished
            with contextlib.suppress(StorageError):
                commit_json(self.path / self.record_name, {})
        for path in self.path.iterdir() if self.path.is_dir() else ():
            if path.name not in last and not is_lock(path.name):
                _remove_aside(path)
        for name in last:
            if self.path.is_dir():  # what is gone is gone before the record, also after a power failure
                sync_folder(self.path)
            (self.path / name).unlink(missing_ok=True)
        remove_held(self.path)


def _remove_aside(path: Path) -> None:
    """Remove a file, or a folder in which tasks that nobody awaits may still make files: those find no such folder.

    Raises:
        StorageError: it cannot be removed.
    """
    if path.is_dir() and not path.is_symlink():
        with storage_errors(path, "rename"):
            aside = path.with_name(f"{_REMOVED}{secrets.token_hex(8)}")
            path = path.rename(aside)
    remove(path)


class KeptWorkError(Exception):
    """The folder holds another job's work, which stays; `error` is for the user."""

    def __init__(self, error: ShardtrainError) -> None:
        super().__init__(str(error))
        self.error = error


def _is_of_input(error: ShardtrainError) -> bool:
    """Return whether a job would fail with this error again, as nothing but its input causes it."""
    return isinstance(error, NoRoomError) or not isinstance(error, StorageError | WorkerDiedError)


def _mode_of(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except OSError:
        return 0


def _differing_files(before: Record, now: Record) -> str:
    if before and now and not before.keys() & now.keys():
        return f"it read '{min(before)}', this one reads '{min(now)}'"
    for name in sorted({*now, *before}):
        old, new = before.get(name), now.get(name)
        if old != new:
            if not old or not new:
                return f"'{name}' {'did not exist' if not old else 'existed'}, now it {'does not' if old else 'does'}"
            if old[0] != new[0]:
                return f"'{name}' had {old[0]:,} bytes, it has {new[0]:,} now"
            return f"'{name}' was changed meanwhile"
    return ""


def _options_in(record: Record) -> dict[str, Any]:
    """Return the options in a record, those beside `options` included."""
    beside = {name: value for name, value in record.items() if name not in _SECTIONS}
    return {**beside, **record.get("options", {})}


def difference_in_words(before: Any, now: Any, where: str = "") -> str:
    """Describe the first difference of two JSON values; empty where they are equal."""
    place = first_difference(before, now, where)
    return f"{place[0]} was {brief(place[1])}, it is {brief(place[2])} now" if place else ""


def first_difference(before: Any, now: Any, where: str, *, lists: bool = True) -> tuple[str, Any, Any] | None:
    """Return the first place where two JSON values differ, as a path with dots, and both values, or None.

    Args:
        before: the older one.
        now: the newer one.
        where: path of both.
        lists: whether lists of one length are compared item by item.
    """
    pairs: Iterable[tuple[Any, Any, Any]] = ()
    if isinstance(before, Mapping) and isinstance(now, Mapping) and not (_is_range(before) and _is_range(now)):
        keys = [*before, *(key for key in now if key not in before)]
        pairs = ((key, before.get(key), now.get(key)) for key in keys)
    elif lists and isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = ((number, *both) for number, both in enumerate(zip(before, now, strict=True)))
    elif before != now:
        return where, before, now
    for key, old, new in pairs:
        if found := first_difference(old, new, f"{where}.{key}" if where else str(key), lists=lists):
            return found
    return None


def _is_range(value: Any) -> bool:
    """Return whether a value is a range that `tune` searches."""
    return isinstance(value, Mapping) and value.keys() == {"low", "high"}


def brief(value: Any) -> str:
    """Format a JSON value in at most 80 characters, as the command line has it: lists as words, ranges as LOW:HIGH."""
    if value is None:
        text = "none"
    elif _is_range(value):
        text = f"{value['low']}:{value['high']}"
    elif isinstance(value, list):
        text = " ".join(map(brief, value)) or "none"
    else:
        text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."

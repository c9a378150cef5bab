"""Lose power at every point of a command: what the disk may hold then, from the order of the calls.

The model is POSIX's, which promises less than any file system in use keeps. Bytes of a file are on the disk when it
was synced after they were written; until then the file may hold what it held at its last sync, zeros, or the new bytes.
A new name, a rename and a removal are on the disk when their folder was synced after them; until then they may be there
or not, in each folder independently of the others.

States are taken before each call that changes or syncs names or contents. What lies between two such calls are writes,
which only change bytes that are not synced yet.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from support.faulted import COMMANDS, Home, differences, misworded
from support.supervised import Call

Node = int  # a file or folder, whatever its names are; a number is never used again
Entry = tuple[Node, str]  # a folder and a name in it
State = Mapping[str, str]  # by path: the checksum of a file's content, or FOLDER
FOLDER = "folder"
CHANGING = ("create", "rename", "link", "unlink", "mkdir")
SYNCING = ("fsync", "sync")


@dataclass
class Disk:
    """Follows the files below a folder through the calls of a command.

    Attributes:
        root: the folder.
        states: every state found so far, each once, with the call before which the power failed first.
        contents: by checksum.
        loaded: "before" and "after" the command, checksums of what a user loads; empty where nothing can be loaded.
    """

    root: Path
    states: dict[frozenset[tuple[str, str]], str] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    loaded: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._numbers: dict[int, Node] = {}  # of the inodes that are there
        self._next = 1
        self._folders: set[Node] = set()
        self._entries: dict[Entry, Node] = {}
        self._held: dict[Node, str] = {}  # what files hold now, as checksums
        self._pending: list[dict[Entry, Node | None]] = []  # changes of names that may not be on the disk
        self._look()
        self._pending = []
        self._kept = dict(self._entries)  # names and contents that are on the disk
        self._synced = dict(self._held)
        self._paths: dict[frozenset[tuple[Entry, Node]], list[tuple[str, Node]]] = {}  # of names, what is reached
        self._noted: tuple[dict[Node, str], dict[Node, str]] = {}, {}  # what files held when names were last noted
        self._seen: set[frozenset[tuple[Entry, Node]]] = set()  # names noted since

    def watch(self, call: Call) -> None:
        """Note the states in which the disk may be before a call; the call may then be made."""
        if call.kind not in CHANGING + SYNCING:
            return
        self._note(f"before {call.kind} {call.path} {call.other}")
        if call.kind == "sync":
            for change in self._pending:
                self._keep(change)
            self._pending, self._synced = [], dict(self._held)
        if call.kind == "fsync":
            self._sync(os.stat(f"/proc/{call.thread}/fd/{call.descriptor}").st_ino)

    def forget(self) -> None:
        """Drop the states found so far, so that those of later calls are noted even if they were found before."""
        self.states.clear()
        self._seen.clear()

    def end(self) -> None:
        """Note the states in which the disk may be when the command has ended."""
        self._note("at the end")

    def _note(self, when: str) -> None:
        self._look()
        for state in self._possible():
            self.states.setdefault(state, when)

    def _look(self) -> None:
        """Read all names and contents; what differs from before was done by one call."""
        entries: dict[Entry, Node] = {}
        numbers: dict[int, Node] = {}
        held: dict[Node, str] = {}
        places = [(0, self.root)]
        while places:
            parent, folder = places.pop()
            for found in os.scandir(folder):
                inode = found.inode()
                if inode not in numbers:
                    numbers[inode] = self._numbers.get(inode) or self._new()
                node = entries[parent, found.name] = numbers[inode]
                if found.is_dir(follow_symlinks=False):
                    self._folders.add(node)
                    places.append((node, Path(found.path)))
                elif found.is_symlink():
                    held[node] = "-> " + os.readlink(found.path)
                else:
                    held[node] = self._content(Path(found.path).read_bytes())
        change: dict[Entry, Node | None] = dict.fromkeys(self._entries.keys() - entries.keys())
        change |= {entry: node for entry, node in entries.items() if self._entries.get(entry) != node}
        if change:
            self._pending.append(change)
        self._entries, self._numbers, self._held = entries, numbers, held

    def _new(self) -> Node:
        self._next += 1
        return self._next

    def _content(self, content: bytes) -> str:
        name = hashlib.sha256(content).hexdigest()
        self.contents[name] = content
        return name

    def _sync(self, inode: int) -> None:
        """Put a file's content, or what happened to the names in a folder, on the disk."""
        node = 0 if inode == self.root.stat().st_ino else self._numbers.get(inode)
        if node in self._held:
            self._synced[node] = self._held[node]
            return
        left = []
        for change in self._pending:
            if any(folder == node for folder, _ in change):
                self._keep(change)
            else:
                left.append(change)
        self._pending = left

    def _keep(self, change: Mapping[Entry, Node | None]) -> None:
        self._kept = _changed(self._kept, [change])

    def _possible(self) -> Iterator[frozenset[tuple[str, str]]]:
        """Yield the states in which the disk may be now, but for those of before if no file's content changed."""
        pending = self._pending
        touched = {folder for change in pending for folder, _ in change}
        choices = [pending, [], pending[:-1], pending[-1:]]
        for folder in touched:
            here = [change for change in pending if any(place == folder for place, _ in change)]
            choices += [here, [change for change in pending if change not in here]]
        if self._noted != (self._held, self._synced):
            self._noted, self._seen = (self._held, dict(self._synced)), set()
        nodes = self._held.keys() | self._synced.keys() | set(self._kept.values())
        for change in pending:
            nodes |= {node for node in change.values() if node is not None}
        after = [
            dict.fromkeys(self._folders, FOLDER) | {node: self._after(node, data) for node in nodes - self._folders}
            for data in ("dropped", "zeros", "written")
        ]
        for chosen in choices:
            entries = _changed(self._kept, chosen)
            if (key := frozenset(entries.items())) in self._seen:
                continue
            self._seen.add(key)
            if key not in self._paths:
                self._paths[key] = list(self._reached(entries))
            for contents in after:
                yield frozenset((path, contents[node]) for path, node in self._paths[key])

    def _reached(self, entries: Mapping[Entry, Node]) -> Iterator[tuple[str, Node]]:
        """Yield the path of what can be reached from the root."""
        below: dict[Node, list[tuple[str, Node]]] = {}
        for (folder, name), node in entries.items():
            below.setdefault(folder, []).append((name, node))
        places = [(0, "")]
        while places:
            folder, path = places.pop()
            for name, node in below.get(folder, []):
                yield f"{path}{name}", node
                if node in self._folders:
                    places.append((node, f"{path}{name}/"))

    def _after(self, node: Node, data: str) -> str:
        """What a file holds after the power failed."""
        synced, held = self._synced.get(node), self._held.get(node)
        if held is None or held == synced or held.startswith("-> "):
            return synced or held or self._content(b"")
        if data == "written":
            return held
        if data == "dropped" or synced is not None:
            return synced or self._content(b"")
        return self._content(bytes(len(self.contents[held])))

    def lay_out(self, state: frozenset[tuple[str, str]]) -> None:
        """Make the folder hold a state."""
        shutil.rmtree(self.root)
        self.root.mkdir()
        for path, content in sorted(state):
            if content == FOLDER:
                (self.root / path).mkdir()
            elif content.startswith("-> "):
                (self.root / path).symlink_to(content[3:])
            else:
                (self.root / path).write_bytes(self.contents[content])


def _changed(entries: Mapping[Entry, Node], changes: list[dict[Entry, Node | None]]) -> dict[Entry, Node]:
    """Return names after changes."""
    after: dict[Entry, Node | None] = dict(entries)
    for change in changes:
        after |= change
    return {entry: node for entry, node in after.items() if node is not None}


@dataclass(frozen=True)
class Loss:
    """A command to lose power in.

    Attributes:
        output: the folder that it makes, in the working folder.
        load: code that prints what a user who loads the output gets, as checksums.
        again: an option with which the command replaces what it refuses to touch; none if empty.
    """

    output: str
    load: str
    again: str = ""


_SHARDS = """
import shardtrain
def arrays(x):
    return (x.data, x.indices, x.indptr) if isinstance(x, shardtrain.Csr) else (x,)
def rows(shards):
    for name in sorted(shards.splits):
        for x, y in shards.split(name).batches(1000, shuffle="none"):
            yield from (*arrays(x), y)
def vectorized():
    vectorizer = shardtrain.load_vectorizer(shards.vectorizer_path)
    yield from arrays(vectorizer.transform(["one butter and the mast", "pawn rook"]))
with shardtrain.open_shards(folder) as shards:
    show(lambda: rows(shards))
    show(vectorized)
"""
_RUN = """
from shardtrain.inference.run import load_run
def weights():
    network = load_run(folder).load_network()
    return network.wide, network.small
show(weights)
"""
_LOAD = """
import hashlib, sys
import numpy as np
from shardtrain.errors import ShardtrainError
folder = sys.argv[1]
def show(parts):
    try:
        content = [(part.shape, part.dtype.str, part.tobytes()) for part in map(np.asarray, parts())]
    except ShardtrainError:
        print("refused")
    else:
        print(hashlib.sha256(repr(content).encode()).hexdigest())
try:
{code}
except ShardtrainError as error:
    print(f"error: {{error}}", file=sys.stderr)
    sys.exit(1)
"""
LOSSES = {
    "build": Loss("out", _SHARDS, "--overwrite"),
    "overwrite": Loss("out", _SHARDS),
    "append": Loss("out", _SHARDS),
    "convert": Loss("out", _SHARDS, "--overwrite"),
    "fit": Loss("run", _RUN, "--overwrite"),
}
# What was not synced is not trusted after a restart of the machine, which shows in the identity of its start.
_RESTARTED = """
from pathlib import Path
from shardtrain.runtime import system
system._BOOT = Path({boot!r})
"""


def followed(home: Home, name: str) -> Disk:
    """Run a command, and return what the disk may hold at any point of it."""
    home.prepare(name)
    home.reset(name)
    disk = Disk(home.work)
    disk.loaded["before"] = load(home, name)[2]

    def watch(call: Call) -> int:
        if any(Path(path).is_relative_to(home.work) for path in (call.path, call.other)) or call.kind == "sync":
            disk.watch(call)
        return 0

    done = home.supervise(COMMANDS[name], watch)
    assert done.returncode == 0, done.stderr
    disk.end()
    code, said, disk.loaded["after"] = load(home, name)
    assert code == 0, said
    return disk


def judged(home: Home, name: str, disk: Disk, state: frozenset[tuple[str, str]]) -> str:
    """Restart the machine with what the disk holds, and run the command again; how the law is broken, or nothing."""
    loss, command = LOSSES[name], COMMANDS[name]
    whole = home.prepare(name)
    disk.lay_out(state)
    found = home.files(command)
    wrong = []
    code, said, loaded = load(home, name)
    if code:
        wrong += [f"when loaded: {each}" for each in misworded(said, ())]
    elif not any(_within(loaded, disk.loaded[when]) for when in ("before", "after")):
        wrong.append("WRONG DATA ACCEPTED: " + "; ".join(differences(whole, found)))
    if _contents(found) == _contents(whole):  # it was done, and there is no telling whether it had ended
        return "; ".join(wrong)
    boot = home.server.folder / "boot"
    boot.write_text("after the power failed\n")
    restarted = _RESTARTED.format(boot=str(boot))
    done = home.run(command, before=restarted)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        wrong += misworded(said, ())
        if not loss.again:
            wrong.append(f"REFUSED: {said[-300:]}")
        else:
            done = home.run(replace(command, words=f"{command.words} {loss.again}"), before=restarted)
            if done.returncode:
                wrong.append(
                    f"REFUSED: {said[-300:]}; also with {loss.again}: {done.stderr.decode(errors='replace')[-300:]}"
                )
    if done.returncode == 0:
        wrong += differences(whole, home.files(command))
    return "; ".join(wrong)


def _contents(files: Mapping[str, str]) -> dict[str, str]:
    return {name: content for name, content in files.items() if content != FOLDER}


def _within(loaded: list[str], whole: list[str]) -> bool:
    """Whether all that was loaded is of a whole output; a part may have been refused."""
    return bool(whole) and all(got in (good, "refused") for got, good in zip(loaded, whole, strict=True))


def load(home: Home, name: str) -> tuple[int, str, list[str]]:
    """Load a command's output: the exit code, what was on standard error, and checksums of what was loaded."""
    loss = LOSSES[name]
    code = _LOAD.format(code=textwrap.indent(loss.load, "    "))
    done = home.server.run(code, home.work / loss.output)
    return done.returncode, done.stderr.decode(errors="replace").strip(), done.stdout.decode().split()

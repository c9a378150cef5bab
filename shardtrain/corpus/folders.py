"""What a corpus folder holds: split files, a folder of text files per class, or one file.

The accepted layouts are listed in `LAYOUTS`, which the errors quote. A folder that fits none is refused with what
was found in it, since guessing between files would silently train on the wrong one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shardtrain.corpus.detect import format_by_name, may_be_corpus
from shardtrain.corpus.source import ClassFolder
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError

LAYOUTS = (
    "train.csv (or .tsv, .jsonl, each also with .gz) with test.csv and classes.txt if you have them; or a folder per "
    "class of .txt files; or train/ and test/ with a folder per class each; or exactly one CSV, TSV or JSON Lines file"
)
CLASSES = "classes.txt"

_NO_CLASS = ("unsup",)  # aclImdb keeps reviews without a label there
_NO_CORPUS = ("readme", "license", "licence", "notice", "changelog", CLASSES)  # how names of other files begin


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the splits of a corpus lie; `per_class` where they are folders with a folder per class."""

    train: Path
    validation: Path | None
    classes: Path | None
    per_class: bool
    notes: tuple[str, ...]


def find_layout(path: Path, *, per_class: bool) -> Layout:
    """Find the splits in a file or folder; with `per_class` only folders per class count.

    Raises:
        CorpusNotFoundError: the file or folder does not exist, cannot be read, or it fits no layout.
    """
    if not _is_folder(path):
        if per_class:
            raise CorpusFormatError(f"'{path}' is a file; --format folder needs a folder with a folder per class")
        return Layout(train=path, validation=None, classes=None, per_class=False, notes=())
    names = sorted(entry.name for entry in _entries(path))
    files = [name for name in names if _may_be_split(path / name)]
    train, test = (None, None) if per_class else (_split_file(path, files, split) for split in ("train", "test"))
    classes = path / CLASSES if CLASSES in names else None
    if train is not None:
        unused = [name for name in files if path / name not in (train, test)]
        notes = (f"not used: {_shown(unused)} (--validation names another validation file)",) if unused else ()
        return Layout(train=train, validation=test, classes=classes, per_class=False, notes=notes)
    if (path / "train").is_dir() and _class_names(path / "train"):
        tested = (path / "test").is_dir() and bool(_class_names(path / "test"))
        validation = path / "test" if tested else None
        return Layout(train=path / "train", validation=validation, classes=classes, per_class=True, notes=())
    if _class_names(path):
        return Layout(train=path, validation=None, classes=classes, per_class=True, notes=())
    alone = [name for name in files if format_by_name(name)] or files
    if len(alone) == 1 and not per_class:
        return Layout(train=path / alone[0], validation=None, classes=classes, per_class=False, notes=())
    found = f"found {_shown(names)}" if names else "it is empty"
    raise CorpusNotFoundError(f"no corpus in the folder '{path}': {found}; expected {LAYOUTS}")


def corpus_files(path: Path) -> list[Path]:
    """Every file of a folder that reading it as a corpus can look at, sorted; shards that are made inside it are none.

    It is each file at its top that may be a split or says the classes, and the texts of folders per class.
    """
    top = (file for file in path.iterdir() if file.name == CLASSES or _may_be_split(file))
    texts = (file for pattern in ("*/*.txt", "*/*/*.txt") for file in path.glob(pattern))
    seen = (file for file in texts if not any(part.startswith(".") for part in file.relative_to(path).parts))
    return sorted(file for file in (*top, *seen) if file.is_file())


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read classes.txt: one name per line, in the order of the classes; blank lines don't count.

    Raises:
        CorpusFormatError: two lines are the same.
    """
    names: dict[str, int] = {}
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode(errors="replace")
    for number, line in enumerate(content.split("\n"), start=1):
        name = line.strip()
        if name in names:
            raise CorpusFormatError(
                f"{path}, line {number}: class '{name}' stands on line {names[name]} already; each class once"
            )
        if name:
            names[name] = number
    return tuple(names)


def find_class_folders(path: Path) -> tuple[tuple[ClassFolder, ...], int, tuple[str, ...]]:
    """List the folders of text files in `path`: (folders sorted by name, bytes of all files, notes).

    Raises:
        CorpusNotFoundError: no folder of text files is found.
    """
    folders, num_bytes = [], 0
    for name in _class_names(path):
        files = text_files(path / name)
        folders.append(ClassFolder(name=name, path=str(path / name), num_files=len(files)))
        num_bytes += sum((path / name / file).stat().st_size for file in files)
    if not folders:
        raise CorpusNotFoundError(f"no folder with .txt files in '{path}'; expected one folder per class")
    used = {folder.name for folder in folders}
    ignored = sorted(entry.name for entry in _entries(path) if entry.name not in used)
    notes = (f"not used in {path.name}: {_shown(ignored)}",) if ignored else ()
    return tuple(folders), num_bytes, notes


def text_files(path: Path) -> list[str]:
    """List the names of the .txt files of a folder, sorted."""
    return sorted(entry.name for entry in _entries(path) if _is_text(entry))


def _class_names(path: Path) -> list[str]:
    """Names of the folders that hold a text file, sorted."""
    folders = (entry.name for entry in _entries(path) if entry.is_dir() and not entry.name.startswith("."))
    return sorted(name for name in folders if name not in _NO_CLASS and _has_text(path / name))


def _has_text(path: Path) -> bool:
    return any(_is_text(entry) for entry in _entries(path))


def _is_text(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(".txt") and not entry.name.startswith(".") and entry.is_file()


def _entries(path: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            yield from entries
    except OSError as error:
        raise CorpusNotFoundError(f"the folder '{path}' cannot be read: {error.strerror}") from error


def _is_folder(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        raise CorpusNotFoundError(
            f"no corpus at '{path}': {error.strerror}; give a file or a folder, or make an example with "
            "`python -m shardtrain demo --out data/demo`"
        ) from error
    return path.is_dir()


def _may_be_split(path: Path) -> bool:
    name = path.name.lower()
    return may_be_corpus(name) and not name.startswith((".", *_NO_CORPUS)) and path.is_file()


def _split_file(path: Path, files: list[str], split: str) -> Path | None:
    found = [name for name in files if name.partition(".")[0] == split]
    if len(found) > 1:
        raise CorpusFormatError(
            f"the folder '{path}' has more than one {split} file: {_shown(found)}; move the others away, or give the "
            "file itself"
        )
    return path / found[0] if found else None


def _shown(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")

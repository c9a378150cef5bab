"""Find the splits in a corpus folder: split files, a folder of text files per class, or a single file.

`LAYOUTS` lists the accepted layouts. A folder that matches none is an error that lists its content, because guessing
between files could silently train on the wrong one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from shardtrain.corpus.detect import format_from_name, may_be_corpus
from shardtrain.corpus.source import ClassFolder
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError, UsageError

LAYOUTS = (
    "train.csv (or .tsv, .jsonl, each also with .gz) with optional valid.csv, test.csv and classes.txt; or a folder "
    "per class of .txt files; or train/, valid/ and test/ with a folder per class each; or exactly one CSV, TSV or "
    "JSON Lines file"
)
NAMES = {  # of each split's file, without its extension, or of its folder
    "train": ("train",),
    "validation": ("valid", "validation", "dev", "val"),
    "test": ("test",),
}
CLASSES = "classes.txt"

_NOT_A_CLASS = ("unsup",)  # reviews without a label in aclImdb
_NOT_A_CORPUS = ("readme", "license", "licence", "notice", "changelog", CLASSES)  # prefixes of file names


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The paths of the splits of a corpus; with `per_class` each is a folder with a folder per class."""

    train: Path
    validation: Path | None
    test: Path | None
    classes: Path | None
    per_class: bool
    notes: tuple[str, ...]


def find_layout(path: Path, *, per_class: bool) -> Layout:
    """Find the splits in a file or folder; with `per_class` only folders per class are considered.

    Raises:
        CorpusNotFoundError: the file or folder does not exist, cannot be read, or matches no layout.
        CorpusFormatError: a folder has several files of one split, or `per_class` is set for a file.
    """
    if not _is_folder(path):
        if per_class:
            raise CorpusFormatError(f"'{path}' is a file; --format folder needs a folder that has a folder per class")
        return Layout(train=path, validation=None, test=None, classes=None, per_class=False, notes=())
    names = sorted(entry.name for entry in _entries(path))
    files = [name for name in names if _may_be_split(path / name)]
    classes = path / CLASSES if CLASSES in names else None
    found = {} if per_class else {split: _split_file(path, files, split) for split in NAMES}
    if found.get("train"):
        unused = [name for name in files if path / name not in found.values()]
        how = "--validation and --test name other files"
        notes = (f"not used: {_list_names(unused)} ({how})",) if unused else ()
        return _layout(found, classes, per_class=False, notes=notes)
    found = {split: _split_folder(path, names, split) for split in NAMES}
    if found["train"]:
        return _layout(found, classes, per_class=True)
    if _class_names(path):
        return _layout({"train": path}, classes, per_class=True)
    alone = [name for name in files if format_from_name(name)] or files
    if len(alone) == 1 and not per_class:
        return _layout({"train": path / alone[0]}, classes, per_class=False)
    content = f"found {_list_names(names)}" if names else "it is empty"
    raise CorpusNotFoundError(f"no corpus in the folder '{path}': {content}; expected {LAYOUTS}")


def _layout(
    found: dict[str, Path | None], classes: Path | None, *, per_class: bool, notes: tuple[str, ...] = ()
) -> Layout:
    train = found["train"]
    assert train is not None
    return Layout(
        train=train,
        validation=found.get("validation"),
        test=found.get("test"),
        classes=classes,
        per_class=per_class,
        notes=notes,
    )


def choose_splits(layout: Layout, named: Mapping[str, Path], notes: list[str]) -> dict[str, Path]:
    """Choose the validation and the test split: what was named before what was found; what is not used is noted.

    Raises:
        UsageError: one file is named for two splits.
    """
    found = {"validation": layout.validation, "test": layout.test}
    chosen = {split: path for split, path in {**found, **named}.items() if path is not None}
    for split, path in named.items():
        same = [other for other, second in chosen.items() if other != split and _is_same(path, second)]
        if split == "test" and _is_same(path, layout.train):
            raise UsageError(f"--test '{path}' is the file to train on; name another one")
        for other in same:
            if other in named:
                raise UsageError(f"--validation and --test both name '{path}'; name a file for each, or omit one")
            del chosen[other]  # it has another use now
        before = found[split]
        if before is not None and not _is_same(before, path) and before not in chosen.values():
            notes.append(f"{before.name} is not used: {path.name} is the {split} split")
    return chosen


def _is_same(first: Path, second: Path) -> bool:
    return first.resolve() == second.resolve()


def find_beside(corpus: Path, named: Path, option: str) -> Path:
    """Find the file of a split that was named: in the working directory, or a bare name in the corpus' folder.

    Args:
        corpus: the corpus that the split belongs to, a file or a folder.
        named: as it was named.
        option: the flag that named it, for messages.

    Raises:
        CorpusNotFoundError: it is in neither.
    """
    folder = corpus if corpus.is_dir() else corpus.parent
    if named.exists() or not corpus.exists():  # a corpus that is missing is reported first
        return named
    if named.name == str(named) and (folder / named).exists():
        return folder / named
    looked = f", nor in '{folder}'" if named.name == str(named) else ""
    raise CorpusNotFoundError(f"{option} '{named}' does not exist{looked}; name a file or folder of the corpus' format")


def corpus_files(path: Path) -> list[Path]:
    """List the files of a folder that opening it as a corpus may read, sorted.

    These are the files at its top that may be a split or the class names, and the text files of folders per class;
    shards built inside the folder are not among them.
    """
    top = (file for file in path.iterdir() if file.name == CLASSES or _may_be_split(file))
    texts = (file for pattern in ("*/*.txt", "*/*/*.txt") for file in path.glob(pattern))
    visible = (file for file in texts if not any(part.startswith(".") for part in file.relative_to(path).parts))
    return sorted(file for file in (*top, *visible) if file.is_file())


def read_class_names(path: Path) -> tuple[str, ...]:
    """Read classes.txt: one name per line, in the order of the class indices; blank lines are ignored.

    Raises:
        CorpusFormatError: a name occurs twice.
    """
    names: dict[str, int] = {}
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode(errors="replace")
    for number, line in enumerate(content.split("\n"), start=1):
        name = line.strip()
        if name in names:
            raise CorpusFormatError(
                f"{path}, line {number}: class '{name}' is already on line {names[name]}; list each class once"
            )
        if name:
            names[name] = number
    return tuple(names)


def find_class_folders(path: Path) -> tuple[tuple[ClassFolder, ...], int, tuple[str, ...]]:
    """List the folders of text files in `path`: (folders sorted by name, bytes of all files, notes).

    Raises:
        CorpusNotFoundError: no folder has text files.
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
    notes = (f"not used in {path.name}: {_list_names(ignored)}",) if ignored else ()
    return tuple(folders), num_bytes, notes


def text_files(path: Path) -> list[str]:
    """List the names of the .txt files of a folder, sorted."""
    return sorted(entry.name for entry in _entries(path) if _is_text(entry))


def _class_names(path: Path) -> list[str]:
    """List the names of the folders that have a text file, sorted."""
    folders = (entry.name for entry in _entries(path) if entry.is_dir() and not entry.name.startswith("."))
    return sorted(name for name in folders if name not in _NOT_A_CLASS and _has_text(path / name))


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
    return may_be_corpus(name) and not name.startswith((".", *_NOT_A_CORPUS)) and path.is_file()


def _split_file(path: Path, files: list[str], split: str) -> Path | None:
    return _only(path, [name for name in files if name.partition(".")[0].lower() in NAMES[split]], split, "file")


def _split_folder(path: Path, names: list[str], split: str) -> Path | None:
    """Return the folder of a split, which has a folder per class."""
    folders = [name for name in names if name.lower() in NAMES[split] and (path / name).is_dir()]
    return _only(path, [name for name in folders if _class_names(path / name)], split, "folder")


def _only(path: Path, found: list[str], split: str, what: str) -> Path | None:
    if len(found) > 1:
        raise CorpusFormatError(
            f"the folder '{path}' has more than one {split} {what}: {_list_names(found)}; keep one of them there, or "
            f"pass the path of a {what}"
        )
    return path / found[0] if found else None


def _list_names(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")

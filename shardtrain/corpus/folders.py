"""Find the splits in a corpus folder: split files, a folder of text files per class, or a single file.

`LAYOUTS` lists the accepted layouts. A folder that matches none is an error that lists its content, because guessing
between files could silently train on the wrong one.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shardtrain.corpus.detect import format_from_name, may_be_corpus
from shardtrain.corpus.source import ClassFolder
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError, UsageError
from shardtrain.runtime.quantities import enumerated

LAYOUTS = (
    "train.csv (or .tsv, .jsonl, .parquet, .arrow, also compressed, or in parts such as train-0.csv) with optional "
    "valid.csv, test.csv and classes.txt; or a folder per class of .txt files; or train/, valid/ and test/ with a "
    "folder per class or parts each; or numbered parts; or exactly one file"
)
NAMES = {  # of each split's file, without its extension, or of its folder
    "train": ("train",),
    "validation": ("valid", "validation", "dev", "val"),
    "test": ("test",),
}
CLASSES = "classes.txt"

_MOST_SHOWN = 10  # names in a message
_NOT_A_CLASS = ("unsup",)  # reviews without a label in aclImdb
_NOT_A_CORPUS = (  # prefixes of file names
    *("readme", "license", "licence", "notice", "changelog", CLASSES),
    *(
        "dataset_info.json",
        "dataset_dict.json",
        "dataset_infos.json",
        "state.json",
        "_success",
        "_committed",
        "_started",
    ),
)
_DATA = "data"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The files of the splits of a corpus, none where there is no such split; with `per_class` a folder each."""

    train: tuple[Path, ...]
    validation: tuple[Path, ...]
    test: tuple[Path, ...]
    classes: Path | None
    per_class: bool
    notes: tuple[str, ...]


def corpus_paths(corpus: Path | str | Sequence[Path | str]) -> tuple[Path, ...]:
    """Return the files or the folder of a corpus that is given as one path, a pattern such as "part-*.csv", or several.

    A pattern stands for the files that match it, sorted, numbers by their value.

    Raises:
        CorpusNotFoundError: a pattern matches no file, or no path is given.
    """
    given = [corpus] if isinstance(corpus, str | Path) else list(corpus)
    found: list[Path] = []
    for path in map(Path, given):
        if os.path.exists(path) or not glob.has_magic(str(path)):
            found.append(path)
            continue
        matches = [Path(name) for name in glob.glob(str(path), recursive=True) if _may_be_split(Path(name))]
        if not matches:
            raise CorpusNotFoundError(f"no file matches '{path}'; give a file, a folder or another pattern")
        found += sorted(matches, key=_in_order)
    if not found:
        raise CorpusNotFoundError("no corpus is given; give a file or a folder")
    real = Counter(os.path.realpath(path) for path in found)
    if twice := [path for path in found if real[os.path.realpath(path)] > 1]:
        raise CorpusFormatError(f"'{twice[0]}' is given twice; its documents would count twice: give each file once")
    return tuple(found)


def find_layout(paths: Sequence[Path], *, per_class: bool) -> Layout:
    """Find the splits in a folder, or in one or several files; with `per_class` only folders per class are considered.

    Raises:
        CorpusNotFoundError: a file or folder does not exist, cannot be read, or matches no layout.
        CorpusFormatError: a folder has several files of one split, or `per_class` is set for a file.
    """
    path = paths[0]
    if len(paths) > 1 or not _is_folder(path):
        for each in paths:
            if per_class or (_is_folder(each) and len(paths) > 1):
                what = (
                    "a folder; several inputs must be files"
                    if each.is_dir()
                    else "a file; --format folder needs a folder"
                )
                raise CorpusFormatError(f"'{each}' is {what}")
        return _layout({"train": tuple(paths)}, None, per_class=False)
    names = sorted(entry.name for entry in _entries(path))
    files = [name for name in names if _may_be_split(path / name)]
    classes = path / CLASSES if CLASSES in names else None
    found = {} if per_class else {split: _split_files(path, names, files, split) for split in NAMES}
    if found.get("train"):
        unused = [name for name in files if not any(path / name in each for each in found.values())]
        how = "--validation and --test name other files"
        notes = (f"not used: {enumerated(unused, _MOST_SHOWN)} ({how})",) if unused else ()
        return _layout(found, classes, per_class=False, notes=notes)
    found = {split: _split_folder(path, names, split) for split in NAMES}
    if found["train"]:
        return _layout(found, classes, per_class=True)
    if _class_names(path):
        return _layout({"train": (path,)}, classes, per_class=True)
    if not per_class and (parts := _parts(path)):
        return _layout({"train": parts}, classes, per_class=False)
    if not per_class and (path / _DATA).is_dir():  # as datasets are laid out on Hugging Face's hub
        return find_layout([path / _DATA], per_class=False)
    content = f"found {enumerated(names, _MOST_SHOWN)}" if names else "it is empty"
    raise CorpusNotFoundError(
        f"no corpus in the folder '{path}': {content}; expected {LAYOUTS}; several files are given by their names"
    )


def _parts(path: Path) -> tuple[Path, ...]:
    """Return the only file of a folder, or its files if their names differ in numbers alone; else none."""
    files = sorted((entry.name for entry in _entries(path) if _may_be_split(path / entry.name)), key=_in_order)
    alone = [name for name in files if format_from_name(name)] or files
    if len({re.sub(r"\d+", "0", name) for name in alone}) != 1:
        return ()
    return tuple(path / name for name in alone)


def _in_order(path: Path | str) -> list[tuple[int, str]]:
    """Return what sorts paths as people count: part-2 before part-10."""
    pieces = re.split(r"(\d+)", str(path))
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces]


def _layout(
    found: Mapping[str, tuple[Path, ...]], classes: Path | None, *, per_class: bool, notes: tuple[str, ...] = ()
) -> Layout:
    return Layout(
        train=found["train"],
        validation=found.get("validation", ()),
        test=found.get("test", ()),
        classes=classes,
        per_class=per_class,
        notes=notes,
    )


def choose_splits(layout: Layout, named: Mapping[str, Path], notes: list[str]) -> dict[str, tuple[Path, ...]]:
    """Choose the validation and the test split: what was named before what was found; what is not used is noted.

    Raises:
        UsageError: one file is named for two splits.
    """
    found = {"validation": layout.validation, "test": layout.test}
    given = {split: (path,) for split, path in named.items()}
    chosen = {split: paths for split, paths in {**found, **given}.items() if paths}
    for split, path in named.items():
        same = [other for other, second in chosen.items() if other != split and _is_in(path, second)]
        if split == "test" and _is_in(path, layout.train):
            raise UsageError(f"--test '{path}' is the file to train on; name another one")
        for other in same:
            if other in named:
                raise UsageError(f"--validation and --test both name '{path}'; name a file for each, or omit one")
            del chosen[other]  # it has another use now
        before = found[split]
        if before and not _is_in(path, before) and before not in chosen.values():
            notes.append(f"{before[0].name} is not used: {path.name} is the {split} split")
    return chosen


def _is_in(path: Path, paths: Sequence[Path]) -> bool:
    return any(path.resolve() == each.resolve() for each in paths)


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
    folders, num_bytes, left_out = [], 0, []
    for name in _class_names(path):
        files, others = _listed(path / name)
        left_out += [f"{name}/{other}" for other in others]
        folders.append(ClassFolder(name=name, path=str(path / name), num_files=len(files)))
        num_bytes += sum((path / name / file).stat().st_size for file in files)
    if not folders:
        raise CorpusNotFoundError(f"no folder with .txt files in '{path}'; expected one folder per class")
    used = {folder.name for folder in folders}
    ignored = sorted(entry.name for entry in _entries(path) if entry.name not in used)
    notes = [f"not used in {path.name}: {enumerated(ignored, _MOST_SHOWN)}"] if ignored else []
    if left_out:
        notes.append(f"left out, as no .txt files of a class's folder: {enumerated(left_out, _MOST_SHOWN)}")
    return tuple(folders), num_bytes, tuple(notes)


def text_files(path: Path) -> list[str]:
    """List the names of the .txt files of a folder, in small or capital letters, sorted."""
    return _listed(path)[0]


def _listed(path: Path) -> tuple[list[str], list[str]]:
    """List the names of the text files of a folder, and of what else is in it and not hidden, both sorted."""
    found: tuple[list[str], list[str]] = [], []
    for entry in _entries(path):
        if not entry.name.startswith("."):
            found[not _is_text(entry)].append(entry.name)
    return sorted(found[0]), sorted(found[1])


def _class_names(path: Path) -> list[str]:
    """List the names of the folders that have a text file, sorted."""
    folders = (entry.name for entry in _entries(path) if entry.is_dir() and not entry.name.startswith("."))
    return sorted(name for name in folders if name not in _NOT_A_CLASS and _has_text(path / name))


def _has_text(path: Path) -> bool:
    return any(_is_text(entry) for entry in _entries(path))


def _is_text(entry: os.DirEntry[str]) -> bool:
    return entry.name.lower().endswith(".txt") and not entry.name.startswith(".") and entry.is_file()


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


def _split_files(path: Path, names: list[str], files: list[str], split: str) -> tuple[Path, ...]:
    """Return the file of a split, its numbered parts, or the parts in a folder of its name."""
    found = [name for name in files if name.partition(".")[0].lower() in NAMES[split]]
    if len(found) == 1:
        return (path / found[0],)
    numbered = re.compile(rf"({'|'.join(NAMES[split])})[-_.]?\d", re.IGNORECASE)
    parts = sorted((name for name in files if numbered.match(name)), key=_in_order)
    if not found and parts:
        return tuple(path / name for name in parts)
    if not found:
        folders = [name for name in names if name.lower() in NAMES[split] and (path / name).is_dir()]
        inside = [_parts(path / name) for name in folders if not _class_names(path / name)]
        return inside[0] if inside else ()
    return _only(path, found, split, "file")


def _split_folder(path: Path, names: list[str], split: str) -> tuple[Path, ...]:
    """Return the folder of a split, which has a folder per class."""
    folders = [name for name in names if name.lower() in NAMES[split] and (path / name).is_dir()]
    return _only(path, [name for name in folders if _class_names(path / name)], split, "folder")


def _only(path: Path, found: list[str], split: str, what: str) -> tuple[Path, ...]:
    if len(found) > 1:
        raise CorpusFormatError(
            f"the folder '{path}' has more than one {split} {what}: {enumerated(found, _MOST_SHOWN)}; keep one of them "
            f"there, or pass the path of a {what}"
        )
    return (path / found[0],) if found else ()

"""Open a corpus: find its splits, and resolve the format and the columns of each.

All detection happens here, once, from file names, the options and the first records; the notes report what was
detected. Validation and test split are read like the training split, except for their own extension and header, and
must have the same columns.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from shardtrain.corpus import detect, folders
from shardtrain.corpus.options import TextOptions
from shardtrain.corpus.published import recognise, recorded
from shardtrain.corpus.reading import Reading
from shardtrain.corpus.resolving import Resolver
from shardtrain.corpus.source import Corpus, Source
from shardtrain.corpus.staging import Scratch
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError, UsageError

PREVIEW_BYTES = 2 * detect.SAMPLE_BYTES  # more than a sample reads, so it never reaches the cut


def open_corpus(
    corpus: Path | Sequence[Path],
    options: TextOptions,
    *,
    validation: Path | str | None = None,
    test: Path | str | None = None,
    scratch: Path,
    preview: bool = False,
    remembered: Reading | None = None,
    rows: bool = False,
    memory_limit: int | None = None,
) -> Corpus:
    """Open a corpus: find its splits and resolve how they are read; only the first records are read.

    Args:
        corpus: a file, a folder in one of the layouts of `folders.LAYOUTS`, or several files, the parts of the training
            split in the order of their documents.
        options: how to read it, as far as the user chose.
        validation: a file or folder for the validation split, in place of one found with the training split; if it
            is the test file that was found, there is no test split.
        test: the same for the test split.
        scratch: existing folder for copies of files that cannot be read from any position, such as compressed ones.
        preview: of these copies only the first `PREVIEW_BYTES` are written; the sources cannot be read then, but their
            sizes are those of the whole files.
        remembered: how the corpus was read that this one is expected to be like.
        rows: whether the corpus is a file of `corpus.rows`.
        memory_limit: for this process, in bytes; None: there is none.

    Raises:
        UsageError: the format is lines, which has no labels, or one file is named for two splits.
        CorpusNotFoundError: a file does not exist, cannot be read, or has no records.
        CorpusFormatError: a file cannot be read as a corpus.
    """
    paths = folders.corpus_paths(corpus)
    if options.format == "lines":
        raise UsageError("--format lines has no labels to train on or to compare with; choose another format")
    try:
        named = {"validation": validation, "test": test}
        copies = Scratch(folder=scratch, keep_bytes=PREVIEW_BYTES if preview else None, memory_limit=memory_limit)
        return _open(
            paths, options, {split: Path(file) for split, file in named.items() if file}, copies, remembered, rows=rows
        )
    except PermissionError as error:
        raise CorpusNotFoundError(f"'{error.filename or paths[0]}' cannot be read: {error.strerror}") from error


def open_texts(
    path: Path,
    options: TextOptions,
    *,
    labels: Collection[str],
    class_names: Sequence[str],
    scratch: Path,
    remembered: Reading | None = None,
) -> tuple[Source, tuple[str, ...]]:
    """Open a file of texts whose labels, if it has any, are not needed; only the first records are read.

    Args:
        path: a file; with an unknown extension, each line is a text.
        options: how to read it, as far as the user chose.
        labels: the known labels; a first column that holds only these is not a text, in a file without header.
        class_names: used, like the folder's name, to recognise published datasets.
        scratch: existing folder for a copy of a file that cannot be read from any position.
        remembered: how the corpus was read that the model was trained on.

    Returns:
        The source, whose label column is None, and one-line notes for the user.

    Raises:
        CorpusNotFoundError: the file does not exist or is empty.
        CorpusFormatError: it cannot be read as text, or its text columns are ambiguous.
    """
    path = Path(path)
    if path.is_dir() or options.format == "folder":
        raise CorpusFormatError(f"'{path}' is not a file; give one file of texts")
    if not path.exists():
        raise CorpusNotFoundError(f"'{path}' cannot be read: No such file or directory; name a file of texts")
    notes: list[str] = []
    resolver = Resolver(
        options=options,
        unescape=_needs_unescaping(Path(os.path.realpath(path)).parent, class_names, options, notes, remembered),
        scratch=Scratch(folder=scratch),
        notes=notes,
        labels=frozenset(labels),
        remembered=remembered,
    )
    try:
        return resolver.resolve_files([path], "texts", None), tuple(notes)
    except PermissionError as error:
        raise CorpusNotFoundError(f"'{error.filename or path}' cannot be read: {error.strerror}") from error


def _open(
    paths: Sequence[Path],
    options: TextOptions,
    named: Mapping[str, Path],
    scratch: Scratch,
    remembered: Reading | None,
    *,
    rows: bool,
) -> Corpus:
    layout = folders.find_layout(paths, per_class=options.format == "folder")
    notes = list(layout.notes)
    class_names = None if layout.classes is None else folders.read_class_names(layout.classes)
    if class_names == ():
        raise CorpusFormatError(f"'{layout.classes}' has no class names; list one per line, or remove the file")
    real = Path(os.path.realpath(paths[0]))
    folder = real if real.is_dir() else real.parent
    unescape = bool(options.unescape)
    if not layout.per_class:
        unescape = _needs_unescaping(folder, class_names, options, notes, remembered)
    resolver = Resolver(options=options, unescape=unescape, scratch=scratch, notes=notes, remembered=remembered)
    if rows:
        train = resolver.resolve_rows(paths[0])
    elif layout.per_class:
        train = resolver.resolve_folder(layout.train[0])
    else:
        train = resolver.resolve_files(layout.train, "train", None)
    if class_names is None and resolver.class_names:
        class_names = resolver.class_names[0]
    splits = {}
    for split, chosen in folders.choose_splits(layout, named, notes).items():
        splits[split] = _open_split(split, chosen, train, resolver)
        notes.append(f"{chosen[0].name} is the {split} split")
    return Corpus(
        train=train,
        validation=splits.get("validation"),
        test=splits.get("test"),
        class_names=class_names,
        notes=tuple(notes),
    )


def _needs_unescaping(
    folder: Path,
    class_names: Sequence[str] | None,
    options: TextOptions,
    notes: list[str],
    remembered: Reading | None,
) -> bool:
    """Return whether to unescape text: as the option or what is remembered says, or a published dataset needs it."""
    dataset = recorded(folder) or recognise(folder.name, None if class_names is None else tuple(class_names))
    if options.unescape is None and remembered is not None:
        return remembered.unescape
    if options.unescape is None and dataset is not None and dataset.unescape:
        notes.append(f'{dataset.title} recognised: \\n and \\" in its text are read as newline and quote')
        return True
    return bool(options.unescape)


def _open_split(split: str, paths: Sequence[Path], train: Source, resolver: Resolver) -> Source:
    """Open the validation or test split: files, or a folder, of whose splits the one that is meant is taken."""
    layout = folders.find_layout(paths, per_class=train.format == "folder")
    own = layout.test or layout.train
    if split == "validation":
        own = layout.validation or own
    if layout.per_class:
        return resolver.resolve_folder(own[0])
    return resolver.resolve_files(own, split, train)

"""Open a corpus: find its splits, and resolve the format and the columns of each.

All detection happens here, once, from file names, the options and the first records; the notes report what was
detected. A validation split is read like the training split, except for its own extension and header, and must have the
same columns.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from shardtrain.corpus import detect, folders
from shardtrain.corpus.options import TextOptions
from shardtrain.corpus.published import recognise, recorded
from shardtrain.corpus.resolving import Resolver
from shardtrain.corpus.source import Corpus, Source
from shardtrain.corpus.staging import Scratch
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError, UsageError

PREVIEW_BYTES = 2 * detect.SAMPLE_BYTES  # more than a sample reads, so it never reaches the cut


def open_corpus(
    path: Path, options: TextOptions, *, validation: Path | None = None, scratch: Path, preview: bool = False
) -> Corpus:
    """Open a corpus: find its splits and resolve how they are read; only the first records are read.

    Args:
        path: a file, or a folder in one of the layouts of `folders.LAYOUTS`.
        options: how to read it, as far as the user chose.
        validation: a file or folder for the validation split, in place of one found with the training split.
        scratch: existing folder into which .gz files are unpacked, to be read from there.
        preview: unpack only the first `PREVIEW_BYTES` of .gz files; the sources cannot be read then, but their sizes
            are those of the whole files.

    Raises:
        UsageError: the format is lines, which has no labels.
        CorpusNotFoundError: `path` does not exist, cannot be read, or has no records.
        CorpusFormatError: a file cannot be read as a corpus.
    """
    path = Path(path)
    if options.format == "lines":
        raise UsageError("--format lines has no labels to train on or to compare with; choose another format")
    try:
        return _open(path, options, None if validation is None else Path(validation), scratch, preview)
    except PermissionError as error:
        raise CorpusNotFoundError(f"'{error.filename or path}' cannot be read: {error.strerror}") from error


def open_texts(
    path: Path, options: TextOptions, *, labels: Collection[str], class_names: Sequence[str], scratch: Path
) -> tuple[Source, tuple[str, ...]]:
    """Open a file of texts whose labels, if it has any, are not needed; only the first records are read.

    Args:
        path: a file; with an unknown extension, each line is a text.
        options: how to read it, as far as the user chose.
        labels: the known labels; a first column that holds only these is not a text, in a file without header.
        class_names: used, like the folder's name, to recognise published datasets.
        scratch: existing folder into which a .gz file is unpacked.

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
    unescape = _needs_unescaping(path.resolve().parent, class_names, options, notes)
    resolver = Resolver(
        options=options, unescape=unescape, scratch=Scratch(folder=scratch), notes=notes, labels=frozenset(labels)
    )
    try:
        return resolver.resolve_files([path], "texts", None), tuple(notes)
    except PermissionError as error:
        raise CorpusNotFoundError(f"'{error.filename or path}' cannot be read: {error.strerror}") from error


def _open(path: Path, options: TextOptions, validation: Path | None, scratch: Path, preview: bool) -> Corpus:
    layout = folders.find_layout(path, per_class=options.format == "folder")
    notes = list(layout.notes)
    class_names = None if layout.classes is None else folders.read_class_names(layout.classes)
    if layout.classes is not None and not class_names:
        raise CorpusFormatError(f"'{layout.classes}' has no class names; write one name per line, or remove the file")
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    unescape = bool(options.unescape) if layout.per_class else _needs_unescaping(folder, class_names, options, notes)
    copies = Scratch(folder=scratch, keep_bytes=PREVIEW_BYTES if preview else None)
    resolver = Resolver(options=options, unescape=unescape, scratch=copies, notes=notes)
    if layout.per_class:
        train = resolver.resolve_folder(layout.train)
    else:
        train = resolver.resolve_files([layout.train], "train", None)
    if class_names is None and resolver.class_names:
        class_names = resolver.class_names[0]
    chosen = layout.validation
    if validation is not None:
        if chosen is not None:
            notes.append(f"{chosen.name} is not used: {validation.name} is the validation split")
        chosen = validation
    held_out = None
    if chosen is not None:
        held_out = _open_validation(chosen, train, resolver)
        notes.append(f"{chosen.name} is the validation split")
    return Corpus(train=train, validation=held_out, class_names=class_names, notes=tuple(notes))


def _needs_unescaping(folder: Path, class_names: Sequence[str] | None, options: TextOptions, notes: list[str]) -> bool:
    """Return whether to unescape text: as the option says, else if a published dataset that needs it is recognised."""
    dataset = recorded(folder) or recognise(folder.name, None if class_names is None else tuple(class_names))
    if options.unescape is None and dataset is not None and dataset.unescape:
        notes.append(f'{dataset.title} recognised: \\n and \\" in its text are read as newline and quote')
        return True
    return bool(options.unescape)


def _open_validation(path: Path, train: Source, resolver: Resolver) -> Source:
    layout = folders.find_layout(path, per_class=train.format == "folder")
    if layout.per_class:
        return resolver.resolve_folder(path if layout.validation is None else layout.validation)
    return resolver.resolve_files([layout.validation or layout.train], "validation", train)

"""Open a corpus: find its splits, and settle for each how it will be read.

Everything is decided here, once, from names, the options and the first records; what was detected is said in the
notes. A validation split is read like the training split where it does not say otherwise itself (its own extension,
its own header), and has to have the same columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shardtrain.corpus import columns, detect, folders
from shardtrain.corpus.options import TextOptions
from shardtrain.corpus.published import recognise, recorded
from shardtrain.corpus.rows import parse_json, split_fields
from shardtrain.corpus.source import Corpus, Source
from shardtrain.corpus.unpack import unpack
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError, UsageError

LOOK_BYTES = 2 * detect.SAMPLE_BYTES  # so that the sample never sees that a file is cut
_FORMAT_NAMES = {"csv": "CSV", "tsv": "TSV", "jsonl": "JSON Lines"}


def open_corpus(
    path: Path, options: TextOptions, *, validation: Path | None = None, scratch: Path, looking: bool = False
) -> Corpus:
    """Find the splits of a corpus and settle how they are read; only the first records are read.

    Args:
        path: a file, or a folder in one of the layouts of `folders.LAYOUTS`.
        options: what the user says about it.
        validation: a file or folder for the validation split, in place of the one beside the training split.
        scratch: existing folder into which .gz files are unpacked; they are read from there.
        looking: unpack no more of these than settling how they are read takes; the sources, whose sizes are right all
            the same, cannot be read.

    Raises:
        CorpusNotFoundError: nothing is there, or nothing to read in it.
        CorpusFormatError: something that cannot be read as a corpus.
    """
    path = Path(path)
    if options.format == "lines":
        raise UsageError("lines of text have no labels to train on or to compare with; choose another --format")
    try:
        return _open(path, options, None if validation is None else Path(validation), scratch, looking)
    except PermissionError as error:
        raise CorpusNotFoundError(f"'{error.filename or path}' cannot be read: {error.strerror}") from error


def open_texts(
    path: Path, options: TextOptions, *, labels: Collection[str], class_names: Sequence[str], scratch: Path
) -> tuple[Source, tuple[str, ...]]:
    """Settle how a file of texts is read whose labels, if it has any, are not needed; only the first records are read.

    Args:
        path: a file; one whose name says no format has a text on each line.
        options: what the user says about it.
        labels: what the first column of a file without header holds if it is none of the text.
        class_names: by which published sets are recognised, as by the folder's name.
        scratch: existing folder into which a .gz file is unpacked.

    Returns:
        The source, whose label column is None, and one-line facts to tell the user.

    Raises:
        CorpusNotFoundError: there is no such file, or nothing in it.
        CorpusFormatError: it cannot be read as text, or which column is the text is not clear.
    """
    path = Path(path)
    if path.is_dir() or options.format == "folder":
        raise CorpusFormatError(f"'{path}' is no file; give one file of texts")
    if not path.exists():
        raise CorpusNotFoundError(f"'{path}' cannot be read: No such file or directory; name a file of texts")
    notes: list[str] = []
    unescape = _unescapes(path.resolve().parent, class_names, options, notes)
    if options.format == "auto" and detect.format_by_name(path.name) is None:
        options = replace(options, format="lines", header=None)
    opening = _Opening(options=options, unescape=unescape, scratch=scratch, notes=notes, labels=frozenset(labels))
    try:
        return opening.file(path, "texts", None), tuple(notes)
    except PermissionError as error:
        raise CorpusNotFoundError(f"'{error.filename or path}' cannot be read: {error.strerror}") from error


def _open(path: Path, options: TextOptions, validation: Path | None, scratch: Path, looking: bool) -> Corpus:
    layout = folders.find_layout(path, per_class=options.format == "folder")
    notes = list(layout.notes)
    class_names = None if layout.classes is None else folders.read_class_names(layout.classes)
    if layout.classes is not None and not class_names:
        raise CorpusFormatError(f"'{layout.classes}' names no class; write one name a line, or take it away")
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    unescape = bool(options.unescape) if layout.per_class else _unescapes(folder, class_names, options, notes)
    opening = _Opening(options=options, unescape=unescape, scratch=scratch, notes=notes, looking=looking)
    train = opening.folder(layout.train) if layout.per_class else opening.file(layout.train, "train", None)
    chosen = layout.validation
    if validation is not None:
        if chosen is not None:
            notes.append(f"{chosen.name} is not used: {validation.name} is the validation split")
        chosen = validation
    held_out = None
    if chosen is not None:
        held_out = _open_validation(chosen, train, opening)
        notes.append(f"{chosen.name} is the validation split")
    return Corpus(train=train, validation=held_out, class_names=class_names, notes=tuple(notes))


def _unescapes(folder: Path, class_names: Sequence[str] | None, options: TextOptions, notes: list[str]) -> bool:
    """Whether to unescape text: as the options say, or where it is that of a published set that needs it."""
    dataset = recorded(folder) or recognise(folder.name, None if class_names is None else tuple(class_names))
    if options.unescape is None and dataset is not None and dataset.unescape:
        notes.append(f'{dataset.title} recognised: \\n and \\" in its text are read as newline and quote')
        return True
    return bool(options.unescape)


def _open_validation(path: Path, train: Source, opening: _Opening) -> Source:
    layout = folders.find_layout(path, per_class=train.format == "folder")
    if layout.per_class:
        return opening.folder(path if layout.validation is None else layout.validation)
    return opening.file(layout.train if layout.validation is None else layout.validation, "validation", train)


@dataclass(frozen=True, kw_only=True)
class _Opening:
    """What opening the splits of one corpus shares; `notes` grows.

    With `labels` the file's own are not needed: those are what its first column may hold without being text. `looking`
    is as in `open_corpus`.
    """

    options: TextOptions
    unescape: bool
    scratch: Path
    notes: list[str]
    labels: frozenset[str] | None = None
    looking: bool = False

    def folder(self, path: Path) -> Source:
        found, num_bytes, notes = folders.find_class_folders(path)
        self.notes.append(f"{path.name}: a folder per class, {len(found):,} classes")
        self.notes.extend(notes)
        return Source(
            path=str(path),
            origin=str(path),
            format="folder",
            num_bytes=num_bytes,
            origin_bytes=num_bytes,
            label_column="",
            text_columns=(),
            num_columns=0,
            header=None,
            data_start=0,
            data_line=1,
            folders=found,
            unescape=self.unescape,
            on_bad_row=self.options.on_bad_row,
        )

    def file(self, origin: Path, split: str, like: Source | None) -> Source:
        """Settle how a file is read; `split` keeps unpacked copies apart, `like` is the training split."""
        path, num_bytes = self._unpacked(origin, split)
        detect.refuse_binary(path, origin)
        format = self.options.format  # noqa: A001 - the word users know
        if format == "auto":
            format = detect.format_by_name(origin.name) or detect.format_by_look(path, origin)  # noqa: A001
        sample = detect.take_sample(path, format)
        if not sample.lines:
            raise _nothing_in(origin, sample)
        source = Source(
            path=str(path),
            origin=str(origin),
            format=format,
            num_bytes=num_bytes,
            origin_bytes=origin.stat().st_size,
            label_column=0,
            text_columns=(),
            num_columns=0,
            header=None,
            data_start=sample.begin,
            data_line=1,
            folders=(),
            unescape=self.unescape,
            on_bad_row=self.options.on_bad_row,
        )
        if format == "jsonl":
            source = self._with_keys(source, sample, like)
        else:
            source = self._with_columns(source, sample, like)
        if format != "lines":
            self.notes.append(_how_read(source))
        return source

    def _unpacked(self, origin: Path, split: str) -> tuple[Path, int]:
        """What is read in place of `origin`, and how long that is."""
        suffixes = [suffix.lower() for suffix in origin.suffixes]
        if any(suffix in detect.ARCHIVES for suffix in suffixes[-2:]):
            raise CorpusFormatError(f"'{origin}' is an archive; unpack it and give the folder")
        if not origin.is_file():
            raise CorpusFormatError(f"'{origin}' is no regular file; a corpus is read at more than one place at a time")
        if suffixes[-1:] != [".gz"]:
            return origin, origin.stat().st_size
        target = self.scratch / f"{split}-{origin.stem}"
        return target, unpack(origin, target, most=LOOK_BYTES if self.looking else None)

    def _with_columns(self, source: Source, sample: detect.Sample, like: Source | None) -> Source:
        options, rows = self.options, list(split_fields(source.format, sample.lines))
        label: int | None
        if source.format == "lines":
            return replace(source, label_column=None, text_columns=(0,), num_columns=1)
        header = options.header
        if header is None:
            same = like is not None and like.header == _stripped(rows[0])
            header = sample.begins_good and (same or columns.has_header(rows, options, labelled=self.labels is None))
        elif header and not sample.begins_good and sample.first_bad is not None:
            line, reason = sample.first_bad
            raise CorpusFormatError(f"{source.origin}, line {line}: the header cannot be read: {reason}")
        names, num_columns = _stripped(rows[0]) if header else None, len(rows[0])
        if header and len(rows) < 2 and sample.first_bad is None:
            raise CorpusNotFoundError(f"'{source.origin}' has a header and no record behind it")
        if like is not None and like.num_columns and names is None and like.num_columns != num_columns:
            raise CorpusFormatError(
                f"'{source.origin}' has {num_columns} columns, the training split '{like.origin}' has "
                f"{like.num_columns}; the validation split needs the same columns"
            )
        if like is not None and names is None and isinstance(like.label_column, int):
            label, texts = like.label_column, like.text_columns
        elif self.labels is not None:
            label, texts = None, columns.choose_texts(names, rows, options, source.origin, self.labels)
        else:
            label, texts = columns.choose_columns(names, rows[0], options, source.origin)
        return replace(
            source,
            label_column=label,
            text_columns=texts,
            num_columns=num_columns,
            header=names,
            data_start=sample.starts[1] if header else source.data_start,
            data_line=sample.line_numbers[1] if header else 1,
        )

    def _with_keys(self, source: Source, sample: detect.Sample, like: Source | None) -> Source:
        if like is not None and like.format == "jsonl":
            return replace(source, label_column=like.label_column, text_columns=like.text_columns)
        counts: Counter[str] = Counter()
        num_objects, first_reason = 0, ""
        for line in sample.lines:
            try:
                value = parse_json(line.decode())
            except ValueError as error:
                first_reason = first_reason or str(error)
                continue
            if isinstance(value, dict):
                counts.update(value.keys())
                num_objects += 1
        if not num_objects:
            if sample.lines[0].lstrip().startswith(b"["):
                first_reason = "it begins an array; JSON Lines has one object a line (`jq -c '.[]'` makes it so)"
            raise CorpusFormatError(
                f"{source.origin}, line {sample.line_numbers[0]}: {first_reason or 'no object'}; none of the first "
                f"{len(sample.lines)} lines holds a JSON object"
            )
        named = {self.options.label_column, *(self.options.text_columns or ())}
        # Those that most objects have, so that one odd row decides nothing; it will be a bad row.
        keys = [key for key, number in counts.items() if 2 * number >= num_objects or key in named]
        if self.labels is not None:
            texts = columns.choose_text_keys(keys, self.options, source.origin)
            return replace(source, label_column=None, text_columns=texts)
        label, texts = columns.choose_keys(keys, self.options, source.origin)
        return replace(source, label_column=label, text_columns=texts)


def _nothing_in(origin: Path, sample: detect.Sample) -> CorpusFormatError | CorpusNotFoundError:
    if sample.first_bad is None:
        return CorpusNotFoundError(f"'{origin}' is empty: it has no record; a corpus has a label and a text in each")
    line, reason = sample.first_bad
    return CorpusFormatError(f"{origin}, line {line}: {reason}; no record before or behind it can be read either")


def _stripped(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.strip() for name in names)


def _how_read(source: Source) -> str:
    name, kind = Path(source.origin).name, _FORMAT_NAMES[source.format]
    label = f"label '{source.column_name(source.label_column)}', "
    unnamed = f"label in column {source.label_column}, "
    if source.label_column is None:
        label = unnamed = ""
    texts = [source.column_name(column) for column in source.text_columns]
    counted = " and ".join(map(str, texts)) + ", counted from 0"
    if source.format == "jsonl":
        where = f"{label}text {_quoted(texts)}"
    elif source.header is not None:
        where = f"with a header; {label}text {_quoted(texts)}"
    else:
        where = f"no header; {unnamed}text in {'column' if len(texts) == 1 else 'columns'} {counted}"
    return f"{name}: {kind}, {where}"


def _quoted(names: Sequence[object]) -> str:
    return ", ".join(f"'{name}'" for name in names)

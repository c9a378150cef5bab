"""Open a corpus: find its splits, and resolve the format and the columns of each.

All detection happens here, once, from file names, the options and the first records; the notes report what was
detected. Validation and test split are read like the training split, except for their own extension and header, and
must have the same columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shardtrain.corpus import columns, detect, folders
from shardtrain.corpus.options import TextOptions
from shardtrain.corpus.parsing import parse_json, split_fields
from shardtrain.corpus.published import recognise, recorded
from shardtrain.corpus.source import Corpus, Source
from shardtrain.corpus.unpack import unpack_gzip
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError, UsageError

PREVIEW_BYTES = 2 * detect.SAMPLE_BYTES  # more than a sample reads, so it never reaches the cut
_FORMAT_NAMES = {"csv": "CSV", "tsv": "TSV", "jsonl": "JSON Lines"}


def open_corpus(
    path: Path,
    options: TextOptions,
    *,
    validation: Path | str | None = None,
    test: Path | str | None = None,
    scratch: Path,
    preview: bool = False,
) -> Corpus:
    """Open a corpus: find its splits and resolve how they are read; only the first records are read.

    Args:
        path: a file, or a folder in one of the layouts of `folders.LAYOUTS`.
        options: how to read it, as far as the user chose.
        validation: a file or folder for the validation split, in place of one found with the training split; if it
            is the test file that was found, there is no test split.
        test: the same for the test split.
        scratch: existing folder into which .gz files are unpacked, to be read from there.
        preview: unpack only the first `PREVIEW_BYTES` of .gz files; the sources cannot be read then, but their sizes
            are those of the whole files.

    Raises:
        UsageError: the format is lines, which has no labels, or one file is named for two splits.
        CorpusNotFoundError: `path` does not exist, cannot be read, or has no records.
        CorpusFormatError: a file cannot be read as a corpus.
    """
    path = Path(path)
    if options.format == "lines":
        raise UsageError("--format lines has no labels to train on or to compare with; choose another format")
    try:
        named = {"validation": validation, "test": test}
        return _open(path, options, {split: Path(file) for split, file in named.items() if file}, scratch, preview)
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
    if options.format == "auto" and detect.format_from_name(path.name) is None:
        options = replace(options, format="lines", header=None)
    resolver = _Resolver(options=options, unescape=unescape, scratch=scratch, notes=notes, labels=frozenset(labels))
    try:
        return resolver.resolve_file(path, "texts", None), tuple(notes)
    except PermissionError as error:
        raise CorpusNotFoundError(f"'{error.filename or path}' cannot be read: {error.strerror}") from error


def _open(path: Path, options: TextOptions, named: Mapping[str, Path], scratch: Path, preview: bool) -> Corpus:
    layout = folders.find_layout(path, per_class=options.format == "folder")
    notes = list(layout.notes)
    class_names = None if layout.classes is None else folders.read_class_names(layout.classes)
    if layout.classes is not None and not class_names:
        raise CorpusFormatError(f"'{layout.classes}' has no class names; write one name per line, or remove the file")
    folder = path.resolve() if path.is_dir() else path.resolve().parent
    unescape = bool(options.unescape) if layout.per_class else _needs_unescaping(folder, class_names, options, notes)
    resolver = _Resolver(options=options, unescape=unescape, scratch=scratch, notes=notes, preview=preview)
    if layout.per_class:
        train = resolver.resolve_folder(layout.train)
    else:
        train = resolver.resolve_file(layout.train, "train", None)
    splits = {}
    for split, chosen in folders.choose_splits(layout, named, notes).items():
        splits[split] = _open_split(split, chosen, train, resolver)
        notes.append(f"{chosen.name} is the {split} split")
    return Corpus(
        train=train,
        validation=splits.get("validation"),
        test=splits.get("test"),
        class_names=class_names,
        notes=tuple(notes),
    )


def _needs_unescaping(folder: Path, class_names: Sequence[str] | None, options: TextOptions, notes: list[str]) -> bool:
    """Return whether to unescape text: as the option says, else if a published dataset that needs it is recognised."""
    dataset = recorded(folder) or recognise(folder.name, None if class_names is None else tuple(class_names))
    if options.unescape is None and dataset is not None and dataset.unescape:
        notes.append(f'{dataset.title} recognised: \\n and \\" in its text are read as newline and quote')
        return True
    return bool(options.unescape)


def _open_split(split: str, path: Path, train: Source, resolver: _Resolver) -> Source:
    """Open the validation or test split: a file, or a folder, of whose splits the one that is meant is taken."""
    layout = folders.find_layout(path, per_class=train.format == "folder")
    own = layout.test or layout.train
    if split == "validation":
        own = layout.validation or own
    if layout.per_class:
        return resolver.resolve_folder(own)
    return resolver.resolve_file(own, split, train)


@dataclass(frozen=True, kw_only=True)
class _Resolver:
    """Resolve how files and folders of one corpus are read; what is detected is appended to `notes`.

    `labels` is as in `open_texts`, or None where the label column is needed; `preview` is as in `open_corpus`.
    """

    options: TextOptions
    unescape: bool
    scratch: Path
    notes: list[str]
    labels: frozenset[str] | None = None
    preview: bool = False

    def resolve_folder(self, path: Path) -> Source:
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

    def resolve_file(self, origin: Path, split: str, train: Source | None) -> Source:
        """Resolve a file; `split` is in the name of an unpacked copy, `train` is given where this is another split."""
        path, num_bytes = self._unpack_if_gzip(origin, split)
        detect.check_is_text(path, origin)
        format = self.options.format  # noqa: A001 - the word users know
        if format == "auto":
            format = detect.format_from_name(origin.name) or detect.format_from_content(path, origin)  # noqa: A001
        sample = detect.read_sample(path, format)
        if not sample.lines:
            raise _no_records_error(origin, sample)
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
            source = self._with_keys(source, sample, train)
        else:
            source = self._with_columns(source, sample, train)
        if format != "lines":
            self.notes.append(_describe_reading(source))
        return source

    def _unpack_if_gzip(self, origin: Path, split: str) -> tuple[Path, int]:
        """Return the file to read in place of `origin`, and its full size in bytes."""
        suffixes = [suffix.lower() for suffix in origin.suffixes]
        if any(suffix in detect.ARCHIVES for suffix in suffixes[-2:]):
            raise CorpusFormatError(f"'{origin}' is an archive; unpack it and give the folder")
        if not origin.is_file():
            raise CorpusFormatError(
                f"'{origin}' is not a regular file; a corpus needs random access: save it to a file first"
            )
        if suffixes[-1:] != [".gz"]:
            return origin, origin.stat().st_size
        target = self.scratch / f"{split}-{origin.stem}"
        return target, unpack_gzip(origin, target, keep_bytes=PREVIEW_BYTES if self.preview else None)

    def _with_columns(self, source: Source, sample: detect.Sample, train: Source | None) -> Source:
        options, rows = self.options, list(split_fields(source.format, sample.lines))
        label: int | None
        if source.format == "lines":
            return replace(source, label_column=None, text_columns=(0,), num_columns=1)
        header = options.header
        if header is None:
            same = train is not None and train.header == _strip_all(rows[0])
            header = sample.first_is_good and (same or columns.has_header(rows, options, labelled=self.labels is None))
        elif header and not sample.first_is_good and sample.first_bad is not None:
            line, reason = sample.first_bad
            raise CorpusFormatError(f"{source.origin}, line {line}: the header cannot be read: {reason}")
        names, num_columns = _strip_all(rows[0]) if header else None, len(rows[0])
        if header and len(rows) < 2 and sample.first_bad is None:
            raise CorpusNotFoundError(f"'{source.origin}' has a header and no records after it")
        if train is not None and train.num_columns and names is None and train.num_columns != num_columns:
            raise CorpusFormatError(
                f"'{source.origin}' has {num_columns} columns, the training split '{train.origin}' has "
                f"{train.num_columns}; all splits need the same columns"
            )
        if train is not None and names is None and isinstance(train.label_column, int):
            label, texts = train.label_column, train.text_columns
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

    def _with_keys(self, source: Source, sample: detect.Sample, train: Source | None) -> Source:
        if train is not None and train.format == "jsonl":
            return replace(source, label_column=train.label_column, text_columns=train.text_columns)
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
                first_reason = (
                    "a JSON array begins here; JSON Lines has one object per line (convert it with `jq -c '.[]'`)"
                )
            raise CorpusFormatError(
                f"{source.origin}, line {sample.line_numbers[0]}: {first_reason or 'not an object'}; none of the first "
                f"{len(sample.lines)} lines is a JSON object"
            )
        named = {self.options.label_column, *(self.options.text_columns or ())}
        # Keys of at least half of the objects: a row with others must not decide; it is reported as a bad row.
        keys = [key for key, number in counts.items() if 2 * number >= num_objects or key in named]
        if self.labels is not None:
            texts = columns.choose_text_keys(keys, self.options, source.origin)
            return replace(source, label_column=None, text_columns=texts)
        label, texts = columns.choose_keys(keys, self.options, source.origin)
        return replace(source, label_column=label, text_columns=texts)


def _no_records_error(origin: Path, sample: detect.Sample) -> CorpusFormatError | CorpusNotFoundError:
    if sample.first_bad is None:
        return CorpusNotFoundError(f"'{origin}' is empty; expected records with a label and a text each")
    line, reason = sample.first_bad
    return CorpusFormatError(
        f"{origin}, line {line}: {reason}; no other record at the start of the file can be read either"
    )


def _strip_all(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.strip() for name in names)


def _describe_reading(source: Source) -> str:
    name, format_name = Path(source.origin).name, _FORMAT_NAMES[source.format]
    label = f"label '{source.column_name(source.label_column)}', "
    unnamed = f"label in column {source.label_column}, "
    if source.label_column is None:
        label = unnamed = ""
    texts = [source.column_name(column) for column in source.text_columns]
    counted = " and ".join(map(str, texts)) + ", counted from 0"
    if source.format == "jsonl":
        where = f"{label}text {_quote_all(texts)}"
    elif source.header is not None:
        where = f"with a header; {label}text {_quote_all(texts)}"
    else:
        where = f"no header; {unnamed}text in {'column' if len(texts) == 1 else 'columns'} {counted}"
    return f"{name}: {format_name}, {where}"


def _quote_all(names: Sequence[object]) -> str:
    return ", ".join(f"'{name}'" for name in names)

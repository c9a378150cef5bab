"""Resolve how the files of a split are read: format, dialect, header and columns, from their names and first records.

A split is one file or several parts, which must have the same columns. What is detected is reported in notes, one line
each, so that a wrong guess is seen before anything is built from it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shardtrain.corpus import columns, detect, folders, label_check
from shardtrain.corpus.blocks import read_blocks, read_columns
from shardtrain.corpus.columnar import ColumnarFile, copied_columns, require_pyarrow, system_memory
from shardtrain.corpus.detect import SAMPLE_RECORDS
from shardtrain.corpus.dialects import Dialect, detect_dialect
from shardtrain.corpus.label_spelling import canonical_label
from shardtrain.corpus.notes import FORMAT_NAMES, check_same_columns, describe_reading, quote_all, repeated_names
from shardtrain.corpus.options import TextOptions
from shardtrain.corpus.parsing import parse_json, split_fields
from shardtrain.corpus.reading import Reading
from shardtrain.corpus.records import LINES, Syntax
from shardtrain.corpus.source import Source, SourceFile
from shardtrain.corpus.staging import Scratch, Staged, staged
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError

_USUAL = {"csv": ",", "tsv": "\t"}  # delimiters


@dataclass(frozen=True, kw_only=True)
class Resolver:
    """Resolve how the splits of one corpus are read.

    Attributes:
        options: what the user chose, or what is remembered of another corpus.
        unescape: see `TextOptions`.
        scratch: for copies of files that cannot be read from any position.
        notes: what was detected is appended.
        labels: the known labels; a first column that holds only these is not a text, in a file without header; None
            where the label column is needed.
        class_names: names that come with a column of class indices are appended.
        remembered: how the corpus was read that this one is expected to be like.
    """

    options: TextOptions
    unescape: bool
    scratch: Scratch
    notes: list[str]
    labels: frozenset[str] | None = None
    class_names: list[tuple[str, ...]] = field(default_factory=list)
    remembered: Reading | None = None

    def _source(self, origin: Path, format: str, **known: Any) -> Source:  # noqa: A002 - the word users know
        """Return a source of this corpus, without columns but those that are `known`."""
        blank = Source(
            origin=str(origin),
            format=format,
            label_column=None,
            text_columns=(),
            unescape=self.unescape,
            on_bad_row=self.options.on_bad_row,
        )
        return replace(blank, **known)

    def resolve_folder(self, path: Path) -> Source:
        """Resolve a folder that has a folder of text files per class."""
        found, num_bytes, notes = folders.find_class_folders(path)
        self.notes.append(f"{path.name}: a folder per class, {len(found):,} classes")
        self.notes.extend(notes)
        return self._source(
            path,
            "folder",
            label_column="",
            encoding=self.options.encoding or "utf-8",
            folders=found,
            folder_bytes=num_bytes,
        )

    def resolve_files(self, origins: Sequence[Path], split: str, train: Source | None) -> Source:
        """Resolve the parts of a split.

        Args:
            origins: the files, in the order of their documents.
            split: names copies.
            train: the training split, if this is another one.

        Raises:
            CorpusNotFoundError: a file is empty.
            CorpusFormatError: a file cannot be read as a corpus, or parts have different columns.
        """
        sources: list[Source] = []
        for number, origin in enumerate(origins):
            like = sources[0] if sources else train
            try:
                found = self._resolve(origin, f"{split}-{number}", like, part=bool(sources))
            except CorpusNotFoundError:
                if len(origins) == 1:
                    raise
                self.notes.append(f"{origin.name} has no records and is omitted")
                continue
            if sources:
                check_same_columns(found, sources[0])
            elif found.format != "lines":
                self.notes.append(describe_reading(found))
            sources.append(found)
        if not sources:
            raise CorpusNotFoundError(f"'{origins[0]}' has no records, nor have the other parts")
        first, *others = sources
        if others:
            more = f"{len(others):,} more file{'s' if others[1:] else ''} are read one after the other"
            self.notes.append(f"{Path(first.origin).name} and {more}")
        return replace(first, files=(*first.files, *(file for part in others for file in part.files)))

    def _resolve(self, origin: Path, copy: str, like: Source | None, *, part: bool = False) -> Source:
        """Resolve one file; `like` is a source with the same columns, with `part` of the same format and dialect."""
        _check_is_file(origin)
        format = self._format_of_columns(origin)  # noqa: A001 - the word users know
        if format:
            require_pyarrow(origin)
            with system_memory():
                return self._resolve_columnar(origin, copy, format, like)
        name = detect.format_from_name(origin.name)
        wanted = self.options.format if self.options.format != "auto" else name
        found = staged(
            origin,
            f"{copy}-{origin.name}",
            self.scratch,
            encoding=self.options.encoding,
            usual=self.remembered.encoding if self.remembered else "utf-8",
            json_file=wanted == "jsonl",
        )
        self.notes.extend(() if part else found.notes)
        options = replace(self.options, delimiter=like.syntax.delimiter) if part and like else self.options
        resolved, dialect = self._format(origin, found, wanted, options, part=part)
        if not dialect.sample.lines:
            raise _no_records_error(origin, dialect.sample)
        how = {"syntax": dialect.syntax, "encoding": found.encoding}
        source = self._source(origin, resolved, files=(found.file,), text_columns=(0,), **how)
        if resolved == "lines":
            return replace(source, num_columns=1)
        if resolved == "jsonl":
            source = self._with_keys(source, dialect.sample, like)
        elif resolved == "fasttext":
            source = replace(source, label_column=0 if self.labels is None else None, text_columns=(1,))
        else:
            source = self._with_columns(source, dialect.sample, like)
        return label_check.examined(source, dialect.sample, self.options)

    def _format_of_columns(self, origin: Path) -> str | None:
        """Return "parquet" or "arrow" for such a file, by its first bytes."""
        with open(origin, "rb") as file:
            head = file.read(8)
        found = next((name for magic, name in detect.COLUMNAR if head.startswith(magic)), None)
        chosen = self.options.format if self.options.format != "auto" else detect.format_from_name(origin.name)
        if found is None and chosen in ("parquet", "arrow"):
            raise CorpusFormatError(
                f"'{origin}' is not {FORMAT_NAMES[chosen]}: its first bytes are {head[:4]!r}; choose another --format"
            )
        if found and self.options.format not in ("auto", found):
            raise CorpusFormatError(f"'{origin}' is {FORMAT_NAMES[found]}; omit --format {self.options.format}")
        return found

    def _format(
        self, origin: Path, found: Staged, wanted: str | None, options: TextOptions, *, part: bool
    ) -> tuple[str, Dialect]:
        """Return the format of a file of text, and its dialect with the first records."""
        path, begin = Path(found.file.path), found.file.data_start
        wanted = wanted or detect.format_from_name(found.name)
        by_content = detect.format_from_content(path)
        if found.file.counted == "item":
            wanted = "jsonl"
        elif self.options.format == "auto" and wanted != "lines" and by_content in ("fasttext", "jsonl"):
            wanted = by_content
        if wanted is None and self.labels is not None:
            wanted = self._like_training(path, begin) or "lines"
        if wanted in ("jsonl", "fasttext", "lines"):
            syntax = LINES if wanted == "lines" else Syntax()
            return wanted, Dialect(syntax=syntax, sample=detect.read_sample(path, syntax, begin=begin))
        format = wanted or by_content or "csv"  # noqa: A001 - the word users know
        dialect = detect_dialect(
            path,
            _USUAL[format],
            options,
            begin=begin,
            origin=origin,
            plausible=self._is_plausible,
            remembered=self.remembered.syntax if self.remembered else None,
        )
        rows = split_fields(dialect.syntax, dialect.sample.lines)
        if wanted is None and by_content is None and (not rows or len(rows[0]) < 2 or len({*map(len, rows)}) > 1):
            raise CorpusFormatError(
                f"'{origin}' has no known extension, and its first lines are not CSV, TSV, JSON Lines or fastText; "
                "choose one with --format"
            )
        self.notes.extend(() if part else dialect.notes)
        return format, dialect

    def _like_training(self, path: Path, begin: int) -> str | None:
        """Return "csv" or "tsv" for a file that has the dialect, columns and labels of the training corpus, else None.

        So texts are not taken for lines with their labels in a file without an extension.
        """
        known = self.remembered
        if known is None or known.syntax is None or known.label is None or not known.texts:
            return None
        sample = detect.read_sample(path, known.syntax, begin=begin)
        rows = split_fields(known.syntax, sample.lines)
        if known.header:
            names = [name.strip() for name in rows[0]] if rows else []
            there = known.texts_in(names) is not None and known.label_in(names) is not None
        else:
            label, last = known.label, max(int(column) for column in known.columns if isinstance(column, int))
            there = bool(rows) and all(
                len(row) > last and not self._unknown_label(row[int(label)].strip()) for row in rows
            )
        return ("tsv" if known.syntax.delimiter == "\t" else "csv") if there else None

    def _unknown_label(self, label: str) -> bool:
        return self.labels is not None and not {label, canonical_label(label)} & self.labels

    def _is_plausible(self, rows: Sequence[Sequence[str]], usual: bool) -> bool:
        if self.labels is None:
            return len(rows[0]) > 1 and columns.may_have_label(rows, self.options)
        if usual or len(rows[0]) < 2:
            return usual
        return columns.has_header(rows, self.options, labelled=False) or all(
            row[0].strip() in self.labels for row in rows
        )

    def _with_columns(self, source: Source, sample: detect.Sample, like: Source | None) -> Source:
        options, rows = self.options, split_fields(source.syntax, sample.lines)
        header = self._has_header(source, sample, rows, like)
        num_columns = columns.width(rows, header=header)
        names = _strip_all(rows[0])[:num_columns] if header else None
        if header and len(rows) < 2 and sample.first_bad is None:
            raise CorpusNotFoundError(f"'{source.origin}' has a header and no records after it")
        if like is not None and like.num_columns and names is None and like.num_columns != num_columns:
            raise CorpusFormatError(
                f"'{source.origin}' has {num_columns} column{'s' * (num_columns != 1)}, '{like.origin}' has "
                f"{like.num_columns}; all files of a corpus need the same columns"
            )
        if like is not None and names is not None and self.labels is None:
            _check_has_label(source, names, like)
        records = rows[1:] if header else rows
        if like is None:
            options = self._as_remembered(source, names, num_columns)
        if (like is not None and names == like.header and like.num_columns == num_columns) or (
            like is not None and names is None and isinstance(like.label_column, int)
        ):
            label, texts = like.label_column, like.text_columns
        elif self.labels is not None:
            label, texts = None, columns.choose_texts(names, records, options, source.origin, self.labels)
        else:
            label, texts = label_check.choose_columns(names, records, options, source.origin)
        if names is not None and like is None:
            self.notes.extend(repeated_names(source, names))
        start, line = sample.after_first if header else (sample.begin, sample.first_line)
        file = replace(source.files[0], data_start=start, data_line=line)
        first_label = None
        if options.header is None and names is None and like is None and isinstance(label, int):
            doubtful = sample.first_is_good and columns.may_be_header(rows[0])
            first_label = canonical_label(rows[0][label].strip()) if doubtful else None
        return replace(
            source,
            files=(file,),
            label_column=label,
            text_columns=tuple(texts),
            num_columns=num_columns,
            header=names,
            first_label=first_label,
        )

    def _has_header(
        self, source: Source, sample: detect.Sample, rows: Sequence[Sequence[str]], like: Source | None
    ) -> bool:
        """Return whether the first record is a header: by the option, by known columns, or by its looks."""
        if self.options.header is None:
            first = _strip_all(rows[0])
            known = like is not None and like.header is not None and {*first} <= {*like.header}
            known = known or (self.remembered is not None and self.remembered.names_some(first))
            labelled = self.labels is None
            return sample.first_is_good and (known or columns.has_header(rows, self.options, labelled=labelled))
        if self.options.header and not sample.first_is_good and sample.first_bad is not None:
            line, reason = sample.first_bad
            raise CorpusFormatError(f"{source.origin}, line {line}: the header cannot be read: {reason}")
        return self.options.header

    def _with_keys(self, source: Source, sample: detect.Sample, like: Source | None) -> Source:
        if like is not None and like.format == "jsonl":
            return replace(source, label_column=like.label_column, text_columns=like.text_columns)
        return self._with_named(source, _keys_of(source, sample, self.options))

    def _with_named(self, source: Source, names: Sequence[str], rows: Sequence[Sequence[str]] = ()) -> Source:
        """Choose the columns of a file whose columns always have names; `rows` are its first ones."""
        options = self._as_remembered(source, names, len(names))
        if self.labels is not None:
            texts = columns.choose_text_keys(names, options, source.origin)
            return replace(source, label_column=None, text_columns=texts)
        label, texts = columns.choose_keys(names, options, source.origin, rows)
        return replace(source, label_column=label, text_columns=texts, keys=tuple(names))

    def _as_remembered(self, source: Source, names: Sequence[str] | None, num_columns: int) -> TextOptions:
        """Return the options with the columns that are remembered where the user chose none and the file has them.

        A file that has other columns is reported; columns are then chosen as if nothing were remembered.
        """
        if self.remembered is None:
            return self.options
        found = self.remembered.columns_for(self.options, names, num_columns, by_index=source.format in _USUAL)
        if found is None:
            self.notes.append(
                f"{Path(source.origin).name} does not have the columns of the training corpus (text "
                f"{quote_all(self.remembered.texts)}); --text-columns and --label-column choose others"
            )
        return found or self.options

    def resolve_rows(self, origin: Path) -> Source:
        """Resolve rows that a program gave, which are in blocks already; see `corpus.rows`."""
        given = read_columns(origin)
        if given.get("class_names"):
            self.class_names.append(tuple(given["class_names"]))
        size = origin.stat().st_size
        file = SourceFile(path=str(origin), origin=str(origin), num_bytes=size, origin_bytes=size, counted="row")
        label = given["label"] if self.labels is None else None
        source = self._source(origin, "rows", files=(file,), label_column=label, text_columns=tuple(given["texts"]))
        labels, missing, texts = read_blocks(origin, 0, 1)
        rows = [["" if absent else label, text] for label, absent, text in zip(labels, missing, texts, strict=True)]
        names = [str(source.label_column), ", ".join(map(str, given["texts"]))]
        return label_check.examined_rows(source, names, rows[:SAMPLE_RECORDS], self.options)

    def _resolve_columnar(self, origin: Path, copy: str, format: str, like: Source | None) -> Source:  # noqa: A002
        """Resolve a Parquet or Arrow file, and write its columns to blocks."""
        opened = ColumnarFile(origin, format, self.scratch.memory_limit)
        names = opened.names()
        sample = opened.sample(names)
        source = self._source(origin, format)
        if (
            like is not None
            and like.format in ("parquet", "arrow")
            and {like.label_column, *like.text_columns} <= {*names}
        ):
            source = replace(source, label_column=like.label_column, text_columns=like.text_columns)
        else:
            label_check.refuse_lists(opened.lists(), self.options, source.origin)
            opened.refuse_unusable((self.options.label_column, *(self.options.text_columns or ())))
            source = self._with_named(source, names, sample)
        if source.label_column is not None and (found := opened.class_names(source.label_column)):
            self.class_names.append(found)
        source = label_check.examined_rows(source, names, sample, self.options)
        file = copied_columns(opened, source.label_column, source.text_columns, self.scratch, f"{copy}-{origin.name}")
        return replace(source, files=(file,))


def _check_has_label(source: Source, names: Sequence[str], like: Source) -> None:
    """Check that a file has the label column of another one, or one with a usual name."""
    label = like.column_name(like.label_column)
    if isinstance(label, str) and label not in names and not any(map(columns.is_label_name, names)):
        raise CorpusFormatError(
            f"'{source.origin}' has no column '{label}', in which '{like.origin}' has its labels; without them a file "
            f"can only be classified by `predict`: build from '{like.origin}' alone, or name another file"
        )


def _check_is_file(origin: Path) -> None:
    suffixes = [suffix.lower() for suffix in origin.suffixes]
    if any(suffix in detect.ARCHIVES for suffix in suffixes[-2:]):
        raise CorpusFormatError(f"'{origin}' is an archive; unpack it and give the folder")
    if not origin.is_file():
        raise CorpusFormatError(
            f"'{origin}' is not a regular file; a corpus needs random access: save it to a file first"
        )


def _keys_of(source: Source, sample: detect.Sample, options: TextOptions) -> list[str]:
    """Return the keys of at least half of the first objects: a row with others must not decide; it is a bad row."""
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
        raise CorpusFormatError(
            f"{source.origin}, {source.files[0].counted} {sample.line_numbers[0]}: {first_reason or 'not an object'}; "
            f"none of the first {len(sample.lines)} is a JSON object (`jq -c .` writes one object per line)"
        )
    named = {options.label_column, *(options.text_columns or ())}
    return [key for key, number in counts.items() if 2 * number >= num_objects or key in named]


def _no_records_error(origin: Path, sample: detect.Sample) -> CorpusFormatError | CorpusNotFoundError:
    if sample.first_bad is None:
        return CorpusNotFoundError(f"'{origin}' is empty; expected records with a label and a text each")
    line, reason = sample.first_bad
    return CorpusFormatError(
        f"{origin}, line {line}: {reason}; no other record at the start of the file can be read either"
    )


def _strip_all(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.strip() for name in names)

"""Render the report of a folder of shards as an HTML page; everything on it is computed by `analysis`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shardtrain.report import svg
from shardtrain.report.analysis import NAMES, ShardsAnalysis, analyze_shards
from shardtrain.report.build_page import build_section
from shardtrain.report.features_page import distinctive_section, features_section
from shardtrain.report.formatting import MAX_NAME, format_value, truncate
from shardtrain.report.markup import Markup, element, joined
from shardtrain.report.page import Section, figure, grid, key_value_table, legend, render_page, table, tiles
from shardtrain.report.row_statistics import Counts
from shardtrain.runtime.quantities import size
from shardtrain.shards.packing import codec_of

_MAX_BARS = 24
_MAX_ROWS = 200  # of a table
_ENTRY = {"ngram": "n-grams", "sequence": "in-vocabulary words", "dense": "non-zero features"}


def shards_page(folder: Path, *, scratch: Path) -> str:
    """Render the report of the shards in `folder`; arguments and errors are those of `analyze_shards`."""
    analysis = analyze_shards(folder, scratch=scratch)
    manifest = analysis.manifest
    num_bytes = sum(shard.bytes for split in manifest.splits.values() for shard in split.shards)
    named = [
        (
            f"{NAMES[name]} rows",
            f"{split.examples:,}",
            f"{analysis.statistics[name].mean:,.1f} {_ENTRY[manifest.kind]} per row",
        )
        for name, split in manifest.splits.items()
    ]
    lead = f"{_columns(analysis)}, {len(manifest.class_names):,} classes, seed {manifest.seed}."
    sections = [
        Section(
            name="rows",
            title="Rows",
            body=grid(_classes(analysis), *_draw_document_lengths(analysis), *_draw_row_lengths(analysis)),
        ),
        Section(name="features", title="Features", body=features_section(analysis)),
        Section(name="distinctive", title="Most distinctive features", body=distinctive_section(analysis)),
        Section(name="duplicates", title="Duplicate rows", body=_duplicates(analysis)),
        Section(name="files", title="Files", body=_files(analysis)),
        Section(name="build", title="Build", body=build_section(analysis)),
    ]
    top = tiles(*named, ("on disk", size(num_bytes), f"{_files_count(analysis):,} files"), *_duplicates_tiles(analysis))
    return render_page("Shards", _name(folder), lead, top, sections)


def _name(folder: Path) -> str:
    return folder.name or folder.resolve().name


def _columns(analysis: ShardsAnalysis) -> str:
    manifest = analysis.manifest
    if manifest.kind == "sequence":
        return f"Sequences of {manifest.num_features:,} token ids, {manifest.vocabulary_size - 1:,} words"
    return f"{manifest.num_features:,} {'n-gram' if manifest.kind == 'ngram' else 'dense'} columns"


def _files_count(analysis: ShardsAnalysis) -> int:
    return sum(len(split.shards) for split in analysis.manifest.splits.values())


def _duplicates_tiles(analysis: ShardsAnalysis) -> list[tuple[str, str, str]]:
    shared = {"validation": analysis.duplicates.shared, "test": analysis.duplicates.test_shared}
    found = [
        (
            f"{name} rows also in training",
            f"{count:,}",
            f"{_percent(count, analysis.statistics[name].rows)} of {name} rows",
        )
        for name, count in shared.items()
        if name in analysis.statistics
    ]
    return found or [("duplicate rows", f"{analysis.duplicates.train_repeated:,}", "equal to an earlier row")]


def _classes(analysis: ShardsAnalysis) -> Markup:
    splits = analysis.manifest.splits
    names = analysis.manifest.class_names
    counts = {name: split.class_counts for name, split in splits.items()}
    order = sorted(range(len(names)), key=lambda index: -counts["train"][index])
    drawn = order[:_MAX_BARS] if len(order) > _MAX_BARS else sorted(order)
    rows = [
        svg.Bar(
            label=names[index],
            values=tuple(each[index] / splits[name].examples for name, each in counts.items()),
            shown=tuple(f"{each[index] / splits[name].examples:.1%}" for name, each in counts.items()),
            hint=f"{names[index]}: " + ", ".join(f"{NAMES[name]} {each[index]:,}" for name, each in counts.items()),
        )
        for index in drawn
    ]
    values = table(
        ("class", *(f"{NAMES[name]} rows" for name in counts)),
        [(names[index], *(f"{each[index]:,}" for each in counts.values())) for index in sorted(order[:_MAX_ROWS])],
        caption=f"Rows of each class{_limit_note(len(order), _MAX_ROWS, 'classes')}",
        tall=True,
        hide_caption=True,
    )
    most, least = order[0], order[-1]
    note = (
        f"{truncate(names[most], MAX_NAME)} has the most training rows, {counts['train'][most]:,}; "
        f"{truncate(names[least], MAX_NAME)} the fewest, {counts['train'][least]:,}."
    )
    if counts["train"][most] == counts["train"][least]:
        note = f"All classes have the same number of training rows, {counts['train'][most]:,}."
    if len(order) > _MAX_BARS:
        note += f" The {_MAX_BARS} most frequent of {len(order):,} classes are shown."
    alt = f"Share of each class in {' and '.join(NAMES[name] for name in counts)}. {note}"
    series = legend(*(NAMES[name] for name in counts)) if len(counts) > 1 else None
    return figure("Class distribution", note, svg.bars(rows, alt=alt), legend=series, values=values)


def _limit_note(number: int, limit: int, what: str) -> str:
    return f", the first {limit:,} of {number:,} {what}" if number > limit else ""


def _draw_document_lengths(analysis: ShardsAnalysis) -> tuple[Markup, ...]:
    """Draw the lengths of sampled documents in words, which rows of n-grams do not show."""
    lengths = analysis.document_lengths
    if lengths is None:
        return ()
    drawn = _trim_tail(lengths, lengths)
    bins = svg.histogram_bins([drawn.tolist()], [NAMES["train"]], "words")
    least, _, middle, most, longest = _quantiles(lengths)
    note = (
        f"Words per document in a sample of {int(lengths.sum()):,} training documents: median {middle}, "
        f"95th percentile {most}, minimum {least}, maximum {longest}."
    )
    alt = f"Histogram of words per document. {note}"
    chart = svg.histogram(bins, alt=alt, x_label="words per document", y_label="share of documents")
    return (figure("Document lengths", note, chart),)


def _draw_row_lengths(analysis: ShardsAnalysis) -> tuple[Markup, Markup]:
    unit = _ENTRY[analysis.manifest.kind]
    statistics = analysis.statistics
    drawn = [_trim_tail(each.lengths, statistics["train"].lengths) for each in statistics.values()]
    bins = svg.histogram_bins([each.tolist() for each in drawn], [NAMES[name] for name in statistics], unit)
    stated = [(*_quantiles(each.lengths), f"{each.mean:,.1f}", f"{each.empty:,}") for each in statistics.values()]
    heads = ("minimum", "5th percentile", "median", "95th percentile", "maximum", "mean", "empty rows")
    rows = [(name, *each) for name, *each in zip(heads, *stated, strict=True)]
    middle = {NAMES[name]: each[2] for name, each in zip(statistics, stated, strict=True)}
    note = f"Median {' / '.join(middle.values())} {unit} per row ({' / '.join(middle)})."
    beyond = int(statistics["train"].lengths[len(drawn[0]) :].sum())
    if beyond:
        note += f" {beyond:,} training rows have {len(drawn[0]):,} or more and are not shown."
    if analysis.manifest.kind == "sequence":
        full = int(statistics["train"].lengths[analysis.manifest.num_features :].sum())
        places = analysis.manifest.num_features
        note += f" {full:,} training rows fill all {places:,} positions; longer texts were truncated at the beginning."
    chart = svg.histogram(
        bins, alt=f"Histogram of {unit} per row. {note}", x_label=f"{unit} per row", y_label="share of rows"
    )
    title = "Document lengths" if analysis.manifest.kind == "sequence" else "Non-zeros per row"
    series = legend(*(NAMES[name] for name in statistics), outline=True) if len(statistics) > 1 else None
    summary = table(("", *(NAMES[name] for name in statistics)), rows, caption=f"{unit.capitalize()} per row")
    return figure(title, note, chart, legend=series), summary


def _trim_tail(lengths: Counts, reference: Counts) -> Counts:
    """Cut off the long tail of a histogram: it ends at twice the 99th percentile of `reference`."""
    ends = np.cumsum(reference)
    limit = 2 * int(np.searchsorted(ends, 0.99 * ends[-1])) + 1
    return np.pad(lengths[:limit], (0, max(0, min(limit, len(reference)) - len(lengths))))


def _quantiles(lengths: Counts) -> tuple[str, ...]:
    ends = np.cumsum(lengths)
    total = int(ends[-1])
    places = [0, int(0.05 * total), (total - 1) // 2, int(0.95 * total), total - 1]
    return tuple(f"{int(np.searchsorted(ends, min(place, total - 1), side='right')):,}" for place in places)


def _duplicates(analysis: ShardsAnalysis) -> Markup:
    duplicates, statistics = analysis.duplicates, analysis.statistics
    rows = [
        ("training rows", f"{statistics['train'].rows:,}", ""),
        (
            "duplicates of an earlier training row",
            f"{duplicates.train_repeated:,}",
            _percent(duplicates.train_repeated, statistics["train"].rows),
        ),
        (
            "duplicates of a training row of another class",
            f"{duplicates.contradicting:,}",
            _percent(duplicates.contradicting, statistics["train"].rows),
        ),
    ]
    held_out = {
        "validation": (duplicates.validation_repeated, duplicates.shared, duplicates.shared_same_class),
        "test": (duplicates.test_repeated, duplicates.test_shared, duplicates.test_shared_same_class),
    }
    for name, (repeated, shared, same_class) in held_out.items():
        if name in statistics:
            total, other = statistics[name].rows, shared - same_class
            rows += [
                (f"{name} rows", f"{total:,}", ""),
                (f"duplicates of an earlier {name} row", f"{repeated:,}", _percent(repeated, total)),
                ("duplicates of a training row", f"{shared:,}", _percent(shared, total)),
                ("of these, duplicates only of rows of other classes", f"{other:,}", _percent(other, total)),
            ]
    note = (
        "Rows are duplicates if all their features are equal; empty rows are not compared. Validation and test rows "
        "that are also training rows inflate the accuracy measured on them; duplicates of different classes limit the "
        "accuracy that any model can reach."
    )
    return joined(
        element("p", note, class_="soft"),
        table(("", "rows", "share"), rows, caption="Duplicate rows", hide_caption=True),
    )


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.2%}"


def _files(analysis: ShardsAnalysis) -> Markup:
    shards = [(name, shard) for name, split in analysis.manifest.splits.items() for shard in split.shards]
    rows = [(shard.file, NAMES[name], f"{shard.rows:,}", size(shard.bytes)) for name, shard in shards[:_MAX_ROWS]]
    codecs = sorted({codec_of(shard) or "uncompressed" for _, shard in shards})
    caption = f"Shards, {' and '.join(codecs)}{_limit_note(len(shards), _MAX_ROWS, 'shards')}"
    listed = table(("file", "split", "rows", "size"), rows, caption=caption, text=2, tall=len(rows) > 12)
    sources = sorted(analysis.manifest.sources)
    external = [element("p", f"Features are stored in {path}", class_="soft") for path in sources[:_MAX_ROWS]]
    return joined(listed, *external, _described(analysis))


def _described(analysis: ShardsAnalysis) -> Markup:
    described = analysis.manifest.vectorizer
    values = {
        **described.get("settings", {}),
        **{key: value for key, value in described.items() if key not in ("settings", "files")},
    }
    rows = [(str(key), format_value(value)) for key, value in values.items()]
    rows += [
        ("fingerprint of the shards", analysis.manifest.fingerprint),
        ("format version", str(analysis.manifest.version)),
    ]
    return element("details", element("summary", "Vectorizer and fingerprint"), key_value_table("Vectorizer", rows))

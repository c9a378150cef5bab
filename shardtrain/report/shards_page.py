"""The report of a folder of shards as an HTML page: what is found (`findings`) is only worded and drawn here."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shardtrain.report import svg
from shardtrain.report.analysis import NAMES, ShardsAnalysis, analyze_shards
from shardtrain.report.build_page import build
from shardtrain.report.features_page import features, telling
from shardtrain.report.formatting import cut, format_value, size
from shardtrain.report.markup import Markup, element, joined
from shardtrain.report.page import Section, charts, facts, figure, legend, page, settings, table
from shardtrain.report.row_statistics import Counts
from shardtrain.shards.packing import codec_of

_BARS = 24  # of classes
_ROWS = 200  # of a table
_NAME = 40  # characters of a name in a sentence
_ENTRY = {"ngram": "n-grams", "sequence": "words with an id", "dense": "features other than 0"}


def shards_page(folder: Path, *, scratch: Path) -> str:
    """The report of the shards in `folder`; arguments and errors are those of `analyze_shards`."""
    found = analyze_shards(folder, scratch=scratch)
    manifest = found.manifest
    kinds = {"ngram": "n-grams", "sequence": "token ids", "dense": "dense features"}
    num_bytes = sum(shard.bytes for split in manifest.splits.values() for shard in split.shards)
    named = [
        (f"{NAMES[name]} rows", f"{split.examples:,}", f"{found.surveys[name].mean:,.1f} {_ENTRY[manifest.kind]} each")
        for name, split in manifest.splits.items()
    ]
    lead = f"{_columns(found)} of {kinds[manifest.kind]}, {len(manifest.class_names):,} classes, seed {manifest.seed}."
    sections = [
        Section(name="rows", title="Rows", body=charts(_classes(found), *_documents(found), *_lengths(found))),
        Section(name="features", title="Features", body=features(found)),
        Section(name="telling", title="What tells the classes apart", body=telling(found)),
        Section(name="splits", title="Equal rows", body=_splits(found)),
        Section(name="files", title="Files", body=_files(found)),
        Section(name="build", title="Build", body=build(found)),
    ]
    top = facts(*named, ("on disk", size(num_bytes), f"{_files_count(found):,} files"), _share_equal(found))
    return page("Shards", _name(folder), lead, top, sections)


def _name(folder: Path) -> str:
    return folder.name or folder.resolve().name


def _columns(found: ShardsAnalysis) -> str:
    manifest = found.manifest
    if manifest.kind == "sequence":
        return f"Rows of {manifest.num_features:,} places, {manifest.vocabulary_size - 1:,} words"
    return f"{manifest.num_features:,} columns"


def _files_count(found: ShardsAnalysis) -> int:
    return sum(len(split.shards) for split in found.manifest.splits.values())


def _share_equal(found: ShardsAnalysis) -> tuple[str, str, str]:
    if "validation" not in found.surveys:
        return ("repeated rows", f"{found.overlap.train_repeated:,}", "equal to an earlier row")
    share = found.overlap.shared / found.surveys["validation"].rows
    return ("validation rows in training", f"{found.overlap.shared:,}", f"{share:.2%} of them")


def _classes(found: ShardsAnalysis) -> Markup:
    splits = found.manifest.splits
    names = found.manifest.class_names
    counts = {name: split.class_counts for name, split in splits.items()}
    order = sorted(range(len(names)), key=lambda index: -counts["train"][index])
    drawn = order[:_BARS] if len(order) > _BARS else sorted(order)
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
        [(names[index], *(f"{each[index]:,}" for each in counts.values())) for index in sorted(order[:_ROWS])],
        caption=f"Rows of each class{_first(len(order), _ROWS, 'classes')}",
        tall=True,
        hide_caption=True,
    )
    most, least = order[0], order[-1]
    told = (
        f"{cut(names[most], _NAME)} has the most training rows, {counts['train'][most]:,}; {cut(names[least], _NAME)} "
        f"the fewest, {counts['train'][least]:,}."
    )
    if counts["train"][most] == counts["train"][least]:
        told = f"All classes have the same number of training rows, {counts['train'][most]:,}."
    if len(order) > _BARS:
        told += f" The {_BARS} most frequent of {len(order):,} classes are drawn."
    alt = f"Share of each class in {' and '.join(NAMES[name] for name in counts)}. {told}"
    series = legend(*(NAMES[name] for name in counts)) if len(counts) > 1 else None
    return figure("Class distribution", told, svg.bars(rows, alt=alt), legend=series, values=values)


def _first(number: int, limit: int, what: str) -> str:
    return f", the first {limit:,} of {number:,} {what}" if number > limit else ""


def _documents(found: ShardsAnalysis) -> tuple[Markup, ...]:
    """The lengths of the documents themselves, where n-grams do not tell them."""
    if found.words is None:
        return ()
    drawn = _trimmed(found.words, found.words)
    bins = svg.histogram_bins([drawn.tolist()], [NAMES["train"]], "words")
    least, _, middle, most, longest = _quantiles(found.words)
    told = (
        f"Of {int(found.words.sum()):,} training documents half have at most {middle} words, 95% at most {most}; "
        f"the shortest has {least}, the longest {longest}."
    )
    alt = f"Histogram of words a document. {told}"
    chart = svg.histogram(bins, alt=alt, x_label="words a document", y_label="share of documents")
    return (figure("Document lengths", told, chart),)


def _lengths(found: ShardsAnalysis) -> tuple[Markup, Markup]:
    unit = _ENTRY[found.manifest.kind]
    surveys = found.surveys
    drawn = [_trimmed(survey.lengths, surveys["train"].lengths) for survey in surveys.values()]
    bins = svg.histogram_bins([each.tolist() for each in drawn], [NAMES[name] for name in surveys], unit)
    stated = [(*_quantiles(survey.lengths), f"{survey.mean:,.1f}", f"{survey.empty:,}") for survey in surveys.values()]
    heads = ("least", "5% have at most", "median", "95% have at most", "most", "mean", "rows without any")
    rows = [(name, *each) for name, *each in zip(heads, *stated, strict=True)]
    middle = {NAMES[name]: each[2] for name, each in zip(surveys, stated, strict=True)}
    told = f"Half of the rows have at most {' / '.join(middle.values())} {unit} ({' / '.join(middle)})."
    beyond = int(surveys["train"].lengths[len(drawn[0]) :].sum())
    if beyond:
        told += f" {beyond:,} training rows have {len(drawn[0]):,} or more and are not drawn."
    if found.manifest.kind == "sequence":
        full = int(surveys["train"].lengths[found.manifest.num_features :].sum())
        places = found.manifest.num_features
        told += f" {full:,} training rows fill all {places:,} places; texts that are longer lost their beginning."
    chart = svg.histogram(
        bins, alt=f"Histogram of {unit} a row. {told}", x_label=f"{unit} a row", y_label="share of rows"
    )
    title = "Document lengths" if found.manifest.kind == "sequence" else "Non-zeros a row"
    series = legend(*(NAMES[name] for name in surveys), outline=True) if len(surveys) > 1 else None
    summary = table(("", *(NAMES[name] for name in surveys)), rows, caption=f"{unit.capitalize()} a row")
    return figure(title, told, chart, legend=series), summary


def _trimmed(lengths: Counts, decisive: Counts) -> Counts:
    """A histogram without the long tail: up to twice what 99% of the decisive one stay below."""
    ends = np.cumsum(decisive)
    limit = 2 * int(np.searchsorted(ends, 0.99 * ends[-1])) + 1
    return np.pad(lengths[:limit], (0, max(0, min(limit, len(decisive)) - len(lengths))))


def _quantiles(lengths: Counts) -> tuple[str, ...]:
    ends = np.cumsum(lengths)
    total = int(ends[-1])
    places = [0, int(0.05 * total), (total - 1) // 2, int(0.95 * total), total - 1]
    return tuple(f"{int(np.searchsorted(ends, min(place, total - 1), side='right')):,}" for place in places)


def _splits(found: ShardsAnalysis) -> Markup:
    overlap, surveys = found.overlap, found.surveys
    rows = [
        ("Training rows", f"{surveys['train'].rows:,}", ""),
        (
            "repeat an earlier training row",
            f"{overlap.train_repeated:,}",
            _of(overlap.train_repeated, surveys["train"].rows),
        ),
        (
            "are equal to a training row of another class",
            f"{overlap.contradicting:,}",
            _of(overlap.contradicting, surveys["train"].rows),
        ),
    ]
    if "validation" in surveys:
        held_out = surveys["validation"].rows
        other = overlap.shared - overlap.shared_same_class
        rows += [
            ("Validation rows", f"{held_out:,}", ""),
            (
                "repeat an earlier validation row",
                f"{overlap.validation_repeated:,}",
                _of(overlap.validation_repeated, held_out),
            ),
            ("are equal to a training row", f"{overlap.shared:,}", _of(overlap.shared, held_out)),
            ("of these, to none of their own class", f"{other:,}", _of(other, held_out)),
        ]
    told = (
        "Rows are equal if all their features are; rows without any feature are left out. Validation rows that are "
        "also training rows make the measured accuracy too good, and equal rows of different classes bound what any "
        "model can reach."
    )
    return joined(
        element("p", told, class_="soft"),
        table(("rows", "number", "share"), rows, caption="Equal rows", hide_caption=True),
    )


def _of(part: int, whole: int) -> str:
    return f"{part / whole:.2%}"


def _files(found: ShardsAnalysis) -> Markup:
    shards = [(name, shard) for name, split in found.manifest.splits.items() for shard in split.shards]
    rows = [(shard.file, NAMES[name], f"{shard.rows:,}", size(shard.bytes)) for name, shard in shards[:_ROWS]]
    codecs = sorted({codec_of(shard) or "plain" for _, shard in shards})
    caption = f"Shards, {' and '.join(codecs)}{_first(len(shards), _ROWS, 'shards')}"
    listed = table(("file", "split", "rows", "size"), rows, caption=caption, text=2, tall=len(rows) > 12)
    sources = sorted(found.manifest.sources)
    foreign = [element("p", f"Features lie in {path}", class_="soft") for path in sources[:_ROWS]]
    return joined(listed, *foreign, _described(found))


def _described(found: ShardsAnalysis) -> Markup:
    described = found.manifest.vectorizer
    values = {
        **described.get("settings", {}),
        **{key: value for key, value in described.items() if key not in ("settings", "files")},
    }
    rows = [(str(key), format_value(value)) for key, value in values.items()]
    rows += [("shards' fingerprint", found.manifest.fingerprint), ("format version", str(found.manifest.version))]
    return element("details", element("summary", "Vectorizer and identity"), settings("Vectorizer", rows))

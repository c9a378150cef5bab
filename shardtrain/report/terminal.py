"""Format a summary of shards as text for a terminal; control characters from the corpus are escaped."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from shardtrain.report.formatting import format_value, truncate
from shardtrain.report.summary import ShardsSummary, SplitSummary
from shardtrain.runtime.quantities import size
from shardtrain.runtime.terminal import aligned, printable

_BAR = 40  # characters of the longest bar
_LINE = 110  # characters of a row's terms
_MAX_CLASSES = 50  # bars of a split


def render(summary: ShardsSummary) -> str:
    """Format the summary as lines of text, without a final newline."""
    return "\n".join(_lines(summary))


def _lines(summary: ShardsSummary) -> Iterator[str]:
    yield (
        f"{printable(summary.path)}: {summary.kind} shards, {summary.features:,} features, {size(summary.bytes)}, "
        f"seed {summary.seed}, format version {summary.format_version}, fingerprint {printable(summary.fingerprint)}"
    )
    if summary.verified:
        done = summary.verified
        yield f"verified: {done.checksums:,} checksums in {done.files:,} files, {size(done.bytes)}: all match"
    yield ""
    yield from _table(summary)
    yield ""
    yield from _chunk_lines(summary)
    for split in summary.splits:
        yield ""
        yield from _bars(split)
    yield ""
    yield from _vectorizer_lines(summary)
    hashed = summary.vectorizer.get("kind") == "hashing"
    placeholder = "(hashed features have no terms)" if hashed else "(no vectorizer to decode with)"
    for split in summary.splits:
        if split.rows:
            yield ""
            yield f"rows of {split.name}"
        for row in split.rows:
            words = placeholder if row.terms is None else ", ".join(row.terms)
            where = f"row {row.row}, document {row.document}, label {printable(row.label)}"
            yield f"  {where}: {truncate(printable(words), _LINE)}"


def _table(summary: ShardsSummary) -> Iterator[str]:
    header = ["split", "shard", "examples", "non-zeros per row: min", "median", "mean", "max", "bytes"]
    table = [header]
    for split in summary.splits:
        for shard in split.shards:
            spread = shard.nonzeros
            table.append(
                [
                    split.name,
                    printable(shard.file),
                    f"{shard.examples:,}",
                    f"{spread.min:,}",
                    f"{spread.median:,g}",
                    f"{spread.mean:,.1f}",
                    f"{spread.max:,}",
                    f"{shard.bytes:,}",
                ]
            )
    yield from aligned(table, text=2)


def _chunk_lines(summary: ShardsSummary) -> Iterator[str]:
    """Format chunk shapes; consecutive shards with equal ones share a line."""
    yield "chunk shapes, in elements"
    shards = [shard for split in summary.splits for shard in split.shards]
    for (chunks, codec, sources), group in groupby(
        shards, key=lambda shard: (shard.chunks, shard.compression, shard.sources)
    ):
        files = [printable(shard.file) for shard in group]
        named = (files[0] if len(files) == 1 else f"{files[0]} to {files[-1]}") + (f", {codec}" if codec else "")
        sizes = (f"{name} {' x '.join(f'{n:,}' for n in chunk) if chunk else 'none'}" for name, chunk in chunks.items())
        yield f"  {named}: {', '.join(sizes)}"
        for source in sources:
            yield f"    features in {printable(source)}"


def _bars(split: SplitSummary) -> Iterator[str]:
    yield f"classes of {split.name}, {split.examples:,} examples"
    drawn = split.classes[:_MAX_CLASSES]
    width = max(len(printable(each.name)) for each in drawn)
    digits = max(len(f"{each.examples:,}") for each in drawn)
    most = max(each.examples for each in split.classes)
    for each in drawn:
        bar = "#" * round(_BAR * each.examples / most) or "." * (each.examples > 0)
        share = 100 * each.examples / split.examples
        yield f"  {printable(each.name):<{width}}  {each.examples:>{digits},}  {share:5.1f} %  {bar}".rstrip()
    if len(split.classes) > len(drawn):
        yield f"  and {len(split.classes) - len(drawn):,} more classes"


def _vectorizer_lines(summary: ShardsSummary) -> Iterator[str]:
    """Format settings and sizes of the vectorizer, without the checksums of its files."""
    facts = {key: value for key, value in summary.vectorizer.items() if key not in ("settings", "files")}
    yield "vectorizer"
    for key, value in {**summary.vectorizer.get("settings", {}), **facts}.items():
        if value in ([], (), {}, None):
            continue
        yield f"  {printable(key)}: {truncate(printable(format_value(value)), _LINE)}"

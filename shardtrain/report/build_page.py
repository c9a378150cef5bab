"""How shards were built, worded and drawn: passes, memory under its ceiling, and the corpora they were made from."""

from __future__ import annotations

from typing import Any

from shardtrain.report import svg
from shardtrain.report.analysis import ShardsAnalysis
from shardtrain.report.formatting import format_value, size
from shardtrain.report.markup import Markup, joined
from shardtrain.report.page import charts, figure, notice, settings, table

_PARTS = 12  # corpora that are shown


def build(found: ShardsAnalysis) -> Markup:
    """Passes and memory of the last build, and the corpora of all."""
    making, parts = found.making, _parts(found)
    corpora = _corpora(parts)
    if making is None:
        return joined(notice("build.json is missing or cannot be read, so times and memory are not known."), corpora)
    num_bytes = _count(parts[-1], "corpus_bytes") if parts else 0
    rates = [f"{num_bytes / seconds / 1e6:,.1f}" if seconds and num_bytes else "" for _, seconds in making.passes]
    bars = [
        svg.Bar(
            label=f"{number} {title}",
            values=(seconds,),
            shown=(f"{seconds:,.1f} s",),
            hint=f"{title}: {seconds:,.2f} s" + (f", {rate} MB/s of the corpus" if rate else ""),
        )
        for number, ((title, seconds), rate) in enumerate(zip(making.passes, rates, strict=True), start=1)
    ]
    rows = [(title, f"{seconds:,.2f}", rate) for (title, seconds), rate in zip(making.passes, rates, strict=True)]
    values = table(("pass", "seconds", "corpus MB/s"), rows, caption="Passes", hide_caption=True)
    overall = f", {num_bytes / max(making.seconds, 1e-9) / 1e6:,.1f} MB of the corpus a second" if num_bytes else ""
    told = f"{making.seconds:,.1f} s in all{overall}, with {making.workers} worker{'s' * (making.workers > 1)}."
    if making.resumed:
        told += " It went on with an interrupted build, whose earlier time is not counted."
    passes = figure("Passes", told, svg.bars(bars, alt=f"Seconds of each pass of the build. {told}"), values=values)
    return charts(passes, _memory(found), corpora)


def _memory(found: ShardsAnalysis) -> Markup | None:
    making = found.making
    if making is None or not making.curve or not making.peak_bytes:
        return None
    numbers = {title: str(number) for number, (title, _) in enumerate(making.passes, start=1)}
    spans = [
        svg.Span(start=start, stop=stop, label=numbers.get(title, ""), hint=f"{title}: {start:,.1f} to {stop:,.1f} s")
        for title, start, stop in making.spans
    ]
    points = tuple((seconds, size / 1e6) for seconds, size in making.curve)
    limit = making.memory_limit / 1e6
    told = (
        f"Anonymous memory of all processes: at most {making.peak_bytes / 1e6:,.0f} MB of {limit:,.0f} MB allowed "
        f"({making.peak_bytes / making.memory_limit:.0%}). Stretches are numbered as the passes are."
    )
    chart = svg.lines(
        [svg.Line(name="memory", points=points)],
        alt=told,
        x_label="seconds",
        y_label="MB",
        y_range=(0, 1.12 * max(limit, making.peak_bytes / 1e6)),
        spans=spans,
        level=(limit, "--memory-limit"),
        area=True,
    )
    values = table(
        ("seconds", "MB"),
        [(f"{seconds:,.2f}", f"{size:,.0f}") for seconds, size in points],
        caption="Memory over time",
        tall=True,
        hide_caption=True,
    )
    return figure("Memory", told, chart, values=values)


def _parts(found: ShardsAnalysis) -> list[dict[str, Any]]:
    """The provenance of each corpus, as far as it is one: the manifest's `build` may hold anything."""
    parts = found.manifest.build.get("parts")
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list | tuple) else []


def _count(part: dict[str, Any], key: str) -> int:
    value = part.get(key)
    return value if isinstance(value, int) else 0


def _corpora(parts: list[dict[str, Any]]) -> Markup:
    """A table for each corpus."""
    tables = []
    for part in parts[:_PARTS]:
        train, own = part.get("train"), part.get("validation")
        fraction = part.get("validation_fraction")
        rows = {
            "corpus": train.get("name") if isinstance(train, dict) else None,
            "validation": own.get("name") if isinstance(own, dict) else None,
            "held out": f"{fraction:.0%}" if isinstance(fraction, float) and not own else None,
            "documents": f"{_count(part, 'documents'):,}",
            "size": size(_count(part, "corpus_bytes")),
            "rejected rows": f"{_count(part, 'rejected_rows'):,}",
            "bytes replaced": f"{_count(part, 'replaced_bytes'):,}",
            "vectorizer": part.get("vectorizer"),
        }
        known = [(name, format_value(value)) for name, value in rows.items() if value is not None]
        tables.append(settings("Made from", known))
    more = notice(f"{len(parts) - _PARTS:,} further corpora are not shown.") if len(parts) > _PARTS else None
    return joined(*tables, more)

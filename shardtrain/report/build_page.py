"""Render the section on the build: passes, memory over time against its limit, and the corpora."""

from __future__ import annotations

from typing import Any

from shardtrain.report import svg
from shardtrain.report.analysis import ShardsAnalysis
from shardtrain.report.formatting import format_value
from shardtrain.report.markup import Markup, joined
from shardtrain.report.page import figure, grid, key_value_table, notice, table
from shardtrain.runtime.quantities import duration, size

_MAX_CORPORA = 12  # shown


def build_section(analysis: ShardsAnalysis) -> Markup:
    """Render passes and memory of the last build, and the corpora of all builds."""
    record, parts = analysis.build_record, _corpora(analysis)
    corpora = _corpora_tables(parts)
    if record is None:
        return joined(notice("Times and memory are unknown: build.json is missing or cannot be read."), corpora)
    num_bytes = parts[-1].get("corpus_bytes", 0) if parts else 0
    rates = [f"{size(num_bytes / seconds)}/s" if seconds and num_bytes else "" for _, seconds in record.passes]
    bars = [
        svg.Bar(
            label=f"{number} {title}",
            values=(seconds,),
            shown=(duration(seconds),),
            hint=f"{title}: {duration(seconds)}" + (f", {rate} of the corpus" if rate else ""),
        )
        for number, ((title, seconds), rate) in enumerate(zip(record.passes, rates, strict=True), start=1)
    ]
    rows = [(title, f"{seconds:,.2f}", rate) for (title, seconds), rate in zip(record.passes, rates, strict=True)]
    values = table(("pass", "seconds", "of the corpus"), rows, caption="Passes", hide_caption=True)
    overall = f", {size(num_bytes / max(record.seconds, 1e-9))}/s of the corpus" if num_bytes else ""
    engine = f" of {record.executor}" * bool(record.executor)
    workers = f"{record.workers} worker{'s' * (record.workers > 1)}{engine}"
    note = f"{duration(record.seconds)} in total{overall}, with {workers}."
    if record.resumed:
        note += " An interrupted build was resumed; the time before the interruption is not included."
    passes = figure("Passes", note, svg.bars(bars, alt=f"Seconds of each pass of the build. {note}"), values=values)
    return grid(passes, _memory(analysis), corpora)


def _memory(analysis: ShardsAnalysis) -> Markup | None:
    record = analysis.build_record
    if record is None or not record.memory_curve or not record.peak_bytes:
        return None
    numbers = {title: str(number) for number, (title, _) in enumerate(record.passes, start=1)}
    spans = [
        svg.Span(
            start=start, stop=stop, label=numbers.get(title, ""), hint=f"{title}: {duration(start)} to {duration(stop)}"
        )
        for title, start, stop in record.spans
    ]
    points = tuple((seconds, size / 1e6) for seconds, size in record.memory_curve)
    limit = record.memory_limit / 1e6
    whose = "the process that drove the build; of any process" if record.executor else "all processes"
    note = (
        f"Anonymous memory of {whose}: peak {size(record.peak_bytes)}, limit {size(record.memory_limit)} "
        f"({record.peak_bytes / record.memory_limit:.0%}). Shaded intervals have the numbers of the passes."
    )
    chart = svg.lines(
        [svg.Line(name="memory", points=points)],
        alt=note,
        x_label="seconds",
        y_label="MB",
        y_range=(0, 1.12 * max(limit, record.peak_bytes / 1e6)),
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
    return figure("Memory", note, chart, values=values)


def _corpora(analysis: ShardsAnalysis) -> list[dict[str, Any]]:
    """Return the recorded corpora."""
    return list(analysis.manifest.build.get("parts", ()))


def _corpora_tables(parts: list[dict[str, Any]]) -> Markup:
    """Render a table per corpus."""
    tables = []
    for part in parts[:_MAX_CORPORA]:
        train, own, test = part.get("train"), part.get("validation"), part.get("test")
        fraction = part.get("validation_fraction")
        rows = {
            "corpus": train.get("name") if isinstance(train, dict) else None,
            "validation": own.get("name") if isinstance(own, dict) else None,
            "validation fraction": f"{fraction:.0%}" if isinstance(fraction, float) and not own else None,
            "test": test.get("name") if isinstance(test, dict) else None,
            "documents": f"{part.get('documents', 0):,}",
            "size": size(part.get("corpus_bytes", 0)),
            "rejected rows": f"{part.get('rejected_rows', 0):,}",
            "invalid bytes replaced": f"{part.get('replaced_bytes', 0):,}",
            "vectorizer": part.get("vectorizer"),
        }
        known = [(name, format_value(value)) for name, value in rows.items() if value is not None]
        tables.append(key_value_table("Corpus", known))
    more = (
        notice(f"{len(parts) - _MAX_CORPORA:,} further corpora are not shown.") if len(parts) > _MAX_CORPORA else None
    )
    return joined(*tables, more)

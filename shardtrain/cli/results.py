"""Print the results of commands on stdout: lines of text, or one JSON object with `--json`."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardtrain.errors import command_line
from shardtrain.runtime.terminal import json_safe, write_data, write_lines

if TYPE_CHECKING:
    from shardtrain.shards.layout import Manifest, SplitEntry

MAX_SHOWN = 10  # skipped rows


def add_json(parser: argparse._ActionsContainer) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON (default: as text)")


def show(as_json: bool, facts: Mapping[str, Any] | Sequence[Any], *lines: str, summary: bool = False) -> None:
    """Print a result: the facts as one line of JSON, or the lines.

    Values that JSON does not have, such as paths, become strings; NaN and infinities become null.

    Args:
        as_json: whether a program reads it.
        facts: the result.
        lines: the same for people.
        summary: the lines only sum up what was written elsewhere: they are dropped if stdout cannot take them.
    """
    if as_json:
        write_data(json_safe(json.dumps(_finite(facts), ensure_ascii=False, default=str, allow_nan=False)) + "\n")
    else:
        write_lines(lines, summary=summary)


def rejected_lines(rows: Sequence[Mapping[str, Any]], number: int, *, where: str = "") -> Iterator[str]:
    """Yield lines that report skipped rows, `number` in all, of which `rows` are the first; `where` names the rest."""
    for row in rows[:MAX_SHOWN]:
        yield f"skipped {row['path']}, {row.get('counted', 'line')} {row['line']}: {row['reason']}"
    if number > MAX_SHOWN:
        yield f"skipped {number - MAX_SHOWN:,} further rows{where}"


def split_facts(manifest: Manifest, path: Path | str) -> dict[str, Any]:
    """Return the JSON description of shards, for the results of the commands that make them."""
    return {
        "shards": path,
        "kind": manifest.kind,
        "num_features": manifest.num_features,
        "class_names": manifest.class_names,
        "fingerprint": manifest.fingerprint,
        **{
            name: {"examples": split.examples, "class_counts": split.class_counts, "bytes": _bytes(split)}
            for name, split in manifest.splits.items()
        },
    }


def splits_in_words(manifest: Manifest) -> str:
    """Return the numbers of examples of the splits and of classes, for a line that reports shards."""
    counts = {name: split.examples for name, split in manifest.splits.items()}
    held_out = f"{counts.get('validation', 0):,} validation"
    if "test" in counts:
        shown = f"{counts['train']:,} training, {held_out} and {counts['test']:,} test"
    else:
        shown = f"{counts['train']:,} training and {held_out}"
    return f"{shown} examples of {len(manifest.class_names)} classes"


def show_made(as_json: bool, out: Path, manifest: Manifest, how: str) -> None:
    """Print a summary of new shards of tables, and the next step."""
    kinds = {"ngram": "sparse features", "dense": "features", "sequence": "token ids per row"}
    show(
        as_json,
        split_facts(manifest, out),
        f"{splits_in_words(manifest)}, {manifest.num_features:,} {kinds[manifest.kind]}, {how}: {out}",
        next_step("fit", out),
        summary=True,
    )


def next_step(command: str, *words: Path | str) -> str:
    """Return the line with the next command; words are quoted for a shell where they need it."""
    return f"next: {command_line(command, *words)}"


def _bytes(split: SplitEntry) -> int:
    return sum(shard.bytes for shard in split.shards)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

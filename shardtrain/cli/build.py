"""`build`: make shards from a corpus."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardtrain.cli.arguments import options_from
from shardtrain.cli.command import Argument, Command, Offered
from shardtrain.cli.results import next_step, rejected_lines, show, split_facts, splits_in_words
from shardtrain.corpus.options import STANDARD
from shardtrain.errors import UsageError
from shardtrain.options import checked, option
from shardtrain.pipeline.options import BuildOptions, ShardsOutput

if TYPE_CHECKING:
    from shardtrain.shards.layout import Manifest

CORPUS_FORMATS = ("auto", "csv", "tsv", "jsonl", "parquet", "arrow", "fasttext", "folder")  # those with labels
CORPUS = Argument(
    name="corpus",
    metavar="CORPUS",
    help="a file, several parts or a pattern such as 'part-*.csv', a folder, or - for standard input",
    parse=str,
    nargs="+",
)
PART = ("documents", "corpus_bytes", "rejected_rows", "rejected", "replaced_bytes")  # facts of the new part, in --json


@checked
@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Whether a build is only planned.

    Attributes:
        dry_run: show the plan and exit.
    """

    dry_run: bool = option(
        False,
        "show how the corpus would be read and how much memory and disk the build would take, and exit",
        group="output",
        identity=False,
    )


def run(args: argparse.Namespace) -> int:
    """Build shards, and print a summary."""
    from shardtrain.pipeline.build import build
    from shardtrain.runtime.process import own_process

    options, out = options_from(args, BuildOptions), options_from(args, ShardsOutput).out
    options.refuse_unused(args.given)  # also those given with their default values
    if options_from(args, PlanOptions).dry_run:
        return _show_plan(args, options)
    own_process(later="shardtrain.engine.first_use")  # this process runs nothing but the build
    manifest = build(corpus_of(args), out, options)
    show(
        args.json,
        built_facts(manifest, out),
        *built_lines(manifest, out, appended=options.append),
        next_step("fit", out)
        if "validation" in manifest.splits
        else "fit needs a validation split, and there is none: build with --validation FILE or --validation-fraction F",
        summary=True,
    )
    return 0


def built_facts(manifest: Manifest, out: Path | str) -> dict[str, Any]:
    """Return the JSON description of built shards."""
    part = manifest.build["parts"][-1]
    return {**split_facts(manifest, out), **{name: part[name] for name in PART}}


def built_lines(manifest: Manifest, out: Path | str, *, appended: bool = False) -> Iterator[str]:
    """Yield the lines that describe built shards."""
    part = manifest.build["parts"][-1]
    features = {"ngram": "n-grams", "hashing": "columns of hashed n-grams", "sequence": "token ids per row"}
    yield from rejected_lines(part["rejected"], part["rejected_rows"], where="; manifest.json lists the first 1,000")
    if appended:
        yield f"added {part['documents']:,} documents; all together:"
    yield f"{splits_in_words(manifest)}, {manifest.num_features:,} {features[manifest.vectorizer['kind']]}: {out}"


def corpus_of(args: argparse.Namespace) -> str | list[str]:
    """Return the corpus that is named: one path, "-" for standard input, or several paths.

    Raises:
        UsageError: standard input is named beside files.
    """
    if len(args.corpus) > 1 and STANDARD in args.corpus:
        raise UsageError("- is standard input, which cannot be read together with files; give one of them")
    return args.corpus[0] if len(args.corpus) == 1 else list(args.corpus)


def _show_plan(args: argparse.Namespace, options: BuildOptions) -> int:
    """Print the plan of the build; return 1 if the build would not start."""
    from dataclasses import asdict

    from shardtrain.pipeline.plan import plan_build

    plan = plan_build(corpus_of(args), options_from(args, ShardsOutput).out, options)
    show(args.json, {**asdict(plan), "enough_disk": plan.enough_disk}, *plan.lines())
    return 0 if plan.enough_disk and not plan.refused else 1


COMMAND = Command(
    name="build",
    help="make shards of vectorized features from a corpus",
    description="Make shards of vectorized features and labels from CSV, TSV, JSON Lines or a folder per class.",
    run=run,
    arguments=(CORPUS,),
    options=(ShardsOutput, PlanOptions, Offered(cls=BuildOptions, choices={"format": CORPUS_FORMATS})),
    examples="""\
python -m shardtrain build data/dbpedia_csv --out data/shards
python -m shardtrain build reviews.csv.gz --label-column stars --text-columns title body
python -m shardtrain build 'parts/part-*.parquet' --out data/shards
python -m shardtrain build aclImdb --vectorizer sequence --memory-limit 512MiB
python -m shardtrain build more.csv --out data/shards --append
python -m shardtrain build data/big --memory-limit 512MiB --dry-run""",
)

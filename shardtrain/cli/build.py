"""`build`: a corpus becomes shards."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from shardtrain.cli.corpus import add_corpus, corpus_options
from shardtrain.cli.results import rejected_lines, show, split_facts

if TYPE_CHECKING:
    from shardtrain.pipeline.options import BuildOptions

PART = ("documents", "corpus_bytes", "rejected_rows", "rejected", "replaced_bytes")  # of what was built, in --json
EPILOG = """\
examples:
  python -m shardtrain build data/dbpedia_csv --out data/shards
  python -m shardtrain build reviews.csv.gz --label-column stars --text-columns title body
  python -m shardtrain build aclImdb --vectorizer sequence --memory-limit 512MiB
  python -m shardtrain build more.csv --out data/shards --append
  python -m shardtrain build data/big --memory-limit 512MiB --dry-run
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `build`."""
    parser = commands.add_parser(
        "build",
        help="make shards of vectorized features from a corpus",
        description="Make shards of vectorized features and labels from CSV, TSV, JSON Lines or a folder per class.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("corpus", metavar="CORPUS", help="a file, or a folder with train.csv or a folder per class")
    parser.add_argument(
        "--out", default="data/shards", metavar="DIR", help="folder of the shards (default data/shards)"
    )
    parser.add_argument(
        "--append",
        action="store_true",
        help="add to the finished shards in the output folder, with their vectorizer and classes; none is rewritten",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="show how the corpus would be read and what the build would take of memory and disk, and end",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace finished shards in the output folder")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="insist on going on with an interrupted build, as the same command does",
    )
    add_corpus(parser.add_argument_group("reading"), ("auto", "csv", "tsv", "jsonl", "folder"), labels=True)
    _add_splits(parser.add_argument_group("splits and order"))
    _add_features(parser.add_argument_group("features"))
    _add_resources(parser.add_argument_group("resources"))
    parser.set_defaults(run=run)


def _add_splits(group: argparse._ArgumentGroup) -> None:
    held_out = group.add_mutually_exclusive_group()
    held_out.add_argument(
        "--validation", metavar="FILE", help="corpus of the validation split (default: test.csv of the folder)"
    )
    held_out.add_argument(
        "--validation-fraction",
        type=float,
        metavar="F",
        help="of the documents, where the folder has no test.csv; 0 for none (default 0.1)",
    )
    group.add_argument(
        "--seed", type=int, metavar="S", help="of the order of rows and the validation fraction (default 1)"
    )


def _add_features(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--vectorizer", choices=("ngram", "count", "hashing", "sequence", "auto"),
        help="tf-idf, counts or hashes of n-grams for an mlp, token ids for a sepcnn, or ngram or sequence by "
        "the ratio of documents to their words (default ngram)",
    )  # fmt: skip
    group.add_argument(
        "--max-features", type=int, metavar="N",
        help="n-grams kept, or vocabulary size (default 20000); with hashing, columns (default 1048576): "
        "a model's first layer has a row of weights for each, an mlp of 64 units and its optimizer hold 800 MB",
    )  # fmt: skip
    group.add_argument(
        "--vectorizer-from",
        metavar="DIR",
        help="use the fitted vectorizer of a folder of shards or of a run (default: fit one)",
    )
    group.add_argument(
        "--analyzer", choices=("word", "char", "char_wb"),
        help="n-grams of words, of characters, or of characters within words, padded with spaces (default word)",
    )  # fmt: skip
    group.add_argument(
        "--ngram-range",
        type=int,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="words, or characters, an n-gram (default 1 2)",
    )
    group.add_argument(
        "--min-df", type=_documents, metavar="N|F",
        help="training documents an n-gram must occur in, or with a point a proportion of them (default 2)",
    )  # fmt: skip
    group.add_argument(
        "--max-df",
        type=_documents,
        metavar="N|F",
        help="training documents an n-gram may occur in, likewise (default 1.0)",
    )
    group.add_argument(
        "--stop-words",
        metavar="FILE",
        help="words left out before n-grams are made, one a line in lower case (default none)",
    )
    group.add_argument(
        "--binary", action="store_true", default=None, help="weigh an n-gram alike however often a document has it"
    )
    group.add_argument(
        "--sublinear-tf", action="store_true", default=None, help="weigh n-grams by 1 + ln(times) in place of times"
    )
    group.add_argument(
        "--select", choices=("f_classif", "chi2", "none"),
        help="how n-grams are chosen: by ANOVA F, by chi-squared, or the most frequent (default f_classif)",
    )  # fmt: skip
    group.add_argument("--max-length", type=int, metavar="N", help="most token ids of a sequence (default 500)")


def _add_resources(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--memory-limit", metavar="SIZE", help="for all processes together, at least 256MiB (default 1GiB)"
    )
    group.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core, as the memory allows)")
    group.add_argument("--rows-per-shard", type=int, metavar="N", help="rows of a shard (default 262144)")
    group.add_argument(
        "--compress", choices=("zstd", "lz4", "blosc2"),
        help="write shards through this HDF5 filter; smaller, and decoded when read (default: plain, or as those that "
        "are added to)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Build and say what was made."""
    from shardtrain.pipeline.build import build
    from shardtrain.pipeline.options import BuildOptions, parse_size, read_stop_words
    from shardtrain.runtime.machine import keep_freed_memory

    chosen = {
        "vectorizer": args.vectorizer,
        "vectorizer_from": Path(args.vectorizer_from) if args.vectorizer_from else None,
        "validation": Path(args.validation) if args.validation else None,
        "validation_fraction": args.validation_fraction,
        "max_features": args.max_features,
        "analyzer": args.analyzer,
        "ngram_range": tuple(args.ngram_range) if args.ngram_range else None,
        "min_df": args.min_df,
        "max_df": args.max_df,
        "stop_words": read_stop_words(args.stop_words) if args.stop_words else None,
        "binary": args.binary,
        "sublinear_tf": args.sublinear_tf,
        "select": args.select,
        "max_length": args.max_length,
        "memory_limit": parse_size(args.memory_limit) if args.memory_limit else None,
        "workers": args.workers,
        "seed": args.seed,
        "rows_per_shard": args.rows_per_shard,
        "compress": args.compress,
    }
    given = {key: value for key, value in chosen.items() if value is not None}
    how = {"append": args.append, "overwrite": args.overwrite, "resume": args.resume}
    options = BuildOptions(**given, **how, read=corpus_options(args))
    options.refuse_unused(given)  # also those that were given as they are by default
    if args.dry_run:
        return _show_plan(args, options)
    keep_freed_memory()  # this process is a build's alone, or one of its workers
    manifest = build(args.corpus, args.out, options)
    part = manifest.build["parts"][-1]
    made = {"ngram": "n-grams", "hashing": "columns of hashed n-grams", "sequence": "token ids a row"}
    held_out = manifest.splits["validation"].examples if "validation" in manifest.splits else 0
    show(
        args.json,
        {**split_facts(manifest, args.out), **{name: part[name] for name in PART}},
        *rejected_lines(part["rejected"], part["rejected_rows"], where="; manifest.json lists the first 1,000"),
        *([f"added {part['documents']:,} documents; all together:"] if args.append else ()),
        f"{manifest.splits['train'].examples:,} training and {held_out:,} validation examples of "
        f"{len(manifest.class_names)} classes, {manifest.num_features:,} "
        f"{made[manifest.vectorizer['kind']]}: {args.out}",
        f"next: python -m shardtrain fit {args.out}"
        if held_out
        else "fit needs a validation split, and there is none: build with --validation FILE or --validation-fraction F",
    )
    return 0


def _show_plan(args: argparse.Namespace, options: BuildOptions) -> int:
    """Print what the build would do; 1 where the disk has no room for it."""
    from dataclasses import asdict

    from shardtrain.pipeline.plan import plan_build

    plan = plan_build(args.corpus, args.out, options)
    show(args.json, {**asdict(plan), "enough_disk": plan.enough_disk}, *plan.lines())
    return 0 if plan.enough_disk else 1


def _documents(text: str) -> int | float:
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of documents nor a proportion") from None

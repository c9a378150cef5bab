"""`fetch`: a published set becomes a folder that `build` reads."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from shardtrain.cli.results import show

if TYPE_CHECKING:
    from shardtrain.corpus.published import Dataset

EXAMPLE = """\
examples:
  python -m shardtrain fetch --list
  python -m shardtrain fetch dbpedia
  python -m shardtrain fetch yelp_full --out /big/disk/yelp_full
  python -m shardtrain fetch imdb --from ~/Downloads/aclImdb_v1.tar.gz"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `fetch`."""
    parser = commands.add_parser(
        "fetch",
        help="download a published set",
        description="Download a published set, check that it is what was published, and unpack it for build. "
        "A download that was interrupted goes on with the same command.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="which set; --list shows all")
    parser.add_argument("--list", action="store_true", help="show the sets with their sizes and licences, and end")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the set (default data/NAME)")
    parser.add_argument("--overwrite", action="store_true", help="replace a published set that was fetched to --out")
    origin = parser.add_argument_group("origin")
    origin.add_argument("--from", dest="file", type=Path, metavar="FILE", help="use this archive, brought by hand")
    origin.add_argument("--mirror", metavar="URL", help="folder on another server that has the archive, or its address")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List the sets, or fetch one."""
    from shardtrain.datasets.fetch import find_dataset
    from shardtrain.errors import UsageError

    if args.list:
        others = {
            "NAME": args.name,
            "--out": args.out,
            "--overwrite": args.overwrite,
            "--from": args.file,
            "--mirror": args.mirror,
        }
        if given := [name for name, value in others.items() if value]:
            raise UsageError(f"--list shows all sets and takes no {', '.join(given)}")
        show_list(as_json=args.json)
        return 0
    if args.name is None:
        raise UsageError("which set? name one, or say --list to see them")
    fetch_and_show(
        find_dataset(args.name),
        args.out,
        file=args.file,
        mirror=args.mirror,
        overwrite=args.overwrite,
        as_json=args.json,
    )
    return 0


def show_list(*, as_json: bool) -> None:
    """Print the published sets."""
    from shardtrain.corpus.published import DATASETS

    row = "{:<16} {:>10} {:>8} {:>8} {:>12} {:>12}  {}"
    lines = [row.format("name", "training", "test", "classes", "download", "on disk", "licence")]
    for dataset in DATASETS:
        sizes = (f"{size / 1e6:,.1f} MB" for size in (dataset.archive.num_bytes, dataset.archive.unpacked_bytes))
        numbers = (f"{number:,}" for number in (dataset.num_train, dataset.num_test, dataset.num_classes))
        lines.append(row.format(dataset.name, *numbers, *sizes, dataset.licence))
    lines.append("next: python -m shardtrain fetch NAME, which shows the papers to cite as well")
    show(as_json, [asdict(dataset) for dataset in DATASETS], *lines)


def fetch_and_show(
    dataset: Dataset,
    out: Path | None,
    *,
    file: Path | None = None,
    mirror: str | None = None,
    overwrite: bool = False,
    as_json: bool = False,
) -> None:
    """Fetch a set to `out`, or data/NAME; say before what it is, and after what to do next."""
    from shardtrain.corpus.published import RECORD
    from shardtrain.datasets.fetch import fetch
    from shardtrain.runtime.progress import say

    out = Path("data") / dataset.name if out is None else out
    for line in _about(dataset):
        say(line)
    fetched = fetch(dataset, out, file=file, mirror=mirror, overwrite=overwrite)
    show(
        as_json,
        {**json.loads((out / RECORD).read_bytes()), "folder": out},
        f"{'already there' if fetched.already_fetched else 'fetched'}: {dataset.num_train:,} training and "
        f"{dataset.num_test:,} test documents in {dataset.num_classes} classes ({fetched.num_bytes / 1e6:,.1f} MB): "
        f"{out}; next: python -m shardtrain build {out}",
    )


def _about(dataset: Dataset) -> tuple[str, ...]:
    archive = dataset.archive
    return (
        f"{dataset.title}: {dataset.num_train:,} training and {dataset.num_test:,} test documents in "
        f"{dataset.num_classes} classes",
        f"  download {archive.num_bytes / 1e6:,.1f} MB, on the disk about {archive.unpacked_bytes / 1e6:,.0f} MB",
        f"  licence: {dataset.licence}",
        f"  cite: {dataset.citation}",
    )

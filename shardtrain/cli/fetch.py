"""`fetch`: download a published set to a folder that `build` reads."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from shardtrain.cli.arguments import options_from, spelled
from shardtrain.cli.command import Argument, Command
from shardtrain.cli.results import next_step, show
from shardtrain.datasets.options import FetchOptions
from shardtrain.errors import UsageError
from shardtrain.options import options_of
from shardtrain.runtime.quantities import size

if TYPE_CHECKING:
    from shardtrain.corpus.published import Dataset


def run(args: argparse.Namespace) -> int:
    """List the published sets, or fetch one."""
    from shardtrain.datasets.fetch import find_dataset

    options = options_from(args, FetchOptions)
    if options.list:
        known = options_of(FetchOptions)
        flags = [
            spelled(name, known[name], None)
            for name in known
            if name != "list" and name in args.given and getattr(options, name)
        ]
        if given := [*(["NAME"] if args.name else []), *flags]:
            raise UsageError(f"--list shows all sets and takes no {', '.join(given)}")
        show_list(as_json=args.json)
        return 0
    if args.name is None:
        raise UsageError("the name of a set is missing; --list shows the names")
    fetch_and_show(find_dataset(args.name), options, as_json=args.json)
    return 0


def show_list(*, as_json: bool) -> None:
    """Print the published sets."""
    from shardtrain.corpus.published import DATASETS

    row = "{:<16} {:>10} {:>8} {:>8} {:>12} {:>12}  {}"
    lines = [row.format("name", "training", "test", "classes", "download", "on disk", "licence")]
    for dataset in DATASETS:
        sizes = (size(each) for each in (dataset.archive.num_bytes, dataset.archive.unpacked_bytes))
        numbers = (f"{number:,}" for number in (dataset.num_train, dataset.num_test, dataset.num_classes))
        lines.append(row.format(dataset.name, *numbers, *sizes, dataset.licence))
    lines.append(f"{next_step('fetch', 'NAME')}, which shows the papers to cite as well")
    show(as_json, [asdict(dataset) for dataset in DATASETS], *lines)


def fetch_and_show(
    dataset: Dataset,
    options: FetchOptions,
    *,
    as_json: bool = False,
) -> None:
    """Fetch a set; print its description first, and the next step at the end."""
    from shardtrain.corpus.published import fetch_record
    from shardtrain.datasets.fetch import fetch
    from shardtrain.runtime.progress import say

    out = options.out or Path("data") / dataset.name
    for line in _about(dataset):
        say(line)
    fetched = fetch(dataset, out, file=options.file, mirror=options.mirror, overwrite=options.overwrite)
    show(
        as_json,
        {**(fetch_record(out) or {}), "folder": out},
        f"{'already there' if fetched.already_fetched else 'fetched'}: {dataset.num_train:,} training and "
        f"{dataset.num_test:,} test documents in {dataset.num_classes} classes ({size(fetched.num_bytes)}): "
        f"{out}; {next_step('build', out)}",
        summary=True,
    )


def _about(dataset: Dataset) -> tuple[str, ...]:
    archive = dataset.archive
    return (
        f"{dataset.title}: {dataset.num_train:,} training and {dataset.num_test:,} test documents in "
        f"{dataset.num_classes} classes",
        f"  download {size(archive.num_bytes)}, on the disk about {size(archive.unpacked_bytes)}",
        f"  licence: {dataset.licence}",
        f"  cite: {dataset.citation}",
    )


COMMAND = Command(
    name="fetch",
    help="download a published set",
    description="Download a published set, compare its checksum, and unpack it for build. The same command "
    "resumes an interrupted download.",
    run=run,
    arguments=(Argument(name="name", metavar="NAME", nargs="?", help="which set; --list shows all", parse=str),),
    options=(FetchOptions,),
    examples="""\
python -m shardtrain fetch --list
python -m shardtrain fetch dbpedia
python -m shardtrain fetch yelp_full --out /big/disk/yelp_full
python -m shardtrain fetch imdb --from ~/Downloads/aclImdb_v1.tar.gz""",
)

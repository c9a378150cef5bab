"""`report`: show what is in shards, or how a run went, as one HTML file."""

from __future__ import annotations

import argparse
import webbrowser

from shardtrain.cli.arguments import options_from
from shardtrain.cli.command import Argument, Command
from shardtrain.cli.results import show
from shardtrain.cli.tensorflow import load_for
from shardtrain.inference.options import ImportOptions
from shardtrain.report.options import ReportOptions
from shardtrain.runtime.quantities import size


def run(args: argparse.Namespace) -> int:
    """Write the report, and print its path."""
    from shardtrain.inference.run import load_run
    from shardtrain.report.report_file import check_report_file, is_run, write_report
    from shardtrain.runtime.progress import say

    options = options_from(args, ReportOptions)
    check_report_file(options.out)
    if is_run(args.folder):
        load_for(load_run(args.folder), options_from(args, ImportOptions).module)
    by = None if options.data is None or options.by is None else (options.data, options.by)
    write_report(args.folder, options.out, shards=options.shards, by=by)
    num_bytes = options.out.stat().st_size
    facts = {"report": options.out, "bytes": num_bytes}
    show(args.json, facts, f"{size(num_bytes)}: {options.out}", summary=True)
    if options.open and not webbrowser.open(options.out.resolve().as_uri()):
        say("no browser was found; open the file yourself")
    return 0


COMMAND = Command(
    name="report",
    help="show shards or a run as one HTML file",
    description="Write one HTML file that shows what is in shards, or how a run went and what it gets wrong. It "
    "loads nothing and can be sent around; texts of the corpus are in it.",
    run=run,
    arguments=(Argument(name="folder", metavar="SHARDS|RUN", help="folder of finished shards or of a finished run"),),
    options=(ReportOptions, ImportOptions),
    examples="""\
python -m shardtrain report data/shards --open
python -m shardtrain report runs/mlp-1 --out mlp-1.html
python -m shardtrain report runs/mlp-1 --by source --data reviews.csv""",
)

"""`report`: what is in shards, or how a run went, as one HTML file."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from shardtrain.cli.fit import add_import, load_tensorflow
from shardtrain.cli.results import show

EXAMPLE = """examples:
  python -m shardtrain report data/shards --open
  python -m shardtrain report runs/mlp-1 --out mlp-1.html"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `report`."""
    parser = commands.add_parser(
        "report",
        help="show shards or a run as one HTML file",
        description="Write one HTML file that shows what is in shards, or how a run went and what it gets wrong. It "
        "loads nothing and can be sent around; texts of the corpus are in it.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder", type=Path, metavar="SHARDS|RUN", help="folder of finished shards or of a finished run"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the file (default report.html); an older report is replaced",
    )
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    parser.add_argument(
        "--shards", type=Path, metavar="DIR", help="of a run: its shards (default: where they were when it was trained)"
    )
    add_import(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the report, and say where it is."""
    from shardtrain.report.report_file import check_output_file, is_run, write_report
    from shardtrain.runtime.progress import say
    from shardtrain.training.run_folder import load_run

    check_output_file(args.out)
    if is_run(args.folder):
        load_run(args.folder)  # before seconds of importing
        load_tensorflow(args.module)
    write_report(args.folder, args.out, shards=args.shards)
    size = args.out.stat().st_size
    show(args.json, {"report": args.out, "bytes": size}, f"{size / 1e3:,.0f} kB: {args.out}")
    if args.open and not webbrowser.open(args.out.resolve().as_uri()):
        say("no browser was found here; open the file by hand")
    return 0

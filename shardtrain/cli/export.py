"""`export`: write a run as a file for other programs."""

from __future__ import annotations

import argparse

from shardtrain.cli.arguments import options_from
from shardtrain.cli.command import Argument, Command
from shardtrain.cli.results import show
from shardtrain.cli.tensorflow import load_tensorflow
from shardtrain.exports.options import ExportOptions
from shardtrain.runtime.quantities import size


def run(args: argparse.Namespace) -> int:
    """Export a run, and print what was written."""
    options = options_from(args, ExportOptions)
    from shardtrain.inference.run import load_run

    folder = load_run(args.run_folder)
    if options.to == "savedmodel":
        load_tensorflow(None)
    from shardtrain.exports.export import READER, export_run

    done = export_run(folder, options)
    facts = {"export": done.path, "to": done.to, "bytes": done.num_bytes}
    lines = [f"{size(done.num_bytes)}: {done.path}"]
    if done.to == "bundle":
        facts["reader"] = READER
        lines.append(f"it is read by {READER}, which needs numpy alone: copy it to where the bundle is used")
    show(args.json, facts, *lines, summary=True)
    return 0


COMMAND = Command(
    name="export",
    help="write a model over n-grams for use without shardtrain",
    description="Write the model of a run for use without shardtrain: a bundle of weights, vocabulary and character "
    "tables, which classifies texts with numpy alone, or the weights as arrays, a SavedModel or an ONNX graph.",
    run=run,
    arguments=(Argument(name="run_folder", metavar="RUN", help="folder of a finished run"),),
    options=(ExportOptions,),
    examples="""\
python -m shardtrain export runs/mlp-1 --out model.bundle
python -m shardtrain export runs/mlp-1 --to onnx --out model.onnx""",
)

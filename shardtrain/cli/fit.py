"""`fit`: train a model on shards."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardtrain.cli.arguments import given_options, options_from
from shardtrain.cli.command import Argument, Command
from shardtrain.cli.measured import headline, warn_if_not_better
from shardtrain.cli.results import next_step, show
from shardtrain.cli.tensorflow import check_if_keras_is_asked_for, load_for_training
from shardtrain.errors import RunError, ShardsNotFoundError, UsageError, command_line
from shardtrain.loader.options import LoaderOptions
from shardtrain.models.options import SIZES
from shardtrain.runtime.progress import short, warn
from shardtrain.training.distribution.cluster import this_cluster
from shardtrain.training.options import FitOptions, RunOutput

if TYPE_CHECKING:
    from shardtrain.training.run_folder import RunFolder

SHARDS = Path("data/shards")


def run(args: argparse.Namespace) -> int:
    """Train a model, and print the result, its folder and the next step."""
    from shardtrain.shards.layout import MANIFEST

    path, output = args.shards or SHARDS, options_from(args, RunOutput)
    if isinstance(args.tensorboard, Path) and (args.tensorboard / MANIFEST).exists():
        raise UsageError(f"--tensorboard {args.tensorboard} is a folder of shards; name the shards first: fit SHARDS …")
    if args.shards is None and not path.exists():
        raise ShardsNotFoundError(
            f"there are no shards in '{path}'; make them with "
            f"`{command_line('build', 'CORPUS', '--out', path)}`, or name a folder of shards"
        )
    options = options_from(args, FitOptions)
    check_if_keras_is_asked_for(options)
    from shardtrain.loader.shards import open_shards
    from shardtrain.runtime.process import own_process
    from shardtrain.training.run_folder import RunFolder

    own_process()
    if output.out is not None:  # as `fit` does, but before the slow import of TensorFlow
        RunFolder(Path(output.out)).check_free(overwrite=output.overwrite or output.resume)
    with open_shards(path, **given_options(args, LoaderOptions)) as shards:
        options = options.with_sizes(given_sizes(args), shards.description.kind)
        load_for_training(options, shards.description, None if output.overwrite else output.out)
        from shardtrain.training.fit import fit

        done = fit(shards, options, **vars(output))
    if this_cluster().index == 0:  # all workers return the same run
        show_run(args.json, done)
    return 0


def show_run(as_json: bool, done: RunFolder, facts: Mapping[str, Any] | None = None) -> None:
    """Print the result of a finished training, its folder and the next step; `facts` come first in JSON."""
    try:
        record = done.read()
    except (RunError, OSError) as error:
        if as_json:
            raise
        warn(f"the run in '{done.path}' is finished, but cannot be read: {error}")
        return
    metrics = record.metrics
    show(
        as_json,
        {**(facts or {}), "run": done.path, "model": record.config["model"], **metrics},
        f"validation accuracy {metrics['val_accuracy']:.4f}, loss {short(metrics['val_loss'])}, "
        f"best epoch {metrics.get('best_epoch', 'unknown')} of {metrics['epochs']}: {done.path}",
        *([headline(metrics["validation"])] if "validation" in metrics else ()),
        *test_lines(metrics),
        *([f'{next_step("predict", done.path)} "a text to classify"'] if record.description.vectorizer else ()),
        summary=True,
    )
    if known := metrics.get("test", metrics.get("validation")):
        warn_if_not_better(known)


def test_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines with the results on the test split, if there are any."""
    if "test_examples" not in metrics:
        return
    accuracy, loss = (
        "not finite" if value is None else f"{value:.4f}" for value in (metrics["test_accuracy"], metrics["test_loss"])
    )
    yield f"test accuracy {accuracy}, loss {loss}, examples {metrics['test_examples']:,}"
    if "test" in metrics:
        yield headline(metrics["test"])


def given_sizes(args: argparse.Namespace) -> dict[str, Any]:
    """Return the model sizes that were given, of any model."""
    return {name: value for cls in SIZES.values() for name, value in given_options(args, cls).items()}


COMMAND = Command(
    name="fit",
    help="train a model on shards",
    description="Train a model on the training split and keep the epoch with the lowest validation loss, or the best "
    "--monitor; at the end evaluate it once on the test split, if there is one.",
    run=run,
    arguments=(Argument(name="shards", metavar="SHARDS", nargs="?", help=f"folder of shards (default {SHARDS})"),),
    options=(RunOutput, FitOptions, LoaderOptions),
    examples="python -m shardtrain fit data/shards --model mlp --units 128 --out runs/wide",
)

"""`fit`: train a model on shards. Also quiets TensorFlow's start for the commands that need it."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from shardtrain.cli.results import show
from shardtrain.errors import ShardsNotFoundError, UsageError

SHARDS = Path("data/shards")
SIZES = {  # options of each model, by their names in its options class
    "mlp": ("layers", "units", "dropout"),
    "linear": (),
    "sepcnn": ("blocks", "filters", "kernel_size", "pool_size", "embedding_dim", "dropout"),
}
CHOICES = (
    *("model", "epochs", "patience", "batch_size", "learning_rate", "seed", "shuffle"),
    *("schedule", "clip_norm", "class_weight", "mixed_precision", "embeddings", "tensorboard"),
)  # options that go to FitOptions as they are given
EXAMPLE = "example:\n  python -m shardtrain fit data/shards --model mlp --units 128 --out runs/wide"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `fit`."""
    parser = commands.add_parser(
        "fit",
        help="train a model on shards",
        description="Train a Keras model on the training split and keep the epoch with the lowest validation loss.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shards", nargs="?", type=Path, metavar="SHARDS", help=f"folder of shards (default {SHARDS})")
    run_folder = parser.add_argument_group("run folder")
    run_folder.add_argument(
        "--out", type=Path, metavar="DIR", help="where the run goes (default runs/MODEL-N, next free N)"
    )
    run_folder.add_argument("--overwrite", action="store_true", help="replace a finished or interrupted run in --out")
    run_folder.add_argument(
        "--resume", action="store_true", help="go on with the interrupted run in --out, or with the newest of the model"
    )
    add_checkpoints(run_folder)
    run_folder.add_argument(
        "--tensorboard",
        nargs="?",
        type=Path,
        const=True,
        metavar="DIR",
        help="write losses and metrics of each epoch for TensorBoard (default DIR: tensorboard/ in the run folder)",
    )
    training = parser.add_argument_group("training")
    training.add_argument("--batch-size", type=int, metavar="N", help="examples a step (default 128)")
    training.add_argument("--learning-rate", type=float, metavar="F", help="step size of Adam (default 0.001)")
    add_training(training)
    add_reading(parser)
    _add_sizes(parser)
    parser.set_defaults(run=run)


def add_checkpoints(group: argparse._ArgumentGroup) -> None:
    """Add how often the state of training is saved."""
    group.add_argument(
        "--checkpoint-every",
        metavar="N",
        help="save the state of training every Ns (seconds, and at each epoch's end), Nsteps or Nepochs (default 60s)",
    )


def add_training(group: argparse._ArgumentGroup) -> None:
    """Add how to train, but for what `tune` tries."""
    group.add_argument(
        "--model",
        metavar="NAME",
        help="mlp, linear, sepcnn, FILE.keras, or MODULE:FUNCTION of yours (default: by the shards)",
    )
    group.add_argument("--epochs", type=int, metavar="N", help="at most N epochs (default 1000)")
    group.add_argument("--patience", type=int, metavar="N", help="stop after N epochs without a lower loss (default 2)")
    group.add_argument("--seed", type=int, metavar="S", help="of weights, dropout and order (default 1)")
    group.add_argument(
        "--shuffle", metavar="MODE", help="none, blocks, window, or global, a permutation of all rows (default window)"
    )
    group.add_argument(
        "--schedule",
        metavar="NAME",
        help="learning rate: constant, cosine, linear, exponential, plateau (default constant)",
    )
    group.add_argument(
        "--memory-limit", metavar="SIZE", help="what reading batches may hold, such as 512MiB (default 1GiB)"
    )
    group.add_argument("--clip-norm", type=float, metavar="F", help="shorten longer gradients to F (default: none)")
    group.add_argument(
        "--class-weight", metavar="HOW", help="none, or balanced: every class counts the same (default none)"
    )
    group.add_argument(
        "--mixed-precision", action="store_true", default=None, help="compute in bfloat16, keep weights in float32"
    )
    group.add_argument(
        "--embeddings",
        type=Path,
        metavar="FILE",
        help="sepcnn: word vectors, GloVe's or fastText's text (default: none)",
    )
    group.add_argument(
        "--devices",
        nargs="+",
        metavar="NAME",
        help="share each batch among these, such as GPU:0 GPU:1 (default: all GPUs)",
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add how shards are read, for the commands that read all of them."""
    reading = parser.add_argument_group("reading")
    reading.add_argument("--no-verify", action="store_true", help="do not compare checksums (default: once a process)")
    reading.add_argument(
        "--io",
        metavar="WAY",
        default="auto",
        help="map, read, or auto: map what fits in memory and lies on a local disk (default auto)",
    )
    reading.add_argument(
        "--on-corrupt",
        metavar="WHAT",
        default="fail",
        help="at damaged rows: fail, or skip to leave them out (default fail)",
    )


def reading(args: argparse.Namespace) -> dict[str, Any]:
    """What was given of `add_reading`, as keywords of `open_shards`."""
    return {"verify": not args.no_verify, "io": args.io, "on_corrupt": args.on_corrupt}


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    sizes = parser.add_argument_group("model sizes")
    sizes.add_argument("--dropout", type=float, metavar="F", help="share of values dropped in training (default 0.2)")
    sizes.add_argument("--layers", type=int, metavar="N", help="mlp: layers with the output (default 2)")
    sizes.add_argument("--units", type=int, metavar="N", help="mlp: units of a hidden layer (default 64)")
    sizes.add_argument("--blocks", type=int, metavar="N", help="sepcnn: blocks of two convolutions (default 2)")
    sizes.add_argument("--filters", type=int, metavar="N", help="sepcnn: filters, twice in the last block (default 64)")
    sizes.add_argument("--kernel-size", type=int, metavar="N", help="sepcnn: tokens a filter sees (default 3)")
    sizes.add_argument("--pool-size", type=int, metavar="N", help="sepcnn: tokens pooled into one (default 3)")
    sizes.add_argument("--embedding-dim", type=int, metavar="N", help="sepcnn: numbers for a word (default 200)")


def run(args: argparse.Namespace) -> int:
    """Train, and print the result and where it is."""
    from shardtrain.shards.layout import MANIFEST

    path = args.shards or SHARDS
    if isinstance(args.tensorboard, Path) and (args.tensorboard / MANIFEST).exists():
        raise UsageError(f"--tensorboard {args.tensorboard} is a folder of shards; name the shards first: fit SHARDS …")
    if args.shards is None and not path.exists():
        raise ShardsNotFoundError(
            f"there are no shards in '{path}'; make them with `make shards` or "
            f"`python -m shardtrain build CORPUS --out {path}`, or name a folder of shards"
        )
    from shardtrain.loader.shards import open_shards
    from shardtrain.runtime.machine import keep_freed_memory
    from shardtrain.training.run_folder import check_free

    keep_freed_memory()
    if args.out is not None:
        check_free(args.out, overwrite=args.overwrite or args.resume)  # as `fit` does, but before seconds of importing
    with open_shards(path, **reading(args)) as shards:
        with quiet_tensorflow():
            from shardtrain.training.fit import fit
        options = fit_options(args, shards.description.kind)
        done = fit(shards, options, out=args.out, overwrite=args.overwrite, resume=args.resume)
    metrics = done.metrics
    show(
        args.json,
        {"run": done.path, "model": done.config["model"], **metrics},
        f"validation accuracy {metrics['val_accuracy']:.4f}, loss {metrics['val_loss']:.4f}, "
        f"epochs {metrics['epochs']}: {done.path}",
    )
    return 0


def fit_options(args: argparse.Namespace, kind: str) -> Any:
    """The options that were given; what was not given keeps the default of its class.

    Raises:
        UsageError: a size that the chosen model does not have.
    """
    from shardtrain.models.guide import AUTO, MlpOptions, SepcnnOptions
    from shardtrain.pipeline.options import parse_size
    from shardtrain.training.checkpoint import parse_interval
    from shardtrain.training.options import FitOptions

    given = {name: value for name, value in vars(args).items() if value is not None}
    sizes = {name: given[name] for names in SIZES.values() for name in names if name in given}
    model = check_sizes(sizes, given.get("model", AUTO), kind)
    chosen: dict[str, Any] = {name: given[name] for name in CHOICES if name in given}
    if "memory_limit" in given:
        chosen["memory_limit"] = parse_size(given["memory_limit"])
    if "devices" in given:
        chosen["devices"] = tuple(given["devices"])
    if "embeddings" in given and "embedding_dim" in given:
        raise UsageError("--embedding-dim is that of the vectors in --embeddings; leave it away")
    if "checkpoint_every" in given:
        chosen["checkpoint_every"] = parse_interval(given["checkpoint_every"])
    if model == "mlp":
        chosen["mlp"] = MlpOptions(**sizes)
    elif model == "sepcnn":
        chosen["sepcnn"] = SepcnnOptions(**sizes)
    return FitOptions(**chosen)


def check_sizes(names: Iterable[str], model: str, kind: str) -> str:
    """Refuse options that are sizes of another model; gives the model's name, also of "auto".

    Raises:
        UsageError: there are such.
    """
    from shardtrain.models.guide import AUTO, KINDS

    if model == AUTO:
        model = next(name for name, takes in KINDS.items() if kind in takes)
    sizes = {name for of_model in SIZES.values() for name in of_model} - set(SIZES.get(model, ()))
    if foreign := [name for name in names if name in sizes]:
        flag = "--" + foreign[0].replace("_", "-")
        raise UsageError(f"{flag} is not a size of the model '{model}'; see `python -m shardtrain fit --help`")
    return model


def add_import(parser: argparse.ArgumentParser) -> None:
    """Add --import, which the commands that load a model of the user's need."""
    parser.add_argument(
        "--import",
        dest="module",
        metavar="MODULE",
        help="import this module of the current folder first: it registers layers of yours (default: none)",
    )


def load_tensorflow(module: str | None) -> None:
    """Import what prediction needs, and then the user's module."""
    with quiet_tensorflow():
        from shardtrain.models.user_models import import_module
    if module is not None:
        import_module(module)


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Import TensorFlow in this block without what its libraries print while they start.

    They write to file descriptor 2 before any log level is read, so the descriptor leads to a scratch file
    meanwhile; if the block fails, and not by Ctrl-C, what was written is shown. Setting TF_CPP_MIN_LOG_LEVEL keeps
    everything.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ or "tensorflow" in sys.modules:
        yield
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # errors
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as scratch:
        os.dup2(scratch.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_logical_devices()  # the search for devices prints as well
            yield
        except Exception:
            scratch.seek(0)
            os.write(kept, scratch.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)

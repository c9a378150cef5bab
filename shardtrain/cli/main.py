"""Run the command line: parse the command, run it, and turn expected failures into one line and an exit code.

Exit codes: 0; 1 an expected failure (one line; `--debug` shows the traceback); 2 usage; 130 after Ctrl-C or SIGTERM. A
command's module is imported to list its options, and imports what it runs only when it runs, so that help is instant.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence

from shardtrain.cli import (
    build,
    completion,
    convert,
    demo,
    doctor,
    evaluate,
    fetch,
    fit,
    index,
    inspect,
    predict,
    recompress,
    report,
    tune,
    verify,
)
from shardtrain.cli.parsing import Parser
from shardtrain.cli.results import add_json
from shardtrain.cli.settings import as_written
from shardtrain.errors import ShardtrainError, UsageError
from shardtrain.options import flag
from shardtrain.runtime.progress import NORMAL, QUIET, RED, VERBOSE, painted, verbosity
from shardtrain.version import __version__

COMMANDS = tuple(
    module.COMMAND
    for module in (
        *(demo, fetch, build, convert, index, recompress),
        *(fit, tune, evaluate, predict, report, inspect, verify, doctor, completion),
    )
)
EPILOG = """\
example:
  python -m shardtrain demo --out data/demo
  python -m shardtrain build data/demo --out data/shards
  python -m shardtrain fit data/shards
"""


def parser() -> Parser:
    """Make the parser of all commands."""
    top = Parser(
        prog="shardtrain",
        description="Train a Keras text model on a corpus larger than memory, from memory-mapped HDF5 shards.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"shardtrain {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_to(commands)
    for sub in commands.choices.values():
        sub.commands = commands.choices
        sub.set_defaults(whole=top)
        sub.add_settings()
        output = sub.add_argument_group("output and logging")
        add_json(output)
        level = output.add_mutually_exclusive_group()
        level.add_argument("--quiet", "-q", action="store_true", help="warnings and errors only")
        level.add_argument("--verbose", "-v", action="store_true", help="every pass with its time, and the memory plan")
        output.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    return top


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, so that work is kept in both cases."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words:
        parser().print_help(sys.stderr)
        return 2
    args = parser().parse_args(words)
    try:
        with _terminable(), verbosity(QUIET if args.quiet else VERBOSE if args.verbose else NORMAL):
            return int(args.run(args))
    except ShardtrainError as error:
        if args.debug:
            traceback.print_exc()
        usage = isinstance(error, UsageError)
        said = error.on_command_line
        _fail(f"error: {said}{_of_file(args, said) if usage else ''}")
        return 2 if usage else 1
    except BrokenPipeError:  # the reader of stdout ended, as `head` does
        sys.stderr.close()
        return 1
    except OSError as error:  # such as a removed file, or a folder without permission to write
        if args.debug:
            traceback.print_exc()
        where = f" '{error.filename}'" if error.filename else ""
        _fail(f"error: {error.strerror or error}{where}")
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        kind = type(error).__name__
        _fail(f"error: unexpected {kind}: {error}; run it again with --debug and report the traceback")
        return 1


def _of_file(args: argparse.Namespace, message: str) -> str:
    """Show the options that a message names and a --config file sets, as the end of the message."""
    flags = set(re.findall(r"--[a-z][a-z0-9-]*", message))
    lines = [f"{key} = {as_written(value)}" for key, value in args.of_file.items() if flag(key) in flags]
    return f"; '{args.config}' sets {', '.join(lines)}" if lines else ""


def _fail(line: str) -> None:
    print(painted(line, RED, sys.stderr), file=sys.stderr)

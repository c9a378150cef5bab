"""Run the command line: parse the command, run it, and turn expected failures into one line and an exit code.

Exit codes: 0; 1 an expected failure (one line; `--debug` shows the traceback); 2 usage; 130 after Ctrl-C or SIGTERM;
141 where the reader of stdout ended, as for tools that SIGPIPE ends. A command's module is imported to list its
options, and imports what it runs only when it runs, so that help is instant.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence

from shardtrain.cli import (
    build,
    compare,
    completion,
    convert,
    demo,
    doctor,
    evaluate,
    export,
    fetch,
    fit,
    index,
    inspect,
    launch,
    predict,
    recompress,
    report,
    runs,
    train,
    tune,
    verify,
)
from shardtrain.cli.parsing import Parser
from shardtrain.cli.results import add_json
from shardtrain.cli.settings import as_written
from shardtrain.errors import ShardtrainError, UsageError
from shardtrain.options import flag
from shardtrain.runtime.interrupts import EXIT_CODE, interrupted, interruptible, tell_interrupted
from shardtrain.runtime.progress import NORMAL, QUIET, VERBOSE, verbosity
from shardtrain.runtime.terminal import ReaderGoneError, flush_stdout, tell, tell_error
from shardtrain.version import __version__

COMMANDS = tuple(
    module.COMMAND
    for module in (
        *(demo, fetch, train, build, convert, index, recompress),
        *(fit, launch, tune, evaluate, runs, compare, predict, export, report, inspect, verify, doctor, completion),
    )
)
EPILOG = """\
example:
  python -m shardtrain demo --out data/demo
  python -m shardtrain train data/demo
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    args = argparse.Namespace(debug=False)  # until the words are parsed
    try:
        with interruptible():
            if not words:
                tell(*parser().format_help().splitlines())
                return 2
            args = parser().parse_args(words)
            with verbosity(QUIET if args.quiet else VERBOSE if args.verbose else NORMAL):
                return int(args.run(args))
    except KeyboardInterrupt:
        tell_interrupted()
        return EXIT_CODE
    except ReaderGoneError:
        return 128 + signal.SIGPIPE
    except Exception as error:
        if args.debug:
            tell(*traceback.format_exc().splitlines())
        if interrupted():  # a library made an error of it
            tell_interrupted()
            return EXIT_CODE
        tell_error(f"error: {_in_a_line(error, args)}")
        return 2 if isinstance(error, UsageError) else 1
    finally:
        flush_stdout()


def _in_a_line(error: Exception, args: argparse.Namespace) -> str:
    """Return what failed, and for a bug how to report it."""
    if isinstance(error, ShardtrainError):
        said = error.on_command_line
        return said + (_of_file(args, said) if isinstance(error, UsageError) else "")
    if isinstance(error, OSError):  # such as a removed file, or a folder without permission to write
        where = f" {os.fsdecode(error.filename)!r}" if isinstance(error.filename, str | bytes) else ""
        next_step = _without_folder(error) or "; check the disk and the permissions, and run the command again"
        return f"{error.strerror or error}{where}{next_step}"
    return f"unexpected {type(error).__name__}: {error}; run it again with --debug and report the traceback"


def _without_folder(error: OSError) -> str:
    """Explain an error that comes of a current folder that was removed, as the end of its message."""
    if error.errno == errno.ENOENT:
        try:
            os.getcwd()
        except OSError:
            return "; the current folder does not exist any more: change to another one"
    return ""


def _of_file(args: argparse.Namespace, message: str) -> str:
    """Show the options that a message names and a --config file sets, as the end of the message."""
    flags = set(re.findall(r"--[a-z][a-z0-9-]*", message))
    lines = [
        f"{key} = {as_written(value)}" for key, value in getattr(args, "of_file", {}).items() if flag(key) in flags
    ]
    return f"; '{args.config}' sets {', '.join(lines)}" if lines else ""

"""`completion`: print a script that makes a shell complete commands, options, their choices, and files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from shardtrain.cli.command import Argument, Command
from shardtrain.cli.results import show
from shardtrain.errors import MissingExtraError
from shardtrain.runtime.terminal import write_data

SHELLS = ("bash", "zsh", "tcsh")
FOLDERS = ("DIR", "SHARDS", "RUN", "SHARDS|RUN")  # placeholders of arguments that name a folder
FILES = ("FILE", "CORPUS", "SHARDS|CORPUS")


def run(args: argparse.Namespace) -> int:
    """Print the completion script for the whole command line."""
    try:
        import shtab
    except ImportError:
        raise MissingExtraError("completion needs shtab; run: pip install 'shardtrain[completion]'") from None
    for action in _arguments(args.whole):
        kind = shtab.DIRECTORY if action.metavar in FOLDERS else shtab.FILE if action.metavar in FILES else None
        if kind is not None:
            action.complete = kind  # type: ignore[attr-defined]
    script = shtab.complete(args.whole, args.shell)
    if args.json:
        show(args.json, {"shell": args.shell, "script": script})
    else:
        write_data(f"{script}\n")
    return 0


def _arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield all options and arguments, including those of commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _arguments(sub)


COMMAND = Command(
    name="completion",
    help="print what makes a shell complete commands and options",
    description="Print a script that makes a shell complete the words of the command `shardtrain`. Needs the "
    "extra: pip install 'shardtrain[completion]'.",
    run=run,
    arguments=(
        Argument(name="shell", metavar="SHELL", help=f"which shell: {', '.join(SHELLS)}", parse=str, choices=SHELLS),
    ),
    examples="""\
eval "$(shardtrain completion bash)"
shardtrain completion bash > ~/.local/share/bash-completion/completions/shardtrain
shardtrain completion zsh > ~/.zfunc/_shardtrain""",
)

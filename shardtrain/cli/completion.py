"""`completion`: what makes a shell complete commands, options, their choices, and files where files are meant."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from shardtrain.cli.results import show

SHELLS = ("bash", "zsh", "tcsh")
FOLDERS = ("DIR", "SHARDS", "RUN", "SHARDS|RUN")  # what arguments are called that name a folder
FILES = ("FILE", "CORPUS", "SHARDS|CORPUS")
EXAMPLE = """examples:
  eval "$(shardtrain completion bash)"
  shardtrain completion bash > ~/.local/share/bash-completion/completions/shardtrain
  shardtrain completion zsh > ~/.zfunc/_shardtrain"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `completion`."""
    parser = commands.add_parser(
        "completion",
        help="print what makes a shell complete commands and options",
        description="Print a script that makes a shell complete the words of the command `shardtrain`. Needs the "
        "extra: pip install 'shardtrain[completion]'.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"which shell: {', '.join(SHELLS)}")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from shardtrain.cli.main import parser
    from shardtrain.errors import MissingExtraError

    try:
        import shtab
    except ImportError:
        raise MissingExtraError("completion needs shtab; run: pip install 'shardtrain[completion]'") from None
    top = parser()
    for action in _arguments(top):
        kind = shtab.DIRECTORY if action.metavar in FOLDERS else shtab.FILE if action.metavar in FILES else None
        if kind is not None:
            action.complete = kind  # type: ignore[attr-defined]
    script = shtab.complete(top, args.shell)
    show(args.json, {"shell": args.shell, "script": script}, script)
    return 0


def _arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All options and arguments, those of commands too."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield from _arguments(sub)

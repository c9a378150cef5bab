"""Write docs/options.md: the table of all options of all commands, made from the option classes.

python tools/options_table.py            writes the file
python tools/options_table.py --check    fails if it is not what would be written
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from shardtrain.cli.arguments import help_of, spelled
from shardtrain.cli.command import Command
from shardtrain.cli.main import COMMANDS
from shardtrain.options import Option, defaults_of, nested_in, options_of

TARGET = Path(__file__).resolve().parents[1] / "docs" / "options.md"
HEAD = """\
# Options

Every option of every command, with its default. On the command line it is written as it stands here; in a file of
options ([config.md](config.md)) it is the key of the same name with underscores. An interrupted job is resumed by a
command whose options are the same; options marked *free* may differ.

In Python the options of `build` and `fit` are the keywords of `shardtrain.build` and `shardtrain.fit`, again with
underscores: `--no-verify` is `verify=False`. Texts are taken as on the command line (`memory_limit="1GiB"`,
`checkpoint_every="60s"`, paths), and one text stands for a list of one (`text_columns="body"`); a column given as a
text is a name, as a number an index. Sizes of a model are passed together, as `mlp=MlpOptions(units=128)` of
`shardtrain.models.options`; options of reading go to `shardtrain.open_shards`. The other commands have their option
classes in the module of their room, such as `shardtrain.pipeline.options.ConvertOptions`.
"""


def rows(command: Command) -> Iterator[str]:
    """The lines of a command's table."""
    yield f"\n## {command.name}\n\n{command.description}\n"
    yield "| option | meaning | on resume |\n|---|---|---|"
    seen: set[str] = set()
    for offered in command.offered:
        for cls in (offered.cls, *nested_in(offered.cls).values()):
            for name, declared in options_of(cls).items():
                if name not in seen and name not in offered.without:
                    seen.add(name)
                    yield _row(name, declared, defaults_of(cls)[name], offered.choices.get(name, declared.choices))


def _row(name: str, declared: Option, default: object, choices: tuple[str, ...]) -> str:
    value = declared.metavar if isinstance(declared.metavar, str) else " ".join(declared.metavar)
    among = ", ".join(choices) if choices else value
    word = spelled(name, declared, default)
    ends = f"{word}/{word.replace('--', '--no-', 1)}" if declared.switch else word
    flag = f"`{ends}{' ' + among.replace('|', ' or ') if among else ''}`"
    text = help_of(declared, default).replace("%%", "%").replace("|", "\\|")
    return f"| {flag} | {text} | {'' if declared.identity else 'free'} |"


def main() -> int:
    """Write or check the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only compare")
    text = (
        "\n".join([HEAD.rstrip(), *(line for command in COMMANDS if command.options for line in rows(command))]) + "\n"
    )
    if not parser.parse_args().check:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    print(f"{TARGET.name} is out of date; run: python tools/options_table.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

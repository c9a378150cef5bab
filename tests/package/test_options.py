"""Each option is declared once, and is on the command line, in TOML, in Python, in the docs and in identities."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import shardtrain
from shardtrain.cli.arguments import dest, spelled
from shardtrain.cli.main import COMMANDS, parser
from shardtrain.cli.settings import as_toml, options
from shardtrain.options import as_json, defaults_of, identity, nested_in, options_of

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(shardtrain.__path__, "shardtrain.")
    if module.name.rpartition(".")[2].endswith("options")
)


def option_classes() -> list[type[Any]]:
    """All option classes of the package, those that others are made of included."""
    found = {}
    for name in (*MODULES, *(f"shardtrain.cli.{command.name}" for command in COMMANDS)):
        for each in vars(importlib.import_module(name)).values():
            if dataclasses.is_dataclass(each) and inspect.isclass(each) and options_of(each):
                found[each.__qualname__] = each
    return list(found.values())


CLASSES = option_classes()
OFFERED = {offered.cls for command in COMMANDS for offered in command.offered}
FIELDS = [(cls, name) for cls in CLASSES for name in options_of(cls)]
FIELD_IDS = [f"{cls.__name__}.{name}" for cls, name in FIELDS]


def commands_with(cls: type[Any], name: str) -> list[str]:
    """The commands that offer a class, or one that is made of it, or the class that it is nested in."""
    return [
        command.name
        for command in COMMANDS
        for offered in command.offered
        if any(issubclass(each, cls) for each in (offered.cls, *nested_in(offered.cls).values()))
        and name not in offered.without
    ]


@pytest.mark.parametrize(("cls", "name"), FIELDS, ids=FIELD_IDS)
def test_an_option_is_on_the_command_line_in_toml_in_python_and_in_the_docs(cls, name):
    commands = commands_with(cls, name)
    assert commands, "no command offers it"
    declared, default = options_of(cls)[name], defaults_of(cls)[name]
    flag, key = spelled(name, declared, default), dest(name, default)
    for command in commands:
        sub = parser_of(command)
        assert flag in sub._option_string_actions
        (toml_key,) = [each for each, action in options(sub).items() if action.dest == key]
        values = {action.dest: action.default for action in sub._actions}
        lines = list(as_toml(command, sub, argparse.Namespace(**values, given=set())))
        assert any(line.removeprefix("# ").startswith(toml_key) for line in lines)
        section = TABLE.partition(f"\n## {command}\n")[2].partition("\n## ")[0]
        assert f"| `{flag}" in section
    assert name in inspect.signature(cls).parameters


@functools.cache
def parser_of(command: str) -> Any:
    """The parser of a command."""
    (commands,) = [action.choices for action in parser()._actions if isinstance(action.choices, dict)]
    return commands[command]


@pytest.mark.parametrize(("cls", "name"), FIELDS, ids=FIELD_IDS)
def test_an_option_is_in_the_identity_or_declared_as_deciding_nothing(cls, name):
    given = {each: "x" for each, default in defaults_of(cls).items() if default is dataclasses.MISSING}
    if cls.__name__ == "TuneOptions":
        given["space"] = {}
    if cls.__name__ == "RecompressOptions":
        given["compress"] = "lz4"
    first = cls(**given)
    second = copy.copy(first)
    object.__setattr__(second, name, ("another", getattr(first, name)))
    changed = identity(first) != identity(second)
    assert changed is options_of(cls)[name].identity


def test_every_option_class_is_offered_by_a_command():
    for cls in CLASSES:
        inside = [each for offered in OFFERED for each in (offered, *nested_in(offered).values())]
        assert any(issubclass(each, cls) for each in inside), f"no command offers {cls.__name__}"


def test_the_keywords_of_python_are_the_fields_of_the_option_classes():
    from shardtrain.pipeline.options import BuildOptions
    from shardtrain.training.options import FitOptions, RunOutput

    build, fit = inspect.signature(shardtrain.build).parameters, inspect.signature(shardtrain.fit).parameters
    assert list(build)[:2] == ["corpus", "out"]
    assert {*build} == {"corpus", "out", *options_of(BuildOptions)}
    assert {*fit} == {"shards", "callbacks", "mlp", "sepcnn", *options_of(FitOptions), *options_of(RunOutput)}
    for name, default in defaults_of(BuildOptions).items():
        assert build[name].default == default
        assert build[name].annotation == inspect.signature(BuildOptions).parameters[name].annotation


def test_the_table_of_options_in_the_docs_is_what_the_classes_say():
    done = subprocess.run(
        [sys.executable, "tools/options_table.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["shardtrain", *MODULES])
def test_importing_options_loads_no_framework(module):
    script = f"import sys, {module}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"tensorflow", "keras", "h5py", "numba", "numpy", "scipy"}


def test_values_are_json_as_a_record_has_them():
    assert as_json({"a": (1, Path("x")), "b": None}) == {"a": [1, "x"], "b": None}

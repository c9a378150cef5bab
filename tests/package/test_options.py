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

import numpy as np
import pytest

import shardtrain
from shardtrain.cli.arguments import dest, spelled
from shardtrain.cli.main import COMMANDS, parser
from shardtrain.cli.settings import as_toml, options
from shardtrain.errors import ShardtrainError, UnknownOptionError, UsageError
from shardtrain.options import as_json, checked_value, defaults_of, flag, identity, nested_in, options_of, types_of

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
    first = cls(**required_of(cls))
    second = copy.copy(first)
    object.__setattr__(second, name, ("another", getattr(first, name)))
    changed = identity(first) != identity(second)
    assert changed is options_of(cls)[name].identity


def required_of(cls: type[Any]) -> dict[str, Any]:
    """Values for the options without a default."""
    given = {each: "x" for each, default in defaults_of(cls).items() if default is dataclasses.MISSING}
    more: dict[str, dict[str, Any]] = {"TuneOptions": {"space": {}}, "RecompressOptions": {"compress": "lz4"}}
    return {**given, **more.get(cls.__name__, {})}


@pytest.mark.parametrize(("cls", "name"), FIELDS, ids=FIELD_IDS)
def test_a_value_of_another_type_is_refused_with_the_option_the_value_and_what_is_expected(cls, name):
    assert name in types_of(cls)
    for wrong in (object(), b"1", {"a": 1}, [[1]]):
        with pytest.raises(UsageError) as refused:
            cls(**{**required_of(cls), name: wrong})
        assert f"{flag(name)} is {wrong!r}; expected " in refused.value.on_command_line
        assert str(refused.value).startswith(f"{name} is ")


@pytest.mark.parametrize(("cls", "name"), FIELDS, ids=FIELD_IDS)
def test_a_switch_is_no_number_and_a_number_no_switch(cls, name):
    switch = isinstance(defaults_of(cls)[name], bool) or options_of(cls)[name].switch
    for wrong in (
        (1, 0, "yes") if switch and name != "tensorboard" else (True, False) if name != "tensorboard" else (1,)
    ):
        with pytest.raises(UsageError, match=rf"^{name} is {wrong!r}; "):
            cls(**{**required_of(cls), name: wrong})


@pytest.mark.parametrize(("cls", "name"), FIELDS, ids=FIELD_IDS)
def test_a_text_means_in_python_what_it_means_on_the_command_line(cls, name, tmp_path):
    (tmp_path / "words").write_text("the\na\n")
    declared, default = options_of(cls)[name], defaults_of(cls)[name]
    action = parser_of(commands_with(cls, name)[0])._option_string_actions[spelled(name, declared, default)]
    if action.nargs == 0:
        return
    texts = declared.choices[:1] or ("3", "0.5", "60s", "512MiB", str(tmp_path / "words"))
    same = 0
    for text in texts:
        if name in ("label_column", "text_columns", "by", "weight") and text.isdecimal():
            continue  # a column named "3" and the fourth column differ, and the command line knows one of them
        words = [text] * (action.nargs if isinstance(action.nargs, int) else 1)
        try:
            parsed = [action.type(word) if action.type else word for word in words]
            parsed = checked_value(cls, name, parsed if action.nargs in ("+", 2) else parsed[0])
        except (ValueError, ShardtrainError, argparse.ArgumentTypeError):
            with pytest.raises(ShardtrainError):
                checked_value(cls, name, words if action.nargs == 2 else text)
            continue
        found = checked_value(cls, name, words if action.nargs == 2 else text)
        assert (found, type(found)) == (parsed, type(parsed))
        same += 1
    assert same


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_unknown_keyword_is_refused_with_the_nearest_one(cls):
    for name in cls.__dataclass_fields__:
        with pytest.raises(UnknownOptionError, match=f"{cls.__name__} has no option '{name}z'; did you mean '{name}'"):
            cls(**{**required_of(cls), f"{name}z": 1})
    with pytest.raises(TypeError, match="has no keyword"):
        cls("a", "b")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"text_columns": "body"}, ("body",)),
        ({"text_columns": 1}, (1,)),
        ({"text_columns": ["title", 2]}, ("title", 2)),
        ({"label_column": "0"}, "0"),
        ({"memory_limit": "1GiB"}, 1 << 30),
        ({"validation": "more.csv"}, Path("more.csv")),
        ({"ngram_range": [1, "3"]}, (1, 3)),
        ({"stop_words": frozenset({"the", "a"})}, ("a", "the")),
        ({"min_df": "2"}, 2),
        ({"min_df": "0.5"}, 0.5),
        ({"max_df": 5}, 5),
        ({"max_features": np.int64(7)}, 7),
        ({"validation_fraction": 0}, 0.0),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_values_that_mean_the_same_are_converted(given, found):
    from shardtrain.pipeline.options import BuildOptions

    value = getattr(BuildOptions(**given), *given)
    assert (value, type(value)) == (found, type(found))


def test_sizes_of_a_model_are_an_option_class_or_a_mapping():
    from shardtrain.models.options import MlpOptions
    from shardtrain.training.options import FitOptions

    assert FitOptions(mlp={"units": "3"}).mlp == MlpOptions(units=3)
    with pytest.raises(UsageError, match=r"mlp is 3; expected MlpOptions, such as MlpOptions\(layers=2\)"):
        FitOptions(mlp=3)
    with pytest.raises(UsageError, match="units is 0"):
        FitOptions(mlp={"units": 0})


def test_options_that_exclude_each_other_are_refused_in_python_too():
    from shardtrain.pipeline.options import BuildOptions, ConvertOptions

    for cls in (BuildOptions, ConvertOptions):
        with pytest.raises(UsageError, match="validation and validation_fraction exclude each other"):
            cls(validation="a.csv", validation_fraction=0.2)
        again = dataclasses.replace(cls(validation="a.csv"), seed=2)
        assert again.validation_fraction == 0.1
    with pytest.raises(UsageError, match="exclude each other"):  # although the fraction is the default
        shardtrain.build("corpus", validation="a.csv", validation_fraction=0.1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: shardtrain.build("c", label_colum=1),
            "build has no option 'label_colum'; did you mean 'label_column'",
        ),
        (lambda: shardtrain.build("c", dry_run=True), "plan_build"),
        (lambda: shardtrain.fit("s", units=5), r"pass mlp=MlpOptions\(units=...\)"),
        (lambda: shardtrain.fit("s", dropout=0.5), r"MlpOptions\(dropout=...\) or sepcnn=SepcnnOptions\(dropout=...\)"),
        (lambda: shardtrain.fit("s", io="read"), "shardtrain.open_shards"),
    ],
    ids=["misspelled", "of the command line", "a size", "a size of two models", "of another function"],
)
def test_what_is_no_keyword_of_a_function_says_where_it_belongs(call, said):
    with pytest.raises(UnknownOptionError, match=said):
        call()


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

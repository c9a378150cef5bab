"""Laws of option files: what is printed reads back as the same options, the command line wins, mistakes are named."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtrain.cli import settings
from shardtrain.cli.arguments import options_from
from shardtrain.cli.fit import given_sizes
from shardtrain.cli.main import main, parser
from shardtrain.cli.parsing import SAME_OPTIONS
from shardtrain.cli.settings import options
from shardtrain.metrics.names import MEASURES
from shardtrain.options import nearest
from shardtrain.training.options import FitOptions

WORDS = {  # of each command: what it is for, options that it needs, and options whose values are of many kinds
    "demo": ([], ["--out", 'a "quoted"\\path\nof two lines'], ["--documents", "30", "--overwrite"]),
    "fetch": (["imdb"], [], ["--from", "brought/é.tar.gz", "--out", "x"]),
    "build": (
        ["corpus"],
        [],
        [
            *("--text-columns", "1", "body", "--label-column", "0", "--no-header", "--ngram-range", "1", "3"),
            *("--min-df", "0.25", "--max-df", "9", "--validation-fraction", "1e-7", "--binary", "--select", "chi2"),
        ],
    ),
    "convert": (["a.npy", "b.npy"], ["--out", "c"], ["--x", "one", "two", "--validation", "v w.npy", "u.npy"]),
    "index": (["a.h5"], ["--x", "x", "--y", "y", "--out", "c"], ["--validation", "v.h5", "--kind", "dense"]),
    "recompress": (["shards"], ["--out", "x", "--compress", "none"], ["--resume"]),
    "train": (["corpus"], ["--out", "r"], ["--shards", "s", "--units", "8", "--min-df", "3", "--overwrite"]),
    "fit": (["shards"], [], ["--devices", "GPU:0", "GPU:1", "--learning-rate", "1e-4", "--tensorboard"]),
    "launch": (["fit", "shards"], [], ["--mpi", "node1", "node2", "--port", "2000"]),
    "tune": (["shards"], [], ["--units", "8", "16", "--learning-rate", "1e-4:1e-2", "--dropout", "0.5", "--no-prune"]),
    "evaluate": (["run", "shards"], [], ["--text-columns", "2", "--on-bad-row", "skip", "--no-verify"]),
    "predict": (["run", "text"], [], ["--input", "-", "--proba", "--unescape", "--import", "mine", "--explain", "3"]),
    "runs": ([], [], ["--sort", "macro_f1", "--json"]),
    "compare": (["a", "b"], ["--data", "new.csv"], ["--split", "test", "--examples", "3", "--label-column", "stars"]),
    "export": (["run"], ["--out", "a.bundle"], ["--to", "bundle", "--weights", "float16", "--overwrite"]),
    "report": (["run"], [], ["--shards", "there", "--open"]),
    "verify": (["shards"], [], ["--workers", "3", "--verbose"]),
    "inspect": (["s"], ["--rows", "1", "--batch-size", "64"], ["--verify", "--shuffle-quality", "--json"]),
    "doctor": ([], [], ["--json", "--quiet"]),
    "completion": (["bash"], [], ["--debug"]),
}
UNCHANGED = parser()
(ALL,) = [action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)]
COMMANDS = ALL.choices


ABOUT_THE_FILE = {"run", "config", "print_config", "of_file", "whole"}


def parsed(*words: str) -> dict[str, Any]:
    """All values that a command gets, but for what is about the file itself; a file of options changes a parser."""
    reading = parser() if any(word.startswith("--config") for word in words) else UNCHANGED
    values = vars(reading.parse_args(list(words)))
    return {name: value for name, value in values.items() if name not in ABOUT_THE_FILE}


def file_of(folder: Path, text: str) -> str:
    path = folder / "options.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that tells what is wrong with a command line."""
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line


def test_every_command_is_tried_here():
    assert set(WORDS) == set(COMMANDS)


@pytest.mark.parametrize("more", [False, True], ids=["as they are", "with options"])
@pytest.mark.parametrize("command", WORDS)
def test_what_is_printed_reads_back_as_the_same_options(command, more, tmp_path, capsys):
    about, needed, further = WORDS[command]
    words = [*about, *needed, *(further if more else [])]
    assert main([command, *words, "--print-config"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert parsed(command, *about, "--config", file_of(tmp_path, out)) == parsed(command, *words)


@pytest.mark.parametrize("command", WORDS)
def test_a_printed_template_gives_no_option_and_its_defaults_read_back(command, tmp_path, capsys):
    """A default that is given is refused in places where an omitted one is not."""
    about, needed, _ = WORDS[command]
    assert main([command, "--print-config"]) == 0
    template = capsys.readouterr().out
    assert parsed(command, *about, *needed, "--config", file_of(tmp_path, template)) == parsed(command, *about, *needed)
    uncommented = re.sub(r"^# (?=\w+ = )", "", template, flags=re.MULTILINE)
    read = parsed(command, *about, *needed, "--config", file_of(tmp_path, uncommented))
    assert {**read, "given": None} == {**parsed(command, *about, *needed), "given": None}


@pytest.mark.parametrize("kind", ["ngram", "sequence"])
def test_a_printed_template_of_fit_is_accepted_for_every_kind_of_shards(kind, tmp_path, capsys):
    assert main(["fit", "--print-config"]) == 0
    config = file_of(tmp_path, capsys.readouterr().out)
    args = parser().parse_args(["fit", "shards", "--config", config, "--epochs", "1"])
    made = options_from(args, FitOptions).with_sizes(given_sizes(args), kind)
    assert made == FitOptions(epochs=1).with_sizes({}, kind)


def test_a_given_value_is_printed_as_given_even_if_it_is_the_default(capsys):
    assert main(["fit", "--epochs", "1000", "--print-config"]) == 0
    out = capsys.readouterr().out
    assert "\nepochs = 1000\n" in out
    assert "\n# patience: " in out


EMPTY = {  # command lines with empty values, and the same without them
    "of one word": (["build", "c", "--memory-limit", "", "--seed", "3"], ["build", "c", "--seed", "3"]),
    "with an equals sign": (["build", "c", "--stop-words=", "--workers="], ["build", "c"]),
    "of a choice": (["build", "--compress", "", "c"], ["build", "c"]),
    "of several words": (["build", "c", "--text-columns", "", "--binary"], ["build", "c", "--binary"]),
    "of two words": (["build", "c", "--ngram-range", "", ""], ["build", "c"]),
    "of a word that may be omitted": (["fit", "--tensorboard", "", "s"], ["fit", "s"]),
    "of an option that excludes another": (
        ["build", "c", "--validation", "", "--validation-fraction", "0.2"],
        ["build", "c", "--validation-fraction", "0.2"],
    ),
    "of the file": (["build", "c", "--config", ""], ["build", "c"]),
}


@pytest.mark.parametrize("case", EMPTY)
def test_an_option_with_an_empty_value_is_not_given(case):
    words, without = EMPTY[case]
    assert parsed(*words) == parsed(*without)


@pytest.mark.parametrize("command", WORDS)
def test_an_empty_value_of_any_option_is_not_given(command, tmp_path):
    about, needed, _ = WORDS[command]
    without, empty = parsed(command, *about, *needed), []
    for key, action in options(COMMANDS[command]).items():
        flag = next(name for name in action.option_strings if name.startswith("--"))
        if action.nargs != 0 and flag not in needed:
            assert parsed(command, *about, *needed, flag, "") == without, flag
            if action.nargs in (None, "?"):
                empty.append(f'{key} = ""\n')
    assert empty or command in ("verify", "inspect", "completion", "doctor")
    config = file_of(tmp_path, f"[{command}]\n{''.join(empty)}")
    assert parsed(command, *about, *needed, "--config", config) == without


def test_an_empty_text_beside_options_stays_and_a_required_option_stays_required(capsys):
    assert parsed("predict", "run", "", "--json")["texts"] == [""]
    assert parsed("predict", "run", "--", "--input", "")["texts"] == ["--input", ""]
    assert "--out" in refused(capsys, "convert", "a.npy", "--out", "")


@pytest.mark.parametrize("command", WORDS)
def test_options_are_printed_with_all_there_are_whatever_is_missing(command, capsys):
    assert main([command, "--print-config"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"[{command}]\n")
    for key in options(COMMANDS[command]):
        assert f"\n{key} = " in out or f"\n# {key}" in out, key


def test_printing_does_nothing_else(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo"), "--print-config"]) == 0
    assert main(["build", str(tmp_path / "nowhere"), "--print-config"]) == 0
    assert not list(tmp_path.iterdir())


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path):
    config = file_of(
        tmp_path, "[build]\nmax_features = 7\nseed = 3\nout = 'f'\nheader = true\n[fit]\nunits = 8\nresume = true\n"
    )
    found = parsed("build", "corpus", "--config", config, "--max-features", "9", "--no-header")
    assert (found["max_features"], found["seed"], found["out"], found["header"]) == (9, 3, Path("f"), False)
    assert found["labels"] == "auto"
    found = parsed("fit", "--units", "16", f"--config={config}")
    assert (found["units"], found["resume"], found["layers"]) == (16, True, 2)


def test_an_option_of_the_command_line_takes_the_place_of_those_that_it_excludes(tmp_path):
    config = file_of(tmp_path, "[build]\nvalidation_fraction = 0.2\nverbose = true\nseed = 3\n")
    found = parsed("build", "corpus", "--config", config, "--validation", "v.csv", "--quiet")
    assert (found["validation"], found["validation_fraction"], found["seed"]) == (Path("v.csv"), 0.1, 3)
    assert (found["quiet"], found["verbose"]) == (True, False)


def test_dashes_are_taken_for_underscores(tmp_path):
    assert parsed("build", "x", "--config", file_of(tmp_path, "[build]\nmax-features = 7\n"))["max_features"] == 7


def test_one_value_is_a_list_of_one(tmp_path):
    assert parsed("build", "x", "--config", file_of(tmp_path, "[build]\ntext_columns = 'body'\n"))["text_columns"] == [
        "body"
    ]


def test_options_of_a_file_are_used(tmp_path, capsys):
    config = file_of(tmp_path, f"[demo]\nout = '{tmp_path}/demo'\ndocuments = 100\nclasses = 3\njson = true\n")
    assert main(["demo", "--config", config, "--classes", "2"]) == 0
    assert '"num_train": 100' in capsys.readouterr().out
    assert len((tmp_path / "demo" / "classes.txt").read_text().split()) == 2


def test_a_value_that_only_the_command_can_refuse_is_told_with_the_file(tmp_path, capsys):
    config = file_of(tmp_path, "[build]\nseed = 3\nworkers = 0\nlabels = 'names'\n")
    (tmp_path / "a.csv").write_text('"1","aa"\n"2","bb"\n')
    assert main(["build", str(tmp_path / "a.csv"), "--config", config]) == 2
    err = capsys.readouterr().err
    assert err.rstrip().endswith(f"--workers 0: at least 1; '{config}' sets workers = 0")


BAD = {  # what is wrong: the file, and what the message says
    "no TOML": ("[build\n", ["is not valid TOML", "line 1"]),
    "an option outside of a table": ("max_features = 3\n", ["'max_features' is not in a table"]),
    "a table of no command": ("[biuld]\n", ["no command for the table [biuld]", "did you mean 'build'?"]),
    "an unknown key": ("[build]\nmax_feature = 3\n", ["[build] has no option 'max_feature'", "'max_features'?"]),
    "an unknown key of another command": ("[fit]\nunit = 3\n", ["[fit] has no option 'unit'", "'units'?"]),
    "a text for a number": ('[build]\nseed = "one"\n', ["'seed' of [build] is \"one\"", "must be a whole number"]),
    "a fraction for a whole number": ("[build]\nseed = 1.5\n", ["is 1.5", "must be a whole number"]),
    "a switch for a number": ("[build]\nseed = true\n", ["is true", "must be a whole number"]),
    "a number for a text": ("[build]\nout = 3\n", ["'out' of [build] is 3", "must be a text"]),
    "a date": ("[build]\nout = 2024-01-01\n", ["is 2024-01-01", "must be a text"]),
    "a number for a switch": ("[build]\noverwrite = 1\n", ["is 1", "must be true or false"]),
    "a switch for a list": ("[build]\ntext_columns = true\n", ["is true", "must be"]),
    "too short a list": ("[build]\nngram_range = [1]\n", ["is [1]", "list of 2 values, each a whole number"]),
    "a list for a number": ("[build]\nseed = [1]\n", ["is [1]", "must be a whole number"]),
    "an empty list": ("[convert]\nx = []\n", ["is []", "list of one or more values, each a text"]),
    "no such choice": ('[build]\nvectorizer = "ngrm"\n', ['is "ngrm"', "one of ngram, count", "did you mean 'ngram'?"]),
    "neither number nor proportion": ('[build]\nmin_df = "few"\n', ["'few' is neither a number of documents"]),
    "no range": ('[tune]\nunits = ["8-16"]\n', ['is ["8-16"]', "number or LOW:HIGH"]),
    "both ways to write a key": ("[build]\nmax_df = 3\nmax-df = 4\n", ["[build] has 'max_df' twice"]),
    "options that exclude each other": (
        "[build]\nvalidation = 'v.csv'\nvalidation_fraction = 0.1\n",
        ["'validation' and 'validation_fraction'"],
    ),
    "the file itself": ("[build]\nconfig = 'x.toml'\n", ["[build] has no option 'config'"]),
}


def test_words_after_two_dashes_are_not_options_about_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    """They are texts of `predict`, or of the command that `launch` starts."""
    for word in (["--print-config"], ["--config", "nowhere.toml"]):
        found = parser().parse_args(["launch", "--local", "2", "--", "fit", "shards", *word])
        assert found.words == ["fit", "shards", *word]
        assert found.run is not None
        assert not found.print_config
        assert found.run.__module__ == "shardtrain.cli.launch"


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_named_with_file_key_and_what_can(case, tmp_path, capsys):
    text, said = BAD[case]
    config = file_of(tmp_path, text)
    line = refused(capsys, "build", "corpus", "--config", config)
    assert config in line
    for words in said:
        assert words in line


@pytest.mark.parametrize("content", [None, b"[build]\nout = '\xff'\n"], ids=["no such file", "no UTF-8"])
def test_a_file_that_cannot_be_read_is_named(content, tmp_path, capsys):
    path = tmp_path / "options.toml"
    if content is not None:
        path.write_bytes(content)
    assert f"--config '{path}'" in refused(capsys, "build", "corpus", "--config", str(path))


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_written_as_toml_that_reads_back(text):
    command = argparse.ArgumentParser()
    command.add_argument("--text", nargs="+")
    (_, line) = settings.as_toml("x", command, argparse.Namespace(text=[text, text], given={"text"}))
    assert settings.tomllib.loads(line) == {"text": [text, text]}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["biuld", "x"], "no command 'biuld'; did you mean 'build'?"),
        (["trian", "x"], "no command 'trian'; did you mean 'train'?"),
        (["xyz"], "no command 'xyz'; see `python -m shardtrain --help`"),
        (["--json", "build"], "'--json' is not an option for all commands; options follow the command"),
        (["build", "--max-feature", "3", "x"], "no option '--max-feature'; did you mean '--max-features'?"),
        (["build", "--label", "3"], "no option '--label'; did you mean '--labels'?"),
        (["predict", "r", "--input", "a", "--out", "b"], "predict has no option '--out'; did you mean '--output'?"),
        (["fit", "d", "--monitor", "val_f1"], "; did you mean 'macro_f1', 'weighted_f1' or 'micro_f1'?"),
        (["tune", "d", "--metric", "auc"], "--metric is 'auc'; choose one of accuracy, loss, "),
        (["launch", "--local", "2", "fit", "d", "--epochs", "3"], "options of fit or train follow --, as in `launch"),
        (["index", "x.h5", "--data", "a"], "index has no option '--data'; it is an option of compare and report"),
        (["fit", "x", "y"], "fit does not take 'y' here"),
        (["build"], "the following arguments are required: CORPUS; see `python -m shardtrain build --help`"),
        (["index", "x.h5", "--xx", "a"], "index has no option '--xx'; did you mean '--x'?"),
        (["fit", "--epochs", "many"], "argument --epochs: invalid int value: 'many'"),
        (["predict", "run", "-x"], "predict does not take '-x' here"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_of_the_command_line_is_told_in_one_line_with_what_was_probably_meant(words, said, capsys):
    assert said in refused(capsys, *words)


def test_texts_and_files_may_stand_after_options(tmp_path):
    assert parsed("predict", "run", "--json", "one", "two")["texts"] == ["one", "two"]
    assert parsed("predict", "run", "one", "--json", "--", "--two")["texts"] == ["one", "--two"]
    assert parsed("convert", "a.npy", "--out", "x", "b.npy")["files"] == [Path("a.npy"), Path("b.npy")]


def test_no_command_at_all_shows_help(capsys):
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().err


def test_the_files_that_the_documentation_shows_are_taken(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "config.md").read_text(encoding="utf-8")
    config = file_of(tmp_path, text.partition("```toml\n")[2].partition("```")[0])
    found = parsed("build", "reviews.csv.gz", "--config", config)
    assert (found["text_columns"], found["max_features"]) == (["title", "body"], 50_000)
    found = parsed("fit", "--config", config, "--units", "64")
    assert (found["units"], found["tensorboard"]) == (64, True)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_that_a_command_calls_otherwise_is_suggested_by_its_name_there(name, capsys):
    there = {flag for action in options(COMMANDS[name]).values() for flag in action.option_strings}
    for same in SAME_OPTIONS:
        for other in {*same} - there if there & {*same} else ():
            line = refused(capsys, name, other, "x")
            assert any(f"{name} has no option '{other}'; did you mean '{flag}'?" in line for flag in there & {*same})


@pytest.mark.parametrize("measure", MEASURES)
def test_a_metric_is_found_by_the_name_that_keras_gives_that_of_the_validation_rows(measure):
    assert nearest(f"val_{measure}", MEASURES) == f"; did you mean '{measure}'?"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_choice_is_refused_with_all_choices_in_the_words_of_python(name, capsys):
    needed = [word for words in WORDS[name][:2] for word in words]
    for action in options(COMMANDS[name]).values():
        if action.choices is None or action.nargs not in (None, "?"):
            continue
        first = action.option_strings[0]
        line = refused(capsys, name, *needed, first, "zzz")
        assert f"{first} is 'zzz'; choose one of {', '.join(action.choices)};" in line

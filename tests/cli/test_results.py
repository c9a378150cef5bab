"""Laws of what commands tell: results on stdout, also as JSON; the rest on stderr, as much as is wanted."""

from __future__ import annotations

import argparse
import io
import json
import math
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardtrain import doctor
from shardtrain.cli.main import COMMANDS, main, parser
from shardtrain.cli.results import next_step, show
from shardtrain.runtime import progress as telling
from shardtrain.runtime.progress import NORMAL, QUIET, VERBOSE, progress, say, verbosity, warn


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    """The one line of JSON that a command prints."""
    assert main([*map(str, arguments), "--json", "--quiet"]) == code
    (line,) = capsys.readouterr().out.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.mark.heavy
def test_every_command_tells_its_result_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    works = doctor.TensorFlow(tensorflow="2", keras="3")
    monkeypatch.setattr(doctor, "try_tensorflow", lambda python: works)  # in a process of its own; test_doctor has that
    demo, shards = tmp_path / "demo", tmp_path / "shards"
    run = tmp_path / "run"
    done = {"demo": told(capsys, "demo", "--out", demo, "--documents", 900, "--classes", 3)}
    assert (done["demo"]["corpus"], done["demo"]["num_train"]) == (str(demo), 900)
    done["build"] = told(capsys, "build", demo, "--out", shards, "--max-features", 500)
    sizes = {name: done["build"][name]["examples"] for name in ("train", "validation", "test")}
    assert (sizes["train"] + sizes["validation"], sizes["test"], done["build"]["num_features"]) == (900, 90, 500)
    assert done["build"]["documents"] == 990
    done["fit"] = told(capsys, "fit", shards, "--out", run, "--epochs", 2)
    assert (done["fit"]["run"], done["fit"]["model"], done["fit"]["epochs"]) == (str(run), "mlp", 2)
    done["evaluate"] = told(capsys, "evaluate", run, shards)
    assert done["evaluate"]["split"] == "validation"
    assert done["evaluate"]["accuracy"] == pytest.approx(done["fit"]["val_accuracy"], rel=1e-6)
    tested = told(capsys, "evaluate", run, shards, "--split", "test")
    expected = (done["fit"]["test_accuracy"], done["fit"]["test_loss"])
    assert (tested["accuracy"], tested["loss"]) == pytest.approx(expected, rel=1e-6)
    done["runs"] = told(capsys, "runs", tmp_path, "--sort", "accuracy")
    assert [each["accuracy"] for each in done["runs"]["runs"]] == [done["fit"]["val_accuracy"]]
    told(capsys, "fit", shards, "--model", "linear", "--out", tmp_path / "other", "--epochs", 1)
    done["compare"] = told(capsys, "compare", run, tmp_path / "other", "--split", "test")
    (pair,) = done["compare"]["pairs"]
    assert pair["accuracy"]["first"] == pytest.approx(tested["accuracy"], rel=1e-9)
    assert done["compare"]["options"]["model"] == ["mlp", "linear"]
    done["report"] = told(capsys, "report", run, "--out", tmp_path / "run.html")
    assert done["report"]["bytes"] == (tmp_path / "run.html").stat().st_size
    done["predict"] = told(capsys, "predict", run, "one text")
    assert done["predict"]["label"] in done["build"]["class_names"]
    done["export"] = told(capsys, "export", run, "--out", tmp_path / "model.bundle")
    assert done["export"]["bytes"] == (tmp_path / "model.bundle").stat().st_size
    done["verify"] = told(capsys, "verify", shards)
    assert done["verify"]["faults"] == []
    done["inspect"] = told(capsys, "inspect", shards, "--rows", 0)
    assert done["inspect"]["fingerprint"] == done["build"]["fingerprint"]
    done["recompress"] = told(capsys, "recompress", shards, "--out", tmp_path / "small", "--compress", "zstd")
    assert done["recompress"]["train"]["class_counts"] == done["build"]["train"]["class_counts"]
    np.save(tmp_path / "x.npy", np.eye(40, dtype=np.float32))
    np.save(tmp_path / "y.npy", np.arange(40) % 2)
    done["convert"] = told(capsys, "convert", tmp_path / "x.npy", "--y", tmp_path / "y.npy", "--out", tmp_path / "c")
    assert done["convert"]["kind"] == "dense"
    import h5py

    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"], file["y"] = np.eye(40, dtype=np.float32), np.arange(40) % 2
    done["index"] = told(capsys, "index", tmp_path / "x.h5", "--x", "x", "--y", "y", "--out", tmp_path / "i")
    assert done["index"]["train"]["class_counts"] == [18, 18]
    done["doctor"] = told(capsys, "doctor", tmp_path)
    assert done["doctor"]["problems"] == []
    done["completion"] = told(capsys, "completion", "bash")
    assert "shardtrain" in done["completion"]["script"]
    done["train"] = told(capsys, "train", demo, "--epochs", 1, "--out", tmp_path / "one")
    assert done["train"]["class_names"] == done["build"]["class_names"]
    tried = ("--units", 4, "--epochs", 1, "--out", tmp_path / "study")
    done["tune"] = told(capsys, "tune", shards, *tried)
    assert done["tune"]["trials"] == [done["tune"]["best"]]
    # of fetch and launch, which starts processes that print it, their own tests have it
    assert {*done, "fetch", "launch"} == {command.name for command in COMMANDS}
    (shards / "train-00000.h5").write_bytes(b"")
    assert told(capsys, "verify", shards, code=1)["faults"]


def test_json_has_no_numbers_that_json_has_not(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"loss": math.nan, "parts": [{"rate": math.inf}], "path": Path("a/b"), "names": ("é",)}
    show(True, facts, "a line")
    assert json.loads(capsys.readouterr().out) == {
        "loss": None,
        "parts": [{"rate": None}],
        "path": "a/b",
        "names": ["é"],
    }
    show(False, facts, "a line")
    assert capsys.readouterr().out == "a line\n"


TOLD = {  # level: lines of a fact, a lasting pass, a short pass, a warning
    QUIET: ["warning: heed"],
    NORMAL: ["fact", "long: 2 rows", "warning: heed"],
    VERBOSE: ["fact", "long: 2 rows", "short: 2 rows", "warning: heed"],
}


@pytest.mark.parametrize("level", TOLD, ids=["quiet", "normal", "verbose"])
def test_as_much_is_told_as_is_wanted(level: int, capsys: pytest.CaptureFixture[str]) -> None:
    with verbosity(level):
        say("fact")
        for title, lasting in (("long", True), ("short", False)):
            with progress(title, total=2, unit="rows", lasting=lasting) as shown:
                shown.add(2)
                assert shown.done == 2
        warn("heed")
    lines = [line.partition(" in ")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == TOLD[level]
    assert telling._level == NORMAL


def test_the_flags_exclude_each_other_and_decide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text('"1","aa bb"\n"2","aa cc"\n' * 9)
    build = ["build", str(tmp_path / "in.csv"), "--overwrite", "--out", str(tmp_path / "out")]
    assert main([*build, "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert main([*build, "--verbose"]) == 0
    assert "scanning the corpus:" in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        main([*build, "--quiet", "--verbose"])
    assert left.value.code == 2
    assert main(["build", str(tmp_path / "absent"), "--quiet"]) == 1
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize("no_color", ["", "1"], ids=["wanted", "not wanted"])
def test_colours_are_for_terminals_whose_users_want_them(monkeypatch: pytest.MonkeyPatch, no_color: str) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    warn("heed")
    with progress("long", total=2) as shown:
        shown.add(2)
    assert main(["verify", "absent"]) == 1
    written = terminal.getvalue()
    assert ("\x1b[31merror: " in written) is ("\x1b[33mwarning: heed" in written) is (not no_color)
    assert ("\x1b[32m" in written or "\x1b[38;" in written) is (not no_color)
    assert "long: 100%" in written


def test_a_file_gets_no_colour(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    warn("heed")
    assert capsys.readouterr().err == "warning: heed\n"


def test_every_command_has_the_flags() -> None:
    (commands,) = [action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)]
    for name, command in commands.choices.items():
        shown = command.format_help()
        assert all(flag in shown for flag in ("--json", "--quiet", "--verbose", "--debug")), name


@pytest.mark.parametrize("name", ["plain", "with space", "it's", "$(reboot)", "`x`", "a;b", "-dash"])
def test_a_proposed_command_is_one_that_a_shell_reads_back(name: str) -> None:
    line = next_step("build", Path("data") / name, "--out", name)
    assert shlex.split(line.removeprefix("next: ")) == [
        *("python", "-m", "shardtrain", "build"),
        *(f"data/{name}", "--out", name),
    ]


def test_no_message_writes_a_path_into_a_command_itself() -> None:
    """`command_line` quotes words for a shell; only names of the program's own may be written otherwise."""
    package = Path(doctor.__file__).parent
    found = [
        f"{path.relative_to(package)}:{number}: {line.strip()}"
        for path in sorted(package.rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"python -m shardtrain[^\"`]*\{(?!KINDS|self\.prog)", line)
    ]
    assert found == []

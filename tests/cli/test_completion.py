"""Laws of `completion`: a real bash completes commands, options, choices and folders with what it prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from shardtrain.cli.main import main

ASK = """
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
complete -p shardtrain > /dev/null
_shtab_shardtrain
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    command = [sys.executable, "-m", "shardtrain", "completion", "bash"]
    path = tmp_path_factory.mktemp("completion") / "script"
    path.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    return path


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["fi"], {"fit"}),
        (["re"], {"recompress", "report"}),
        (["build", "--max-"], {"--max-features", "--max-df", "--max-length"}),
        (["build", "--vectorizer", "s"], {"sequence"}),
        (["fit", "sh"], {"shards"}),
        (["completion", ""], {"bash", "zsh", "tcsh"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bash_completes(words: list[str], completed: set[str], script: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    asked = ["bash", "--norc", "-c", ASK, "bash", str(script), "shardtrain", *words]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert {word.rstrip("/ ") for word in done.stdout.split()} == completed


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_every_shell_has_its_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("shardtrain", "recompress", "max-features"))


def test_without_its_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "pip install 'shardtrain[completion]'" in err

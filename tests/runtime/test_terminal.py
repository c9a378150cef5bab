"""Laws of what is written to stdout and stderr: text stays text, a log decides nothing, and one module writes."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shardtrain
from shardtrain.runtime.terminal import json_safe, printable, tell

PACKAGE = Path(shardtrain.__file__).parent
HOME = PACKAGE / "runtime" / "terminal.py"
ANY_TEXT = st.text(st.characters(exclude_categories=()))
OVERRIDES = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

# Warnings of Python for programs, which Python's filters are for: constant text, no message of a command.
MAY_WARN = {"models/pydataset.py"}


@given(ANY_TEXT)
def test_no_character_that_a_terminal_acts_on_is_printable(text: str) -> None:
    shown = printable(text)
    assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in OVERRIDES]
    assert printable(shown) == shown
    shown.encode()


@given(st.text(st.characters(categories=("L", "M", "N", "P", "S"), include_characters=" \u200d\u200c\u00a0")))
def test_other_text_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;t\x07", r"\x1b]0;t\x07"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800", r"\ud800"),
    ],
    ids=["a title", "a second line", "a name that is not UTF-8", "C1", "right to left", "half a character"],
)
def test_a_character_is_escaped_as_python_writes_it(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.dictionaries(ANY_TEXT, ANY_TEXT))
def test_escapes_of_json_keep_its_values(value: dict[str, str]) -> None:
    safe = json_safe(json.dumps(value, ensure_ascii=False))
    assert json.loads(safe) == value
    assert printable(safe) == safe


def test_no_other_module_writes_or_reads_the_standard_streams() -> None:
    found = [
        f"{name}:{getattr(node, 'lineno', 0)}: {ast.unparse(node)}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != HOME
        for name in [path.relative_to(PACKAGE).as_posix()]
        for node in ast.walk(ast.parse(path.read_text()))
        if _is_direct(node, name)
    ]
    assert found == []


def _is_direct(node: ast.AST, path: str) -> bool:
    if isinstance(node, ast.Call):
        called = _dotted(node.func)
        return called in ("print", "input", "tqdm.write", "traceback.print_exc", "traceback.print_exception") or (
            called == "os.write" and ast.unparse(node.args[0]) in ("1", "2")
        )
    if isinstance(node, ast.Attribute):
        streams = {"stdin", "stdout", "stderr", "__stdin__", "__stdout__", "__stderr__"}
        return node.attr in streams and _dotted(node.value) == "sys"
    if isinstance(node, ast.ImportFrom):
        return node.module == "sys" or (node.module == "warnings" and path not in MAY_WARN)
    return isinstance(node, ast.Import) and any(a.name == "warnings" for a in node.names) and path not in MAY_WARN


def _dotted(node: ast.AST) -> str:
    """The source of a name or of an attribute of one; empty for other expressions."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def test_the_law_above_sees_every_way_to_write() -> None:
    ways = [
        "print(1)",
        "sys.stderr.write('')",
        "tqdm.write('')",
        "os.write(2, b'')",
        "import warnings",
        "x = sys.stdin",
    ]
    assert all(any(_is_direct(node, "cli/main.py") for node in ast.walk(ast.parse(way))) for way in ways)


CLOSED = "import os; os.close({0}); sys.{1} = None"
FULL = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), {0})"
BROKEN = "import os; r, w = os.pipe(); os.close(r); os.dup2(w, {0})"
PREPARED = "import sys; {0}; from shardtrain.runtime import terminal; terminal.secure_standard_streams(); {1}"


def _run(prepare: str, code: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", PREPARED.format(prepare, code)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("state", [CLOSED, FULL, BROKEN], ids=["closed", "full", "broken"])
def test_messages_that_stderr_cannot_take_are_dropped_and_the_exit_code_is_that_of_the_work(state: str) -> None:
    code = (
        "import warnings; terminal.tell('note'); warnings.warn('old'); print('also', file=sys.stderr); "
        "terminal.MESSAGES.write('bar'); terminal.MESSAGES.flush(); terminal.write_lines(['done'])"
    )
    done = _run(state.format(2, "stderr"), code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


RESULT = """exec('''
try:
    terminal.{0}
except terminal.ReaderGoneError:
    sys.exit(41)
except terminal.StandardStreamError as error:
    sys.exit(42)
''')"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(("state", "code"), [(CLOSED, 42), (FULL, 42), (BROKEN, 41)], ids=["closed", "full", "broken"])
def test_a_result_that_stdout_cannot_take_is_an_error_and_a_summary_is_not(state: str, code: int) -> None:
    for write in ("write_lines([str(1)])", "write_data(str(1))"):
        done = _run(state.format(1, "stdout"), RESULT.format(write))
        assert (done.returncode, done.stderr) == (code, "")
    done = _run(state.format(1, "stdout"), RESULT.format("write_lines([str(1)], summary=True)"))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_descriptor_is_never_given_to_a_file() -> None:
    code = "f = open(__import__('os').devnull); print(f.fileno() > 2)"
    done = _run("import os; os.close(0); os.close(2); sys.stdin = sys.stderr = None", code)
    assert done.stdout == "True\n"


def test_data_is_exact_in_a_pipe_whatever_the_encoding_of_the_terminal() -> None:
    text = "\x1b[1mé\u202e\n"
    code = f"terminal.write_data({text!r}); terminal.write_lines([{text!r}])"
    words = [sys.executable, "-c", PREPARED.format("pass", code)]
    done = subprocess.run(words, capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.stdout == text.encode() + rb"\x1b[1m\xe9\u202e\n" + b"\n"


def test_a_message_without_a_stream_is_dropped_in_programs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (None, open(os.devnull)):  # noqa: SIM115 - closed, or not for writing
        if stream is not None:
            stream.close()
        monkeypatch.setattr(sys, "stderr", stream)
        tell("nobody hears this")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    tell("and then this is heard")
    assert sys.stderr.getvalue() == "and then this is heard\n"

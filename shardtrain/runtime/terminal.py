r"""Write to standard output and standard error, and read standard input: the only module that does.

Text from files reaches a terminal as text only. A control character, a bidirectional control or a lone surrogate in a
name or a document could rewrite the screen, set the window's title or hide a part of a line, so:

- *Messages* on stderr (progress, notes, warnings, errors) and *lines* of results on stdout are for people. In them such
  characters are always shown escaped (`\x1b`, `\n`), as git shows names, whether or not the stream is a terminal: log
  files are shown on terminals later. A line is always one line.
- *Data* on stdout (JSON, rows of predictions, scripts) is for programs: exact, in UTF-8, in files and pipes, as
  `ls` gives names; escaped on a terminal. JSON is written with its own escapes, so its values are exact everywhere.

Messages that stderr cannot take (closed, a full disk, a terminal that is gone) are dropped: a log never decides whether
work is done. A result that stdout cannot take is an error, unless its lines only sum up what was written elsewhere.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, TextIO

from shardtrain.errors import StandardStreamError

RED, YELLOW = 31, 33

# C0 controls, DEL, C1 controls, line separators, lone surrogates, and the bidirectional embeddings, overrides and
# isolates of Rust's lint text_direction_codepoint_in_literal (CVE-2021-42574).
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_BYTES = range(0xDC80, 0xDD00)  # surrogates that stand for bytes of a name that is not in the system's encoding

_stderr = 2  # the descriptor of standard error while `captured_stderr` has redirected 2
_replaced: IO[str] | None = None  # the first stream for standard error: collected, it would close the descriptor
_closed: IO[str] | None = None  # what stands for a standard output that was closed when the process started


class ReaderGoneError(BrokenPipeError):
    """The reader of stdout ended, as `head` does."""


def printable(text: str) -> str:
    r"""Return a text with every character escaped that a terminal would act on, line ends and tabs included."""
    return _UNSAFE.sub(_escape, text)


def aligned(rows: Sequence[Sequence[str]], *, text: int) -> Iterator[str]:
    """Yield rows as lines of aligned columns: the first `text` ones to the left, the others, numbers, to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:text], widths[:text], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(row[text:], widths[text:], strict=True)]
        yield "  ".join(cells)


def json_safe(text: str) -> str:
    r"""Return JSON with the same characters as escapes of JSON, such as `\u009b`: the values stay the same."""
    return _UNSAFE.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)


def tell(*lines: str, colour: int | None = None) -> None:
    """Write messages to stderr, a line each, without breaking a visible bar; what stderr cannot take is dropped."""
    shown = [painted(line, colour) if colour else printable(line) for line in lines]
    tqdm = sys.modules.get("tqdm")  # not loaded: no bar is visible
    with tqdm.tqdm.external_write_mode(file=MESSAGES) if tqdm else contextlib.nullcontext():
        MESSAGES.write("".join(f"{line}\n" for line in shown))
        MESSAGES.flush()


def tell_error(line: str) -> None:
    """Write an error to stderr."""
    tell(line, colour=RED)


def write_lines(lines: Iterable[str], *, summary: bool = False) -> None:
    """Write lines for people to stdout.

    Args:
        lines: each becomes one line.
        summary: they only sum up what was written elsewhere, and are dropped if stdout cannot take them.

    Raises:
        ReaderGoneError: the reader of stdout ended, and this is no summary.
        StandardStreamError: stdout cannot be written, and this is no summary.
    """
    text = "".join(f"{printable(line)}\n" for line in lines)
    try:
        _write_result(text)
    except (ReaderGoneError, StandardStreamError):
        if not summary:
            raise


def write_data(text: str) -> None:
    """Write data for programs to stdout: exactly, in UTF-8, unless stdout is a terminal.

    Raises:
        ReaderGoneError: the reader of stdout ended.
        StandardStreamError: stdout cannot be written.
    """
    if not stdout_is_terminal():
        _write_result(text, exact=True)
    else:
        _write_result(_UNSAFE.sub(lambda match: match[0] if match[0] in "\n\t" else _escape(match), text))


def standard_input() -> TextIO:
    """Return standard input; its `buffer` has the bytes.

    Raises:
        StandardStreamError: it was closed when the process started.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise StandardStreamError("standard input is closed; pipe a file into the command, or name the file")
    return sys.stdin


def stdout_is_terminal() -> bool:
    """Return whether results are shown on a terminal."""
    return _is_terminal(sys.stdout)


def stderr_is_terminal() -> bool:
    """Return whether messages are shown on a terminal."""
    return _is_terminal(sys.stderr)


def painted(text: str, colour: int) -> str:
    """Return the text, escaped, for stderr: in a colour if that is a terminal that may have colours."""
    return f"\x1b[{colour}m{printable(text)}\x1b[0m" if coloured() else printable(text)


def coloured() -> bool:
    """Return whether messages may have colours (https://no-color.org)."""
    return stderr_is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def secure_standard_streams() -> None:
    """Prepare the three standard streams of this process for whatever it was started with.

    A descriptor that is closed is opened on the null device: otherwise the next file that is opened would get its
    number, and what a library prints would be written into that file. What anything writes to `sys.stderr` and the
    stream cannot take is dropped. Warnings of Python are messages like others.
    """
    global _closed, _replaced
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY if number else os.O_RDONLY)  # gets the lowest number that is free
    if sys.stdout is None:
        sys.stdout = _closed = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process
    _replaced = sys.stderr
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    lossy = io.BufferedWriter(_Lossy())
    sys.stderr = io.TextIOWrapper(lossy, encoding=encoding, errors="backslashreplace", line_buffering=True)
    warnings.showwarning = _show_warning


def flush_stdout() -> None:
    """Flush what other code has printed; what stdout cannot take is dropped, as Python would report it at exit."""
    with contextlib.suppress(ReaderGoneError, StandardStreamError):
        _write_result("")


def tell_now(line: str) -> None:
    """Write a message with one system call, which a signal handler may make before it ends the process."""
    with contextlib.suppress(OSError):
        os.write(_stderr, f"{printable(line)}\n".encode())


@contextlib.contextmanager
def captured_stderr() -> Iterator[None]:
    """Keep what libraries write to descriptor 2 while the block runs; it is shown only if the block raises an error."""
    global _stderr
    try:
        scratch = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    except OSError:  # nowhere to keep it
        yield
        return
    with scratch:
        MESSAGES.flush()
        _stderr = os.dup(2)
        os.dup2(scratch.fileno(), 2)
        failed = False
        try:
            yield
        except Exception:
            failed = True
            raise
        finally:
            MESSAGES.flush()
            os.dup2(_stderr, 2)
            os.close(_stderr)
            _stderr = 2
            if failed:
                scratch.seek(0)
                tell(*scratch.read().decode(errors="replace").splitlines())


class _Messages:
    """Standard error, as a file for tqdm; what cannot be written is dropped."""

    @property
    def encoding(self) -> str:
        return getattr(sys.stderr, "encoding", None) or "utf-8"

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # ValueError: closed; AttributeError: None
            sys.stderr.write(_encodable(text, sys.stderr))

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()

    def isatty(self) -> bool:
        return stderr_is_terminal()

    def fileno(self) -> int:
        """For the width of the terminal.

        Raises:
            OSError: the stream has no descriptor.
        """
        if sys.stderr is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return sys.stderr.fileno()


MESSAGES = _Messages()


class _Lossy(io.RawIOBase):
    """Descriptor 2, without errors: what it cannot take is dropped."""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(2)

    def fileno(self) -> int:
        return 2

    def write(self, data: Any) -> int:
        left = memoryview(data)
        with contextlib.suppress(OSError):
            while left:
                left = left[os.write(2, left) :]
        return len(data)


def _write_result(text: str, *, exact: bool = False) -> None:
    stream = sys.stdout
    try:
        if stream is None or stream is _closed:
            raise OSError(errno.EBADF, "it is closed")
        if exact and hasattr(stream, "buffer"):
            stream.flush()
            stream.buffer.write(text.encode(errors="backslashreplace"))
        else:
            stream.write(text if exact else _encodable(text, stream))
        stream.flush()
    except BrokenPipeError as error:
        _abandon(stream)
        raise ReaderGoneError(error.errno, error.strerror) from error
    except (OSError, ValueError) as error:
        _abandon(stream)
        reason = getattr(error, "strerror", None) or error
        raise StandardStreamError(f"the result cannot be written to standard output: {reason}") from error


def _abandon(stream: IO[str] | None) -> None:
    """Let stdout go nowhere, so that what it still holds raises no further error when the process ends."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = stream.fileno()  # type: ignore[union-attr]
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)
        stream.flush()  # type: ignore[union-attr]


def _is_terminal(stream: IO[str] | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _encodable(text: str, stream: IO[str]) -> str:
    """Return a text in which characters that the stream's encoding lacks are escaped."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in _NAMED:
        return _NAMED[character]
    code = ord(character)
    code = code - 0xDC00 if code in _BYTES else code
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    tell(*warnings.formatwarning(message, category, filename, lineno, line).splitlines())

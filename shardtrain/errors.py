"""Define the errors that shardtrain raises, as one tree.

    ShardtrainError                 one clear message; the command line prints it and exits with 1
    ├── UsageError                  invalid or conflicting options (also ValueError; exit code 2)
    │   ├── TextsError              something else where texts are expected (also TypeError)
    │   └── UnknownOptionError      a keyword that no option has (also TypeError)
    ├── MissingExtraError           an optional package is not installed (also ImportError)
    ├── UnsupportedSystemError      the operating system is Windows (also ImportError)
    ├── CorpusError
    │   ├── CorpusNotFoundError     no such file or folder, or no document in it (also FileNotFoundError)
    │   ├── CorpusExistsError       a corpus that must not be overwritten (also FileExistsError)
    │   ├── DownloadError           a file that could not be downloaded (also ConnectionError)
    │   ├── CorpusFormatError       a file or row that does not have the expected format (also ValueError)
    │   └── LabelError              labels that no classifier can be trained on (also ValueError)
    ├── VectorizerError             a saved vectorizer that cannot be used (also ValueError)
    ├── ShardsError
    │   ├── ShardsNotFoundError     no such folder, or no manifest in it (also FileNotFoundError)
    │   ├── ShardsExistError        an output folder that must not be overwritten (also FileExistsError)
    │   ├── ManifestError           a manifest that is damaged or inconsistent (also ValueError)
    │   └── CorruptShardError       bytes that differ from what the manifest recorded (also ValueError)
    ├── ScratchError                scratch files of an interrupted job that are damaged (also ValueError)
    ├── OutputExistsError           a result that must not be overwritten (also FileExistsError)
    ├── ExecutorError               workers of `--executor` that cannot be reached or used
    ├── WorkerDiedError             worker processes that died again and again
    ├── WorkerLostError             a worker of a training that did not appear, or ended (also ConnectionError)
    ├── StorageError                a file that could not be written (also OSError)
    │   ├── TakenOverError          a folder that another process took over while this one was stopped
    │   └── DiskFullError           not enough room on the disk
    │       └── NoRoomError         less room than a job is estimated to need, before it begins
    ├── StandardStreamError         standard output or input that cannot be used (also OSError)
    ├── ReportExistsError           a file that is not a report and must not be overwritten (also FileExistsError)
    └── RunError
        ├── RunNotFoundError        no such run folder, or an unfinished one (also FileNotFoundError)
        ├── RunExistsError          a run folder that must not be overwritten (also FileExistsError)
        ├── CheckpointError         a checkpoint that is damaged (also ValueError)
        ├── DivergedError           training whose loss is no longer finite (also ArithmeticError)
        └── ModelError              a model that cannot be built, or does not fit the shards (also ValueError)

A message says what failed and where, what was found and what was expected, and the next step. It names options by their
flags (`--memory-limit`) and a build or a training by its command; `str` shows the keywords of Python (`memory_limit`)
and the call (`shardtrain.build(CORPUS)`). Leaves also inherit the builtin exception that a caller would catch.
"""

from __future__ import annotations

import re
import shlex

_FLAG = re.compile(r"(?<![\w`'\"-])--(?P<no>no-)?(?P<name>[a-z][a-z0-9]*(?:-[a-z0-9]+)*)(?![\w-])")
_NOT_IN_PYTHON = {"from": "file"}  # flags whose name is a reserved word of Python, by the option's name there
_COMMAND = re.compile(r"(`[^`]*`)")
_CALLS = ("build", "fit")  # commands that are functions of the package with the same keywords
_SHELL = "python -m shardtrain "
_KEYWORD = re.compile(r"[a-z]\w*")
_PASSED = re.compile(r"(?:pass|with) --[a-z-]+(?=[,;]| to |$)")  # a switch that is to be turned on


class ShardtrainError(Exception):
    """Base class of all errors that shardtrain raises."""

    def __str__(self) -> str:
        """Return the message with Python keywords in place of flags."""
        parts = _COMMAND.split(self.on_command_line)
        return "".join(_call(part) if part.startswith("`") else _in_python(part) for part in parts)

    @property
    def on_command_line(self) -> str:
        """The message as written, with flags."""
        return super().__str__()


def _in_python(text: str) -> str:
    """Return a text with keywords in place of flags; a switch that is to be turned on as an assignment."""
    return _FLAG.sub(_keyword, _PASSED.sub(lambda match: f"{match[0]}=True", text))


def _keyword(match: re.Match[str]) -> str:
    """Return an option as Python names it; a switch that is turned off as an assignment."""
    name = _NOT_IN_PYTHON.get(match["name"], match["name"]).replace("-", "_")
    return f"{name}=False" if match["no"] else name


def _call(quoted: str) -> str:
    """Return a command in backquotes as the call that does the same, where there is one.

    With `--resume` it repeats what a finished or interrupted run recorded, and stays as it is: a shell is where the
    options of any run, the sizes of its model included, are written in one line.
    """
    try:
        words = shlex.split(quoted.strip("`").removeprefix(_SHELL)) if quoted.startswith(f"`{_SHELL}") else []
    except ValueError:  # a path with a quotation mark
        return quoted
    if not words or words[0] not in _CALLS or "--resume" in words:
        return quoted
    if "--help" in words:
        return f"`help(shardtrain.{words[0]})`"
    arguments: list[str] = []
    for word in words[1:]:
        if word.startswith("--"):
            arguments.append(_FLAG.sub(_keyword, word))
        elif arguments and _KEYWORD.fullmatch(arguments[-1]):
            arguments[-1] = f"{arguments[-1]}={_argument(word)}"
        else:
            arguments.append(_argument(word))
    given = [f"{each}=True" if _KEYWORD.fullmatch(each) else each for each in arguments]
    return f"`shardtrain.{words[0]}({', '.join(given) or '...'})`"


def command_line(command: str, *words: object) -> str:
    """Return a command for messages, with words such as paths quoted for a shell where they need it."""
    return " ".join([f"{_SHELL}{command}", *(shlex.quote(str(word)) for word in words)])


def _argument(word: str) -> str:
    """Return a word of a command as an argument; placeholders and numbers as they are."""
    return word if re.fullmatch(r"[A-Z…|]+|[0-9]+(\.[0-9]+)?", word) else repr(word)


class UsageError(ShardtrainError, ValueError):
    """Invalid or conflicting options."""


class TextsError(UsageError, TypeError):
    """Something that is not a series of texts, passed to a call that takes texts."""


class UnknownOptionError(UsageError, TypeError):
    """A keyword that no option has."""


class MissingExtraError(ShardtrainError, ImportError):
    """An optional package is needed and not installed."""


class UnsupportedSystemError(ShardtrainError, ImportError):
    """The operating system is Windows, which lacks what shardtrain is built on."""


class CorpusError(ShardtrainError):
    """A corpus that cannot be used."""


class CorpusNotFoundError(CorpusError, FileNotFoundError):
    """No such file or folder, or no document in it."""


class CorpusExistsError(CorpusError, FileExistsError):
    """A corpus that must not be overwritten."""


class DownloadError(CorpusError, ConnectionError):
    """A file that could not be downloaded."""


class CorpusFormatError(CorpusError, ValueError):
    """A file or row that does not have the expected format."""


class LabelError(CorpusError, ValueError):
    """Labels that no classifier can be trained on."""


class VectorizerError(ShardtrainError, ValueError):
    """A saved vectorizer that cannot be used."""


class ShardsError(ShardtrainError):
    """Shards that cannot be used."""


class ShardsNotFoundError(ShardsError, FileNotFoundError):
    """No such folder of shards, or no manifest in it."""


class ShardsExistError(ShardsError, FileExistsError):
    """An output folder that must not be overwritten."""


class ManifestError(ShardsError, ValueError):
    """A manifest that is damaged or inconsistent."""


class CorruptShardError(ShardsError, ValueError):
    """Bytes that differ from what the manifest recorded."""


class ScratchError(ShardtrainError, ValueError):
    """Scratch files of an interrupted job are damaged or do not belong together."""


class OutputExistsError(ShardtrainError, FileExistsError):
    """A result that must not be overwritten."""


class ExecutorError(ShardtrainError):
    """Workers of `--executor` cannot be reached, have other versions, or do not share a folder."""


class WorkerDiedError(ShardtrainError):
    """Worker processes died again and again, probably for lack of memory."""


class WorkerLostError(ShardtrainError, ConnectionError):
    """A worker of a training on several machines did not appear in time, or ended."""


class StorageError(ShardtrainError, OSError):
    """A file could not be written: the disk, or a call on it, failed."""


class TakenOverError(StorageError):
    """Another process took over the folder of this one, which did not answer in time; nothing more is written to it."""


class DiskFullError(StorageError):
    """Not enough room on the disk."""


class NoRoomError(DiskFullError):
    """The disk has less room than a job is estimated to need; found before it begins."""


class StandardStreamError(ShardtrainError, OSError):
    """Standard output that cannot take a result, or standard input that is closed."""


class ReportExistsError(ShardtrainError, FileExistsError):
    """A file that is not a report and must not be overwritten."""


class RunError(ShardtrainError):
    """A run folder or model that cannot be used."""


class RunNotFoundError(RunError, FileNotFoundError):
    """No such run folder, or an unfinished one."""


class RunExistsError(RunError, FileExistsError):
    """A run folder that must not be overwritten."""


class CheckpointError(RunError, ValueError):
    """A checkpoint that is damaged."""


class DivergedError(RunError, ArithmeticError):
    """Training whose loss is no longer finite."""


class ModelError(RunError, ValueError):
    """A model that cannot be built or does not fit the shards."""

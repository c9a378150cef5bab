"""Every failure that shardtrain foresees, as one tree.

    ShardtrainError                 one clear message; the command line prints it and exits with 1
    ├── UsageError                  options that do not fit together (also ValueError; exit code 2)
    ├── MissingExtraError           an optional package is not installed (also ImportError)
    ├── CorpusError
    │   ├── CorpusNotFoundError     no such file or folder, or nothing to read in it (also FileNotFoundError)
    │   ├── CorpusExistsError       a corpus that must not be written over (also FileExistsError)
    │   ├── DownloadError           a file that could not be had from the network (also ConnectionError)
    │   ├── CorpusFormatError       a file or row that cannot be read as what it should be (also ValueError)
    │   └── LabelError              labels that no classifier can be trained on (also ValueError)
    ├── VectorizerError             a saved vectorizer that cannot be used (also ValueError)
    │   └── HashCollisionError      two n-grams share a hash; counting starts again with another seed
    ├── ShardsError
    │   ├── ShardsNotFoundError     no such folder, or no manifest in it (also FileNotFoundError)
    │   ├── ShardsExistError        an output folder that must not be written over (also FileExistsError)
    │   ├── ManifestError           a manifest that is damaged or says something impossible (also ValueError)
    │   └── CorruptShardError       bytes that differ from what the manifest recorded (also ValueError)
    ├── OutputExistsError           a result that must not be written over (also FileExistsError)
    ├── DiskFullError               not enough room on the disk (also OSError)
    ├── ReportExistsError           a file that is no report and must not be written over (also FileExistsError)
    └── RunError
        ├── RunNotFoundError        no such run folder, or an unfinished one (also FileNotFoundError)
        ├── RunExistsError          a run folder that must not be written over (also FileExistsError)
        ├── CheckpointError         a checkpoint that is damaged (also ValueError)
        ├── DivergedError           training whose loss is no longer finite (also ArithmeticError)
        └── ModelError              a model that cannot be built, or does not fit the shards (also ValueError)

A message says what, where, what was found against what was expected, and the next step. It names options as the
command line does (`--memory-limit`); `str` names them as Python does (`memory_limit`). Leaves inherit the builtin a
caller would catch as well.
"""

from __future__ import annotations

import re

_FLAG = re.compile(r"(?<![\w`'\"-])--(?:no-)?([a-z][a-z0-9]*(?:-[a-z0-9]+)*)(?![\w-])")
_COMMAND = re.compile(r"(`[^`]*`)")  # a command to type is the same for both


class ShardtrainError(Exception):
    """Root of all foreseen failures."""

    def __str__(self) -> str:
        """The message as Python names options: keywords in place of flags."""
        parts = _COMMAND.split(self.on_command_line)
        return "".join(part if part.startswith("`") else _FLAG.sub(_keyword, part) for part in parts)

    @property
    def on_command_line(self) -> str:
        """The message as it was written, which names options by their flags."""
        return super().__str__()


def _keyword(match: re.Match[str]) -> str:
    return match[1].replace("-", "_")


class UsageError(ShardtrainError, ValueError):
    """Options that do not fit together."""


class MissingExtraError(ShardtrainError, ImportError):
    """An optional package is needed and not installed."""


class CorpusError(ShardtrainError):
    """A corpus that cannot be used."""


class CorpusNotFoundError(CorpusError, FileNotFoundError):
    """No such file or folder, or nothing to read in it."""


class CorpusExistsError(CorpusError, FileExistsError):
    """A corpus that must not be written over."""


class DownloadError(CorpusError, ConnectionError):
    """A file that could not be had from the network."""


class CorpusFormatError(CorpusError, ValueError):
    """A file or row that cannot be read as what it should be."""


class LabelError(CorpusError, ValueError):
    """Labels that no classifier can be trained on."""


class VectorizerError(ShardtrainError, ValueError):
    """A saved vectorizer that cannot be used."""


class HashCollisionError(VectorizerError):
    """Two different n-grams have the same hash."""


class ShardsError(ShardtrainError):
    """Shards that cannot be used."""


class ShardsNotFoundError(ShardsError, FileNotFoundError):
    """No such folder of shards, or no manifest in it."""


class ShardsExistError(ShardsError, FileExistsError):
    """An output folder that must not be written over."""


class ManifestError(ShardsError, ValueError):
    """A manifest that is damaged or says something impossible."""


class CorruptShardError(ShardsError, ValueError):
    """Bytes that differ from what the manifest recorded."""


class OutputExistsError(ShardtrainError, FileExistsError):
    """A result that must not be written over."""


class DiskFullError(ShardtrainError, OSError):
    """Not enough room on the disk."""


class ReportExistsError(ShardtrainError, FileExistsError):
    """A file that is no report and must not be written over."""


class RunError(ShardtrainError):
    """A run folder or model that cannot be used."""


class RunNotFoundError(RunError, FileNotFoundError):
    """No such run folder, or an unfinished one."""


class RunExistsError(RunError, FileExistsError):
    """A run folder that must not be written over."""


class CheckpointError(RunError, ValueError):
    """A checkpoint that is damaged."""


class DivergedError(RunError, ArithmeticError):
    """Training whose loss is no longer finite."""


class ModelError(RunError, ValueError):
    """A model that cannot be built or does not fit the shards."""

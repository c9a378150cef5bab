"""Turn failed calls on files into one kind of error, which names the file and the call, and check paths of results.

A disk that is full or broken is no fault of the program: the user reads one line and can act. Each place that writes
files wraps its calls in `storage_errors`, so a message is made where the file is known.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shardtrain.errors import DiskFullError, ShardtrainError, StorageError, UsageError
from shardtrain.options import did_you_mean, nearest_names

SYNC_OF_FOLDER = "sync of its folder"  # after the file has its name
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ERRNO_OF_LIBHDF5 = re.compile(r"errno = (\d+)")  # in the text of its errors, which have no `errno`
_AGAIN = "run the same command again"


@dataclass
class Call:
    """The call on a file that is being made, for the message of its failure.

    Attributes:
        name: "open", "write", "sync", "rename" and the like.
        theirs: code of others runs, which may fail on other files: only errors that name the file are converted.
    """

    name: str
    theirs: bool = False


@contextlib.contextmanager
def storage_errors(
    path: Path, call: str, *, kept: str = "", written: Path | None = None, done: str = "written"
) -> Iterator[Call]:
    """Convert an OSError on a file to a StorageError.

    Args:
        path: the file, as the user knows it.
        call: that is made first; the caller changes it as it goes on.
        kept: what a failure leaves, for the message.
        written: the name under which the file is written, where that is not yet its own.
        done: what is done with the file: "written" or "read".

    Raises:
        DiskFullError: the disk is full, or a quota is exceeded.
        StorageError: any other failed call.
    """
    made = Call(call)
    try:
        yield made
    except ShardtrainError:
        raise
    except OSError as error:
        if made.theirs and error.filename != str(written or path):
            raise
        raise storage_error(path, made.name, error, kept=kept, done=done) from error


def storage_error(path: Path, call: str, error: Exception, *, kept: str = "", done: str = "written") -> StorageError:
    """Return the error for a failed call on a file: an OSError, or an error of libhdf5, whose number is in its text.

    Args:
        path: the file.
        call: that failed.
        error: of the call.
        kept: what the failure leaves.
        done: what was to be done with the file.
    """
    number = getattr(error, "errno", None)
    if number is None and (found := _ERRNO_OF_LIBHDF5.search(str(error))):
        number = int(found[1])
    left = f"; {kept}" if kept else ""
    if number in _FULL and done == "written" and call != SYNC_OF_FOLDER:
        return DiskFullError(
            f"no room left on the disk while writing '{path}' ({call}){left}: free some space and {_AGAIN}"
        )
    reason = os.strerror(number) if number is not None else str(error)
    if call == SYNC_OF_FOLDER:
        return StorageError(
            f"'{path}' is there and complete, but might not survive a power failure: {reason} ({call}); {_AGAIN}"
        )
    return StorageError(f"'{path}' could not be {done}: {reason} ({call}){left}; when the cause is removed, {_AGAIN}")


def reason_of(error: OSError) -> str:
    """Return why a call failed in the system's words; a StorageError was raised from the failure."""
    cause = error.__cause__ if isinstance(error, StorageError) else error
    return getattr(cause, "strerror", None) or str(error)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with its contents, if it is there; what a link names is not touched.

    Raises:
        StorageError: it cannot be removed.
    """
    with storage_errors(path, "remove"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def check_output_file(path: Path, option: str) -> None:
    """Refuse a path at which no result can be written as a file: a link, a folder, a device, or a path in a file.

    A link is refused, not followed: the file it names may be somebody else's, and replacing the link would surprise
    those who made it.

    Raises:
        UsageError: it is one of these; the message names `option`.
    """
    if path.is_symlink():
        raise UsageError(
            f"{option} '{path}' is a link to '{os.readlink(path)}'; name the file itself, or remove the link"
        )
    if path.is_dir():
        raise UsageError(f"{option} '{path}' is a folder; name a file in it")
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise UsageError(f"{option} '{path}' is a device or a pipe, not a file; name a file")
    if path.parent.exists() and not path.parent.is_dir():
        raise UsageError(f"'{path.parent}' is a file, so {option} '{path}' cannot be written; choose another {option}")


def check_output_folder(path: Path, option: str, error: type[ShardtrainError] = UsageError) -> None:
    """Refuse a path at which no folder of results can be made: a link to nothing, a file, or a path in a file.

    A link to a folder is followed: a user who keeps data on another disk makes such links.

    Raises:
        ShardtrainError: it is one of these, as `error`; the message names `option`.
    """
    if path.is_symlink() and not path.exists():
        raise error(f"{option} '{path}' is a link to '{os.readlink(path)}', which does not exist; make the folder")
    for place in (path, *path.absolute().parents):
        if place.exists():
            if not place.is_dir():
                within = f", so '{path}' cannot be made" if place != path else ""
                raise error(f"'{place}' is a file{within}; choose another {option}")
            return


def nearest_folder(path: Path, mark: str, *elsewhere: Path) -> str:
    """Return the end of a message about a folder that is not there or another one: which were probably meant, if any.

    Args:
        path: the folder.
        mark: name of a file that a folder has if it can be meant.
        elsewhere: folders in which those may be, too, beside the one that `path` is in.
    """
    found: dict[str, Path] = {}
    for folder in dict.fromkeys((path.parent, *elsewhere)):
        with contextlib.suppress(OSError):
            for each in folder.iterdir():
                if (each / mark).is_file():
                    found.setdefault(each.name, each)
    names = [path.name] if path.name in found else nearest_names(path.name, found)
    return did_you_mean([found[name] for name in names])

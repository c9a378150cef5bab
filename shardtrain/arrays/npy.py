"""Read and write .npy files: one array each, mapped for reading and written in pieces.

The reader maps a file only where it is a plain array that lies within the file. numpy's own reader also opens archives
and pickles, and reports damaged headers by whatever its parser of Python literals raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from shardtrain.errors import ShardtrainError
from shardtrain.runtime.atomic import committed

Array = npt.NDArray[Any]


def map_npy(
    path: Path, error: Callable[[str], ShardtrainError], *, advice: str, dtype: str | None = None
) -> npt.NDArray[Any]:
    """Map the array in a .npy file.

    Args:
        path: the file, which exists.
        error: makes the error from a message.
        advice: the next step, which ends the message.
        dtype: expected type of a one-dimensional array; None: any array of plain values.

    Raises:
        ShardtrainError: of the type `error`: it is no such array.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except OSError as failed:
        raise error(f"'{path}' cannot be read: {failed.strerror or failed}; {advice}") from failed
    except Exception as failed:  # numpy evaluates the header as Python, and passes on what its tokenizer raises
        said = " ".join(str(failed).split())[:200]
        raise error(f"'{path}' cannot be read as a NumPy array: {said}; {advice}") from failed
    if dtype is not None and (array.dtype.str != dtype or array.ndim != 1):
        raise error(
            f"'{path}' holds {array.dtype} of shape {array.shape}, expected a one-dimensional array of "
            f"{np.dtype(dtype)}; {advice}"
        )
    return array


def write_npy(path: Path, pieces: Iterable[Array], dtype: np.dtype[Any]) -> None:
    """Write pieces of a one-dimensional array of a type as one .npy file; the length is filled in at the end."""
    with committed(path) as file:
        length = 0
        _write_header(file, dtype, length)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, dtype).tobytes())
            length += len(piece)
        file.seek(0)
        _write_header(file, dtype, length)


def _write_header(file: IO[bytes], dtype: np.dtype[Any], length: int) -> None:
    # numpy pads the header with room for 21 digits of length, so it can be written again in place
    header = {"descr": dtype.str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)

"""Unpack a .gz file, because units of a corpus are read at any position.

It costs disk space of the unpacked size in the scratch folder and one pass; decompressing the stream again for every
unit would cost far more.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from shardtrain.errors import CorpusFormatError
from shardtrain.runtime.atomic import committed
from shardtrain.runtime.progress import progress

_PIECE = 4 << 20  # bytes


def unpack(origin: Path, target: Path, *, most: int | None = None) -> int:
    """Write what the gzip file `origin` holds to `target`; with `most` no more than its first bytes, for a look at it.

    Returns:
        The bytes that it holds.

    Raises:
        CorpusFormatError: it is not a gzip file, is cut short, or fails its checksum.
        DiskFullError: no room for the unpacked file.
    """
    with (
        open(origin, "rb") as packed,
        progress(f"unpack {origin.name}", total=origin.stat().st_size) as done,
        committed(target) as file,
    ):
        num_bytes = 0
        try:
            with gzip.open(packed, "rb") as content:
                while piece := content.read(_PIECE):
                    file.write(piece if most is None else piece[: max(0, most - num_bytes)])
                    num_bytes += len(piece)
                    done.add(packed.tell() - done.done)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CorpusFormatError(f"'{origin}' is damaged or no gzip file ({error}); get it again") from error
    return num_bytes

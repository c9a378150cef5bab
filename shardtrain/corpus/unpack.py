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

_CHUNK = 4 << 20  # bytes


def unpack_gzip(origin: Path, target: Path, *, keep_bytes: int | None = None) -> int:
    """Decompress the gzip file `origin` to `target`, of which only the first `keep_bytes` are written if given.

    Returns:
        The size of the whole content in bytes.

    Raises:
        CorpusFormatError: `origin` is not a gzip file, is truncated, or fails its checksum.
        DiskFullError: the disk has too little space for the unpacked file.
    """
    with (
        open(origin, "rb") as packed,
        progress(f"unpack {origin.name}", total=origin.stat().st_size) as done,
        committed(target) as file,
    ):
        num_bytes = 0
        try:
            with gzip.open(packed, "rb") as content:
                while chunk := content.read(_CHUNK):
                    file.write(chunk if keep_bytes is None else chunk[: max(0, keep_bytes - num_bytes)])
                    num_bytes += len(chunk)
                    done.add(packed.tell() - done.done)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CorpusFormatError(
                f"'{origin}' is damaged or not a gzip file ({error}); compress or download it again"
            ) from error
    return num_bytes

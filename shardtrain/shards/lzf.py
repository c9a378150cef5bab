"""Decode LZF, h5py's own filter: literals and back-references into the decoded bytes.

The format is that of Marc Lehmann's liblzf, which has no widely installed Python binding.
"""

from __future__ import annotations

from typing import Any

from shardtrain.runtime.kernels import kernel


@kernel
def decompress(raw: Any, out: Any) -> int:
    """Decode the bytes `raw` into `out`; return the decoded size, or -1 for invalid data."""
    position = made = 0
    # invariant: raw[:position] decodes to out[:made]; both stay within their arrays, whatever the bytes are
    while position < len(raw):
        control = int(raw[position])
        position += 1
        if control < 32:
            length = control + 1
            if position + length > len(raw) or made + length > len(out):
                return -1
            for i in range(length):
                out[made + i] = raw[position + i]
            position += length
        else:
            length = (control >> 5) + 2
            if length == 9:
                if position >= len(raw):
                    return -1
                length += int(raw[position])
                position += 1
            if position >= len(raw):
                return -1
            source = made - ((control & 31) << 8) - int(raw[position]) - 1
            position += 1
            if source < 0 or made + length > len(out):
                return -1
            for i in range(length):
                out[made + i] = out[source + i]
        made += length
    return made

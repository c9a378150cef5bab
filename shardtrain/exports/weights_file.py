"""Write the weights of a network as an .npz file of NumPy, without pickle."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.engine.network import Network
from shardtrain.errors import ModelError

_DATE = (1980, 1, 1, 0, 0, 0)  # of the members, so that equal networks are equal files


def npz_content(network: Network, class_names: Sequence[str]) -> bytes:
    """Return the bytes of an .npz file: `kernel_0`, `bias_0` and so on, float32, and `class_names`.

    Args:
        network: the trained network.
        class_names: in order.

    Raises:
        ModelError: NumPy cannot hold the name of a class.
    """
    names = np.array(class_names, np.str_)
    if names.tolist() != list(class_names):
        raise ModelError("the name of a class ends with a NUL, which arrays of NumPy omit; use another --to")
    arrays: dict[str, npt.NDArray[Any]] = {"class_names": names}
    for layer, (kernel, bias) in enumerate(zip(network.kernels, network.biases, strict=True)):
        arrays |= {f"kernel_{layer}": kernel, f"bias_{layer}": bias}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _DATE), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
    return content.getvalue()

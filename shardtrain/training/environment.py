"""Name what the numbers of a training with Keras depend on besides its job."""

from __future__ import annotations

import platform
from typing import Any

import keras
import tensorflow as tf

from shardtrain.runtime.machine import cores
from shardtrain.training.distribution.replicas import Replicas
from shardtrain.training.resume import versions


def keras_versions() -> dict[str, str]:
    """Return the versions of the packages that training with Keras runs on."""
    return {**versions(), "tensorflow": tf.__version__, "keras": keras.__version__}


def environment(replicas: Replicas) -> dict[str, Any]:
    """Return what bit-identical results depend on besides the job; `replicas` share the work."""
    return {
        **keras_versions(),
        "machine": platform.machine(),
        "processors": cores(),
        "threads of an operation": tf.config.threading.get_intra_op_parallelism_threads(),
        "threads between operations": tf.config.threading.get_inter_op_parallelism_threads(),
        "GPUs": len(tf.config.list_physical_devices("GPU")),
        "devices": list(replicas.devices),
        "workers": replicas.team.size,
    }

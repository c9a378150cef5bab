"""What a Keras program of your own imports: views of shards for `Model.fit`, and the classes that saved models name.

`model.keras` of a run loads in plain Keras after `import shardtrain.keras`, which registers the classes it names.
"""

from __future__ import annotations

from shardtrain.runtime.backend import check_backend

check_backend()  # before Keras is imported, which may fail for want of another backend

# ruff: noqa: E402
from shardtrain.models.adapters import to_tf_dataset
from shardtrain.models.layers import SparseDense, SparseDropout
from shardtrain.models.optimizers import FusedAdam
from shardtrain.models.pydataset import to_pydataset

__all__ = ["FusedAdam", "SparseDense", "SparseDropout", "to_pydataset", "to_tf_dataset"]

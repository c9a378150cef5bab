"""Write a network as an ONNX graph, which takes dense rows.

The graph has matrix products alone, which every runtime has; sparse tensors and additions to scattered rows are not
supported everywhere. The cost: rows are to be made dense, a batch at a time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from shardtrain.engine.network import Network
from shardtrain.errors import MissingExtraError, ModelError

_OPSET, _IR = 17, 8  # of 2022: read by onnxruntime from 1.12 on
_MOST_BYTES = (1 << 31) - (1 << 20)  # of a graph, which is a message of protobuf


def require_onnx() -> None:
    """Check that the package is there.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import onnx  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise MissingExtraError(
            "ONNX graphs are written with the package 'onnx'; install it with `pip install 'shardtrain[onnx]'`"
        ) from error


def onnx_content(network: Network, class_names: Sequence[str]) -> bytes:
    """Return the bytes of an ONNX model: `rows` to `probabilities` and `class`.

    Args:
        network: the trained network.
        class_names: in order; they are in the metadata, as JSON.

    Raises:
        MissingExtraError: the package onnx is not installed.
        ModelError: the weights exceed what ONNX holds in one file.
    """
    require_onnx()
    import onnx
    from onnx import TensorProto, helper

    if 4 * network.shape.num_weights > _MOST_BYTES:
        raise ModelError(
            f"the model has {network.shape.num_weights:,} weights, more than the 2 GiB of an ONNX file hold; use "
            "--to savedmodel"
        )
    nodes, weights = _layers(network)
    float32, integers = TensorProto.FLOAT, TensorProto.INT64
    graph = helper.make_graph(
        nodes,
        "shardtrain",
        [helper.make_tensor_value_info("rows", float32, ["batch", network.shape.features])],
        [
            helper.make_tensor_value_info("probabilities", float32, ["batch", network.shape.classes]),
            helper.make_tensor_value_info("class", integers, ["batch"]),
        ],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="shardtrain")
    model.ir_version = _IR
    helper.set_model_props(model, {"class_names": json.dumps(list(class_names))})
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _layers(network: Network) -> tuple[list[Any], list[Any]]:
    """Return the nodes of the graph and its weights."""
    from onnx import helper, numpy_helper

    nodes, weights, before = [], [], "rows"
    last = len(network.shape.dims) - 1
    for layer, (kernel, bias) in enumerate(zip(network.kernels, network.biases, strict=True)):
        names = f"kernel_{layer}", f"bias_{layer}"
        weights += [
            numpy_helper.from_array(np.ascontiguousarray(each), n)
            for each, n in zip((kernel, bias), names, strict=True)
        ]
        nodes.append(helper.make_node("Gemm", [before, *names], [f"sums_{layer}"]))
        before = f"sums_{layer}"
        if layer < last:
            nodes.append(helper.make_node("Relu", [before], [f"units_{layer}"]))
            before = f"units_{layer}"
    if network.shape.dims[-1] == 1:
        weights.append(numpy_helper.from_array(np.ones(1, np.float32), "one"))
        nodes += [
            helper.make_node("Sigmoid", [before], ["second"]),
            helper.make_node("Sub", ["one", "second"], ["first"]),
            helper.make_node("Concat", ["first", "second"], ["probabilities"], axis=1),
        ]
    else:
        nodes.append(helper.make_node("Softmax", [before], ["probabilities"], axis=1))
    nodes.append(helper.make_node("ArgMax", ["probabilities"], ["class"], axis=1, keepdims=0))
    return nodes, weights

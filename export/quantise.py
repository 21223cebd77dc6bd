"""Dynamic int8 quantisation of an ONNX encoder, one scale per token.

ONNX Runtime's ``quantize_dynamic`` uses one activation scale per tensor: every token's rounding then
depends on the other tokens of the batch, so that scoring a step alone or beside others would give
two different scores, and outliers of one token coarsen all. Here each row of activations has its own
scale (as in LLM.int8, Dettmers et al. 2022, arXiv 2208.07339, section 3.1, vector-wise), at nearly the same speed.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

ZERO_POINT = 128
"""Activations and weights are stored as uint8 around this value. Products of uint8 and int8 would be a little faster on
x86 without VNNI, but are added in pairs in 16 bits there, where two of 255 x 127 saturate (MLAS, MatMulInteger)."""


def quantise(model: ModelProto) -> Counter[str]:
    """Quantise ``model`` in place; returns how many nodes of each operator it has now.

    Every MatMul with a constant matrix of more than one column becomes a MatMulInteger with one
    weight scale per column and one activation scale per row; every Gather from a float table
    becomes one from an int8 table with one scale per row.
    """
    graph = model.graph
    tensors = {t.name: t for t in graph.initializer}
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(127, np.float32), "q_limit"),
            numpy_helper.from_array(np.array(1, np.float32), "q_one"),
            numpy_helper.from_array(np.array(1e-9, np.float32), "q_tiny"),
            numpy_helper.from_array(np.array(ZERO_POINT, np.uint8), "q_zero_point"),
        ]
    )
    nodes: list[NodeProto] = []
    for node in graph.node:
        name = next((i for i in node.input if i in tensors), None)
        weight = None if name is None else numpy_helper.to_array(tensors[name])
        if weight is not None and node.op_type == "MatMul" and weight.ndim == 2 and weight.shape[1] > 1:
            nodes += _matmul(graph, node, weight)
        elif weight is not None and node.op_type == "Gather" and weight.dtype == np.float32:
            nodes += _gather(graph, node, weight)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {i for node in nodes for i in node.input}
    kept = [t for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return Counter(node.op_type for node in nodes)


def _matmul(graph: Any, node: NodeProto, weight: NDArray[np.float32]) -> list[NodeProto]:
    x, out = node.input[0], node.output[0]
    scale = np.maximum(np.abs(weight).max(axis=0), 1e-9) / 127
    _constant(graph, f"{out}_w", (np.round(weight / scale) + ZERO_POINT).astype(np.uint8))
    _constant(graph, f"{out}_scale", (scale / 127).astype(np.float32))
    return [
        helper.make_node("Abs", [x], [f"{out}_abs"]),
        helper.make_node("ReduceMax", [f"{out}_abs"], [f"{out}_max"], axes=[-1], keepdims=1),
        helper.make_node("Max", [f"{out}_max", "q_tiny"], [f"{out}_range"]),
        helper.make_node("Div", ["q_limit", f"{out}_range"], [f"{out}_inverse"]),
        helper.make_node("Mul", [x, f"{out}_inverse"], [f"{out}_scaled"]),
        helper.make_node("QuantizeLinear", [f"{out}_scaled", "q_one", "q_zero_point"], [f"{out}_x"]),
        helper.make_node("MatMulInteger", [f"{out}_x", f"{out}_w", "q_zero_point", "q_zero_point"], [f"{out}_int"]),
        helper.make_node("Cast", [f"{out}_int"], [f"{out}_float"], to=TensorProto.FLOAT),
        # Not float * (range * scale): ONNX Runtime would fuse that as if the range were one per tensor.
        helper.make_node("Mul", [f"{out}_float", f"{out}_range"], [f"{out}_row"]),
        helper.make_node("Mul", [f"{out}_row", f"{out}_scale"], [out]),
    ]


def _gather(graph: Any, node: NodeProto, table: NDArray[np.float32]) -> list[NodeProto]:
    ids, out = node.input[1], node.output[0]
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True), 1e-9) / 127
    _constant(graph, f"{out}_table", np.round(table / scale).astype(np.int8))
    _constant(graph, f"{out}_scales", scale.astype(np.float32))
    return [
        helper.make_node("Gather", [f"{out}_table", ids], [f"{out}_int"]),
        helper.make_node("Gather", [f"{out}_scales", ids], [f"{out}_scale"]),
        helper.make_node("Cast", [f"{out}_int"], [f"{out}_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{out}_float", f"{out}_scale"], [out]),
    ]


def _constant(graph: Any, name: str, value: NDArray[Any]) -> None:
    graph.initializer.append(numpy_helper.from_array(value, name))

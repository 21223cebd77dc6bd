"""Quantisation of a reward model's ONNX graph, with proof that it worked.

int8 is dynamic, with one activation scale for each token. ONNX Runtime's ``quantize_dynamic`` has one for each
tensor: there the rounding of a token depends on the other tokens of its batch, so a step would score differently
alone and in company, and one token with outliers would coarsen all. A scale for each row is vector-wise quantisation
as in LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339, section 3.1), at nearly the same speed.

int4 leaves activations in float and packs weights in blocks for ONNX Runtime's MatMulNBits; embeddings become int8.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edge_tts.errors import PackError

Quant = Literal["fp32", "fp16", "int8", "int4"]
BLOCK = 32
"""Weights of an int4 matrix that share one scale."""
ZERO_POINT = 128
"""int8 activations and weights are stored as uint8 around this value. Products of uint8 and int8 would be a little
faster on x86 without VNNI, but there they are added in pairs in 16 bits, and two of 255 x 127 saturate (MLAS,
MatMulInteger)."""
PRODUCT = {"fp32": "MatMul", "fp16": "MatMul", "int8": "MatMulInteger", "int4": "MatMulNBits"}
SHRUNK = {"fp32": (1.0, 1.0), "fp16": (0.45, 0.55), "int8": (0.2, 0.4), "int4": (0.1, 0.35)}
"""Smallest and largest size that the weights may have afterwards, relative to float32."""


def quantise_graph(model: ModelProto, quant: Quant, products: int) -> None:
    """Quantise a float graph in place (an fp16 graph was exported as such and is only checked).

    ``products`` is how many matrix products with weights the graph must have. Raises PackError where it has another
    number, or where its weights are not as small as they should be.
    """
    floats = sum(
        int(np.prod(t.dims)) * 4 if t.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16) else len(t.raw_data)
        for t in model.graph.initializer
    )
    if quant == "int4":
        _pack_int4(model)
    if quant in ("int8", "int4"):
        _quantise_int8(model.graph)
    counts = Counter(node.op_type for node in model.graph.node)
    found = counts[PRODUCT[quant]] if quant in ("int8", "int4") else _weighted_products(model.graph)
    share = sum(len(t.raw_data) for t in model.graph.initializer) / floats
    low, high = SHRUNK[quant]
    if found != products or not low <= share <= high:
        raise PackError(
            f"{quant} quantisation did not work: {found} {PRODUCT[quant]} nodes where {products} were expected, "
            f"weights at {share:.0%} of float32 where {low:.0%} to {high:.0%} were; try another --quant"
        )


def _weights(graph: GraphProto) -> dict[str, TensorProto]:
    """The constant matrices of more than one column; a reward head has one column and stays in float."""
    return {t.name: t for t in graph.initializer if len(t.dims) == 2 and t.dims[1] > 1}


def _weighted_products(graph: GraphProto) -> int:
    weights = _weights(graph)
    return sum(node.op_type == "MatMul" and node.input[1] in weights for node in graph.node)


def _quantise_int8(graph: GraphProto) -> None:
    """Turn every MatMul with a weight matrix into a MatMulInteger, every Gather from a float table into an int8 one.

    A matrix has one scale for each column, its activations one for each row, a table one for each row.
    """
    tensors = {t.name: t for t in graph.initializer}
    weights = _weights(graph)
    _constant(graph, "q_limit", np.array(127, np.float32))
    _constant(graph, "q_one", np.array(1, np.float32))
    _constant(graph, "q_tiny", np.array(1e-9, np.float32))
    _constant(graph, "q_zero_point", np.array(ZERO_POINT, np.uint8))
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            nodes += _int8_product(graph, node, numpy_helper.to_array(weights[node.input[1]]))
        elif (
            node.op_type == "Gather"
            and node.input[0] in tensors
            and tensors[node.input[0]].data_type == TensorProto.FLOAT
        ):
            nodes += _int8_lookup(graph, node, numpy_helper.to_array(tensors[node.input[0]]))
        else:
            nodes.append(node)
    _replace_nodes(graph, nodes)


def _replace_nodes(graph: GraphProto, nodes: list[NodeProto]) -> None:
    """Put ``nodes`` in the place of the graph's, and drop the constants they do not use."""
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _int8_product(graph: GraphProto, node: NodeProto, weight: NDArray[np.float32]) -> list[NodeProto]:
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
        # Not float * (range * scale): ONNX Runtime would fuse that as if there were one range for the whole tensor.
        helper.make_node("Mul", [f"{out}_float", f"{out}_range"], [f"{out}_row"]),
        helper.make_node("Mul", [f"{out}_row", f"{out}_scale"], [out]),
    ]


def _int8_lookup(graph: GraphProto, node: NodeProto, table: NDArray[np.float32]) -> list[NodeProto]:
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


def _constant(graph: GraphProto, name: str, value: NDArray[Any]) -> None:
    graph.initializer.append(numpy_helper.from_array(value, name))


def _pack_int4(model: ModelProto) -> None:
    """Turn every MatMul with a weight matrix into a MatMulNBits of 4 bits, in place.

    ``accuracy_level`` stays unset: level 4 rounds activations to int8 in blocks, which flips close calls.
    """
    graph = model.graph
    weights = _weights(graph)
    nodes: list[NodeProto] = []
    packed_already: set[str] = set()
    for node in graph.node:
        name = node.input[1] if node.op_type == "MatMul" else ""
        if name not in weights:
            nodes.append(node)
            continue
        matrix = numpy_helper.to_array(weights[name])
        if name not in packed_already:
            packed, scales = pack_blocks(matrix)
            _constant(graph, f"{name}_int4", packed)
            _constant(graph, f"{name}_scales", scales)
            packed_already.add(name)
        sizes = {"K": matrix.shape[0], "N": matrix.shape[1], "bits": 4, "block_size": BLOCK}
        inputs = [node.input[0], f"{name}_int4", f"{name}_scales"]
        nodes.append(helper.make_node("MatMulNBits", inputs, node.output, node.name, domain="com.microsoft", **sizes))
    _replace_nodes(graph, nodes)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def pack_blocks(matrix: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A (K, N) matrix as MatMulNBits wants it: (N, blocks, BLOCK / 2) bytes and (N * blocks) scales.

    Values are 0 to 15 around 8, two to a byte, the first in the low half. The value farthest from zero becomes
    exactly 0 (that is, -8), as in llama.cpp's Q4_0 (``quantize_row_q4_0_ref``).
    """
    rows, columns = matrix.shape
    blocks = -(-rows // BLOCK)
    padded = np.zeros((columns, blocks * BLOCK), np.float32)
    padded[:, :rows] = matrix.T
    values = padded.reshape(columns, blocks, BLOCK)
    farthest = np.take_along_axis(values, np.abs(values).argmax(axis=2, keepdims=True), axis=2)
    scales = farthest / -8
    inverse = np.divide(1.0, scales, out=np.zeros_like(scales), where=scales != 0)
    codes = np.clip(np.round(values * inverse) + 8, 0, 15).astype(np.uint8)
    packed = codes[:, :, 0::2] | (codes[:, :, 1::2] << 4)
    return packed, scales.reshape(-1).astype(np.float32)

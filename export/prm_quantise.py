"""Quantisation of a reward model's graph, with proof that it took.

int8 is :mod:`edge_tts.export.quantise` (dynamic, one scale per token); int4 keeps activations in float
and packs weights in blocks for ONNX Runtime's MatMulNBits, embeddings as int8 rows.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edge_tts.errors import PackError
from edge_tts.export.quantise import quantise

BLOCK = 32
"""Weights that share one scale."""
PRODUCT = {"fp32": "MatMul", "fp16": "MatMul", "int8": "MatMulInteger", "int4": "MatMulNBits"}
SHRUNK = {"fp32": (1.0, 1.0), "fp16": (0.45, 0.55), "int8": (0.2, 0.4), "int4": (0.1, 0.35)}
"""Smallest and largest size of the weights, of their size in float32, that a quantisation may leave."""


def quantise_graph(model: ModelProto, quant: Literal["fp32", "fp16", "int8", "int4"], products: int) -> Counter[str]:
    """Quantise a float graph in place (fp16 is exported as such); returns its operator counts.

    ``products`` is how many matrix products with weights there have to be. Raises PackError where
    the graph has others, or its weights are not as small as they should be.
    """
    floats = sum(
        int(np.prod(t.dims)) * 4 if t.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16) else len(t.raw_data)
        for t in model.graph.initializer
    )
    if quant == "int4":
        pack_int4(model)
    if quant in ("int8", "int4"):
        quantise(model)
    counts = Counter(node.op_type for node in model.graph.node)
    found = counts[PRODUCT[quant]] if quant in ("int8", "int4") else _weighted_products(model)
    share = sum(len(t.raw_data) for t in model.graph.initializer) / floats
    low, high = SHRUNK[quant]
    if found != products or not low <= share <= high:
        raise PackError(
            f"{quant} quantisation did not take: {found} {PRODUCT[quant]} nodes where {products} were expected, "
            f"weights at {share:.0%} of float32 where {low:.0%} to {high:.0%} were; try another --quant"
        )
    return counts


def _weighted_products(model: ModelProto) -> int:
    """MatMul nodes with a constant matrix of more than one column."""
    wide = {t.name for t in model.graph.initializer if len(t.dims) == 2 and t.dims[1] > 1}
    return sum(node.op_type == "MatMul" and node.input[1] in wide for node in model.graph.node)


def pack_int4(model: ModelProto) -> None:
    """Turn every MatMul with a constant matrix of more than one column into a MatMulNBits of 4 bits, in place.

    Without ``accuracy_level``: its level 4 rounds activations to int8 per block, which flips close calls.
    """
    graph = model.graph
    weights = {t.name: t for t in graph.initializer if len(t.dims) == 2 and t.dims[1] > 1}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights:
            nodes.append(node)
            continue
        name = node.input[1]
        matrix = numpy_helper.to_array(weights[name])
        packed, scales = pack_blocks(matrix)
        if not any(t.name == f"{name}_int4" for t in graph.initializer):
            graph.initializer.append(numpy_helper.from_array(packed, f"{name}_int4"))
            graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scales"))
        sizes = {"K": matrix.shape[0], "N": matrix.shape[1], "bits": 4, "block_size": BLOCK}
        inputs = [node.input[0], f"{name}_int4", f"{name}_scales"]
        nodes.append(helper.make_node("MatMulNBits", inputs, node.output, node.name, domain="com.microsoft", **sizes))
    del graph.node[:]
    graph.node.extend(nodes)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def pack_blocks(matrix: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A (K, N) matrix as MatMulNBits wants it: (N, blocks, BLOCK / 2) bytes and (N * blocks) scales.

    Values are 0 to 15 around 8, two to a byte, the first in the low half. The value farthest from
    zero becomes exactly 0 (that is, -8), as in llama.cpp's Q4_0 (``quantize_row_q4_0_ref``).
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

"""The check of an ONNX graph before ONNX Runtime reads it.

A bundle may come from anywhere, and its author can write matching hashes. A graph may
only compute on its input: it must not read files, must use operators of a fixed list,
and must have a bounded run time. Needs neither `onnx` nor `onnxruntime`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from shortlist.bundle.protobuf import (
    BYTES,
    FIXED32,
    VARINT,
    Field,
    Value,
    WireError,
    integers,
    message,
    text,
)
from shortlist.errors import ArtifactError

MAX_NODES = 50_000
MAX_TURNS = 1_000
MAX_DEPTH = 4
MAX_DIMS = 8
MAX_ELEMENTS = 2**31
MAX_SHAPE = 2**26
SHAPE_RANK = 16
SHAPES = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1}
"""Operators whose output has a given shape, and the input with that shape."""

DOMAINS = ("", "ai.onnx")
# Written by the exporters of JAX, TensorFlow and PyTorch for our towers and rankers.
OF_EXPORTERS = """
    Abs Add And Cast Concat Constant ConstantOfShape Div Einsum Equal Exp Expand
    Gather GlobalAveragePool Greater Identity If Less MatMul Max Mul Neg Not
    Reciprocal ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu
    Reshape Shape Sigmoid Size Slice Softmax Split Sqrt Squeeze Sub Tanh Tile
    Transpose Trilu Unsqueeze Where
"""
# Written by them for other Keras layers that a tower may contain.
OF_OTHER_LAYERS = """
    BatchNormalization Ceil Clip Elu Erf Flatten Floor Gelu Gemm GreaterOrEqual
    HardSigmoid LayerNormalization LeakyRelu LessOrEqual Log LogSoftmax Mean Min
    Or PRelu Pow ReduceL1 ReduceL2 ReduceMax Selu Sign Softplus Softsign Sum
"""
OPERATORS = frozenset((OF_EXPORTERS + OF_OTHER_LAYERS).split())
BRANCH = "If"
LOOP = "Loop"
"""In bundles before 0.2, where the GRU under JAX is a loop over the history."""

ITEM_BYTES = {1: 4, 6: 4, 7: 8, 9: 1, 11: 8}  # float, int32, int64, bool, double
INT32, INT64 = 6, 7

_MODEL = {
    1: Field("ir_version", (VARINT,)),
    2: Field("producer_name", (BYTES,)),
    3: Field("producer_version", (BYTES,)),
    4: Field("domain", (BYTES,)),
    5: Field("model_version", (VARINT,)),
    6: Field("doc_string", (BYTES,)),
    7: Field("graph", (BYTES,)),
    8: Field("opset_import", (BYTES,), repeated=True),
    14: Field("metadata_props", (BYTES,), repeated=True),
}
_GRAPH = {
    1: Field("node", (BYTES,), repeated=True),
    2: Field("name", (BYTES,)),
    5: Field("initializer", (BYTES,), repeated=True),
    10: Field("doc_string", (BYTES,)),
    11: Field("input", (BYTES,), repeated=True),
    12: Field("output", (BYTES,), repeated=True),
    13: Field("value_info", (BYTES,), repeated=True),
    16: Field("metadata_props", (BYTES,), repeated=True),
}
_NODE = {
    1: Field("input", (BYTES,), repeated=True),
    2: Field("output", (BYTES,), repeated=True),
    3: Field("name", (BYTES,)),
    4: Field("op_type", (BYTES,)),
    5: Field("attribute", (BYTES,), repeated=True),
    6: Field("doc_string", (BYTES,)),
    7: Field("domain", (BYTES,)),
    9: Field("metadata_props", (BYTES,), repeated=True),
}
_ATTRIBUTE = {
    1: Field("name", (BYTES,)),
    2: Field("f", (FIXED32,)),
    3: Field("i", (VARINT,)),
    4: Field("s", (BYTES,)),
    5: Field("t", (BYTES,)),
    6: Field("g", (BYTES,)),
    7: Field("floats", (BYTES, FIXED32), repeated=True),
    8: Field("ints", (BYTES, VARINT), repeated=True),
    9: Field("strings", (BYTES,), repeated=True),
    13: Field("doc_string", (BYTES,)),
    20: Field("type", (VARINT,)),
}
# Without the field of strings.
_TENSOR = {
    1: Field("dims", (BYTES, VARINT), repeated=True),
    2: Field("data_type", (VARINT,)),
    4: Field("float_data", (BYTES, FIXED32), repeated=True),
    5: Field("int32_data", (BYTES, VARINT), repeated=True),
    7: Field("int64_data", (BYTES, VARINT), repeated=True),
    8: Field("name", (BYTES,)),
    9: Field("raw_data", (BYTES,)),
    12: Field("doc_string", (BYTES,)),
    13: Field("external_data", (BYTES,), repeated=True),
    14: Field("data_location", (VARINT,)),
}


class _Tensor(NamedTuple):
    name: str
    integers: list[int] | None
    """The values of a small integer tensor, which may be a shape."""


def check_graph(model: bytes, name: str) -> None:
    """Checks that a serialized ONNX model only computes, in bounded time.

    Args:
        model: its bytes.
        name: its name in messages.

    Raises:
        ArtifactError: it may do more, or is not an ONNX model (`bundle-graph`).
    """
    try:
        _check_model(memoryview(model))
    except WireError as error:
        raise ArtifactError(
            "bundle-graph",
            f"The graph {name} must be an ONNX model with the operators that `shortlist"
            " export` writes, and must not read files. Found that it cannot be run:"
            f" {error}. Export the bundle again, or do not use it unless you trust its"
            " author.",
            file=name,
        ) from error


def _check_model(data: memoryview) -> None:
    if bytes(data[4:8]) == b"ORTM":
        raise WireError("it is in the format of ONNX Runtime")
    model = message(data, _MODEL)
    if not model["graph"] or not model["opset_import"]:
        raise WireError("it has no graph or no opset")
    left = [MAX_NODES]
    _check_graph(_bytes(model["graph"][0]), left)


def _check_graph(
    data: memoryview,
    left: list[int],
    outer: Mapping[str, list[int]] | None = None,
    depth: int = 0,
) -> None:
    """Checks a graph, or one inside a node: a branch, or the body of a loop.

    Args:
        data: its message.
        left: number of nodes still allowed.
        outer: small constants of the enclosing graphs.
        depth: number of enclosing graphs.
    """
    if depth > MAX_DEPTH:
        raise WireError(f"more than {MAX_DEPTH} graphs in one another")
    graph = message(data, _GRAPH)
    constants = dict(outer or {})
    for entry in graph["initializer"]:
        tensor = _tensor(_bytes(entry))
        if tensor.integers is not None:
            constants[tensor.name] = tensor.integers
    left[0] -= len(graph["node"])
    if left[0] < 0:
        raise WireError(f"more than {MAX_NODES} nodes")
    for entry in graph["node"]:
        _check_node(message(_bytes(entry), _NODE), constants, left, depth)


def _check_node(
    node: Mapping[str, list[Value]],
    constants: dict[str, list[int]],
    left: list[int],
    depth: int,
) -> None:
    _check_domain(node["domain"])
    operator = text(node["op_type"][0]) if node["op_type"] else ""
    is_loop = operator == LOOP and depth == 0
    if operator not in OPERATORS and not is_loop:
        raise WireError(f"operator {operator[:40]!r}")
    inputs = [constants.get(text(name)) for name in node["input"]]
    if (place := SHAPES.get(operator)) is not None and place < len(inputs):
        _check_shape(inputs[place] or [])
    if is_loop:
        turns = inputs[0] if inputs else None
        if turns is None or len(turns) != 1 or not 0 <= turns[0] <= MAX_TURNS:
            raise WireError(f"a loop that is not told to end after {MAX_TURNS} turns")
    for entry in node["attribute"]:
        attribute = message(_bytes(entry), _ATTRIBUTE)
        for value in attribute["t"]:
            tensor = _tensor(_bytes(value))
            if operator == "Constant" and tensor.integers is not None:
                constants |= {text(name): tensor.integers for name in node["output"]}
        if attribute["g"] and not is_loop and operator != BRANCH:
            raise WireError(f"operator {operator!r} with a graph inside")
        for body in attribute["g"]:
            _check_graph(_bytes(body), left, constants, depth + 1)


def _tensor(data: memoryview) -> _Tensor:
    tensor = message(data, _TENSOR)
    if tensor["external_data"] or tensor["data_location"] not in ([], [0]):
        raise WireError("external data, a tensor that lies in another file")
    kind = tensor["data_type"][0] if tensor["data_type"] else 0
    size = ITEM_BYTES.get(int(kind) if isinstance(kind, int) else 0)
    if size is None:
        raise WireError(f"a tensor of type {kind}")
    shape = tuple(integers(tensor["dims"]))
    if len(shape) > MAX_DIMS or any(not 0 <= d <= MAX_ELEMENTS for d in shape):
        raise WireError(f"a tensor of {len(shape)} dimensions or of negative size")
    count = math.prod(shape)
    if tensor["raw_data"]:
        stored = len(_bytes(tensor["raw_data"][0])) / size
    else:
        stored = sum(_stored(tensor[name]) for name in ("float_data", "int32_data"))
        stored += _stored(tensor["int64_data"])
    if count > MAX_ELEMENTS or (tensor["raw_data"] and stored != count):
        raise WireError(f"a tensor of {count} numbers with data for {stored:g}")
    if count > stored:
        raise WireError(f"a tensor of {count} numbers without data for them")
    name = text(tensor["name"][0]) if tensor["name"] else ""
    if kind not in (INT32, INT64) or count > SHAPE_RANK:
        return _Tensor(name, None)
    return _Tensor(name, _integers_of(tensor, int(kind)))


def _integers_of(tensor: Mapping[str, list[Value]], kind: int) -> list[int]:
    if tensor["raw_data"]:
        dtype = "<i8" if kind == INT64 else "<i4"
        return [int(v) for v in np.frombuffer(_bytes(tensor["raw_data"][0]), dtype)]
    return integers(tensor["int64_data" if kind == INT64 else "int32_data"])


def _check_shape(sizes: list[int]) -> None:
    if math.prod(max(size, 1) for size in sizes) > MAX_SHAPE:
        raise WireError(f"a tensor of shape {sizes}, of more than {MAX_SHAPE} numbers")


def _check_domain(domain: list[Value]) -> None:
    if domain and text(domain[0]) not in DOMAINS:
        raise WireError(f"operators of {text(domain[0])[:40]!r}")


def _stored(values: list[Value]) -> int:
    """An upper bound of the numbers in a repeated field."""
    return sum(len(v) if isinstance(v, memoryview) else 1 for v in values)


def _bytes(value: Value) -> memoryview:
    if not isinstance(value, memoryview):
        raise WireError("a number in place of bytes")
    return value

"""ONNX Runtime sees only graphs that compute, read no file and come to an end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from shortlist.bundle.graph_checks import MAX_TURNS, OPERATORS, check_graph
from shortlist.bundle.protobuf import Field, WireError, integers, message
from shortlist.errors import ArtifactError
from tiny_bundle import TOWER_BIAS, TOWER_KERNEL, gemm_graph

GOLDEN = Path(__file__).parents[1] / "golden"
PLAIN = gemm_graph(TOWER_KERNEL, TOWER_BIAS)
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def refused(model: bytes | ModelProto) -> str:
    raw = model if isinstance(model, bytes) else model.SerializeToString()
    with pytest.raises(ArtifactError) as caught:
        check_graph(raw, "user_tower.onnx")
    assert caught.value.code == "bundle-graph"
    assert caught.value.file == "user_tower.onnx"
    return caught.value.message


def value(name: str, kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, None)


def model_of(*nodes: Any, **constants: np.ndarray) -> ModelProto:
    tensors = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def body(*nodes: Any) -> Any:
    """A body of a loop that hands its value on, after other nodes."""
    inputs = [value("i", INT64), value("c", TensorProto.BOOL), value("a")]
    outputs = [value("c2", TensorProto.BOOL), value("a2")]
    same = [helper.make_node("Identity", [f], [f"{f}2"]) for f in "ca"]
    return helper.make_graph([*nodes, *same], "body", inputs, outputs)


def loop(turns: str, *nodes: Any) -> Any:
    return helper.make_node("Loop", [turns, "go", "x"], ["y"], body=body(*nodes))


def branch(*nodes: Any) -> Any:
    then = helper.make_graph([*nodes], "then", [], [value("z")])
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])], "else", [], [value("z")]
    )
    return helper.make_node("If", ["go"], ["y"], then_branch=then, else_branch=other)


GO = np.array(True)
RELU = helper.make_node("Relu", ["x"], ["z"])


def external(tensor: TensorProto, place: str = "/etc/passwd") -> TensorProto:
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value=place)
    return tensor


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("bundle-*/*.onnx")), ids=str)
def test_graphs_of_older_versions_pass(file):
    check_graph(file.read_bytes(), file.name)


def test_what_exporters_write_passes():
    check_graph(PLAIN, "g")
    check_graph(model_of(branch(RELU), go=GO).SerializeToString(), "g")
    # A GRU of earlier bundles: a loop whose number of turns is in the graph.
    for turns in (0, 5, MAX_TURNS):
        model = model_of(loop("turns", RELU), turns=np.array(turns), go=GO)
        check_graph(model.SerializeToString(), "g")


@pytest.mark.parametrize("place", ["/etc/passwd", "weights.bin", "../x", ""])
def test_a_graph_names_no_other_file(place):
    model = onnx.load_from_string(PLAIN)
    external(model.graph.initializer[0], place)
    assert "another file" in refused(model)
    # In whatever place there may be a tensor.
    tensor = external(numpy_helper.from_array(np.zeros(3, np.float32), "t"), place)
    constant = helper.make_node("Constant", [], ["z"], value=tensor)
    for node in (constant, branch(constant), loop("turns", constant)):
        assert "another file" in refused(model_of(node, turns=np.array(2), go=GO))
    # With the location alone, which some readers take for external too.
    model = onnx.load_from_string(PLAIN)
    model.graph.initializer[0].external_data.add(key="location", value=place)
    assert "another file" in refused(model)


@pytest.mark.parametrize("turns", [2**62, MAX_TURNS + 1, -1, 2**31])
def test_a_loop_ends_soon(turns):
    assert "a loop" in refused(model_of(loop("t", RELU), t=np.array(turns), go=GO))


def test_a_loop_has_a_number_of_turns_and_none_inside():
    assert "a loop" in refused(model_of(loop("", RELU), go=GO))
    assert "a loop" in refused(model_of(loop("x", RELU), go=GO))  # computed
    several = np.array([1, 2])
    assert "a loop" in refused(model_of(loop("t", RELU), t=several, go=GO))
    inner = helper.make_node("Loop", ["t", "go", "x"], ["z"], body=body())
    for node in (loop("t", inner), branch(inner)):
        assert "'Loop'" in refused(model_of(node, t=np.array(2), go=GO))
    scan = helper.make_node("Scan", ["x"], ["y"], body=body(), num_scan_inputs=1)
    assert "'Scan'" in refused(model_of(scan))
    deep = RELU
    for _ in range(6):
        deep = branch(deep)
    assert "in one another" in refused(model_of(deep, go=GO))


@pytest.mark.parametrize(
    "operator", ["Range", "Scan", "SequenceMap", "NonZero", "", "é"]
)
def test_other_operators_are_refused(operator):
    assert operator not in OPERATORS
    assert "operator" in refused(model_of(helper.make_node(operator, ["x"], ["y"])))
    node = helper.make_node(operator, ["x"], ["z"])
    assert "operator" in refused(model_of(branch(node), go=GO))


def test_operators_of_other_domains_and_functions_are_refused():
    for domain in ("com.microsoft", "custom", "ai.onnx.ml"):
        node = helper.make_node("Relu", ["x"], ["y"], domain=domain)
        assert domain in refused(model_of(node))
    opset = helper.make_opsetid("", 17)
    function = helper.make_function("", "Relu", ["x"], ["y"], [RELU], [opset])
    model = onnx.load_from_string(PLAIN)
    model.functions.append(function)
    assert "field 25" in refused(model)
    model = onnx.load_from_string(PLAIN)
    model.training_info.add()
    assert "field 20" in refused(model)
    model = onnx.load_from_string(PLAIN)
    model.graph.sparse_initializer.add()
    assert "field 15" in refused(model)
    node = helper.make_node("Relu", ["x"], ["y"])
    node.attribute.append(AttributeProto(name="a", ref_attr_name="b"))
    assert "field 21" in refused(model_of(node))


@pytest.mark.parametrize("sizes", [[2**20, 2**20], [2**40], [100_000, 100_000]])
def test_immense_tensors_are_not_made_of_small_graphs(sizes):
    shape = np.array(sizes)
    for operator, inputs in (
        ("ConstantOfShape", ["s"]),
        ("Expand", ["x", "s"]),
        ("Tile", ["x", "s"]),
    ):
        node = helper.make_node(operator, inputs, ["z"])
        assert "of more than" in refused(model_of(node, s=shape))
        assert "of more than" in refused(model_of(branch(node), s=shape, go=GO))
        tensor = numpy_helper.from_array(shape)
        constant = helper.make_node("Constant", [], ["s"], value=tensor)
        assert "of more than" in refused(model_of(constant, node))


@pytest.mark.parametrize(
    ("shape", "count", "words"),
    [
        ([1] * 1000, 1, "1000 dimensions"),
        ([2**40], 1, "dimensions or of negative size"),
        ([-1], 1, "negative size"),
        ([2**20, 2**20], 1, "numbers"),
        ([4], 3, "with data for 3"),
        ([2], 3, "with data for 3"),
        ([3], 0, "with data for 0"),
    ],
)
def test_tensors_are_what_their_shape_says(shape, count, words):
    model = onnx.load_from_string(PLAIN)
    tensor = model.graph.initializer[0]
    tensor.ClearField("dims")
    tensor.dims.extend(shape)
    tensor.raw_data = bytes(4 * count)
    assert words in refused(model)


def test_tensors_of_other_types_are_refused():
    for kind in (TensorProto.STRING, TensorProto.COMPLEX64, 0, 99):
        model = onnx.load_from_string(PLAIN)
        model.graph.initializer[0].data_type = kind
        assert "type" in refused(model)
    model = onnx.load_from_string(PLAIN)
    model.graph.initializer[0].ClearField("raw_data")
    assert "without data" in refused(model)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "no graph"),
        (b"not a model", "field|wire type|ends within"),
        (PLAIN + PLAIN, "occurs twice"),
        (PLAIN[:-1], "ends within"),
        (PLAIN + b"\x0b", "wire type 3"),
        (PLAIN + b"\xff" * 11, "64 bits"),
        (b"\x08\x09\x12\x10ORTM" + bytes(12) + PLAIN[2:], "ONNX Runtime"),
        (PLAIN + b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "occurs twice|ends"),
    ],
)
def test_bytes_that_are_no_plain_model_are_refused(raw, words):
    assert any(word in refused(raw) for word in words.split("|"))


def operators_of(graph: Any) -> set[str]:
    found = set()
    for node in graph.node:
        found |= {node.op_type}
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= operators_of(attribute.g)
    return found


SAMPLES = [
    PLAIN,
    model_of(branch(RELU), go=GO).SerializeToString(),
    model_of(loop("t", RELU), t=np.array(3), go=GO).SerializeToString(),
]


@settings(max_examples=150, deadline=None)
@given(
    sample=st.sampled_from(SAMPLES),
    places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 10**6),
)
def test_what_passes_is_what_another_reader_sees(sample, places, cut):
    raw = bytearray(sample)
    for place, byte in places:
        raw[place % len(raw)] = byte
    raw = raw[: len(raw) if cut % 3 else cut % len(raw)]
    try:
        check_graph(bytes(raw), "g")
    except ArtifactError as error:
        assert error.code == "bundle-graph"
        return
    try:
        seen = onnx.load_from_string(bytes(raw))
    except DecodeError:  # in what is not looked into: the types of inputs and outputs
        return
    assert operators_of(seen.graph) <= {*OPERATORS, "Loop"}
    assert not seen.functions
    assert b"EXTERNAL" not in str(seen).encode()


@settings(max_examples=200, deadline=None)
@given(raw=st.binary(max_size=64))
def test_any_bytes_are_fields_or_an_error(raw):
    fields = {n: Field(f"f{n}", (0, 1, 2, 5), repeated=True) for n in range(1, 16)}
    try:
        found = message(memoryview(raw), fields)
        for values in found.values():
            integers([v for v in values if isinstance(v, memoryview)])
    except WireError:
        return
    assert sum(len(values) for values in found.values()) <= len(raw)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5))
def test_integers_are_read_as_they_are_written(values):
    raw = TensorProto(dims=values).SerializeToString()
    field = {1: Field("dims", (0, 2), repeated=True)}
    assert integers(message(memoryview(raw), field)["dims"]) == values

"""Only a graph with the promised input and output is run."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from shortlist.bundle.bundle import write_bundle
from shortlist.errors import ArtifactError, ResourceError
from shortlist.serving.graph import Graph
from shortlist.serving.recommender import Recommender
from tiny_bundle import gemm_graph, make_contents

KERNEL = np.arange(6, dtype=np.float32).reshape(3, 2)
BIAS = np.array([1, -1], np.float32)


def one_node(operator, output_type=TensorProto.FLOAT, **attributes):
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", output_type, None)],
    )
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def test_a_graph_computes_what_numpy_does():
    graph = Graph(gemm_graph(KERNEL, BIAS), "g", width=3, output_dim=2)
    rows = np.array([[1, 2, 3], [0, 0, 0], [-1, 0, 1]], np.float32)
    np.testing.assert_allclose(graph.run(rows), rows @ KERNEL + BIAS, rtol=1e-6)


def test_an_output_without_a_second_axis_is_a_column():
    sums = one_node("ReduceMean", axes=[1], keepdims=0).SerializeToString()
    graph = Graph(sums, "g", width=3, output_dim=1)
    rows = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    np.testing.assert_allclose(graph.run(rows), [[2], [5]])


@pytest.mark.parametrize(
    ("model", "width", "output_dim", "words"),
    [
        (b"", 3, 2, "cannot be run"),
        (b"not a model", 3, 2, "cannot be run"),
        (gemm_graph(KERNEL, BIAS), 4, 2, "cannot be run"),
        (gemm_graph(KERNEL, BIAS), 3, 1, r"its output for one row is \(1, 2\)"),
        (one_node("Shape", TensorProto.INT64).SerializeToString(), 3, 2, "int64"),
    ],
)
def test_another_graph_is_refused(model, width, output_dim, words):
    with pytest.raises(ArtifactError, match=words) as caught:
        Graph(model, "ranker", width=width, output_dim=output_dim)
    assert (caught.value.code, caught.value.file) == ("bundle-graph", "ranker")


@pytest.mark.parametrize("place", ["weights.bin", "/etc/hostname", "../weights.bin"])
def test_a_graph_cannot_read_other_files(tmp_path, monkeypatch, capfd, place):
    (tmp_path / "weights.bin").write_bytes(KERNEL.tobytes())
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path if place[0] != "." else tmp_path / "in")
    tensor = TensorProto(
        name="kernel",
        data_type=TensorProto.FLOAT,
        dims=KERNEL.shape,
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in {"location": place, "offset": "0", "length": "24"}.items():
        tensor.external_data.add(key=key, value=value)
    model = onnx.load_from_string(gemm_graph(KERNEL, BIAS))
    model.graph.initializer[0].CopyFrom(tensor)
    with pytest.raises(ArtifactError, match="cannot be run") as caught:
        Graph(model.SerializeToString(), "g", width=3, output_dim=2)
    assert caught.value.code == "bundle-graph"
    assert capfd.readouterr().err == ""


def failing_once_loaded(monkeypatch, recommender, name):
    """Lets one graph return NaN from now on."""
    model = recommender._model
    owner = model._retrieval._scorer if name == "tower" else model._ranker
    graph = owner._graph

    class Broken:
        def run(self, outputs, inputs):
            (rows,) = inputs.values()
            return [np.full((len(rows), *graph._shape), np.nan, np.float32)]

    monkeypatch.setattr(graph, "_session", Broken())
    return graph


def test_a_graph_that_returns_nan_is_an_error_that_says_so(monkeypatch, recommender):
    graph = failing_once_loaded(monkeypatch, recommender, "tower")
    with pytest.raises(
        ResourceError, match="user_tower failed: it returned NaN or infinity"
    ) as caught:
        graph.run(np.zeros((1, 9), np.float32))
    assert caught.value.code == "graph-failed"


def test_a_failing_ranker_leaves_the_order_of_retrieval(
    monkeypatch, recommender, tmp_path
):
    write_bundle(tmp_path / "retrieval", make_contents(ranker=False))
    retrieval = Recommender.load(tmp_path / "retrieval")
    failing_once_loaded(monkeypatch, recommender, "ranker")
    answer = recommender.recommend("ann", k=5)
    assert answer.items == retrieval.recommend("ann", k=5).items
    assert (answer.source, answer.degraded) == ("model", True)
    ranking = recommender.rank("ann", ["heat", "a/b"])
    assert ranking.items == retrieval.rank("ann", ["heat", "a/b"]).items
    assert ranking.degraded


def test_a_failing_tower_leaves_what_is_popular(monkeypatch, recommender):
    failing_once_loaded(monkeypatch, recommender, "tower")
    answer = recommender.recommend("ann", k=1)
    assert answer.items[0].item_id == 'say "hi"'  # two more popular ones are seen
    assert (answer.source, answer.degraded, answer.cold_start) == (
        "popular",
        True,
        False,
    )
    batch = recommender.recommend_batch(["ann", "zoe"], 1)
    assert [a.degraded for a in batch] == [True, False]

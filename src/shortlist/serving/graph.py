"""One ONNX graph with one input and one output, run by ONNX Runtime."""

from __future__ import annotations

import numpy as np

from shortlist.bundle.graph_checks import check_graph
from shortlist.errors import ArtifactError, ResourceError


class Graph:
    """A graph `(batch, width)` float32 -> `(batch, ...)` float32. Thread-safe.

    Its output is `(batch, output_dim)`, or with several outputs per row
    `(batch, num_outputs, output_dim)`.

    Args:
        model: serialized ONNX model.
        name: its name in messages.
        width: width of its input.
        output_dim: width of its output; with 1 the output may also be `(batch,)`.
        num_outputs: outputs per row.

    Raises:
        ArtifactError: not such a graph (`bundle-graph`).
        ResourceError: ONNX Runtime is not installed (`package-missing`).
    """

    def __init__(
        self,
        model: bytes,
        name: str,
        *,
        width: int,
        output_dim: int,
        num_outputs: int = 1,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ResourceError(
                "package-missing",
                "Serving a model needs the package onnxruntime, which is not"
                " installed. Run: pip install 'shortlist[serve]'",
            ) from error
        check_graph(model, name)
        options = onnxruntime.SessionOptions()
        # Otherwise the bytes may select another format, which was not checked.
        options.add_session_config_entry("session.load_model_format", "ONNX")
        # A tower is a few small products: threads would cost more than they gain, and
        # waiting threads would use the cores of the web server.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # failures are raised below
        try:
            self._session = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
            found = self._probe(width)
        except Exception as error:  # the classes of ONNX Runtime have no other base
            reason = str(error).partition("\n")[0]
            raise _not_a_graph(name, f"it cannot be run: {reason}") from error
        shape = (output_dim,) if num_outputs == 1 else (num_outputs, output_dim)
        allowed = [(1, *shape)] + ([(1,)] if shape == (1,) else [])
        if found not in allowed:
            raise _not_a_graph(name, f"its output for one row is {found}")
        self._name = name
        self._shape = shape

    def run(self, vectors: np.ndarray) -> np.ndarray:
        """The output for input vectors `(batch, width)`.

        Raises:
            ResourceError: ONNX Runtime failed, or an output is not finite
                (`graph-failed`).
        """
        try:
            (output,) = self._session.run(None, {self._input: vectors})
        except Exception as error:
            raise _failed(self._name, str(error)) from error
        if not np.isfinite(output).all():
            raise _failed(self._name, "it returned NaN or infinity")
        matrix: np.ndarray = output.reshape(len(vectors), *self._shape)
        return matrix

    def _probe(self, width: int) -> tuple[int, ...]:
        (declared,) = self._session.get_inputs()
        self._input = declared.name
        probe = np.zeros((1, width), np.float32)
        (output,) = self._session.run(None, {self._input: probe})
        if output.dtype != np.float32:
            raise TypeError(f"its output is {output.dtype}")
        return tuple(output.shape)


def _not_a_graph(name: str, found: str) -> ArtifactError:
    return ArtifactError(
        "bundle-graph",
        f"The graph {name} must take float32 rows of the width in the manifest and"
        f" return one float32 output per row. Found: {found}. Export the bundle again.",
        file=name,
    )


def _failed(name: str, found: str) -> ResourceError:
    return ResourceError(
        "graph-failed",
        f"The graph {name} failed: {found}. Check the memory of the machine, or export"
        " the bundle again.",
    )

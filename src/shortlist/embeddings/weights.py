"""Which weights a layer of tables returns, by the function of Keras that reads them.

Tables in host memory are not weights. A function that would write weights without them
is refused; one that counts parameters gets one entry per table.

Knows layers and callers; knows nothing of files or of training.
"""

from __future__ import annotations

import inspect
from types import FrameType
from typing import Any

from shortlist.embeddings import callers
from shortlist.embeddings.host import backends
from shortlist.embeddings.specs import TableSpec
from shortlist.errors import InputError


class CountedTable:
    """A table as a weight that can only be counted.

    Args:
        layer: its layer.
        spec: of the table.
    """

    def __init__(self, layer: Any, spec: TableSpec) -> None:
        self._layer = layer
        self._spec = spec
        self.shape = (spec.num_rows, spec.dim)
        self.dtype = spec.row_type

    @property
    def trainable(self) -> bool:
        """Whether training moves it."""
        return bool(self._layer.trainable and self._spec.trainable)


class CountedTables:
    """All tables of a layer, the same objects at every call.

    Keras counts an object that it meets twice only once, by its identity.

    Args:
        layer: a `DistributedEmbedding`.
    """

    def __init__(self, layer: Any) -> None:
        specs = layer.plan.tables
        self.tables = [
            CountedTable(layer, spec) for spec in (*specs["host"], *specs["device"])
        ]


def answer(layer: Any, weights: list[Any], frame: FrameType | None) -> list[Any]:
    """The weights of a layer for a caller.

    Args:
        layer: a `DistributedEmbedding`.
        weights: its variables.
        frame: of the function that was asked.

    Raises:
        InputError: `weights-without-tables` or `export-unsupported`.
    """
    caller = callers.reader(frame)
    if caller is None or not layer.built:
        return weights
    if caller.what == "count":
        return list(layer._counted.tables)
    if layer.host_tables is not None:
        if caller.what == "module":
            _refuse_state_dict(caller.frame.f_locals["self"], layer.name)
            return weights
        if caller.what == "legacy":
            callers.remove_begun_file(caller)
        raise refusal(caller.what, layer.name)
    return weights


def check_config_reader(layer: Any, frame: FrameType | None) -> None:
    """Raises if the configuration is read for a legacy file, before the weights.

    Keras removes the optimizer from the model's own configuration right after that.

    Raises:
        InputError: `weights-without-tables`.
    """
    caller = callers.reader(frame)
    if caller is not None and caller.what == "legacy" and layer.host_tables is not None:
        callers.remove_begun_file(caller)
        raise refusal("legacy", layer.name)


def is_exported(frame: FrameType | None) -> bool:
    """Whether the lookup is traced for an exported graph."""
    caller = callers.reader(frame)
    exports = caller is not None and caller.what == "export"
    return exports or backends.is_exporting() or callers.runs(frame, "torch.onnx")


def refuse_tracking(layer: Any, save_type: str) -> None:
    """Raises if TensorFlow writes a layer or reads it back.

    Args:
        layer: a built `DistributedEmbedding`.
        save_type: `checkpoint`, or `savedmodel` for a graph.

    Raises:
        InputError: `weights-without-tables` or `export-unsupported`.
    """
    if layer.host_tables is not None:
        way = "export" if save_type == "savedmodel" else "checkpoint"
        raise refusal(way, layer.name)


def _refuse_state_dict(module: Any, layer: str) -> None:
    """Makes a module of PyTorch that registers the handle refuse state_dict().

    Args:
        module: the model, or a layer that holds the layer.
        layer: name of the layer.
    """

    def refuse(*_: Any) -> None:
        exported = is_exported(inspect.currentframe())
        raise refusal("export" if exported else "state_dict", layer)

    module.register_state_dict_pre_hook(refuse)
    module.register_load_state_dict_pre_hook(refuse)


_WAYS = {
    "legacy": "a legacy .h5 file",
    "state tree": "get_state_tree(), which Orbax checkpoints use",
    "checkpoint": "tf.train.Checkpoint",
    "state_dict": "state_dict() or load_state_dict()",
}


def refusal(way: str, layer: str) -> InputError:
    """The error for a way to write weights that would lose the tables."""
    if way == "export":
        return InputError(
            "export-unsupported",
            "An exported graph cannot hold tables in host memory. Received: an export"
            f" of a model with the layer {layer!r}. Use shortlist.embeddings.save_model"
            " and load_model. To serve without Keras, export the layers after the"
            " lookup as a model of their own and take the rows from"
            " get_embedding_tables(), as `shortlist export` does.",
        )
    return InputError(
        "weights-without-tables",
        "The weights of a model must be stored with its tables. Received:"
        f" {_WAYS[way]} for a model with the layer {layer!r}, whose tables are in host"
        " memory and would be lost. Use model.save('model.keras'),"
        " model.save_weights('model.weights.h5'), shortlist.embeddings.save_model or"
        " shortlist.embeddings.TableCheckpoint.",
    )

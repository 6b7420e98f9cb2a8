"""Which function of Keras reads or writes the weights of a layer, and why.

Keras reads the weights of a layer in the same way whether it counts parameters, writes
a file that cannot include tables, or saves weights to restore them later. A layer whose
tables are not weights must treat these differently, so this module looks for the
function on the call stack.

Knows names of Keras's modules and functions; knows nothing of tables.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType

SWAP = "the callback SwapEMAWeights"

# Module of Keras, function ("" for all others of the module), and what it is for.
_Functions = Mapping[str, Mapping[str, str]]
_EXPORT = {"": "export"}
_READERS: _Functions = {
    "keras.src.legacy.saving.legacy_h5_format": {
        "save_model_to_hdf5": "legacy",
        "save_weights_to_hdf5_group": "legacy",
        "load_weights_from_hdf5_group": "legacy",
        "load_weights_from_hdf5_group_by_name": "legacy",
    },
    "keras.src.models.model": {"get_state_tree": "state tree"},
    "keras.src.backend.torch.layer": {"_track_variables": "module"},
    "keras.src.backend.torch.export": _EXPORT,
    "keras.src.export.export_utils": _EXPORT,
    "keras.src.export.litert": _EXPORT,
    "keras.src.export.onnx": _EXPORT,
    "keras.src.export.openvino": _EXPORT,
    "keras.src.export.saved_model": _EXPORT,
    "keras.src.export.saved_model_export_archive": _EXPORT,
    "keras.src.export.torch": _EXPORT,
    "keras.src.utils.summary_utils": {"print_summary": "count"},
    "keras.src.layers.layer": {"count_params": "count"},
}
_SYNC: _Functions = {"keras.src.backend.jax.trainer": {"jax_state_sync": "step"}}
_WRITERS: _Functions = {
    **_SYNC,
    "keras.src.optimizers.base_optimizer": {
        "_overwrite_variables_directly_with_gradients": "step"
    },
    "keras.src.callbacks.swap_ema_weights": {"": SWAP},
    "keras.src.callbacks.early_stopping": {
        "": "the callback EarlyStopping(restore_best_weights=True)"
    },
    "keras.src.models.model": {"set_state_tree": "set_state_tree()"},
}
# Some of the writers go through this one, so it is looked for last.
_SETTERS: _Functions = {"keras.src.layers.layer": {"set_weights": "set_weights()"}}


@dataclass(frozen=True)
class Caller:
    """A running function of Keras, `what` it is for, and its frame."""

    what: str
    frame: FrameType


def reader(frame: FrameType | None) -> Caller | None:
    """The function that reads the weights, if it must not get them unchanged.

    Args:
        frame: of the function that was called.
    """
    return _find(frame, _READERS)


def runs(frame: FrameType | None, package: str) -> bool:
    """Whether a function of a package is on the stack."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(f"{package}."):
            return True
        frame = frame.f_back
    return False


def in_state_sync(frame: FrameType | None) -> bool:
    """Whether Keras is writing the state of a JAX model back into its weights."""
    return _find(frame, _SYNC) is not None


def writer(frame: FrameType | None) -> str | None:
    """What sets a weight, in words; `None` if it is a training step.

    Args:
        frame: of the function that was called to set it.
    """
    found = _find(frame, _WRITERS) or _find(frame, _SETTERS)
    if found is None:
        return "assign()"
    return None if found.what == "step" else found.what


def remove_begun_file(caller: Caller) -> None:
    """Removes the legacy file that Keras has started to write."""
    frame: FrameType | None = caller.frame
    while frame is not None and frame.f_code.co_name != "save_model_to_hdf5":
        frame = frame.f_back
    if frame is not None and frame.f_locals.get("opened_new_file"):
        with contextlib.suppress(OSError):
            os.unlink(frame.f_locals["filepath"])


def _find(frame: FrameType | None, functions: _Functions) -> Caller | None:
    """The innermost running function of those in `functions`."""
    while frame is not None:
        names = functions.get(frame.f_globals.get("__name__", ""))
        if names is not None:
            what = names.get(frame.f_code.co_name) or names.get("")
            if what is not None:
                return Caller(what, frame)
        frame = frame.f_back
    return None

"""64-bit ids that Keras truncates to 32 bits under JAX, before any layer runs.

`fit`, `evaluate`, `predict` and their `_on_batch` versions turn the arrays of a batch
into JAX arrays, which have 32 bits, so a layer only sees the truncated ids. But while a
step is traced, the tensors that reach a lookup can be found among the inputs of the
step. From then on the arrays at these positions are checked before each call.

Knows the JAX trainer of Keras; knows nothing of tables but their size.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from types import FrameType
from typing import Any

import keras
import numpy as np

from shortlist.embeddings.host.host_tables import out_of_range
from shortlist.embeddings.ids import tensors
from shortlist.embeddings.ids.containers import Expected
from shortlist.errors import InputError

TRAINER = "keras.src.backend.jax.trainer"
STEPS = ("train_step", "test_step", "predict_step")
CALLS = ("fit", "evaluate", "predict")
BATCH_CALLS = ("train_on_batch", "test_on_batch", "predict_on_batch")

_ALL_CALLS = (*CALLS, *BATCH_CALLS)
SYNC = "jax_state_sync"
_INT32 = np.iinfo(np.int32)
_WIDE = (np.dtype(np.int64), np.dtype(np.uint64))

Path = tuple[Any, ...]


class TruncatedIds:
    """The inputs of a model that are ids of a layer, checked before they are truncated.

    Attributes:
        late: error of a traced step, which `check` raises at the next call of Keras.
    """

    def __init__(self) -> None:
        # By model: the features at the positions of its inputs.
        self._features: weakref.WeakKeyDictionary[Any, dict[Path, Expected]] = (
            weakref.WeakKeyDictionary()
        )
        self._checked: weakref.ref[Any] | None = None
        self.late: InputError | None = None

    def learn(
        self, frame: FrameType | None, ids: Iterable[tuple[Any, Expected]]
    ) -> InputError | None:
        """Finds the ids of a traced lookup among the inputs of the step.

        Args:
            frame: of the lookup.
            ids: tensors that are looked up, and the feature of each.

        Returns: the error for the arrays of the call that traces the step, if any.
        Raised while a step is traced, it would lose the state of the model.
        """
        if keras.backend.backend() != "jax":
            return None
        step = _innermost(frame, STEPS)
        if step is None:
            return None
        inputs = _x_of(step.f_locals.get("data"))
        features = {
            path: feature
            for path, leaf in keras.tree.flatten_with_path(inputs)
            for tensor, feature in ids
            if leaf is tensor
        }
        self._features.setdefault(step.f_locals["self"], {}).update(features)
        try:
            self._check_call(_innermost(step, _ALL_CALLS))
        except InputError as error:
            return error
        return None

    def check(self, frame: FrameType | None) -> None:
        """Checks the arrays of the call of Keras that runs, once for each call.

        Does nothing while a step is traced or the state of a model is written back:
        these must not be interrupted.

        Raises:
            InputError: `id-out-of-range` for an id that does not fit into 32 bits.
        """
        if not self._features:
            return
        call = _innermost(frame, _ALL_CALLS, unless=(*STEPS, SYNC))
        if call is not None and self.late is not None:
            error, self.late = self.late, None
            raise error
        self._check_call(call)

    def _check_call(self, call: FrameType | None) -> None:
        features = None if call is None else self._features.get(call.f_locals["self"])
        if call is None or not features:
            return
        inputs = call.f_locals.get("x")
        if call.f_code.co_name in CALLS:
            iterator = call.f_locals.get("epoch_iterator")
            adapter = getattr(iterator, "data_adapter", None)
            if adapter is None or (self._checked and self._checked() is adapter):
                return
            self._checked = weakref.ref(adapter)
            # Only the adapter of arrays has these; others give batch after batch.
            inputs = _x_of(getattr(adapter, "_inputs", None))
        for path, array in keras.tree.flatten_with_path(inputs):
            if path in features:
                _check(array, features[path])


def _x_of(data: Any) -> Any:
    """The inputs of a model in `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`."""
    return data[0] if isinstance(data, tuple) and data else data


def _check(array: Any, expected: Expected) -> None:
    read = tensors.read(array, native=False)
    values = array if read is None and hasattr(array, "__array__") else read
    if not hasattr(values, "dtype") or values.dtype not in _WIDE:
        return
    values = np.asarray(values)
    outside = (values < _INT32.min) | (values > _INT32.max)
    if outside.any():
        bad = int(values[outside].flat[0])
        raise out_of_range(expected.feature, expected.table, expected.num_rows, bad)


def _innermost(
    frame: FrameType | None, names: tuple[str, ...], unless: tuple[str, ...] = ()
) -> FrameType | None:
    """The innermost running function of the JAX trainer with one of these names.

    `None` if one of `unless` runs inside of it.
    """
    while frame is not None:
        if frame.f_globals.get("__name__") == TRAINER:
            name = frame.f_code.co_name
            if name in names:
                return frame
            if name in unless:
                return None
        frame = frame.f_back
    return None

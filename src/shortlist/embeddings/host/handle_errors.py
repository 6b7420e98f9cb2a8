"""What a handle that does not name the tables says about its cause.

Knows handles; knows nothing of Keras.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shortlist.errors import ShortlistError

if TYPE_CHECKING:
    from shortlist.embeddings.host.host_tables import HostTables

# A layer that is called more often in one step is not recognised as such.
_MOST_CALLS = 64

_HOW_TO_COPY = (
    "Copy a model with copy.deepcopy(model), or save and load it"
    " (shortlist.embeddings.save_weights and load_weights)."
)


def of_step(handle: float | np.ndarray, host: HostTables) -> ShortlistError:
    """The error for a handle that a training step or a lookup brings."""
    value = _number(handle)
    if not np.isfinite(value):
        return ShortlistError(
            "gradient-not-finite",
            "The gradients of a table must be finite, or be skipped by dynamic loss"
            " scaling. Received NaN or infinity under a fixed loss_scale_factor."
            " Lower the factor, or use keras.optimizers.LossScaleOptimizer.",
        )
    if value == 0:
        return ShortlistError(
            "loss-term-missing",
            "The loss must depend on a DistributedEmbedding in every training step,"
            " through a call outside functions that are traced on their own"
            " (keras.remat, jax.checkpoint, jax.jit). Received a step without a"
            " gradient for the layer. Call it in each step, or set trainable=False;"
            " move it out of such functions.",
        )
    if _is_sum(value, host):
        return ShortlistError(
            "called-twice",
            "A model must call its DistributedEmbedding once in a training step, for"
            " all features. Received the sum of several handles: the layer was"
            " differentiated more than once in one step, or gradients of several steps"
            " were added up. Call the layer once and share what it returns. The"
            " tables have not moved.",
        )
    if _is_older(value, host):
        return _stale(value, host, "")
    if value > host.handle:
        return _foreign("a training step or lookup")
    return ShortlistError(
        "handle-changed",
        "The gradient of the weight 'handle' names the next state of the tables, and"
        " an optimizer of Keras must write it as it is. Received another number: the"
        " gradients of all weights were clipped or averaged, an optimizer that is not"
        " Keras's moved the weights (torch.optim over model.parameters(), optax), or"
        " weights of other tables were copied past Keras. Clip and move only weights"
        " whose overwrite_with_gradient is False, apply gradients with"
        " keras.optimizers, and clip tables with TableConfig(clip=...). The tables"
        " have not moved.",
    )


def of_writer(
    handle: float | np.ndarray, host: HostTables, writer: str
) -> ShortlistError:
    """The error for a handle that `writer` sets."""
    value = _number(handle)
    if _is_older(value, host):
        return _stale(value, host, f" from {writer}")
    return _foreign(writer)


def _number(handle: float | np.ndarray) -> float:
    return float(np.asarray(handle, np.float32).reshape(()))


def _is_older(value: float, host: HostTables) -> bool:
    return bool(host.handle_of(0) <= value < host.handle_of(host.applied))


def _is_sum(value: float, host: HostTables) -> bool:
    """Whether it is the sum of handles that backward passes answered with."""
    number = np.arange(2, _MOST_CALLS + 1)
    parts = (value / number).astype(np.float32)
    return bool(
        np.any((parts >= host.handle_of(0)) & (parts <= host.handle_of(host.issued)))
    )


def _stale(value: float, host: HostTables, writer: str) -> ShortlistError:
    step = int(np.float32(value).view(np.int32) - host.handle_of(0).view(np.int32))
    return ShortlistError(
        "handle-stale",
        "The weights of a model and its tables must be of one time. Received weights of"
        f" step {step}{writer}, the tables are at step {host.applied}: weights alone do"
        " not hold the tables. Use shortlist.embeddings.TableCheckpoint("
        "restore_best=True), or save and load the model.",
    )


def _foreign(writer: str) -> ShortlistError:
    return ShortlistError(
        "handle-foreign",
        "The weights of a model must belong to its tables, as they are now. Received"
        f" weights of other tables from {writer}: of another model, or from before the"
        " tables were loaded or set. Weights alone do not hold the tables."
        f" {_HOW_TO_COPY} The tables have not moved.",
    )

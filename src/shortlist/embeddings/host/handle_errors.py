"""The errors for a handle that is not valid, by its likely cause.

Knows handles; knows nothing of Keras.
"""

from __future__ import annotations

import numpy as np

from shortlist.embeddings.host.handles import Issued
from shortlist.errors import ShortlistError

# A layer that is called more often in one step is not recognised as such.
_MOST_CALLS = 64

_HOW_TO_COPY = (
    "Copy a model with copy.deepcopy(model), or save and load it"
    " (shortlist.embeddings.save_weights and load_weights)."
)


def of_step(handle: float | np.ndarray, given: Issued) -> ShortlistError:
    """The error for a handle that a training step or a lookup passes."""
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
    if _is_sum(value, given):
        return ShortlistError(
            "called-twice",
            "A model must call its DistributedEmbedding once in a training step, for"
            " all features. Received the sum of several handles: the layer was"
            " differentiated more than once in one step, or gradients of several steps"
            " were added up. Call the layer once and share what it returns. The"
            " tables were not changed.",
        )
    if _is_older(value, given):
        return _stale(value, given, "")
    if value > given.handle(given.issued):
        return _foreign("a training step or lookup")
    return ShortlistError(
        "handle-changed",
        "The gradient of the weight 'handle' is the next handle of the tables, and an"
        " optimizer of Keras must write it unchanged. Received another number: the"
        " gradients of all weights were clipped or averaged, an optimizer that is not"
        " Keras's moved the weights (torch.optim over model.parameters(), optax), or"
        " weights of other tables were copied past Keras. Clip and move only weights"
        " whose overwrite_with_gradient is False, apply gradients with"
        " keras.optimizers, and clip tables with TableConfig(clip=...). The tables"
        " were not changed.",
    )


def of_writer(handle: float | np.ndarray, given: Issued, writer: str) -> ShortlistError:
    """The error for a handle that `writer` sets."""
    value = _number(handle)
    if _is_older(value, given):
        return _stale(value, given, f" (set by {writer})")
    return _foreign(writer)


def loss_without_term() -> ShortlistError:
    """The error for a loss that does not include the term of the layer."""
    return ShortlistError(
        "loss-term-missing",
        "The loss must include the terms that layers add: a table reads the scale of"
        " the loss from its own term. Received a loss without it. Add"
        " sum(model.losses) in compute_loss or the training loop, or create the layer"
        " with loss_scale=1.0 if nothing scales the loss.",
    )


def exhausted() -> ShortlistError:
    """The error for tables that have given out the last handle."""
    return ShortlistError(
        "handle-exhausted",
        "The tables have taken half a billion steps, the most before they are saved."
        " Save the model and load it again to continue.",
    )


def _number(handle: float | np.ndarray) -> float:
    return float(np.asarray(handle, np.float32).reshape(()))


def _is_older(value: float, given: Issued) -> bool:
    return bool(given.handle(0) <= value < given.handle(given.applied))


def _is_sum(value: float, given: Issued) -> bool:
    """Whether it is the sum of handles that backward passes returned."""
    number = np.arange(2, _MOST_CALLS + 1)
    parts = (value / number).astype(np.float32)
    return bool(
        np.any((parts >= given.handle(0)) & (parts <= given.handle(given.issued)))
    )


def _stale(value: float, given: Issued, writer: str) -> ShortlistError:
    step = int(np.float32(value).view(np.int32) - given.handle(0).view(np.int32))
    return ShortlistError(
        "handle-stale",
        f"The model's weights are from step {step}{writer}, but its tables are at step"
        f" {given.applied}: weights alone do not include the tables. Use"
        " shortlist.embeddings.TableCheckpoint(restore_best=True), or save and load"
        " the model.",
    )


def _foreign(writer: str) -> ShortlistError:
    return ShortlistError(
        "handle-foreign",
        f"The weights from {writer} belong to other tables: of another model, or these"
        " tables before they were loaded or set. Weights alone do not include the"
        f" tables. {_HOW_TO_COPY} The tables were not changed.",
    )

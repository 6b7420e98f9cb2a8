"""Lookups of a layer in its tables on the device.

Knows features, ids and the model around the layer; knows nothing of updates.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
from jax import Array

from shortlist.embeddings.device.arithmetic import DeviceBags
from shortlist.embeddings.device.device_tables import DeviceTables
from shortlist.embeddings.ids.lookup_ids import Ids
from shortlist.embeddings.plan import PlannedFeature
from shortlist.errors import InputError


def lookup(
    tables: DeviceTables,
    features: Sequence[PlannedFeature],
    ids: Sequence[Ids],
    training: Any,
    loss_scale: float | None,
) -> tuple[list[Array], Array]:
    """The vectors of all features, and the scalar zero whose gradient is the scale.

    Args:
        tables: the tables.
        features: the features looked up.
        ids: their ids, dense.
        training: whether the backward pass updates the tables.
        loss_scale: factor of the loss; `None` if the scalar zero goes into the loss.

    Returns: float32 `(num_bags, dim)` for each feature, and float32 `()`.

    Raises:
        InputError: `invalid-ids`, `accumulation-unsupported` or `average-unsupported`.
    """
    refuse_optimizer()
    bags = []
    for feature, one in zip(features, ids, strict=True):
        if one.offsets is not None:
            raise InputError(
                "invalid-ids",
                "Tables on a device take dense ids. Received ragged or sparse ids"
                f" for feature {feature.path!r}. Pad them with -1 (see"
                " `preprocess`), or use placement='host'.",
            )
        bags.append(
            DeviceBags(
                name=feature.path,
                table=feature.table,
                ids=one.values,
                weights=one.weights,
                combiner=feature.config.table.combiner,
            )
        )
    vectors, zero = tables.lookup(bags, training)
    if loss_scale is not None:
        vectors = with_scale(vectors, zero, loss_scale)
    return vectors, zero


def refuse_optimizer() -> None:
    """Raises if the model being traced has an optimizer that tables do not support.

    The control weight would show accumulation, but only after Keras has taken the
    maximum of the tables and an accumulator. A layer does not know the optimizer, so
    this looks for the model among the callers.

    Raises:
        InputError: `accumulation-unsupported` or `average-unsupported`.
    """
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        optimizer = getattr(caller, "optimizer", None)
        if isinstance(caller, keras.Model) and optimizer is not None:
            optimizer = getattr(optimizer, "inner_optimizer", optimizer)
            if getattr(optimizer, "gradient_accumulation_steps", None):
                raise InputError(
                    "accumulation-unsupported",
                    "Tables on a device are trained without gradient accumulation."
                    " Received an optimizer with gradient_accumulation_steps="
                    f"{optimizer.gradient_accumulation_steps}: Keras would take the"
                    " maximum of old and new tables. Use larger batches, or"
                    ' placement="host".',
                )
            if optimizer.use_ema and optimizer.ema_overwrite_frequency:
                raise InputError(
                    "average-unsupported",
                    "Keras cannot put averages in the place of weights beside tables."
                    " Received ema_overwrite_frequency="
                    f"{optimizer.ema_overwrite_frequency}. Leave it out, and keep the"
                    " best epoch with shortlist.embeddings.TableCheckpoint.",
                )
        frame = frame.f_back


def with_scale(vectors: list[Array], probe: Array, loss_scale: float) -> list[Array]:
    """The vectors, with `loss_scale` as the scale of the loss in the backward pass.

    For training loops that leave `probe` out of the loss: its cotangent is then
    `loss_scale` whenever a vector has one.
    """

    @jax.custom_vjp
    def joined(vectors: list[Array], probe: Array) -> list[Array]:
        return vectors

    def forward(vectors: list[Array], probe: Array) -> tuple[list[Array], None]:
        return vectors, None

    def backward(_: None, cotangents: list[Array]) -> tuple[list[Array], Array]:
        return cotangents, jnp.float32(loss_scale)

    joined.defvjp(forward, backward)
    scaled: list[Array] = joined(vectors, probe)
    return scaled

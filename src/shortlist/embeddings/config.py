"""Configuration of tables and features: KerasRS's own, with more options."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from shortlist.embeddings.optimizers import resolve_optimizer
from shortlist.embeddings.original import keras_rs
from shortlist.embeddings.specs import TableSpec
from shortlist.embeddings.table import COMBINERS, ROW_TYPES, RowType, check_size
from shortlist.errors import InputError, did_you_mean

PLACEMENTS = ("auto", "default_device", "host", "device")


@dataclasses.dataclass(eq=False)
class TableConfig(keras_rs.layers.TableConfig):  # type: ignore[misc]
    """One embedding table: `keras_rs.layers.TableConfig` with more options.

    Args:
        name: unique in the layer.
        vocabulary_size: number of rows, 1 to 2**31 - 1.
        embedding_dim: width of a row, 1 to 1024.
        initializer: Keras initializer of the rows. One without a seed depends on
            `keras.utils.set_random_seed` at the time the layer is created.
        optimizer: `sgd`, `adagrad`, `rowwise_adagrad`, `adam`, `ftrl` or an object of
            `keras.optimizers` or `shortlist.embeddings`.
        combiner: `sum`, `mean` or `sqrtn` of the rows of a bag.
        placement: `host`, `device`, or `auto` (= `default_device`): host on CPU, device
            on an accelerator under JAX.
        learning_rate: a number or schedule in place of the optimizer's, or
            `"optimizer"` for the rate of the model's own (host placement only).
        clip: largest norm of the gradient of one row; `None` for no limit.
        l2: adds `l2 * row` to the gradient of every touched row.
        weight_decay: subtracts `learning_rate * weight_decay * row` from a touched row.
        row_type: `float32`, or `float16` or `bfloat16` with stochastic rounding (host
            placement only). Optimizer state is float32.
        trainable: whether training updates the table.
    """

    learning_rate: Any = None
    clip: float | None = None
    l2: float = 0.0
    weight_decay: float = 0.0
    row_type: RowType = "float32"
    trainable: bool = True

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        rate = self.learning_rate
        if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
            rate = keras.optimizers.schedules.serialize(rate)
        return {
            **super().get_config(),
            "learning_rate": rate,
            "clip": self.clip,
            "l2": self.l2,
            "weight_decay": self.weight_decay,
            "row_type": self.row_type,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TableConfig:
        """The inverse of `get_config`, also of KerasRS's."""
        config = dict(config)
        if isinstance(config.get("learning_rate"), dict):
            config["learning_rate"] = keras.optimizers.schedules.deserialize(
                config["learning_rate"]
            )
        table: TableConfig = super().from_config(config)
        return table


@dataclasses.dataclass(eq=False)
class FeatureConfig(keras_rs.layers.FeatureConfig):  # type: ignore[misc]
    """One input feature: `keras_rs.layers.FeatureConfig` with shapes optional.

    Args:
        name: of the feature.
        table: the table it looks up; features may share one.
        input_shape: `(batch_size,)` or `(batch_size, length)`; `None` for any size.
        output_shape: `(batch_size, embedding_dim)`; inferred by default.
    """

    input_shape: Any = (None,)
    output_shape: Any = None

    def __post_init__(self) -> None:
        """Fills in the output shape; JSON turns tuples into lists."""
        self.input_shape = tuple(self.input_shape)
        if self.output_shape is None:
            leading = self.input_shape[: max(1, len(self.input_shape) - 1)]
            self.output_shape = (*leading, self.table.embedding_dim)
        self.output_shape = tuple(self.output_shape)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FeatureConfig:
        """The inverse of `get_config`, also of KerasRS's."""
        table = config["table"]
        if not isinstance(table, keras_rs.layers.TableConfig):
            table = TableConfig.from_config(table)
        return cls(**{**config, "table": table})


def resolve_table(table: Any) -> TableSpec:
    """The resolved configuration of a table, of KerasRS's type or ours.

    Raises:
        InputError: `invalid-table` or `optimizer-unsupported`.
    """
    name = table.name
    if not isinstance(name, str) or not name:
        raise InputError(
            "invalid-table",
            f"A table must have a name, a string. Received: {name!r}. Set `name`.",
        )
    check_size(name, table.vocabulary_size, table.embedding_dim)
    if table.combiner not in COMBINERS:
        raise _not_one_of("combiner", table.combiner, COMBINERS, name)
    row_type = getattr(table, "row_type", "float32")
    if row_type not in ROW_TYPES:
        raise _not_one_of("row_type", row_type, ROW_TYPES, name)
    rule, schedule = resolve_optimizer(
        table.optimizer,
        name,
        learning_rate=getattr(table, "learning_rate", None),
        clip=getattr(table, "clip", None),
        l2=getattr(table, "l2", 0.0),
        weight_decay=getattr(table, "weight_decay", 0.0),
    )
    return TableSpec(
        name=name,
        num_rows=int(table.vocabulary_size),
        dim=int(table.embedding_dim),
        rule=rule,
        schedule=schedule,
        initializer=_initializer(table.initializer),
        row_type=row_type,
        trainable=bool(getattr(table, "trainable", True)),
    )


def _initializer(given: Any) -> Any:
    """The initializer of a new layer.

    An initializer without a seed draws one when it is created, KerasRS's default at
    import. Then `keras.utils.set_random_seed` would not determine the rows, so it is
    cloned to draw a new one. A given seed is kept.
    """
    made = keras.initializers.get(given)
    if made is given and isinstance(made, keras.initializers.Initializer):
        config = made.get_config()
        if "seed" in config and config["seed"] is None:
            return made.clone()
    return made


def resolve_placement(table: Any) -> str:
    """`host` or `device` for a table.

    Raises:
        InputError: `placement-unsupported`.
    """
    placement, backend = table.placement, keras.backend.backend()
    if placement not in PLACEMENTS:
        if placement == "sparsecore":
            raise InputError(
                "placement-unsupported",
                f"Tables are placed on the host or on a device. Received: 'sparsecore'"
                f" for table {table.name!r}. Use keras_rs.layers.DistributedEmbedding"
                " on TPUs with SparseCores.",
            )
        raise _not_one_of("placement", placement, PLACEMENTS, table.name)
    if placement in ("auto", "default_device"):
        placement = "device" if _has_accelerator(backend) else "host"
        if getattr(table, "row_type", "float32") != "float32":
            placement = "host"
    if placement == "device":
        if backend != "jax":
            raise InputError(
                "placement-unsupported",
                f"placement='device' needs the JAX backend. Received: {backend!r} for"
                f" table {table.name!r}. Use placement='host' or KERAS_BACKEND=jax.",
            )
        if getattr(table, "row_type", "float32") != "float32":
            raise InputError(
                "placement-unsupported",
                "Tables on a device have float32 rows. Received:"
                f" row_type={table.row_type!r} for table {table.name!r}. Use"
                " placement='host'.",
            )
    return str(placement)


def _has_accelerator(backend: str) -> bool:
    if backend != "jax":
        return False
    import jax

    return jax.default_backend() != "cpu"


def _not_one_of(what: str, value: Any, allowed: Any, table: str) -> InputError:
    return InputError(
        "invalid-table",
        f"`{what}` must be one of {', '.join(allowed)}. Received: {value!r} for table"
        f" {table!r}.{did_you_mean(value, allowed)}",
    )

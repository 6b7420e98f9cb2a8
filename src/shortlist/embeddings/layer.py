"""IDS -> VECTORS: one layer for all lookups of a model.

Knows Keras and the placements; knows nothing of towers, losses or data files.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from shortlist.embeddings import callers
from shortlist.embeddings import plan as plans
from shortlist.embeddings import weights as weights_of
from shortlist.embeddings.host import backends
from shortlist.embeddings.host.handle_weight import HandleGuard
from shortlist.embeddings.host.host_tables import (
    HostTables,
    Snapshot,
    SpanHook,
    no_span,
)
from shortlist.embeddings.host.initializers import initialize
from shortlist.embeddings.ids import containers
from shortlist.embeddings.ids.lookup_ids import Ids, check_dtype, to_ids
from shortlist.embeddings.ids.truncated import TruncatedIds
from shortlist.embeddings.plan import Plan
from shortlist.embeddings.rates import RateWatch, rates_of
from shortlist.embeddings.storage import session
from shortlist.errors import InputError

Tensor = Any  # a tensor of the backend in use; Keras has no common type for it

_PREPROCESSED = "preprocessed_inputs_per_placement"


@keras.saving.register_keras_serializable(package="shortlist")
class DistributedEmbedding(keras.layers.Layer):  # type: ignore[misc]
    """Looks up and combines rows of embedding tables with their own optimizers.

    A drop-in replacement for `keras_rs.layers.DistributedEmbedding` on CPUs and GPUs,
    with the same configuration. Each table has its own optimizer, which updates only
    the rows that a batch uses: a training step costs as much with a million rows as
    with a thousand. A model calls the layer once per step, for all features.

    Args:
        feature_configs: any nesting of `FeatureConfig`s, KerasRS's or ours.
        table_stacking: accepted; tables of one width on a device are always stacked.
        update_stats: accepted; there are no buffers whose size must be learned.
        loss_scale: factor by which the training loop multiplies the loss. By default
            the layer adds a term of zero to `model.losses` and reads the factor from
            its gradient. Pass 1.0 if your own loop leaves `model.losses` out.
        threads: most threads of the host kernels; all processors by default.

    Call arguments:
        inputs: ids in the structure of `feature_configs`. Each feature is dense,
            `(batch_size,)` or `(batch_size, length)` integers, -1 for padding; or
            ragged or sparse in any container (docs/embeddings.md has the table); or
            `Jagged`. Batch size and length may vary.
        weights: factors of the ids, of the same structure and shapes, or `None`.
        training: has no effect; gradients decide.

    Returns: the structure of `feature_configs` with `(batch_size, embedding_dim)` in
    the compute dtype. A feature without ids gives zeros.

    Raises:
        InputError: `invalid-ids`, `invalid-weights`, `unknown-feature`,
            `id-out-of-range`.
        ShortlistError: an error of a compiled step, raised when Python runs again.

    Attributes:
        host_tables: the tables in host memory; `None` before `build` and without any.
        device_tables: the tables on the device; `None` before `build` and without any.
        plan: the features and tables of the configuration.

    Example:
        >>> users = TableConfig("users", vocabulary_size=1000, embedding_dim=16)
        >>> layer = DistributedEmbedding({"user": FeatureConfig("user", users)})
        >>> layer({"user": np.array([3, 5])})["user"].shape
        (2, 16)

    References:
        Naumov et al. (2019), Deep Learning Recommendation Model for Personalization
        and Recommendation Systems.
    """

    def __init__(
        self,
        feature_configs: Any,
        *,
        table_stacking: str | Sequence[Any] | None = "auto",
        update_stats: bool = False,
        loss_scale: float | None = None,
        threads: int | None = None,
        **kwargs: Any,
    ) -> None:
        # Weights of ids and tables are float32 whatever the compute dtype is.
        super().__init__(**{"autocast": False, **kwargs})
        self._allow_non_tensor_positional_args = True  # `Jagged`
        self.plan = Plan(feature_configs)
        self.table_stacking = table_stacking
        self.update_stats = update_stats
        self.loss_scale = loss_scale
        self.threads = threads
        # XLA cannot call back to the host under TensorFlow; under JAX it can.
        self.built = False
        self.supports_jit = keras.backend.backend() == "jax"
        self.handle: Any = None
        self.host_tables: HostTables | None = None
        self.device_tables: Any = None
        self._span: SpanHook = no_span
        self._guard: HandleGuard | None = None
        specs = self.plan.tables
        self._truncated = TruncatedIds()
        self._rate_watch = RateWatch([*specs["host"], *specs["device"]])
        self._counted = weights_of.CountedTables(self)
        self._differentiated: Any = backends.Seen()

    def build(self, inputs_shape: Any = None, weights_shape: Any = None) -> None:
        """Creates the tables.

        Raises:
            ResourceError: `out-of-memory`.
            InputError: `strategy-unsupported`.
        """
        if self.built:
            return
        backends.check_one_replica()
        host, device = self.plan.tables["host"], self.plan.tables["device"]
        if host:
            tables = []
            for spec in host:
                table = spec.allocate()
                initialize(table, spec.initializer)
                tables.append(table)
            names = [self.plan.features[i].path for i in self.plan.of("host")]
            host_tables = HostTables(tables, names, self.threads)
            host_tables.span = self._span
            host_tables.followed_rate = self._rate_watch.current
            self.host_tables = host_tables
            self.handle = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(host_tables.handle),
                dtype="float32",
                trainable=any(table.trainable for table in tables),
                autocast=False,
                overwrite_with_gradient=True,
                name="handle",
            )
            self._guard = HandleGuard(self.handle, host_tables)
        if device:
            from shortlist.embeddings.device.device_tables import DeviceTables

            self.device_tables = DeviceTables(self, device)
            self.device_tables.build()
        self.built = True

    def preprocess(
        self, inputs: Any, weights: Any = None, training: bool = False
    ) -> dict[str, Any]:
        """Checks ids and converts them to what a compiled step accepts.

        Dense ids of any integer type stay dense. Ragged and sparse ones are padded with
        -1, their weights with 0, to the length of the feature's `input_shape` or the
        longest row; only ragged and sparse tensors of TensorFlow under TensorFlow stay
        as they are. Builds the layer.

        Args:
            inputs: as for a call.
            weights: as for a call.
            training: has no effect.

        Returns: the argument for a call, in place of `inputs`.

        Raises:
            InputError: as a call does, and `id-out-of-range` at once.
        """
        if not self.built:
            self.build()
        given, given_weights = self._unwrapped(inputs, weights)
        prepared: dict[str, Any] = self._checked(given, given_weights, dense=True)
        return prepared

    def __call__(self, inputs: Any, weights: Any = None, **kwargs: Any) -> Any:
        """Checks ids before Keras and the backend convert them, then calls."""
        given, given_weights = self._unwrapped(inputs, weights)
        checked = self._checked(given, given_weights)
        if checked is not None:
            inputs, weights = checked, None
        return super().__call__(inputs, weights, **kwargs)

    def _checked(self, inputs: Any, weights: Any, dense: bool = False) -> Any:
        """Checked `inputs` for a call; `None` if they can be used as they are."""
        flat = self.plan.flatten(inputs)
        flat_weights: list[Any] = [None] * len(flat)
        if weights is not None:
            flat_weights = self.plan.flatten(weights, "weights")
        given = [*flat, *flat_weights]
        for i, feature in enumerate(self.plan.features):
            flat[i], flat_weights[i] = containers.checked(
                flat[i],
                flat_weights[i],
                self.expected(i),
                dense=dense or feature.placement == "device",
                at_once=dense,
            )
        now = [*flat, *flat_weights]
        if not dense and all(a is b for a, b in zip(given, now, strict=True)):
            return None
        prepared: dict[str, Any] = {"inputs": self.plan.pack(flat)}
        if any(one is not None for one in flat_weights):
            prepared["weights"] = self.plan.pack(flat_weights)
        return {_PREPROCESSED: prepared}

    def expected(self, index: int) -> containers.Expected:
        """What the feature with this index in the configuration accepts."""
        feature = self.plan.features[index]
        spec = self.plan.tables[feature.placement][feature.table]
        shape = feature.config.input_shape
        length = shape[1] if len(shape) == 2 else None
        return containers.Expected(feature.path, spec.name, spec.num_rows, length)

    def call(self, inputs: Any, weights: Any = None, training: bool = False) -> Any:
        """Looks up all features."""
        inputs, weights = self._unwrapped(inputs, weights)
        flat = self.plan.flatten(inputs)
        flat_weights: list[Any] = [None] * len(flat)
        if weights is not None:
            flat_weights = self.plan.flatten(weights, "weights")
        vectors = self.lookup(
            dict(enumerate(flat)), dict(enumerate(flat_weights)), training
        )
        return self.plan.pack([vectors[i] for i in range(len(flat))])

    def lookup(
        self,
        ids: Mapping[int, Any],
        weights: Mapping[int, Any] | None = None,
        training: Any = False,
    ) -> dict[int, Tensor]:
        """Vectors of some of the features, by their index in the configuration.

        Args:
            ids: input of each feature.
            weights: weights of each feature, or `None`.
            training: as in a call.
        """
        frame = inspect.currentframe()
        if self.host_tables is not None and weights_of.is_exported(frame):
            raise weights_of.refusal("export", self.name)
        self._rate_watch.look(frame)
        # Not while a step is traced: the state of the model would be lost.
        if self.handle is None or backends.is_concrete(self.handle.value):
            self.raise_fault()
        given = [(one, self.expected(i)) for i, one in ids.items()]
        error = self._truncated.learn(frame, given)
        if error is not None and self.host_tables is not None:
            self.host_tables.set_fault(error)
        elif error is not None:
            self._truncated.late = error
        weights = weights or {}
        found: dict[int, Tensor] = {}
        for placement, run in (
            ("host", self._from_host),
            ("device", self._from_device),
        ):
            indices = [i for i in self.plan.of(placement) if i in ids]
            if not indices:
                continue
            features = [
                to_ids(f.path, ids[i], weights.get(i), f.config.table.combiner)
                for i, f in ((i, self.plan.features[i]) for i in indices)
            ]
            vectors, zero = run(indices, features, training)
            if self.loss_scale is None:
                # TensorFlow does not add up numbers of two types.
                to_add = keras.backend.backend() == "tensorflow"
                self.add_loss(ops.cast(zero, keras.config.floatx()) if to_add else zero)
            for i, one, vector in zip(indices, features, vectors, strict=True):
                if len(one.leading) > 1:
                    dim = self.plan.features[i].dim
                    vector = ops.reshape(vector, (-1, *one.leading[1:], dim))
                found[i] = ops.cast(vector, self.compute_dtype)
        return found

    def compute_output_shape(self, inputs_shape: Any, weights_shape: Any = None) -> Any:
        """Shape `(batch_size, embedding_dim)` per feature."""
        inputs_shape, _ = self._unwrapped(inputs_shape, None)
        shapes = self.plan.flatten(inputs_shape)
        return self.plan.pack(
            [
                (*shape[: max(1, len(shape) - 1)], feature.dim)
                for shape, feature in zip(shapes, self.plan.features, strict=True)
            ]
        )

    def compute_output_spec(
        self, inputs: Any, weights: Any = None, training: bool = False
    ) -> Any:
        """Symbolic tensors of the outputs; nothing is looked up."""
        inputs, _ = self._unwrapped(inputs, weights)
        flat = self.plan.flatten(inputs)
        for one, feature in zip(flat, self.plan.features, strict=True):
            # Keras builds models with symbols of any type; those of a graph are meant.
            if hasattr(one, "_keras_history"):
                check_dtype(feature.path, one.dtype)
        return self.plan.pack(
            [
                keras.KerasTensor(
                    (*one.shape[: max(1, len(one.shape) - 1)], feature.dim),
                    dtype=self.compute_dtype,
                )
                for one, feature in zip(flat, self.plan.features, strict=True)
            ]
        )

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        """The layer itself: its vectors are kept, not computed again."""
        return layer_call

    def get_embedding_tables(self) -> dict[str, np.ndarray]:
        """The rows of every table by name, `(vocabulary_size, embedding_dim)` float32.

        Rows of a host table in float32 are not copied: do not write to them.
        """
        self.sync()
        sides = (self.host_tables, self.device_tables)
        return {k: v for side in sides if side for k, v in side.rows().items()}

    def set_embedding_tables(self, tables: Mapping[str, np.ndarray]) -> None:
        """Sets the rows of some tables; the state of their optimizers stays.

        Args:
            tables: `(vocabulary_size, embedding_dim)` by name.

        Raises:
            InputError: `invalid-table`; nothing is set.
        """
        self.sync()
        specs = {s.name: s for side in self.plan.tables.values() for s in side}
        for name, rows in tables.items():
            spec = specs.get(name)
            wanted = None if spec is None else (spec.num_rows, spec.dim)
            if wanted != np.shape(rows):
                raise InputError(
                    "invalid-table",
                    f"Rows must be given for tables of the layer, {sorted(specs)}, in"
                    f" their shape. Received: {name!r} of shape {np.shape(rows)},"
                    f" expected {wanted}.",
                )
        if self.device_tables is not None:
            self.device_tables.set_rows(tables)
        if self.host_tables is not None and self._guard is not None:
            self._guard.put(self.host_tables.set_rows(tables))

    def restore_host_tables(self, snapshot: Snapshot) -> None:
        """Sets the position of host tables whose rows were just loaded, and the handle.

        Args:
            snapshot: where the training of the tables was when they were saved.
        """
        if self.host_tables is not None and self._guard is not None:
            self._guard.put(self.host_tables.restore(snapshot))

    def sync(self) -> None:
        """Applies the waiting gradients up to the current weights.

        Raises:
            ShortlistError: an error of an earlier compiled step.
        """
        if not self.built:
            self.build()
        self.raise_fault()
        if self.host_tables is not None:
            self.host_tables.advance(backends.to_number(self.handle.value))

    def set_span_hook(self, hook: SpanHook | None) -> None:
        """Runs every lookup and update of host tables in a context of `hook`.

        Args:
            hook: called with `lookup` or `update`; `None` for no hook.
        """
        self._span = hook or no_span
        if self.host_tables is not None:
            self.host_tables.span = self._span

    def raise_fault(self) -> None:
        """Raises the error of an earlier compiled step, once."""
        if self.host_tables is not None and self._guard is not None:
            self._guard.raise_next = False
            self.host_tables.raise_fault()
        if self.device_tables is not None:
            self.device_tables.check()

    @property
    def variables(self) -> list[Any]:
        """The weights. Keras reads them before and after an epoch.

        So an error of a compiled step is raised here, unless Keras is still writing the
        state of the model back.
        """
        return self._answered(super().variables)

    @property
    def weights(self) -> list[Any]:
        """The weights, as `variables`; `fit` reads them when it ends."""
        return self._answered(super().weights)

    def save_own_variables(self, store: Any) -> None:
        """Writes tables and optimizer state for Keras; see `storage.saving`."""
        session.save(self, store)

    def load_own_variables(self, store: Any) -> None:
        """Reads tables and optimizer state for Keras; see `storage.saving`."""
        session.load(self, store)

    def _trackable_children(
        self, save_type: str = "checkpoint", **kwargs: Any
    ) -> dict[str, Any]:
        """The children that TensorFlow saves; refused once there are tables."""
        if self.built:
            weights_of.refuse_tracking(self, save_type)
        found: dict[str, Any] = super()._trackable_children(save_type, **kwargs)
        return found

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        weights_of.check_config_reader(self, inspect.currentframe())
        return {
            **super().get_config(),
            **plans.to_config(self.plan),
            "table_stacking": self.table_stacking,
            "update_stats": self.update_stats,
            "loss_scale": self.loss_scale,
            "threads": self.threads,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DistributedEmbedding:
        """The inverse of `get_config`, also of KerasRS's layer."""
        config = dict(config)
        configs = plans.from_config(config.pop("feature_configs"), config.pop("tables"))
        return cls(configs, **config)

    def _from_host(
        self, indices: Sequence[int], ids: Sequence[Ids], training: Any
    ) -> tuple[list[Tensor], Tensor]:
        assert self.host_tables is not None
        value = self.handle.value
        call, arrays = backends.prepared(
            self.host_tables,
            [self.plan.features[i] for i in indices],
            ids,
            rates_of(self.plan.tables["host"]),
            None if self.loss_scale is None else float(self.loss_scale),
        )
        handle = value if self.handle.trainable else ops.stop_gradient(value)
        return backends.lookup(call, handle, arrays, self._differentiated)

    def _from_device(
        self, indices: Sequence[int], ids: Sequence[Ids], training: Any
    ) -> tuple[list[Tensor], Tensor]:
        from shortlist.embeddings.device import lookup

        # A gradient decides, not `training`: in some models that does not reach a
        # layer. A tracer is a sign of rematerialization, which is refused.
        traced = training is not None and not isinstance(training, (bool, int))
        moves = not weights_of.is_exported(inspect.currentframe())
        return lookup.lookup(
            self.device_tables,
            [self.plan.features[i] for i in indices],
            ids,
            training if traced else moves,
            self.loss_scale,
        )

    def _answered(self, found: list[Any]) -> list[Any]:
        """The weights for the caller; first raises the error of a compiled step."""
        guard = getattr(self, "_guard", None)
        frame = inspect.currentframe()
        if guard is not None and guard.raise_next:
            if not callers.in_state_sync(frame):
                self.raise_fault()
        if guard is not None or getattr(self, "device_tables", None) is not None:
            self._rate_watch.look(frame)
            self._truncated.check(frame)
        return weights_of.answer(self, found, frame)

    def _unwrapped(self, inputs: Any, weights: Any) -> tuple[Any, Any]:
        if isinstance(inputs, Mapping) and _PREPROCESSED in inputs:
            prepared = inputs[_PREPROCESSED]
            return prepared["inputs"], prepared.get("weights", weights)
        return inputs, weights

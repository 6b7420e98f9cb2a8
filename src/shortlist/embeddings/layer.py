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
from shortlist.embeddings.host.host_tables import HostTables, Watch, unwatched
from shortlist.embeddings.host.initializers import initialize
from shortlist.embeddings.ids import containers
from shortlist.embeddings.ids.lookup_ids import Ids, check_dtype, to_ids
from shortlist.embeddings.plan import Plan
from shortlist.embeddings.rates import RateWatch
from shortlist.embeddings.table import Table
from shortlist.errors import InputError

Tensor = Any  # a tensor of the backend in use; Keras has no common type for it

_PREPROCESSED = "preprocessed_inputs_per_placement"


@keras.saving.register_keras_serializable(package="shortlist")
class DistributedEmbedding(keras.layers.Layer):  # type: ignore[misc]
    """Looks up and combines rows of embedding tables that train themselves.

    A drop-in for `keras_rs.layers.DistributedEmbedding` on CPUs and GPUs: it takes the
    same configuration, and honours it. Every table is moved by its own optimizer, and
    only in the rows that a batch touches: a training step costs as much with a million
    rows as with a thousand. A model calls the layer once per step, for all features.

    Args:
        feature_configs: any nesting of `FeatureConfig`s, KerasRS's or ours.
        table_stacking: accepted; tables of one width on a device are always stacked.
        update_stats: accepted; there are no buffers whose size must be learned.
        loss_scale: by what a training loop multiplies the loss. By default the layer
            adds a term of zero to the losses of the model and reads the scale from its
            gradient; a custom loop that leaves `model.losses` out passes 1.0.
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
        ShortlistError: what a compiled step could not do, at the next boundary.

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
        # Weights of ids and tables are float32, whatever the model computes in.
        super().__init__(**{"autocast": False, **kwargs})
        self._allow_non_tensor_positional_args = True  # `Jagged`
        self._plan = Plan(feature_configs)
        self.table_stacking = table_stacking
        self.update_stats = update_stats
        self.loss_scale = loss_scale
        self.threads = threads
        # XLA cannot call back to the host under TensorFlow; under JAX it can.
        self.built = False
        self.supports_jit = keras.backend.backend() == "jax"
        self.handle: Any = None
        self._host: HostTables | None = None
        self._watch: Watch = unwatched
        self._guard: HandleGuard | None = None
        self._device: Any = None
        specs = self._plan.tables
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
        host, device = self._plan.tables["host"], self._plan.tables["device"]
        if host:
            tables = []
            for spec in host:
                table = Table.allocate(
                    spec.name,
                    spec.num_rows,
                    spec.dim,
                    spec.rule,
                    row_type=spec.row_type,
                    trainable=spec.trainable,
                )
                initialize(table, spec.initializer)
                tables.append(table)
            names = [self._plan.features[i].path for i in self._plan.of("host")]
            self._host = HostTables(tables, names, self.threads)
            self._host.watch = self._watch
            self._host.followed_rate = self._rate_watch.current
            self.handle = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(self._host.handle),
                dtype="float32",
                trainable=any(table.trainable for table in tables),
                autocast=False,
                overwrite_with_gradient=True,
                name="handle",
            )
            self._guard = HandleGuard(self.handle, self._host)
        if device:
            from shortlist.embeddings.device.device_tables import DeviceTables

            self._device = DeviceTables(self, device)
            self._device.build()
        self.built = True

    def preprocess(
        self, inputs: Any, weights: Any = None, training: bool = False
    ) -> dict[str, Any]:
        """Checks ids, and turns them into what a compiled step takes.

        Dense ids of any integer type stay dense; ragged and sparse ones are padded with
        -1, their weights with 0 (to the length of the feature's `input_shape`, or the
        longest row), but for ragged and sparse tensors of TensorFlow under TensorFlow.
        Builds the layer.

        Args:
            inputs: as for a call.
            weights: as for a call.
            training: has no effect.

        Returns: what a call takes in place of `inputs`.

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
        """What stands for checked `inputs`; `None` if a call takes them as they are."""
        flat = self._plan.flatten(inputs)
        flat_weights: list[Any] = [None] * len(flat)
        if weights is not None:
            flat_weights = self._plan.flatten(weights, "weights")
        given = [*flat, *flat_weights]
        for i, feature in enumerate(self._plan.features):
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
        prepared: dict[str, Any] = {"inputs": self._plan.pack(flat)}
        if any(one is not None for one in flat_weights):
            prepared["weights"] = self._plan.pack(flat_weights)
        return {_PREPROCESSED: prepared}

    def expected(self, index: int) -> containers.Expected:
        """What the feature at this place of the configuration takes."""
        feature = self._plan.features[index]
        spec = self._plan.tables[feature.placement][feature.table]
        shape = feature.config.input_shape
        length = shape[1] if len(shape) == 2 else None
        return containers.Expected(feature.path, spec.name, spec.num_rows, length)

    def call(self, inputs: Any, weights: Any = None, training: bool = False) -> Any:
        """Looks up all features."""
        inputs, weights = self._unwrapped(inputs, weights)
        flat = self._plan.flatten(inputs)
        flat_weights: list[Any] = [None] * len(flat)
        if weights is not None:
            flat_weights = self._plan.flatten(weights, "weights")
        vectors = self.lookup(
            dict(enumerate(flat)), dict(enumerate(flat_weights)), training
        )
        return self._plan.pack([vectors[i] for i in range(len(flat))])

    def lookup(
        self,
        ids: Mapping[int, Any],
        weights: Mapping[int, Any] | None = None,
        training: Any = False,
    ) -> dict[int, Tensor]:
        """Vectors of some of the features, by their place in the configuration.

        Args:
            ids: input of each feature.
            weights: weights of each feature, or `None`.
            training: as in a call.
        """
        if self._host is not None and weights_of.is_exported(inspect.currentframe()):
            raise weights_of.refusal("export", self.name)
        self._rate_watch.look(inspect.currentframe())
        # Not while a step is traced: the state of the model would be lost.
        if self.handle is None or backends.is_concrete(self.handle.value):
            self.raise_fault()
        weights = weights or {}
        found: dict[int, Tensor] = {}
        for placement, run in (
            ("host", self._from_host),
            ("device", self._from_device),
        ):
            indices = [i for i in self._plan.of(placement) if i in ids]
            if not indices:
                continue
            features = [
                to_ids(f.path, ids[i], weights.get(i), f.config.table.combiner)
                for i, f in ((i, self._plan.features[i]) for i in indices)
            ]
            vectors, zero = run(indices, features, training)
            if self.loss_scale is None:
                # TensorFlow does not add up numbers of two types.
                to_add = keras.backend.backend() == "tensorflow"
                self.add_loss(ops.cast(zero, keras.config.floatx()) if to_add else zero)
            for i, one, vector in zip(indices, features, vectors, strict=True):
                if len(one.leading) > 1:
                    dim = self._plan.features[i].dim
                    vector = ops.reshape(vector, (-1, *one.leading[1:], dim))
                found[i] = ops.cast(vector, self.compute_dtype)
        return found

    def compute_output_shape(self, inputs_shape: Any, weights_shape: Any = None) -> Any:
        """Shape `(batch_size, embedding_dim)` per feature."""
        inputs_shape, _ = self._unwrapped(inputs_shape, None)
        shapes = self._plan.flatten(inputs_shape)
        return self._plan.pack(
            [
                (*shape[: max(1, len(shape) - 1)], feature.dim)
                for shape, feature in zip(shapes, self._plan.features, strict=True)
            ]
        )

    def compute_output_spec(
        self, inputs: Any, weights: Any = None, training: bool = False
    ) -> Any:
        """Symbolic tensors of the outputs; nothing is looked up."""
        inputs, _ = self._unwrapped(inputs, weights)
        flat = self._plan.flatten(inputs)
        for one, feature in zip(flat, self._plan.features, strict=True):
            # Keras builds models with symbols of any type; those of a graph are meant.
            if hasattr(one, "_keras_history"):
                check_dtype(feature.path, one.dtype)
        return self._plan.pack(
            [
                keras.KerasTensor(
                    (*one.shape[: max(1, len(one.shape) - 1)], feature.dim),
                    dtype=self.compute_dtype,
                )
                for one, feature in zip(flat, self._plan.features, strict=True)
            ]
        )

    def rematerialized_call(self, layer_call: Any, *args: Any, **kwargs: Any) -> Any:
        """A lookup is never done twice: its vectors are kept."""
        return layer_call

    def get_embedding_tables(self) -> dict[str, np.ndarray]:
        """The rows of every table by name, `(vocabulary_size, embedding_dim)` float32.

        Rows of a host table in float32 are not copied: do not write to them.
        """
        from shortlist.embeddings.host.reference import to_float32

        self.sync()
        tables = {}
        if self._host is not None:
            for table in self._host.tables:
                rows = table.rows
                rows = rows if rows.dtype == np.float32 else to_float32(rows)
                tables[table.name] = rows
        if self._device is not None:
            tables |= self._device.tables()
        return tables

    def set_embedding_tables(self, tables: Mapping[str, np.ndarray]) -> None:
        """Sets the rows of some tables; the state of their optimizers stays.

        Args:
            tables: `(vocabulary_size, embedding_dim)` by name.

        Raises:
            InputError: `invalid-table`; nothing is set.
        """
        self.sync()
        specs = {s.name: s for side in self._plan.tables.values() for s in side}
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
        for table in self._host.tables if self._host is not None else ():
            if table.name in tables:
                table.set_rows(0, np.asarray(tables[table.name], np.float32))
        if self._device is not None:
            state = self._device.state()
            for name in state.keys() & tables.keys():
                state[name]["rows"] = np.asarray(tables[name], np.float32)
            self._device.load(state)
        if self._host is not None and self._guard is not None:
            self._host.rename()  # weights of before are not those of these tables
            self._guard.put(self._host.handle_of(self._host.applied))

    def sync(self) -> None:
        """Brings the tables up to the weights: waiting gradients are applied.

        Raises:
            ShortlistError: what an earlier compiled step could not do.
        """
        if not self.built:
            self.build()
        self.raise_fault()
        if self._host is not None:
            self._host.advance(backends.to_number(self.handle.value))

    def watch(self, watch: Watch | None) -> None:
        """Tells of every lookup and update of host tables; `None` tells nobody."""
        self._watch = watch or unwatched
        if self._host is not None:
            self._host.watch = self._watch

    def raise_fault(self) -> None:
        """Raises what an earlier compiled step could not do, once."""
        if self._host is not None and self._guard is not None:
            self._guard.raise_next = False
            self._host.raise_fault()
        if self._device is not None:
            self._device.check()

    @property
    def variables(self) -> list[Any]:
        """The weights; Keras reads them at the boundaries of an epoch.

        So this is where an error of a compiled step is raised, but not while Keras is
        still writing the state of the model back.
        """
        return self._answered(super().variables)

    @property
    def weights(self) -> list[Any]:
        """The weights, as `variables`: `fit` reads them when it ends."""
        return self._answered(super().weights)

    def save_own_variables(self, store: Any) -> None:
        """Writes tables and optimizer state for Keras; see `saving`."""
        from shortlist.embeddings.storage import saving

        saving.save(self, store)

    def load_own_variables(self, store: Any) -> None:
        """Reads tables and optimizer state for Keras; see `saving`."""
        from shortlist.embeddings.storage import saving

        saving.load(self, store)

    def _trackable_children(
        self, save_type: str = "checkpoint", **kwargs: Any
    ) -> dict[str, Any]:
        """What TensorFlow would write of the layer."""
        if self.built:
            weights_of.refuse_tracking(self, save_type)
        found: dict[str, Any] = super()._trackable_children(save_type, **kwargs)
        return found

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        weights_of.check_config_reader(self, inspect.currentframe())
        return {
            **super().get_config(),
            **plans.to_config(self._plan),
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
        self, indices: Sequence[int], features: Sequence[Ids], training: Any
    ) -> tuple[list[Tensor], Tensor]:
        assert self._host is not None
        return backends.lookup(
            self._host,
            self.handle.value
            if self.handle.trainable
            else ops.stop_gradient(self.handle.value),
            [self._plan.features[i] for i in indices],
            features,
            self._rates(),
            self._differentiated,
            adds_loss=self.loss_scale is None,
            loss_scale=1.0 if self.loss_scale is None else self.loss_scale,
        )

    def _from_device(
        self, indices: Sequence[int], features: Sequence[Ids], training: Any
    ) -> tuple[list[Tensor], Tensor]:
        from shortlist.embeddings.device import step as device_step
        from shortlist.embeddings.device.arithmetic import DeviceBags

        device_step.refuse_optimizer()
        bags = []
        for i, one in zip(indices, features, strict=True):
            feature = self._plan.features[i]
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
        # Whether the call is differentiated decides: `training` does not reach a layer
        # in every model. A tracer tells of rematerialization, which is refused.
        traced = training is not None and not isinstance(training, (bool, int))
        moves = not weights_of.is_exported(inspect.currentframe())
        vectors, zero = self._device.lookup(bags, training if traced else moves)
        if self.loss_scale is not None:
            vectors = device_step.with_scale(vectors, zero, self.loss_scale)
        return vectors, zero

    def _rates(self) -> Any:
        """Learning rates of the host tables, or what gives them for an update."""
        specs = self._plan.tables["host"]
        if all(spec.schedule is None for spec in specs):
            return [spec.rule.learning_rate for spec in specs]
        return self._scheduled_rates

    def _scheduled_rates(self, step: Any) -> list[Tensor]:
        """Learning rates at the 0-based number of an update."""
        return [
            ops.cast(
                spec.rule.learning_rate
                if spec.schedule is None
                else spec.schedule(step),
                "float32",
            )
            for spec in self._plan.tables["host"]
        ]

    def _answered(self, found: list[Any]) -> list[Any]:
        """The weights for whoever asks; first raises what has waited to be raised."""
        guard = getattr(self, "_guard", None)
        frame = inspect.currentframe()
        if guard is not None and guard.raise_next:
            if not callers.in_state_sync(frame):
                self.raise_fault()
        if guard is not None or getattr(self, "_device", None) is not None:
            self._rate_watch.look(frame)
        return weights_of.answer(self, found, frame)

    def _unwrapped(self, inputs: Any, weights: Any) -> tuple[Any, Any]:
        if isinstance(inputs, Mapping) and _PREPROCESSED in inputs:
            prepared = inputs[_PREPROCESSED]
            return prepared["inputs"], prepared.get("weights", weights)
        return inputs, weights

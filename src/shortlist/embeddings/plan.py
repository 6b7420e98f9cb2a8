"""Which features look up which tables, and where those tables are.

Flattens the nested configuration of a `DistributedEmbedding` once, so that a call only
iterates over lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from shortlist.embeddings.config import (
    FeatureConfig,
    TableConfig,
    resolve_placement,
    resolve_table,
)
from shortlist.embeddings.original import keras_rs
from shortlist.embeddings.specs import TableSpec
from shortlist.errors import InputError, did_you_mean


@dataclass(frozen=True, eq=False)
class PlannedFeature:
    """One leaf of the configuration.

    Args:
        path: its place in the nested configuration, for messages.
        config: as given.
        placement: `host` or `device`.
        table: index among the tables of that placement.
        dim: width of its vectors.
    """

    path: str
    config: Any
    placement: str
    table: int
    dim: int


class Plan:
    """The features and tables of one layer.

    Args:
        feature_configs: any nesting of dicts, lists and tuples of `FeatureConfig`s.

    Raises:
        InputError: `invalid-feature`, `invalid-table`, `placement-unsupported` or
            `optimizer-unsupported`.
    """

    def __init__(self, feature_configs: Any) -> None:
        self.feature_configs = feature_configs
        self.features: list[PlannedFeature] = []
        self.tables: dict[str, list[TableSpec]] = {"host": [], "device": []}
        self.configs: list[Any] = []
        places: dict[int, tuple[str, int]] = {}
        for path, config in keras.tree.flatten_with_path(feature_configs):
            where = ".".join(map(str, path)) or str(getattr(config, "name", "feature"))
            if not isinstance(config, keras_rs.layers.FeatureConfig):
                raise InputError(
                    "invalid-feature",
                    "`feature_configs` must be a nesting of FeatureConfig. Received:"
                    f" {type(config).__name__} at {where!r}.",
                )
            table = config.table
            if id(table) not in places:
                self._check_name(table)
                placement = resolve_placement(table)
                specs = self.tables[placement]
                places[id(table)] = (placement, len(specs))
                specs.append(resolve_table(table))
                self.configs.append(table)
            placement, index = places[id(table)]
            dim = self.tables[placement][index].dim
            self.features.append(PlannedFeature(where, config, placement, index, dim))
        if not self.features:
            raise InputError(
                "invalid-feature",
                "A DistributedEmbedding must have at least one feature. Received:"
                f" {feature_configs!r}.",
            )

    def flatten(self, inputs: Any, what: str = "inputs") -> list[Any]:
        """One value per feature, from a structure like that of the configuration.

        Raises:
            InputError: `unknown-feature`.
        """
        values: list[Any] = []
        _walk(self.feature_configs, inputs, what, values.append)
        return values

    def pack(self, values: Sequence[Any]) -> Any:
        """One value per feature, in the structure of the configuration."""
        return keras.tree.pack_sequence_as(self.feature_configs, list(values))

    def of(self, placement: str) -> list[int]:
        """Indices of the features placed there."""
        return [i for i, f in enumerate(self.features) if f.placement == placement]

    def _check_name(self, table: Any) -> None:
        for other in self.configs:
            if other.name == table.name:
                shapes = [
                    (one.vocabulary_size, one.embedding_dim) for one in (other, table)
                ]
                raise InputError(
                    "invalid-table",
                    "Tables of one layer must have different names. Received two named"
                    f" {table.name!r}, of shapes {shapes[0]} and {shapes[1]}. Rename"
                    " one, or give both features the same TableConfig object to share"
                    " it.",
                )


def _walk(
    configs: Any, values: Any, what: str, take: Callable[[Any], None], at: str = ""
) -> None:
    """Visits the values at the leaves of `configs`, in the order of the leaves."""
    if isinstance(configs, keras_rs.layers.FeatureConfig):
        take(values)
        return
    place = f" at {at!r}" if at else ""
    if isinstance(configs, Mapping):
        keys = set(values) if isinstance(values, Mapping) else None
        if keys != set(configs):
            unknown = sorted(map(str, (keys or set()) - set(configs)))
            missing = sorted(map(str, set(configs) - (keys or set())))
            hint = did_you_mean(unknown[0], configs) if unknown else ""
            raise InputError(
                "unknown-feature",
                f"`{what}` must have the features of the configuration{place}:"
                f" {sorted(map(str, configs))}. Received:"
                f" {type(values).__name__ if keys is None else sorted(map(str, keys))}"
                f" (unknown {unknown}, missing {missing}).{hint}",
            )
        for key in _order(configs):
            _walk(configs[key], values[key], what, take, f"{at}{key}.")
        return
    if not isinstance(values, (list, tuple)) or len(values) != len(configs):
        raise InputError(
            "unknown-feature",
            f"`{what}` must be a sequence of {len(configs)} features{place}. Received:"
            f" {type(values).__name__}. Pass the structure of the configuration.",
        )
    for i, (config, value) in enumerate(zip(configs, values, strict=True)):
        _walk(config, value, what, take, f"{at}{i}.")


def _order(configs: Mapping[Any, Any]) -> list[Any]:
    """Keys in the order in which `keras.tree.flatten` visits them."""
    marks = keras.tree.pack_sequence_as(
        dict.fromkeys(configs, 0), list(range(len(configs)))
    )
    return sorted(configs, key=lambda key: marks[key])


def to_config(plan: Plan) -> dict[str, Any]:
    """The configuration as plain values; shared tables are stored once."""
    indices = {id(table): i for i, table in enumerate(plan.configs)}

    def serialize(config: Any) -> dict[str, Any]:
        return {**config.get_config(), "table": indices[id(config.table)]}

    return {
        "feature_configs": keras.tree.map_structure(serialize, plan.feature_configs),
        "tables": [table.get_config() for table in plan.configs],
    }


def from_config(feature_configs: Any, tables: Sequence[dict[str, Any]]) -> Any:
    """The nested `FeatureConfig`s of `to_config`, or of KerasRS's `get_config`."""
    shared = [TableConfig.from_config(table) for table in tables]

    def restore(node: Any) -> Any:
        if isinstance(node, Mapping):
            if isinstance(node.get("name"), str) and "input_shape" in node:
                table = shared[node["table"]]
                return FeatureConfig.from_config({**node, "table": table})
            return {key: restore(value) for key, value in node.items()}
        kind = tuple if isinstance(node, tuple) else list
        return kind(restore(value) for value in node)

    return restore(feature_configs)

"""The state of a layer of tables in a file: tables, position, waiting gradients.

The store of a layer, a mapping from names to arrays, has

- `tables`: JSON in uint8: for every table its name, rule, progress and arrays, and the
  name and SHA-256 of its file unless its arrays are in the store too;
- `<i>.<array>`: the arrays of table i, if it has no file; bfloat16 bits as uint16;
- `handle`: the handle of the host tables without their name, counted from 1.0;
- `waiting.<j>.<array>`: gradients that wait for gradient accumulation or loss scaling.

Knows layers, tables and stores; knows nothing of where Keras keeps a store.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from shortlist.embeddings.host.handles import to_handle, to_ticket
from shortlist.embeddings.host.host_tables import Snapshot, Waiting
from shortlist.embeddings.specs import TableSpec
from shortlist.embeddings.storage.table_files import (
    TableFile,
    TableProgress,
    arrays_of,
    check_layout,
    layout,
    restore,
    unreadable,
)
from shortlist.embeddings.table import Bags, Gradients, Table
from shortlist.errors import ArtifactError

Write = Callable[[Table], tuple[str, str]]

_SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}\.safetensors")
# Handles of a long training are counted from the start again when it is loaded.
_MANY_TICKETS = 2**29


class _TableEntry(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    kind: str
    progress: dict[str, Any]
    arrays: dict[str, str]
    file: str | None = None
    sha256: str | None = None


class _BagsEntry(msgspec.Struct, forbid_unknown_fields=True):
    table: str
    combiner: str


class _WaitingEntry(msgspec.Struct, forbid_unknown_fields=True):
    ticket: int
    loss_scale: float
    learning_rates: list[float]
    features: list[_BagsEntry] | None


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    issued: int
    tables: list[_TableEntry]
    waiting: list[_WaitingEntry]
    # Name of the saved tables if gradients wait: the accumulators of an optimizer
    # contain their handles. Older files have none.
    name: int = 0


def save(layer: Any, store: Any, write: Write | None) -> None:
    """Puts the tables of a layer, after `sync`, into its store.

    Args:
        layer: a built `DistributedEmbedding`.
        store: takes arrays by name.
        write: writes a table to a file and returns its name and SHA-256; `None` to put
            the arrays into the store.
    """
    host = layer.host_tables
    tables = list(host.tables) if host is not None else []
    tables += _from_device(layer)
    entries = []
    for number, table in enumerate(tables):
        entry = _describe(table)
        if write is not None:
            entry.file, entry.sha256 = write(table)
        else:
            for name, array in arrays_of(table).items():
                store[f"{number}.{name}"] = array
        entries.append(entry)
    snapshot = Snapshot() if host is None else host.snapshot()
    if host is not None:
        store["handle"] = np.asarray(to_handle(snapshot.applied))
    state = _Entry(
        version=1,
        issued=snapshot.issued,
        tables=entries,
        waiting=[
            _save_waiting(one, tables, store, f"waiting.{number}")
            for number, one in enumerate(snapshot.waiting)
        ],
        name=snapshot.name if snapshot.waiting else 0,
    )
    text = json.dumps(msgspec.to_builtins(state)).encode()
    store["tables"] = np.frombuffer(text, np.uint8)


def load(layer: Any, store: Any, folder: Path | None) -> Loaded:
    """Checks what `save` put into a store, and all files, against a layer.

    Args:
        layer: a `DistributedEmbedding`; built here if it is not, else unchanged.
        store: gives arrays by name.
        folder: where the files are; `None` if there can be none.

    Returns: the checked tables, to be committed and closed.

    Raises:
        ArtifactError: `checkpoint-unreadable` or `checkpoint-mismatch`.
        ResourceError: `out-of-memory` or `no-permission`.
    """
    if not layer.built:
        layer.build()
    state = _parse(layer, store)
    specs = layer.plan.tables
    host = layer.host_tables
    targets = {table.name: table for table in (host.tables if host else ())}
    targets |= {spec.name: spec.allocate() for spec in specs["device"]}
    stored = {entry.name: (i, entry) for i, entry in enumerate(state.tables)}
    if set(stored) != set(targets) or len(stored) != len(state.tables):
        raise ArtifactError(
            "checkpoint-mismatch",
            f"The checkpoint has tables {sorted(stored)}, but layer {layer.name!r} has"
            f" {sorted(targets)}. Build the layer with the configuration it was saved"
            " with. Nothing was loaded.",
        )
    loaded = Loaded(layer, [targets[spec.name] for spec in specs["device"]])
    try:
        for name, table in targets.items():
            number, entry = stored[name]
            if entry.file is None:
                loaded.arrays.append(_from_store(table, number, entry, store))
            else:
                path = _path(layer, entry.file, folder)
                loaded.files.append(TableFile(path, table, entry.sha256 or ""))
        _check_device_steps(loaded)
        loaded.snapshot = _load_snapshot(loaded, state, store)
    except BaseException:
        loaded.close()
        raise
    return loaded


@dataclass(eq=False)
class Loaded:
    """Checked tables of a checkpoint, ready to be written into the layer."""

    layer: Any
    device: list[Table]
    files: list[TableFile] = field(default_factory=list)
    arrays: list[tuple[Table, dict[str, np.ndarray], TableProgress]] = field(
        default_factory=list
    )
    snapshot: Snapshot = field(default_factory=Snapshot)

    def __enter__(self) -> Loaded:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files."""
        for file in self.files:
            file.close()

    def commit(self) -> None:
        """Overwrites the tables of the layer, and then its handle."""
        device, self.device = self.device, []
        host = self.layer.host_tables
        # Reading those for the device changes no table yet, so it comes first.
        for tables in (device, [] if host is None else host.tables):
            for file in self.files:
                if file.table in tables:
                    file.read()
            for table, arrays, progress in self.arrays:
                if table in tables:
                    _set(table, arrays, progress)
            if device and tables is device:
                self.layer.device_tables.load(
                    {
                        table.name: {**arrays_of(table), "step": np.array(table.step)}
                        for table in device
                    }
                )
        self.layer.restore_host_tables(self.snapshot)


def _set(table: Table, arrays: dict[str, np.ndarray], progress: TableProgress) -> None:
    for name, target in {"rows": table.rows, **table.slots}.items():
        target[...] = arrays[name]
    restore(table, progress, arrays.get("moves"))


def _describe(table: Table) -> _TableEntry:
    return _TableEntry(
        name=table.name,
        kind=table.rule.kind,
        progress=msgspec.to_builtins(TableProgress.of(table)),
        arrays=layout(arrays_of(table), is_bfloat16=table.row_type == "bfloat16"),
    )


def _parse(layer: Any, store: Any) -> _Entry:
    if "tables" not in store:
        raise ArtifactError(
            "checkpoint-mismatch",
            f"The checkpoint has no tables for layer {layer.name!r}: it is of another"
            " model. Load a checkpoint of this model. Nothing was loaded.",
        )
    try:
        text = np.asarray(store["tables"], np.uint8).tobytes()
        return msgspec.convert(json.loads(text), _Entry)
    except (ValueError, msgspec.ValidationError) as error:
        raise unreadable(None, f"the list of tables is damaged: {error}") from error


def _path(layer: Any, name: str, folder: Path | None) -> Path:
    if folder is None:
        raise unreadable(
            None,
            f"the tables of layer {layer.name!r} are in files, which Keras alone does"
            " not find: use shortlist.embeddings.load_model or load_weights",
        )
    if not _SAFE_NAME.fullmatch(name):
        raise unreadable(folder, f"{name!r} is not the name of a file in the folder")
    return folder / name


def _from_store(
    table: Table, number: int, entry: _TableEntry, store: Any
) -> tuple[Table, dict[str, np.ndarray], TableProgress]:
    try:
        progress = TableProgress.parse(entry.progress)
        arrays = {name: np.asarray(store[f"{number}.{name}"]) for name in entry.arrays}
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise unreadable(None, f"table {table.name!r} is damaged: {error!r}") from error
    bits = entry.arrays.get("rows", "").startswith("BF16")
    if bits and arrays["rows"].dtype != np.uint16:
        raise unreadable(None, f"rows of {table.name!r} are not bfloat16 bits")
    found = layout(arrays, is_bfloat16=bits)
    check_layout(None, table, entry.kind, found, progress.step)
    return table, arrays, progress


def _check_device_steps(loaded: Loaded) -> None:
    """Raises unless the tables for a device have taken the same number of steps."""
    progress = [(file.table, file.progress) for file in loaded.files]
    progress += [(table, progress) for table, _, progress in loaded.arrays]
    steps = {
        one.step
        for table, one in progress
        if table in loaded.device and table.trainable
    }
    if len(steps) > 1:
        raise ArtifactError(
            "checkpoint-mismatch",
            "Tables on a device must have taken the same number of steps. Those of the"
            f" checkpoint for layer {loaded.layer.name!r} have taken {sorted(steps)}."
            ' Load it with placement="host". Nothing was loaded.',
        )


def _load_snapshot(loaded: Loaded, state: _Entry, store: Any) -> Snapshot:
    """The position of the host tables, and the gradients that wait."""
    host = loaded.layer.host_tables
    if host is None or "handle" not in store:  # saved from a device
        return Snapshot()
    applied = to_ticket(np.asarray(store["handle"], np.float32))
    in_order = 0 <= applied <= state.issued < 2**30
    if not in_order or not 0 <= state.name < 2**30:
        raise unreadable(None, "its handle is damaged")
    try:
        waiting = tuple(
            _load_waiting(entry, host.tables, store, f"waiting.{number}")
            for number, entry in enumerate(state.waiting)
        )
    except (KeyError, ValueError, OSError) as error:
        raise unreadable(None, f"waiting gradients are damaged: {error!r}") from error
    if not waiting and applied > _MANY_TICKETS:
        return Snapshot(name=state.name)
    return Snapshot(applied, state.issued, waiting, state.name)


def _save_waiting(
    one: Waiting, tables: Sequence[Table], store: Any, key: str
) -> _WaitingEntry:
    features = None
    if one.gradients is not None:
        features = []
        pairs = zip(one.gradients.features, one.gradients.gradients, strict=True)
        for i, (bags, gradient) in enumerate(pairs):
            features.append(_BagsEntry(tables[bags.table].name, bags.combiner))
            store[f"{key}.{i}.ids"] = bags.ids
            store[f"{key}.{i}.gradient"] = gradient
            if bags.offsets is not None:
                store[f"{key}.{i}.offsets"] = bags.offsets
            if bags.weights is not None:
                store[f"{key}.{i}.weights"] = bags.weights
    return _WaitingEntry(one.ticket, one.loss_scale, list(one.learning_rates), features)


def _load_waiting(
    entry: _WaitingEntry, tables: Sequence[Table], store: Any, key: str
) -> Waiting:
    names = [table.name for table in tables]
    gradients = None
    if entry.features is not None:
        bags, arrays = [], []
        for i, feature in enumerate(entry.features):
            place = f"{key}.{i}"
            one = Bags(
                table=names.index(feature.table),
                ids=np.asarray(store[f"{place}.ids"]),
                offsets=_optional(store, f"{place}.offsets"),
                weights=_optional(store, f"{place}.weights"),
                combiner=feature.combiner,  # type: ignore[arg-type]
            )
            array = np.asarray(store[f"{place}.gradient"], np.float32)
            if array.shape != (one.num_bags, tables[one.table].dim):
                raise ValueError(f"gradient of shape {array.shape}")
            bags.append(one)
            arrays.append(array)
        if len(entry.learning_rates) != len(tables):
            raise ValueError(f"{len(entry.learning_rates)} learning rates")
        gradients = Gradients(features=tuple(bags), gradients=tuple(arrays))
    return Waiting(
        entry.ticket, gradients, entry.loss_scale, tuple(entry.learning_rates)
    )


def _optional(store: Any, key: str) -> np.ndarray | None:
    return np.asarray(store[key]) if key in store else None


def _from_device(layer: Any) -> list[Table]:
    """Copies of the tables on the device, as host tables."""
    if layer.device_tables is None:
        return []
    state = layer.device_tables.state()
    tables = []
    for spec in layer.plan.tables["device"]:
        table, arrays = spec.allocate(), state[spec.name]
        for name, target in {"rows": table.rows, **table.slots}.items():
            if name in arrays:  # a table that is not trained has no slots there
                target[...] = arrays[name]
        step = int(arrays["step"])
        rate = _last_rate(spec, step)
        restore(
            table, TableProgress(step=step, last_rate=rate, seed=0), arrays.get("moves")
        )
        tables.append(table)
    return tables


def _last_rate(spec: TableSpec, step: int) -> float:
    """`Table.last_rate` after `step` updates."""
    rule = spec.rule
    if not rule.remembers_steps or not step:
        return 0.0
    rate = rule.learning_rate
    if spec.schedule is not None:
        rate = float(spec.schedule(step - 1))
    return float(rate * (1 - rule.beta_2**step) ** 0.5 / (1 - rule.beta_1**step))

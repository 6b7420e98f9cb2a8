"""Models with tables on disk: what Keras stores, and one file per table beside it.

`m.keras` (or `m.weights.h5`) is as Keras writes it; `m.keras.tables/` has one
safetensors file per table, which the Keras file names together with its SHA-256. New
tables are written first, then the Keras file replaces the old one, then tables that it
no longer names are removed. So a save that fails leaves the old model.

Plain Keras (`model.save`, `model.save_weights`, `pickle`, `copy.deepcopy`) works too:
then tables and state are inside the Keras file, and saving and loading need memory for
two or three copies of them.

Tables are stored by name and not by placement: a model trained on a device can be
loaded on a machine without one. Only the state of the model's own optimizer does not
match then; Keras warns and starts with a fresh one.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from shortlist.atomic import atomic_file
from shortlist.embeddings.layer import DistributedEmbedding
from shortlist.embeddings.storage.session import Session, current
from shortlist.embeddings.storage.table_files import unreadable
from shortlist.errors import InputError, ShortlistError

Model = Any  # keras.Model, which ships no types


def save_model(model: Model, path: str | Path) -> None:
    """Writes a model to a `.keras` file and its tables to a folder beside it.

    Memory use does not depend on the size of host tables.

    Args:
        model: a built Keras model.
        path: ends in `.keras`; an existing model is replaced once the new one is
            complete.

    Raises:
        InputError: `invalid-argument` or `output-path`.
        ResourceError: `no-space`, `read-only` or `no-permission`; the model that was
            at `path` is still there.
        ShortlistError: an error of an earlier compiled step.
    """
    _check_built(model)
    with _writing(path, ".keras") as target:
        keras.saving.save_model(model, target)


def save_weights(model: Model, path: str | Path) -> None:
    """As `save_model`, without the configuration: to a `.weights.h5` file.

    The state of the model's optimizer is stored, as Keras does.

    Args:
        model: a built Keras model.
        path: ends in `.weights.h5`.

    Raises:
        InputError, ResourceError, ShortlistError: as `save_model`.
    """
    _check_built(model)
    with _writing(path, ".weights.h5") as target:
        model.save_weights(target)


def load_model(path: str | Path, custom_objects: Any = None) -> Model:
    """The model at `path`, written by `save_model` or by Keras itself.

    Training continues as if it had not been interrupted. Runs no more code, and reads
    no more pickle, than `keras.saving.load_model` in its safe mode.

    Args:
        path: ends in `.keras`; its folder of tables must be beside it.
        custom_objects: classes and functions by name, for Keras.

    Raises:
        ArtifactError: `checkpoint-unreadable` or `checkpoint-mismatch`.
        ResourceError: `out-of-memory` or `no-permission`.
    """
    with _reading(path):
        return keras.saving.load_model(path, custom_objects=custom_objects)


def load_weights(
    model: Model, path: str | Path, *, keep_optimizer: bool = False
) -> None:
    """Sets the weights of a model to those at `path`: all of them, or none.

    Everything is checked before the first table is written. Needs memory for a second
    copy of the dense weights.

    Args:
        model: a built model of the same configuration.
        path: what `save_weights`, `save_model` or Keras wrote.
        keep_optimizer: leave the state of the model's optimizer as it is. Optimizers
            of tables belong to the tables, and are always loaded.

    Raises:
        InputError: `invalid-argument`: the model is not built.
        ArtifactError: `checkpoint-unreadable` or `checkpoint-mismatch`; the model is
            unchanged and can be trained further.
        ResourceError: `no-permission`.
    """
    _check_built(model)
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not optimizer.built and not keep_optimizer:
        optimizer.build(model.trainable_variables)  # Keras skips it otherwise
    optimizer_weights = [] if optimizer is None else list(optimizer.variables)
    in_tables = {id(v) for layer in table_layers(model) for v in layer.variables}
    weights = [v for v in model.variables if id(v) not in in_tables]
    weights += optimizer_weights
    before = [
        (v, keras.ops.stop_gradient(keras.ops.copy(v.value)))
        for v in {id(v): v for v in weights}.values()
    ]
    kept = {id(v) for v in optimizer_weights} if keep_optimizer else set()
    try:
        with _reading(path), warnings.catch_warnings():
            if keep_optimizer:
                warnings.filterwarnings("ignore", "Skipping variable loading for opt")
            model.load_weights(path)
    except BaseException:
        kept = {id(v) for v, _ in before}
        raise
    finally:
        for variable, value in before:
            if id(variable) in kept:
                variable.assign(value)


def table_layers(model: Model) -> list[DistributedEmbedding]:
    """All `DistributedEmbedding` layers of a model, at any depth."""
    layers = {
        id(layer): layer
        for layer in model._flatten_layers()
        if isinstance(layer, DistributedEmbedding)
    }
    return list(layers.values())


def _check_built(model: Model) -> None:
    if not model.built:
        raise InputError(
            "invalid-argument",
            "A model must be built before its weights are saved or loaded. Received:"
            f" {model.name!r}, not built. Call it on a batch, or call its build().",
        )


@contextlib.contextmanager
def _writing(path: str | Path, suffix: str) -> Iterator[Path]:
    """Yields the path for Keras to write to; the file then replaces `path`."""
    path = Path(path)
    if not path.name.endswith(suffix):
        raise InputError(
            "invalid-argument",
            f"The path must end in {suffix!r}. Received: {str(path)!r}. Change its"
            " ending.",
        )
    session = Session(_folder(path))
    token = current.set(session)
    try:
        with atomic_file(path) as temporary:
            # Keras looks at the ending, which a temporary file does not have.
            with tempfile.TemporaryDirectory(
                prefix=f".{path.name}.", dir=path.parent
            ) as scratch:
                target = Path(scratch) / path.name
                yield target
                os.replace(target, temporary)
    except BaseException:
        session.discard()
        raise
    finally:
        current.reset(token)
    session.remove_others()


@contextlib.contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    """Lets Keras read; tables are checked as it does, and overwritten at the end."""
    session = Session(_folder(Path(path)))
    token = current.set(session)
    try:
        yield
        if session.errors:
            raise session.errors[0]
        for loaded in session.loaded:
            loaded.commit()
    except ShortlistError:
        raise
    except Exception as error:
        raise session.cause_of(error) or unreadable(path, str(error)) from error
    finally:
        current.reset(token)
        for loaded in session.loaded:
            loaded.close()


def _folder(path: Path) -> Path:
    return path.with_name(f"{path.name}.tables")

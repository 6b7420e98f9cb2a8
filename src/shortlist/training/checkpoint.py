"""A trained model on disk: its configuration as JSON, its weights as safetensors.

No code and no pickle is stored. The class that reads a checkpoint is named by the
caller, never by the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import keras
import msgspec
import numpy as np
import safetensors
import safetensors.numpy

from shortlist.atomic import atomic_directory
from shortlist.errors import ArtifactError

Model = TypeVar("Model", bound=keras.Model)


def save_model(path: str | Path, model: keras.Model) -> None:
    """Writes `model.json` and `weights.safetensors`, whole or not at all."""
    with atomic_directory(path, overwrite=True) as folder:
        config = msgspec.json.encode(model.get_config())
        (folder / "model.json").write_bytes(msgspec.json.format(config, indent=2))
        safetensors.numpy.save_file(_weights(model), folder / "weights.safetensors")


def load_model(path: str | Path, model_class: type[Model]) -> Model:
    """Builds a `model_class` from a checkpoint.

    Raises:
        ArtifactError: the checkpoint is missing, damaged or of another model.
    """
    path = Path(path)
    try:
        config = msgspec.json.decode((path / "model.json").read_bytes())
        model: Model = model_class.from_config(config)
        model.build()
        stored = safetensors.numpy.load_file(path / "weights.safetensors")
        _assign(model, stored)
    except (
        OSError,
        msgspec.MsgspecError,
        safetensors.SafetensorError,
        TypeError,
        ValueError,
    ) as error:
        raise ArtifactError(
            "checkpoint-unreadable",
            f"A checkpoint of {model_class.__name__} must be at {str(path)!r}. Reading"
            f" it failed: {error}. Train again.",
            file=path,
        ) from error
    return model


def _weights(model: keras.Model) -> dict[str, np.ndarray]:
    """Weights by position and path: the position keeps equal paths apart."""
    return {
        f"{number:04d}/{weight.path}": np.ascontiguousarray(
            keras.ops.convert_to_numpy(weight.value)
        )
        for number, weight in enumerate(model.weights)
    }


def _assign(model: keras.Model, stored: dict[str, Any]) -> None:
    expected = {name: value.shape for name, value in _weights(model).items()}
    found = {name: value.shape for name, value in stored.items()}
    # Names hold Keras's automatic numbering: positions and shapes are what counts.
    if list(expected.values()) != [found[name] for name in sorted(found)]:
        raise ValueError(f"weights have shapes {found}, the model has {expected}")
    for weight, name in zip(model.weights, sorted(stored), strict=True):
        weight.assign(stored[name])

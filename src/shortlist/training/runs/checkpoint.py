"""A trained model on disk: its configuration, its weights and its tables.

`model.json` is plain JSON, `model.weights.h5` the dense weights as Keras writes them,
and `model.weights.h5.tables/` one safetensors file per embedding table with the state
of its optimizer. No code and no pickle is stored: the class that reads a checkpoint is
chosen by the caller, never by the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import keras
import msgspec

from shortlist.atomic import atomic_directory
from shortlist.data.store.checksums import files_in, place_problem
from shortlist.embeddings.storage.saving import load_weights, save_weights
from shortlist.errors import ArtifactError
from shortlist.outputs import CHECKPOINT
from shortlist.training.keras_imports import without_tensorflow

Model = TypeVar("Model", bound=keras.Model)

CONFIG_FILE = "model.json"
WEIGHTS_FILE = "model.weights.h5"


@without_tensorflow()
def save_model(path: str | Path, model: keras.Model) -> None:
    """Writes a checkpoint atomically."""
    with atomic_directory(path, overwrite=True, kind=CHECKPOINT) as folder:
        config = msgspec.json.encode(model.get_config())
        (folder / CONFIG_FILE).write_bytes(msgspec.json.format(config, indent=2))
        save_weights(model, folder / WEIGHTS_FILE)


@without_tensorflow()
def load_model(path: str | Path, model_class: type[Model]) -> Model:
    """Builds a `model_class` from a checkpoint.

    Raises:
        ArtifactError: the checkpoint is missing, damaged or of another model.
    """
    path = Path(path)
    try:
        for name in files_in(path):
            if problem := place_problem(path, name, None):
                raise OSError(f"{name}: {problem}")
        config = msgspec.json.decode((path / CONFIG_FILE).read_bytes())
        model: Model = model_class.from_config(config)
        model.build()
        load_weights(model, path / WEIGHTS_FILE)
    except (
        OSError,
        msgspec.MsgspecError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise ArtifactError(
            "checkpoint-unreadable",
            f"The checkpoint of {model_class.__name__} at {str(path)!r} cannot be read:"
            f" {error}. Train again.",
            file=path,
        ) from error
    return model

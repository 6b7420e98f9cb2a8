"""The functions of Keras that `callers` and `rates` look for on the stack exist."""

from __future__ import annotations

import ast
from pathlib import Path

import keras
import pytest

from shortlist.embeddings import callers, rates
from shortlist.embeddings.ids import truncated

LOOKED_FOR = sorted(
    {
        (module, function)
        for functions in (
            callers._READERS,
            callers._SYNC,
            callers._WRITERS,
            callers._SETTERS,
        )
        for module, names in functions.items()
        for function in names
    }
)


def source_of(module: str) -> str:
    """The text of a module of Keras; nothing is imported, so any backend will do."""
    parts = module.split(".")
    assert parts[0] == "keras"
    place = Path(keras.__file__).parent.joinpath(*parts[1:])
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return file.read_text()


def functions_of(module: str) -> dict[str, ast.FunctionDef]:
    """All functions and methods of a module, by name; the outer one of two."""
    nodes = reversed(list(ast.walk(ast.parse(source_of(module)))))
    return {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}


def names_in(function: ast.FunctionDef) -> set[str]:
    """The arguments and local variables of a function."""
    nodes = list(ast.walk(function))
    stored = {
        node.id
        for node in nodes
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    return stored | {node.arg for node in nodes if isinstance(node, ast.arg)}


@pytest.mark.parametrize(("module", "function"), LOOKED_FOR)
def test_keras_still_has_the_function(module: str, function: str) -> None:
    names = functions_of(module)
    assert names
    assert not function or function in names, f"{module} has no {function}"


def test_the_jax_trainer_writes_its_state_back_with_this_function() -> None:
    assert ("keras.src.backend.jax.trainer", "jax_state_sync") in LOOKED_FOR
    from keras.src.backend.jax import trainer

    assert callable(trainer.JAXTrainer.jax_state_sync)


def test_keras_still_has_the_local_names_that_are_read() -> None:
    """`remove_begun_file` needs them to remove a legacy file."""
    module = "keras.src.legacy.saving.legacy_h5_format"
    function = functions_of(module)["save_model_to_hdf5"]
    assert {"opened_new_file", "filepath"} <= names_in(function)


@pytest.mark.parametrize("module", rates._TRAINERS)
def test_the_trainers_run_the_steps(module: str) -> None:
    assert "train_step" in functions_of(module) or "compile" in functions_of(module)


def test_keras_still_has_the_names_by_which_truncated_ids_are_found() -> None:
    functions = functions_of(truncated.TRAINER)
    for name in (*truncated.CALLS, *truncated.BATCH_CALLS):
        assert {"self", "x"} <= names_in(functions[name])
    for name in truncated.CALLS:
        assert "epoch_iterator" in names_in(functions[name])
    for name in truncated.STEPS:
        assert {"self", "data"} <= names_in(functions[name])
    assert truncated.SYNC in functions
    adapters = "keras.src.trainers.data_adapters.array_data_adapter"
    assert "self._inputs = inputs" in source_of(adapters)
    assert "self.data_adapter =" in source_of("keras.src.trainers.epoch_iterator")

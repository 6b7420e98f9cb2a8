"""Which Keras backend is chosen, and whose choice stands."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from shortlist.backend import BACKENDS, choose_backend


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a process that has not chosen yet, of a user without any settings."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "keras", raising=False)


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: name if name in names else None
    )


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [
        (("torch", "tensorflow", "jax"), "jax"),
        (("torch", "tensorflow"), "tensorflow"),
        (("torch",), "torch"),
    ],
)
def test_first_installed_backend_is_chosen(monkeypatch, installed, chosen):
    install(monkeypatch, *installed)
    assert choose_backend() == chosen
    assert os.environ["KERAS_BACKEND"] == chosen
    assert choose_backend() == chosen


def test_without_a_backend_nothing_is_set(monkeypatch):
    install(monkeypatch)
    assert choose_backend() is None
    assert "KERAS_BACKEND" not in os.environ


@pytest.mark.parametrize("name", [*BACKENDS, "openvino"])
def test_choice_in_the_environment_stands(monkeypatch, name):
    install(monkeypatch, *BACKENDS)
    monkeypatch.setenv("KERAS_BACKEND", name)
    assert choose_backend() == name
    assert os.environ["KERAS_BACKEND"] == name


def test_loaded_keras_is_left_alone(monkeypatch):
    install(monkeypatch, *BACKENDS)
    keras = SimpleNamespace(config=SimpleNamespace(backend=lambda: "torch"))
    monkeypatch.setitem(sys.modules, "keras", keras)
    assert choose_backend() == "torch"
    assert "KERAS_BACKEND" not in os.environ


@pytest.mark.parametrize("place", ["home", "KERAS_HOME"])
def test_choice_in_the_configuration_of_keras_stands(monkeypatch, tmp_path, place):
    install(monkeypatch, *BACKENDS)
    folder = configure(tmp_path / (".keras" if place == "home" else "elsewhere"))
    if place == "KERAS_HOME":
        assert choose_backend() == "jax"  # the file lies where nobody looks
        monkeypatch.delenv("KERAS_BACKEND")
        monkeypatch.setenv("KERAS_HOME", str(folder))
    assert choose_backend() == "torch"


def test_configured_backend_that_is_not_installed_is_passed_over(monkeypatch, tmp_path):
    install(monkeypatch, "tensorflow")
    configure(tmp_path / ".keras", "torch")
    assert choose_backend() == "tensorflow"


def test_default_that_keras_wrote_itself_is_no_choice(monkeypatch, tmp_path):
    install(monkeypatch, *BACKENDS)
    configure(tmp_path / ".keras", "tensorflow")
    assert choose_backend() == "jax"


@pytest.mark.parametrize("text", ["", "{}", "[]", "{"])
def test_damaged_configuration_is_passed_over(monkeypatch, tmp_path, text):
    install(monkeypatch, "jax")
    (configure(tmp_path / ".keras") / "keras.json").write_text(text)
    assert choose_backend() == "jax"


def configure(folder: Path, backend: str = "torch") -> Path:
    folder.mkdir()
    (folder / "keras.json").write_text(json.dumps({"backend": backend}))
    return folder

"""Which Keras backend is chosen, and whose choice stands."""

from __future__ import annotations

import importlib.util
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


def test_loaded_keras_has_chosen_already(monkeypatch):
    install(monkeypatch, *BACKENDS)
    loaded = SimpleNamespace(config=SimpleNamespace(backend=lambda: "torch"))
    monkeypatch.setitem(sys.modules, "keras", loaded)
    assert choose_backend() == "torch"
    assert "KERAS_BACKEND" not in os.environ


def write_settings(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "keras.json").write_text(text)


@pytest.mark.parametrize("place", ["home", "KERAS_HOME", "KERAS_HOME below home"])
def test_choice_in_the_configuration_of_keras_stands(monkeypatch, tmp_path, place):
    install(monkeypatch, *BACKENDS)
    folder = tmp_path / (".keras" if place == "home" else "elsewhere")
    write_settings(folder, '{"backend": "torch"}')
    if place != "home":
        assert choose_backend() == "jax"  # the file lies where nobody looks
        monkeypatch.delenv("KERAS_BACKEND")
        below = place.endswith("home")
        monkeypatch.setenv("KERAS_HOME", "~/elsewhere" if below else str(folder))
    assert choose_backend() == "torch"
    assert os.environ["KERAS_BACKEND"] == "torch"


@pytest.mark.parametrize(
    "text",
    [
        '{"backend": "tensorflow"}',  # what Keras writes by itself
        '{"backend": "openvino"}',
        '{"floatx": "float32"}',
        "[]",
        "{",
        "",
    ],
)
def test_configuration_without_a_usable_choice_is_passed_over(
    monkeypatch, tmp_path, text
):
    install(monkeypatch, "torch", "tensorflow")
    write_settings(tmp_path / ".keras", text)
    assert choose_backend() == "tensorflow"
    monkeypatch.delenv("KERAS_BACKEND")
    install(monkeypatch, "torch")
    assert choose_backend() == "torch"


def test_user_without_a_home_has_no_configuration(monkeypatch):
    install(monkeypatch, "jax")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert choose_backend() == "jax"

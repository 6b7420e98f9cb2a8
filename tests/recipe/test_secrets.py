"""No password or key of an address can be read in what is printed or written."""

from __future__ import annotations

import pytest

from shortlist.cli.recipe_toml import recipe_toml
from shortlist.errors import RecipeError
from shortlist.recipe import Recipe, build_recipe, load_recipe
from shortlist.recipe.secrets import redacted

COLUMNS = {"user_id": "user", "item_id": "item"}
SECRET = "hunter2-pw"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (f"http://ann:{SECRET}@host:5000/path", "http://***@host:5000/path"),
        (f"https://{SECRET}@host", "https://***@host"),
        (f"https://:{SECRET}@host", "https://***@host"),
        (f"http://ann:a@b/{SECRET}@host/x", "http://***@host/x"),
        (f"postgresql+psycopg2://ann:{SECRET}@db/x", "postgresql+psycopg2://***@db/x"),
        (f"https://host/x?token={SECRET}&a=1#top", "https://host/x?token=***&a=***"),
        (f"https://host/?X-Sig={SECRET}", "https://host/?X-Sig=***"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////home/ann@work/mlflow.db", "sqlite:////home/ann@work/mlflow.db"),
        ("databricks", "databricks"),
        ("runs/mlflow.db", "runs/mlflow.db"),
    ],
)
def test_addresses_lose_their_secrets_and_nothing_else(address, expected):
    assert redacted(address).startswith(expected)
    assert SECRET not in redacted(address)
    message = f"Cannot reach {address!r}: no answer. Is it up?"
    hidden = redacted(message)
    assert SECRET not in hidden
    assert hidden.startswith("Cannot reach ") and hidden.endswith(
        "no answer. Is it up?"
    )


@pytest.mark.parametrize(
    ("address", "secrets"),
    [
        ("http://ann:s3cr%40t@host", ["s3cr%40t", "s3cr@t", "YW5uOnMzY3JAdA=="]),
        ("https://tok3n-abc@host", ["tok3n-abc"]),
        ("https://host?key=k3y-abc&secret=s3c%2Fret", ["k3y-abc", "s3c/ret"]),
    ],
)
def test_secrets_of_an_address_are_hidden_wherever_they_stand(address, secrets):
    for secret in secrets:
        message = f"401 for header {secret}, twice: {secret}"
        assert redacted(message, address) == "401 for header ***, twice: ***"


@pytest.mark.parametrize("name", ["WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD"])
def test_keys_of_the_environment_are_hidden(monkeypatch, name):
    monkeypatch.setenv(name, "0123456789abcdef")
    assert redacted("no such key 0123456789abcdef", "") == "no such key ***"


def recipe(uri: str) -> Recipe:
    tracking = {"mlflow": uri}
    return build_recipe(
        {"log": {"events": "a"}, "columns": COLUMNS, "tracking": tracking}
    )


def test_a_record_hides_what_the_recipe_keeps():
    uri = f"http://ann:{SECRET}@host"
    kept = recipe(uri)
    assert kept.tracking.mlflow == kept.to_builtins()["tracking"]["mlflow"] == uri
    assert kept.to_record()["tracking"]["mlflow"] == "http://***@host"
    assert SECRET not in recipe_toml(kept)
    plain = recipe("http://host")
    assert plain.to_record() == plain.to_builtins()


def test_messages_about_a_recipe_hide_secrets(tmp_path):
    uri = f"http://ann:{SECRET}@host"
    with pytest.raises(RecipeError) as caught:
        recipe([uri])  # type: ignore[arg-type]
    assert "tracking.mlflow" in str(caught.value)
    assert SECRET not in str(caught.value)
    file = tmp_path / "r.toml"
    file.write_text("[log]\nevents = 'a'\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, [uri])
    assert SECRET not in str(caught.value)

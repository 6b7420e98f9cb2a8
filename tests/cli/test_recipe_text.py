"""The recipe that `init` writes loads again as what was guessed, whatever the names."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.cli.recipe_text import write_recipe
from shortlist.data import Feature, LogFiles, Schema, guess_schema
from shortlist.data.guess.schema import Guess
from shortlist.data.schema import RESERVED
from shortlist.errors import InputError
from shortlist.public_data.synthetic import SyntheticLog, generate
from shortlist.recipe import (
    EvaluationSection,
    OutputSection,
    RankerSection,
    RetrievalSection,
    load_recipe,
)

# What breaks naive writers: quotes, escapes, comments, line ends, control characters.
ODD = st.one_of(
    st.text(min_size=1, max_size=8),
    st.text("\"'\\#=[]{}\n\r\t\x00\x1f\x7f\x85\u2028é😀 ab", min_size=1, max_size=8),
)
NAMES = ODD.filter(lambda name: name not in RESERVED | {"id"})
NUMBERS = st.floats(-1e9, 1e9)


@st.composite
def guesses(draw: st.DrawFn) -> Guess:
    names = draw(st.lists(NAMES, min_size=8, max_size=8, unique=True))
    features = tuple(
        Feature(
            name=name,
            owner=draw(st.sampled_from(["user", "item"])),
            kind=(
                kind := draw(
                    st.sampled_from(["categorical", "multi_valued", "numeric"])
                )
            ),
            vocabulary=draw(st.sampled_from(["", "shared", "a#b"])),
            separator=draw(ODD) if kind == "multi_valued" else "|",
        )
        for name in names[5 : draw(st.integers(5, 8))]
    )
    schema = Schema(
        user_id=names[0],
        item_id=names[1],
        timestamp=draw(st.sampled_from([None, names[2]])),
        label=draw(st.sampled_from([None, names[3]])),
        label_kind=draw(st.sampled_from(["explicit", "implicit", "binary"])),
        positive_from=draw(NUMBERS),
        label_min=draw(st.none() | NUMBERS),
        label_max=draw(st.none() | NUMBERS),
        title=draw(st.sampled_from([None, names[4]])),
        features=features,
    )
    decided = ["user_id", "label_kind", *names]
    reasons = draw(st.dictionaries(st.sampled_from(decided), ODD | st.just("")))
    return Guess(
        layout="csv",
        schema=schema,
        reasons=reasons,
        num_rows=9,
        users_id=draw(st.none() | ODD),
        items_id=draw(st.none() | ODD),
    )


def simple_guess(**fields: Any) -> Guess:
    schema = Schema(**{"user_id": "u", "item_id": "i", **fields})
    return Guess(layout="csv", schema=schema, reasons={}, num_rows=9)


def write(path: Path, guess: Guess, **options: Any) -> None:
    files = {"log": path.parent / "log.csv", "users": None, "items": None}
    write_recipe(path, guess, **{**files, **options})


def test_recipe_loads_again_as_what_was_guessed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")

    @settings(max_examples=100, deadline=None)
    @given(guesses(), ODD.filter(lambda n: n not in (".", "..")))
    def round_trip(guess, name):
        name = name.replace("/", "-").replace("\0", "-")
        path = folder / "shortlist.toml"
        users = folder / f"{name}.users"
        write_recipe(
            path, guess, log=folder / name, users=users, items=None, overwrite=True
        )
        recipe = load_recipe(path)
        assert recipe.columns == guess.schema
        assert recipe.columns.fingerprint() == guess.schema.fingerprint()
        assert recipe.log.layout == guess.layout
        assert recipe.log.events == name
        assert recipe.log.users == f"{name}.users"
        assert recipe.log.items is None and recipe.log.items_id is None
        assert recipe.log.users_id == guess.users_id
        assert recipe.retrieval == RetrievalSection()
        assert recipe.output == OutputSection()

    round_trip()


def test_guess_of_a_real_log_loads_again(tmp_path):
    log = generate(SyntheticLog(num_users=40, num_items=30, num_events=900, seed=2))
    for table in ("events", "users", "items"):
        log.write_csv(tmp_path / f"{table}.csv", table)
    paths = {name: tmp_path / f"{name}.csv" for name in ("events", "users", "items")}
    guess = guess_schema(
        LogFiles(paths["events"], users=paths["users"], items=paths["items"])
    )
    assert guess.schema.features, "the log has attributes to guess"
    write_recipe(
        tmp_path / "shortlist.toml",
        guess,
        log=paths["events"],
        users=paths["users"],
        items=paths["items"],
    )
    recipe = load_recipe(tmp_path / "shortlist.toml")
    assert recipe.columns == guess.schema
    assert recipe.ranker.objective == "explicit"
    assert (recipe.log.events, recipe.log.items_id) == ("events.csv", guess.items_id)
    text = (tmp_path / "shortlist.toml").read_text()
    for reason in guess.reasons.values():
        assert " ".join(reason.split()) in text


def test_every_setting_is_written_with_its_default(tmp_path):
    guess = dataclasses.replace(simple_guess(), events_per_user=100.0)
    write(tmp_path / "shortlist.toml", guess)
    written = tomllib.loads((tmp_path / "shortlist.toml").read_text())
    for name, section in (
        ("retrieval", RetrievalSection),
        ("ranker", RankerSection),
        ("evaluation", EvaluationSection),
        ("output", OutputSection),
    ):
        plain = {
            field: value
            for field, value in section().model_dump().items()
            if value is not None and not isinstance(value, dict)
        }
        assert written[name] == plain
    assert written["split"] == {"kind": "last_fraction", "test": 0.2, "validation": 0.1}
    assert (written["version"], written["seed"]) == (1, 0)


def test_short_histories_are_split_by_events_not_by_shares(tmp_path):
    guess = dataclasses.replace(simple_guess(), events_per_user=4.0)
    write(tmp_path / "shortlist.toml", guess)
    split = load_recipe(tmp_path / "shortlist.toml").split
    assert (split.kind, split.test, split.validation) == ("last_n", 1, 1)


@pytest.mark.parametrize(
    ("label_kind", "objective"),
    [("explicit", "explicit"), ("implicit", "binary"), ("binary", "binary")],
)
def test_objective_of_the_ranker_follows_the_label(tmp_path, label_kind, objective):
    guess = simple_guess(label="r", label_kind=label_kind)
    write(tmp_path / "shortlist.toml", guess)
    assert load_recipe(tmp_path / "shortlist.toml").ranker.objective == objective


def test_overrides_replace_defaults(tmp_path):
    overrides = {
        "recipe": {"name": 'a "shop"', "seed": 5},
        "retrieval": {"embedding_dim": 16, "hidden_units": [32]},
        "ranker": {"objective": "binary"},
        "evaluation": {"ks": [3]},
    }
    guess = simple_guess(label="r", label_kind="explicit")
    write(tmp_path / "shortlist.toml", guess, overrides=overrides)
    recipe = load_recipe(tmp_path / "shortlist.toml")
    assert (recipe.name, recipe.seed) == ('a "shop"', 5)
    assert recipe.retrieval == RetrievalSection(embedding_dim=16, hidden_units=[32])
    assert recipe.ranker.objective == "binary"
    assert recipe.evaluation.ks == [3]


def test_reasons_and_left_out_columns_stay_comments(tmp_path):
    guess = simple_guess()
    reasons = {
        "user_id": "line one\nseed = 99\x00\x7f",
    }
    columns = {"log": {"evil]\n[output]\nrun = 'x'\n": "Left out:\r\n  many texts."}}
    guess = Guess("csv", guess.schema, reasons, 9, columns=columns)
    write(tmp_path / "shortlist.toml", guess)
    text = (tmp_path / "shortlist.toml").read_text()
    assert 'user_id = "u"  # line one seed = 99\n' in text
    assert "# evil] [output] run = 'x' : Left out: many texts.\n" in text
    assert load_recipe(tmp_path / "shortlist.toml").output.run == "run"


def test_paths_below_the_recipe_are_relative_and_others_absolute(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    write_recipe(
        Path("shortlist.toml"),
        simple_guess(),
        log=Path("data/log.csv"),
        users=Path("../elsewhere/users.csv"),
        items=tmp_path / "project" / "items.csv",
    )
    log = load_recipe("shortlist.toml").log
    assert log.events == "data/log.csv"
    assert log.users == str(tmp_path / "elsewhere" / "users.csv")
    assert log.items == "items.csv"


def test_existing_recipe_is_kept_unless_overwritten(tmp_path):
    path = tmp_path / "shortlist.toml"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists already") as caught:
        write(path, simple_guess())
    assert caught.value.code == "output-exists"
    assert path.read_text() == "mine"
    write(path, simple_guess(), overwrite=True)
    assert load_recipe(path).columns.user_id == "u"
    assert os.listdir(tmp_path) == ["shortlist.toml"]


def test_directory_in_place_of_the_recipe_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="Choose another path") as caught:
        write(tmp_path / "empty", simple_guess())
    assert caught.value.code == "output-path"
    assert os.listdir(tmp_path) == ["empty"]

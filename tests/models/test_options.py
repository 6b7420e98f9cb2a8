"""A model is the same made from its options, from single ones and by the recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from shortlist.data import Schema
from shortlist.embeddings.inputs import model_inputs
from shortlist.errors import InputError
from shortlist.models import Head, MultiTask, Ranker, TwoTower
from shortlist.models.options import (
    AlsOptions,
    EaseOptions,
    MultiTaskOptions,
    RankerOptions,
    TwoTowerOptions,
)
from shortlist.models.scorers import Ease, ImplicitAls
from shortlist.models.scorers.storage import SCORERS
from shortlist.options import Options
from shortlist.recipe import RankerSection, RetrievalSection

pytestmark = pytest.mark.backend

SCHEMA = Schema(user_id="u", item_id="i")
INPUTS = model_inputs(SCHEMA, embedding_dim=4, feature_dim=3, history_length=0)
ROWS = {"user": 7, "item": 9}
HEADS = {"click": Head(objective="binary")}

DTYPE = {
    "module": "keras",
    "class_name": "DTypePolicy",
    "config": {"name": "float32"},
    "registered_name": None,
}
SHARED = {
    "name": "old",
    "trainable": True,
    "dtype": DTYPE,
    "inputs": [
        {"feature": f"{owner}_index", "kind": "categorical", "owner": owner}
        | {"table": owner, "dim": 4}
        for owner in ("user", "item")
    ],
    "table_rows": ROWS,
    "table_optimizer": "adam",
    "table_learning_rate": None,
}
OLD_TWO_TOWER = SHARED | {
    "hidden_units": [8],
    "user_layers": None,
    "item_layers": None,
    "loss": "bpr",
    "history": "mean",
    "embedding_dim": 6,
    "projection": "dense",
    "num_queries": 2,
    "num_blocks": 2,
    "num_heads": 1,
    "dropout": 0.25,
    "temperature": 0.1,
    "learned_temperature": False,
    "similarity": "dot",
    "item_bias": True,
    "margin": 1.0,
    "negatives": "mixed",
    "sampling_correction": False,
    "hard_negatives": None,
}
OLD_RANKER = SHARED | {
    "table_l2": 0.5,
    "objective": "listwise",
    "interaction": "dcn_low_rank",
    "hidden_units": [5],
    "cross_layers": 3,
    "low_rank_dim": None,
    "list_size": 3,
    "dropout": 0.0,
    "mean_label": 0.0,
}
OLD_MULTI_TASK = SHARED | {
    "table_l2": 0.0,
    "heads": {"click": {"objective": "binary", "weight": 2.0, "label": "positive"}},
    "bottom": "mmoe",
    "num_experts": 2,
    "hidden_units": [5],
    "tower_units": [4],
    "score": {"click": 0.5},
    "list_size": 4,
    "dropout": 0.0,
    "mean_label": 2.5,
}


@pytest.mark.parametrize(
    ("model_class", "config"),
    [(TwoTower, OLD_TWO_TOWER), (Ranker, OLD_RANKER), (MultiTask, OLD_MULTI_TASK)],
)
def test_configurations_of_older_versions_load(
    model_class: Any, config: dict[str, Any]
) -> None:
    model = model_class.from_config(config)
    found = msgspec.json.decode(msgspec.json.encode(model.get_config()))
    assert {**found, "hard_negatives": None} == {**config, "hard_negatives": None}
    assert found.get("hard_negatives", 0) == 0  # `None` in older versions


@pytest.mark.parametrize("kind", sorted(SCORERS))
def test_configurations_of_scorers_have_the_options_and_the_seed(kind: str) -> None:
    scorer = SCORERS[kind]()
    config = scorer.get_config()
    options = type(scorer.options)
    assert set(config) - {"seed"} == set(options.model_fields)
    again = SCORERS[kind](**config)
    assert (again.options, again.get_config()) == (scorer.options, config)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda *a, **k: TwoTower(INPUTS, ROWS, *a, **k), TwoTowerOptions),
        (lambda *a, **k: Ranker(INPUTS, ROWS, *a, **k), RankerOptions),
        (lambda *a, **k: MultiTask(INPUTS, ROWS, *a, heads=HEADS, **k), None),
        (Ease, EaseOptions),
        (ImplicitAls, AlsOptions),
    ],
)
def test_a_model_takes_its_options_or_single_ones(
    make: Callable[..., Any], options: type[Options] | None
) -> None:
    given = options or MultiTaskOptions
    name, value = ("factors", 3) if given is AlsOptions else ("dropout", 0.125)
    structure = given.of(None, {name: value})
    assert getattr(make(structure).options, name) == value
    assert make(structure).options == make(**{name: value}).options
    assert getattr(make(structure, **{name: value * 2}).options, name) == value * 2
    with pytest.raises(InputError, match=f"Did you mean '{name}'") as caught:
        make(**{f"{name}s": value})
    assert caught.value.code == "invalid-argument"
    with pytest.raises(InputError, match="`options` must be"):
        make(Head(objective="binary"))


def test_the_defaults_are_those_of_the_recipe() -> None:
    retrieval, ranker = RetrievalSection(), RankerSection()
    assert TwoTower(INPUTS, ROWS).options == TwoTowerOptions.of(retrieval, {})
    assert Ranker(INPUTS, ROWS).options == RankerOptions.of(ranker, {})
    several = MultiTask(INPUTS, ROWS, heads=HEADS).options
    assert several == MultiTaskOptions.of(ranker, {"heads": HEADS})
    for kind, scorer in SCORERS.items():
        assert scorer().options == getattr(retrieval, kind)


def test_a_head_is_checked_where_it_is_made() -> None:
    for wrong in ({"objective": "binry"}, {"objective": "binary", "weight": 0}):
        with pytest.raises(ValueError, match=r"binary|greater than 0"):
            Head(**wrong)


def test_a_name_and_a_type_are_those_of_keras() -> None:
    model = TwoTower(INPUTS, ROWS, name="mine", dtype="mixed_bfloat16")
    assert (model.name, model.dtype_policy.name) == ("mine", "mixed_bfloat16")

"""What a recipe declares to be searched, and what it must not."""

from __future__ import annotations

from typing import Any

import pytest

from shortlist.errors import InputError, RecipeError
from shortlist.recipe import Recipe, build_recipe
from shortlist.training.search.search_space import recipe_with, space_of

RAW: dict[str, Any] = {
    "log": {"events": "log.csv"},
    "columns": {"user_id": "user", "item_id": "item"},
}


def searched(space: dict[str, Any], **others: Any) -> Recipe:
    return build_recipe(RAW | others | {"tune": {"space": space}})


def test_names_stand_in_quotes_or_as_sections_alike() -> None:
    rate = {"low": 1e-4, "high": 1e-2, "log": True}
    quoted = searched({"retrieval.learning_rate": rate, "retrieval.ease.l2": rate})
    nested = searched({"retrieval": {"learning_rate": rate, "ease": {"l2": rate}}})
    assert quoted.tune == nested.tune
    assert list(quoted.tune.space) == ["retrieval.learning_rate", "retrieval.ease.l2"]


@pytest.mark.parametrize(
    ("search", "last"),
    [
        ({"low": 2, "high": 9}, 9),
        ({"low": 2, "high": 9, "step": 3}, 8),
        ({"low": 0.1, "high": 0.45, "step": 0.1}, 0.4),
        ({"low": 0, "high": 1, "step": 0.3}, 0.9),
    ],
)
def test_a_range_ends_where_its_step_reaches(search: dict, last: float) -> None:
    found = searched({"retrieval.dropout": search}).tune.space["retrieval.dropout"]
    assert found.last() == last and type(found.last()) is type(last)


def test_integers_are_searched_where_the_field_takes_nothing_else() -> None:
    space = {
        "retrieval.embedding_dim": {"low": 8, "high": 64, "step": 8},
        "retrieval.temperature": {"low": 1, "high": 3},
        "training.clip_norm": {"low": 1, "high": 3},
        "ranker.low_rank_dim": {"low": 1, "high": 3},
        "retrieval.hidden_units": {"choices": [[], [16], [32, 16]]},
        "ranker.heads.click.weight": {"low": 1, "high": 3},
    }
    heads = {"click": {"objective": "binary"}}
    ranker = {"kind": "multi_task", "heads": heads}
    found = space_of(searched(space, ranker=ranker))
    assert [d.is_integer for d in found] == [True, False, False, True, False, False]
    assert found[1].ends() == [1.0, 3.0] and found[4].ends()[2] == [32, 16]


@pytest.mark.parametrize(
    ("space", "told"),
    [
        ({}, "needs fields to vary"),
        ({"retrieval.learning_rat": {"low": 1e-3, "high": 1e-2}}, "learning_rate'?"),
        (
            {"log.events": {"choices": ["a", "b"]}},
            "[retrieval], [ranker] or [training]",
        ),
        ({"retrieval.dropout": {"low": 0.1, "high": 1.5}}, "less than 1"),
        ({"retrieval.embedding_dim": {"low": 1.5, "high": 4}}, "valid integer"),
        ({"retrieval.kind": {"choices": ["ease", "eas"]}}, "Did you mean 'ease'?"),
        ({"retrieval.similarity": {"low": 1, "high": 2}}, "'cosine'"),
        ({"retrieval": {"ease": {"l3": {"low": 1, "high": 2}}}}, "'retrieval.ease.l2'"),
    ],
)
def test_what_cannot_be_searched_is_refused(space: dict, told: str) -> None:
    with pytest.raises(InputError) as caught:
        space_of(searched(space))
    assert caught.value.code == "tune-space"
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ({"low": 2, "high": 2}, "low must be below high, received 2 and 2"),
        ({"low": 1, "high": float("inf")}, "finite"),
        ({"low": 1}, "needs low and high, or choices"),
        ({"low": 0, "high": 1, "log": True}, "log needs a low above 0"),
        ({"low": 1, "high": 9, "log": True, "step": 2}, "log needs a low above 0"),
        ({"low": 1, "high": 2, "step": 3}, "step must be above 0"),
        ({"low": 1, "high": 2, "choices": [1, 2]}, "not both"),
        ({"choices": [1]}, "two or more"),
        ({"choices": [1, 2, 1]}, "all different"),
        ({"low": True, "high": 3}, "valid integer"),
        ({"lwo": 1, "high": 3}, "Did you mean 'low'?"),
    ],
)
def test_a_search_that_says_nothing_is_refused_with_the_recipe(
    search: dict, told: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        searched({"retrieval.epochs": search})
    assert caught.value.code == "recipe-invalid"
    assert told in str(caught.value)


def test_fields_that_need_each_other_may_be_searched_together() -> None:
    space = {
        "retrieval.history": {"choices": ["mean", "gru"]},
        "retrieval.history_length": {"choices": [0, 5]},
    }
    recipe = searched(space, retrieval={"history_length": 0})
    assert len(space_of(recipe)) == 2
    values = {"retrieval.history": "gru", "retrieval.history_length": 5}
    assert recipe_with(recipe, values).retrieval.history_length == 5
    with pytest.raises(RecipeError, match="needs a history_length"):
        recipe_with(recipe, values | {"retrieval.history_length": 0})


def test_a_recipe_without_other_values_is_the_same_recipe() -> None:
    heads = {"click": {"objective": "binary"}}
    recipe = searched({}, ranker={"kind": "multi_task", "heads": heads})
    assert recipe_with(recipe, {}) == recipe

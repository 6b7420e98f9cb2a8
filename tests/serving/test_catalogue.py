"""Ids that cannot be looked up, and ids that were meant differently."""

import pytest

from shortlist.errors import UnknownIdError
from shortlist.serving.catalogue import Catalogue, shortened, suggest_id
from tiny_bundle import ITEM_IDS, make_contents, vocabulary

WORDS = vocabulary("item", ITEM_IDS, [1] * 7)
NUMBERS = vocabulary("item", [101, 2020, 7], [1] * 3)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("Heat", "heat"),
        (" heat ", "heat"),
        ("hat", "heat"),
        ("heaat", "heat"),
        ("haet", "heat"),
        ("beat", "heat"),
        ("toystory", "toy story"),
        ("b", None),
        ("something else entirely", None),
        ("h" * 5000, None),
    ],
)
def test_one_slip_is_understood(given, meant):
    expected = f" Did you mean {meant!r}?" if meant else ""
    assert suggest_id(WORDS, given) == expected


@pytest.mark.parametrize("given", [1011, "2002", 5555, -101, "10.1", "+202"])
def test_the_neighbour_of_a_number_is_not_suggested(given):
    assert suggest_id(NUMBERS, given) == ""


def test_blanks_around_a_number_are_a_slip():
    assert suggest_id(NUMBERS, " 101 ") == " Did you mean 101?"


def test_an_unknown_item_without_a_suggestion_says_what_to_do():
    catalogue = Catalogue(make_contents())
    with pytest.raises(UnknownIdError, match="Received: 'Heat'. Check the id."):
        catalogue.require("Heat", suggest=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb", r"'a\nb'"),
        ("\ud800", r"'\ud800'"),
        ("é", "'é'"),
        (7, "7"),
        (10**30, "an integer of about 31 digits"),
        (-(10**5000), "an integer of about 5001 digits"),
        ("x" * 100, "'" + "x" * 55 + "…"),
    ],
    ids=["newline", "surrogate", "accent", "small", "large", "huge", "long"],
)
def test_values_in_messages_stay_short_and_printable(value, text):
    assert shortened(value) == text

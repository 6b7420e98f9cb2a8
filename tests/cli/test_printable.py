"""What logs and requests hold does not reach the terminal as a command."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from shortlist.cli.options import print_result
from shortlist.cli.printable import printable
from shortlist.cli.tables import items_table

ODD = {
    "\x1b]0;title\x07": "\\x1b]0;title\\x07",
    "\x1b[2J": "\\x1b[2J",
    "\x9b31m": "\\x9b31m",
    "a\nb\rc": "a\\nb\\rc",
    "\u202edlrow": "\\u202edlrow",
    "\x7f\x00": "\\x7f\\x00",
}


@pytest.mark.parametrize("text", ODD)
def test_control_characters_are_shown_as_escapes(text: str) -> None:
    assert printable(text) == ODD[text]
    items = [
        SimpleNamespace(title=text, item_id=7, score=1.0),
        SimpleNamespace(title=None, item_id=text, score=0.5),
    ]
    shown = items_table(items).split("\n")
    assert shown == [
        f"  1. {ODD[text]}  [7]  1.0000",
        f"  2. {ODD[text]}  0.5000",
    ]


@pytest.mark.parametrize("text", ["Caf\xe9 \U0001f3ac", "\u4f60\u597d", "it's <b>", ""])
def test_letters_of_any_language_stay(text: str) -> None:
    assert printable(text) == text


def test_json_holds_the_same_text_without_what_a_terminal_obeys(capfd) -> None:
    values = {"title": "".join(ODD)}
    print_result(values, "", True)
    printed = capfd.readouterr().out.rstrip("\n")
    assert json.loads(printed) == values
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in printed)


def test_messages_of_errors_are_printable(call, tmp_path) -> None:
    result = call("init", tmp_path / "a\x1b[2Jb")
    assert result.code == 2
    assert "\x1b" not in result.err and "\\x1b[2Jb" in result.err

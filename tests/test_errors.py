"""The exception tree, and that docs/errors.md lists exactly the codes raised."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from shortlist import errors
from shortlist.errors import (
    ArtifactError,
    InputError,
    LogError,
    ResourceError,
    ShortlistError,
    UnknownIdError,
    did_you_mean,
)

ROOT = Path(__file__).parents[1]
CODE = r"`([a-z0-9-]+)`"
ERROR_NAMES = {
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, ShortlistError)
}


def test_message_names_the_place_when_it_is_known():
    error = LogError("bad-rating", "No.", file="a.csv", column="rating", row=3)
    assert str(error) == "No. (file a.csv, column rating, row 3)"
    assert str(LogError("bad-rating", "No.")) == "No."


def test_dictionary_leaves_out_unknown_places():
    error = InputError("invalid-k", "No.", column="k")
    assert error.to_dict() == {"code": "invalid-k", "message": "No.", "column": "k"}


@pytest.mark.parametrize(
    ("kind", "builtin", "exit_code"),
    [
        (InputError, ValueError, 2),
        (LogError, ValueError, 2),
        (UnknownIdError, KeyError, 2),
        (ArtifactError, ValueError, 3),
        (ResourceError, OSError, 4),
    ],
)
def test_each_kind_is_a_builtin_error_with_an_exit_code(kind, builtin, exit_code):
    error = kind("a-code", "The message.")
    assert isinstance(error, builtin)
    assert str(error) == "The message."
    assert error.exit_code == exit_code


def test_did_you_mean_offers_the_closest_name_or_nothing():
    assert did_you_mean("ratng", ["rating", "user"]) == " Did you mean 'rating'?"
    assert did_you_mean("zzz", ["rating", "user"]) == ""


def test_every_code_raised_is_documented_and_no_other():
    table = (ROOT / "docs" / "errors.md").read_text()
    first_cells = re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE)
    documented = {code for cell in first_cells for code in re.findall(CODE, cell)}
    raised = {code for path in sources() for code in codes_of(path)}
    assert raised - documented == set(), "add these codes to docs/errors.md"
    # A few codes are chosen from a table before the error is made, so look wider.
    known = {text for path in sources() for text in strings_of(path)}
    assert documented - known == set(), "remove these codes from docs/errors.md"


def test_every_code_is_kebab_case():
    for path in sources():
        for code in codes_of(path):
            assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code), f"{path}: {code}"


def sources() -> list[Path]:
    return sorted((ROOT / "src" / "shortlist").rglob("*.py"))


def codes_of(path: Path) -> set[str]:
    """The literal codes given to an error or finding, wherever one is made."""
    calls = (
        n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)
    )
    return {
        argument.value
        for call in calls
        if name_of(call.func) in {*ERROR_NAMES, "Finding"} and call.args
        for argument in [call.args[0]]
        if isinstance(argument, ast.Constant)
    }


def strings_of(path: Path) -> set[str]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return {
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def name_of(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""

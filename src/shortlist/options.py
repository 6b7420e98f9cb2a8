"""What options are made of: strict types, a base class and the texts of errors.

The options of a model and the sections of a recipe are subclasses of `Options`. Knows
pydantic; knows no model and no file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self, get_args, get_origin

import pydantic
from pydantic import Field

from shortlist.errors import InputError, did_you_mean

# Strict: `epochs = true` and `epochs = "3"` are mistakes, not numbers.
Positive = Annotated[int, Field(ge=1, strict=True)]
NotNegative = Annotated[int, Field(ge=0, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
Rate = Annotated[float, Field(ge=0, lt=1, strict=True)]
AboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Flag = Annotated[bool, Field(strict=True)]


class Options(pydantic.BaseModel):
    """Frozen, validated options; the docstring below a field is its note."""

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True
    )

    @classmethod
    def of(cls, options: Options | None, changes: Mapping[str, Any]) -> Self:
        """The given options with changes; the defaults with changes for `None`.

        Args:
            options: of this class, or of a subclass with more fields.
            changes: values by the name of the field.

        Raises:
            InputError: `invalid-argument`: options of another class, an unknown name
                or a value that a field does not accept.
        """
        if options is not None and not isinstance(options, cls):
            raise InputError(
                "invalid-argument",
                f"`options` must be {cls.__name__}. Received: {options!r} (of type"
                f" {type(options).__name__}). Pass {cls.__name__}(...), or pass its"
                " fields by name.",
            )
        given = (
            {}
            if options is None
            else {name: getattr(options, name) for name in cls.model_fields}
        )
        try:
            return cls.model_validate({**given, **changes})
        except pydantic.ValidationError as error:
            found = problems(error, cls, cls.__name__)
            raise InputError(
                "invalid-argument", f"{found} Change it in the call or the recipe."
            ) from error

    @classmethod
    def notes(cls) -> dict[str, str]:
        """The note of every field that has one, by the name of the field."""
        return {
            name: " ".join(field.description.split())
            for name, field in cls.model_fields.items()
            if field.description
        }


def check_kind(kind: str, known: tuple[str, ...]) -> str:
    """A name that is known, or `ValueError`."""
    if kind not in known:
        close = did_you_mean(kind, known)
        raise ValueError(f"must be one of {', '.join(known)}.{close}")
    return kind


def problems(error: pydantic.ValidationError, options: type[Options], name: str) -> str:
    """A sentence for each problem that pydantic found.

    Args:
        error: what pydantic raised.
        options: the class that was validated.
        name: of it in the sentences, such as "a recipe".
    """
    text = "; ".join(_problem(one, options, name) for one in error.errors())
    return text if text.endswith("?") else f"{text.rstrip('.')}."


def _problem(error: Any, options: type[Options], name: str) -> str:
    where = ".".join(str(part) for part in error["loc"])
    message = str(error["msg"]).removeprefix("Value error, ")
    received = error.get("input")
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _fields_beside(error["loc"], options)
        section = ".".join(str(part) for part in error["loc"][:-1])
        of = f"[{section}]" if section else name
        return (
            f"`{where}` is not a field.{did_you_mean(error['loc'][-1], known)}"
            f" The fields of {of} are {', '.join(known)}"
        )
    start = f"`{where or name}`: "
    if message.startswith("Input should "):
        start, message = start.replace(": ", " "), f"must {message[13:]}"
    if error["type"] == "literal_error":
        message += f", received {received!r}"
        close = did_you_mean(
            received, re.findall(r"'([^']*)'", error["ctx"]["expected"])
        )
        return f"{start}{message}{close and '.' + close}"
    shown = f", received {received!r}" if not isinstance(received, dict) else ""
    rule, mark, close = message.partition(" Did you mean")
    end = "." if mark else ""
    return f"{start}{rule.rstrip('.')}{shown}{end}{mark}{close}"


def _fields_beside(location: tuple[Any, ...], options: type[Options]) -> list[str]:
    """The fields of the structure in which the last part of a location lies."""
    inside: Any = options
    for part in location[:-1]:
        if get_origin(inside) is dict:
            inside = get_args(inside)[1]
        else:
            fields = getattr(inside, "model_fields", {})
            inside = fields[part].annotation if part in fields else None
    fields = getattr(inside, "model_fields", None)
    return list(fields or getattr(inside, "__dataclass_fields__", {}))

"""What the sections of a recipe are made of: strict types, and a base."""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic import Field

from shortlist.errors import did_you_mean

# Strict: `epochs = true` and `epochs = "3"` are mistakes, not numbers.
Positive = Annotated[int, Field(ge=1, strict=True)]
NotNegative = Annotated[int, Field(ge=0, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**32, strict=True)]
Rate = Annotated[float, Field(ge=0, lt=1, strict=True)]
AboveZero = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Flag = Annotated[bool, Field(strict=True)]


class Section(pydantic.BaseModel):
    """One table of the recipe file."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


def check_kind(kind: str, known: tuple[str, ...]) -> str:
    """A name that is known, or `ValueError`."""
    if kind not in known:
        close = did_you_mean(kind, known)
        raise ValueError(f"must be one of {', '.join(known)}.{close}")
    return kind

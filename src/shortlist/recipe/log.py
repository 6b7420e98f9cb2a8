"""The settings of reading: where the files are and how they are written."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, Self

import pydantic
from pydantic import Field

from shortlist.data.read.file_format import FileFormat
from shortlist.options import Options

PathOrPaths = str | list[str]
Strict = Annotated[bool, Field(strict=True)]


class _ReadSection(Options):
    """Settings of reading a file; unset ones are detected."""

    layout: str | None = None
    separator: str | None = None
    encoding: str | None = None
    quote_char: str | None = None
    has_header: Strict | None = None
    column_names: list[str] = []
    null_values: list[str] = []

    @pydantic.model_validator(mode="after")
    def _format_is_possible(self) -> Self:
        self.file_format()
        return self

    def file_format(self) -> FileFormat:
        """The settings as the readers need them."""
        known = {field.name for field in dataclasses.fields(FileFormat)}
        given: dict[str, Any] = {
            name: getattr(self, name)
            for name in type(self).model_fields
            if name in known
        }
        return FileFormat(**given)


class AttributeFormat(_ReadSection):
    """How an attribute file is written."""

    repeated_ids: Literal["raise", "last"] = "raise"
    """whether a repeated id is an error, or its last row counts"""


class LogSection(_ReadSection):
    """Where the log and the attribute files are, relative to the recipe file."""

    events: PathOrPaths
    users: str | None = None
    items: str | None = None
    users_id: str | None = None
    items_id: str | None = None
    test_events: PathOrPaths | None = None
    validation_events: PathOrPaths | None = None
    on_error: Literal["raise", "skip"] = "raise"
    """a bad row is an error, or is skipped and counted"""
    timestamp_format: str | None = None
    unroll: list[str] = []
    unroll_separator: str = " "
    users_format: AttributeFormat = AttributeFormat()
    items_format: AttributeFormat = AttributeFormat()

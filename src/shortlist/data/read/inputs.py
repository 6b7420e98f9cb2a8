"""The files of a log, and the options for reading them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shortlist.data.read.file_format import FileFormat
from shortlist.errors import InputError, did_you_mean

Paths = str | Path | Sequence[str | Path]
OnError = Literal["raise", "skip"]
_ON_ERROR = ("raise", "skip")


@dataclass(frozen=True)
class LogFiles:
    """The files of a log.

    Args:
        events: the interactions, one file or several. `None` if all of them are in
            `test_events` or `validation_events`.
        users: user attribute file, required if the schema has user features.
        items: item attribute file, required if the schema has item features.
        users_id: id column of `users`; the user column of the log by default.
        items_id: id column of `items`; the item column of the log by default.
        test_events: the events of the test part, for a split of kind `files`.
        validation_events: the events of the validation part, for a split of kind
            `files`.
    """

    events: Paths | None
    users: str | Path | None = None
    items: str | Path | None = None
    users_id: str | None = None
    items_id: str | None = None
    test_events: Paths | None = None
    validation_events: Paths | None = None

    @classmethod
    def of(cls, log: Paths | LogFiles) -> LogFiles:
        """`log` itself, or the files of a log that has nothing but events."""
        return log if isinstance(log, LogFiles) else cls(log)

    @property
    def first(self) -> Path:
        """The first file of events, for messages."""
        return self.event_files[0]

    @property
    def event_files(self) -> list[Path]:
        """All files of events: training, validation, test."""
        return paths_of(self.events, self.validation_events, self.test_events)

    @property
    def attribute_files(self) -> list[Path]:
        """The files of users and items that are given."""
        return paths_of(self.users, self.items)


@dataclass(frozen=True)
class ReadOptions:
    """How the files of a log are read.

    Args:
        format: layout or format of the event files; detected per file when `None`.
        users_format: format of the user attribute file.
        items_format: format of the item attribute file.
        on_error: what a bad row does: `raise` an error at the first one, or `skip` it.
            Skipped rows are counted and listed in `rejected.csv` of the dataset.
            Attribute files: see `read_attributes`.
        memory_bytes: how many bytes of events to hold in memory; more are written to
            temporary files. A quarter of the machine's memory by default.

    Raises:
        InputError: another `on_error`, or `memory_bytes` below 1 (`invalid-argument`).
    """

    format: str | FileFormat | None = None
    users_format: str | FileFormat | None = None
    items_format: str | FileFormat | None = None
    on_error: OnError = "raise"
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.on_error not in _ON_ERROR:
            raise InputError(
                "invalid-argument",
                f"`on_error` must be 'raise' or 'skip'. Received: {self.on_error!r}."
                f"{did_you_mean(self.on_error, _ON_ERROR)}",
            )
        if self.memory_bytes is not None and self.memory_bytes < 1:
            raise InputError(
                "invalid-argument",
                f"`memory_bytes` must be at least 1. Received: {self.memory_bytes}."
                " Omit it to use a quarter of the machine's memory.",
            )


def paths_of(*given: Paths | None) -> list[Path]:
    """The files of some arguments as one list."""
    return [
        Path(file)
        for paths in given
        if paths is not None
        for file in ([paths] if isinstance(paths, str | Path) else paths)
    ]

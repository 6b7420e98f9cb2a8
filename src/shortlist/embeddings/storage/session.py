"""One save or load of a model, while Keras visits its layers of tables.

Keras gives a layer a store inside its own file, but no path. `saving` opens a session
that knows where the files of tables are; without one, as in plain Keras, tables go into
the store.
"""

from __future__ import annotations

import contextlib
import os
import re
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shortlist.atomic import fsync
from shortlist.embeddings.storage import layer_state
from shortlist.embeddings.storage.layer_state import Loaded
from shortlist.embeddings.storage.table_files import write_table
from shortlist.embeddings.table import Table
from shortlist.errors import ShortlistError

_OURS = re.compile(r".+(-[0-9a-f]{16}\.safetensors|\.part)")


@dataclass
class Session:
    """The files of one save or load.

    Args:
        folder: of the files of tables.
    """

    folder: Path
    named: set[str] = field(default_factory=set)
    written: list[Path] = field(default_factory=list)
    loaded: list[Loaded] = field(default_factory=list)
    errors: list[ShortlistError] = field(default_factory=list)

    def write(self, table: Table) -> tuple[str, str]:
        """Writes a table; returns the name of its file and its SHA-256."""
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", table.name)[:80]
        part = self.folder / f"{plain}.part"
        sha256 = write_table(part, table)
        path = self.folder / f"{plain}-{sha256[:16]}.safetensors"
        if not path.exists():
            self.written.append(path)
        os.replace(part, path)
        fsync(self.folder)
        self.named.add(path.name)
        return path.name, sha256

    def discard(self) -> None:
        """Removes the files that a failed save has written."""
        for path in self.written:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or never created
            self.folder.rmdir()

    def remove_others(self) -> None:
        """Removes tables that the Keras file no longer names."""
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                if path.name not in self.named and _OURS.fullmatch(path.name):
                    path.unlink()
            if not self.named:
                self.folder.rmdir()

    def cause_of(self, error: BaseException) -> ShortlistError | None:
        """The error of this package that made Keras raise its own, if any."""
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ShortlistError):
                return cause
            cause = cause.__cause__ or cause.__context__
        return self.errors[0] if self.errors else None


# The session that is open in this context, if any.
current: ContextVar[Session | None] = ContextVar("session", default=None)


def save(layer: Any, store: Any) -> None:
    """Puts tables and state of a layer into the store that Keras gives it.

    Inside a session the tables go to files that the store names, otherwise into the
    store.

    Args:
        layer: a `DistributedEmbedding`; nothing is stored before it is built.
        store: takes arrays by name.

    Raises:
        ShortlistError: an error of an earlier compiled step.
        ResourceError: no space for a file.
    """
    if not layer.built:
        return
    layer.sync()
    session = current.get()
    layer_state.save(layer, store, None if session is None else session.write)


def load(layer: Any, store: Any) -> None:
    """Sets tables and state of a layer to what `save` put into the store.

    Args:
        layer: a `DistributedEmbedding`; built if it is not.
        store: gives arrays by name.

    Raises:
        ArtifactError: `checkpoint-unreadable` or `checkpoint-mismatch`; nothing has
            changed. Inside a session the error is raised after Keras has finished.
    """
    session = current.get()
    if session is None:
        with layer_state.load(layer, store, None) as loaded:
            loaded.commit()
        return
    try:
        session.loaded.append(layer_state.load(layer, store, session.folder))
    except ShortlistError as error:
        session.errors.append(error)

"""The rows of the table: every model fitted once per seed, and what that took."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accuracy_claims import models, protocol
from shortlist.data import Dataset
from shortlist.models.scorers import Blend

SEEDS = (0, 1, 2)


@dataclasses.dataclass(frozen=True)
class Row:
    """A fitted model, its figures on the test part and the seconds of both."""

    model: Any
    figures: protocol.Figures
    seconds: float


class Table:
    """The public split as datasets, and the rows measured on it so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        began = time.perf_counter()
        self.train, self.test = protocol.public_split(protocol.movielens())
        self.dataset = protocol.as_dataset(self.train, self.test, folder)
        self.seconds = time.perf_counter() - began
        self.settings = models.stored()
        self._rows: dict[tuple[str, int], Row] = {}

    def row(self, name: str, seed: int = 0) -> Row:
        """The row of a model, measured when first asked for."""
        seed = seed if name in models.RANDOM else 0
        if (name, seed) not in self._rows:
            if name == models.BLEND:  # their seconds are those of their own rows
                for member in self.settings[name]["weights"]:
                    self.row(member, seed)
            began = time.perf_counter()
            model, lists = self._fitted(name, seed)
            figures = protocol.measure(
                protocol.user_ids(self.dataset), lists, self.test
            )
            if name == models.RATING:
                figures |= protocol.rating_errors(model, self.dataset)
            seconds = time.perf_counter() - began
            self._rows[name, seed] = Row(model, figures, seconds)
        return self._rows[name, seed]

    def rows(self, name: str, *, quick: bool) -> list[Row]:
        """The rows of a model, one per seed if its training draws numbers."""
        seeds = SEEDS if name in models.RANDOM and not quick else SEEDS[:1]
        return [self.row(name, seed) for seed in seeds]

    def _fitted(self, name: str, seed: int) -> tuple[Any, Any]:
        if name == models.TWO_TOWER:
            from accuracy_claims import two_tower

            settings, folder = self.settings[name], self.folder / "two_tower"
            dataset = self._weighted
            member = two_tower.fit(dataset, settings, folder, seed)
            return member, two_tower.ranked_items(member, dataset)
        if name == models.BLEND:
            model = self._blend(seed)
        else:
            model = models.make(name, self.settings[name], seed).fit(self.dataset)
        return model, protocol.ranked_items(model, self.dataset)

    def _blend(self, seed: int) -> Blend:
        """The members are those of the table, of the same seed."""
        weights = self.settings[models.BLEND]["weights"]
        members = {name: self.row(name, seed).model for name in weights}
        return Blend.of_members(members, weights, counts=self._counts())

    def _counts(self) -> Any:
        return self.dataset.item_counts("train").astype("float32")

    @functools.cached_property
    def _weighted(self) -> Dataset:
        from accuracy_claims import two_tower

        settings = self.settings[models.TWO_TOWER]
        folder = self.folder / "two_tower"
        return two_tower.as_dataset(self.train, self.test, folder, settings)


@functools.cache
def table() -> Table:
    """The table of this process; its files go when the process ends."""
    return Table(Path(_folders.enter_context(tempfile.TemporaryDirectory())))


_folders = contextlib.ExitStack()


@contextlib.contextmanager
def cleared() -> Iterator[None]:
    """Removes the files of the table at the end."""
    with _folders:
        yield


def figures(rows: list[Row], metric: str) -> tuple[float, ...]:
    """A figure of each row."""
    return tuple(row.figures[metric] for row in rows)

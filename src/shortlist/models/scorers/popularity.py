"""The baseline: items by their number of events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from shortlist.data.split import DAY_MS
from shortlist.data.store.dataset import Dataset
from shortlist.errors import InputError, did_you_mean
from shortlist.models.options import PopularityOptions
from shortlist.models.scorers.queries import Queries
from shortlist.models.scorers.scorer import Scorer, Shapes, check_times


class Popularity(Scorer):
    """Scores an item by its events: of all users, recent ones, or of a user segment.

    Known items do not matter.

    Args:
        options: the options; the defaults if left out.
        **changes: single options by name, as in `Popularity(window_days=30)`.

    Raises:
        InputError: `invalid-argument`.
    """

    kind = "popularity"
    scores_strangers = True

    def __init__(
        self, options: PopularityOptions | None = None, **changes: Any
    ) -> None:
        self.options = PopularityOptions.of(options, changes)
        self.counts = np.zeros(0, np.int64)
        self.scores = np.zeros((1, 0), np.float32)
        self.segments = np.zeros(0, np.int32)

    def fit(self, dataset: Dataset, parts: tuple[str, ...] = ("train",)) -> Popularity:
        """Counts the interactions of the named parts.

        Raises:
            InputError: `segment` is no categorical user feature (`segment-unknown`),
                or `half_life_days` or `window_days` without times (`times-needed`).
        """
        options = self.options
        if options.half_life_days is not None or options.window_days is not None:
            check_times(dataset, "half_life_days and window_days")
        events = dataset.interactions(*parts)
        weights = self._weights(events.timestamp_ms)
        num_items = dataset.num_items
        self.counts = dataset.item_counts(*parts)
        overall = np.bincount(events.item_index, weights, minlength=num_items)
        overall[0] = 0
        if options.segment is None:
            self.segments = np.zeros(0, np.int32)
            self.scores = overall[None].astype(np.float32)
            return self
        self.segments = self._rows(dataset)
        num_segments = int(self.segments.max(initial=0)) + 1
        cells = self.segments[events.user_index].astype(np.int64) * num_items
        table = np.bincount(
            cells + events.item_index, weights, minlength=num_segments * num_items
        ).reshape(num_segments, num_items)
        table += options.smoothing * overall / max(overall.sum(), 1e-12)
        self.scores = table.astype(np.float32)
        return self

    def score_all(self, queries: Queries) -> np.ndarray:
        """Scores `(n, num_items)` float32 of all item rows."""
        rows = np.zeros(len(queries), np.int32)
        if len(self.segments):
            rows = self.segments[queries.user_index]
        return self._finished(self.scores[rows])

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments as plain values."""
        return self.options.model_dump()

    def arrays(self) -> dict[str, np.ndarray]:
        """`scores` `(segments, num_items)`, `segments` `(num_users,)`, `counts`."""
        return {
            "scores": self.scores,
            "segments": self.segments,
            "counts": self.counts.astype(np.float32),
        }

    def shapes(
        self, arrays: Mapping[str, np.ndarray], num_users: int, num_items: int
    ) -> Shapes:
        """As many segments as the scores have."""
        if self.get_config()["segment"] is None:
            rows, users = 1, 0
        else:
            scores = arrays.get("scores", np.zeros(1))
            rows, users = len(scores) if scores.ndim else 1, num_users
        return {
            "scores": (np.float32, (rows, num_items)),
            "segments": (np.int32, (users,)),
        }

    def value_problem(self, arrays: Mapping[str, np.ndarray]) -> tuple[str, str] | None:
        """Segments must be rows of the scores."""
        segments, rows = arrays["segments"], len(arrays["scores"])
        if ((segments < 0) | (segments >= rows)).any():
            return f"must have segments below {rows}", "others"
        return None

    def _set_arrays(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.scores, self.segments = arrays["scores"], arrays["segments"]
        self.counts = arrays["counts"]

    def _weights(self, timestamp_ms: np.ndarray) -> np.ndarray:
        age = (timestamp_ms.max(initial=0) - timestamp_ms) / DAY_MS
        weights = np.ones(len(age))
        if self.options.half_life_days is not None:
            weights *= 0.5 ** (age / self.options.half_life_days)
        if self.options.window_days is not None:
            weights *= age <= self.options.window_days
        return weights

    def _rows(self, dataset: Dataset) -> np.ndarray:
        names = [
            feature.name
            for feature in dataset.schema.features
            if feature.owner == "user" and feature.kind == "categorical"
        ]
        segment = self.options.segment
        if segment is None or segment not in names:
            raise InputError(
                "segment-unknown",
                f"`segment` must be a categorical feature of users: one of {names}."
                f" Received: {segment!r}.{did_you_mean(segment, names)}",
            )
        rows: np.ndarray = dataset.features[segment].astype(np.int32)
        return rows

"""What an evaluation measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shortlist.data.split import KNOWN
from shortlist.errors import InputError, did_you_mean
from shortlist.evaluation.metrics.table import LIST_METRICS


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Options of `evaluate_pipeline`.

    Args:
        objective: `explicit` if pair scores predict the label (adds RMSE and MAE);
            `binary` if they are logits (adds log loss and calibration).
        part: `test` or `validation`.
        ks: list lengths.
        resamples: bootstrap samples for the 95 % intervals; slices use at most 200.
        seed: seed of the bootstrap.
        metrics: metrics of lists to measure; all of them by default.
        slices: features to divide the report by, in addition to the built-in slices.
        taste: item feature that preferences are measured in; see `taste_feature`.

    Raises:
        InputError: an unknown part (`part-unknown`) or metric (`metric-unknown`).
    """

    objective: str | None = None
    part: str = "test"
    ks: Sequence[int] = (5, 10, 20)
    resamples: int = 1000
    seed: int = 0
    metrics: Sequence[str] | None = None
    slices: Sequence[str] = ()
    taste: str | None = None

    def __post_init__(self) -> None:
        if self.part not in KNOWN:
            raise InputError(
                "part-unknown",
                f"The part must be one of {', '.join(KNOWN)}. Received: {self.part!r}."
                f"{did_you_mean(self.part, KNOWN)}",
            )
        for name in self.names:
            if name not in LIST_METRICS:
                raise InputError(
                    "metric-unknown",
                    f"A metric must be one of {', '.join(LIST_METRICS)}. Received:"
                    f" {name!r}.{did_you_mean(name, LIST_METRICS)}",
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics of lists to measure."""
        return LIST_METRICS if self.metrics is None else tuple(self.metrics)

    @property
    def known(self) -> tuple[str, ...]:
        """The parts before the one that is measured: what is known of each user."""
        return KNOWN[self.part]

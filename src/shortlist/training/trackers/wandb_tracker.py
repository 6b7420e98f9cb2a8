"""Tracks trainings in Weights & Biases."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal

from shortlist.packages import need_package
from shortlist.recipe.secrets import redacted
from shortlist.training.runs.records import Pruned
from shortlist.training.runs.run import Run
from shortlist.training.trackers.tracker import Metrics, Tracker, Training


class WeightsAndBiases(Tracker):
    """Logs recipe, metrics of every epoch and where the run is.

    Its files are whole once the process ends, or after `wandb.teardown()`.

    Args:
        project: name of the project.
        folder: where its files are written, as `wandb/` inside.
        mode: `offline` writes files alone, for `wandb sync`; `online` sends them.
    """

    name = "Weights & Biases"

    def __init__(
        self,
        project: str,
        folder: str | Path = ".",
        mode: Literal["offline", "online"] = "offline",
    ) -> None:
        self.project = project
        self.folder = Path(folder)
        self.mode = mode

    def check(self) -> None:
        """Needs `wandb`."""
        need_package("wandb", "wandb")

    def start(self, training: Training) -> None:
        """Makes the run."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        _no_analytics()
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            mode=self.mode,
            silent=True,
            console="off",
            disable_code=True,
            disable_git=True,
            x_disable_machine_info=True,
            x_disable_stats=True,
        )
        self.run = wandb.init(
            project=self.project,
            dir=str(self.folder),
            name=training.name,
            config=training.recipe
            | {
                "dataset_fingerprint": training.dataset_fingerprint,
                "backend": training.backend,
            },
            reinit="create_new",  # the caller may have an active run
            settings=settings,
        )
        for stage in ("retrieval", "ranker"):
            self.run.define_metric(f"{stage}/*", step_metric=f"{stage}/epoch")

    def epoch(self, stage: str, epoch: int, metrics: Metrics) -> None:
        """Logs `<stage>/<metric>` against `<stage>/epoch`."""
        named = {f"{stage}/{name}": value for name, value in metrics.items()}
        self.run.log({f"{stage}/epoch": epoch} | named)

    def finish(self, run: Run, metrics: Metrics, seconds: float) -> None:
        """Logs the final metrics and the place of the run, and closes it."""
        named = {f"validation/{name}": value for name, value in metrics.items()}
        self.run.summary.update(named | {"seconds": seconds, "run": str(run.path)})
        self.run.finish()

    def fail(self, error: BaseException, seconds: float) -> None:
        """Closes the run as failed, unless it was only given up."""
        reason = redacted(f"{type(error).__name__}: {error}", self.address)
        self.run.summary.update({"error": reason})
        self.run.finish(exit_code=0 if isinstance(error, Pruned) else 1)


def _no_analytics() -> None:
    """W&B measures its own use, offline too, and has no setting against it."""
    with contextlib.suppress(ImportError, AttributeError):
        from wandb.analytics.opentelemetry import opentelemetry_proxy

        opentelemetry_proxy.disable()

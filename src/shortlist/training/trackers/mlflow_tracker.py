"""Tracks trainings in an MLflow server or a local database."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

from shortlist.packages import need_package
from shortlist.recipe.secrets import redacted
from shortlist.training.runs.records import Pruned
from shortlist.training.runs.run import Run
from shortlist.training.trackers.tracker import Metrics, Tracker, Training

AT_ONCE = 100  # parameters that MLflow takes in one call
# Read by MLflow when it is first imported: no reports to its makers, and a server that
# is away is given up on in seconds, not minutes.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class MLflow(Tracker):
    """Logs recipe, metrics of every epoch and the small files of the run.

    Checkpoints stay in the run: they can be as large as the tables. A metric `ndcg@10`
    is called `ndcg_at_10`, as MLflow takes no `@`.

    Args:
        uri: a tracking URI (`http://...`, `sqlite:///...`, `databricks`), or the path
            of an SQLite file, which is made.
        experiment: name of the experiment, which is made.
    """

    name = "MLflow"

    def __init__(self, uri: str | Path, experiment: str = "shortlist") -> None:
        self.uri, self.artifacts = _resolved(str(uri))
        self.address = self.uri
        self.experiment = experiment

    def check(self) -> None:
        """Needs `mlflow`, whole or skinny, and for a database SQLAlchemy."""
        need_package("mlflow", "mlflow")
        if self.uri.startswith("sqlite:"):
            need_package("sqlalchemy", "mlflow")
            need_package("alembic", "mlflow")

    def start(self, training: Training) -> None:
        """Makes the run."""
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(tracking_uri=self.uri)
        found = self.client.get_experiment_by_name(self.experiment)
        experiment = (
            self.client.create_experiment(self.experiment, self.artifacts)
            if found is None
            else found.experiment_id
        )
        tags = {
            "dataset": training.dataset,
            "dataset_fingerprint": training.dataset_fingerprint,
            "backend": training.backend,
        }
        made = self.client.create_run(experiment, run_name=training.name, tags=tags)
        self.run_id: str = made.info.run_id
        parameters = [Param(k, v) for k, v in flat(training.recipe).items()]
        for first in range(0, len(parameters), AT_ONCE):
            part = parameters[first : first + AT_ONCE]
            self.client.log_batch(self.run_id, params=part)

    def epoch(self, stage: str, epoch: int, metrics: Metrics) -> None:
        """Logs `<stage>/<metric>` at the epoch as step."""
        named = {f"{stage}/{name}": value for name, value in metrics.items()}
        self._log(named, epoch)

    def finish(self, run: Run, metrics: Metrics, seconds: float) -> None:
        """Logs the final metrics and files and closes the run."""
        self._log({f"validation/{k}": v for k, v in metrics.items()}, 0)
        self._log({"seconds": seconds}, 0)
        for file in sorted(run.path.glob("*.json*")):
            self.client.log_artifact(self.run_id, str(file))
        self.client.set_tag(self.run_id, "run", str(run.path))
        self.client.set_terminated(self.run_id, "FINISHED")

    def fail(self, error: BaseException, seconds: float) -> None:
        """Closes the run as failed, or as killed if it was interrupted or pruned."""
        reason = redacted(f"{type(error).__name__}: {error}", self.uri)
        self.client.set_tag(self.run_id, "error", reason)
        is_failure = isinstance(error, Exception) and not isinstance(error, Pruned)
        state = "FAILED" if is_failure else "KILLED"
        self.client.set_terminated(self.run_id, state)

    def _log(self, metrics: Metrics, step: int) -> None:
        from mlflow.entities import Metric

        moment = time.time_ns() // 1_000_000
        logged = [
            Metric(re.sub(r"[^\w. :/-]", "_", k.replace("@", "_at_")), v, moment, step)
            for k, v in metrics.items()
        ]
        self.client.log_batch(self.run_id, metrics=logged)


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested plain values as text by dotted name; lists as JSON."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            found[prefix + name] = text
    return found


def _resolved(uri: str) -> tuple[str, str | None]:
    """The tracking URI, and where files go if the database is a local one."""
    if "://" not in uri and uri != "databricks":
        uri = f"sqlite:///{Path(uri).resolve()}"
    if not uri.startswith("sqlite:///"):
        return uri, None
    file = Path(uri.removeprefix("sqlite:///")).resolve()
    return f"sqlite:///{file}", (file.parent / "mlartifacts").as_uri()

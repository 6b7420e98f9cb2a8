"""Experiment trackers: our run store, MLflow, Weights & Biases, TensorBoard."""

from __future__ import annotations

from pathlib import Path

from shortlist.recipe import TrackingSection
from shortlist.training.runs.run_store import RunStore
from shortlist.training.trackers.mlflow_tracker import MLflow
from shortlist.training.trackers.store_tracker import Store
from shortlist.training.trackers.tensorboard import TensorBoard
from shortlist.training.trackers.tracker import Tracker, Tracking, Training
from shortlist.training.trackers.wandb_tracker import WeightsAndBiases

__all__ = [
    "MLflow",
    "Store",
    "TensorBoard",
    "Tracker",
    "Tracking",
    "Training",
    "WeightsAndBiases",
    "open_trackers",
]


def open_trackers(section: TrackingSection, folder: str | Path) -> list[Tracker]:
    """The trackers that a recipe names.

    Args:
        section: `[tracking]` of the recipe.
        folder: of the recipe file, which paths are relative to.
    """
    folder = Path(folder)
    trackers: list[Tracker] = []
    if section.store is not None:
        trackers.append(Store(RunStore(folder / section.store)))
    if section.mlflow is not None:
        trackers.append(MLflow(_beside(section.mlflow, folder), section.experiment))
    if section.wandb is not None:
        trackers.append(WeightsAndBiases(section.wandb, folder, section.wandb_mode))
    if section.tensorboard:
        trackers.append(TensorBoard())
    return trackers


def _beside(uri: str, folder: Path) -> str:
    """The address; a local database is relative to the folder of the recipe."""
    path = uri.removeprefix("sqlite:///")
    local = uri != path or "://" not in uri and uri != "databricks"
    return str(folder / path) if local else uri

"""Which events a run was trained on, and which were appended since.

Appending days to a dataset adds files and changes no others, so the events of a run are
a list of files with checksums.
"""

from __future__ import annotations

from shortlist.data.store.dataset import Dataset
from shortlist.errors import ArtifactError, InputError
from shortlist.training.runs.run import Run, TrainedFile

PART = "train"


def trained_files(dataset: Dataset) -> tuple[TrainedFile, ...]:
    """The files of the training part as a run records them."""
    return tuple(
        TrainedFile(
            file=segment.file,
            events=segment.events,
            last_timestamp_ms=segment.last_timestamp_ms,
            xxh64=dataset.xxh64(segment.file),
        )
        for segment in dataset.info.segments
        if segment.part == PART
    )


def files_since(run: Run, dataset: Dataset) -> tuple[str, ...]:
    """The files of the training part that a run has not been trained on.

    Raises:
        ArtifactError: `new-days-mismatch`, the run was trained on other events.
        InputError: `new-days-none`, it was trained on all events.
    """
    seen = {one.file: one for one in run.info.trained_on}
    there = {one.file: one for one in trained_files(dataset)}
    if not seen or any(there.get(file) != one for file, one in seen.items()):
        told = "other events" if seen else "no record of its events"
        raise ArtifactError(
            "new-days-mismatch",
            "New days follow the days that the older run was trained on, which the"
            f" training part must still begin with. Found a run with {told} at"
            f" {str(run.path)!r}. Append to the dataset of that run with `shortlist"
            " prepare --append`, or train on all events.",
            file=run.path,
        )
    new = tuple(f for f, one in there.items() if f not in seen and one.events)
    if not new:
        raise InputError(
            "new-days-none",
            "The training part must hold events that the older run was not trained on."
            " Received: none. Append days with `shortlist prepare --append`: what was"
            " the validation part then joins training.",
            file=run.path,
        )
    return new

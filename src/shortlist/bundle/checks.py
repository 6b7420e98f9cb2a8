"""The errors of a bundle that is damaged, or whose parts are inconsistent."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NoReturn

import numpy as np
import polars as pl

from shortlist.errors import ArtifactError, ShortlistError
from shortlist.reading import read_errors


@contextlib.contextmanager
def reading(file: str | os.PathLike[str]) -> Iterator[None]:
    """Converts any error of reading a file of a bundle, which may be hostile.

    Raises:
        ArtifactError: reading failed with an unexpected error (`bundle-damaged`).
        ResourceError: the file may not be read (`no-permission`).
    """
    with read_errors(file):
        try:
            yield
        except (ShortlistError, PermissionError):
            raise
        # Hostile bytes may cause any error; a panic is not an `Exception`.
        except (Exception, pl.exceptions.PanicException) as error:
            reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
            raise ArtifactError(
                "bundle-damaged",
                f"The file {os.path.basename(file)} of the bundle cannot be read:"
                f" {reason}. Copy or export the bundle again.",
                file=file,
            ) from error


LARGEST = 1e15
"""Squares and sums of larger numbers overflow float32."""


def check_finite(place: str, values: np.ndarray) -> None:
    """Raises `ArtifactError` (`bundle-not-finite`) unless sums stay finite."""
    if not np.isfinite(values).all():
        raise ArtifactError(
            "bundle-not-finite",
            f"All numbers of a bundle must be finite. Found NaN or infinity in {place}."
            " Train again with a lower learning rate.",
            file=place,
        )
    if values.size and max(float(values.max()), -float(values.min())) > LARGEST:
        raise ArtifactError(
            "bundle-not-finite",
            f"All numbers of a bundle must be at most {LARGEST:g}, because sums of"
            f" larger ones overflow. Found one in {place}. Train again with a lower"
            " learning rate.",
            file=place,
        )


def refuse(place: str, rule: str, found: str) -> NoReturn:
    """Raises `ArtifactError` (`bundle-inconsistent`)."""
    raise ArtifactError(
        "bundle-inconsistent",
        f"The parts of a bundle must fit together: {place} {rule}. Found {found}."
        " Export the bundle again.",
        file=place,
    )

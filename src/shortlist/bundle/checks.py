"""How a bundle whose parts do not fit together is refused."""

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
    """Around whatever reads a file of a bundle, which may be made to break a reader.

    Raises:
        ArtifactError: reading failed, in a way that nothing else foresees
            (`bundle-damaged`).
        ResourceError: the file may not be read (`no-permission`).
    """
    with read_errors(file):
        try:
            yield
        except (ShortlistError, PermissionError):
            raise
        # Libraries raise what they like on hostile bytes; a panic is no `Exception`.
        except (Exception, pl.exceptions.PanicException) as error:
            reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
            raise ArtifactError(
                "bundle-damaged",
                f"{os.path.basename(file)} must be what `shortlist export` wrote."
                f" Reading it failed: {reason}. Copy or export the bundle again.",
                file=file,
            ) from error


LARGEST = 1e15
"""Beyond it squares and sums of finite numbers leave the range of float32."""


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
            f"All numbers of a bundle must be at most {LARGEST:g}, or sums of them are"
            f" not finite. Found a larger one in {place}. Train again with a lower"
            " learning rate.",
            file=place,
        )


def refuse(place: str, rule: str, found: str) -> NoReturn:
    raise ArtifactError(
        "bundle-inconsistent",
        f"The parts of a bundle must fit together: {place} {rule}. Found {found}."
        " Export the bundle again.",
        file=place,
    )

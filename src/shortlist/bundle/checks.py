"""How a bundle whose parts do not fit together is refused."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from shortlist.errors import ArtifactError


def check_finite(place: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise ArtifactError(
            "bundle-not-finite",
            f"All numbers of a bundle must be finite. Found NaN or infinity in {place}."
            " Train again with a lower learning rate.",
            file=place,
        )


def refuse(place: str, rule: str, found: str) -> NoReturn:
    raise ArtifactError(
        "bundle-inconsistent",
        f"The parts of a bundle must fit together: {place} {rule}. Found {found}."
        " Export the bundle again.",
        file=place,
    )

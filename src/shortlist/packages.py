"""The check that the package of an extra is installed."""

from __future__ import annotations

import importlib.util

from shortlist.errors import ResourceError


def need_package(package: str, extra: str) -> None:
    """Raises `ResourceError` with the install command if a package is missing."""
    if importlib.util.find_spec(package) is None:
        raise ResourceError(
            "package-missing",
            f"This needs the package {package!r}, which is not installed. Run: pip"
            f" install 'shortlist[{extra}]'",
        )

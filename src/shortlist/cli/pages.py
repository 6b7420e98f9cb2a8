"""Pages and plots that commands write beside what they print."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from shortlist.packages import need_package

if TYPE_CHECKING:
    from shortlist.evaluation.plots import Plot


def check_page(path: Path | None, overwrite: bool) -> None:
    """Checks, before any work, that a page can be drawn and written.

    Raises:
        InputError: the file exists and `overwrite` is not set (`output-exists`).
        ResourceError: matplotlib is not installed (`package-missing`).
    """
    if path is None:
        return
    from shortlist.atomic import check_absent

    need_package("matplotlib", "plots")
    if not overwrite:
        check_absent(path)


def save_page(page: str, path: Path) -> None:
    """Writes a page, whole or not at all."""
    from shortlist.page import write_page

    write_page(page, path)


def save_plots(plots: Iterable[Plot], folder: Path) -> list[str]:
    """Writes `NAME.png` of each plot into the folder; returns the files' names."""
    from shortlist.atomic import atomic_file

    written = []
    for plot in plots:
        with atomic_file(folder / f"{plot.name}.png") as temporary:
            temporary.write_bytes(plot.png)
        written.append(f"{plot.name}.png")
    return written

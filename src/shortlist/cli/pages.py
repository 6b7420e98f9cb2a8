"""HTML reports and plots that commands write in addition to their text output."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from shortlist.errors import InputError
from shortlist.packages import need_package

if TYPE_CHECKING:
    from shortlist.evaluation.pages.plots import Plot


def check_page(path: Path | None, overwrite: bool) -> None:
    """Checks before any work that a report can be written.

    Raises:
        InputError: the file exists and `overwrite` is not set (`output-exists`), or it
            is not a report of Shortlist (`output-foreign`).
        ResourceError: matplotlib is not installed (`package-missing`).
    """
    if path is None:
        return
    from shortlist.atomic import check_file
    from shortlist.page import is_page

    if path.is_dir():
        raise _foreign("--html must be a file", path, "a folder")
    need_package("matplotlib", "plots")
    check_file(path, is_page, overwrite=overwrite, name="a page")


def check_plots(folder: Path | None, overwrite: bool) -> None:
    """Checks before any work that plots can be written.

    Raises:
        InputError: the folder is not empty and `overwrite` is not set
            (`output-exists`), it is a file, or an image in it is not a plot of
            Shortlist (`output-foreign`).
        ResourceError: matplotlib is not installed (`package-missing`).
    """
    if folder is None:
        return
    from shortlist.atomic import check_absent, check_file
    from shortlist.drawing import is_png_of_ours

    if folder.exists() and not folder.is_dir():
        raise _foreign("--plots must be a folder", folder, "a file")
    need_package("matplotlib", "plots")
    if not overwrite:
        check_absent(folder)
    elif folder.is_dir():
        for file in folder.glob("*.png"):
            check_file(file, is_png_of_ours, overwrite=True, name="a plot")


def _foreign(rule: str, path: Path, found: str) -> InputError:
    return InputError(
        "output-foreign",
        f"{rule}. Found {str(path)!r}, {found}. Choose another path.",
        file=path,
    )


def write_pages(
    draw: Callable[[], list[Plot]],
    page_of: Callable[[list[Plot]], str],
    html: Path | None,
    plots: Path | None,
) -> list[str]:
    """Draws the plots once and writes the requested outputs.

    Args:
        draw: makes the plots.
        page_of: makes the HTML report from them.
        html: file of the report.
        plots: folder of the plots.

    Returns: one line about each output.
    """
    if html is None and plots is None:
        return []
    from shortlist.page import write_page

    lines, drawn = [], draw()
    if plots is not None:
        lines.append(f"plots: {plots}: {', '.join(_save_plots(drawn, plots))}")
    if html is not None:
        write_page(page_of(drawn), html)
        lines.append(f"report: {html}")
    return lines


def _save_plots(plots: Iterable[Plot], folder: Path) -> list[str]:
    """Writes `NAME.png` of each plot into the folder; returns the files' names."""
    from shortlist.atomic import atomic_file

    written = []
    for plot in plots:
        with atomic_file(folder / f"{plot.name}.png") as temporary:
            temporary.write_bytes(plot.png)
        written.append(f"{plot.name}.png")
    return written

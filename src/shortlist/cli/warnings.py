"""Warnings of a bundle that is packed or served; one line each on stderr."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer


def warn_below_popularity(metrics: Mapping[str, Any]) -> None:
    """Warns of a model whose figures are below those of popularity."""
    if problem := below_popularity(metrics):
        typer.echo(f"warning: {problem}", err=True)


def below_popularity(metrics: Mapping[str, Any]) -> str:
    """What is to be said of a model that is below popularity, or nothing.

    Args:
        metrics: what a manifest keeps: the report of an evaluation, else under
            `validation` the verdict of the training. They may be anything.
    """
    verdict = metrics.get("verdict") or metrics.get("validation")
    if isinstance(verdict, Mapping) and verdict.get("is_below") is True:
        is_sure = verdict.get("result") == "worse"
        would = "would serve better" if is_sure else "may serve as well"
        return f"{verdict.get('text')} Popular items alone {would}."
    # Reports of earlier versions have no verdict.
    compared = metrics.get("comparison")
    main = compared.get("ndcg@10") if isinstance(compared, Mapping) else None
    gain = main.get("difference") if isinstance(main, Mapping) else None
    if "verdict" in metrics or not isinstance(gain, int | float) or gain >= 0:
        return ""
    return (
        f"the model is worse than popularity: ndcg@10 {gain:+.4f} on the test part."
        " Popular items alone would serve better."
    )


def warn_of_bundle(path: Path) -> None:
    """`warn_below_popularity` with the figures that a bundle keeps."""
    from shortlist.bundle.manifest import MANIFEST, Manifest

    raw = (path / MANIFEST).read_bytes()
    warn_below_popularity(Manifest.from_json(raw, path / MANIFEST).metrics)


def warn_of_repeats(evaluated: bool | None, served: bool) -> None:
    """Warns if seen items are treated otherwise when served than when evaluated.

    Args:
        evaluated: whether lists held seen items in the evaluation, if there was one.
        served: whether the bundle recommends them.
    """
    if evaluated is None or evaluated is served:
        return
    kept, other = ("kept", "leaves out") if evaluated else ("left out", "recommends")
    typer.echo(
        f"warning: the evaluation {kept} items that users had taken before, and the"
        f" bundle {other} them: its answers are not those that were measured. Set"
        " `repeats` in [evaluation] and in [serving] alike.",
        err=True,
    )

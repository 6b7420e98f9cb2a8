"""Warnings about a bundle that is exported or served, on stderr."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer


def warn_below_popularity(metrics: Mapping[str, Any]) -> None:
    """Warns about a model with metrics below those of popularity."""
    if problem := below_popularity(metrics):
        typer.echo(f"warning: {problem}", err=True)


def below_popularity(metrics: Mapping[str, Any]) -> str:
    """The warning about a model that is below popularity, or an empty string.

    Args:
        metrics: of a manifest: the report of an evaluation, or the verdict of the
            training under `validation`. Not validated.
    """
    verdict = metrics.get("verdict") or metrics.get("validation")
    if isinstance(verdict, Mapping) and verdict.get("is_below") is True:
        is_sure = verdict.get("result") == "worse"
        would = "would serve better" if is_sure else "may serve as well"
        return f"{verdict.get('text')} Recommending popular items {would}."
    # Reports of earlier versions have no verdict.
    compared = metrics.get("comparison")
    main = compared.get("ndcg@10") if isinstance(compared, Mapping) else None
    gain = main.get("difference") if isinstance(main, Mapping) else None
    if "verdict" in metrics or not isinstance(gain, int | float) or gain >= 0:
        return ""
    return (
        f"the model is worse than popularity: ndcg@10 {gain:+.4f} on the test part."
        " Recommending popular items would serve better."
    )


def warn_of_bundle(path: Path) -> None:
    """`warn_below_popularity` with the metrics in a bundle."""
    from shortlist.bundle.manifest import MANIFEST, Manifest

    raw = (path / MANIFEST).read_bytes()
    warn_below_popularity(Manifest.from_json(raw, path / MANIFEST).metrics)


def warn_of_repeats(evaluated: bool | None, served: bool) -> None:
    """Warns if serving handles seen items differently from the evaluation.

    Args:
        evaluated: whether lists contained seen items in the evaluation, if any.
        served: whether the bundle recommends them.
    """
    if evaluated is None or evaluated is served:
        return
    kept, other = ("kept", "leaves out") if evaluated else ("left out", "recommends")
    typer.echo(
        f"warning: the evaluation {kept} items that users had interacted with before,"
        f" but the bundle {other} them, so its answers differ from the measured ones."
        " Set `repeats` to the same value in [evaluation] and [serving].",
        err=True,
    )

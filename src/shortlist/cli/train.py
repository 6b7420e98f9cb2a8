"""`shortlist train`: DATASET + MODEL -> RUN."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shortlist.cli.options import (
    RECIPE_FILE,
    JsonOption,
    OverwriteOption,
    RecipeOption,
    SetOption,
    beside,
    open_recipe,
    print_result,
)
from shortlist.errors import InputError, RecipeError

if TYPE_CHECKING:
    from shortlist.training.runs.run import Run, RunInfo


def train(
    recipe: RecipeOption = Path(RECIPE_FILE),
    set_: SetOption = None,
    overwrite: OverwriteOption = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Resume an interrupted training."),
    ] = False,
    warm_start: Annotated[
        Path | None,
        typer.Option(help="Start from the weights of this run."),
    ] = None,
    new_days: Annotated[
        bool,
        typer.Option(
            "--new-days",
            help="Train only on events appended since the --warm-start run.",
        ),
    ] = False,
    probe_batch_size: Annotated[
        bool,
        typer.Option(
            "--probe-batch-size",
            help="Find and use the largest batches that fit in memory.",
        ),
    ] = False,
    profile: Annotated[
        bool,
        typer.Option("--profile", help="Report the time per step; write trace.json."),
    ] = False,
    time_budget: Annotated[
        str | None,
        typer.Option(help="Stop within this time, such as 90s, 10m or 2h."),
    ] = None,
    fast_dev_run: Annotated[
        bool,
        typer.Option(
            "--fast-dev-run", help="Run one batch of each stage; write nothing."
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Train retrieval and ranking, and keep the best weights on validation.

    Resume an interrupted training with --resume. The result is the same as without the
    interruption.
    """
    if time_budget is not None:
        set_ = [*(set_ or []), f"training.time_budget={minutes_of(time_budget)}"]
    unused = {
        "--resume": resume,
        "--overwrite": overwrite,
        "--probe-batch-size": probe_batch_size,
        "--profile": profile,
    }
    if fast_dev_run and any(unused.values()):
        given = ", ".join(name for name, is_given in unused.items() if is_given)
        raise InputError(
            "invalid-argument",
            f"--fast-dev-run cannot be combined with {given}: it runs one batch and"
            " writes nothing. Leave one of them out.",
        )
    loaded = open_recipe(recipe, set_)

    from shortlist.cli.stages import fast_dev_run_stage, train_stage
    from shortlist.training.options import TrainOptions

    if fast_dev_run:
        tried = fast_dev_run_stage(
            loaded, recipe, warm_start=warm_start, new_days=new_days
        )
        text = f"one batch of {' and '.join(tried.epochs)} works; nothing was written"
        seconds = tried.seconds["total"]
        print_result({"fast_dev_run": "passed", "seconds": seconds}, text, json)
        return
    run = train_stage(
        loaded,
        recipe,
        overwrite=overwrite,
        options=TrainOptions(
            resume=resume,
            warm_start=warm_start,
            new_days=new_days,
            probe_batch_size=probe_batch_size,
            profile=profile,
        ),
    )
    path = beside(recipe, loaded.output.run)
    print_result(*_result(run, path, profile=profile), json)


def _result(run: Run, path: Path, *, profile: bool) -> tuple[dict[str, Any], str]:
    """The result of a training, as plain values and as text."""
    from shortlist.cli.stages import verdict_of_run

    info, stages = run.info, [name for name in run.info.epochs if run.info.epochs[name]]
    best = info.validation.get("pipeline") or info.validation["retrieval"]
    verdict = verdict_of_run(run)
    result = {
        "run": str(path),
        "backend": info.backend,
        "epochs": info.epochs,
        "ranker_weight": info.ranker_weight,
        "validation": info.validation,
        "popularity": info.popularity,
        "verdict": verdict,
        "notes": list(info.notes),
        "batch_size": {name: run.recipe[name]["batch_size"] for name in stages},
        "seconds": info.seconds,
    }
    kept = [f"epoch {info.epochs[name]} of {name}" for name in stages]
    lines = [f"run {path}: " + (f"kept {' and '.join(kept)}" if kept else "fitted")]
    lines += _ranker_lines(info)
    lines.append(f"on validation: {_figures(best) or 'no validation part'}")
    if info.popularity:
        lines.append(f"popularity there: {_figures(info.popularity)}")
    lines += info.notes
    if verdict is not None:
        lines += [verdict["text"], verdict["next"]]
    text = "\n  ".join(lines)
    if profile and not (path / "trace.json").is_file():
        text += "\n  no trace: there was nothing left to train"
    elif profile:
        result |= {"profile": info.profile, "trace": str(path / "trace.json")}
        text += f"\n  trace of the steps: {path / 'trace.json'} (opens in Perfetto)"
    return result, text


def _ranker_lines(info: RunInfo) -> list[str]:
    """How the ranker is used, if there is one."""
    if "ranker" not in info.epochs:
        return []
    if info.ranker_weight:
        return [f"ranker weight {info.ranker_weight:g}"]
    if not info.validation.get("ranker_weights"):
        return ["the ranker is not used: there was no validation to choose its weight"]
    return ["the ranker did not help: items are in the order of retrieval"]


def _figures(metrics: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def minutes_of(text: str) -> float:
    """The minutes in a time such as 90s, 10m or 2h."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if found is None or not float(found[1]):
        raise RecipeError(
            "setting-invalid",
            "--time-budget must be a number above 0 with s, m or h. Received:"
            f" {text!r}. Write 10m for ten minutes.",
        )
    return float(found[1]) * {"s": 1 / 60, "m": 1.0, "h": 60.0}[found[2]]

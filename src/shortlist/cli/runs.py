"""`shortlist runs`: list the runs of the run store."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shortlist.cli.cross_validate import is_fold
from shortlist.cli.options import (
    RECIPE_FILE,
    JsonOption,
    RecipeOption,
    beside,
    open_recipe,
    print_result,
)
from shortlist.errors import ArtifactError, InputError, RecipeError, did_you_mean

if TYPE_CHECKING:
    from shortlist.training.runs.records import Record
    from shortlist.training.runs.run_store import RunStore

PLAIN_KEYS = ("created_at", "name", "seconds")


def runs(
    run: Annotated[
        str | None,
        typer.Argument(help="Show this run: its id or a unique prefix of it."),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(
            help="Sort by a metric (best first), seconds, name or created_at."
        ),
    ] = "created_at",
    reverse: Annotated[
        bool, typer.Option("--reverse", help="Reverse the order.")
    ] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Keep runs that match, such as 'test.ndcg@10>=0.3'; repeatable."
        ),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            help="Keep only finished, pruned, failed, interrupted or damaged runs."
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Keep only runs on the dataset with this fingerprint."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Show at most N runs.")
    ] = None,
    best: Annotated[
        str | None,
        typer.Option(help="Print only the folder of the best run by this metric."),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="The run store; default: from the recipe.")
    ] = None,
    recipe: RecipeOption = Path(RECIPE_FILE),
    json: JsonOption = False,
) -> None:
    """List the runs of the run store, show one, or find the best.

    Metrics are of the validation part; prefix them with test. for the test part, as in
    test.ndcg@10.
    """
    opened = open_store(store, recipe)
    if run is not None:
        record = opened.get(run)
        print_result(plain(record), run_text(record), json)
        return
    found = chosen(opened, best or sort, reverse, where or [], state, dataset)
    if best is None:
        found = found[:limit]
        result = {"store": str(opened.path), "runs": [plain(r) for r in found]}
        print_result(result, runs_table(found, sort), json)
        return
    if not dataset:
        found = [record for record in found if not is_fold(record.name)]
    record = best_of(found, best, opened.path)
    print_result(plain(record), record.path, json)


def open_store(path: Path | None, recipe: Path) -> RunStore:
    """The given run store, else that of the recipe.

    Raises:
        RecipeError: `recipe-missing`, or `store-unnamed`: neither is given.
        ArtifactError: `store-missing`, the folder does not exist.
    """
    if path is None:
        named = open_recipe(recipe, None).tracking.store
        if named is None:
            raise RecipeError(
                "store-unnamed",
                "No run store is given. Use --store DIR, or set `store` in [tracking]"
                " of the recipe.",
                file=recipe,
            )
        path = beside(recipe, named)
    if not path.is_dir():
        raise ArtifactError(
            "store-missing",
            f"There is no run store at {str(path)!r}. Train with `store` in [tracking]"
            " of the recipe, or choose another with --store.",
            file=path,
        )
    from shortlist.training.runs.run_store import RunStore

    return RunStore(path)


def chosen(
    store: RunStore,
    sort: str,
    reverse: bool,
    where: list[str],
    state: str | None,
    dataset: str | None,
) -> list[Record]:
    """The matching runs; by a metric the best first.

    Raises:
        InputError: `runs-query`, an unknown name or an invalid condition.
    """
    from shortlist.training.loop.stops import mode_of
    from shortlist.training.runs.records import STATES

    everything = store.records()
    if state is not None:
        known_name("--state", state, STATES)
    if everything:
        known = known_keys(everything)
        known_name("--sort or --best", sort, known)
        for condition in where:
            name = re.split("[<>=]", condition)[0].strip()
            known_name(f"A condition such as {condition!r}", name, known)
    ascending = sort not in PLAIN_KEYS and mode_of(sort) == "min"
    ascending |= sort == "name"
    found = store.records(
        sort=sort, ascending=ascending != reverse, where=where, state=state
    )
    return [r for r in found if r.dataset_fingerprint.startswith(dataset or "")]


def known_keys(records: list[Record]) -> list[str]:
    """The names that runs can be sorted by."""
    names = {*PLAIN_KEYS}
    for record in records:
        names |= set(record.validation)
        names |= {f"validation.{name}" for name in record.validation}
        names |= {f"test.{name}" for name in record.test}
    return sorted(names)


def known_name(what: str, name: str, known: tuple[str, ...] | list[str]) -> None:
    """Raises `InputError` unless the name is known."""
    if name not in known:
        raise InputError(
            "runs-query",
            f"{what} must name one of {', '.join(known)}. Received: {name!r}."
            f"{did_you_mean(name, known)}",
        )


def best_of(found: list[Record], metric: str, store: Path) -> Record:
    """The first finished run with the metric.

    Raises:
        InputError: `runs-query`, there is none, they are of several datasets, or the
            metric has no preferred direction.
    """
    if metric in PLAIN_KEYS:
        raise InputError(
            "runs-query",
            f"--best takes a metric; {metric!r} is not one. Use --sort {metric}.",
            file=store,
        )
    if not _has_direction(metric):
        better = [name for name in known_keys(found) if _has_direction(name)]
        raise InputError(
            "runs-query",
            f"{metric!r} has no preferred direction, so it has no best run. Use one of:"
            f" {', '.join(better)}, or --sort {metric}.",
            file=store,
        )
    measured = [r for r in found if r.state == "finished" and value_of(r, metric)]
    datasets = sorted({r.dataset_fingerprint for r in measured})
    if len(datasets) == 1:
        return measured[0]
    problem = (
        f"The runs are of several datasets: {', '.join(datasets)}. Their metrics cannot"
        " be compared. Choose one with --dataset."
        if datasets
        else f"No matching finished run has {metric!r}. Folds of a cross-validation are"
        " included only with --dataset."
    )
    raise InputError("runs-query", problem, file=store)


def _has_direction(key: str) -> bool:
    from shortlist.evaluation.metrics.table import higher_is_better

    metric = key.rpartition(".")[2]
    return key not in PLAIN_KEYS and higher_is_better(metric) is not None


def value_of(record: Record, key: str) -> str:
    """The sort key of a run as text; empty if the run does not have it."""
    if key in PLAIN_KEYS:
        return str(getattr(record, key))
    part, dot, metric = key.partition(".")
    if part not in ("validation", "test") or not dot:
        part, metric = "validation", key
    value = getattr(record, part).get(metric)
    return "" if value is None else f"{value:.4f}"


def plain(record: Record) -> dict[str, Any]:
    """The record as plain JSON values."""
    return {name: getattr(record, name) for name in record.__struct_fields__}


def runs_table(records: list[Record], sort: str) -> str:
    """One line per run."""
    if not records:
        return "no matching runs"
    metric = sort
    if sort in PLAIN_KEYS:
        named = (name for record in records for name in record.validation)
        metric = next(named, "")
    wide = max(len(metric), 8)
    lines = [
        f"{'run':<24} {'ended (UTC)':<19} {'state':<11} {'dataset':<8}"
        f" {'seconds':>8} {metric:>{wide}}  name"
    ]
    for r in records:
        lines.append(
            f"{r.id:<24} {r.created_at[:19]:<19} {r.state:<11}"
            f" {r.dataset_fingerprint[:8]:<8} {r.seconds:>8.1f}"
            f" {value_of(r, metric) if metric else '':>{wide}}  {r.name}"
        )
    return "\n".join(lines)


def run_text(record: Record) -> str:
    """One run in full."""
    lines = [
        f"run {record.id}: {record.state}, {record.name}",
        f"  folder   {record.path}",
        f"  ended    {record.created_at} after {record.seconds:.1f} s",
        f"  dataset  {record.dataset_fingerprint}",
        f"  recipe   {record.recipe_hash}, backend {record.backend}",
    ]
    for part in ("validation", "test"):
        metrics = getattr(record, part)
        if metrics:
            shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
            lines.append(f"  on {part}: {shown}")
    if record.error:
        lines.append(f"  error    {record.error}")
    return "\n".join(lines)

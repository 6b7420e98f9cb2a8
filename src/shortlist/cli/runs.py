"""`shortlist runs`: what the run store holds."""

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
        typer.Argument(help="Show this run: its id, or what only it begins with."),
    ] = None,
    sort: Annotated[
        str, typer.Option(help="A metric, seconds, name or created_at; best first.")
    ] = "created_at",
    reverse: Annotated[
        bool, typer.Option("--reverse", help="The other way round.")
    ] = False,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only runs with, such as 'test.ndcg@10>=0.3'; repeatable."),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(help="Only finished, pruned, failed, interrupted or damaged."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Only runs on the dataset with this fingerprint."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    best: Annotated[
        str | None,
        typer.Option(help="Print the folder of the run that is best by this metric."),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="The run store; default: the recipe's.")
    ] = None,
    recipe: RecipeOption = Path(RECIPE_FILE),
    json: JsonOption = False,
) -> None:
    """List the runs of the run store, show one, or find the best.

    A metric is of the validation part; that of the test part is named test.ndcg@10.
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
    """The run store that was named, else the recipe's.

    Raises:
        RecipeError: `recipe-missing`, or `store-unnamed`: neither names one.
        ArtifactError: `store-missing`, no folder is there.
    """
    if path is None:
        named = open_recipe(recipe, None).tracking.store
        if named is None:
            raise RecipeError(
                "store-unnamed",
                "A run store must be named, by --store DIR or by `store` in [tracking]"
                " of the recipe. Received: neither.",
                file=recipe,
            )
        path = beside(recipe, named)
    if not path.is_dir():
        raise ArtifactError(
            "store-missing",
            f"A run store must be at {str(path)!r}; there is no such folder. Train with"
            " `store` in [tracking] of the recipe, or name another with --store.",
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
    """The runs asked for, best first: metrics by what is better in them.

    Raises:
        InputError: `runs-query`, a name that no run has or a condition that is none.
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
    """What runs can be sorted by."""
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
    """The first finished run, which has the metric.

    Raises:
        InputError: `runs-query`, there is none, they are of several datasets, or
            neither end of the metric is better.
    """
    if metric in PLAIN_KEYS:
        raise InputError(
            "runs-query",
            f"The best run is so by a metric. Received: {metric!r}. Use --sort for it.",
            file=store,
        )
    if not _has_better_end(metric):
        better = [name for name in known_keys(found) if _has_better_end(name)]
        raise InputError(
            "runs-query",
            f"The best run is so by a metric with a better end: {', '.join(better)}."
            f" Received: {metric!r}, of which more is neither better nor worse. Use"
            " --sort for it.",
            file=store,
        )
    measured = [r for r in found if r.state == "finished" and value_of(r, metric)]
    datasets = sorted({r.dataset_fingerprint for r in measured})
    if len(datasets) == 1:
        return measured[0]
    problem = (
        f"Metrics of several datasets cannot be compared: {', '.join(datasets)}. Choose"
        " one with --dataset."
        if datasets
        else f"A finished run must have {metric!r}. None of those asked for has it."
        " Folds of a cross-validation count only on their own dataset: --dataset."
    )
    raise InputError("runs-query", problem, file=store)


def _has_better_end(key: str) -> bool:
    from shortlist.evaluation.metrics.table import higher_is_better

    metric = key.rpartition(".")[2]
    return key not in PLAIN_KEYS and higher_is_better(metric) is not None


def value_of(record: Record, key: str) -> str:
    """What a run is sorted by, as text; empty if it has no such thing."""
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
        return "no such runs"
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
    """All that the index knows of one run."""
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

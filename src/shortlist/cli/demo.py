"""`shortlist demo`: MovieLens-100K from the log to a served answer."""

from __future__ import annotations

import contextlib
import hashlib
import json as json_module
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shortlist.cli.options import RECIPE_FILE, beside, need_backend
from shortlist.errors import InputError
from shortlist.packages import need_package

if TYPE_CHECKING:
    from shortlist.data.store.dataset import Dataset
    from shortlist.public_data.logs import PublicLog
    from shortlist.recipe import Recipe
    from shortlist.serving.http.server import RunningServer
    from shortlist.serving.recommender import Recommender

DEMO, DEMO_FILE = "shortlist-demo", "demo.json"
SAMPLE_USERS = 3
SHOWN_ITEMS = 5
# Chosen on the validation part of the training data: docs/log.md.
OVERRIDES: dict[str, dict[str, Any]] = {
    "recipe": {"name": "movielens-100k"},
    "retrieval": {"embedding_dim": 128},
}


def demo(
    folder: Annotated[
        Path, typer.Option(help="Output folder; replaced on each run.")
    ] = Path("shortlist-demo"),
    check: Annotated[
        bool, typer.Option("--check", help="Send one request to the server and exit.")
    ] = False,
    json: Annotated[
        Path | None,
        typer.Option("--json", help="Write metrics and times to this file."),
    ] = None,
    port: Annotated[
        int, typer.Option(help="Port; the next free one if it is taken.")
    ] = 8000,
    seed: Annotated[int, typer.Option(help="Seed of the training.")] = 0,
) -> None:
    """Prepare, train, evaluate, pack and serve MovieLens-100K."""
    recipe_path = folder / RECIPE_FILE
    check_folder(folder)
    if json is not None:
        _check_figures(json)
    need_backend()
    need_package("granian", "serve")

    from shortlist.cli import stages

    clock = Clock()
    with clock.stage("fetch"):
        source = _fetch()
    typer.echo(f"{source.notice}\n")
    recipe = _recipe(source, recipe_path, seed)
    with clock.stage("prepare"):
        dataset = stages.prepare_stage(recipe, recipe_path, overwrite=True)
    sizes = ", ".join(f"{name} {rows:,}" for name, rows in dataset.info.parts.items())
    typer.echo(f"prepared: {sizes} events (each user's newest 20 % is the test part)")
    with clock.stage("train"):
        stages.train_stage(recipe, recipe_path, overwrite=True)
    with clock.stage("evaluate"):
        report = stages.evaluate_stage(recipe, recipe_path)
    with clock.stage("export"):
        stages.export_stage(recipe, recipe_path, history="evaluation", overwrite=True)
    figures: dict[str, Any] = {"metrics": report["metrics"], "seconds": clock.seconds}
    _show(report, clock)
    _serve(recipe, recipe_path, dataset, clock, figures, port=port, check=check)
    if json is not None:
        from shortlist.training.runs.run import write_json

        write_json(json, figures)
        typer.echo(f"figures written to {json}")


def check_folder(folder: Path) -> None:
    """Checks that only the files of an earlier demo would be replaced.

    Raises:
        InputError: the folder has another recipe or output (`output-foreign`).
    """
    names = (RECIPE_FILE, "dataset", "run", ".run.training", "bundle")
    there = [name for name in names if (folder / name).exists()]
    recipe, digest = folder / RECIPE_FILE, ""
    if recipe.is_file():
        digest = hashlib.sha256(recipe.read_bytes()).hexdigest()
    if there and (not digest or _of_earlier(folder / DEMO_FILE) != digest):
        raise InputError(
            "output-foreign",
            "The demo only replaces unchanged files of an earlier demo. Found"
            f" {', '.join(map(repr, there))} in {str(folder)!r}. Nothing was changed."
            " Choose another --folder, or remove them.",
            file=folder,
        )


def _of_earlier(file: Path) -> str | None:
    """The SHA-256 of the recipe that an earlier demo wrote; `None` without one."""
    try:
        found = json_module.loads(file.read_bytes())
        digest = found["files"][RECIPE_FILE]
    except (FileNotFoundError, ValueError, TypeError, LookupError):
        return None
    return digest if isinstance(digest, str) and found["format"] == DEMO else None


def _check_figures(file: Path) -> None:
    from shortlist.atomic import check_file

    def is_ours(_: bytes) -> bool:
        with contextlib.suppress(ValueError, AttributeError):
            values = json_module.loads(file.read_bytes())
            return bool({"metrics", "seconds"} <= values.keys())
        return False

    check_file(file, is_ours, overwrite=True, name="the figures of a demo")


class Clock:
    """Seconds of each stage, and since the start of the command."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measures one stage."""
        began = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - began, 3)

    def first_answer(self) -> None:
        """Notes the moment of the first served answer."""
        since = time.perf_counter() - self.started
        self.seconds["to_first_answer"] = round(since, 3)


def _fetch() -> PublicLog:
    from shortlist.public_data.logs import fetch

    return fetch("ml-100k")


def _recipe(source: PublicLog, path: Path, seed: int) -> Recipe:
    """The recipe that `shortlist init` would write, with the demo's settings."""
    from shortlist.cli.recipe_text import write_recipe
    from shortlist.data.guess.schema import guess_schema
    from shortlist.data.read.inputs import LogFiles
    from shortlist.recipe import load_recipe
    from shortlist.training.runs.run import write_json

    files = LogFiles(source.events, users=source.users, items=source.items)
    guess = guess_schema(files)
    write_recipe(
        path,
        guess,
        log=source.events,
        users=source.users,
        items=source.items,
        overrides={**OVERRIDES, "recipe": {**OVERRIDES["recipe"], "seed": seed}},
        overwrite=True,
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    write_json(path.parent / DEMO_FILE, {"format": DEMO, "files": {path.name: digest}})
    return load_recipe(path)


def _show(report: dict[str, Any], clock: Clock) -> None:
    from shortlist.cli.tables import metrics_table, verdict_lines

    lines = [*verdict_lines(report["verdict"]), metrics_table(report)]
    typer.echo("\n" + "\n".join(lines) + "\n")
    stages = ", ".join(f"{name} {value:.1f}" for name, value in clock.seconds.items())
    typer.echo(f"seconds: {stages}")


def _serve(
    recipe: Recipe,
    recipe_path: Path,
    dataset: Dataset,
    clock: Clock,
    figures: dict[str, Any],
    *,
    port: int,
    check: bool,
) -> None:
    """Serves the bundle; with `check`, until the first answer."""
    from shortlist.serving import Recommender
    from shortlist.serving.http.server import serve

    bundle = beside(recipe_path, recipe.output.bundle)
    users = _sample_users(dataset)
    for line in _samples(dataset, Recommender.load(bundle), users):
        typer.echo(line)
    body = json_module.dumps({"user_id": users[0], "k": SHOWN_ITEMS})

    def on_ready(running: RunningServer) -> None:
        url = f"{running.url}/api/v1/recommend"
        request = urllib.request.Request(
            url, body.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            figures["answer"] = json_module.load(response)
        clock.first_answer()
        typer.echo(
            f"\nserving at {running.url}; first answer"
            f" {clock.seconds['to_first_answer']:.1f} s after the start. Try:\n"
            f"  curl -s {url} -H 'Content-Type: application/json' -d '{body}'"
        )
        if check:
            running.stop()
        else:
            typer.echo("Press Ctrl-C to stop.")

    serve(bundle, port=port, port_search=True, on_ready=on_ready)


def _sample_users(dataset: Dataset) -> list[Any]:
    """Users from the middle of the vocabulary, with an average number of events."""
    users = dataset.vocabularies["user"]
    step = len(users) // (SAMPLE_USERS + 1)
    return [users.id(step * place) for place in range(1, SAMPLE_USERS + 1)]


def _samples(
    dataset: Dataset, recommender: Recommender, user_ids: list[Any]
) -> Iterator[str]:
    """Titles that the sample users liked, and their recommendations."""
    from shortlist.data.split import KNOWN

    title = dataset.schema.title or "id"
    titles = dataset.items[title].to_list()
    events = dataset.part(*KNOWN["test"])
    for user_id in user_ids:
        mine = events.take(
            events.user_index == dataset.vocabularies["user"].row(user_id)
        )
        liked = mine.take(mine.label >= dataset.schema.positive_from)
        names = [titles[row] for row in liked.item_index[::-1][:SHOWN_ITEMS]]
        answer = recommender.recommend(user_id, k=SHOWN_ITEMS)
        titles_of = "; ".join(str(item.title) for item in answer.items)
        yield f"\nuser {user_id} recently liked: {'; '.join(map(str, names))}"
        yield f"recommended to user {user_id}: {titles_of}"

"""A commented recipe file out of what was guessed about a log."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shortlist.atomic import atomic_file, check_file
from shortlist.cli.recipe_toml import comment, toml_value
from shortlist.data.split import Split
from shortlist.recipe import (
    EvaluationSection,
    OutputSection,
    RankerSection,
    RetrievalSection,
    Section,
)

if TYPE_CHECKING:
    from pydantic import BaseModel

    from shortlist.data.guess import Guess

FEW_EVENTS = 15  # a user with fewer would give no validation event as a share

Override = dict[str, dict[str, Any]]

_RETRIEVAL_NOTES = {
    "kind": "or ease, burst_als, item_knn, als, popularity, factorization, blend",
    "embedding_dim": "width of the user and item vectors",
    "feature_dim": "width of the tables of side features",
    "hidden_units": "hidden layers of each tower, such as [128]",
    "history_length": "newest items the user tower reads; 0 for none",
    "dropout": "share of the looked-up inputs dropped in training",
    "unknown_rate": "share of events trained as an unknown user, for cold starts",
    "temperature": "scores are divided by it: smaller is sharper",
    "similarity": "cosine or dot product",
    "num_queries": "user vectors per user; the best one counts",
    "history": "mean of the items, or gru or attention over their order",
    "loss": "sampled_softmax, bpr or hinge",
    "negatives": "in_batch, mixed (and drawn ones) or all (a small catalogue)",
    "patience": "epochs without a better validation nDCG@10 before it stops",
}
_RANKER_NOTES = {
    "enabled": "false serves retrieval alone",
    "kind": "multi_task has heads: see docs/recipe.md",
    "objective": "explicit predicts the label, binary the chance of an event; listwise",
    "interaction": "or ncf, wide_deep, deepfm, dcn, dcn_low_rank, dlrm",
    "cross_layers": "of dcn and dcn_low_rank",
    "table_l2": "pulls the table rows of a batch towards 0",
    "negatives": "drawn per event for objective = binary and listwise",
    "bottom": "of multi_task; or mmoe",
    "candidates": "items the ranker re-scores",
    "weights": "tried on the validation part; the best is kept",
}


def write_recipe(
    path: Path,
    guess: Guess,
    *,
    log: Path,
    users: Path | None,
    items: Path | None,
    overrides: Override | None = None,
    overwrite: bool = False,
) -> None:
    """Writes the recipe file.

    Args:
        path: the file to write.
        guess: what the columns are taken to be, and why.
        log: the interaction log.
        users: the user attribute file.
        items: the item attribute file.
        overrides: values other than the defaults, by section and field.
        overwrite: replace an existing file.
    """
    check_file(
        path,
        lambda _: _is_recipe(path),
        overwrite=overwrite,
        name="a recipe",
        inputs=[file for file in (log, users, items) if file is not None],
    )
    changed = overrides or {}
    objective = "explicit" if guess.schema.label_kind == "explicit" else "binary"
    ranker = {"objective": objective, **changed.get("ranker", {})}
    named = (("events", log), ("users", users), ("items", items))
    blocks = [
        "# Written by `shortlist init` from the log: check the guesses, then run",
        "#   shortlist prepare && shortlist train && shortlist evaluate",
        "#   shortlist export && shortlist serve",
        "version = 1",
        _line("name", changed.get("recipe", {}).get("name", "recommender")),
        _line("seed", changed.get("recipe", {}).get("seed", 0)),
        "\n[log]  # paths from the folder of this file",
        *(_line(name, _from(path, file)) for name, file in named if file),
        *(
            _line(name, column)
            for name, column in (
                ("users_id", guess.users_id if users else None),
                ("items_id", guess.items_id if items else None),
            )
            if column is not None
        ),
        _line("layout", guess.layout),
        *_columns(guess),
        "\n[split]",
        *_split(guess),
        "\n[retrieval]",
        *_section(RetrievalSection, _RETRIEVAL_NOTES, changed.get("retrieval", {})),
        "\n[ranker]",
        *_section(RankerSection, _RANKER_NOTES, ranker),
        "\n[evaluation]",
        *_section(EvaluationSection, {}, changed.get("evaluation", {})),
        "\n[output]  # folders beside this file",
        *_section(OutputSection, {"compression": "of the dataset; or zstd"}, {}),
    ]
    with atomic_file(path) as temporary:
        temporary.write_text("\n".join(blocks) + "\n", encoding="utf-8")


def _is_recipe(path: Path) -> bool:
    """Whether a file may be a recipe, perhaps one with a mistake in it."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return path.suffix == ".toml"
    return not values or not values.keys().isdisjoint(("log", "columns"))


def _columns(guess: Guess) -> list[str]:
    schema, why = guess.schema, guess.reasons
    lines = ["\n[columns]"]
    for name in ("user_id", "item_id", "timestamp", "label", "title"):
        if (value := getattr(schema, name)) is not None:
            lines.append(_line(name, value, why.get(name)))
    lines.append(_line("label_kind", schema.label_kind, why.get("label_kind")))
    note = why.get("positive_from")
    lines.append(_line("positive_from", schema.positive_from, note))
    for name in ("label_min", "label_max"):
        if (value := getattr(schema, name)) is not None:
            lines.append(_line(name, value))
    for feature in schema.features:
        lines.append("\n[[columns.features]]")
        lines.append(_line("name", feature.name, why.get(feature.name)))
        lines.append(_line("owner", feature.owner))
        lines.append(_line("kind", feature.kind))
        if feature.vocabulary:
            lines.append(_line("vocabulary", feature.vocabulary))
        if feature.kind == "multi_valued":
            lines.append(_line("separator", feature.separator))
    used = {f.name for f in schema.features}
    used |= {"user_id", "item_id", "timestamp", "label", "label_kind"}
    used |= {"title", "positive_from"}
    left_out = [f"# {comment(f'{n}: {why[n]}')}" for n in why if n not in used]
    return [*lines, *(["", "# Columns left out:", *left_out] if left_out else [])]


def default_split(guess: Guess) -> Split:
    """Shares of each user's events, or single events where a share would be none."""
    if guess.events_per_user < FEW_EVENTS:
        return Split(kind="last_n", test=1, validation=1)
    return Split(kind="last_fraction", test=0.2, validation=0.1)


def _split(guess: Guess) -> list[str]:
    split = default_split(guess)
    few = split.kind == "last_n"
    others = "last_fraction" if few else "last_n"
    held_out = "each user's newest event" if few else "each user's newest share"
    note = "of the rest: early stopping, ranker weight"
    return [
        _line("kind", split.kind, f"or {others}, time_cut, random, files"),
        _line("test", split.test, f"{held_out}, never trained or tuned on"),
        _line("validation", split.validation, note),
    ]


def _section(
    section: type[BaseModel], notes: dict[str, str], changed: dict[str, Any]
) -> list[str]:
    return [
        _line(name, changed.get(name, field.default), notes.get(name))
        for name, field in section.model_fields.items()
        if not isinstance(field.default, Section | dict)  # sections of their own
        and changed.get(name, field.default) is not None  # TOML has no null
    ]


def _line(name: str, value: Any, note: str | None = None) -> str:
    line = f"{name} = {toml_value(value)}"
    return f"{line}  # {comment(note)}" if note else line


def _from(recipe: Path, file: Path) -> str:
    """The file as the recipe names it: relative when it lies below the recipe."""
    folder, file = recipe.resolve().parent, file.resolve()
    below = file.is_relative_to(folder)
    return os.path.relpath(file, folder) if below else str(file)

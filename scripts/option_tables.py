"""Writes the tables of docs/recipe.md that list the options of a model.

Each table is between `<!-- options: SECTION -->` and `<!-- end -->` and is generated
from the fields, defaults and notes of the section. Run this after changing an option:

    python scripts/option_tables.py
"""

from __future__ import annotations

import re
from pathlib import Path

from shortlist.cli.recipe_toml import toml_value
from shortlist.models.options import Head
from shortlist.options import Options
from shortlist.recipe import RankerSection, RetrievalSection

PAGE = Path(__file__).parents[1] / "docs" / "recipe.md"
BLOCK = re.compile(r"<!-- options: (\S+) -->\n.*?<!-- end -->", re.DOTALL)


def sections() -> dict[str, type[Options]]:
    """Every section whose table is generated, by its name in the recipe."""
    found: dict[str, type[Options]] = {"retrieval": RetrievalSection}
    for name, field in RetrievalSection.model_fields.items():
        if isinstance(field.default, Options):
            found[f"retrieval.{name}"] = type(field.default)
    return found | {"ranker": RankerSection, "ranker.heads": Head}


def table(section: type[Options]) -> str:
    """The fields of a section as a Markdown table."""
    notes = section.notes()
    lines = ["| Field | Default | Meaning |", "|---|---|---|"]
    for name, field in section.model_fields.items():
        note = notes.get(name)
        if field.is_required():
            default = "required"
        elif isinstance(field.default, Options):
            default, note = "a table", f"below; used where kind = {name}"
        elif field.default is None:
            default = "none"
        else:
            default = f"`{toml_value(field.default)}`"
        lines.append(f"| `{name}` | {default} | {note} |")
    return "\n".join(lines)


def rendered(page: str) -> str:
    """The page with every table as it should be."""
    tables = sections()

    def block(match: re.Match[str]) -> str:
        name = match[1]
        return f"<!-- options: {name} -->\n{table(tables[name])}\n<!-- end -->"

    return BLOCK.sub(block, page)


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

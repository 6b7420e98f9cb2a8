"""`shortlist convert`: TABLES -> one flat Arrow file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shortlist.cli.options import JsonOption, OverwriteOption, print_result


def convert(
    sources: Annotated[
        list[Path], typer.Argument(help="TFRecord, CSV, NDJSON, Parquet or Arrow.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Arrow file to write.")],
    compression: Annotated[
        str | None, typer.Option(help="zstd; default: none, to map the file.")
    ] = None,
    rows_per_record: Annotated[
        int | None,
        typer.Option(help="TFRecord: 1, or the rows of a batch; detected by default."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A reading option: log.FIELD=VALUE, as in a recipe; repeatable.",
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Write a flat training table as one Arrow file with narrow types."""
    from shortlist.data.convert import convert_tables
    from shortlist.recipe import load_reading

    rows = convert_tables(
        sources,
        out,
        rows_per_record=rows_per_record,
        compression=compression,  # type: ignore[arg-type] # checked there
        overwrite=overwrite,
        format=load_reading(set_ or []).file_format(),
    )
    before = sum(source.stat().st_size for source in sources)
    after = out.stat().st_size
    result = {"out": str(out), "rows": rows, "bytes_before": before}
    result["bytes_after"] = after
    text = (
        f"{out} written: {rows:,} rows; {before / rows:.1f} bytes per row before,"
        f" {after / rows:.1f} after"
    )
    print_result(result, text, json)

"""`shortlist convert`: tables of any layout to one Arrow file."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from shortlist.data import write_tfrecord

TABLE = pl.DataFrame({"item": [1, 2, 3], "label": [0, 1, 0], "user": [1, 300, 7]})


def test_files_become_one_narrow_file(call, tmp_path: Path) -> None:
    first, second = tmp_path / "a.tfrecord", tmp_path / "b.tfrecord"
    write_tfrecord(first, TABLE, rows_per_record=2)
    write_tfrecord(second, TABLE, rows_per_record=2)
    out = tmp_path / "out.arrow"
    result = call("convert", first, second, "--out", out, "--json")
    assert result.code == 0
    sizes = [path.stat().st_size for path in (first, second, out)]
    assert result.json == {
        "out": str(out),
        "rows": 6,
        "bytes_before": sizes[0] + sizes[1],
        "bytes_after": sizes[2],
    }
    assert pl.read_ipc(out).cast(pl.Int64).equals(pl.concat([TABLE, TABLE]))
    again = call("convert", first, "--out", out)
    assert (again.code, "error[output-exists]" in again.err) == (2, True)
    again = call("convert", first, "--out", out, "--overwrite", "--compression", "zstd")
    assert again.code == 0
    assert "3 rows; " in again.out and "bytes per row before" in again.out


def test_rows_per_record_and_other_layouts(call, tmp_path: Path) -> None:
    records, text, out = (tmp_path / name for name in ("a", "log.csv", "out.arrow"))
    write_tfrecord(records, TABLE.select("user"), rows_per_record=2)
    result = call("convert", records, "--out", out)
    assert (result.code, "error[log-record-rows]" in result.err) == (2, True)
    assert "--rows-per-record" in result.err
    result = call("convert", records, "--out", out, "--rows-per-record", "2")
    assert result.code == 0
    assert pl.read_ipc(out)["user"].to_list() == [1, 300, 7]
    TABLE.write_csv(text)
    assert call("convert", text, "--out", out, "--overwrite").code == 0
    assert pl.read_ipc(out).rows() == TABLE.rows()
    result = call("convert", tmp_path / "none", "--out", out, "--overwrite")
    assert (result.code, "error[log-file-missing]" in result.err) == (2, True)


def test_settings_of_reading_are_those_of_a_recipe(call, tmp_path: Path) -> None:
    text, out = tmp_path / "log.csv", tmp_path / "out.arrow"
    text.write_bytes("Jos\xe9|1\nAnn|2\n".encode("latin-1"))
    refused = call("convert", text, "--out", out)
    assert (refused.code, "log-encoding" in refused.err) == (2, True)
    settings = ["log.encoding=latin-1", 'log.column_names=["user", "item"]']
    result = call("convert", text, "--out", out, *(f"--set={s}" for s in settings))
    assert result.code == 0, result.err
    assert pl.read_ipc(out).rows() == [("Jos\xe9", 1), ("Ann", 2)]
    other = call("convert", text, "--out", out, "--set=seed=1", "--overwrite")
    assert (other.code, "setting-invalid" in other.err) == (2, True)

"""Vocabularies against a plain dictionary: rows, order, unknown ids, the file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.data import Vocabulary
from shortlist.data.store.vocabulary import vocabulary_file
from shortlist.errors import ArtifactError, InputError

TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
OCCURRENCES = st.one_of(
    st.lists(st.one_of(st.none(), TEXT, st.sampled_from("abc")), max_size=30).map(
        lambda ids: pl.Series(ids, dtype=pl.String)
    ),
    st.lists(st.one_of(st.none(), INTEGERS, st.integers(0, 3)), max_size=30).map(
        lambda ids: pl.Series(ids, dtype=pl.Int64)
    ),
)


def vocabulary(ids: list[str] | list[int]) -> Vocabulary:
    return Vocabulary("item", pl.Series(ids), np.ones(len(ids), np.int64))


@given(OCCURRENCES, st.integers(1, 3))
def test_rows_are_most_frequent_first_then_by_id(occurrences, min_count):
    counter = Counter(i for i in occurrences.to_list() if i is not None)
    kept = [i for i in counter if counter[i] >= min_count]
    if occurrences.dtype == pl.String:
        kept.sort(key=lambda i: i.encode())
    else:
        kept.sort()
    kept.sort(key=lambda i: -counter[i])
    fitted = Vocabulary.fit("x", occurrences, min_count=min_count)
    assert fitted.ids.to_list() == [None, *kept]
    assert fitted.counts.tolist() == [0, *(counter[i] for i in kept)]
    assert fitted.counts.dtype == np.int64
    assert len(fitted) == 1 + len(kept)


@given(OCCURRENCES, OCCURRENCES)
def test_lookups_agree_with_a_dictionary(occurrences, asked):
    fitted = Vocabulary.fit("x", occurrences)
    rows = {external: row for row, external in enumerate(fitted.ids.to_list()) if row}
    if asked.dtype == occurrences.dtype:
        expected = [rows.get(i, 0) for i in asked.to_list()]
    else:
        spelled = {str(external): row for external, row in rows.items()}
        expected = [0 if i is None else spelled.get(str(i), 0) for i in asked.to_list()]
    assert fitted.lookup_series(asked).tolist() == expected
    assert fitted.lookup_series(asked).dtype == np.int32
    known = [i for i in asked.to_list() if i is not None]
    found = fitted.lookup(known)
    assert found.dtype == np.int32
    assert found.tolist() == [
        e for e, i in zip(expected, asked.to_list(), strict=True) if i is not None
    ]
    for external, row in rows.items():
        assert fitted.id(row) == external
        assert fitted.row(external) == row


def test_file_round_trip_of_odd_ids(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabularies")

    @settings(max_examples=30)
    @given(OCCURRENCES)
    def round_trip(occurrences):
        fitted = Vocabulary.fit("items", occurrences)
        fitted.save(folder / "items.arrow")
        loaded = Vocabulary.load(folder / "items.arrow")
        assert loaded.name == "items"
        assert loaded.ids.dtype == fitted.ids.dtype
        assert loaded.ids.to_list() == fitted.ids.to_list()
        assert loaded.counts.tolist() == fitted.counts.tolist()
        assert loaded.lookup_series(occurrences).tolist() == (
            fitted.lookup_series(occurrences).tolist()
        )

    round_trip()


def test_record_of_the_file_is_the_row(tmp_path):
    Vocabulary.fit("x", pl.Series(["b", "a", "b"])).save(tmp_path / "x.arrow")
    frame = pl.read_ipc(tmp_path / "x.arrow")
    assert frame.rows() == [(None, 0), ("b", 2), ("a", 1)]
    assert frame.schema == {"id": pl.String, "count": pl.Int64}


def test_text_finds_an_integer_only_in_its_usual_spelling():
    integers = vocabulary([7, -3])
    assert integers.is_integer
    assert integers.row("7") == integers.row(7) == 1
    assert integers.row("-3") == 2
    for other in ("007", " 7", "+7", "7.0", "7_0", "٧", "seven", "", "9" * 5000):
        assert integers.row(other) == 0
    assert integers.lookup([7, "7", "x", 8]).tolist() == [1, 1, 0, 0]
    column = pl.Series(["7", "007", " 7", "+7", "7.0", "٧", "", "9" * 50, None, "-3"])
    assert integers.lookup_series(column).tolist() == [1, *[0] * 8, 2]
    for dtype in (pl.Int8, pl.Int32, pl.Categorical):
        asked = pl.Series(["7", "8"]).cast(dtype)
        assert integers.lookup_series(asked).tolist() == [1, 0]


def test_integer_finds_its_text():
    texts = vocabulary(["7", "007", "a"])
    assert not texts.is_integer
    assert texts.row(7) == 1
    assert texts.row("007") == 2
    assert texts.row(8) == 0
    assert texts.lookup_series(pl.Series([7, 8, None])).tolist() == [1, 0, 0]


@pytest.mark.parametrize("ids", [[7, -3], ["7", "None"]])
@pytest.mark.parametrize("buckets", [1, 5])
def test_what_is_no_id_is_unknown_and_a_missing_one_has_row_0(ids, buckets):
    counts = np.ones(len(ids), np.int64)
    fitted = Vocabulary("x", pl.Series(ids), counts, oov_buckets=buckets)
    assert fitted.row(None) == 0
    assert fitted.lookup([None, 7]).tolist() == [0, buckets]
    assert fitted.lookup_series(pl.Series([None, 7])).tolist() == [0, buckets]
    assert fitted.row(np.int64(7)) == buckets
    for other in (1.5, float("inf"), float("nan"), [7], {}, b"7"):
        assert 0 <= fitted.row(other) < buckets


def test_ids_keep_their_exact_characters():
    ids = ["a b", "a/b", 'quo"te', "😀", "é", "e\u0301", "A", "a", " a"]
    vocabulary_of_all = vocabulary(ids)
    assert [vocabulary_of_all.id(vocabulary_of_all.row(i)) for i in ids] == ids
    assert len({vocabulary_of_all.row(i) for i in ids}) == len(ids)


def test_integers_beyond_the_exact_floats_stay_apart():
    ids = [2**63 - 1, 2**63 - 2, -(2**63), 2**53, 2**53 + 1]
    fitted = Vocabulary.fit("x", pl.Series(ids))
    assert sorted(fitted.lookup(ids)) == [1, 2, 3, 4, 5]
    assert [fitted.id(fitted.row(str(i))) for i in ids] == ids


def test_rare_ids_are_out_of_vocabulary():
    fitted = Vocabulary.fit("x", pl.Series([5, 5, 9]), min_count=2)
    assert fitted.lookup([5, 9]).tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [pl.String, pl.Int64])
def test_vocabulary_of_nothing_has_row_zero_only(tmp_path, dtype):
    empty = Vocabulary.fit("x", pl.Series([None, None], dtype=dtype))
    assert len(empty) == 1
    assert empty.lookup_series(pl.Series([None, None], dtype=dtype)).tolist() == [0, 0]
    empty.save(tmp_path / "x.arrow")
    assert len(Vocabulary.load(tmp_path / "x.arrow")) == 1


@pytest.mark.parametrize("row", [0, -1, 3])
def test_row_outside_the_vocabulary_has_no_id(row):
    with pytest.raises(InputError, match=rf"must be 1\.\.2. Received: {row}") as caught:
        vocabulary(["a", "b"]).id(row)
    assert caught.value.code == "row-out-of-range"


def test_repeated_ids_and_missing_counts_are_refused():
    with pytest.raises(InputError, match="2 ids, 1 of them distinct") as caught:
        vocabulary(["a", "a"])
    assert caught.value.code == "vocabulary-inconsistent"
    with pytest.raises(InputError, match="one count each"):
        Vocabulary("x", pl.Series(["a"]), np.zeros(2, np.int64))


def test_other_types_than_text_and_integers_are_refused():
    with pytest.raises(InputError, match="Received: Float64 in .*'item'") as caught:
        vocabulary([0.5])
    assert caught.value.code == "vocabulary-id-type"


@pytest.mark.parametrize("name", ["a/b", "../up", "100%", "%2F", ".hidden", "a b", "é"])
def test_any_name_has_a_file_of_its_own_folder(tmp_path, name):
    file = vocabulary_file(name)
    assert Path(file).name == file
    Vocabulary.fit(name, pl.Series(["x"])).save(tmp_path / file)
    assert Vocabulary.load(tmp_path / file).name == name


def frames() -> dict[str, pl.DataFrame]:
    return {
        "no-count": pl.DataFrame({"id": [None, "a"]}),
        "no-id": pl.DataFrame({"count": [0, 1]}),
        "text-counts": pl.DataFrame({"id": [None, "a"], "count": ["0", "many"]}),
        "float-ids": pl.DataFrame({"id": [None, 0.5], "count": [0, 1]}),
        "repeated": pl.DataFrame({"id": [None, "a", "a"], "count": [0, 1, 1]}),
    }


@pytest.mark.parametrize("name", frames())
def test_arrow_file_of_something_else_is_unreadable(tmp_path, name):
    file = tmp_path / "x.arrow"
    frames()[name].write_ipc(file)
    with pytest.raises(ArtifactError, match="an Arrow file with columns id") as caught:
        Vocabulary.load(file)
    assert caught.value.code == "vocabulary-unreadable"
    assert caught.value.file == str(file)


def test_missing_and_cut_off_files_are_unreadable(tmp_path):
    file = tmp_path / "x.arrow"
    Vocabulary.fit("x", pl.Series(["a", "b"])).save(file)
    whole = file.read_bytes()
    for size in [0, 1, 7, 100, *range(len(whole) - 20, len(whole))]:
        file.write_bytes(whole[:size])
        with pytest.raises(ArtifactError, match="prepare again") as caught:
            Vocabulary.load(file)
        assert caught.value.code == "vocabulary-unreadable"
    with pytest.raises(ArtifactError, match="is not a vocabulary"):
        Vocabulary.load(tmp_path / "missing.arrow")


# --- limits, several rows for unknown ids, later ids -------------------------------


@given(OCCURRENCES, st.integers(1, 3), st.integers(1, 5), st.integers(1, 4))
def test_limits_keep_the_first_of_the_usual_order(
    occurrences, min_count, max_size, oov_buckets
):
    everything = Vocabulary.fit("x", occurrences, min_count=min_count)
    limits = {"min_count": min_count, "max_size": max_size, "oov_buckets": oov_buckets}
    fitted = Vocabulary.fit("x", occurrences, **limits)
    kept = everything.ids.to_list()[1 : 1 + max_size]
    assert fitted.ids.to_list() == [*([None] * oov_buckets), *kept]
    counter = Counter(occurrences.drop_nulls().to_list())
    again = Vocabulary.from_counts(
        "x",
        pl.Series(list(counter), dtype=occurrences.dtype),
        np.array(list(counter.values()), np.int64),
        **limits,
    )
    assert again.ids.to_list() == fitted.ids.to_list()
    assert again.counts.tolist() == fitted.counts.tolist()
    assert fitted.oov_buckets == again.oov_buckets == oov_buckets


@pytest.mark.parametrize("ids", [["a", "b", "7"], [5, 6, 7]])
def test_unknown_ids_go_to_one_of_several_rows_by_their_hash(ids):
    fitted = Vocabulary("x", pl.Series(ids), np.ones(3, np.int64), 4)
    assert len(fitted) == 7
    assert [fitted.row(i) for i in ids] == [4, 5, 6]
    assert fitted.row(7) == fitted.row("7") == 6
    unknown = [f"other{n}" for n in range(100)]
    rows = fitted.lookup_series(pl.Series(unknown))
    assert set(rows.tolist()) == {0, 1, 2, 3}
    assert rows.tolist() == [fitted.row(i) for i in unknown]
    assert fitted.lookup(unknown).tolist() == rows.tolist()
    # XXH64("a") is 0xD24EC4F1A98C6E5B; an integer has the hash of its digits.
    assert Vocabulary("x", pl.Series([1]), np.ones(1), 16).row("a") == 0xB
    assert fitted.row(123) == fitted.row("123") < 4
    assert fitted.lookup_series(pl.Series([None, 123])).tolist() == [
        0,
        fitted.row("123"),
    ]


def test_file_tells_how_many_rows_are_for_unknown_ids(tmp_path):
    for oov_buckets in (1, 3):
        for ids in (["b", "a"], []):
            series = pl.Series(ids, dtype=pl.String)
            counts = np.ones(len(ids), np.int64)
            Vocabulary("x", series, counts, oov_buckets).save(tmp_path / "x.arrow")
            loaded = Vocabulary.load(tmp_path / "x.arrow")
            assert loaded.oov_buckets == oov_buckets
            assert loaded.ids.to_list() == [*([None] * oov_buckets), *ids]
            assert loaded.counts.tolist() == [*([0] * oov_buckets), *counts]


@pytest.mark.parametrize("ids", [["a", "b"], [None, "a", None]])
def test_file_without_rows_for_unknown_ids_first_is_unreadable(tmp_path, ids):
    frame = pl.DataFrame({"id": ids, "count": [1] * len(ids)})
    frame.write_ipc(tmp_path / "x.arrow")
    with pytest.raises(ArtifactError, match="a row for unknown ids") as caught:
        Vocabulary.load(tmp_path / "x.arrow")
    assert caught.value.code == "vocabulary-unreadable"


def test_rows_for_unknown_ids_have_no_id():
    fitted = Vocabulary("x", pl.Series(["a"]), np.ones(1, np.int64), 3)
    assert fitted.id(3) == "a"
    with pytest.raises(InputError, match=r"must be 3\.\.3. Received: 2"):
        fitted.id(2)


@pytest.mark.parametrize(
    ("ids", "oov_buckets"), [([None, "a"], 1), (["a"], 0), (["a"], -1)]
)
def test_missing_ids_and_no_row_for_unknown_ones_are_refused(ids, oov_buckets):
    counts = np.ones(len(ids), np.int64)
    with pytest.raises(InputError, match="a row for unknown ids") as caught:
        Vocabulary("x", pl.Series(ids), counts, oov_buckets)
    assert caught.value.code == "vocabulary-inconsistent"
    with pytest.raises(InputError, match="one count each") as caught:
        Vocabulary.from_counts("x", pl.Series(["a"]), np.ones(2, np.int64))
    assert caught.value.code == "vocabulary-inconsistent"

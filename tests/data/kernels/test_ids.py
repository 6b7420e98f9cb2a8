"""Codes, hashes and orders: the core and its twin against dictionaries and NumPy."""

from __future__ import annotations

import threading

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shortlist import native
from shortlist.data.kernels import ids
from shortlist.data.kernels.ids import (
    IdMap,
    group_offsets,
    group_order,
    hash_file,
    hash_values,
)
from shortlist.errors import InputError, LogError
from table_cases import needs_core

CORE = native.core()

LONG = "\N{GRINNING FACE}" * 5
TEXTS = st.lists(
    st.none()
    | st.text(st.characters(codec="utf-8"), max_size=20)
    | st.sampled_from(["", "a", "a\0", "\0", "twelve bytes", "thirteen byte", LONG]),
    max_size=80,
)
INTEGERS = st.lists(
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1]),
    max_size=80,
)
COLUMNS = st.one_of(
    TEXTS.map(lambda values: pl.Series(values, dtype=pl.String)),
    INTEGERS.map(lambda values: pl.Series(values, dtype=pl.Int64)),
)
# Which core is used does not change while a test runs.
both = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(
    params=[
        pytest.param(CORE, marks=needs_core, id="core"),
        pytest.param(None, id="twin"),
    ]
)
def way(request, monkeypatch):
    """Runs a test with the compiled core and again with the twin."""
    monkeypatch.setattr(native, "_core", request.param)
    return request.param


def codes_by_hand(batches: list[list[object]]) -> list[list[int]]:
    codes: dict[object, int] = {}
    return [
        [-1 if i is None else codes.setdefault(i, len(codes)) for i in batch]
        for batch in batches
    ]


# Maps of ids.


@both
@given(column=COLUMNS, cut=st.integers(0, 80), start=st.integers(0, 9))
def test_codes_are_those_of_a_dictionary(way, column, cut, start):
    # Slices begin in the middle of a byte of the validity; two chunks in one column.
    batches = [column[:cut], column[cut:], pl.concat([column[start:], column[:cut]])]
    known = IdMap(column.dtype)
    added = [known.add(batch) for batch in batches]
    assert [codes.tolist() for codes in added] == codes_by_hand(
        [batch.to_list() for batch in batches]
    )
    assert {codes.dtype for codes in added} == {np.dtype(np.int32)}
    ids = column.drop_nulls().unique(maintain_order=True)
    assert len(known) == len(ids)
    assert known.ids().to_list() == ids.to_list()
    assert known.ids().dtype == column.dtype
    for code, external in enumerate(ids):
        assert known.find_one(external) == code
    assert len(known) == len(ids), "looking up adds nothing"


@both
@given(pair=st.tuples(COLUMNS, COLUMNS).filter(lambda p: p[0].dtype == p[1].dtype))
def test_unknown_ids_have_no_code(way, pair):
    column, asked = pair
    known = IdMap(column.dtype)
    known.add(column)
    codes = {external: code for code, external in enumerate(known.ids())}
    expected = [codes.get(external, -1) for external in asked]
    assert known.find(asked).tolist() == expected
    assert known.find(asked).dtype == np.int32
    assert [known.find_one(external) for external in asked] == expected


@pytest.mark.parametrize("dtype", [pl.Int64, pl.String])
def test_many_ids_of_many_chunks(way, dtype):
    generator = np.random.default_rng(0)
    numbers = generator.integers(0, 20_000, 60_000) * 2**40 + 7
    column = pl.concat(
        [pl.Series(part).cast(dtype) for part in np.array_split(numbers, 7)]
    )
    known = IdMap(dtype)
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    expected = np.argsort(np.argsort(first))[inverse]
    np.testing.assert_array_equal(known.add(column), expected)
    np.testing.assert_array_equal(known.find(column), expected)
    assert known.ids().to_list() == column.unique(maintain_order=True).to_list()


def test_one_id_of_another_type_is_unknown(way):
    numbers, texts = IdMap(pl.Int64), IdMap(pl.String)
    numbers.add(pl.Series([5, 1]))
    texts.add(pl.Series(["5", "1"]))
    assert numbers.find_one(1) == numbers.find_one(np.int32(1)) == 1
    for other in ("1", 1.0, None, 2**63, -(2**63) - 1, 2**200, b"1"):
        assert numbers.find_one(other) == -1
    for other in (1, None, b"1", "\ud800"):
        assert texts.find_one(other) == -1


def test_ids_once_given_out_stay_as_they_are(way):
    known = IdMap(pl.String)
    known.add(pl.Series(["a text that is long"] * 3))
    ids = known.ids()
    known.add(pl.Series([f"another long text {i}" for i in range(1000)]))
    assert ids.to_list() == ["a text that is long"]


@pytest.mark.parametrize("call", ["add", "find"])
def test_columns_of_another_type_are_refused(way, call):
    for dtype, other in [(pl.Int64, pl.String), (pl.String, pl.Int64)]:
        with pytest.raises(InputError, match=f"{dtype}. Received: {other}") as caught:
            getattr(IdMap(dtype), call)(pl.Series([], dtype=other))
        assert caught.value.code == "id-type-mismatch"
    with pytest.raises(InputError, match="Received: Float64") as caught:
        IdMap(pl.Float64)
    assert caught.value.code == "id-type-mismatch"


@pytest.mark.parametrize("dtype", [pl.Int64, pl.String])
def test_a_full_map_says_so_and_keeps_its_ids(way, monkeypatch, dtype):
    monkeypatch.setattr(ids, "_MOST_IDS", 2)
    known = IdMap(dtype)
    with pytest.raises(InputError, match="at most 2 different ones") as caught:
        known.add(pl.Series([3, 1, 3, 2]).cast(dtype))
    assert caught.value.code == "too-many-ids"
    assert known.ids().cast(pl.Int64).to_list() == [3, 1]
    assert known.add(pl.Series([1, 3]).cast(dtype)).tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [pl.Int64, pl.String])
def test_threads_may_share_a_map(way, dtype):
    known = IdMap(dtype)
    ids = pl.Series(range(5_000)).cast(dtype)
    codes: list[np.ndarray] = []

    def work():
        for begin in range(0, len(ids), 100):
            known.add(ids[begin : begin + 100])
        codes.append(known.find(ids))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for found in codes:
        assert sorted(found.tolist()) == list(range(len(ids)))
        np.testing.assert_array_equal(found, codes[0])


# Hashes.


@pytest.mark.parametrize(
    ("text", "seed", "expected"),
    [
        ("", 0, 0xEF46DB3751D8E999),
        ("a", 0, 0xD24EC4F1A98C6E5B),
        ("abc", 0, 0x44BC2CF5AD770999),
        ("Nobody inspects the spammish repetition", 0, 0xFBCEA83C8A378BF1),
        ("xxhash", 20141025, 0xB559B98D844E0635),
    ],
)
def test_hashes_are_the_published_ones(way, tmp_path, text, seed, expected):
    hashes = hash_values(pl.Series([text, None]), seed=seed)
    assert hashes.dtype == np.uint64
    assert hashes.tolist() == [expected, 0]
    if seed == 0:
        (tmp_path / "file").write_text(text)
        assert hash_file(tmp_path / "file") == f"{expected:016x}"


@both
@given(column=COLUMNS, start=st.integers(0, 9), seed=st.integers(0, 2**64 - 1))
def test_hashes_are_those_of_the_reference_library(way, column, start, seed):
    xxhash = pytest.importorskip("xxhash")
    column = column[start:]
    expected = [
        0 if value is None else xxhash.xxh64_intdigest(str(value).encode(), seed)
        for value in column
    ]
    assert hash_values(column, seed=seed).tolist() == expected


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 4 * 2**20 + 5])
def test_files_hash_as_one_piece(way, monkeypatch, tmp_path, size):
    xxhash = pytest.importorskip("xxhash")
    if way is None:  # Python is slow: smaller blocks, smaller files
        monkeypatch.setattr(ids, "_BLOCK_BYTES", 1000)
        size %= 2**20
    content = np.random.default_rng(0).bytes(size)
    (tmp_path / "file").write_bytes(content)
    assert hash_file(str(tmp_path / "file")) == xxhash.xxh64_hexdigest(content)


@pytest.mark.parametrize(
    "dtype", [pl.Int8, pl.UInt8, pl.Int32, pl.UInt32, pl.UInt64, pl.Int128]
)
def test_integers_hash_as_their_text(way, dtype):
    largest = 2**64 - 1 if dtype in (pl.UInt64, pl.Int128) else 100
    numbers = pl.Series([7, None, 0, largest], dtype=dtype)
    texts = pl.Series(["7", None, "0", str(largest)])
    np.testing.assert_array_equal(hash_values(numbers), hash_values(texts))


def test_what_has_no_text_of_its_own_is_not_hashed(way):
    for values in (pl.Series([0.5]), pl.Series([True]), pl.Series([[1]])):
        with pytest.raises(InputError, match="strings or integers") as caught:
            hash_values(values)
        assert caught.value.code == "hash-type"
    for seed in (-1, 2**64):
        with pytest.raises(InputError, match=f"Received: {seed}") as caught:
            hash_values(pl.Series(["a"]), seed=seed)
        assert caught.value.code == "hash-seed"


def test_files_that_cannot_be_read_are_named(way, tmp_path, monkeypatch):
    with pytest.raises(LogError, match="There is no file") as caught:
        hash_file(tmp_path / "missing")
    assert caught.value.code == "log-file-missing"
    assert caught.value.file == str(tmp_path / "missing")
    with pytest.raises(LogError, match="must be a regular file") as caught:
        hash_file(tmp_path)
    assert caught.value.code == "log-file-directory"

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "locked").write_text("x")
    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(LogError, match="Permission denied") as caught:
        hash_file(tmp_path / "locked")
    assert caught.value.code == "log-file-unreadable"


# Orders.

TIMES = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3)


@both
@given(
    rows=st.lists(st.tuples(st.integers(0, 6), TIMES), max_size=60),
    threads=st.integers(1, 4),
)
def test_order_is_that_of_a_stable_sort(way, rows, threads):
    groups = np.array([group for group, _ in rows], np.int32)
    times = np.array([time for _, time in rows], np.int64)
    order = group_order(groups, times, 7, threads=threads)
    assert order.dtype == np.int64
    expected = sorted(range(len(rows)), key=lambda row: rows[row])
    assert order.tolist() == expected
    offsets = group_offsets(groups, 7, threads=threads)
    assert offsets.dtype == np.int64
    assert offsets.tolist() == [sum(g < end for g, _ in rows) for end in range(8)]


@needs_core
@pytest.mark.parametrize("num_groups", [1, 300, 200_000])
@pytest.mark.parametrize("times", ["random", "few", "rising", "falling"])
@pytest.mark.parametrize("wide", [False, True])
def test_core_sorts_many_rows_as_numpy(num_groups, times, wide, monkeypatch):
    if wide:
        monkeypatch.setattr(ids, "_NARROW_ROWS", 1)
    count = 70_000
    generator = np.random.default_rng(0)
    # Squares: some groups have most of the rows.
    groups = (num_groups * generator.random(count) ** 2).astype(np.int32)
    moments = {
        "random": generator.integers(-(2**63), 2**63 - 1, count),
        "few": generator.integers(0, 5, count) * 1000,
        "rising": np.arange(count),
        "falling": -np.arange(count),
    }[times]
    expected = np.lexsort((moments, groups))
    for threads in range(1, 5):
        order = group_order(groups, moments, num_groups, threads=threads)
        assert order.dtype == np.int64
        np.testing.assert_array_equal(order, expected)


@needs_core
@pytest.mark.parametrize("threads", range(1, 5))
def test_core_counts_many_rows_as_numpy(threads):
    groups = np.random.default_rng(0).integers(0, 50, 3_000_000).astype(np.int32)
    expected = np.concatenate([[0], np.cumsum(np.bincount(groups, minlength=60))])
    offsets = group_offsets(groups, 60, threads=threads)
    np.testing.assert_array_equal(offsets, expected)


def test_rows_need_not_lie_side_by_side(way):
    groups = np.array([1, 9, 0, 9, 1], np.int32)[::2]
    times = np.array([5, 9, 5, 9, 4])[::2]
    assert group_order(groups, times, 2).tolist() == [1, 2, 0]
    assert group_offsets(groups, 2).tolist() == [0, 1, 3]


def test_no_rows_have_an_order(way):
    nothing = np.empty(0, np.int32)
    assert group_order(nothing, np.empty(0, np.int64), 0).shape == (0,)
    assert group_offsets(nothing, 0).tolist() == [0]
    assert group_offsets(nothing, 2).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("groups", "times", "message"),
    [
        (np.zeros(2, np.int64), np.zeros(2, np.int64), "Received: int64"),
        (np.zeros((2, 1), np.int32), np.zeros(2, np.int64), r"of shape \(2, 1\)"),
        (np.zeros(2, np.int32), np.zeros(2, np.int32), "Times .* Received: int32"),
        (np.zeros(2, np.int32), np.zeros(3, np.int64), r"Times .* shape \(3,\)"),
        (np.array([0, -1], np.int32), np.zeros(2, np.int64), "Received: -1 to 0"),
        (np.array([0, 3], np.int32), np.zeros(2, np.int64), "0 and 2. Received: 0 to"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(way, groups, times, message):
    with pytest.raises(InputError, match=message) as caught:
        group_order(groups, times, 3)
    assert caught.value.code == "invalid-groups"


@pytest.mark.parametrize("call", [group_order, group_offsets])
def test_threads_are_at_least_one(way, call):
    arrays = [np.zeros(2, np.int32), np.zeros(2, np.int64)][
        : 2 - (call is group_offsets)
    ]
    with pytest.raises(InputError, match="Received: 0") as caught:
        call(*arrays, 1, threads=0)
    assert caught.value.code == "invalid-threads"


@pytest.mark.parametrize("num_groups", [-1, 2**31 + 1])
def test_a_number_of_groups_that_is_none_is_refused(way, num_groups):
    nothing = np.empty(0, np.int32)
    for call in (
        lambda: group_offsets(nothing, num_groups),
        lambda: group_order(nothing, np.empty(0, np.int64), num_groups),
    ):
        with pytest.raises(InputError, match="0 to 2\\*\\*31 groups") as caught:
            call()
        assert caught.value.code == "invalid-groups"


def test_no_groups_have_no_rows(way):
    nothing = np.empty(0, np.int32)
    assert group_offsets(nothing, 0).tolist() == [0]
    assert group_order(nothing, np.empty(0, np.int64), 0).tolist() == []

"""Gathers of rows and histories: the compiled core and the twin against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shortlist import native
from shortlist.data.kernels.gather import (
    STORED,
    Column,
    UserItems,
    gather_rows,
    newest_items,
)
from shortlist.errors import ArtifactError, InputError
from table_cases import needs_core

# The fixture sets the same thing for every example.
BOTH_WAYS = settings(
    derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
INTEGERS = [dtype for dtype in STORED if dtype.kind != "f"]
FLOATS = [dtype for dtype in STORED if dtype.kind == "f"]


@pytest.fixture(
    params=[pytest.param(native.core(), marks=needs_core), None],
    ids=["core", "twin"],
    autouse=True,
)
def way(request, monkeypatch):
    """Runs a test with the compiled core and again with the twin."""
    monkeypatch.setattr(native, "_core", request.param)


def random_values(dtype, shape, generator):
    """Over the whole range of integers; floats that show rounding and special cases."""
    if dtype.kind != "f":
        info = np.iinfo(dtype)
        return generator.integers(info.min, info.max, shape, dtype, endpoint=True)
    with np.errstate(over="ignore"):
        values = generator.standard_normal(shape) * 10.0 ** generator.integers(-9, 9)
        values = np.asarray(values, dtype)
    special = np.array([0, -0.0, np.inf, -np.inf, np.nan, 6e-8, 65504], dtype)
    draw = generator.integers(0, 20, shape)
    return np.where(draw < 7, special[draw % 7], values).astype(dtype)


def ragged(dtype, rows, generator):
    lengths = generator.integers(0, 5, rows)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    offsets = offsets.astype(generator.choice(["int32", "int64"]))
    return random_values(dtype, int(offsets[-1]), generator), offsets


def expected(column, starts, rows):
    """Row by row."""
    out = np.full(column.shape(len(rows)), 0 if column.dtype.kind == "f" else -1)
    out = out.astype(column.dtype)
    for to, row in enumerate(rows):
        chunk = max(c for c in range(len(starts) - 1) if starts[c] <= row)
        within, values = row - starts[chunk], column.values[chunk]
        if column.offsets is None:
            out[to] = values[within]
        else:
            begin, end = column.offsets[chunk][within : within + 2].tolist()
            out[to, : end - begin] = values[begin:end]
    return out


def assert_gathers(column, starts, rows, threads=None):
    (found,) = gather_rows(rows, starts, [column], threads=threads)
    with np.errstate(over="ignore"):
        wanted = expected(column, starts, np.asarray(rows).tolist())
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    assert found.tobytes() == wanted.tobytes() or np.array_equal(
        found, wanted, equal_nan=True
    )


@BOTH_WAYS
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
    st.lists(st.sampled_from(STORED), min_size=5, max_size=5),
    st.sampled_from([None, 1, 3, 20, "ragged"]),
    st.integers(0, 300),
    st.integers(0, 2**32),
)
def test_rows_of_all_types_and_forms(lengths, dtypes, width, num_rows, seed):
    generator = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    # All integers or all floats, as the first is, or all of one type.
    dtypes = [d for d in dtypes if (d.kind == "f") == (dtypes[0].kind == "f")]
    dtypes = [dtypes[c % len(dtypes)] for c in range(len(lengths))]
    if width == "ragged":
        parts = [ragged(*p, generator) for p in zip(dtypes, lengths, strict=True)]
        column = Column("c", [v for v, _ in parts], [o for _, o in parts])
    else:
        shapes = [(n,) if width is None else (n, width) for n in lengths]
        pairs = zip(dtypes, shapes, strict=True)
        column = Column("c", [random_values(d, s, generator) for d, s in pairs])
    rows = generator.integers(0, starts[-1], num_rows)
    assert_gathers(column, starts, rows)


@pytest.mark.parametrize("dtype", STORED, ids=str)
def test_every_type_alone(dtype):
    generator = np.random.default_rng(3)
    values = random_values(dtype, 5000, generator)
    rows = generator.permutation(5000).astype(np.uint16)
    assert_gathers(Column("c", [values]), np.array([0, 5000]), rows)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "int32"])
def test_integers_up_to_32_bits_are_int32(dtype):
    assert Column("c", [np.zeros(1, dtype)]).dtype == np.int32


@pytest.mark.parametrize("dtype", ["uint32", "int64"])
def test_wider_integers_are_int64_in_all_chunks(dtype):
    highest = np.iinfo(dtype).max
    column = Column("c", [np.array([7], np.uint8), np.array([highest], dtype)])
    (found,) = gather_rows(np.array([1, 0]), np.array([0, 1, 2]), [column])
    assert found.dtype == np.int64 and found.tolist() == [highest, 7]


def test_every_float16_is_the_same_float32():
    bits = np.arange(2**16, dtype=np.uint16)
    column = Column("c", [bits.view(np.float16)])
    (found,) = gather_rows(np.arange(2**16), np.array([0, 2**16]), [column])
    numbers = ~np.isnan(bits.view(np.float16))
    wanted = bits.view(np.float16).astype(np.float32)
    assert found[numbers].tobytes() == wanted[numbers].tobytes()
    assert np.isnan(found[~numbers]).all()


def test_many_rows_and_columns_on_any_number_of_threads():
    generator = np.random.default_rng(1)
    rows = generator.integers(0, 30_000, 25_000)
    starts = np.array([0, 10_000, 10_001, 30_000])
    columns = [
        Column("a", [generator.integers(0, 9, n) for n in np.diff(starts)]),
        Column("b", [generator.random((n, 3)) for n in np.diff(starts)]),
        Column("c", [generator.integers(0, 9, n, np.uint8) for n in np.diff(starts)]),
    ]
    wanted = [np.concatenate(column.values)[rows] for column in columns]
    for threads in (1, 2, 5):
        found = gather_rows(rows, starts, columns, threads=threads)
        assert np.array_equal(found[0], wanted[0])
        assert np.array_equal(found[1], wanted[1].astype(np.float32))
        assert np.array_equal(found[2], wanted[2])


def test_values_need_not_be_aligned():
    memory = np.arange(41, dtype=np.uint8)
    column = Column("c", [memory[1:].view(np.int32)])
    assert_gathers(column, np.array([0, 10]), np.array([9, 0, 4]))


@pytest.mark.parametrize("rows", [[-1], [10], [0, 2**63]])
def test_row_out_of_range(rows):
    column = Column("c", [np.arange(10)])
    rows = np.array(rows, np.uint64 if max(rows) > 2**62 else np.int64)
    with pytest.raises(InputError, match="between 0 and 9") as caught:
        gather_rows(rows, np.array([0, 10]), [column])
    assert caught.value.code == "row-out-of-range"


@pytest.mark.parametrize(
    "rows", [np.zeros(2), np.zeros((2, 2), int), np.array([True]), np.array(3)]
)
def test_rows_that_are_no_integers(rows):
    with pytest.raises(InputError) as caught:
        gather_rows(rows, np.array([0, 10]), [Column("c", [np.arange(10)])])
    assert caught.value.code == "invalid-rows"


@pytest.mark.parametrize("dtype", ["uint64", "bool", "U3", ">i4", "datetime64[ms]"])
def test_column_of_a_type_that_cannot_be_gathered(dtype):
    with pytest.raises(InputError) as caught:
        Column("c", [np.zeros(3, dtype)])
    assert caught.value.code == "column-type" and caught.value.column == "c"


def test_integers_and_floats_do_not_mix():
    with pytest.raises(ArtifactError) as caught:
        Column("c", [np.zeros(3, np.int32), np.zeros(3, np.float32)])
    assert caught.value.code == "columns-differ"


@pytest.mark.parametrize("offsets", [[0, 2, 1], [-1, 0, 1], [0, 1, 4]])
def test_offsets_that_fall_or_lie_outside(offsets):
    with pytest.raises(ArtifactError) as caught:
        Column("c", [np.zeros(3, np.int32)], [np.array(offsets)])
    assert caught.value.code == "columns-unreadable"


def brute_force(events, user, moment, length, gap):
    """The items of one row, from a list of (user, time, item) in file order."""
    own = [e for e in events if e[0] == user and user and e[1] < moment]
    own.sort(key=lambda e: e[1])
    kept, later = [], moment
    for _, time, item in reversed(own):
        if gap is not None and later - time > gap:
            break
        kept.append(item)
        later = time
    kept = kept[:length][::-1]
    return kept + [-1] * (length - len(kept))


EDGES = [-(2**63), 2**63 - 1]
MOMENTS = st.one_of(st.integers(-20, 20), st.sampled_from(EDGES))


@BOTH_WAYS
@given(
    st.lists(st.tuples(st.integers(0, 3), MOMENTS), max_size=60),
    st.lists(st.tuples(st.integers(0, 3), MOMENTS), max_size=70),
    st.integers(0, 7),
    st.sampled_from([None, 0, 1, 3, 100, 2**63 - 1]),
    st.sampled_from([np.uint8, np.uint16, np.int32]),
)
def test_newest_items_are_before_the_moment_and_in_its_session(
    events, asked, length, gap, dtype
):
    events = sorted((u, t) for u, t in events)
    events = [(u, t, 1 + n) for n, (u, t) in enumerate(events)]
    offsets = np.searchsorted([u for u, _, _ in events], np.arange(5))
    stored = UserItems(
        offsets,
        np.array([t for _, t, _ in events], np.int64),
        np.array([i for _, _, i in events], dtype),
    )
    found = newest_items(
        stored,
        np.array([u for u, _ in asked], np.int16),
        np.array([t for _, t in asked], np.int64),
        length,
        gap_ms=gap,
    )
    assert found.dtype == np.int32 and found.shape == (len(asked), length)
    for (user, moment), row in zip(asked, found.tolist(), strict=True):
        assert row == brute_force(events, user, moment, length, gap)


def test_newest_items_on_any_number_of_threads():
    generator = np.random.default_rng(2)
    users = np.sort(generator.integers(0, 500, 40_000))
    order = np.lexsort((times := generator.integers(0, 10**6, 40_000), users))
    offsets = np.searchsorted(users, np.arange(501))
    asked = generator.integers(0, 500, 9000)
    moments = generator.integers(0, 10**6, 9000)
    items = generator.integers(0, 60_000, 40_000).astype(np.uint16)
    stored = UserItems(offsets, times[order], items)
    one = newest_items(stored, asked, moments, 12, gap_ms=50_000, threads=1)
    for threads in (2, 5):
        many = newest_items(stored, asked, moments, 12, gap_ms=50_000, threads=threads)
        assert np.array_equal(one, many)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"users": np.array([3])}, "row-out-of-range"),
        ({"users": np.array([-1])}, "row-out-of-range"),
        ({"users": np.array([1.0])}, "invalid-rows"),
        ({"moments": np.array([1, 2])}, "invalid-rows"),
        ({"moments": np.array([1.5])}, "invalid-rows"),
        ({"length": -1}, "invalid-argument"),
        ({"gap_ms": -1}, "invalid-argument"),
    ],
)
def test_arguments_of_newest_items(change, code):
    good = {"users": np.array([1]), "moments": np.array([5]), "length": 2}
    with pytest.raises(InputError) as caught:
        newest_items(
            UserItems(np.array([0, 0, 1, 1]), np.array([4]), np.array([9], np.int32)),
            **{**good, **change},
        )
    assert caught.value.code == code


@pytest.mark.parametrize(
    "change",
    [
        {"offsets": np.array([0, 0, 1, 1], np.int32)},
        {"offsets": np.empty(0, np.int64)},
        {"timestamps": np.array([4, 5])},
        {"timestamps": np.array([4.0])},
        {"items": np.array([9])},
        {"items": np.array([[9]], np.int32)},
    ],
)
def test_stored_histories_of_newest_items(change):
    stored = {
        "offsets": np.array([0, 0, 1, 1]),
        "timestamps": np.array([4]),
        "items": np.array([9], np.int32),
    }
    with pytest.raises(InputError, match="one time per item") as caught:
        newest_items(UserItems(**stored | change), np.array([1]), None, 2)
    assert caught.value.code == "invalid-argument"


@pytest.mark.parametrize("offsets", [[0, 0, 2], [0, 1, 0], [0, -1, 1], [0, 5, 9]])
def test_offsets_of_users_that_lie_are_refused(offsets):
    with pytest.raises(IndexError, match="must rise within their items"):
        newest_items(
            UserItems(np.array(offsets), np.array([4]), np.array([9], np.int32)),
            np.array([1]),
            None,
            2,
        )


@pytest.mark.parametrize(
    "starts", [[0, 11], [0, 5, 10], [1, 10], [0], np.array([0, 10], np.int32)]
)
def test_columns_without_the_rows_of_their_chunks_are_refused(starts):
    with pytest.raises(ValueError):
        gather_rows(np.array([0]), np.asarray(starts), [Column("c", [np.arange(10)])])


def test_lists_whose_offsets_change_later_are_refused():
    offsets = np.array([0, 1, 2])
    column = Column("c", [np.arange(2)], [offsets])
    offsets[2] = 9
    with pytest.raises((IndexError, ValueError)):
        gather_rows(np.array([1]), np.array([0, 2]), [column])

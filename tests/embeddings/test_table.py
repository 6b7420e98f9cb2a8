"""Host tables: memory, number types, the catch-up of Adam, and the oracle itself."""

from __future__ import annotations

import mmap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.embeddings import table
from shortlist.embeddings.host import reference
from shortlist.embeddings.rules import KINDS, SLOTS, Rule
from shortlist.embeddings.table import Bags, Table, check_size, from_float32, zeros
from shortlist.errors import InputError, ResourceError
from table_cases import table_of


def bfloat16_by_hand(value):
    """The nearest bfloat16, ties to even: the upper half of a float32."""
    bits = int(np.float32(value).view(np.uint32))
    low, high = bits & 0xFFFF, bits >> 16
    return high + (low > 0x8000 or (low == 0x8000 and high % 2 == 1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_table_is_zeros_with_the_state_of_its_rule(kind):
    rule = Rule(kind=kind, initial_accumulator=0.25)
    made = Table.allocate("t", 3, 2, rule, seed=9)
    assert (made.num_rows, made.dim, made.row_type) == (3, 2, "float32")
    assert (made.step, made.seed, made.trainable) == (0, 9, True)
    assert not made.rows.any()
    names = {name for name, _ in SLOTS[kind]} | ({"last_step"} & made.slots.keys())
    assert made.slots.keys() == names
    assert ("last_step" in names) == (kind == "adam")
    for name, per in SLOTS[kind]:
        assert made.slots[name].shape == ((3,) if per == "row" else (3, 2))
        start = 0.25 if name == "accumulator" else 0
        np.testing.assert_array_equal(made.slots[name], start)
    assert made.num_bytes == 24 + sum(slot.nbytes for slot in made.slots.values())


@pytest.mark.parametrize("row_type", ["float32", "float16", "bfloat16"])
def test_rows_are_filled_block_by_block(monkeypatch, row_type):
    monkeypatch.setattr(table, "_INITIALIZED_AT_ONCE", 7)
    made = Table.allocate("t", 10, 3, Rule(), row_type=row_type)
    made.fill(lambda first, last: np.arange(first * 3, last * 3).reshape(-1, 3))
    assert made.row_type == row_type
    np.testing.assert_array_equal(
        reference.to_float32(made.rows), np.arange(30).reshape(10, 3)
    )


@settings(deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_bfloat16_is_rounded_to_nearest(values):
    rows = from_float32(np.array(values, np.float32), np.dtype(np.uint16))
    assert rows.tolist() == [bfloat16_by_hand(value) for value in values]


def test_number_types_by_hand():
    values = np.array([1, -2, 1.00390625, 1.01171875, 0], np.float32)
    bits = from_float32(values, np.dtype(np.uint16))
    # Half a unit in the last place goes to the even neighbour.
    assert [hex(b) for b in bits] == ["0x3f80", "0xc000", "0x3f80", "0x3f82", "0x0"]
    assert reference.to_float32(bits).tolist() == [1, -2, 1, 1.015625, 0]
    half = from_float32(values, np.dtype(np.float16))
    assert half.dtype == np.float16


@pytest.mark.parametrize("shape", [(0,), (3, 2), (1000, 1024), (2**19 + 1,)])
def test_zeros_are_zeros_that_can_be_written(shape):
    array = zeros(shape, np.dtype(np.float32))
    assert (array.shape, array.dtype) == (shape, np.float32)
    assert not array.any()
    array[...] = 1
    if array.nbytes >= 2**21:
        assert array.ctypes.data % 2**21 == 0  # on the border of a huge page


def resident_bytes():
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[1]) * mmap.PAGESIZE


def test_pages_cost_nothing_until_they_are_touched():
    before = resident_bytes()
    array = zeros((2**28,), np.dtype(np.float32))
    array[2**27] = 1
    assert array.nbytes == 2**30 and resident_bytes() - before < 2**27


def test_a_table_that_cannot_fit_is_refused_with_its_sum(monkeypatch):
    monkeypatch.setattr(table, "available_bytes", lambda: 1000)
    with pytest.raises(ResourceError, match="does not fit in the free") as caught:
        Table.allocate("big", 100, 10, Rule())
    assert caught.value.code == "out-of-memory"
    assert "It needs 12,400: rows 100 x 10 x 4 = 4,000 + momentum" in str(caught.value)
    assert "last_step 100 x 4 = 400" in str(caught.value)
    Table.allocate("small", 5, 5, Rule(kind="sgd"))


def test_a_machine_that_does_not_tell_is_trusted(monkeypatch):
    monkeypatch.setattr(table, "available_bytes", lambda: None)
    Table.allocate("t", 100, 10, Rule())


@pytest.mark.parametrize("value", [0, -1, 2**31, 1.5, "3", None, True])
def test_sizes_that_are_none_are_refused(value):
    with pytest.raises(InputError, match=f"`vocabulary_size` .* Received: {value!r}"):
        check_size("t", value, 8)
    with pytest.raises(InputError, match="`embedding_dim` must be .* 1 to 1024"):
        check_size("t", 8, value)


def test_largest_sizes_are_allowed():
    check_size("t", np.int64(2**31 - 1), 1024)


def test_moves_are_the_sums_of_the_definition():
    made = Table.allocate("t", 2, 1, Rule(beta_1=0.8, beta_2=0.9))
    rates = [0.1 / t for t in range(1, 101)]
    for rate in rates:
        made.begin_step(rate)
    ratio = 0.8 / 0.9**0.5
    for last in (1, 2, 63, 64, 98, 99):
        expected = sum(
            rates[u - 1] * (1 - 0.9**u) ** 0.5 / (1 - 0.8**u) * ratio ** (u - last)
            for u in range(last + 1, 100)
        )
        assert made.moves[last] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert len(made.moves) > made.step


@pytest.mark.parametrize(("beta_1", "beta_2"), [(0.9, 0.81), (0.9, 0.5), (0.0, 0.9)])
def test_any_betas_can_catch_up(beta_1, beta_2):
    """Momentum that fades no faster than the root of the velocity, or at once."""
    made = Table.allocate("t", 2, 1, Rule(beta_1=beta_1, beta_2=beta_2))
    for _ in range(4):
        made.begin_step(0.1)
    ratio = beta_1 / beta_2**0.5
    rate = [0.1 * (1 - beta_2**t) ** 0.5 / (1 - beta_1**t) for t in (1, 2, 3)]
    assert made.moves[1] == pytest.approx(rate[1] * ratio + rate[2] * ratio**2)


# The oracle, in plain Python.


def test_oracle_combines_by_the_definition():
    rows = [[1.0, 2.0], [3.0, 4.0]]
    ids, weights = [[0, -1, 1], [1, 1, -1]], [[2.0, 9.0, 1.0], [1.0, 2.0, 9.0]]
    for combiner, divisor in (
        ("sum", lambda used: 1),
        ("mean", sum),
        ("sqrtn", lambda used: sum(w * w for w in used) ** 0.5),
    ):
        bags = Bags(
            table=0,
            ids=np.array(ids),
            weights=np.array(weights, np.float32),
            combiner=combiner,
        )
        (vectors,) = reference.lookup([table_of(rows)], [bags])
        for bag, used_ids, ws in zip(vectors, ids, weights, strict=True):
            used = [(i, w) for i, w in zip(used_ids, ws, strict=True) if i != -1]
            by = divisor([w for _, w in used])
            for column in (0, 1):
                expected = sum(rows[i][column] * w for i, w in used) / by
                assert bag[column] == pytest.approx(expected, rel=1e-6)


def test_random_bits_depend_on_place_step_and_seed_and_look_random():
    bits = reference.random_bits(1, 1, np.arange(500), 64)
    assert abs(np.unpackbits(bits.view(np.uint8)).mean() - 0.5) < 0.01
    assert len(np.unique(bits)) > 0.999 * bits.size
    for other in (
        reference.random_bits(2, 1, np.arange(500), 64),
        reference.random_bits(1, 2, np.arange(500), 64),
    ):
        assert np.mean(bits == other) < 0.001
    np.testing.assert_array_equal(
        reference.random_bits(1, 1, np.arange(9, 10), 64)[0], bits[9]
    )


@pytest.mark.parametrize(
    ("row_type", "value", "below", "above"),
    [
        ("bfloat16", 1 + 2**-9, 1.0, 1 + 2**-7),
        ("float16", -(1 + 2**-12), -1.0, -(1 + 2**-10)),
        ("float16", 2.25 * 2**-24, 2 * 2**-24, 3 * 2**-24),  # below the normal range
        ("float16", 1e6, 65504, 65504),
    ],
)
def test_rounding_takes_one_of_the_two_neighbours_with_the_right_chance(
    row_type, value, below, above
):
    made = Table.allocate("t", 3000, 8, Rule(), row_type=row_type)
    w = np.full((3000, 8), value, np.float32)
    rounded = reference.to_float32(reference.rounded(w, made, np.arange(3000)))
    assert set(np.unique(rounded)) <= {np.float32(below), np.float32(above)}
    if below != above:
        chance = (value - below) / (above - below)
        assert np.mean(rounded == np.float32(above)) == pytest.approx(chance, abs=0.02)

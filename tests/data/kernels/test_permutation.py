"""The bijection of rows: every instruction set of the core against the NumPy twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist import native
from shortlist.data.kernels.permutation import Blocks, Network, round_keys
from shortlist.data.load.order import Bijection, Order
from shortlist.errors import InputError
from table_cases import needs_core

SIZES = st.one_of(
    st.integers(1, 20_000),
    st.builds(
        lambda bits, more: max(2**bits + more, 1),
        st.integers(0, 61),
        st.integers(-2, 2),
    ),
)


def twin(function):
    """What a function returns without the core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_core", None)
        return function()


@needs_core
@settings(derandomize=True, deadline=None)
@given(
    size=SIZES,
    key=st.integers(0, 2**64),
    first=st.integers(-(2**40), 2**40),
    count=st.integers(0, 1_500),
    backward=st.booleans(),
)
def test_core_and_twin_move_a_row_to_the_same_place(
    size, key, first, count, backward
) -> None:
    network = Network(size, round_keys((key,)))
    generator = np.random.default_rng(count)
    values = first + generator.integers(0, size, count)
    expected = twin(lambda: network.apply(values, first=first, backward=backward))
    images = network.apply(values, first=first, backward=backward)
    assert images.dtype == expected.dtype == np.int64
    np.testing.assert_array_equal(images, expected)
    for instruction_set in native.instruction_sets():
        native.core().permute_rows(
            network.keys,
            size,
            network.bits,
            values,
            first,
            backward,
            images,
            instruction_set,
        )
        np.testing.assert_array_equal(images, expected)


@needs_core
@settings(derandomize=True, deadline=None)
@given(
    num_rows=st.integers(1, 30_000),
    shuffle=st.sampled_from(["global", "windowed"]),
    block=st.one_of(st.integers(1, 90), st.sampled_from([1, 64, 4_096])),
    window=st.integers(90, 9_000),
    reverse=st.booleans(),
)
def test_core_and_twin_give_the_same_order(
    num_rows, shuffle, block, window, reverse
) -> None:
    # Blocks of one row are too many for a table, and the last block is often short.
    order = Order(num_rows, shuffle, window=window, block=block, key=(3, num_rows))
    positions = np.arange(num_rows)[:: -1 if reverse else 1]
    expected = twin(
        lambda: Order(
            num_rows, shuffle, window=window, block=block, key=(3, num_rows)
        ).indices(positions)
    )
    np.testing.assert_array_equal(order.indices(positions), expected)


@needs_core
def test_an_unknown_instruction_set_is_refused() -> None:
    network, values = Network(9, round_keys((1,))), np.arange(9)
    with pytest.raises(ValueError, match="abacus"):
        native.core().permute_rows(
            network.keys, 9, network.bits, values, 0, False, values, "abacus"
        )


@pytest.fixture(params=[pytest.param("core", marks=needs_core), "twin"])
def way(request, monkeypatch):
    """Runs a test with the compiled core and again with the twin."""
    if request.param == "twin":
        monkeypatch.setattr(native, "_core", None)


@pytest.mark.parametrize("size", [0, -1, 2**62 + 1])
def test_a_network_of_no_values_or_too_many_is_refused(size):
    with pytest.raises(InputError, match="1 to 2\\*\\*62 values") as caught:
        Network(size, round_keys((1,)))
    assert caught.value.code == "invalid-argument"


def test_a_network_without_a_key_for_each_round_is_refused():
    with pytest.raises(InputError, match="8 keys") as caught:
        Network(9, round_keys((1,))[:7])
    assert caught.value.code == "invalid-argument"


@pytest.mark.parametrize("size", [9, 3_000])
@pytest.mark.parametrize("outside", [-1, 0, 2**40])
def test_values_out_of_range_are_refused(way, size, outside):
    bijection = Bijection(size, (1,))
    values = np.array([0, outside if outside else size])
    for apply in (bijection.apply, bijection.network.apply, bijection.invert):
        with pytest.raises(IndexError):
            apply(values)
    with pytest.raises(IndexError):
        bijection.apply(np.array([5, 4]), first=5)


@pytest.mark.parametrize("shuffle", ["global", "windowed", "none"])
@pytest.mark.parametrize("outside", [-1, 5_000, 2**40])
def test_positions_out_of_range_are_refused(way, shuffle, outside):
    order = Order(5_000, shuffle, window=300, block=16, key=(1,))
    assert sorted(order.indices(np.arange(5_000))) == list(range(5_000))
    with pytest.raises((IndexError, InputError)):
        order.indices(np.array([outside]))


@pytest.mark.parametrize("table", [None, np.array([2, 0, 1])])
@pytest.mark.parametrize("position", [-1, 10, 2**62])
def test_positions_outside_of_blocks_are_refused(way, table, position):
    network = Network(3, round_keys((1,)))
    blocks = Blocks(block=4, gap=2, after_gap=2, network=network, table=table)
    assert len(blocks.rows(np.arange(10))) == 10
    with pytest.raises(IndexError):
        blocks.rows(np.array([0, position]))


@pytest.mark.parametrize("change", [{"num_examples": 0}, {"window": 0}, {"block": 0}])
def test_an_order_of_nothing_is_refused(change):
    given = {
        "num_examples": 9,
        "shuffle": "windowed",
        "window": 4,
        "block": 2,
        "key": (1,),
    }
    with pytest.raises(InputError, match="must have at least one example") as caught:
        Order(**given | change)
    assert caught.value.code == "invalid-argument"

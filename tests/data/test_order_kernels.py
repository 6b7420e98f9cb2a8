"""The bijection of rows: every instruction set of the core against the NumPy twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist import native
from shortlist.data.order import Order
from shortlist.data.order_kernels import Network, round_keys
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
        ).rows(positions)
    )
    np.testing.assert_array_equal(order.rows(positions), expected)


@needs_core
def test_an_unknown_instruction_set_is_refused() -> None:
    network, values = Network(9, round_keys((1,))), np.arange(9)
    with pytest.raises(ValueError, match="abacus"):
        native.core().permute_rows(
            network.keys, 9, network.bits, values, 0, False, values, "abacus"
        )

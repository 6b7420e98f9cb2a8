"""The order of an epoch: a permutation, without one in memory."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist import native
from shortlist.data.load import order as module
from shortlist.data.load.order import SHUFFLES, SMALL, Bijection, Order
from table_cases import needs_core

MASK = 2**64 - 1


def reference(size: int, key: tuple[int, ...]) -> list[int]:
    """The network in Python integers, value by value."""
    raw = b"".join(part.to_bytes(16, "little") for part in key)
    drawn = hashlib.shake_128(raw).digest(8 * 8)
    keys = [int.from_bytes(drawn[n : n + 8], "little") for n in range(0, 64, 8)]

    def mix(value: int, key: int) -> int:
        value = (value ^ key) * 0xBF58476D1CE4E5B9 & MASK
        return (value ^ value >> 29) * 0x94D049BB133111EB & MASK

    low_bits = (size - 1).bit_length() // 2
    high_bits = (size - 1).bit_length() - low_bits

    def walk(value: int) -> int:
        low, high = value % 2**low_bits, value >> low_bits
        for number, key in enumerate(keys):
            if number % 2:
                low ^= mix(high, key) >> (64 - low_bits)
            else:
                high ^= mix(low, key) >> (64 - high_bits)
        moved = high << low_bits | low
        return moved if moved < size else walk(moved)

    return [walk(value) for value in range(size)]


@pytest.mark.parametrize("size", [SMALL + 1, 4096, 5000])
def test_the_map_is_the_network_of_the_docstring(size: int) -> None:
    found = Bijection(size, (5, 2**40)).apply(np.arange(size))
    assert found.tolist() == reference(size, (5, 2**40))


@pytest.mark.parametrize(
    "core", [pytest.param(native.core(), marks=needs_core), None], ids=["core", "twin"]
)
def test_the_same_rows_come_on_every_machine_and_with_every_version(
    core, monkeypatch
) -> None:
    monkeypatch.setattr(native, "_core", core)
    # Literals: a run that was stopped under another version goes on with its order.
    small, large = Bijection(10, (1, 2)), Bijection(10**12, (1, 2))
    assert small.apply(np.arange(10)).tolist() == [4, 5, 1, 9, 6, 7, 0, 3, 2, 8]
    first = [358109211992, 44875666173, 654039611084, 395212567178]
    assert large.apply(np.arange(4)).tolist() == first
    options = {"window": 6, "block": 3, "key": (3, 4)}
    windowed = Order(10, "windowed", **options).indices(np.arange(10)).tolist()
    assert windowed == [2, 0, 9, 3, 1, 4, 5, 6, 7, 8]


@settings(derandomize=True, deadline=None)
@given(size=st.integers(1, 3 * SMALL), key=st.integers(0, 2**64))
def test_a_bijection_meets_every_value_once_and_can_be_inverted(
    size: int, key: int
) -> None:
    bijection, values = Bijection(size, (key,)), np.arange(size)
    images = bijection.apply(values)
    assert images.dtype == np.int64
    np.testing.assert_array_equal(np.sort(images), values)
    np.testing.assert_array_equal(bijection.invert(images), values)


@settings(derandomize=True, deadline=None)
@given(size=st.integers(2**32, 2**62), start=st.integers(0, 2**31))
def test_large_maps_stay_inside_and_can_be_inverted(size: int, start: int) -> None:
    bijection = Bijection(size, (7,))
    values = np.arange(start, start + 100)
    images = bijection.apply(values)
    assert images.min() >= 0 and images.max() < size
    np.testing.assert_array_equal(bijection.invert(images), values)


SETTINGS = st.fixed_dictionaries(
    {
        "num_examples": st.integers(1, 700),
        "shuffle": st.sampled_from(SHUFFLES),
        "block": st.integers(1, 90),
        "window": st.integers(1, 900),
        "key": st.tuples(st.integers(0, 2**63), st.integers(0, 1000)),
    }
)


@pytest.mark.parametrize("limit", [SMALL, 3])
@settings(derandomize=True, deadline=None)
@given(options=SETTINGS, cuts=st.lists(st.integers(0, 700), max_size=4))
def test_an_epoch_visits_each_row_once_in_whatever_slices_it_is_read(
    limit: int, options: dict, cuts: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SMALL", limit)
        order, n = Order(**options), options["num_examples"]
        whole = order.indices(np.arange(n))
        np.testing.assert_array_equal(np.sort(whole), np.arange(n))
        places = sorted({0, n, *(cut for cut in cuts if cut < n)})
        slices = [
            order.indices(np.arange(a, b))
            for a, b in zip(places, places[1:], strict=False)
        ]
        np.testing.assert_array_equal(np.concatenate(slices), whole)
        again = Order(**options)
        backward = again.indices(np.arange(n)[::-1])
        np.testing.assert_array_equal(backward, whole[::-1])


@settings(derandomize=True, deadline=None)
@given(
    num_examples=st.integers(1, 700),
    block=st.integers(1, 90),
    window=st.integers(1, 900),
)
def test_the_rows_of_a_window_are_consecutive_blocks_of_one_order(
    num_examples: int, block: int, window: int
) -> None:
    order = Order(num_examples, "windowed", window=window, block=block, key=(1,))
    rows = order.indices(np.arange(num_examples))
    num_blocks = -(-num_examples // block)
    blocks = Bijection(num_blocks, (1, 0)).apply(np.arange(num_blocks))
    unmixed = [
        row
        for number in blocks.tolist()
        for row in range(number * block, min((number + 1) * block, num_examples))
    ]
    for start in range(0, num_examples, window):
        mine = rows[start : start + window].tolist()
        assert sorted(mine) == sorted(unmixed[start : start + window])


def test_without_shuffling_rows_come_as_they_are() -> None:
    order = Order(9, "none", window=1, block=1, key=(3, 4))
    assert order.indices(np.arange(2, 9)).tolist() == [2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("shuffle", ["global", "windowed"])
@pytest.mark.parametrize("num_examples", [100, SMALL + 1000])
def test_seeds_and_epochs_have_orders_of_their_own(
    shuffle: str, num_examples: int
) -> None:
    keys = [(seed, epoch) for seed in range(4) for epoch in range(4)]
    positions = np.arange(num_examples)
    orders = {
        tuple(
            Order(num_examples, shuffle, window=50, block=5, key=key).indices(positions)
        )
        for key in keys
    }
    assert len(orders) == len(keys)


@pytest.mark.parametrize(
    "size", [2, 3, 5, 16, 17, 100, 1000, SMALL, SMALL + 1, 2**12, 5000, 2**17 + 1]
)
def test_rows_are_spread_evenly_over_positions_and_neighbours(size: int) -> None:
    groups, draws = min(size, 12), 3000
    image, pair, step = (np.zeros((groups, groups)) for _ in range(3))
    for number in range(draws):
        # Neighbouring positions, and neighbouring keys.
        place = number * 7 % (size - 1)
        one, other = Bijection(size, (3, number)).apply(np.array([place, place + 1]))
        image[place * groups // size, one * groups // size] += 1
        pair[one * groups // size, other * groups // size] += 1
        step[number % groups, (other - one) % size * groups // size] += 1
    of_group = np.bincount(np.arange(size) * groups // size).astype(float)
    share = np.broadcast_to(of_group / size, image.shape)
    check_chi_square(image, share * image.sum(1, keepdims=True))
    both = (np.outer(of_group, of_group) - np.diag(of_group)) / (size * (size - 1))
    check_chi_square(pair, both * draws)
    of_group[0] -= 1  # two positions never hold the same row
    share = np.broadcast_to(of_group / (size - 1), step.shape)
    check_chi_square(step, share * step.sum(1, keepdims=True))


@pytest.mark.parametrize("size", [SMALL + 1, 2**12, 5000, 2**17 + 1])
@pytest.mark.parametrize("key", [1, 2, 3])
def test_rows_at_no_distance_stay_at_one(size: int, key: int) -> None:
    # A network of four rounds or fewer fails here: halves that agree show through.
    images = Bijection(size, (9, key)).apply(np.arange(size))
    of_group = np.bincount(np.arange(size) * 12 // size).astype(float)
    of_group[0] -= 1
    for distance in 2 ** np.arange((size - 1).bit_length() - 1):
        steps = (images[distance:] - images[:-distance]) % size
        found = np.bincount(steps * 12 // size, minlength=12)
        check_chi_square(found, of_group / (size - 1) * len(steps))


def check_chi_square(found: np.ndarray, expected: np.ndarray) -> None:
    """One fixed draw per case: it fails for a fair map with a chance of 1e-4."""
    possible = expected > 0
    assert not found[~possible].any()
    off = (found[possible] - expected[possible]) ** 2 / expected[possible]
    freedom = possible.sum()  # at most; the sums of the rows are fixed
    # Wilson and Hilferty (1931): the cube root is nearly normal.
    spread = 2 / (9 * freedom)
    assert (off.sum() / freedom) ** (1 / 3) < 1 - spread + 3.72 * np.sqrt(spread)

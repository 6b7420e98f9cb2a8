"""Loaders: which rows a batch has, in which order, for which reader, from where on."""

from __future__ import annotations

import gc
import itertools
import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist.data import Loader, Windowed
from shortlist.data.load.examples import Batch
from shortlist.data.load.order import Order
from shortlist.data.load.prefetch import THREAD_NAME, prefetch
from shortlist.errors import InputError


class Numbers:
    """A source whose rows are their own numbers, with a draw beside each."""

    draws = True

    def __init__(self, size: int, fingerprint: str = "numbers") -> None:
        self.size = size
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return self.size

    def take(self, rows: np.ndarray, generator: np.random.Generator) -> Batch:
        return {"row": rows, "draw": generator.integers(0, 2**62, len(rows))}


class PlainNumbers(Numbers):
    """The same without draws."""

    draws = False

    def take(self, rows: np.ndarray, generator: np.random.Generator) -> Batch:
        return {"row": rows, "pairs": np.column_stack([rows, -rows])}


def loader(size: int = 100, **options: Any) -> Loader:
    return Loader(
        Numbers(size), **with_windows({"batch_size": 7, "prefetch": 0, **options})
    )


def with_windows(options: dict[str, Any]) -> dict[str, Any]:
    """Loader arguments with `window` and `block` as a `Windowed` shuffle."""
    sizes = {name: options[name] for name in ("window", "block") if name in options}
    others = {name: value for name, value in options.items() if name not in sizes}
    if sizes and options["shuffle"] == "windowed":
        others["shuffle"] = Windowed(**sizes)
    return others


def rows_of(batches: Iterator[Batch]) -> list[list[int]]:
    return [batch["row"].tolist() for batch in batches]


def assert_same(one: Batch, other: Batch) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.fixture(params=[1, 30, 2**14], ids="{} placed at once".format, scope="module")
def placed(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shortlist.data.load.loader._PLACED_AT_ONCE", request.param)
        yield


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(THREAD_NAME)]


SHUFFLED = st.fixed_dictionaries(
    {
        "size": st.integers(1, 200),
        "batch_size": st.integers(1, 250),
        "shuffle": st.sampled_from(["global", "windowed", "none"]),
        "window": st.integers(20, 100),
        "block": st.integers(1, 20),
        "seed": st.integers(0, 2**60),
        "drop_remainder": st.booleans(),
    }
)


@pytest.mark.usefixtures("placed")
@settings(derandomize=True, deadline=None)
@given(options=SHUFFLED, epoch=st.integers(0, 2**40))
def test_an_epoch_is_its_order_cut_into_batches(options: dict, epoch: int) -> None:
    one = loader(**options)
    size, batch_size = options["size"], min(options["batch_size"], options["size"])
    order = Order(
        size,
        options["shuffle"],
        window=options["window"],
        block=options["block"],
        key=(options["seed"], epoch),
    )
    rows = order.indices(np.arange(size)).tolist()
    expected = [rows[n : n + batch_size] for n in range(0, size, batch_size)]
    if options["drop_remainder"]:
        expected = [batch for batch in expected if len(batch) == batch_size]
    assert rows_of(one.epoch(epoch)) == expected
    assert len(one) == len(expected) >= 1


@pytest.mark.usefixtures("placed")
@settings(derandomize=True, deadline=None)
@given(options=SHUFFLED, count=st.integers(1, 6), epoch=st.integers(0, 9))
def test_readers_together_see_the_epoch_of_a_single_one(
    options: dict, count: int, epoch: int
) -> None:
    if options["size"] < count:
        return
    batch_size = min(options["batch_size"], options["size"] // count)
    options |= {"batch_size": batch_size}
    whole = list(loader(**options).epoch(epoch))
    readers = [loader(**options, shard=(n, count)) for n in range(count)]
    parts = [list(reader.epoch(epoch)) for reader in readers]
    assert len({len(reader) for reader in readers}) == 1
    assert {len(part) for part in parts} == {len(readers[0])}
    # Whole rounds are dealt out like cards, with the draws that belong to them.
    rounds = options["size"] // (batch_size * count)
    for number, batch in enumerate(whole[: rounds * count]):
        assert_same(parts[number % count][number // count], batch)
    if options["drop_remainder"]:
        assert len(readers[0]) == rounds
        return
    # The last round is shared out: every row once, and nobody has much more.
    seen = [row for part in parts for batch in part for row in batch["row"].tolist()]
    assert sorted(seen) == list(range(options["size"]))
    if len(readers[0]) > rounds:
        sizes = [len(part[-1]["row"]) for part in parts]
        assert max(sizes) - min(sizes) <= 1 and max(sizes) <= batch_size


@settings(derandomize=True, deadline=None)
@given(options=SHUFFLED, stop=st.integers(0, 600), prefetch=st.integers(0, 3))
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    options: dict, stop: int, prefetch: int
) -> None:
    def endless(one: Loader) -> Iterator[Batch]:
        while True:
            yield from one.epoch()

    options |= {"batch_size": max(options["batch_size"], options["size"] // 10)}
    straight, stopped = loader(**options), loader(**options, prefetch=prefetch)
    stop %= 3 * len(straight)
    running = endless(stopped)
    before = list(itertools.islice(running, stop))
    state = json.loads(json.dumps(stopped.state()))
    running.close()
    assert (state["epoch"], state["batch"]) == divmod(stop, len(straight))
    resumed = loader(**options)
    resumed.restore(state)
    assert resumed.state() == state
    after = itertools.islice(endless(resumed), 2 * len(straight))
    expected = itertools.islice(endless(straight), stop + 2 * len(straight))
    for found, batch in zip([*before, *after], expected, strict=True):
        assert_same(found, batch)


def test_a_batch_depends_on_epoch_and_index_alone() -> None:
    one = loader(seed=5)
    batches = list(one.epoch(2))
    again = loader(seed=5)
    for index in (13, 0, 4):
        assert_same(again.batch(2, index), batches[index])
    assert again.state()["batch"] == 0
    np.testing.assert_array_equal(again.indices(2, 4), batches[4]["row"])


def test_rows_are_a_copy_and_do_not_depend_on_what_was_asked_before() -> None:
    # Of these batches two are placed at once.
    one = loader(100_000, batch_size=6_000)
    expected = [b["row"] for b in loader(100_000, batch_size=6_000).epoch(1)]
    for epoch, index in ((1, 3), (0, 3), (1, 2), (1, 3), (1, 15), (1, 0)):
        found = one.indices(epoch, index)
        if epoch:
            np.testing.assert_array_equal(found, expected[index])
        found[:] = -1


def test_epochs_seeds_and_batches_have_draws_of_their_own() -> None:
    draws = [
        tuple(batch["draw"].tolist())
        for seed, epoch in itertools.product((0, 1), (0, 1))
        for batch in loader(seed=seed).epoch(epoch)
    ]
    assert len(set(draws)) == len(draws) == 4 * 14


def test_draws_are_those_of_seed_epoch_and_place_in_the_whole_epoch() -> None:
    found = loader(seed=3, shard=(1, 3)).batch(8, 2)["draw"]
    expected = np.random.default_rng([3, 8, 1 + 2 * 3 + 1]).integers(0, 2**62, 7)
    np.testing.assert_array_equal(found, expected)


def test_without_a_number_an_epoch_goes_on_where_the_loader_stands() -> None:
    one = loader()
    assert rows_of(one.epoch()) == rows_of(loader().epoch(0))
    assert rows_of(one.epoch()) == rows_of(loader().epoch(1))
    some = one.epoch()
    assert_same(next(some), loader().batch(2, 0))
    some.close()
    assert rows_of(one.epoch()) == rows_of(loader().epoch(2))[1:]
    one.seek(len(one) * 7 + 12)
    assert rows_of(one.epoch()) == rows_of(loader().epoch(7))[12:]
    assert rows_of(one.epoch(4)) == rows_of(loader().epoch(4))
    assert (one.state()["epoch"], one.state()["batch"]) == (5, 0)


def test_the_state_is_plain_and_complete() -> None:
    one = loader(shuffle="windowed", window=50, block=5, seed=9, shard=(1, 2))
    one.seek(10)
    assert one.state() == {
        "format": "shortlist-loader-1",
        "fingerprint": "numbers",
        "seed": 9,
        "batch_size": 7,
        "shuffle": "windowed",
        "window": 50,
        "block": 5,
        "shard": [1, 2],
        "drop_remainder": True,
        "epoch": 1,
        "batch": 3,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 4}, "seed: 3 in place of 4"),
        ({"batch_size": 8}, "batch_size: 7 in place of 8"),
        ({"shuffle": "none"}, "shuffle: 'windowed' in place of 'none'"),
        ({"window": 60}, "window: 50 in place of 60"),
        ({"block": 6}, "block: 5 in place of 6"),
        ({"shard": (1, 2)}, r"shard: \[0, 2\] in place of \[1, 2\]"),
        ({"drop_remainder": False}, "drop_remainder: True in place of False"),
        ({"size": 101}, "fingerprint: '100' in place of '101'"),
        ({"seed": 4, "block": 6}, "seed: 3 in place of 4; block: 5 in place of 6"),
    ],
)
def test_the_state_of_another_loader_is_refused(options: dict, message: str) -> None:
    def make(size: int = 100, **changed: Any) -> Loader:
        given = {"batch_size": 7, "seed": 3, "shuffle": "windowed", "window": 50}
        given |= {"block": 5, "shard": (0, 2), "prefetch": 0}
        return Loader(Numbers(size, str(size)), **with_windows(given | changed))

    other = make(**options)
    with pytest.raises(InputError, match=message) as caught:
        other.restore(make().state())
    assert caught.value.code == "loader-state"
    assert other.state()["batch"] == 0


@pytest.mark.parametrize(
    "broken",
    [
        *({"epoch": -1}, {"epoch": "2"}, {"epoch": None}, {"epoch": 1.5}),
        *({"batch": 14}, {"batch": -1}, {"batch": True}),
    ],
)
def test_a_damaged_state_is_refused(broken: dict) -> None:
    with pytest.raises(InputError, match="as it was saved") as caught:
        loader().restore(loader().state() | broken)
    assert caught.value.code == "loader-state"
    with pytest.raises(InputError, match="format: None in place of"):
        loader().restore({})


def test_windows_and_blocks_are_no_part_of_the_state_of_other_shuffles() -> None:
    for shuffle in ("global", "none"):
        state = loader(shuffle=shuffle).state()
        assert state["window"] is state["block"] is None
        loader(shuffle=shuffle, prefetch=2).restore(state)


def test_the_windowed_shuffle_by_name_has_the_default_sizes() -> None:
    state = loader(shuffle="windowed").state()
    assert (state["window"], state["block"]) == (262_144, 4_096)
    loader(shuffle=Windowed(window=262_144, block=4_096)).restore(state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be an integer of at least 1"),
        ({"batch_size": 2.0}, "Received: 2.0"),
        ({"seed": -1}, "`seed` must be an integer of at least 0"),
        ({"seed": True}, "Received: True"),
        ({"prefetch": -1}, "`prefetch` must be an integer of at least 0"),
        (
            {"shuffle": "windowed", "window": 0},
            "`window` must be an integer of at least 1",
        ),
        (
            {"shuffle": "windowed", "block": 0},
            "`block` must be an integer of at least 1",
        ),
        ({"shuffle": "globl"}, "Received: 'globl'. Did you mean 'global'?"),
        ({"shuffle": "windowed", "window": 4, "block": 5}, "at least `block`"),
        ({"shard": (2, 2)}, r"Received: \(2, 2\)"),
        ({"shard": (-1, 2)}, "index from 0 to below the count"),
        ({"shard": (0, 0)}, "index from 0 to below the count"),
        ({"shard": (0, 1, 2)}, "index from 0 to below the count"),
        ({"shard": (0, 101)}, "100 examples for 101 readers"),
        ({"size": 0}, "0 examples for 1 readers"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        loader(**options)
    assert caught.value.code == "invalid-loader"


@pytest.mark.parametrize("ask", [(0, 14), (0, -1), (-1, 0)])
def test_a_batch_that_does_not_exist_is_refused(ask: tuple[int, int]) -> None:
    with pytest.raises(InputError) as caught:
        loader().batch(*ask)
    assert caught.value.code == "invalid-loader"


def test_a_source_smaller_than_a_batch_makes_one_batch() -> None:
    one = loader(10, batch_size=10_000)
    assert len(one) == 1
    assert sorted(one.batch(0, 0)["row"].tolist()) == list(range(10))
    assert one.state()["batch_size"] == 10
    assert len(loader(10, batch_size=10_000, shard=(1, 3)).batch(0, 0)["row"]) == 3


# What is made ahead.


def test_values_come_in_order_and_are_made_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=60)

    def make(key: int) -> int:
        together.wait()  # nobody passes alone
        return key * key

    # Six keys are never made one by one, whichever thread is the faster.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shortlist.native.default_threads", lambda: 2)
        assert list(prefetch(make, range(6), 2)) == [0, 1, 4, 9, 16, 25]


def test_only_so_many_values_are_made_ahead() -> None:
    made: list[int] = []
    ahead = prefetch(lambda key: made.append(key) or key, itertools.count(), 3)
    for expected in range(5):
        assert next(ahead) == expected
        assert max(made) <= expected + 3
    ahead.close()
    assert len(made) <= 8


def test_without_prefetch_nothing_is_made_ahead_and_no_thread_runs() -> None:
    made: list[str] = []

    def make(key: int) -> int:
        made.append(threading.current_thread().name)
        return key

    ahead = prefetch(make, range(9), 0)
    assert [next(ahead), next(ahead)] == [0, 1]
    assert made == [threading.current_thread().name] * 2


@pytest.mark.parametrize("prefetch", [0, 1, 4])
def test_an_error_of_a_thread_is_raised_where_its_batch_was_due(prefetch: int) -> None:
    one = loader(prefetch=prefetch)
    take = one.source.take

    def fail(rows: np.ndarray, generator: np.random.Generator) -> Batch:
        if np.array_equal(rows, one.indices(0, 3)):
            raise RuntimeError("a damaged file")
        return take(rows, generator)

    one.source.take = fail  # type: ignore[method-assign]
    seen = []
    with pytest.raises(RuntimeError, match="a damaged file"):
        for batch in one.epoch():
            seen.append(batch)
    assert len(seen) == 3
    assert one.state()["batch"] == 3


def test_a_forgotten_iterator_leaves_no_thread_behind() -> None:
    ahead = loader(prefetch=3).epoch()
    next(ahead)
    running = [t for t in threading.enumerate() if t.name.startswith(THREAD_NAME)]
    assert running
    del ahead
    assert not any(thread.is_alive() for thread in running)


def test_an_iterator_may_be_closed_by_one_of_its_own_threads() -> None:
    # As the garbage collector does, which runs in any thread.
    holder: list[Any] = []
    ready, closed = threading.Event(), threading.Event()

    def make(key: int) -> int:
        if key == 1:
            assert ready.wait(60)
            holder.pop().close()
            closed.set()
        return key

    ahead = prefetch(make, range(3), 1)
    assert next(ahead) == 0
    holder.append(ahead)
    ready.set()
    assert closed.wait(60)
    workers = [t for t in threading.enumerate() if t.name.startswith(THREAD_NAME)]
    for worker in workers:
        worker.join(60)


def test_prefetching_changes_nothing() -> None:
    plain = list(loader(seed=2).epoch(1))
    for depth in (1, 2, 50):
        ahead = loader(seed=2, prefetch=depth).epoch(1)
        for one, other in zip(ahead, plain, strict=True):
            assert_same(one, other)


def test_batches_of_any_order_leave_the_loader_where_it_stands() -> None:
    one = loader(prefetch=2)
    found = rows_of(one.batches(3, [5, 1, 5]))
    assert found == [one.indices(3, index).tolist() for index in (5, 1, 5)]
    assert one.state()["epoch"] == one.state()["batch"] == 0


@settings(derandomize=True, deadline=None)
@given(options=SHUFFLED, some=st.integers(1, 300))
def test_rows_taken_many_batches_at_once_are_those_of_each_batch(
    options: dict, some: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shortlist.data.load.loader._TAKEN_AT_ONCE", some)
        given_options = dict(options)
        one = Loader(
            PlainNumbers(given_options.pop("size")), **with_windows(given_options)
        )
        made = list(one.epoch(3))
    assert len(made) == len(one)
    for index, batch in enumerate(made):
        assert_same(batch, one.batch(3, index))

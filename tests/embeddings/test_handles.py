"""A handle names its tables and one state of them; what does not is told by cause."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shortlist.embeddings.host.handles import to_handle, to_ticket
from shortlist.embeddings.host.host_tables import HostTables, Snapshot
from shortlist.embeddings.table import Bags
from shortlist.errors import ShortlistError
from table_cases import table_of

BAGS = [Bags(table=0, ids=np.array([0, 1], np.int32))]
ONES = [np.ones((2, 2), np.float32)]


def make(name: int = 1000, steps: int = 0) -> HostTables:
    """Tables of which `steps` backward passes were applied."""
    host = HostTables([table_of(np.zeros((2, 2)), kind="sgd")], ["f"], threads=1)
    host.name = name
    for _ in range(steps):
        host.advance(step(host))
    return host


def step(host: HostTables) -> np.float32:
    """The handle after one more backward pass."""
    return host.append(host.handle, BAGS, ONES, 1.0, [0.5])


def code_of(host: HostTables, handle: Any, writer: str | None = None) -> str:
    before = host.tables[0].rows.copy()
    with pytest.raises(ShortlistError) as caught:
        host.check(handle, writer)
    np.testing.assert_array_equal(host.tables[0].rows, before)
    return caught.value.code


def test_handles_are_consecutive_floats() -> None:
    for name in (0, 12345, 2**25 - 1, 2**29):
        first = to_handle(0, name)
        assert np.nextafter(first, np.float32(np.inf)) == to_handle(1, name)
        for ticket in (0, 1, 2**20, 2**29 - 1):
            assert to_ticket(to_handle(ticket, name), name) == ticket
    assert to_handle(0) == 1.0
    assert to_handle(0, 2**25) == 16.0


def test_names_are_drawn_and_do_not_depend_on_seeds() -> None:
    names = set()
    for _ in range(200):
        np.random.seed(0)
        names.add(HostTables([], []).name)
    assert len(names) > 190
    assert all(0 <= name < 2**25 for name in names)


def test_every_state_of_the_tables_is_known_by_its_handle() -> None:
    host = make(steps=2)
    step(host)
    assert host.handle == to_handle(3, 1000)
    host.check(to_handle(2, 1000))
    host.check(to_handle(3, 1000))
    assert code_of(host, to_handle(1, 1000)) == "handle-stale"
    assert code_of(host, to_handle(1, 1000), "assign()") == "handle-stale"


@pytest.mark.parametrize("number", [2, 3, 7, 50])
def test_a_sum_of_handles_is_one_of_several_calls(number: int) -> None:
    host = make(steps=1)
    total = np.float32(0)
    for _ in range(number):
        total = np.float32(total + step(host))
    assert code_of(host, total) == "called-twice"


@pytest.mark.parametrize("other", [5000, 999, 1001, 2**24])
def test_tables_of_the_same_step_are_told_apart(other: int) -> None:
    host, foreign = make(steps=1), make(other, steps=1)
    foreign.applied = foreign.issued = host.issued + (
        2 if abs(other - 1000) == 1 else 0
    )
    assert code_of(host, foreign.handle, "set_weights()") == "handle-foreign"


def test_a_lookup_with_greater_handles_had_weights_of_other_tables() -> None:
    host = make(steps=1)
    assert code_of(host, make(2**20, steps=1).handle) == "handle-foreign"


CHANGES = {
    "clipped": lambda handle: handle * 0.3,
    "sgd": lambda handle: handle - 0.1 * handle,
    "adam": lambda handle: handle - 1e-3,
    "small-adam": lambda handle: handle - 1e-5,
    "averaged": lambda handle: handle * 0.999,
    "negative": lambda handle: -handle,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("name", [3000, 2**25 - 1])
def test_a_handle_that_an_optimizer_moved_was_changed(name: int, change: Any) -> None:
    host = make(name, steps=1)
    assert code_of(host, np.float32(change(host.handle))) == "handle-changed"


def test_what_is_no_number_or_zero_has_causes_of_its_own() -> None:
    host = make()
    assert code_of(host, np.float32(0)) == "loss-term-missing"
    assert code_of(host, np.float32(np.inf)) == "gradient-not-finite"
    assert code_of(host, np.float32(0), "set_weights()") == "handle-foreign"
    assert code_of(host, np.float32(np.nan), "set_weights()") == "handle-foreign"


def test_tables_that_were_loaded_have_a_new_name() -> None:
    host = make(steps=3)
    before = host.handle
    handle = host.restore(Snapshot(applied=3, issued=3))
    assert handle == host.handle != before
    assert code_of(host, before, "set_weights()") == "handle-foreign"


def test_handles_grow_while_an_optimizer_accumulates() -> None:
    """Keras takes the maximum of what it accumulated, also across a load."""
    host = make(2**25 - 1, steps=2)
    accumulated = max(step(host), step(host))
    snapshot = host.snapshot()
    host.rename()
    assert min(host.handle_of(0), host.handle) > accumulated
    again = make(0)
    again.restore(snapshot)
    following = step(again)
    assert max(following, accumulated) == following
    again.advance(following)
    # Three gradients of 1 were averaged, after two steps of 0.5 elsewhere.
    np.testing.assert_array_equal(again.tables[0].rows, np.full((2, 2), -0.5))

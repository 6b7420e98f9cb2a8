"""Lookups and updates of host tables: the compiled core and its NumPy twin."""

from __future__ import annotations

import copy
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist import native
from shortlist.embeddings.host import kernels, reference
from shortlist.embeddings.rules import KINDS, Rule
from shortlist.embeddings.table import COMBINERS, ROW_TYPES, Bags, Gradients
from shortlist.errors import InputError
from suites import TableSuite
from table_cases import (
    EVERYTHING,
    assert_same_table,
    needs_core,
    random_bags,
    random_gradients,
    random_table,
    table_of,
)

CORE = native.core()
INSTRUCTION_SETS = native.instruction_sets() or ["portable"]


@needs_core
class TestCore(TableSuite):
    core = CORE


class TestTwin(TableSuite):
    core = None


@needs_core
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
class TestInstructionSet(TableSuite):
    """The same on each kind of processor that this one can stand in for."""

    core = CORE

    @pytest.fixture(autouse=True)
    def _use_set(self, monkeypatch, _use_core, instruction_set):
        monkeypatch.setattr(native, "_core", OneSet(instruction_set))


class OneSet:
    """The compiled core held to one instruction set."""

    offsets_rise = staticmethod(CORE.offsets_rise if CORE else None)

    def __init__(self, name):
        self.name = name

    def lookup(self, *arguments):
        return CORE.lookup(*arguments, self.name)

    def update(self, *arguments):
        CORE.update(*arguments, self.name)


def bits_of(table):
    return [table.rows.tobytes(), *(slot.tobytes() for slot in table.slots.values())]


# Lookups by hand.


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("combiner", "weights", "expected"),
    [
        ("sum", None, [[4, 6], [0, 0], [5, 6]]),
        ("mean", None, [[2, 3], [0, 0], [5, 6]]),
        ("sqrtn", None, [[4 / 2**0.5, 6 / 2**0.5], [0, 0], [5, 6]]),
        ("sum", [3, 1, 2], [[6, 10], [0, 0], [10, 12]]),
        ("mean", [3, 1, 2], [[1.5, 2.5], [0, 0], [5, 6]]),
        ("sqrtn", [3, 4, 2], [[15 / 5, 22 / 5], [0, 0], [5, 6]]),
        ("mean", [1, -1, 0], [[0, 0], [0, 0], [0, 0]]),
    ],
)
def test_bags_are_combined_with_padding_left_out(combiner, weights, expected):
    table = table_of([[1, 2], [3, 4], [5, 6]])
    padded = np.array([[0, -1, 1], [-1, -1, -1], [-1, 2, -1]], np.int32)
    jagged = padded[padded >= 0]
    around = None
    if weights is not None:
        weights = np.array(weights, np.float32)
        around = np.full(padded.shape, 9, np.float32)
        around[padded >= 0] = weights
    features = [
        Bags(table=0, ids=padded, weights=around, combiner=combiner),
        Bags(
            table=0,
            ids=jagged,
            offsets=np.array([0, 2, 2, 3]),
            weights=weights,
            combiner=combiner,
        ),
    ]
    for vectors in kernels.lookup([table], features):
        np.testing.assert_allclose(vectors, expected, rtol=1e-6)


@pytest.mark.usefixtures("way")
def test_given_arrays_are_filled_and_returned():
    table = table_of([[1, 2], [3, 4]])
    out = [np.full((2, 2), 9, np.float32)]
    ids = np.array([1, -1], np.int32)
    vectors = kernels.lookup([table], [Bags(table=0, ids=ids)], out=out)
    assert vectors[0] is out[0]
    np.testing.assert_array_equal(out[0], [[3, 4], [0, 0]])


@pytest.mark.usefixtures("way")
def test_vectors_of_large_batches_stay_as_they_are_while_somebody_holds_them():
    table = table_of(np.arange(8).reshape(4, 2))
    ids = [np.full(2**18, row, np.int32) for row in range(4)]
    held = [kernels.lookup([table], [Bags(table=0, ids=i)])[0][5:] for i in ids]
    for row, vectors in enumerate(held):
        np.testing.assert_array_equal(
            vectors, np.broadcast_to(table.rows[row], (2**18 - 5, 2))
        )
    addresses = {vectors.ctypes.data for vectors in held}
    assert len(addresses) == 4
    del held, vectors
    again = kernels.lookup([table], [Bags(table=0, ids=ids[0])])[0][5:]
    assert again.ctypes.data in addresses
    assert again.flags.writeable


# Properties.


@st.composite
def problems(draw):
    """A few tables, and features of any form with repeats, padding and empty bags."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    widths = st.integers(1, 70) | st.sampled_from([127, 128, 200, 513, 1023, 1024])
    tables = []
    for _ in range(draw(st.integers(1, 3))):
        rule = Rule(
            kind=draw(st.sampled_from(KINDS)),
            **(EVERYTHING if draw(st.booleans()) else {}),
        )
        num_rows = draw(st.sampled_from([1, 2, 30, 3000]))
        row_type = draw(st.sampled_from(sorted(ROW_TYPES)))
        tables.append(random_table(rng, rule, num_rows, draw(widths), row_type))
    features = []
    for _ in range(draw(st.integers(0, 4))):
        t = draw(st.integers(0, len(tables) - 1))
        bags = draw(st.sampled_from([0, 1, 3, 90]))
        length = draw(st.sampled_from([0, 1, 2, 9]))
        num_rows = tables[t].num_rows
        shape = (bags,) if draw(st.booleans()) else (bags, length)
        ids = rng.integers(-1, num_rows, shape, dtype=np.int32)
        offsets = None
        if len(shape) == 1 and draw(st.booleans()):
            cuts = rng.integers(0, bags + 1, rng.integers(0, 9))
            offsets = np.sort([0, *cuts, bags])
        features.append(
            Bags(
                table=t,
                ids=ids.astype(draw(st.sampled_from([np.int32, np.int64]))),
                offsets=offsets,
                weights=rng.random(shape, np.float32) if draw(st.booleans()) else None,
                combiner=draw(st.sampled_from(COMBINERS)),
            )
        )
    gradients = tuple(
        rng.standard_normal((b.num_bags, tables[b.table].dim), np.float32)
        for b in features
    )
    return tables, Gradients(features=tuple(features), gradients=gradients)


@needs_core
@settings(deadline=None, max_examples=100, derandomize=True)
@given(problems(), st.integers(1, 4))
def test_core_equals_twin_on_everything(problem, threads):
    tables, batch = problem
    twins = copy.deepcopy(tables)
    rates = [0.05] * len(tables)
    vectors = kernels.lookup(tables, batch.features, threads=threads)
    expected = reference.lookup(twins, batch.features)
    for actual, twin in zip(vectors, expected, strict=True):
        np.testing.assert_allclose(actual, twin, rtol=1e-5, atol=1e-5)
    for _ in range(2):
        kernels.update(tables, [batch], rates, threads=threads)
        reference.update(twins, [batch], rates)
        for table, twin in zip(tables, twins, strict=True):
            assert_same_table(table, twin)


@needs_core
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row_type", ROW_TYPES)
def test_no_bit_depends_on_threads(kind, row_type):
    """Enough work for 8 threads, with rows that half of the entries share."""
    rng = np.random.default_rng(1)
    table = random_table(rng, Rule(kind=kind), 4000, 33, row_type)
    popular = (rng.pareto(0.3, 20000) % 4000).astype(np.int64)
    offsets = np.sort([0, *rng.integers(0, 20000, 6000), 20000])
    features = [
        Bags(table=0, ids=rng.integers(0, 4000, 20000, dtype=np.int32)),
        Bags(table=0, ids=popular, offsets=offsets, combiner="mean"),
    ]
    batch = random_gradients(rng, features, 33)
    seen = []
    for threads in (1, 2, 3, 8):
        copied = copy.deepcopy(table)
        for _ in range(2):
            kernels.update([copied], [batch], [0.1], threads=threads)
        vectors = kernels.lookup([copied], features, threads=threads)
        seen.append([*bits_of(copied), *(v.tobytes() for v in vectors)])
    assert all(other == seen[0] for other in seen[1:])


@needs_core
def test_no_bit_depends_on_how_a_batch_is_written_down():
    rng = np.random.default_rng(2)
    table = random_table(rng, Rule(kind="adam"), 50, 20, "bfloat16")
    ids = rng.integers(0, 50, 600)
    flat = Bags(table=0, ids=ids)
    gradient = rng.standard_normal((600, 20), np.float32)
    column = Bags(table=0, ids=ids.astype(np.int32)[:, None])
    padded = Bags(table=0, ids=np.stack([np.full(600, -1), ids], 1), combiner="mean")
    jagged = Bags(
        table=0, ids=ids, offsets=np.arange(601), weights=np.ones(600, np.float32)
    )
    whole = [
        [Gradients(features=(bags,), gradients=(gradient,))]
        for bags in (flat, column, padded, jagged)
    ]
    halves = [
        Gradients(features=(Bags(table=0, ids=ids[part]),), gradients=(gradient[part],))
        for part in (slice(0, 251), slice(251, None))
    ]
    seen = []
    for batches in [*whole, halves]:
        copied = copy.deepcopy(table)
        kernels.update([copied], batches, [0.1])
        seen.append(bits_of(copied))
    assert all(other == seen[0] for other in seen[1:])


@needs_core
def test_features_of_different_tables_do_not_meet():
    rng = np.random.default_rng(3)
    tables = [random_table(rng, Rule(), 50, 8, "float32") for _ in range(2)]
    ids = rng.integers(0, 50, (2, 300))
    gradient = rng.standard_normal((2, 300, 8), np.float32)
    seen = []
    for order in ([0, 1], [1, 0]):
        copied = copy.deepcopy(tables)
        features = tuple(Bags(table=t, ids=ids[t]) for t in order)
        batch = Gradients(
            features=features, gradients=tuple(gradient[t] for t in order)
        )
        kernels.update(copied, [batch], [0.1, 0.1])
        seen.append([bits_of(table) for table in copied])
    assert seen[0] == seen[1]


@needs_core
def test_several_callers_at_once_do_not_disturb_each_other():
    rng = np.random.default_rng(4)
    table = random_table(rng, Rule(), 5000, 32, "float32")
    bags = [*random_bags(rng, 5000), Bags(table=0, ids=rng.integers(0, 5000, 20000))]
    batch = random_gradients(rng, bags, 32)
    copies = [copy.deepcopy(table) for _ in range(5)]

    def work(own):
        for _ in range(3):
            kernels.update([own], [batch], [0.1], threads=2)

    callers = [threading.Thread(target=work, args=(own,)) for own in copies]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(bits_of(own) == bits_of(copies[0]) for own in copies)


# Refusals.

IDS = np.zeros(4, np.int32)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("bags", "message"),
    [
        (Bags(table=1, ids=IDS), "table of a feature must lie between 0 and 0.*: 1"),
        (Bags(table=-1, ids=IDS), "between 0 and 0.*Received: -1"),
        (Bags(table=0, ids=IDS.astype(np.int16)), r"int32 or int64.*int16 .*\(4,\)"),
        (Bags(table=0, ids=[1, 2]), "contiguous int32 or int64.*Received: list"),
        (Bags(table=0, ids=np.zeros((2, 2, 2), int)), r"Received: int64 .*\(2, 2, 2\)"),
        (Bags(table=0, ids=IDS[::2]), "Received: int32 .*not contiguous"),
        (
            Bags(table=0, ids=IDS.reshape(2, 2), offsets=np.array([0, 2])),
            "or .n,. with offsets",
        ),
        (
            Bags(table=0, ids=IDS, offsets=np.array([0, 3])),
            "rise from 0 .* 4.*Received",
        ),
        (Bags(table=0, ids=IDS, offsets=np.array([1, 4])), "rise from 0"),
        (Bags(table=0, ids=IDS, offsets=np.array([0, 3, 2, 4])), "rise from 0"),
        (Bags(table=0, ids=IDS, offsets=np.array([0, 4], "i4")), "contiguous int64"),
        (Bags(table=0, ids=IDS, weights=np.ones(4)), "weights .*Received: float64"),
        (Bags(table=0, ids=IDS, weights=np.ones(3, "f")), r"\(4,\).*Received.*\(3,\)"),
        (Bags(table=0, ids=IDS, combiner="max"), "one of sum, mean, sqrtn.*'max'"),
    ],
)
def test_bags_that_do_not_fit_are_refused(bags, message):
    table = table_of([[1, 2]])
    with pytest.raises(InputError, match=message) as caught:
        kernels.lookup([table], [bags])
    assert caught.value.code == "invalid-bags"
    batch = Gradients(features=(bags,), gradients=(np.zeros((4, 2), np.float32),))
    with pytest.raises(InputError, match=message):
        kernels.update([table], [batch], [0.1])
    assert table.step == 0


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("gradients", "rates", "message"),
    [
        ((np.zeros((4, 3), np.float32),), [1.0], r"\(4, 2\).*\(4, 3\)"),
        ((np.zeros((4, 2)),), [1.0], r"contiguous float32.*Received: float64"),
        ((np.zeros((2, 4), np.float32).T,), [1.0], "not contiguous"),
        ((), [1.0], "one gradient per feature. Received: 0 for 1"),
        ((np.zeros((4, 2), np.float32),), [], "one learning rate per table.*: 0 for 1"),
    ],
)
def test_gradients_that_do_not_fit_are_refused(gradients, rates, message):
    table = table_of([[1, 2]])
    batch = Gradients(features=(Bags(table=0, ids=IDS),), gradients=gradients)
    with pytest.raises(InputError, match=message) as caught:
        kernels.update([table], [batch], rates)
    assert (caught.value.code, table.step) == ("invalid-bags", 0)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("out", "message"),
    [
        ([], "one array per feature. Received: 0 for 1"),
        ([np.zeros((4, 2))], r"contiguous float32 \(4, 2\).*Received: float64"),
        ([np.zeros((3, 2), np.float32)], r"Received: float32 of shape \(3, 2\)"),
    ],
)
def test_arrays_that_cannot_be_filled_are_refused(out, message):
    with pytest.raises(InputError, match=message) as caught:
        kernels.lookup([table_of([[1, 2]])], [Bags(table=0, ids=IDS)], out=out)
    assert caught.value.code == "invalid-bags"

"""Exact top-k: the compiled core against its NumPy twin and a plain-Python formula."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist import native
from shortlist.errors import InputError
from shortlist.native import top_k, top_k_reference

needs_core = pytest.mark.skipif(
    not native.is_native(),
    reason="the compiled core is missing: install a C++17 compiler, then make clean",
)
INSTRUCTION_SETS = native.instruction_sets() or [
    pytest.param("portable", marks=needs_core)
]


def sorted_by_hand(queries, items, k, exclude=None):
    """The definition: every score, sorted; integers, so that sums are exact."""
    rows = []
    for i, query in enumerate(queries):
        banned = set()
        if exclude is not None:
            offsets, indices = exclude
            banned = {int(n) for n in indices[offsets[i] : offsets[i + 1]]}
        scored = [
            (-sum(int(a) * int(b) for a, b in zip(query, item, strict=True)), n)
            for n, item in enumerate(items)
            if n not in banned
        ]
        best = sorted(scored)[:k]
        rows.append([(-score, n) for score, n in best])
    return rows


def run_core(queries, items, k, *, exclude=None, threads=1, instruction_set=""):
    """The extension itself, which takes more arguments than the public function."""
    from shortlist import _native

    offsets, excluded = exclude or (None, None)
    scores = np.empty((len(queries), k), np.float32)
    indices = np.empty((len(queries), k), np.int32)
    _native.top_k(
        queries, items, offsets, excluded, scores, indices, threads, instruction_set
    )
    return scores, indices


def assert_same(actual, expected):
    np.testing.assert_array_equal(actual[1], expected[1])
    np.testing.assert_array_equal(actual[0], expected[0])


@st.composite
def problems(draw, max_items=200, max_dim=300):
    """Integer-valued vectors with many ties, and exclusions with repeats."""
    num_queries = draw(st.integers(0, 9))
    num_items = draw(st.integers(0, max_items))
    dim = draw(st.integers(1, max_dim))
    largest = draw(st.sampled_from([0, 1, 8]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    queries = rng.integers(-largest, largest + 1, (num_queries, dim))
    items = rng.integers(-largest, largest + 1, (num_items, dim))
    exclude = None
    if num_items and draw(st.booleans()):
        counts = rng.integers(0, 2 * num_items, num_queries)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        exclude = offsets, rng.integers(0, num_items, offsets[-1], dtype=np.int32)
    k = draw(st.integers(1, 250))
    return queries.astype(np.float32), items.astype(np.float32), k, exclude


def test_best_items_come_first_and_ties_go_to_the_lower_index():
    queries = np.array([[1, 0], [0, -1]], np.float32)
    items = np.array([[1, 5], [2, 5], [2, 0], [0, 1]], np.float32)
    scores, indices = top_k(queries, items, 3)
    assert scores.dtype == np.float32 and indices.dtype == np.int32
    np.testing.assert_array_equal(indices, [[1, 2, 0], [2, 3, 0]])
    np.testing.assert_array_equal(scores, [[2, 2, 1], [0, -1, -5]])


def test_excluded_items_never_appear_and_missing_ones_are_marked():
    queries = np.ones((2, 1), np.float32)
    items = np.array([[3], [2], [1]], np.float32)
    exclude = np.array([0, 3, 3]), np.array([2, 0, 2])
    scores, indices = top_k(queries, items, 2, exclude=exclude)
    np.testing.assert_array_equal(indices, [[1, -1], [0, 1]])
    np.testing.assert_array_equal(scores, [[2, -np.inf], [3, 2]])


@settings(deadline=None, max_examples=30)
@given(problems(max_items=25, max_dim=6))
def test_twin_follows_the_definition(problem):
    queries, items, k, exclude = problem
    scores, indices = top_k_reference(queries, items, k, exclude=exclude)
    for i, row in enumerate(sorted_by_hand(queries, items, k, exclude)):
        assert [(s, n) for s, n in zip(scores[i], indices[i], strict=True)] == [
            *row,
            *[(-np.inf, -1)] * (k - len(row)),
        ]


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
@settings(deadline=None, max_examples=120)
@given(problem=problems(), threads=st.integers(1, 5))
def test_core_equals_twin_bit_for_bit_on_integers(instruction_set, problem, threads):
    queries, items, k, exclude = problem
    actual = run_core(
        queries,
        items,
        k,
        exclude=exclude,
        threads=threads,
        instruction_set=instruction_set,
    )
    assert_same(actual, top_k_reference(queries, items, k, exclude=exclude))


@pytest.mark.parametrize("dim", [1, 15, 16, 17, 64, 100, 300])
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_core_is_close_to_twin_on_random_floats(instruction_set, dim):
    rng = np.random.default_rng(dim)
    queries = rng.standard_normal((7, dim), dtype=np.float32)
    items = rng.standard_normal((1003, dim), dtype=np.float32)
    scores, indices = run_core(queries, items, 50, instruction_set=instruction_set)
    expected, _ = top_k_reference(queries, items, 50)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    exact = np.einsum("qkd,qd->qk", items[indices], queries, dtype=np.float64)
    np.testing.assert_allclose(scores, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_queries", [1, 3, 33, 100])
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_answer_does_not_depend_on_threads_or_on_other_queries(
    instruction_set, num_queries
):
    # Large enough for several threads to be worth it: 40 million multiplications.
    rng = np.random.default_rng(7)
    queries = rng.standard_normal((num_queries, 37), dtype=np.float32)
    items = rng.standard_normal((40_000_000 // 37 // num_queries, 37), dtype=np.float32)
    one = run_core(queries, items, 300, instruction_set=instruction_set)
    for threads in (2, 3, 8):
        many = run_core(
            queries, items, 300, threads=threads, instruction_set=instruction_set
        )
        assert_same(many, one)
    alone = run_core(queries[-1:], items, 300, instruction_set=instruction_set)
    assert_same(alone, (one[0][-1:], one[1][-1:]))


def test_instruction_sets_that_fuse_agree_to_the_last_bit():
    fusing = [name for name in native.instruction_sets() if name != "portable"]
    rng = np.random.default_rng(3)
    queries = rng.standard_normal((5, 77), dtype=np.float32)
    items = rng.standard_normal((999, 77), dtype=np.float32)
    answers = [run_core(queries, items, 99, instruction_set=name) for name in fusing]
    for answer in answers[1:]:
        assert_same(answer, answers[0])


@needs_core
def test_unknown_instruction_set_is_refused():
    with pytest.raises(ValueError, match="must be one that this processor runs.*'mmx'"):
        run_core(np.ones((1, 1), "f"), np.ones((1, 1), "f"), 1, instruction_set="mmx")


@pytest.mark.parametrize("find", [top_k, top_k_reference])
def test_nan_is_absent_and_infinities_are_numbers(find):
    items = np.array([[np.nan], [1], [-np.inf], [np.inf], [-np.nan], [2]], np.float32)
    scores, indices = find(np.ones((1, 1), np.float32), items, 6)
    np.testing.assert_array_equal(indices, [[3, 5, 1, 2, -1, -1]])
    np.testing.assert_array_equal(scores, [[np.inf, 2, 1, *[-np.inf] * 3]])


@pytest.mark.parametrize("find", [top_k, top_k_reference])
def test_nan_made_by_infinities_is_absent_without_a_warning(find):
    items = np.full((1000, 2), np.inf, np.float32)
    items[500] = 1
    scores, indices = find(np.array([[1, -1]], np.float32), items, 1)
    assert (scores.tolist(), indices.tolist()) == ([[0]], [[500]])


@pytest.mark.parametrize("find", [top_k, top_k_reference])
def test_more_minus_infinities_than_asked_keep_the_lower_indices(find):
    items = np.full((2000, 1), -np.inf, np.float32)
    _, indices = find(np.ones((1, 1), np.float32), items, 3)
    np.testing.assert_array_equal(indices, [[0, 1, 2]])


@pytest.mark.parametrize("find", [top_k, top_k_reference])
@pytest.mark.parametrize(
    ("num_queries", "num_items", "dim"), [(0, 3, 2), (2, 0, 2), (2, 3, 0), (0, 0, 0)]
)
def test_empty_inputs_answer_with_what_there_is(find, num_queries, num_items, dim):
    queries = np.zeros((num_queries, dim), np.float32)
    scores, indices = find(queries, np.zeros((num_items, dim), np.float32), 4)
    row = [*range(num_items), *[-1] * (4 - num_items)]
    np.testing.assert_array_equal(indices, np.array([row] * num_queries).reshape(-1, 4))
    assert scores.shape == (num_queries, 4)


@pytest.mark.parametrize("find", [top_k, top_k_reference])
@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8, bool])
def test_other_number_types_and_layouts_are_converted(find, dtype):
    rng = np.random.default_rng(0)
    queries = rng.integers(0, 2, (6, 4)).astype(dtype)
    items = rng.integers(0, 2, (4, 50)).astype(dtype)
    actual = find(queries[::2], items.T, 5)
    copies = queries[::2].astype(np.float32), items.T.astype(np.float32, order="C")
    assert_same(actual, top_k_reference(*copies, 5))


@pytest.mark.parametrize("find", [top_k, top_k_reference])
def test_read_only_items_are_searched_as_they_are(find):
    items = np.eye(3, dtype=np.float32)
    items.flags.writeable = False
    _, indices = find(items, items, 1)
    np.testing.assert_array_equal(indices, [[0], [1], [2]])


def test_twin_answers_the_same_in_blocks(monkeypatch):
    rng = np.random.default_rng(1)
    queries = rng.integers(-3, 4, (10, 8)).astype(np.float32)
    items = rng.integers(-3, 4, (40, 8)).astype(np.float32)
    whole = top_k_reference(queries, items, 7)
    monkeypatch.setattr(native, "_TWIN_BUDGET_BYTES", 3 * 40 * 4)
    assert_same(top_k_reference(queries, items, 7), whole)


ONES = np.ones((2, 3), np.float32)


@pytest.mark.parametrize("find", [top_k, top_k_reference])
@pytest.mark.parametrize(
    ("queries", "items", "message"),
    [
        (np.ones(3), ONES, r"`queries` must be a 2-D array.*shape \(3,\)"),
        (ONES, np.ones((1, 2, 3)), r"`items` must be a 2-D array.*\(1, 2, 3\)"),
        (ONES, ONES.astype(complex), "`items` must be .* real numbers.*complex128"),
        (ONES.astype(str), ONES, "`queries` must be .* real numbers"),
        (ONES, np.ones((2, 4)), r"same number of columns.*\(2, 3\).*\(2, 4\)"),
    ],
)
def test_vectors_of_wrong_shape_or_type_are_refused(find, queries, items, message):
    with pytest.raises(InputError, match=message) as caught:
        find(queries, items, 1)
    assert caught.value.code == "invalid-vectors"


def test_more_items_than_32_bits_can_number_are_refused():
    many = np.empty((2**31, 0), np.float32)
    with pytest.raises(InputError, match="fewer than 2\\*\\*31 items") as caught:
        top_k(np.empty((1, 0), np.float32), many, 1)
    assert caught.value.code == "invalid-vectors"


@pytest.mark.parametrize("find", [top_k, top_k_reference])
@pytest.mark.parametrize("k", [0, -1, 1.5, "3", None, True, 2**31, 2**62, 2**80])
def test_k_that_is_not_a_positive_integer_is_refused(find, k):
    with pytest.raises(InputError, match="`k` must be a whole number") as caught:
        find(ONES, ONES, k)
    assert caught.value.code == "invalid-k"


@pytest.mark.parametrize("threads", [0, -2, 2.0, True])
def test_threads_that_are_not_a_positive_integer_are_refused(threads):
    with pytest.raises(InputError, match="`threads` must be a whole number") as caught:
        top_k(ONES, ONES, 1, threads=threads)
    assert caught.value.code == "invalid-threads"


@pytest.mark.parametrize("find", [top_k, top_k_reference])
@pytest.mark.parametrize(
    ("offsets", "indices", "message"),
    [
        ([0, 1], [0], "3 offsets that rise"),
        ([0, 2, 1], [0], "3 offsets that rise"),
        ([1, 1, 1], [0], "from 0 to the number of indices"),
        ([0, 0, 2], [0], "from 0 to the number of indices"),
        ([0.0, 0.0, 1.0], [0], "integer vectors"),
        ([0, 0, 1], [0.5], "integer vectors"),
        ([0, 0, 1], [[0]], "integer vectors"),
        ([0, 0, 1], [2], "between 0 and 1. Received: 2 to 2"),
        ([0, 0, 1], [-1], "between 0 and 1. Received: -1 to -1"),
    ],
)
def test_exclusions_that_do_not_fit_are_refused(find, offsets, indices, message):
    with pytest.raises(InputError, match=message) as caught:
        find(ONES, ONES, 1, exclude=(np.array(offsets), np.array(indices)))
    assert caught.value.code == "invalid-exclude"


@pytest.mark.parametrize("exclude", [(), (np.zeros(3, int),), (np.zeros(3, int),) * 3])
@pytest.mark.parametrize("find", [top_k, top_k_reference])
def test_exclusions_that_are_no_pair_are_refused(find, exclude):
    with pytest.raises(InputError, match="must be .offsets, indices") as caught:
        find(ONES, ONES, 1, exclude=exclude)
    assert caught.value.code == "invalid-exclude"


def test_a_query_of_no_vectors_is_refused():
    with pytest.raises(InputError, match="must have at least one vector") as caught:
        top_k(np.zeros((2, 0, 3), np.float32), np.ones((4, 3), np.float32), 1)
    assert caught.value.code == "invalid-vectors"


def test_empty_exclusions_exclude_nothing():
    _, indices = top_k(ONES, ONES, 1, exclude=(np.zeros(3, int), np.array([])))
    np.testing.assert_array_equal(indices, [[0], [0]])


def test_default_threads_are_the_processors_of_this_process():
    assert native.default_threads() >= 1


@needs_core
def test_other_python_threads_run_while_the_core_works():
    """No thread gives up the GIL by itself here, so only the core can hand it over."""
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((64, 64), dtype=np.float32)
    items = rng.standard_normal((5000, 64), dtype=np.float32)
    gate, progress = threading.Lock(), threading.Event()

    def other() -> None:
        with gate:
            progress.set()

    gate.acquire()
    thread = threading.Thread(target=other)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e6)
    try:
        gate.release()
        for _ in range(2000):
            run_core(queries, items, 10)
            if progress.is_set():
                break
        seen = progress.is_set()
    finally:
        sys.setswitchinterval(interval)
        thread.join()
    assert seen


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


USE_TWICE = """
import numpy as np
from shortlist import native
for _ in range(2):
    native.top_k(np.eye(2), np.eye(2), 1)
print(native.is_native())
"""


def test_missing_core_is_told_once_per_process_and_everything_works():
    hide = "import sys; sys.modules['shortlist._native'] = None\n"
    done = run_python(hide + USE_TWICE, SHORTLIST_NATIVE="1")
    assert done.stdout == "False\n"
    assert done.stderr.count("NativeFallbackWarning: Shortlist runs on NumPy") == 1
    assert "Install a C++17 compiler and reinstall" in done.stderr


def test_twin_on_purpose_is_silent():
    done = run_python(USE_TWICE, SHORTLIST_NATIVE="0")
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_several_vectors_of_a_query_give_the_best_by_the_highest_score() -> None:
    rng = np.random.default_rng(4)
    # Small integers: scores are exact, and many are equal.
    queries = rng.integers(-2, 3, (9, 3, 4)).astype(np.float32)
    items = rng.integers(-2, 3, (40, 4)).astype(np.float32)
    lists = [np.sort(rng.choice(40, 5, replace=False)) for _ in range(9)]
    offsets = np.arange(0, 50, 5)
    exclude = (offsets, np.concatenate(lists).astype(np.int32))
    for k in (1, 7, 38):
        scores, indices = native.top_k(queries, items, k, exclude=exclude)
        assert scores.shape == indices.shape == (9, k)
        for row in range(9):
            best = (queries[row] @ items.T).max(axis=0)
            left = [i for i in range(40) if i not in lists[row]]
            order = sorted(left, key=lambda i: (-best[i], i))[:k]
            filled = order + [-1] * (k - len(order))
            assert indices[row].tolist() == filled
            expected = [best[i] for i in order] + [-np.inf] * (k - len(order))
            assert scores[row].tolist() == expected

"""Blocks of TFRecord: the core against its twin, and both against literal bytes."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlist import native
from shortlist.data.kernels import tfrecord_twin
from shortlist.data.kernels.tfrecord import crc32c, is_tfrecord, read_records
from shortlist.data.kernels.tfrecord_twin import (
    BYTES,
    FLOATS,
    INTEGERS,
    NO_KIND,
    RecordBlock,
    feature_names,
)
from shortlist.data.read.tfrecord.encoding import (
    encode_example,
    pack_integers,
    to_record,
)

# Two Examples as TensorFlow 2.21 wrote them: item, label, tags and user.
GOLDEN = bytes.fromhex(
    "4f000000000000006c474f930a4d0a0e0a046974656d12060a040a02c3a90a110a056c6162656c"
    "120812060a040000003f0a190a047461677312111a0f0a0d01ac02ffffffffffffffffff010a0d"
    "0a047573657212051a030a01073c0b93df440000000000000043592e9a0a420a0d0a046974656d"
    "12050a030a01780a110a056c6162656c120812060a04000080bf0a0a0a047461677312021a000a"
    "120a0475736572120a1a080a0680808080802049019e26"
)
EXAMPLES = [
    {
        "user": np.array([7]),
        "item": ["é".encode()],
        "label": np.array([0.5], np.float32),
        "tags": np.array([1, 300, -1]),
    },
    {
        "user": np.array([2**40]),
        "item": [b"x"],
        "label": np.array([-1], np.float32),
        "tags": np.array([], np.int64),
    },
]
NAMES = [b"item", b"label", b"tags", b"user"]


@pytest.fixture(params=["core", "twin"], autouse=True)
def core(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "twin":
        monkeypatch.setattr(native, "_core", None)


def field(number: int, content: bytes) -> bytes:
    assert number < 16
    return bytes([number << 3 | 2]) + pack_integers(np.array([len(content)])) + content


def example(**features: bytes) -> bytes:
    entries = [
        field(1, field(1, name.encode()) + field(2, feature))
        for name, feature in features.items()
    ]
    return field(1, b"".join(entries))


def read(*examples: bytes, names: list[bytes] | None = None) -> RecordBlock:
    """All records, which must have a feature `a` or those named."""
    data = b"".join(to_record(example) for example in examples)
    names = [b"a"] if names is None else names
    return read_records(data, names, [NO_KIND] * len(names), only_these=True)


def values(block: RecordBlock) -> tuple[int, list[int], list[float]]:
    assert block.fault is None
    (column,) = block.columns
    return column.kind, column.counts.tolist(), column.values.tolist()


def same(found: RecordBlock, expected: RecordBlock) -> None:
    assert found.fault == expected.fault
    if expected.fault is not None:
        return
    assert (found.records, found.consumed) == (expected.records, expected.consumed)
    np.testing.assert_array_equal(found.smallest, expected.smallest)
    np.testing.assert_array_equal(found.sharing, expected.sharing)
    for one, other in zip(found.columns, expected.columns, strict=True):
        assert one.kind == other.kind
        for mine, theirs in zip(one[1:], other[1:], strict=True):
            if theirs is None or mine is None:
                assert mine is theirs
                continue
            assert mine.dtype == theirs.dtype
            assert mine.tobytes() == theirs.tobytes()


def test_checksums_are_those_of_rfc_3720() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@given(st.binary(max_size=100))
@settings(max_examples=50)
def test_every_form_of_the_checksum_agrees(data: bytes) -> None:
    assert crc32c(data) == tfrecord_twin.crc32c(data)
    core = native.core()
    if core is not None:
        array = np.frombuffer(data, np.uint8)
        assert core.crc32c(array, True) == core.crc32c(array)


def test_bytes_of_tensorflow_are_read() -> None:
    block = read_records(GOLDEN, NAMES, [NO_KIND] * 4, only_these=True)
    assert block.fault is None
    assert (block.records, block.consumed) == (2, len(GOLDEN))
    item, label, tags, user = block.columns
    assert [column.kind for column in block.columns] == [
        BYTES,
        FLOATS,
        INTEGERS,
        INTEGERS,
    ]
    assert item.values.tobytes() == "éx".encode()
    assert item.ends is not None and item.ends.tolist() == [2, 3]
    assert label.values.tolist() == [0.5, -1.0]
    assert tags.values.tolist() == [1, 300, -1]
    assert tags.counts.tolist() == [3, 0]
    assert user.values.tolist() == [7, 2**40]
    assert block.smallest.tolist() == [1, 1]
    assert block.sharing.tolist() == [3, 3]
    assert is_tfrecord(GOLDEN) and not is_tfrecord(GOLDEN[1:])


def test_what_is_written_equals_the_bytes_of_tensorflow() -> None:
    assert b"".join(to_record(encode_example(e)) for e in EXAMPLES) == GOLDEN


def test_every_cut_waits_for_the_rest() -> None:
    first = 79 + 16
    for size in range(len(GOLDEN)):
        block = read_records(GOLDEN[:size], NAMES, [NO_KIND] * 4, only_these=True)
        assert block.fault is None
        assert block.consumed == (first if size >= first else 0)


def test_every_changed_bit_is_a_fault() -> None:
    for place in range(len(GOLDEN)):
        bad = bytearray(GOLDEN)
        bad[place] ^= 1 << place % 8
        block = read_records(bytes(bad), NAMES, [NO_KIND] * 4, only_these=True)
        assert block.fault is not None
        assert block.fault.record == (place >= 79 + 16)
        assert block.fault.fault in ("length-checksum", "data-checksum")


def test_unpacked_and_packed_values_are_one_list() -> None:
    integers = field(3, field(1, b"\x01\x02") + b"\x08\x83\x00" + field(1, b""))
    assert values(read(example(a=integers))) == (INTEGERS, [3], [1, 2, 3])
    one = struct.pack("<f", 1.5)
    floats = field(2, b"\x0d" + one + field(1, one + one))
    assert values(read(example(a=floats))) == (FLOATS, [3], [1.5] * 3)


def test_unknown_fields_and_groups_are_skipped() -> None:
    odd = b"\x48\x07" + b"\x51" + bytes(8) + b"\x55" + bytes(4) + field(11, b"x")
    group = b"\x63" + odd + b"\x6b\x6c" + b"\x64"  # 12 { ... 13 {} }
    feature = odd + field(3, group + field(1, b"\x05") + odd) + group
    entry = field(1, group + field(1, b"a") + field(2, feature))
    assert values(read(field(1, odd + entry) + group)) == (INTEGERS, [1], [5])


def test_what_is_repeated_counts_as_protocol_buffers_say() -> None:
    one, two = field(3, field(1, b"\x01")), field(3, field(1, b"\x02"))
    number = field(2, field(1, struct.pack("<f", 3)))
    twice = example(a=one) + example(a=two)  # of one feature the last counts
    assert values(read(twice)) == (INTEGERS, [1], [2])
    assert values(read(example(a=one + two))) == (INTEGERS, [2], [1, 2])
    assert values(read(example(a=one + number + two))) == (INTEGERS, [1], [2])
    assert values(read(example(a=one + number))) == (FLOATS, [1], [3])
    late = field(1, field(2, one) + field(1, b"b") + field(1, b"a"))
    assert values(read(field(1, late))) == (INTEGERS, [1], [1])


def test_a_feature_without_a_kind_has_no_values() -> None:
    one = field(3, field(1, b"\x01"))
    assert values(read(example(a=b""), example(a=one))) == (INTEGERS, [0, 1], [1])
    assert values(read(example(a=b""))) == (NO_KIND, [0], [])
    assert read(example(a=b"")).smallest.tolist() == [0]


@pytest.mark.parametrize(
    "record",
    [
        b"\x0a",  # no length
        b"\x0a\x05",  # a length beyond the end
        b"\x00",  # field 0
        b"\x0b",  # a group without an end
        b"\x0c",  # an end without a group
        b"\x0b\x14",  # the end of another group
        b"\x0e",  # a wire type that does not exist
        b"\x0b" * 200,  # groups too deep
        b"\x08" + b"\x80" * 10 + b"\x01",  # a number of eleven bytes
        b"\xff" * 5 + b"\x01",  # a field number beyond 32 bits
        example(a=field(3, field(1, b"\x80"))),
        example(a=field(3, field(1, b"\x80" * 10 + b"\x01"))),
        example(a=field(2, field(1, b"\x00" * 5))),
        example(a=field(1, b"\x0a\x02x")),
        example(a=b"\x1a\x01"),
    ],
)
def test_bytes_that_are_no_example(record: bytes) -> None:
    block = read(example(a=b""), record)
    assert block.fault is not None
    assert block.fault[:2] == ("not-example", 1)


def test_numbers_beyond_64_bits_lose_what_does_not_fit() -> None:
    number = b"\xff" * 9 + b"\x7f"
    assert values(read(example(a=field(3, field(1, number))))) == (INTEGERS, [1], [-1])


def test_features_must_be_those_asked_for() -> None:
    one = field(3, field(1, b"\x01"))
    text = field(1, field(1, b"\x01"))
    block = read(example(a=one), example(b=one), example(a=text))
    assert block.fault == ("feature-unknown", 1, b"b")
    block = read(example(a=one), example(a=one), example(a=text))
    assert block.fault == ("mixed-kinds", 2, b"a")
    block = read(example(a=one), names=[b"a", b"c"])
    assert block.fault == ("feature-missing", 0, b"c")
    data = to_record(example(b=text, a=one))
    block = read_records(data, [b"a"], [BYTES], only_these=False)
    assert block.fault == ("mixed-kinds", 0, b"a")
    several = field(3, field(1, b"\x01\x01"))
    data = to_record(example(b=text, a=several, c=several, d=several))
    block = read_records(data, [b"a"], [NO_KIND], only_these=False)
    assert values(block) == (INTEGERS, [2], [1, 1])
    assert (block.smallest.tolist(), block.sharing.tolist()) == ([1], [1])


def test_names_of_the_features_of_a_record_are_sorted() -> None:
    assert feature_names(example(b=b"", a=b"", ab=b"")) == [b"a", b"ab", b"b"]
    assert feature_names(b"\x0a") == []


features = st.dictionaries(
    st.sampled_from(["a", "b", "c", "dd"]),
    st.one_of(
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=12).map(
            lambda numbers: np.array(numbers, np.int64)
        ),
        st.lists(st.floats(width=32), max_size=5).map(
            lambda numbers: np.array(numbers, np.float32)
        ),
        st.lists(st.binary(max_size=5), max_size=4),
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(features, max_size=4),
    st.lists(st.tuples(st.integers(0), st.binary(min_size=1, max_size=3)), max_size=3),
    st.booleans(),
)
def test_core_and_twin_agree_on_good_and_damaged_examples(
    records: list[dict[str, np.ndarray | list[bytes]]],
    changes: list[tuple[int, bytes]],
    only_these: bool,
) -> None:
    examples = [bytearray(encode_example(record)) for record in records]
    for place, change in changes:
        record = examples[place % len(examples)] if examples else bytearray()
        begin = place % (len(record) + 1)
        record[begin : begin + len(change)] = change
    data = b"".join(to_record(bytes(example)) for example in examples) + b"\x00"
    names = [b"a", b"dd"] if not examples else feature_names(examples[0])
    kinds = [NO_KIND] * len(names)
    expected = tfrecord_twin.read_records(data, names, kinds, only_these)
    for threads in (1, 3):
        found = read_records(data, names, kinds, only_these=only_these, threads=threads)
        same(found, expected)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30))
def test_numbers_survive_packing(numbers: list[int]) -> None:
    packed = pack_integers(np.array(numbers, np.int64))
    assert tfrecord_twin.unpack_integers(memoryview(packed)).tolist() == numbers
    one_by_one = [pack_integers(np.array([number])) for number in numbers]
    assert packed == b"".join(one_by_one)


def test_many_records_on_several_threads_equal_the_twin() -> None:
    rng = np.random.default_rng(0)
    records = [
        {
            "a": rng.integers(-(2**40), 2**40, rng.integers(0, 90)),
            "b": rng.random(3).astype(np.float32),
            "dd": [b"x" * int(n) for n in rng.integers(0, 9, 4)],
        }
        for _ in range(1200)
    ]
    data = b"".join(to_record(encode_example(record)) for record in records)
    assert len(data) > 2**18
    names = [b"dd", b"a", b"b"]
    expected = tfrecord_twin.read_records(data, names, [NO_KIND] * 3, True)
    for threads in (1, 2, 5):
        found = read_records(
            data, names, [NO_KIND] * 3, only_these=True, threads=threads
        )
        same(found, expected)
    late = to_record(encode_example({**records[0], "a": [b"text"]}))
    fault = read_records(data + late, names, [NO_KIND] * 3, only_these=True).fault
    assert fault == ("mixed-kinds", 1200, b"a")

"""Tensors are views of the bytes of a file, and other tools read the same file."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from shortlist.bundle.tensors import save_tensors, tensors_in
from shortlist.errors import ArtifactError


def tensors_of(path):
    data = np.frombuffer(path.read_bytes(), np.uint8)
    return tensors_in(data, path)


def test_tensors_come_back_and_the_library_reads_them_too(tmp_path):
    tensors = {
        "a": np.arange(15, dtype=np.float32).reshape(3, 5),
        "b": np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2],  # not contiguous
        "empty": np.zeros((0, 4), np.float32),
    }
    save_tensors(tmp_path / "t", tensors)
    for read in (tensors_of(tmp_path / "t"), load_file(tmp_path / "t")):
        assert read.keys() == tensors.keys()
        for name, expected in tensors.items():
            np.testing.assert_array_equal(read[name], expected)


def test_data_begin_on_a_cache_line_and_are_read_only_views(tmp_path):
    save_tensors(tmp_path / "t", {"a": np.ones((4, 16), np.float32)})
    data = np.memmap(tmp_path / "t", np.uint8, "r").view(np.ndarray)
    view = tensors_in(data, tmp_path / "t")["a"]
    assert view.ctypes.data % 64 == 0
    assert not view.flags.owndata
    assert not view.flags.writeable


def test_no_tensors_at_all_is_a_file_too(tmp_path):
    save_tensors(tmp_path / "t", {})
    assert tensors_of(tmp_path / "t") == {}


@pytest.mark.parametrize(
    "raw", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0{}xxx", b"\x04\0\0\0\0\0\0\0null"]
)
def test_what_is_no_safetensors_file_is_refused(tmp_path, raw):
    (tmp_path / "t").write_bytes(raw)
    with pytest.raises(
        ArtifactError, match="safetensors file cannot be read"
    ) as caught:
        tensors_of(tmp_path / "t")
    assert caught.value.code == "tensors-unreadable"
    assert caught.value.file == str(tmp_path / "t")


def test_another_number_type_is_refused(tmp_path):
    save_file({"a": np.ones(3, np.float64)}, tmp_path / "t")
    with pytest.raises(ArtifactError, match="F64 of 'a'") as caught:
        tensors_of(tmp_path / "t")
    assert caught.value.code == "tensors-not-float32"


def one(shape, offsets="[0, 8]"):
    return f'{{"a": {{"dtype": "F32", "shape": {shape}, "data_offsets": {offsets}}}}}'


def both(first, second):
    return first[:-1] + ", " + second[1:].replace("a", "b", 1)


HEADERS = {
    "of another shape": one([3]),
    "negative": one([-2, -1]),
    "of huge factors": one([2**40, 2**40]),
    "of nothing times too much": both(one([2**62, 2**62, 0], "[0, 0]"), one([2])),
    "of many dimensions": one([2] + [1] * 1000),
    "a hole": one([1], "[4, 8]"),
    "beyond the end": one([4], "[0, 16]"),
    "before the end": one([1], "[0, 4]"),
    "backwards": one([2], "[8, 0]"),
    "two at one place": both(one([2]), one([2])),
    "a list": '["a"]',
    "deep": '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "a tensor that is a number": '{"a": 5}',
    "a missing field": '{"a": {"dtype": "F32", "shape": [2]}}',
    "offsets of text": one([2], '["0", 8]'),
    "numbers without end": one("[" + "9" * 5000 + "]"),
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_a_header_that_does_not_fit_the_file_is_refused(tmp_path, header):
    raw = header.encode()
    (tmp_path / "t").write_bytes(len(raw).to_bytes(8, "little") + raw + b"12345678")
    with pytest.raises(
        ArtifactError, match="safetensors file cannot be read"
    ) as caught:
        tensors_of(tmp_path / "t")
    assert caught.value.code == "tensors-unreadable"
    assert len(str(caught.value)) < 500

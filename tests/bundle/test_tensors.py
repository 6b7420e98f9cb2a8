"""Tensors are mapped, not copied, and other tools read the same file."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from shortlist.bundle.tensors import map_tensors, save_tensors
from shortlist.errors import ArtifactError


def test_tensors_come_back_and_the_library_reads_them_too(tmp_path):
    tensors = {
        "a": np.arange(15, dtype=np.float32).reshape(3, 5),
        "b": np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2],  # not contiguous
        "empty": np.zeros((0, 4), np.float32),
    }
    save_tensors(tmp_path / "t", tensors)
    for read in (map_tensors(tmp_path / "t"), load_file(tmp_path / "t")):
        assert read.keys() == tensors.keys()
        for name, expected in tensors.items():
            np.testing.assert_array_equal(read[name], expected)


def test_data_begin_on_a_cache_line_and_are_mapped_read_only(tmp_path):
    save_tensors(tmp_path / "t", {"a": np.ones((4, 16), np.float32)})
    mapped = map_tensors(tmp_path / "t")["a"]
    assert mapped.ctypes.data % 64 == 0
    assert not mapped.flags.owndata
    assert not mapped.flags.writeable


def test_no_tensors_at_all_is_a_file_too(tmp_path):
    save_tensors(tmp_path / "t", {})
    assert map_tensors(tmp_path / "t") == {}


@pytest.mark.parametrize(
    "raw", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0{}xxx", b"\x04\0\0\0\0\0\0\0null"]
)
def test_what_is_no_safetensors_file_is_refused(tmp_path, raw):
    (tmp_path / "t").write_bytes(raw)
    with pytest.raises(ArtifactError, match="safetensors format") as caught:
        map_tensors(tmp_path / "t")
    assert caught.value.code == "tensors-unreadable"
    assert caught.value.file == str(tmp_path / "t")


def test_another_number_type_is_refused(tmp_path):
    save_file({"a": np.ones(3, np.float64)}, tmp_path / "t")
    with pytest.raises(ArtifactError, match="Tensor 'a' is F64") as caught:
        map_tensors(tmp_path / "t")
    assert caught.value.code == "tensors-not-float32"

"""Tensors in files with a checksum."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.tensors import read_tensors, write_tensors

TENSORS = {"a": torch.arange(6).reshape(2, 3).T, "b": torch.zeros(0, dtype=torch.bfloat16)}


def test_tensors_and_metadata_come_back(tmp_path):
    path = tmp_path / "deep" / "x.safetensors"
    write_tensors(path, TENSORS, {"more": "text"})
    tensors, said = read_tensors(path, "make it again")
    assert said == {"more": "text"} and tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert all(tensors[name].dtype == TENSORS[name].dtype for name in TENSORS)


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(LinprobeError, match=r"damaged \(its checksum is another.*; make it again"):
        read_tensors(path, "make it again")
    path.write_bytes(raw[:-1])
    with pytest.raises(LinprobeError, match=r"x\.safetensors is damaged \(.*; make it again"):
        read_tensors(path, "make it again")


def test_metadata_is_part_of_the_checksum(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {"seconds": "1"})
    with safe_open(path, "pt") as file:
        said = dict(file.metadata())
    save_file({name: x.contiguous() for name, x in TENSORS.items()}, path, {**said, "seconds": "2"})
    with pytest.raises(LinprobeError, match="checksum"):
        read_tensors(path, "make it again")


def test_files_without_a_checksum_are_read(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    assert read_tensors(tmp_path / "x.safetensors", "")[0]["a"].tolist() == [1, 1]


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(
        LinprobeError, match=r"none can't be read \(No such file or directory\); make"
    ):
        read_tensors(tmp_path / "none", "make it again")

"""Features that are written to a file as they come."""

import os
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from linprobe.core.features import (
    DamagedRows,
    FileRows,
    ScratchRows,
    check_space,
    scratch_folder,
    scratch_parent,
)
from linprobe.runtime.errors import LinprobeError
from tests.support.faults import file_sizes_up_to, flip


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rows_are_read_as_they_were_written(tmp_path, dtype):
    x = torch.randn(9, 4).to(dtype)
    scratch = ScratchRows(tmp_path, 4)
    for start, stop in ((0, 4), (4, 4), (4, 9)):
        scratch.append(x[start:stop])
    rows = scratch.finished()
    shutil.rmtree(tmp_path)
    assert rows.shape == (9, 4) and rows.dtype == dtype and torch.equal(rows[0:9], x)


def test_whole_numbers_become_float32(tmp_path):
    scratch = ScratchRows(tmp_path, 2)
    scratch.append(torch.tensor([[1, 2]]))
    assert torch.equal(scratch.finished()[:], torch.tensor([[1.0, 2.0]]))


def test_a_disk_without_space_is_refused(tmp_path, monkeypatch):
    check_space(tmp_path, 1)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(2**20))
    with pytest.raises(LinprobeError, match=r"\(2 MiB needed, 1 MiB free\); expected space"):
        check_space(tmp_path, 2**21)


def test_a_disk_that_fills_up_is_one_line(tmp_path):
    """The system refuses a real write: at a limit of file sizes, as at the end of a disk."""
    scratch = ScratchRows(tmp_path, 2**10)
    with file_sizes_up_to(2**14), pytest.raises(LinprobeError) as caught:
        for _ in range(100):
            scratch.append(torch.zeros(2, 2**10))
    said = str(caught.value)
    assert said.startswith(f"features that exceed memory_bytes can't be written to {tmp_path} (")
    assert "too large" in said and "set TMPDIR to a folder of another one" in said


def test_folders_that_can_not_be_made_are_one_line(tmp_path):
    (tmp_path / "file").touch()
    for parent in (tmp_path / "file", tmp_path / "none"):
        message = rf"can't be written to {parent} \("
        with pytest.raises(LinprobeError, match=message), scratch_folder(parent):
            pass
        with pytest.raises(LinprobeError, match=message):
            ScratchRows(parent, 3)


def test_where_scratch_folders_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    beside = tmp_path / "beside"
    beside.mkdir()
    assert scratch_parent(beside) == beside
    assert scratch_parent(tmp_path / "none") == scratch_parent() == tmp_path
    with scratch_folder(beside) as folder:
        assert folder.parent == beside
    assert not list(beside.iterdir())

    def nowhere():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    assert scratch_parent() == Path.cwd()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("width", [3, 4])
def test_each_bit_that_flips_is_found_when_its_row_is_read(dtype, width, tmp_path):
    x = torch.randn(20, width).to(dtype)
    scratch = ScratchRows(tmp_path, width)
    scratch.append(x[:9])
    scratch.append(x[9:])
    rows = scratch.finished()
    (path,) = tmp_path.iterdir()
    size = width * dtype.itemsize
    for bit in range(13 * 8 * size, 14 * 8 * size):
        flip(path, bit)
        assert torch.equal(rows.gather(torch.tensor([0, 12, 14])), x[[0, 12, 14]])
        message = r"1 of 1 rows from 13 on are not what was written there; expected a disk that"
        with pytest.raises(DamagedRows, match=message):
            rows.gather(torch.tensor([5, 13]))
        flip(path, bit)
    assert torch.equal(torch.cat([b.clone() for b in rows.scan([(0, 11), (11, 20)])]), x)


def test_damage_is_found_in_a_scan_too(tmp_path):
    scratch = ScratchRows(tmp_path, 4)
    scratch.append(torch.randn(20, 4))
    rows = scratch.finished()
    (path,) = tmp_path.iterdir()
    flip(path, 15 * 16 * 8)
    with pytest.raises(DamagedRows, match="1 of 10 rows from 10 on"):
        list(rows.scan([(0, 10), (10, 20)]))
    os.truncate(path, 99)
    with pytest.raises(DamagedRows, match="has changed"):
        rows.gather(torch.tensor([19]))


def test_files_of_others_have_no_sums(tmp_path):
    (tmp_path / "x").write_bytes(bytes(64))
    rows = FileRows(tmp_path / "x", (4, 4), torch.float32)
    flip(tmp_path / "x", 30)
    assert int((rows.gather(torch.arange(4)) != 0).sum()) == 1

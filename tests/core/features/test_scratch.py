"""Features that are written to a file as they come."""

import shutil
from collections import namedtuple

import pytest
import torch

from linprobe.core.features import ScratchRows, check_space
from linprobe.runtime.errors import LinprobeError


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


def test_a_disk_that_fills_up_is_one_line():
    scratch = ScratchRows.__new__(ScratchRows)
    try:
        full = open("/dev/full", "wb", buffering=0)
    except OSError:
        pytest.skip("no /dev/full here")
    from pathlib import Path

    scratch._file, scratch._path, scratch._dtype = full, Path("/x/y"), None
    with full, pytest.raises(LinprobeError, match=r"can't be written to /x \(.*No space left"):
        scratch.append(torch.zeros(2, 2))

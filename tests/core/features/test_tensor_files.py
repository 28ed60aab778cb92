"""Features in safetensors files: read where they lie, in their own dtype."""

import pytest
import torch
from safetensors.torch import save_file

from linprobe.core.features import safetensors_rows
from linprobe.runtime.errors import LinprobeError


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.bool]
)
def test_rows_are_those_that_were_saved(tmp_path, dtype):
    x = 100 * torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    saved = {"b/1": x.to(dtype), "a": x[:, :1].contiguous(), "none": x[:0]}
    save_file(saved, tmp_path / "x.safetensors", metadata={"made": "here"})
    found = safetensors_rows(tmp_path / "x.safetensors")
    assert set(found) == set(saved)
    for layer, rows in found.items():
        assert rows.dtype == saved[layer].dtype and rows.shape == tuple(saved[layer].shape)
        assert torch.equal(rows[:], saved[layer])
    assert torch.equal(found["b/1"].gather(torch.tensor([1, 4])), saved["b/1"][[1, 4]])


def test_other_files_get_one_line(tmp_path):
    with pytest.raises(LinprobeError, match=r"missing\.safetensors can.t be read"):
        safetensors_rows(tmp_path / "missing.safetensors")
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"\xff" * 40)
    with pytest.raises(LinprobeError, match=r"can.t be read as \.safetensors") as caught:
        safetensors_rows(other)
    assert "\n" not in str(caught.value)
    save_file({"a": torch.zeros(2, 3, 4)}, other)
    with pytest.raises(LinprobeError, match=r"'a' of shape \(2, 3, 4\).*flatten or pool"):
        safetensors_rows(other)

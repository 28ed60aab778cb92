"""Rows of tensors, arrays and files: the same numbers wherever they are kept."""

import os
import threading

import numpy as np
import pytest
import torch

from linprobe.core.features import ArrayRows, FileRows, TensorRows, file_rows
from linprobe.runtime.errors import LinprobeError

X = torch.randn(23, 5, generator=torch.Generator().manual_seed(0))
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SPANS = [(0, 10), (10, 20), (20, 23)]


def raw_file(path, x, before=b""):
    path.write_bytes(before + x.contiguous().view(torch.uint8).numpy().tobytes())
    return path


def stores(tmp_path, dtype):
    x = X.to(dtype)
    yield x, TensorRows(x)
    yield x, FileRows(raw_file(tmp_path / "x.raw", x, b"abc"), (23, 5), dtype, offset=3)
    if dtype != torch.bfloat16:
        np.save(tmp_path / "x.npy", x.numpy())
        yield x, ArrayRows(x.numpy())
        yield x, file_rows(np.load(tmp_path / "x.npy", mmap_mode="r"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_the_same_wherever_they_are(tmp_path, dtype):
    for x, store in stores(tmp_path, dtype):
        assert store.shape == (23, 5) and store.dtype == dtype
        blocks = [block.clone() for block in store.scan(SPANS)]
        assert torch.equal(torch.cat(blocks), x)
        index = torch.tensor([0, 3, 4, 5, 22])
        assert torch.equal(store.gather(index), x[index])
        assert not len(store.gather(index[:0])) and not list(store.scan([]))


def test_rows_are_read_where_no_thread_can_be_started(tmp_path, monkeypatch):
    store = FileRows(raw_file(tmp_path / "x.raw", X), (23, 5), torch.float32)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert torch.equal(torch.cat([block.clone() for block in store.scan(SPANS)]), X)


def test_a_view_of_a_mapped_file_knows_its_place(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, X.numpy())
    mapped = np.load(path, mmap_mode="r")
    (block,) = file_rows(mapped[7:][2:9]).scan([(0, 7)])
    assert torch.equal(block, X[9:16])
    assert file_rows(mapped[:, :3]) is None and file_rows(X.numpy()) is None
    assert file_rows(np.load(path, mmap_mode="c")) is None, "its changes are in no file"
    np.save(tmp_path / "other.npy", X.numpy() + 1)
    os.replace(tmp_path / "other.npy", path)
    assert file_rows(mapped) is None, "its path leads to another file now"
    written = np.load(path, mmap_mode="r+")
    written[0] = 7
    (block,) = file_rows(written).scan([(0, 1)])
    assert bool((block == 7).all())


def test_other_orders_of_bytes_and_axes(tmp_path):
    np.save(tmp_path / "big.npy", X.numpy().astype(">f4"))
    np.save(tmp_path / "columns.npy", np.asfortranarray(X.numpy()))
    big, columns = (np.load(tmp_path / f"{n}.npy", mmap_mode="r") for n in ("big", "columns"))
    assert file_rows(columns) is None
    for store in (file_rows(big), ArrayRows(big), ArrayRows(columns), ArrayRows(X.numpy())):
        assert torch.equal(torch.cat([b.clone() for b in store.scan(SPANS)]), X)
    (wide,) = ArrayRows(X.numpy().astype(np.longdouble)).scan([(0, 23)])
    assert wide.dtype == torch.float64


def test_read_only_files_and_files_that_are_deleted_are_read_to_the_end(tmp_path):
    path = raw_file(tmp_path / "x.raw", X)
    path.chmod(0o400)
    store = FileRows(path, (23, 5), torch.float32)
    path.unlink()
    assert torch.equal(torch.cat([b.clone() for b in store.scan(SPANS)]), X)


def test_a_file_that_shrinks_or_changes_gives_a_message(tmp_path):
    path = raw_file(tmp_path / "x.raw", X)
    store = FileRows(path, (23, 5), torch.float32)
    blocks = store.scan(SPANS)
    next(blocks)
    os.truncate(path, 100)
    with pytest.raises(LinprobeError, match=r"x\.raw has changed while it was read; expected"):
        list(blocks)
    with pytest.raises(LinprobeError, match="has changed"):
        store.gather(torch.tensor([22]))
    with pytest.raises(LinprobeError, match=r"has 100 bytes; expected at least 460 of 23 rows"):
        FileRows(path, (23, 5), torch.float32)
    with pytest.raises(LinprobeError, match=r"none\.raw can't be read"):
        FileRows(tmp_path / "none.raw", (23, 5), torch.float32)
    same_size = raw_file(tmp_path / "y.raw", X)
    store = FileRows(same_size, (23, 5), torch.float32)
    os.utime(same_size, (1, 1))
    with pytest.raises(LinprobeError, match="don't write to it meanwhile"):
        list(store.scan(SPANS))


def test_the_thread_that_reads_ahead_ends_with_the_scan(tmp_path):
    store = FileRows(raw_file(tmp_path / "x.raw", X), (23, 5), torch.float32)
    before = threading.active_count()
    blocks = store.scan(SPANS)
    next(blocks)
    assert threading.active_count() == before + 1
    blocks.close()
    assert threading.active_count() == before

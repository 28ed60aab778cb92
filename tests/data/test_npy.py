"""NumPy's files from anyone."""

import zipfile
import zlib

import numpy as np
import pytest
from torch import nn

import linprobe
from linprobe.data.npy import map_npy, read_npz
from linprobe.data.specs import read_data
from linprobe.runtime.errors import LinprobeError

X, Y = np.ones((6, 3)), np.arange(6) % 2
SPLITS = {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}


def header(shape):
    """A file that declares an array of some shape, and holds none of it."""
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", r"x\.npy can't be read as \.npy \(No data left in file\); expected an array of"),
        (header("(100000000000000, 3)"), "length is greater than file size"),
        (header("(10000000000000000000000000, 3)"), "int too large"),
        (header("(-6, 3)"), "must be positive"),
        (header("(6, 3"), r"can't be read as \.npy"),
    ],
)
def test_npy_that_is_none(raw, message, tmp_path):
    (tmp_path / "x.npy").write_bytes(raw)
    with pytest.raises(LinprobeError, match=message):
        map_npy(tmp_path / "x.npy")


def test_an_archive_where_one_array_is_expected(tmp_path):
    np.savez(tmp_path / "x.npz", a=X)
    with pytest.raises(LinprobeError, match=r"x\.npz is an archive of arrays; .*np\.save"):
        linprobe.fit_probes({"a": tmp_path / "x.npz"}, Y, ({"a": X}, Y))


def rewritten(path, place, value):
    """Change a byte of the first entry of a zip file's directory."""
    raw = bytearray(path.read_bytes())
    raw[raw.find(b"PK\x01\x02") + place] = value
    path.write_bytes(raw)


def test_npz_that_is_damaged_encrypted_or_of_another_compression(tmp_path):
    path = tmp_path / "x.npz"
    for place, value, said in ((8, 1, "is encrypted"), (10, 99, "compression method")):
        np.savez(path, **SPLITS)
        rewritten(path, place, value)
        with pytest.raises(LinprobeError, match=rf"x\.npz can't be read as \.npz \(.*{said}"):
            read_npz(path, "expected x")
    np.savez_compressed(path, **SPLITS)
    raw = bytearray(path.read_bytes())
    raw[64:80] = b"\xff" * 16
    path.write_bytes(raw)
    with pytest.raises(LinprobeError, match=r"while decompressing.*; expected x") as caught:
        read_npz(path, "expected x")
    assert isinstance(caught.value.__cause__, zlib.error)


def test_npz_with_other_files_in_it(tmp_path):
    np.savez(tmp_path / "x.npz", **SPLITS)
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(LinprobeError, match=r"holds 'notes\.txt', which is no array; expected x"):
        read_npz(tmp_path / "x.npz", "expected x")


def test_labels_that_are_one_number(tmp_path):
    np.savez(tmp_path / "x.npz", **{**SPLITS, "y_train": np.array(3)})
    data = read_data(f"npz:{tmp_path / 'x.npz'}")
    network = nn.Linear(3, 2)
    with pytest.raises(LinprobeError, match="labels of the train data is a ndarray; expected an"):
        linprobe.probe(network, data.train, data.test)

"""A file that is written appears whole or not at all."""

import os

import pytest

from linprobe.runtime.files import atomic_write


def test_writes_and_makes_folders(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failure_leaves_the_old_file_and_no_litter(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_file_is_as_readable_as_any_new_one(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "a.txt"):
        pass
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_is_renamed_is_on_the_disk_before(tmp_path, monkeypatch):
    synced = []
    sync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda n: (synced.append((os.fstat(n).st_ino, os.listdir(tmp_path))), sync(n))
    )
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        number = temporary.stat().st_ino
    (first, before), (second, after) = synced
    assert (first, second) == (number, tmp_path.stat().st_ino)
    assert before != after == ["a.txt"]

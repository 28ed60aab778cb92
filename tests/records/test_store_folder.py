"""Where a run may be written."""

import pytest

from linprobe.records.store import prepare_folder
from linprobe.runtime.errors import LinprobeError


def old_run(folder):
    written = ("results.json", "results.csv", "report.html", "plot-paper.pdf", "figure5a.svg")
    for name in (*written, "figure5a.png", "notes.txt"):
        (folder / name).write_text("x")
    (folder / "probes").mkdir()
    (folder / "probes" / "untrained.safetensors").write_text("x")
    (folder / "probes" / "mine.txt").write_text("x")
    (folder / "predictions").mkdir()
    (folder / "predictions" / "untrained.safetensors").write_text("x")


def test_makes_folders_and_leaves_nothing(tmp_path):
    prepare_folder(tmp_path / "a" / "b", overwrite=False)
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_refuses_a_folder_that_holds_a_run(tmp_path):
    old_run(tmp_path)
    with pytest.raises(LinprobeError, match=r"already holds a run.*another folder.*overwrite=True"):
        prepare_folder(tmp_path, overwrite=False)
    assert (tmp_path / "figure5a.png").exists()


def test_overwriting_deletes_only_what_a_run_writes(tmp_path):
    old_run(tmp_path)
    prepare_folder(tmp_path, overwrite=True)
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert left == ["notes.txt", "probes/mine.txt"]


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_says_that_it_cannot_write(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(LinprobeError, match=r"can't write to .*file.* choose a folder"):
        prepare_folder(tmp_path / place, overwrite=False)

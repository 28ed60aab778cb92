"""Where a run may be written."""

import pytest

from linprobe.records.store import check_writable, clear_folder, load_run, prepare_folder, save
from linprobe.runtime.errors import LinprobeError
from tests.support.records import checkpoint_record, run_record


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


@pytest.mark.parametrize("kind", ["probes", "networks", "predictions", "unfinished"])
@pytest.mark.parametrize("deep", [False, True])
def test_links_to_folders_are_not_followed(kind, deep, tmp_path):
    """Neither written to, nor is anything deleted through them."""
    outside, run = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    (outside / "precious.safetensors").write_text("x")
    link = run / kind / "untrained" if deep else run / kind
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    message = rf"{link} is a symbolic link to a folder; expected one of the run's own: remove"
    for act in (
        lambda: prepare_folder(run, overwrite=True),
        lambda: clear_folder(run),
        lambda: check_writable(run),
    ):
        with pytest.raises(LinprobeError, match=message):
            act()
    assert (outside / "precious.safetensors").read_text() == "x"
    assert [path.name for path in outside.iterdir()] == ["precious.safetensors"]


def test_links_to_files_are_replaced_or_removed(tmp_path):
    outside, run = tmp_path / "outside.json", tmp_path / "run"
    outside.write_text("x")
    run.mkdir()
    for name in ("results.json", "results.csv", "report.html"):
        (run / name).symlink_to(outside)
    save(run_record(checkpoint_record([0.1])), run)
    assert not (run / "results.json").is_symlink() and not (run / "results.csv").is_symlink()
    clear_folder(run)
    assert list(run.iterdir()) == [] and outside.read_text() == "x"


def test_the_folder_of_a_run_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    prepare_folder(tmp_path / "run", overwrite=False)
    save(run_record(checkpoint_record([0.1])), tmp_path / "run")
    assert load_run(tmp_path / "disk") == load_run(tmp_path / "run")

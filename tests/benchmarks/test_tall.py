"""The benchmark of tall features, on rows that are few."""

import shutil
from itertools import dropwhile, takewhile
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import tall, tall_files, tall_worker, worker
from benchmarks.drawn import frames
from benchmarks.features import labels_file, load_problem
from benchmarks.rates import RowSeconds, row_seconds
from benchmarks.tall_files import TallFile, draw_missing
from benchmarks.tall_worker import Asked
from linprobe.core.features import TensorRows

SIZES = (1500, 300, 8, 3)
BUDGET = 3e4  # bytes, of 57,600 in float32
WORDS = ["--rows", "1500", "--test-rows", "300", "--features", "8", "--classes", "3"]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def split(folder, name="train"):
    return TallFile(folder, name, *((1500, 8, 3) if name == "train" else (300, 8, 3)))


def cells(lines, first):
    """Rows of the table whose head begins so, as dicts."""
    table = takewhile(bool, dropwhile(lambda line: not line.startswith(first), lines))
    names, _, *rows = (line.strip("| ").split(" | ") for line in table)
    return [dict(zip(names, row, strict=True)) for row in rows]


def test_a_small_set_is_drawn_measured_solved_and_deleted(tmp_path, capsys):
    tall.main([*WORDS, "--budget", str(BUDGET), "--folder", str(tmp_path), "--threads", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1,500 x 8 in float16, 3 classes: ")
    (solved,) = cells(lines, "| exact")
    assert (solved["exact"], solved["status"]) == ("no", "converged")
    assert float(solved["gap"]) <= 1e-4 and 0 < float(solved["test error"]) < 0.5
    assert float(solved["reads"]) > 2 * float(solved["passes"]) > 4
    assert float(solved["ratio"]) >= float(solved["with conversion"]) > 0
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_the_page_is_measured_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tall, "run", tall_worker.fit)
    words = ["--folder", str(tmp_path), "--threads", "1", "--budget", str(BUDGET)]
    found = tall.main([*WORDS, *words])
    solved = dict(zip(tall.HEADER, found["cells"], strict=True))
    assert solved["status"] == "converged" and f"{found['ratio']:.2f}" == solved["ratio"]
    assert list(tmp_path.iterdir()) == []


def test_the_exact_optimum_and_rivals_can_be_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tall, "run", tall_worker.fit)

    def capped(job, folder, cap, threads):
        return {**worker.run_job(job, load_problem(folder, job), cap), "cap": cap}

    monkeypatch.setattr(tall, "run_capped", capped)
    words = [*WORDS, "--budget", str(BUDGET), "--folder", str(tmp_path), "--threads", "1"]
    tall.main([*words, "--exact", "both", "--compare", "--rival", "--keep"])
    lines = capsys.readouterr().out.splitlines()
    beside = [line for line in lines if line.startswith("In memory: ")]
    assert len(beside) == 2 and all(" times a pass." in line for line in beside)
    loose, exact = cells(lines, "| exact")
    assert float(exact["gap"]) < 1e-3 * float(loose["gap"])
    ours, theirs = cells(lines, "| solver")
    assert (ours["solver"], theirs["solver"]) == ("linprobe", "sklearn lbfgs")
    assert ours["rows"] == theirs["rows"] == "468"  # half of the budget
    assert all(float(one["gap"]) <= 1e-4 and float(one["passes"]) > 0 for one in (ours, theirs))
    assert split(tmp_path).exists(), "kept"
    monkeypatch.setattr(TallFile, "draw", None)
    tall.main(words)
    assert split(tmp_path).exists(), "only what is drawn is deleted"


def test_what_the_budget_holds_is_not_streamed(tmp_path):
    with pytest.raises(SystemExit, match=r"57,600 bytes in float32.*--budget below"):
        tall.main([*WORDS, "--folder", str(tmp_path)])


def test_a_fit_that_fails_ends_the_command(tmp_path, capfd):
    with pytest.raises(SystemExit, match="exit code 1"):
        tall.run(Asked(str(tmp_path), SIZES, BUDGET, False, 1))
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith("FileNotFoundError: ") and "-labels.npy" in said


def test_files_are_those_of_the_draws_and_are_used_again(tmp_path):
    train, test = split(tmp_path), split(tmp_path, "test")
    assert draw_missing([train, test]) == [train, test]
    rows, labels = map(torch.cat, zip(*frames(1500, 8, 3, 1), strict=True))
    stored = np.load(train.path)
    assert stored.dtype == np.float16 and train.exists()
    assert torch.equal(torch.from_numpy(stored), rows.half())
    assert torch.equal(train.labels(), labels)
    assert not np.array_equal(np.load(test.path)[:300], stored[:300])
    assert draw_missing([train, test]) == []
    for wrong in (stored[:-1], stored.astype(np.float32)):
        np.save(train.path, wrong)
        assert draw_missing([train, test]) == [train]
    labels_file(test.path).unlink()
    train.path.write_bytes(b"cut off")
    assert draw_missing([train, test]) == [train, test]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= (
        train.num_bytes + test.num_bytes
    )


def test_a_disk_without_space_is_said_before_anything_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**10))
    with pytest.raises(SystemExit, match=r"has 1 KiB free, .* 39\.2 KiB; .* another --folder"):
        draw_missing([split(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_a_draw_that_is_broken_off_leaves_nothing(tmp_path, monkeypatch):
    def broken(*sizes, seed):
        yield torch.zeros(4, 8), torch.zeros(4, dtype=torch.int64)
        raise KeyboardInterrupt

    monkeypatch.setattr(tall_files, "frames", broken)
    with pytest.raises(KeyboardInterrupt):
        draw_missing([split(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_frames_are_drawn_block_by_block_with_each_class():
    blocks = list(frames(20_000, 64, 40, 1))
    assert [len(rows) for rows, _ in blocks] == [8192, 8192, 3616]
    rows, labels = map(torch.cat, zip(*blocks, strict=True))
    assert set(labels.tolist()) == set(range(40))
    within = rows[labels == 3].var(0)
    assert float(within[:8].mean() / within[-8:].mean()) > 10
    means = torch.stack([rows[labels == k].mean(0) for k in range(40)])
    share = means.var(0) / within
    assert float(share[:8].mean() / share[-8:].mean()) > 3


def test_problems_in_memory_are_the_first_rows_of_a_file(tmp_path):
    train = split(tmp_path)
    train.draw()
    job = worker.Job("tall", "linprobe", train.path.stem, 100, 8, 3)
    found = load_problem(tmp_path, job)
    assert torch.equal(found.labels, train.labels()[:100])
    rows = torch.from_numpy(np.load(train.path)[:100]).float()
    rows -= rows.mean(0)
    assert torch.allclose(found.features, rows / rows.square().sum(1).mean().sqrt(), atol=1e-5)


def test_the_least_is_the_sum_of_reads_and_products():
    train = TallFile(None, "train", 1000, 50, 4)
    row = RowSeconds(logits=2e-3, gradient=1e-3, conversion=1e-3)
    solved = {"seconds": 60.0, "passes": 5.0, "read_bytes": 12 * 100_000, "peak_rss_bytes": 2e9}
    solved |= {"duality_gap": 5e-5, "l2": 1e-3, "l2_at_edge": True}
    solved |= {"status": "converged", "test_error": 0.25}
    # 12 reads of 1 s each; 5 passes of 1,000 rows; 12 conversions of 1 s each.
    assert tall.least_seconds(solved, train, 1e5, row) == pytest.approx(12 + 15)
    shown = tall.solved_cells(solved, train, 1e5, row)
    assert shown[2:4] == ["12.0", "2.00"] and shown[5] == "1e-03 (at an end)"
    assert shown[-3:] == ["27.0 s", "2.22", "1.54"]
    unknown = solved | {"read_bytes": None}
    assert tall.least_seconds(unknown, train, 1e5, row) == pytest.approx(10 + 15)
    assert tall.solved_cells(unknown, train, 1e5, row)[2] == "unknown"


def test_read_bytes_count_what_is_read(tmp_path, monkeypatch):
    file = tmp_path / "some"
    file.write_bytes(bytes(10**6))
    before = tall_worker.read_bytes()
    if before is None:
        pytest.skip("no /proc")
    file.read_bytes()
    assert 10**6 <= tall_worker.read_bytes() - before < 1.1 * 10**6
    monkeypatch.setattr(tall_worker, "_COUNTERS", tmp_path / "none")
    assert tall_worker.read_bytes() is None


def test_rates_are_of_blocks_as_they_are_multiplied():
    found = row_seconds(TensorRows(torch.ones(3000, 16, dtype=torch.float16)), 1e6, 4)
    assert 0 < found.logits < found.products < 1e-3 and 0 < found.conversion < 1e-3

"""The command line in several processes: one has the folder and prints, the others help."""

import linprobe
from tests.support import ranked
from tests.support.ranks import run_ranks

QUICK = ("reproduce", "fig8", "--quick", "--depth", "2", "--l2", "1e-1")


def kept(run):
    return [(c.name, p.layer, p.objective) for c in run.checkpoints for p in c.probes]


def test_an_experiment_is_what_it_is_in_one_process(tmp_path):
    together, alone, seeds = (str(tmp_path / name) for name in ("two", "one", "seeds"))
    first, second = run_ranks(2, tmp_path / "a", ranked.command, *QUICK, "--out", together)
    assert (first[:2], second) == ((0, 0), (0, 0, ""))
    assert first[2].count("[100%]") == 1 and together in first[2]
    [(code, found, _)] = run_ranks(1, tmp_path / "b", ranked.command, *QUICK, "--out", alone)
    assert (code, found) == (0, 0)
    runs = [linprobe.load_run(out) for out in (together, alone)]
    assert kept(runs[0]) == kept(runs[1]) and len(kept(runs[0])) == 12
    words = (*QUICK, "--out", seeds, "--seeds", "2")
    first, second = run_ranks(2, tmp_path / "c", ranked.command, *words)
    assert (first[:2], second) == ((0, 0), (0, 0, ""))
    assert kept(linprobe.load_run(tmp_path / "seeds" / "seed0")) == kept(runs[0])


def test_a_mistake_is_said_once(tmp_path):
    words = (*QUICK, "--out", str(tmp_path / "run"), "--epochs", "3")
    first, second = run_ranks(2, tmp_path / "a", ranked.command, *words)
    assert first[1] == second[1] == 2 and second[2] == ""
    assert first[2].count("\n") == 1 and "--epochs is for --protocol sgd" in first[2]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text("{}")
    first, second = run_ranks(2, tmp_path / "b", ranked.command, *words[:-2])
    assert first[1] == second[1] == 2 and second[2] == ""
    assert first[2].count("\n") == 1 and "already holds a run" in first[2]

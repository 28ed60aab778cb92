"""The benchmark package on tiny data: solvers agree, caps hold, the page is the JSON's."""

import argparse
import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks import competitors, measure, products, worker
from benchmarks.__main__ import _cap, main
from benchmarks.competitors import COMPETITORS, Attempt, Unavailable
from benchmarks.drawn import FEW, VIT
from benchmarks.features import Problem, class_labels, load_problem
from benchmarks.figures import outcome, passes, roofline_share, speedup
from benchmarks.jobs import TOL, Job, all_jobs, quick_jobs, rows_for
from benchmarks.machine import describe, fastest, pass_seconds
from benchmarks.page import write_page
from benchmarks.targets import target_rows
from linprobe import certify
from tests.support.cases import make_case

OTHERS = sorted(set(COMPETITORS) - {"probekit"})
MACHINE = {"cpu": "test", "threads": 1, "gemm_flops": 1e11, "read_bytes": 1e10, "torch": "2"}


def problem(k=3, n=300, d=6):
    case = make_case("bench", n, d, k)
    return Problem(case.features.float(), case.labels, k)


def job(competitor="linprobe", **changes):
    return replace(Job("cold", competitor, "x", 300, 6, 3), **changes)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("name", OTHERS)
def test_every_solver_minimises_the_same_objective(name, k):
    found = worker.run_job(job(name, num_classes=k, l2s=(1e-2, 1e-3)), problem(k), 60.0)
    assert found["status"] == worker.REACHED, found["reason"]
    ours = worker.run_job(job(num_classes=k, l2s=(1e-2, 1e-3)), problem(k), 60.0)
    for mine, theirs in zip(ours["points"], found["points"], strict=True):
        assert theirs["duality_gap"] <= TOL
        assert theirs["objective"] == pytest.approx(mine["objective"], abs=2 * TOL)


def test_probekit_minimises_the_same_objective():
    pytest.importorskip("probekit")
    found = worker.run_job(job("probekit", num_classes=2, l2s=(1e-3,)), problem(2), 60.0)
    assert found["status"] == worker.REACHED, found["reason"]


def test_layers_are_solved_together():
    both = torch.stack([problem(2).features, problem(2).features.flip(1)])
    batch = Problem(both, problem(2).labels, 2)
    for name in ("linprobe", "probekit"):
        found = worker.run_job(job(name, num_classes=2, l2s=(1e-3,)), batch, 60.0)
        if found["status"] != worker.UNAVAILABLE:
            assert found["status"] == worker.REACHED, found["reason"]
            assert len(found["points"]) == 1


def test_probekit_says_why_it_can_not_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "probekit.fitters.batch.logistic", None)
    found = worker.run_job(job("probekit"), problem(), 1.0)
    assert found["status"] == worker.UNAVAILABLE and "not installed" in found["reason"]


def test_a_hessian_that_is_too_large_is_said():
    large = Problem(torch.zeros(2, 3136), torch.tensor([0, 1]), 10)
    with pytest.raises(Unavailable, match=r"Hessian takes 7\.9 GB"):
        COMPETITORS["sklearn newton-cholesky"](large)


def _stub(attempts):
    def start(problem):
        def solve(l2):
            for weight, from_cold in attempts:
                bias = torch.zeros(problem.num_classes)
                yield Attempt(weight, bias, 1.0, "stub", from_cold)

        return solve

    return start


def test_a_solver_that_never_gets_there_is_recorded(monkeypatch):
    wrong = torch.ones(3, 6)
    monkeypatch.setitem(COMPETITORS, "stub", _stub([(wrong, False)] * 3))
    found = worker.run_job(job("stub"), problem(), 60.0)
    assert found["status"] == worker.STALLED
    assert found["points"][0]["duality_gap"] > TOL and found["points"][0]["num_passes"] == 3
    capped = worker.run_job(job("stub"), problem(), 0.0)
    assert capped["status"] == worker.TIME_CAP and capped["points"] == []


def test_only_the_sufficient_fit_from_cold_counts(monkeypatch):
    monkeypatch.setitem(COMPETITORS, "stub", _stub([(torch.ones(3, 6), True)] * 3))
    found = worker.run_job(job("stub"), problem(), 60.0)
    assert found["points"][0]["num_passes"] == 1


def test_an_exception_is_a_result(monkeypatch):
    def broken(problem):
        raise ValueError("no luck\nat all")

    monkeypatch.setitem(COMPETITORS, "stub", broken)
    found = worker.run_job(job("stub"), problem(), 1.0)
    assert found["status"] == worker.FAILED and found["reason"] == "ValueError: no luck"


@pytest.fixture
def folder(tmp_path):
    case = make_case("files", 200, 12, 10)
    np.save(tmp_path / "x.npy", case.features.float().numpy() * 5 + 1)
    np.save(tmp_path / "labels.npy", case.labels.numpy())
    return tmp_path


def test_problems_are_standardised_and_cut_to_size(folder):
    cut = load_problem(folder, Job("cold", "linprobe", "x", 100, 5, 5))
    assert cut.features.shape == (100, 5) and cut.labels.unique().tolist() == [0, 1, 2, 3, 4]
    assert float(cut.features.mean(0).abs().max()) < 1e-6
    assert float(cut.features.square().sum(1).mean()) == pytest.approx(1, abs=1e-5)


def test_layers_joined_by_plus_are_stacked(folder):
    np.save(folder / "y.npy", np.load(folder / "x.npy") ** 2)
    both = load_problem(folder, Job("batched", "linprobe", "x+y", 100, 12, 2))
    assert both.features.shape == (2, 100, 12) and both.labels.shape == (100,)
    one = load_problem(folder, Job("batched", "linprobe", "y", 100, 12, 2))
    assert torch.equal(both.features[1], one.features)


@pytest.mark.parametrize("k", [2, 5, 10, 20, 100])
def test_classes_refine_or_merge_digits(k):
    digits = torch.arange(3000) % 10
    features = torch.randn(3000, 8, generator=torch.Generator().manual_seed(0))
    labels = class_labels(digits, features, k)
    assert set(torch.bincount(labels, minlength=k).tolist()) == {3000 // k}
    assert torch.equal(
        labels * 10 // k if k > 10 else digits * k // 10, digits if k > 10 else labels
    )


def test_other_numbers_of_classes_are_refused():
    with pytest.raises(ValueError, match="multiple of 10"):
        class_labels(torch.arange(10), torch.zeros(10, 2), 15)


def test_a_process_is_stopped_at_its_cap_and_keeps_what_it_reached(folder, monkeypatch):
    monkeypatch.setattr(measure, "_GRACE", 0.0)
    late = measure.run_capped(Job("cold", "linprobe", "x", 200, 12), folder, 0.01, 1)
    assert late["status"] == "time cap" and late["reason"] and late["points"] == []
    assert json.loads(json.dumps(late)) == late  # a page of this run is that of its file


def test_a_process_gives_its_result(folder):
    found = measure.run_capped(Job("cold", "linprobe", "x", 200, 12), folder, 30.0, 1)
    assert found["status"] == "reached" and found["points"][0]["duality_gap"] <= TOL
    assert found["peak_rss_bytes"] > 1e7 and found["job"]["layer"] == "x"


def test_a_process_that_dies_is_a_result(tmp_path):
    found = measure.run_capped(Job("cold", "linprobe", "missing", 10, 2), tmp_path, 5.0, 1)
    assert found["status"] == "failed" and ".npy" in found["reason"]


def test_jobs_are_distinct_and_fit_memory():
    jobs = all_jobs(60_000, ("cpu", "cuda"))
    assert len({one.key for one in jobs}) == len(jobs)
    assert {one.device for one in jobs} == {"cpu", "cuda"}
    assert {one.competitor for one in jobs} == set(COMPETITORS)
    assert rows_for("input", 60_000) == 60_000 and rows_for("conv1_postact", 60_000) == 15_000
    assert len(quick_jobs()) < 22


def record(competitor, seconds, status="reached", suite="cold", d=3136, l2s=(1e-5,), **more):
    made = Job(suite, competitor, "conv2_postpool", 60_000, d, 10, l2s)
    points = [
        {"l2": l2, "seconds": seconds, "duality_gap": 9e-5, "objective": 0.1, "num_passes": 5.0}
        for l2 in l2s
    ]
    return made.key, {
        "job": json.loads(json.dumps(made.__dict__)),
        "status": status,
        "reason": None,
        "seconds": seconds,
        "cpu_seconds": 1.5 * (seconds or 0.0),
        "cap": 60.0,
        "points": points,
        "peak_rss_bytes": 2_000_000_000,
        **more,
    }


def fixture(*records):
    path = (1e-1, 1e-2, 1e-3)
    given = records or (
        record("linprobe", 2.0),
        record("sklearn lbfgs", 30.0),
        record("sklearn newton-cg", 61.0, "time cap"),
        record("sklearn newton-cholesky", 0.0, "unavailable", reason="its Hessian takes 7.9 GB"),
        record("torch Adam", 50.0, "gap not reached"),
        record("linprobe", 3.0, suite="path", l2s=path),
        record("sklearn lbfgs", None, "time cap", suite="path", l2s=path),
        record("linprobe", 1.0, suite="growth n", d=784),
    )
    return {"schema": 1, "machine": MACHINE, "results": dict(given)}


def test_speedup_is_against_the_best_that_got_there():
    solvers = {
        key.split(" | ")[3]: one for key, one in fixture()["results"].items() if "cold" in key
    }
    found = speedup(solvers)
    assert (found.ratio, found.at_least, found.competitor) == (15.0, False, "sklearn lbfgs")
    late = {name: one for name, one in solvers.items() if name != "sklearn lbfgs"}
    assert str(speedup(late)) == "≥ 30.5x (sklearn newton-cg)"
    # Stopped before the other one arrived, it might have been the faster.
    solvers["sklearn newton-cg"] |= {"seconds": 21.0, "cap": 20.0}
    assert str(speedup(solvers)) == "≥ 10.5x (sklearn newton-cg)"
    assert speedup({"linprobe": solvers["linprobe"]}) is None
    assert speedup({"sklearn lbfgs": solvers["sklearn lbfgs"]}) is None


def test_roofline_share_counts_two_reads_a_pass():
    _, one = record("linprobe", 2.0)
    read = 2 * 60_000 * 3136 * 4 / 1e10
    assert pass_seconds(60_000, 3136, 10, MACHINE) == pytest.approx(read)
    assert roofline_share(one, MACHINE) == pytest.approx(5 * read / 2.0)
    assert pass_seconds(60_000, 3136, 1000, MACHINE) > 2 * read
    one["points"][0]["num_passes"] = None
    assert passes(one) is None and roofline_share(one, MACHINE) is None


def test_outcomes_are_said():
    said = [outcome(one) for one in fixture()["results"].values()]
    assert said[:5] == [
        "2.00 s",
        "30.00 s",
        "over 61 s, gap 9e-05",
        "its Hessian takes 7.9 GB",
        "stalled after 50.0 s, gap 9e-05",
    ]
    assert said[6] == "over 60 s, gap 9e-05 at l2 = 1e-03"


@pytest.mark.parametrize("layer", VIT)
def test_drawn_classes_all_occur(layer, tmp_path):
    found = load_problem(tmp_path, Job("classes", "linprobe", layer, 3000, 16, 100))
    sizes = torch.bincount(found.labels, minlength=100)
    assert found.features.shape == (3000, 16) and int(sizes.min()) > 0
    assert (int(sizes.max()) > 10 * int(sizes.min())) == (layer == "vit-zipf")
    assert float(found.features.square().sum(1).mean()) == pytest.approx(1, rel=1e-5)


def test_many_classes_have_a_target_of_their_own():
    def record(name, seconds):
        job = Job("classes", name, VIT[0], 1000, 16, 100, (1e-3,))
        point = {"l2": 1e-3, "seconds": seconds, "duality_gap": 1e-5, "num_passes": 3.0}
        known = {"status": "reached", "reason": None, "cap": 9.0, "peak_rss_bytes": 2e9}
        return {**known, "job": json.loads(json.dumps(vars(job))), "seconds": seconds} | {
            "points": [point]
        }

    records = {name: record(name, t) for name, t in (("linprobe", 1.0), ("sklearn lbfgs", 12.0))}
    (row,) = (r for r in target_rows({"machine": MACHINE, "results": records}) if VIT[0] in r[0])
    assert row[1] == "12.0x (sklearn lbfgs), 3 passes, 2.0 GB" and row[2] == "yes"
    del records["sklearn lbfgs"]
    (row,) = (r for r in target_rows({"machine": MACHINE, "results": records}) if VIT[0] in r[0])
    assert row[1:] == ("no other measured, 3 passes, 2.0 GB", "")


def test_a_solver_that_stalls_is_said_to_beside_its_target():
    path = {"suite": "few", "layer": FEW, "num_rows": 1024, "num_features": 4096, "num_classes": 2}
    records = {}
    for name, status in (("linprobe", "reached"), ("probekit", "gap not reached")):
        job = path | {"competitor": name, "l2s": [1e-1, 1e-2], "device": "cpu"}
        points = [{"l2": 1e-1, "duality_gap": 2e-3, "num_passes": 3.0}]
        records[name] = {"status": status, "reason": None, "cap": 9.0, "seconds": 0.5}
        records[name] |= {"job": job, "points": points}
    rows = target_rows({"machine": MACHINE, "results": records})
    (row,) = (row for row in rows if "probekit" in row[0])
    assert row[1:] == ("probekit stalled after 0.5 s, gap 2e-03 at l2 = 1e-01", "")


def test_targets_are_judged():
    rows = {target[:12]: (figure, met) for target, figure, met in target_rows(fixture())}
    assert rows["a path of 8 "][1] in ("yes", "no")
    assert rows["one penalty "] == ("not measured", "")  # the last of two: D = 128 .. 784
    slow = fixture(record("linprobe", 2.0), record("sklearn lbfgs", 10.0))
    verdicts = [
        met for target, _, met in target_rows(slow) if "3,136" in target and "10x" in target
    ]
    assert verdicts == ["no"]


def test_the_page_is_made_from_the_json(tmp_path):
    write_page(fixture(), tmp_path)
    text = (tmp_path / "performance.md").read_text()
    assert "15.0x (sklearn lbfgs)" in text and "its Hessian takes 7.9 GB" in text
    assert measure.read(tmp_path / "performance" / measure.NAME) == fixture()
    assert "| 30.00 s | 15.0x | 1.5 | ≥ 5 |" in text
    assert "≥ 20.0x" in text and "probekit (not installed)" in text
    assert "Features are drawn" not in text
    for name in ("cold", "path", "growth"):
        assert f"](performance/{name}.png)" in text
        assert (tmp_path / "performance" / f"{name}.png").stat().st_size > 10_000


def test_cuda_rows_have_their_own_section(tmp_path):
    key, one = record("linprobe", 0.1)
    one["job"]["device"] = "cuda"
    measured = fixture(record("linprobe", 2.0), (key + " gpu", one))
    measured["machine"] = MACHINE | {"cuda": MACHINE | {"device": "cuda (Test)"}}
    write_page(measured, tmp_path)
    text = (tmp_path / "performance.md").read_text()
    assert "## One penalty from a cold start (CUDA)" in text and "cuda (Test)" in text


def test_an_empty_run_still_has_a_page(tmp_path):
    write_page({"schema": 1, "machine": MACHINE, "results": {}}, tmp_path)
    assert (tmp_path / "performance.md").read_text().count("not measured") == 9


def test_parts_that_are_no_jobs_are_on_the_page_beside_their_targets(tmp_path):
    few = {name: 0.5 for name in ("strength", "l2", "test_error_rate", "exact_seconds", "seconds")}
    few |= {name: 0.5 for name in ("by_error_l2", "by_error_test_error_rate", "by_error_seconds")}
    few |= {"sweep_seconds": 15.0, "sweep_gap": 1e-6, "sweep_test_error_rate": 0.5}
    sets = [
        {"sets": n, "exact_seconds": s, "seconds": s, "sweep_seconds": n, "exact": n}
        | {"largest_gap": 1e-12}
        for n, s in ((1, 1.0), (20, 6.0))
    ]
    tall = {"cells": [f"cell {i}" for i in range(11)], "ratio": 2.5}
    parts = {"few_rows": [few], "label_sets": sets, "tall": tall}
    write_page({"schema": 1, "machine": MACHINE, "results": {}, **parts}, tmp_path)
    text = (tmp_path / "performance.md").read_text()
    assert "| 0.50 s | 15.00 s | 1e-06 |" in text and "| 20 | 6.00 s | 6.0 |" in text
    assert "| cell 0 | cell 1 |" in text
    judged = [row[1:] for row in target_rows({**parts, "results": {}})[-3:]]
    assert judged == [("30.00x", "yes"), ("6.0, 6.0", "no"), ("2.5x", "yes")]


def test_the_machine_is_described(monkeypatch):
    monkeypatch.setattr("benchmarks.machine._SIDE", 100)
    monkeypatch.setattr("benchmarks.machine._READ_BYTES", 2**16)
    threads = torch.get_num_threads()
    found = describe(threads)
    assert found["gemm_flops"] > 1e6 and found["read_bytes"] > 1e6
    assert found["numpy"] == np.__version__
    assert competitors.version_of("no-such-package") is None


def test_the_limits_of_one_machine_are_the_largest_measured():
    slow = MACHINE | {"gemm_flops": 1.0, "torch": "3"}
    assert fastest(slow, MACHINE) == MACHINE | {"torch": "3"}
    assert fastest(slow, MACHINE | {"threads": 2})["gemm_flops"] == 1.0
    assert fastest(slow, {})["gemm_flops"] == 1.0


def test_the_command_resumes_and_writes_the_page(folder, tmp_path, monkeypatch, capsys):
    ran = []

    def fake(one, *_):
        ran.append(one.key)
        return record(one.competitor, 1.0)[1]

    monkeypatch.setattr("benchmarks.__main__.run_capped", fake)
    monkeypatch.setattr("benchmarks.__main__.describe", lambda *_: MACHINE)
    monkeypatch.setattr("benchmarks.features.FeatureFiles.prepare", lambda *_: None)
    given = ["--quick", "--out", str(tmp_path), "--docs", str(tmp_path), "--no-cuda"]
    main([*given, "--budget", "-1"])
    assert ran == [] and "goes on from here" in capsys.readouterr().out
    main([*given, "--only", "linprobe"])
    first = len(ran)
    assert 0 < first < len(quick_jobs())
    main(given)
    assert len(ran) == len(set(ran)) == len(quick_jobs())
    main([*given, "--again", "--only", "binary"])
    assert len(ran) == len(quick_jobs()) + 2
    main([*given, "--page", "--note", "A busy machine."])
    assert "\nA busy machine.\n" in (tmp_path / "performance.md").read_text()
    assert math.isfinite(measure.read(tmp_path / measure.NAME)["machine"]["gemm_flops"])


def test_the_products_of_a_pass_are_shown_against_the_roofline(monkeypatch):
    monkeypatch.setattr(products, "_WIDTHS", (4, 8))
    monkeypatch.setattr(products, "MOST_FLOATS", 2000)
    found = products.measure()
    assert [one["num_rows"] for one in found] == [500, 250]
    assert all(one[name] > 0 for one in found for name in ("logits", "plain_gradient"))
    one = {"num_rows": 10**6, "num_features": 1000, "logits": 0.5, "gradient": 0.5}
    (row,) = products.table_rows([one | {"plain_logits": 1.0, "plain_gradient": 2.0}], MACHINE)
    # Two reads of 4 GB at 10 GB/s take .8 s; 4e10 multiplications and additions at 1e11, .4 s.
    times = ["500.0 ms", "1000.0 ms", "500.0 ms", "2000.0 ms", "800.0 ms"]
    assert row == ["1,000,000 x 1,000", *times, "0.80"]


def test_others_are_stopped_at_a_multiple_of_our_time():
    options = argparse.Namespace(cap=100.0, times=20.0)
    ours, other = (Job("cold", name, "x", 200, 12) for name in ("linprobe", "sklearn lbfgs"))
    done = {ours.key: {"status": "reached", "seconds": 2.0}}
    assert _cap(other, options, done) == 40.0
    assert _cap(ours, options, done) == _cap(other, options, {}) == 100.0
    assert _cap(other, options, {ours.key: {"status": "reached", "seconds": 0.1}}) == 5.0
    assert _cap(other, options, {ours.key: {"status": "reached", "seconds": 90.0}}) == 100.0
    options.times = None  # twelve times, and more than twenty where twenty is the target
    assert _cap(other, options, done) == 24.0
    ours, other = (replace(one, suite="path") for one in (ours, other))
    assert _cap(other, options, {ours.key: done.popitem()[1]}) == 42.0


def test_a_file_of_another_schema_is_refused(tmp_path):
    (tmp_path / "old.json").write_text('{"schema": 0}')
    with pytest.raises(SystemExit, match="expected 1"):
        measure.read(tmp_path / "old.json")


def test_scores_are_linprobes_certificate(monkeypatch):
    small = problem()
    found = worker.run_job(job(), small, 60.0)
    weight = torch.zeros(3, 6)
    monkeypatch.setitem(COMPETITORS, "stub", _stub([(weight, False)]))
    stub = worker.run_job(job("stub"), small, 60.0)["points"][0]
    direct = certify(small.features, small.labels, weight, torch.zeros(3), 1e-5)
    assert stub["duality_gap"] == direct.duality_gap
    assert found["points"][0]["objective"] < direct.objective

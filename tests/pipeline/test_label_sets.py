"""Several label sets on the same features: each gets the probe of its own problem."""

import numpy as np
import pytest
import torch

import linprobe
from linprobe import LinprobeError, ProbeConfig
from linprobe.core import row_space
from linprobe.pipeline import array_layers, engine
from tests.support import ranked
from tests.support.ranks import run_ranks

PATH = (1e-1, 1e-2, 1e-3)
METHOD = ProbeConfig(l2_path=PATH)
COUNT, TRAIN = 210, 150


def features(columns=8, seed=0):
    return torch.randn(COUNT, columns, generator=torch.Generator().manual_seed(seed))


X = {"a": features(), "b": features(5, seed=1)}
NOISE = features(4, seed=2)
SETS = {
    "sign": (X["a"][:, 0] + NOISE[:, 0] > 0).long(),
    "third": torch.bucketize(X["a"][:, 1] + NOISE[:, 1], torch.tensor([-0.4, 0.4])),
    "rare": (X["b"][:, 0] + NOISE[:, 2] > 2.2).long(),
    "text": np.where((X["b"][:, 1] > 0).numpy(), "yes", "no"),
}


def split(x=X):
    return tuple(
        {name: values[part] for name, values in x.items()}
        for part in (slice(TRAIN), slice(TRAIN, None))
    )


def fitted(sets=SETS, x=X, **options):
    train, test = split(x)
    y, yt = split(sets)
    return linprobe.fit_label_sets(train, y, (test, yt), **{"method": METHOD, **options})


def alone(name, x=X, **options):
    train, test = split(x)
    y = SETS[name]
    options = {"method": METHOD, **options}
    return linprobe.fit_probes(train, y[:TRAIN], (test, y[TRAIN:]), **options)


def check(report, labels, x=X, **problem):
    """Certify each layer's weight for the problem that the report states."""
    for layer, probe in report.items():
        rows = x[layer][:TRAIN].double()
        scaled = (rows - probe.mean) * probe.scale
        weight = probe.weight / probe.scale
        bias = probe.bias + probe.weight @ probe.mean
        proof = linprobe.certify(
            *(scaled, labels[:TRAIN], weight, bias, probe.record.l2), **problem
        )
        assert proof.duality_gap <= 1e-4 and probe.record.converged
        assert proof.objective == pytest.approx(probe.record.objective, rel=1e-7)
        predicted = (x[layer][TRAIN:].double() @ probe.weight.T + probe.bias).argmax(1)
        error = float((predicted != labels[TRAIN:]).double().mean())
        assert error == probe.record.test_error_rate


def test_a_single_set_gets_what_it_gets_alone():
    (joint,), own = fitted({"third": SETS["third"]}).values(), alone("third")
    for layer in own:
        assert torch.equal(joint[layer].weight, own[layer].weight)


def test_every_set_gets_the_optimum_of_its_own_problem():
    reports = fitted()
    assert list(reports) == list(SETS)
    numbers = {**SETS, "text": torch.from_numpy((SETS["text"] == "yes").astype(np.int64))}
    for name, report in reports.items():
        assert list(report) == ["a", "b"]
        check(report, numbers[name])
    assert reports["text"]["a"].classes == ("no", "yes")
    assert reports["third"]["a"].weight.shape == (3, 8)
    held = {round(r.run.config.method.validation_fraction * TRAIN, 6) for r in reports.values()}
    assert len(held) == 1, "the same rows are held out"


@pytest.mark.parametrize("columns", [8, 1100])  # as they are, and by coordinates of their span
@pytest.mark.parametrize("weight", ["balanced", {"1": 3.0, "0": 1.0}])
def test_weights_of_classes_and_samples_are_those_of_each_set(columns, weight):
    x = {"a": features(columns, seed=3)}
    sets = {name: SETS[name] for name in ("sign", "rare")}
    samples = torch.arange(TRAIN) % 4 + 0.5
    method = ProbeConfig(l2_path=PATH, class_weight=weight)
    reports = fitted(sets, x, method=method, sample_weight=samples)
    for name, labels in sets.items():
        y = labels[:TRAIN]
        given = {0: 1.0, 1: 3.0}
        if weight == "balanced":
            mass = torch.bincount(y, samples.double())
            given = dict(enumerate((mass.sum() / (2 * mass)).tolist()))
        rows = samples.double() * torch.tensor([given[k] for k in y.tolist()])
        check(reports[name], labels, x, sample_weight=rows)


def test_features_are_read_and_factorised_once_for_all_sets(monkeypatch):
    found, copied = [], []
    real, copy = row_space.find_row_space, array_layers._copy

    def counted(*args):
        found.append(args)
        return real(*args)

    monkeypatch.setattr(row_space, "find_row_space", counted)
    monkeypatch.setattr(array_layers, "_copy", lambda *args: copied.append(args) or copy(*args))
    x = {"wide": features(1100, seed=3)}
    kept = x["wide"].clone()
    sets = {name: SETS[name] for name in ("sign", "third", "rare")}
    reports = fitted(sets, x)
    assert len(found) == 1 and len(copied) == 2, "one copy of train, one of test"
    for name, report in reports.items():
        check(report, sets[name], x)
    assert torch.equal(x["wide"], kept)


def test_streamed_rows_give_the_same_probes():
    x = {"a": features(60, seed=4)}
    held, streamed = fitted(x=x), fitted(x=x, memory_bytes=2e4)
    for name in SETS:
        one, other = held[name]["a"].record, streamed[name]["a"].record
        assert one.objective == pytest.approx(other.objective, abs=2e-9)
        assert (one.l2, one.test_error_rate) == (other.l2, other.test_error_rate)


def test_groups_are_kept_together_for_all_sets():
    groups = torch.arange(TRAIN) // 5
    reports = fitted(groups=groups)
    held = reports["sign"].run.config.method.validation_fraction * TRAIN
    assert held == pytest.approx(round(held)) and round(held) % 5 == 0


def counted_fits(monkeypatch, end_at=None):
    real, calls = engine.fit_layer, []

    def fit_layer(layer, place, given, task, *others):
        calls.append((layer, len(task.classes)))
        if len(calls) == end_at:
            raise KeyboardInterrupt
        return real(layer, place, given, task, *others)

    monkeypatch.setattr(engine, "fit_layer", fit_layer)
    return calls


def test_each_set_has_a_folder_and_what_is_finished_is_taken_up_again(monkeypatch, tmp_path):
    whole = fitted(out=tmp_path / "whole")
    for name, report in whole.items():
        assert str(linprobe.load_report(tmp_path / "whole" / name)) == str(report)
        assert f"arrays ({name})" in (tmp_path / "whole" / name / "report.html").read_text()
    counted_fits(monkeypatch, end_at=6)
    with pytest.raises(KeyboardInterrupt), torch.random.fork_rng():
        fitted(out=tmp_path / "half")
    monkeypatch.undo()
    calls = counted_fits(monkeypatch)
    found = fitted(out=tmp_path / "half")
    assert 0 < len(calls) < 2 * len(SETS)
    for name, report in whole.items():
        for layer in report:
            assert torch.equal(found[name][layer].weight, report[layer].weight)
    calls.clear()
    assert list(fitted(out=tmp_path / "half")) == list(SETS) and not calls


def test_runs_of_other_labels_are_kept_or_replaced_as_asked(tmp_path):
    fitted(out=tmp_path)
    with pytest.raises(LinprobeError, match="already holds a run of other data"):
        fitted(out=tmp_path, seed=1)
    fitted(out=linprobe.RunFolder(tmp_path, overwrite=True), seed=1)
    assert {linprobe.load_report(tmp_path / name).run.seed for name in SETS} == {1}


def test_a_set_that_is_complete_is_not_fitted_again(monkeypatch, tmp_path):
    whole = fitted(out=tmp_path)
    for file in (tmp_path / "third").rglob("*"):
        if file.is_file():
            file.unlink()
    calls = counted_fits(monkeypatch)
    again = fitted(out=tmp_path)
    assert calls == [("a", 3), ("b", 3)]
    assert torch.equal(again["third"]["b"].weight, whole["third"]["b"].weight)


def test_what_fails_is_said_of_the_layer_and_of_the_sets_that_it_fails_for(monkeypatch):
    x = {"a": X["a"].clone(), "b": X["b"]}
    x["a"][3, 2] = float("nan")
    real = engine.fit_layer

    def fit_layer(layer, place, given, task, *others):
        if layer == "b" and len(task.classes) == 3:
            raise ValueError("a defect")
        return real(layer, place, given, task, *others)

    monkeypatch.setattr(engine, "fit_layer", fit_layer)
    reports = fitted(x=x)
    for name, report in reports.items():
        assert report["a"].record.status == "nonfinite_features"
        assert report["b"].record.converged == (name != "third")
    assert "a defect" in reports["third"]["b"].record.reason
    with pytest.raises(ValueError, match="a defect"):
        fitted(x=x, strict=True)


def test_a_layer_that_can_not_be_read_fails_for_every_set(monkeypatch):
    copy = array_layers._copy

    def failing(given, *others):
        if given.shape[1] == 5:
            raise ValueError("no such rows")
        return copy(given, *others)

    monkeypatch.setattr(array_layers, "_copy", failing)
    for report in fitted().values():
        assert report["a"].record.converged and "no such rows" in report["b"].record.reason


def test_controls_and_codes_are_those_of_each_set():
    evaluation = linprobe.EvaluationOptions(controls=("shuffled_labels",), mdl=True, repeats=2)
    reports = fitted({name: SETS[name] for name in ("sign", "third")}, evaluation=evaluation)
    for report in reports.values():
        for probe in report.values():
            assert probe.record.evaluation.mdl is not None
            assert [control.name for control in probe.controls] == ["shuffled_labels"] * 2


def test_progress_names_the_set():
    events = []
    fitted(progress=events.append)
    assert {event.checkpoint for event in events} == set(SETS)
    assert events[-1].fraction == pytest.approx(1)
    assert sum(event.milestone for event in events) == 2 * len(SETS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y, yt: ({}, yt), "label_sets is empty; expected a dict of name to labels"),
        (lambda y, yt: (y["sign"], yt), "label_sets is a Tensor; expected a dict of name"),
        (
            lambda y, yt: (y, yt["sign"]),
            "the test labels are a Tensor; expected a dict of the same",
        ),
        (
            lambda y, yt: (y, {**yt, "more": yt["sign"]}),
            "label set 'more' stands in one split only",
        ),
        (lambda y, yt: ({**y, "third": y["third"][1:]}, yt), "label set 'third' has 149 train lab"),
        (lambda y, yt: ({**y, "a/b": y["sign"]}, yt), "a label set is called 'a/b'; expected text"),
        (lambda y, yt: ({**y, 3: y["sign"]}, yt), "a label set is called 3; expected text"),
        (
            lambda y, yt: ({**y, "rare": torch.zeros(TRAIN)}, {**yt, "rare": torch.zeros(60)}),
            "label set 'rare': the train labels are of one class only",
        ),
        (
            lambda y, yt: ({**y, "rare": torch.full((TRAIN,), -100)}, yt),
            "label set 'rare': train labels hold -100",
        ),
    ],
)
def test_bad_sets_are_refused_in_one_line(change, message):
    train, test = split()
    y, yt = change(*split(SETS))
    with pytest.raises(LinprobeError) as caught:
        linprobe.fit_label_sets(train, y, (test, yt), method=METHOD)
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_fit_probes_says_what_takes_several_sets():
    train, test = split()
    y, yt = split(SETS)
    with pytest.raises(LinprobeError, match=r"a dict of 4 entries.*call linprobe\.fit_label_sets"):
        linprobe.fit_probes(train, y, (test, yt))


def test_several_processes_give_what_one_gives(tmp_path):
    whole = ranked.fit_sets()
    for code, found, _ in run_ranks(2, tmp_path, ranked.fit_sets_both_ways):
        assert code == 0 and found[0] == whole
        for name, report in whole.items():
            for layer, (index, status, objective, _) in report.items():
                shared = found[1][name][layer]
                assert shared[:2] == (index, status)
                assert float(shared[2]) == pytest.approx(float(objective), rel=1e-7)

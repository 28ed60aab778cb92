"""Features that are at hand: tensors, arrays and mapped files give the same probes."""

import os
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import linprobe
from linprobe import LinprobeError, ProbeConfig
from tests.support.cases import make_case
from tests.support.containers import OnDisk
from tests.support.options import fit_options

PATH = (1e-1, 1e-2, 1e-3)
CASE = make_case("plain", 200, 8, 3)
X, Y = CASE.features.float(), CASE.labels
TRAIN, TEST = slice(0, 150), slice(150, 200)


def fitted(train=None, test=None, **options):
    train = {"a": X[TRAIN]} if train is None else train
    test = {"a": X[TEST]} if test is None else test
    options = {"l2": PATH, **options}
    return linprobe.fit_probes(train, Y[TRAIN], (test, Y[TEST]), **fit_options(**options))


def test_probes_are_those_of_the_protocol():
    report = fitted()
    order = linprobe.holdout_order(
        Y[TRAIN], 1 / 6, linprobe.runtime.randomness.generator(0, "holdout")
    )
    alone = linprobe.fit_probe(
        *(X[TRAIN][order], Y[TRAIN][order], X[TEST], Y[TEST]),
        linprobe.ProbeConfig(l2_path=PATH),
    )
    assert torch.equal(report["a"].weight, alone.weight)
    assert report["a"].record.test_error_rate == alone.test_error_rate
    assert report["a"].record.l2 in PATH


def test_features_are_read_wherever_they_are(tmp_path):
    np.save(tmp_path / "train.npy", X[TRAIN].numpy())
    np.save(tmp_path / "test.npy", X[TEST].numpy())
    mapped = [np.load(tmp_path / f"{s}.npy", mmap_mode="r") for s in ("train", "test")]
    kept = X[TRAIN].clone()
    np.save(tmp_path / "labels.npy", Y[TRAIN].numpy().astype(np.uint16))
    labels = np.load(tmp_path / "labels.npy", mmap_mode="r")
    report = linprobe.fit_probes({"a": X[TRAIN]}, labels, ({"a": X[TEST]}, Y[TEST].tolist()))
    assert report["a"].record.converged
    report = fitted(
        {"a": X[TRAIN], "b": X[TRAIN].numpy(), "c": mapped[0], "d": tmp_path / "train.npy",
         "e": X[TRAIN].double().numpy()},
        {"a": X[TEST], "b": X[TEST].numpy(), "c": mapped[1], "d": str(tmp_path / "test.npy"),
         "e": X[TEST].double().numpy()},
    )  # fmt: skip
    assert torch.equal(X[TRAIN], kept), "the caller's features are not written to"
    assert list(report) == list("abcde")
    for layer in "bcd":
        assert torch.equal(report[layer].weight, report["a"].weight)
    torch.testing.assert_close(report["e"].weight, report["a"].weight, rtol=0.1, atol=0.05)


def test_features_with_a_gradient_are_left_alone():
    x = X[TRAIN].clone().requires_grad_()
    assert torch.equal(fitted({"a": x})["a"].weight, fitted()["a"].weight)
    assert x.requires_grad and x.grad is None and torch.equal(x.detach(), X[TRAIN])


def test_one_group_is_on_one_side_of_the_held_out_split():
    # Nothing can be learnt here, but each row stands thrice: its copies give it away.
    x = torch.randn(50, 100, generator=torch.Generator().manual_seed(1)).repeat(3, 1)
    y, groups = (torch.arange(50) % 3).repeat(3), torch.arange(50).repeat(3)
    test = ({"a": x}, y)
    apart, together = (
        linprobe.fit_probes({"a": x}, y, test, groups=g)["a"].record for g in (groups, None)
    )
    assert apart.validation_cross_entropy > 1 > 0.1 > together.validation_cross_entropy
    assert apart.l2 > together.l2


def test_a_single_penalty_is_no_choice():
    record = fitted(l2=1e-2)["a"].record
    assert record.l2 == 1e-2 and not record.l2_at_edge
    assert fitted(l2=[1e-3, 1e-1, 1e-2])["a"].record.l2 in PATH


def test_classes_may_be_more_than_the_labels_show():
    assert fitted(num_classes=5)["a"].weight.shape == (5, 8)


def test_progress_is_told():
    events = []
    fitted({"a": X[TRAIN], "b": X[TRAIN]}, {"a": X[TEST], "b": X[TEST]}, progress=events.append)
    done = [event for event in events if event.milestone]
    said = {event.text.partition(":")[0] for event in done}
    assert said == {"a (1/2)", "b (2/2)"}, "side by side, in either order"
    assert done[-1].fraction == pytest.approx(1)
    assert [e.fraction for e in events] == sorted(e.fraction for e in events)


@pytest.mark.parametrize(("copies", "workers"), [(9, 3), (2, 2), (1, 1)])
def test_narrow_layers_are_solved_side_by_side(monkeypatch, copies, workers):
    """As many as there are threads and memory for; the probes are those of layers alone."""
    free, size = linprobe.pipeline.array_layers.FEATURE_SHARE, 4 * X.numel()
    monkeypatch.setattr(
        linprobe.pipeline.array_layers, "free_bytes", lambda device: (copies + 0.1) * size / free
    )
    monkeypatch.setattr(linprobe.pipeline.array_layers, "thread_count", lambda device: 3)
    seen = []
    real = linprobe.pipeline.engine.fit_layer

    def fit_layer(*args):
        seen.append((threading.get_ident(), torch.get_num_threads()))
        return real(*args)

    monkeypatch.setattr(linprobe.pipeline.engine, "fit_layer", fit_layer)
    names = list("dbca")
    report = fitted(dict.fromkeys(names, X[TRAIN]), dict.fromkeys(names, X[TEST]))
    main = threading.get_ident()
    assert all((ident == main) == (workers == 1) for ident, _ in seen)
    assert {count for _, count in seen} == ({torch.get_num_threads()} if workers == 1 else {1})
    assert list(report) == names and [r.index for r in report.records] == [0, 1, 2, 3]
    for name in names:
        torch.testing.assert_close(report[name].weight, report["a"].weight)
    stages = report.run.checkpoints[0].stages
    assert 0 < stages["extract"] < stages["extract"] + stages["solve"] <= report.run.seconds


def test_progress_is_shown(capsys):
    fitted(progress=True)
    assert "a (1/1): test error" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("train", "test", "options", "message"),
    [
        ({}, None, {}, "there are no layers"),
        (None, {"b": X[TEST]}, {}, "layer 'a' stands in one split only"),
        ({"a": X[:9]}, None, {}, "layer 'a': 9 rows of train features for 150 labels"),
        (None, {"a": X[:9]}, {}, "layer 'a': 9 rows of test features for 50 labels"),
        (None, {"a": X[TEST, :3]}, {}, "layer 'a': train features have 8 columns, test features 3"),
        ({"a": X[TRAIN][:, None]}, None, {}, r"layer 'a': .* Tensor of shape \(150, 1, 8\)"),
        ({"a": X[TRAIN, 0].tolist()}, None, {}, r"layer 'a': .* ndarray of shape \(150,\)"),
        ({"a": X[TRAIN, :0]}, {"a": X[TEST, :0]}, {}, r"layer 'a': .*shape \(150, 0\)"),
        ({"a": X[TRAIN].to(torch.complex64)}, None, {}, "layer 'a': .*complex64.*; expected real"),
        (
            {"a": X[TRAIN].numpy().astype(object)},
            None,
            {},
            "layer 'a': .* dtype object, of any objects",
        ),
        (None, {"a": X[TEST].to_sparse()}, {}, "layer 'a': .*test features is a sparse tensor"),
        ({"a": "none.npy"}, None, {}, r"none.npy can't be read as .npy"),
        (None, None, {"l2": 0}, "l2 is 0; expected a positive number"),
        (None, None, {"l2": "x"}, "l2 is 'x'; expected a positive number"),
        (None, None, {"tol": 0}, "tol is 0"),
        (None, None, {"seed": -1}, "seed is -1; expected a whole number"),
        (None, None, {"num_classes": 3.0}, "num_classes is 3.0; expected a whole number from 2"),
        (None, None, {"num_classes": 1}, "num_classes is 1; expected a whole number from 2"),
        (None, None, {"num_classes": 2}, "train labels hold 2; expected class numbers from 0 to 1"),
        (None, None, {"groups": [1, 2]}, r"groups of the train samples have shape \(2,\)"),
        (None, None, {"groups": [1] * 150}, "none of the 1 groups"),
    ],
)
def test_what_can_not_be_used_is_refused(train, test, options, message):
    with pytest.raises(LinprobeError, match=message):
        fitted(train, test, **options)


@pytest.mark.parametrize("labels", [torch.zeros(0, dtype=torch.int64), Y[TRAIN, None]])
def test_labels_of_other_shapes(labels):
    with pytest.raises(LinprobeError, match=r"train labels have shape .* one class for each"):
        linprobe.fit_probes({"a": X[TRAIN]}, labels, ({"a": X[TEST]}, Y[TEST]))


def test_a_test_split_that_is_no_pair():
    with pytest.raises(LinprobeError, match="test is no pair"):
        linprobe.fit_probes({"a": X[TRAIN]}, Y[TRAIN], {"a": X[TEST]})


@pytest.mark.parametrize("kind", ["tensor", "array", "file", "columns", "on disk", "half"])
@pytest.mark.parametrize("memory", [2.4e3, 4e3])
def test_features_beyond_the_budget_are_streamed_to_the_same_probe(tmp_path, kind, memory):
    """Training and test rows, or training rows alone."""
    dtype = torch.float16 if kind == "half" else torch.float32
    parts, labels = [X[TRAIN].to(dtype), X[150:170].to(dtype)], Y[150:170]
    given = {
        "tensor": lambda x, name: x,
        "half": lambda x, name: x,
        "array": lambda x, name: x.numpy(),
        "file": lambda x, name: np.save(tmp_path / name, x.numpy()) or tmp_path / name,
        "columns": lambda x, name: np.asfortranarray(x.numpy()),
        "on disk": lambda x, name: OnDisk(x.numpy()),
    }[kind]
    train, test = (given(x, name) for x, name in zip(parts, ("a.npy", "b.npy"), strict=True))

    def fit(train, test, **options):
        options = fit_options(l2=1e-2, exact=False, **options)
        return linprobe.fit_probes({"a": train}, Y[TRAIN], ({"a": test}, labels), **options)

    whole, report = fit(*(x.float() for x in parts))["a"], fit(train, test, memory_bytes=memory)
    part = report["a"]
    assert part.record.status == "converged" and part.record.l2 == whole.record.l2
    assert part.record.dtype == str(dtype).removeprefix("torch.")
    assert part.record.test_error_rate == whole.record.test_error_rate
    assert part.record.objective == pytest.approx(whole.record.objective, abs=1e-4)
    assert part.record.float32_changes == whole.record.float32_changes == 0
    torch.testing.assert_close(part.weight, whole.weight, rtol=0.02, atol=0.01)
    assert report.run.config.extraction.memory_bytes == memory


def test_rows_of_weight_zero_and_rows_that_are_not_finite_are_streamed_too(tmp_path):
    x, weight = X[TRAIN].clone(), torch.ones(150)
    x[17, 3], weight[17] = float("nan"), 0
    np.save(tmp_path / "x.npy", x.numpy())
    streamed = {"train": {"a": tmp_path / "x.npy"}, "memory_bytes": 4e3, "l2": 1e-2}
    assert fitted(**streamed, sample_weight=weight)["a"].record.converged
    reason = fitted(**streamed)["a"].record.reason
    assert "1 of 150 training rows (the first is row 17)" in reason
    with pytest.raises(LinprobeError, match="memory_bytes is 0; expected a positive number of"):
        fitted(memory_bytes=0)


def test_a_file_that_shrinks_while_its_probe_is_fitted_fails_that_layer_alone(
    tmp_path, monkeypatch
):
    np.save(tmp_path / "x.npy", X[TRAIN].numpy())
    real = linprobe.pipeline.engine.fit_layer

    def shrunk(layer, *args):
        if layer == "a":
            os.truncate(tmp_path / "x.npy", 999)
        return real(layer, *args)

    monkeypatch.setattr(linprobe.pipeline.engine, "fit_layer", shrunk)
    train, test = {"a": tmp_path / "x.npy", "b": X[TRAIN]}, {"a": X[TEST], "b": X[TEST]}
    report = fitted(train, test, memory_bytes=4e3, l2=1e-2)
    assert "x.npy has changed while it was read" in report["a"].record.reason
    assert report["b"].record.converged


@pytest.mark.parametrize("memory", [None, 4000])
def test_all_layers_in_one_file_give_the_same_probes(tmp_path, memory):
    layers = {"a": X, "b": X[:, :4].bfloat16()}
    for part, split in (("train", TRAIN), ("test", TEST)):
        own = {layer: x[split].contiguous() for layer, x in layers.items()}
        save_file(own, tmp_path / f"{part}.safetensors")
    train, test = (tmp_path / f"{part}.safetensors" for part in ("train", "test"))
    found = fitted(str(train), test, memory_bytes=memory)
    usual = fitted(
        {k: x[TRAIN] for k, x in layers.items()}, {k: x[TEST] for k, x in layers.items()}
    )
    assert set(found) == {"a", "b"}
    for layer in layers:
        assert found[layer].record.l2 == usual[layer].record.l2
        torch.testing.assert_close(found[layer].weight, usual[layer].weight, rtol=1e-3, atol=1e-4)


def test_a_streamed_layer_is_found_again(tmp_path):
    np.save(tmp_path / "x.npy", X[TRAIN].numpy())
    options = {"memory_bytes": 4e3, "l2": 1e-2, "exact": False}
    given = {"train": {"a": tmp_path / "x.npy"}, "out": tmp_path / "out", **options}
    one, two = fitted(**given), fitted(**given)
    assert str(one) == str(two) and torch.equal(one["a"].weight, two["a"].weight)
    other = X[TRAIN].numpy()
    other[3] += 1
    np.save(tmp_path / "x.npy", other)
    with pytest.raises(LinprobeError):
        fitted(**given)


def test_a_device_that_is_not_there():
    with pytest.raises(LinprobeError, match="device is 'tpu', which can't be used here"):
        fitted(device="tpu")


@pytest.mark.parametrize("container", ["frame", "lists", "list of tensors", "array on disk"])
def test_features_in_other_containers_give_the_same_probe(container):
    pandas = pytest.importorskip("pandas")
    y = torch.arange(60) % 2
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) + y[:, None]
    other = {
        "frame": pandas.DataFrame(x.numpy(), index=range(60, 0, -1)),
        "lists": x.tolist(),
        "list of tensors": list(x),
        "array on disk": OnDisk(x.numpy()),
    }[container]
    labels = pandas.Series(y.numpy(), index=range(60, 0, -1)) if container == "frame" else y
    method = ProbeConfig((1e-3,))
    plain = linprobe.fit_probes({"h": x}, y, ({"h": x}, y), method=method)["h"]
    found = linprobe.fit_probes({"h": other}, labels, ({"h": other}, labels), method=method)["h"]
    torch.testing.assert_close(found.weight, plain.weight, rtol=1e-4, atol=1e-6)
    assert found.record.test_error_rate == plain.record.test_error_rate


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (["a"] * 4, "layer 'h': the array of train features holds text"),
        ([[1], [1, 2], [1], [1]], r"items differ in shape: \(1,\) first, \(2,\) at place 1"),
        (torch.zeros(4, 2).to_sparse(), r"is a sparse tensor; give x.to_dense\(\)"),
        (torch.zeros(4, 2, device="meta"), "is on the device 'meta', without values"),
    ],
)
def test_features_that_are_no_numbers_get_one_line(features, message):
    with pytest.raises(LinprobeError, match=message):
        linprobe.fit_probes({"h": features}, [0, 1, 0, 1], ({"h": features}, [0, 1, 0, 1]))

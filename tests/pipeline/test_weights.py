import numpy as np
import pandas
import pytest
import torch
from torch import nn

import linprobe
from linprobe import EvaluationOptions, ProbeConfig
from linprobe.activations.options import ExtractionOptions
from linprobe.records.store import load_run
from linprobe.runtime.errors import LinprobeError

N, CLASSES = 120, 3


def data(n=N, seed=0):
    draw = np.random.default_rng(seed)
    y = draw.integers(CLASSES, size=n)
    return draw.normal(size=(n, 5)) + np.eye(5)[y], y


X, Y = data()
XT, YT = data(60, 1)
WEIGHT = np.random.default_rng(2).integers(0, 4, size=N).astype(float)


def fitted(x=X, y=Y, weight=None, method=None, **options):
    options = {"method": method or ProbeConfig((1e-1, 1e-2, 1e-3), tol=1e-8), **options}
    return linprobe.fit_probes({"a": x}, y, ({"a": XT}, YT), sample_weight=weight, **options)


def numbers(report):
    known = report.to_pandas().drop(columns="seconds").to_dict("records")[0]
    return known | {"weight": report["a"].weight.tolist(), "bias": report["a"].bias.tolist()}


CONTROLS = EvaluationOptions(controls=["shuffled_labels", "majority"], repeats=1, mdl=True)


def test_rows_of_weight_zero_are_as_good_as_absent():
    one = X.copy()
    one[WEIGHT == 0] = np.nan  # nobody looks at them
    used = WEIGHT > 0
    with_zeros = fitted(one, Y, WEIGHT, evaluation=CONTROLS)
    without = fitted(X[used], Y[used], WEIGHT[used], evaluation=CONTROLS)
    assert numbers(with_zeros) == numbers(without)
    for ours, theirs in zip(*(r["a"].controls for r in (with_zeros, without)), strict=True):
        assert ours == theirs
    assert with_zeros.run.checkpoints[0].controls == without.run.checkpoints[0].controls
    codes = (r["a"].record.evaluation.mdl for r in (with_zeros, without))
    assert next(codes) == next(codes)
    assert with_zeros.run.dataset.num_train == used.sum()


def test_equal_weights_change_nothing():
    plain, weighted = fitted(), fitted(weight=np.full(N, 7))
    np.testing.assert_allclose(plain["a"].weight, weighted["a"].weight, rtol=1e-5, atol=1e-6)
    rates = [report.run.dataset.majority_error_rate for report in (plain, weighted)]
    assert rates[0].train == pytest.approx(rates[1].train)
    assert rates[0].test == rates[1].test
    assert plain["a"].record.l2 == weighted["a"].record.l2


def test_copies_of_rows_give_the_same_probe_where_one_penalty_is_given():
    times = WEIGHT.astype(int)
    method = ProbeConfig(1e-2, tol=1e-10)
    weighted = fitted(weight=WEIGHT, method=method)
    copies = fitted(np.repeat(X, times, 0), np.repeat(Y, times), method=method)
    one, other = weighted["a"].record, copies["a"].record
    np.testing.assert_allclose(weighted["a"].weight, copies["a"].weight, atol=1e-4)
    assert one.test_error_rate == other.test_error_rate
    for name in ("objective", "train_error_rate"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-9)
    assert one.train_cross_entropy == pytest.approx(other.train_cross_entropy, abs=1e-6)
    majority = [report.run.dataset.majority_error_rate for report in (weighted, copies)]
    assert majority[0].train == pytest.approx(majority[1].train)
    v_information = [r.evaluation.v_information_bits for r in (one, other)]
    assert v_information[0] == pytest.approx(v_information[1], abs=1e-5)


@pytest.mark.parametrize(
    "weight",
    [
        WEIGHT.tolist(),
        pandas.Series(WEIGHT, index=np.arange(N)[::-1]),
        torch.tensor(WEIGHT, dtype=torch.bfloat16, requires_grad=True),
        WEIGHT.astype(">f4"),
        WEIGHT.astype(np.uint8),
        4 * WEIGHT,
    ],
)
def test_weights_of_any_container_and_unit(weight):
    before = list(weight)
    assert numbers(fitted(weight=weight)) == numbers(fitted(weight=WEIGHT))
    assert list(weight) == before


class Refuses(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 4)

    def forward(self, x):
        raise AssertionError("the network was run")


BAD = [
    (np.full(N, -1.0), r"120 numbers of sample_weight are negative or not finite, the first one"),
    (np.where(np.arange(N) == 3, np.nan, 1), r"1 numbers .* first one nan for training sample 3"),
    (np.full(N, np.inf), "not finite"),
    (np.ones(N - 1), r"shape \(119,\); expected \(120,\)"),
    (np.ones((N, 1)), r"shape \(120, 1\)"),
    ((np.ones(N), np.ones(60)), "sample_weight"),
    (2.0, r"shape \(\)"),
    (np.zeros(N), "zero for all samples"),
    (np.where(Y == 1, 0.0, 1), r"all \d+ training samples of class 1 have a sample_weight of zero"),
    (["a"] * N, "holds no real numbers"),
    ([None] * N, "holds no real numbers"),
    (np.ones(N) + 1j, "holds no real numbers"),
]


@pytest.mark.parametrize(("weight", "message"), BAD)
def test_bad_weights_are_refused_before_any_work(weight, message):
    with pytest.raises(LinprobeError, match=message):
        fitted(weight=weight)
    with pytest.raises(LinprobeError, match=message):
        linprobe.probe(Refuses(), (X, Y), (XT, YT), sample_weight=weight)


def test_an_unknown_class_is_refused_before_any_work():
    method = ProbeConfig(class_weight={"cow": 2})
    with pytest.raises(LinprobeError, match="'cow', which is no class; expected some of: 0, 1, 2"):
        fitted(method=method)
    with pytest.raises(LinprobeError, match="'cow'"):
        linprobe.probe(Refuses(), (X, Y), (XT, YT), method=method)


class Same(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 1, 1: 10}])
def test_probe_and_fit_probes_agree(class_weight, tmp_path):
    method = ProbeConfig((1e-1, 1e-2), tol=1e-8, class_weight=class_weight)
    report = linprobe.probe(
        Same().double(), (X, Y), (XT, YT), layers="layer", sample_weight=WEIGHT, method=method
    )
    other = fitted(weight=WEIGHT, method=method)
    torch.testing.assert_close(report["layer"].weight, other["a"].weight)
    run = load_run(report.save(tmp_path / "run"))
    kept = {"0": 1.0, "1": 10.0} if isinstance(class_weight, dict) else class_weight
    assert run.config.method.class_weight == kept
    assert run.config.extraction.sample_weight


def test_class_weights_count_in_standardisation_controls_and_code():
    each = np.array([1.0, 10.0, 3.0])
    by_class = ProbeConfig((1e-1, 1e-2), tol=1e-8, class_weight=dict(enumerate(each)))
    plain = ProbeConfig((1e-1, 1e-2), tol=1e-8)
    options = EvaluationOptions(mdl=True)
    one = fitted(method=by_class, evaluation=options)["a"]
    other = fitted(weight=each[Y], method=plain, evaluation=options)["a"]
    torch.testing.assert_close(one.mean, other.mean)
    torch.testing.assert_close(one.weight, other.weight, rtol=1e-5, atol=1e-6)
    ours, theirs = (p.record.evaluation for p in (one, other))
    assert ours.mdl.bits == pytest.approx(theirs.mdl.bits)
    assert ours.v_information_bits == pytest.approx(theirs.v_information_bits)


def test_a_rare_class_is_found_by_balanced_weights():
    draw = np.random.default_rng(0)
    y, yt = (np.r_[np.zeros(490, int), np.ones(10, int)] for _ in "ab")
    x, xt = (draw.normal(size=(500, 4)) + 1.5 * np.eye(4)[labels] for labels in (y, yt))
    found = {}
    for how in (None, "balanced"):
        report = linprobe.fit_probes(
            {"a": x}, y, ({"a": xt}, yt), method=ProbeConfig(1e-2, class_weight=how)
        )
        found[how] = report["a"].record.evaluation.per_class_error_rate
    assert found["balanced"][1] < 0.3 < found[None][1]


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Identity()

    def forward(self, x):
        return self.layer(x)


def test_a_samples_weight_goes_to_each_of_its_tokens():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 3, 5, generator=draw), torch.randint(2, (40, 3), generator=draw)
    x[..., 0] += y
    weight = torch.randint(1, 4, (40,), generator=draw)
    method = ProbeConfig((1e-1, 1e-2), tol=1e-8)
    report = linprobe.probe(
        Tokens(),
        (x, y),
        (x[:20], y[:20]),
        layers="layer",
        sample_weight=weight,
        method=method,
        extraction=ExtractionOptions(tokens="all"),
    )
    flat, labels = x.reshape(-1, 5), y.reshape(-1)
    other = linprobe.fit_probes(
        {"a": flat},
        labels,
        ({"a": flat[:60]}, labels[:60]),
        groups=np.repeat(np.arange(40), 3),
        sample_weight=weight.repeat_interleave(3),
        method=method,
    )
    torch.testing.assert_close(report["layer"].weight, other["a"].weight)


NAMES = np.array(["ant", "bee", "cow"])


def test_class_weights_name_the_users_own_classes():
    method = ProbeConfig(1e-2, class_weight={"bee": 3, "cow": 10})
    report = linprobe.fit_probes({"a": X}, NAMES[Y], ({"a": XT}, NAMES[YT]), method=method)
    other = fitted(method=ProbeConfig(1e-2, class_weight={1: 3, 2: 10}))
    assert torch.equal(report["a"].weight, other["a"].weight)
    assert report.run.config.method.class_weight == {"bee": 3.0, "cow": 10.0}
    with pytest.raises(LinprobeError, match=r"'dog', which is no class; .*: ant, bee, cow"):
        linprobe.fit_probes(
            *({"a": X}, NAMES[Y], ({"a": XT}, NAMES[YT])),
            method=ProbeConfig(class_weight={"dog": 2}),
        )
    with pytest.raises(LinprobeError, match="of class bee have a sample_weight of zero"):
        linprobe.fit_probes(
            {"a": X}, NAMES[Y], ({"a": XT}, NAMES[YT]), sample_weight=(Y != 1).astype(int)
        )


def test_class_weights_go_by_labels_that_start_anywhere():
    other = fitted(method=ProbeConfig(1e-2, class_weight={1: 3, 2: 10}))
    shifted = linprobe.fit_probes(
        *({"a": X}, Y + 1, ({"a": XT}, YT + 1)),
        method=ProbeConfig(1e-2, class_weight={2: 3, 3: 10}),
    )
    assert torch.equal(shifted["a"].weight, other["a"].weight)


def test_groups_and_weights_and_all_controls_together():
    options = EvaluationOptions(
        controls=["shuffled_labels", "control_task", "random_features", "input", "majority"],
        repeats=1,
        mdl=True,
    )
    used = WEIGHT > 0
    reports = [
        linprobe.probe(
            *(Same().double(), (X[rows], Y[rows]), (XT, YT)),
            layers="layer",
            sample_weight=WEIGHT[rows],
            groups=np.arange(N)[rows] // 2,
            method=ProbeConfig((1e-1, 1e-2), class_weight="balanced"),
            evaluation=options,
        )
        for rows in (np.arange(N) >= 0, used)
    ]
    controls = [report.run.checkpoints[0].controls for report in reports]
    assert len(controls[0]) == 5
    assert controls[0] == controls[1]
    assert torch.equal(reports[0]["layer"].weight, reports[1]["layer"].weight)


def test_one_sample_may_have_nearly_all_of_the_weight():
    weight = np.full(N, 1e-12)
    weight[:3] = 1
    labels = np.r_[0, 1, 2, Y[3:]]
    report = linprobe.fit_probes(
        *({"a": X}, labels, ({"a": XT}, YT)), sample_weight=weight, method=ProbeConfig(1e-2)
    )
    assert report["a"].record.converged
    assert report["a"].record.train_error_rate < 1e-9

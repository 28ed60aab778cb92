"""The certified probe, the theory that it must obey, and its hard cases."""

import math
import warnings
from dataclasses import replace

import pytest
import torch

from linprobe import LinprobeError, ProbeConfig, certify, fit_probe, holdout_order
from linprobe.core.features import DenseFeatures, Standardisation
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.solvers.base import Status
from linprobe.core.solvers.newton import SubsampledNewton
from linprobe.core.solvers.reference import ReferenceNewton
from linprobe.probes.base import FailedProbe, Targets
from linprobe.probes.softmax import SoftmaxProbe
from tests.support.cases import make_case
from tests.support.reference import reference_optimum


def data(n=600, d=10, k=4, *, dtype=torch.float32, seed=0, noise=1.0):
    """Train and test rows, the train rows in held-out order."""
    case = make_case("probe", n + 200, d, k, noise=noise)
    features = (case.features * 3 + 1).to(dtype)
    train = holdout_order(case.labels[:n], 1 / 6, torch.Generator().manual_seed(seed))
    return features[train], case.labels[train], features[n:], case.labels[n:]


def test_probe_is_the_optimum_of_its_problem():
    x, y, xt, yt = data()
    fit = fit_probe(x.clone(), y, xt, yt)
    assert fit.status is Status.CONVERGED and fit.duality_gap <= 1e-4
    standard = x.double()
    Standardisation.fit_(standard)
    value, _, _ = reference_optimum(standard, y, 4, fit.l2)
    assert -1e-6 <= fit.objective - value <= fit.duality_gap + 1e-6
    assert fit.l2 in ProbeConfig().l2_path


def test_returned_weight_takes_raw_features_and_can_be_rechecked():
    x, y, xt, yt = data()
    fit = fit_probe(x.clone(), y, xt, yt)
    logits = xt.double() @ fit.weight.T + fit.bias
    assert fit.test_error_rate == float((logits.argmax(1) != yt).double().mean())
    own = logits.log_softmax(1).gather(1, yt[:, None])
    assert fit.test_cross_entropy == pytest.approx(-float(own.mean()), rel=1e-9)
    s = fit.standardisation
    again = certify(
        x, y, fit.weight / s.scale, fit.bias + fit.weight @ s.mean, fit.l2, standardisation=s
    )
    assert again.duality_gap == pytest.approx(fit.duality_gap, rel=1e-2)
    assert again.error_rate == fit.train_error_rate


def test_l2_has_the_least_held_out_cross_entropy():
    x, y, xt, yt = data(n=240, d=40, noise=0.5)
    fit = fit_probe(x, y, xt, yt)
    best = min(fit.path, key=lambda p: p.validation_cross_entropy)
    assert fit.l2 == best.l2 and not fit.l2_at_edge
    assert fit.validation_error_rate == best.validation_error_rate
    assert len(fit.path) < len(ProbeConfig().l2_path), "the path should stop once it has turned"


def test_test_labels_do_not_influence_the_probe():
    x, y, xt, yt = data()
    fits = [fit_probe(x.clone(), y, xt, labels) for labels in (yt, yt.flip(0))]
    assert torch.equal(fits[0].weight, fits[1].weight)
    assert fits[0].test_error_rate != fits[1].test_error_rate


def test_edge_of_the_path_is_flagged():
    x, y, xt, yt = data()
    fit = fit_probe(x, y, xt, yt, ProbeConfig(l2_path=(1.0, 0.5)))
    assert fit.l2 == 0.5 and fit.l2_at_edge


def test_same_seed_same_numbers():
    x, y, xt, yt = data()
    first, second = (fit_probe(x.clone(), y, xt, yt) for _ in range(2))
    assert torch.equal(first.weight, second.weight)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
def test_scale_of_the_layer_does_not_matter(scale):
    x, y, xt, yt = data()
    plain, scaled = fit_probe(x.clone(), y, xt, yt), fit_probe(x * scale, y, xt * scale, yt)
    assert scaled.status is Status.CONVERGED
    assert scaled.l2 == plain.l2
    assert scaled.objective == pytest.approx(plain.objective, abs=1e-4)
    assert scaled.test_error_rate == pytest.approx(plain.test_error_rate, abs=0.011)


def solve(features, labels, k, l2, tol=1e-9):
    features = features.clone()
    Standardisation.fit_(features)
    problem = SoftmaxRegression(features, labels, k)
    starts = ()
    for exponent in range(1, round(-math.log10(l2)) + 1):
        solution = SubsampledNewton(problem).solve(
            10.0**-exponent, tol=tol, max_passes=2000, starts=starts
        )
        starts = (solution.point, *starts[:1])
    assert solution.status is Status.CONVERGED
    point = solution.point
    return certify(features, labels, point.weight, point.bias, l2).cross_entropy


def test_an_invertible_linear_layer_keeps_the_optimum():
    """design: as l2 -> 0 a layer that maps its input linearly and invertibly loses nothing."""
    case = make_case("linear", 500, 6, 3)
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    mixed = case.features @ mixing
    before, after = (solve(x, case.labels, 3, 1e-8) for x in (case.features, mixed))
    assert after == pytest.approx(before, abs=1e-5)


def test_a_linear_layer_never_improves_the_training_optimum():
    case = make_case("narrow", 500, 8, 3)
    generator = torch.Generator().manual_seed(0)
    before = solve(case.features, case.labels, 3, 1e-8)
    for width in (1, 4, 8, 16):
        mixing = torch.randn(8, width, generator=generator, dtype=torch.float64)
        assert solve(case.features @ mixing, case.labels, 3, 1e-8) >= before - 1e-5


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_nonfinite_features_are_flagged_and_not_solved(bad):
    x, y, xt, yt = data()
    x[3, 2] = bad
    fit = fit_probe(x, y, xt, yt)
    assert isinstance(fit, FailedProbe) and fit.status is Status.NONFINITE_FEATURES
    assert fit.reason == "the training features hold NaN or infinity"
    assert (fit.num_features, fit.num_classes) == (10, 4) and fit.seconds > 0
    x[3, 2], xt[0, 0] = 0.0, bad
    fit = fit_probe(x, y, xt, yt)
    assert isinstance(fit, FailedProbe) and fit.reason.startswith("the test features hold")


def test_one_class_is_degenerate():
    x, y, xt, yt = data()
    fit = fit_probe(x, torch.full_like(y, 2), xt, yt, num_classes=4)
    assert fit.status is Status.DEGENERATE_LABELS
    assert fit.test_error_rate == float((yt != 2).double().mean())


def test_constant_features_give_the_class_frequencies():
    _, y, _, yt = data()
    fit = fit_probe(torch.full((len(y), 3), 0.1), y, torch.full((len(yt), 3), 0.1), yt)
    assert fit.status is Status.CONVERGED and fit.rounded
    frequencies = torch.bincount(y).double() / len(y)
    assert fit.train_cross_entropy == pytest.approx(
        -float((frequencies * frequencies.log()).sum()), abs=1e-6
    )


@pytest.mark.parametrize(
    ("shift", "dtype", "rounded"),
    [(0, torch.float32, False), (3e6, torch.float32, True), (3e6, torch.float64, False)],
)
def test_features_that_are_mostly_rounding_say_so(shift, dtype, rounded):
    x, y, xt, yt = (part.to(dtype) if part.is_floating_point() else part for part in data())
    assert fit_probe(x + shift, y, xt + shift, yt).rounded is rounded


def test_zeros_are_constant_and_exact():
    _, y, _, yt = data()
    assert not fit_probe(torch.zeros(len(y), 3), y, torch.zeros(len(yt), 3), yt).rounded


def test_a_class_missing_in_training_is_always_wrong():
    x, y, xt, yt = data()
    y = y.where(y != 3, torch.zeros_like(y))
    fit = fit_probe(x, y, xt, yt)
    assert fit.status is Status.CONVERGED
    assert fit.weight.shape == (4, 10) and fit.bias[3] == float("-inf")
    assert fit.test_error_rate >= float((yt == 3).double().mean())
    assert math.isinf(fit.test_cross_entropy)


@pytest.mark.parametrize(("n", "d", "k"), [(30, 200, 3), (300, 1, 2), (12, 4, 6), (400, 20, 100)])
def test_odd_shapes_converge(n, d, k):
    generator = torch.Generator().manual_seed(n)
    x, xt = torch.randn(n, d, generator=generator), torch.randn(20, d, generator=generator)
    y = torch.arange(n) % k
    order = holdout_order(y, 1 / 6, generator)
    fit = fit_probe(x[order], y[order], xt, torch.arange(20) % k)
    assert fit.status is Status.CONVERGED and fit.duality_gap <= 1e-4


def test_duplicated_columns_and_heavy_imbalance_converge():
    x, y, xt, yt = data()
    y = torch.where(torch.arange(len(y)) % 60 == 0, y, torch.zeros_like(y))
    fit = fit_probe(torch.cat([x, x, x], 1), y, torch.cat([xt, xt, xt], 1), yt)
    assert fit.status is Status.CONVERGED


def test_the_solver_cannot_certify_itself(monkeypatch):
    """A solver that lies about its gap is found out, retried and then reported."""
    x, y, xt, yt = data()
    honest = SubsampledNewton.solve

    def lying(self, l2, **kwargs):
        solution = honest(self, l2, **{**kwargs, "tol": 1.0})
        return replace(solution, duality_gap=0.0, status=Status.CONVERGED)

    monkeypatch.setattr(SubsampledNewton, "solve", lying)
    fit = fit_probe(x, y, xt, yt)
    assert fit.status is Status.PRECISION_LIMIT and fit.duality_gap > 1e-4


def test_pass_budget_is_reported():
    x, y, xt, yt = data()
    fit = fit_probe(x, y, xt, yt, ProbeConfig(l2_path=(1e-6,), max_passes=1, tol=1e-12))
    assert fit.status is Status.MAX_PASSES_REACHED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": lambda x: x.long()}, "expected floating point"),
        ({"x": lambda x: x[:, None]}, "flatten or pool"),
        ({"x": lambda x: x[:, :0]}, "flatten or pool"),
        ({"y": lambda y: y[:-1]}, "one class number for each sample"),
        ({"y": lambda y: y - 1}, "class numbers from 0 on"),
        ({"xt": lambda x: x[:, 1:]}, "train features have 10 columns, test features 9"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    names = dict(zip(("x", "y", "xt", "yt"), data(), strict=True))
    for name, function in change.items():
        names[name] = function(names[name])
    with pytest.raises(LinprobeError, match=message):
        fit_probe(*names.values())


def test_one_penalty_has_no_edge_and_needs_no_held_out_row():
    x, y, _, _ = data()
    fit = SoftmaxProbe(ProbeConfig(1e-3)).fit(DenseFeatures(x), Targets(y, 4, 0))
    assert fit.status is Status.CONVERGED and fit.l2 == 1e-3 and not fit.l2_at_edge
    assert math.isnan(fit.validation_error_rate)
    with pytest.raises(LinprobeError, match="no training row is held out to choose between 2"):
        SoftmaxProbe(ProbeConfig((1e-2, 1e-3))).fit(DenseFeatures(x), Targets(y, 4, 0))


def test_the_probe_is_tested_when_the_test_split_is_at_hand():
    x, y, xt, yt = data()
    fit = SoftmaxProbe().fit(DenseFeatures(x), Targets(y, 4, 100))
    assert fit.test is None and "bounds" not in repr(fit)
    with pytest.raises(LinprobeError, match=r"not been tested.*call tested\(features, labels\)"):
        _ = fit.test_error_rate
    tested, whole = fit.tested(xt, yt), fit_probe(x, y, xt, yt)
    assert tested.test == whole.test and tested.bounds is None
    assert torch.equal(tested.test_logits, whole.test_logits)
    assert tested.seconds > fit.seconds > 0
    xt[0, 0] = torch.nan
    with pytest.raises(LinprobeError, match=r"test features hold NaN or infinity.*all_finite"):
        fit.tested(xt, yt)


def test_prepared_features_serve_several_fits():
    x, y, _, _ = data()
    method = SoftmaxProbe()
    prepared = method.prepare(DenseFeatures(x.clone(), owned=True))
    fits = [method.fit(rows, Targets(y, 4, 100)) for rows in (prepared, prepared, DenseFeatures(x))]
    assert method.prepare(prepared) is prepared
    for fit in fits[1:]:
        assert torch.equal(fit.weight, fits[0].weight)


def test_any_solver_can_be_passed_in():
    x, y, xt, yt = data(n=240, d=5, dtype=torch.float64)
    seen = []

    def reference(problem, options):
        seen.append(problem)
        return ReferenceNewton(problem, options)

    config, targets = ProbeConfig((1e-1, 1e-2, 1e-3), tol=1e-9), Targets(y, 4, 40)
    fit = SoftmaxProbe(config, reference).fit(DenseFeatures(x), targets).tested(xt, yt)
    usual = fit_probe(x, y, xt, yt, config)
    assert len(seen) == 2 and fit.status is Status.CONVERGED and fit.l2 == usual.l2
    assert fit.objective == pytest.approx(usual.objective, abs=2e-9)
    assert not torch.equal(fit.weight, usual.weight), "the usual solver should not have been taken"


def test_features_are_solved_in_float64_only_where_they_are():
    x, y, _, _ = data(dtype=torch.float64)
    assert SoftmaxProbe().prepare(DenseFeatures(x)).dtype == torch.float64
    problems = []

    def spy(problem, options):
        problems.append(problem.dtype)
        return SubsampledNewton(problem, options)

    SoftmaxProbe(solver=spy).fit(DenseFeatures(x), Targets(y, 4, 100))
    assert set(problems) == {torch.float64}
    for half in (torch.float16, torch.bfloat16):
        prepared = SoftmaxProbe().prepare(DenseFeatures(x.to(half), owned=True))
        assert prepared.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_that_of_its_float32_copy(dtype):
    x, y, xt, yt = data()
    x, xt = x.to(dtype), xt.to(dtype)
    fit, copy = fit_probe(x, y, xt, yt), fit_probe(x.float(), y, xt.float(), yt)
    assert torch.equal(fit.weight, copy.weight) and fit.test == copy.test


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_the_users_arrays_are_not_written_to(dtype):
    splits = [part.numpy().copy() for part in data(d=40)]
    splits = [part.astype(dtype) if part.dtype.kind == "f" else part for part in splits]
    bytes_before = [part.tobytes() for part in splits]
    for part in splits:
        part.flags.writeable = False
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        tensors = [torch.from_numpy(part) for part in splits]
    fit = fit_probe(*tensors)
    assert fit.status is Status.CONVERGED
    s = fit.standardisation
    weight, bias = fit.weight / s.scale, fit.bias + fit.weight @ s.mean
    certify(*tensors[:2], weight, bias, fit.l2, standardisation=s)
    assert [part.tobytes() for part in splits] == bytes_before


def test_a_class_only_in_held_out_rows_is_refused():
    x, y, xt, yt = data()
    y[:] = torch.arange(len(y)) % 3
    y[-1] = 3
    with pytest.raises(LinprobeError, match="holdout_order"):
        fit_probe(x, y, xt, yt)


def test_optimum_error_interval_closes_with_the_tolerance():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(900) % 3
    features = torch.randn(900, 10, generator=generator)
    features[torch.arange(900), labels] += 1.5
    found = []
    for tol in (1e-3, 1e-6, 1e-10):
        config = ProbeConfig(l2_path=(1e-1, 1e-2, 1e-3), tol=tol, exact=False)
        train, test = features[:600].double(), features[600:].double()
        fit = fit_probe(train, labels[:600], test, labels[600:], config)
        assert fit.test_logits.shape == (3, 300)
        wrong = fit.test_logits.argmax(0) != labels[600:]
        assert float(wrong.double().mean()) == fit.test_error_rate
        assert fit.optimum_error.low <= fit.test_error_rate <= fit.optimum_error.high
        found.append(fit.optimum_error)
    assert found[0].num_undecided > found[1].num_undecided > found[2].num_undecided
    assert found[2].high - found[2].low <= 0.01
    assert found[0].low <= found[2].low <= found[2].high <= found[0].high


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_probe_has_the_error_of_the_exact_optimum(dtype):
    """Also at a tolerance that leaves samples open."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(900) % 3
    features = torch.randn(900, 30, generator=generator, dtype=torch.float64)
    features[torch.arange(900), labels] += 1.5
    x, xt = features.to(dtype).split([600, 300])
    y, yt = labels.split([600, 300])
    loose = fit_probe(x, y, xt, yt, ProbeConfig(1e-5, tol=1e-2, exact=False))
    exact = fit_probe(x, y, xt, yt, ProbeConfig(1e-5, tol=1e-2))
    assert loose.optimum_error.num_undecided > 5
    assert exact.optimum_error.num_undecided == 0
    assert exact.optimum_error.low == exact.test_error_rate
    assert (exact.polish, exact.bounds) == (None, None)
    standard = (x.double() - loose.standardisation.mean) * loose.standardisation.scale
    _, weight, bias = reference_optimum(standard, y, 3, 1e-5)
    raw, offset = loose.standardisation.to_raw(torch.from_numpy(weight), torch.from_numpy(bias))
    wrong = (xt.double() @ raw.T + offset).argmax(1) != yt
    assert exact.test_error_rate == float(wrong.double().mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_polishing_ends_with_a_sample_on_the_boundary(dtype):
    """Rows and their mirror images: the optimum answers zero with a margin of zero."""
    generator = torch.Generator().manual_seed(1)
    half = torch.randn(200, 10, generator=generator).to(dtype) + 0.3
    x, y = torch.cat([half, -half]), torch.arange(400) // 200
    test = torch.zeros(3, 10, dtype=dtype)
    test[1:] = torch.tensor([[3.0], [-3.0]])
    fit = fit_probe(x, y, test, torch.tensor([0, 0, 1]), ProbeConfig(1e-3))
    assert fit.status is Status.CONVERGED
    # In float32 the rounding of the mean decides.
    assert fit.optimum_error.num_undecided == (1 if dtype == torch.float64 else 0)
    few = ProbeConfig(1e-3, max_passes=5, tol=1.0)
    passes = fit_probe(x, y, test, torch.tensor([0, 0, 1]), few).num_passes
    assert passes < 2 * 5 + 5  # twice as many for exactness, and those of the path


def test_optimum_error_with_a_class_that_training_lacks():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(300) % 3
    features = torch.randn(300, 10, generator=generator, dtype=torch.float64)
    features[torch.arange(300), labels] += 1.5
    two = labels < 2
    fit = fit_probe(features[two], labels[two], features.clone(), labels, ProbeConfig(tol=1e-9))
    assert fit.optimum_error.low >= 1 / 3
    assert fit.optimum_error.low <= fit.test_error_rate <= fit.optimum_error.high < 0.75


def test_labels_need_not_be_contiguous():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(100, 3, generator=generator)
    labels = torch.arange(100) % 2
    strided = torch.stack([labels, labels], dim=1)[:, 0]
    assert not strided.is_contiguous()
    config = ProbeConfig(l2_path=(1e-1, 1e-2))
    probes = [fit_probe(features.clone(), y, features, y, config) for y in (labels, strided)]
    torch.testing.assert_close(probes[0].weight, probes[1].weight)

"""Hard problems converge or say exactly why not, and nothing makes the certificate lie."""

import math
from dataclasses import replace

import pytest
import torch

from linprobe import (
    LinprobeError,
    ProbeConfig,
    certify,
    fit_probe,
    fit_probes,
    holdout_order,
)
from linprobe.core import duals
from linprobe.core.features import Standardisation
from linprobe.core.problem import SoftmaxRegression
from linprobe.core.solvers.base import Status
from linprobe.core.solvers.newton import SubsampledNewton
from linprobe.core.solvers.reference import ReferenceNewton
from tests.support.cases import Case, make_case
from tests.support.options import grouped
from tests.support.reference import reference_optimum

TOL = 1e-4
TINY = 1e-9


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _noise(n, d, seed=0):
    return torch.randn(n, d, generator=_generator(seed), dtype=torch.float64)


def _rank_deficient():
    case = make_case("rank", 300, 5, 3)
    mixed = case.features @ _noise(5, 40)
    return replace(case, name="rank deficient", features=mixed)


def _constant_columns():
    case = make_case("constant", 300, 5, 3)
    columns = torch.tensor([0.0, 1.0, -1e3], dtype=torch.float64).expand(300, 3)
    return replace(case, name="constant columns", features=torch.cat([case.features, columns], 1))


def _duplicated_rows():
    case = make_case("rows", 60, 6, 3)
    return Case("duplicated rows", case.features.repeat(6, 1), case.labels.repeat(6), 3)


def _contradicting_rows():
    case = make_case("contradiction", 150, 6, 3)
    labels = torch.cat([case.labels, (case.labels + 1) % 3])
    return Case("same rows, other labels", case.features.repeat(2, 1), labels, 3)


def _imbalanced():
    case = make_case("imbalance", 600, 6, 3)
    labels = torch.zeros(600, dtype=torch.int64)
    labels[:2], labels[2:4] = 1, 2
    return Case("597 of 600 in one class", case.features, labels, 3)


def _outlier():
    case = make_case("outlier", 300, 5, 3)
    features = case.features.clone()
    features[7] *= 1e6
    return replace(case, name="one row a million times as long", features=features)


def _missing_class():
    case = make_case("missing", 300, 5, 4)
    return replace(case, name="missing class", labels=case.labels.where(case.labels != 2, 1))


def _many_classes():
    labels = torch.arange(3000) % 1000
    features = _noise(1000, 12)[labels] + 0.1 * _noise(3000, 12, 1)
    return Case("a thousand classes", features, labels, 1000)


CASES = [
    make_case("separable", 200, 20, 4, noise=0.0),
    make_case("two classes, separable", 300, 6, 2, noise=0.0),
    make_case("fewer samples than features", 40, 120, 3),
    make_case("one feature", 300, 1, 3),
    make_case("variances over 15 decades", 400, 16, 4, decay=6.0),
    _rank_deficient(),
    _constant_columns(),
    _duplicated_rows(),
    _contradicting_rows(),
    _imbalanced(),
    _outlier(),
]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def split(case, dtype=torch.float32):
    """Raw rows in held-out order, and a few of them as test rows."""
    order = holdout_order(case.labels, 1 / 6, _generator())
    features = case.features.to(dtype)
    return features[order], case.labels[order], features[::7], case.labels[::7].contiguous()


def true_excess(features, labels, k, l2, objective):
    """How far an objective is above the optimum found by exact Newton in float64."""
    problem = SoftmaxRegression(features.double(), labels, k)
    best = ReferenceNewton(problem).solve(l2, tol=1e-10, max_passes=4000)
    assert best.duality_gap <= 1e-6, "the optimum to compare with is itself not exact"
    return objective - best.objective


@each_case
def test_probe_of_raw_features_converges(case):
    x, y, xt, yt = split(case)
    fit = fit_probe(x, y, xt, yt)
    Standardisation.fit_(x)
    assert fit.status is Status.CONVERGED and fit.duality_gap <= TOL
    assert all(math.isfinite(p.duality_gap) for p in fit.path)
    assert true_excess(x, y, case.num_classes, fit.l2, fit.objective) <= fit.duality_gap + 1e-9


@each_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tiny_penalty_converges_or_says_why_not(case, dtype):
    features = case.features.to(dtype)
    Standardisation.fit_(features)
    problem = SoftmaxRegression(features, case.labels, case.num_classes)
    solver, starts = SubsampledNewton(problem), ()
    for exponent in range(1, 10):
        solution = solver.solve(10.0**-exponent, tol=TOL, max_passes=300, starts=starts)
        starts = (solution.point, *starts[:1])
    point = solution.point
    certificate = certify(features, case.labels, point.weight, point.bias, TINY)
    excess = true_excess(features, case.labels, case.num_classes, TINY, certificate.objective)
    assert excess <= certificate.duality_gap + 1e-9
    if dtype == torch.float64:
        assert solution.status is Status.CONVERGED and certificate.duality_gap <= TOL
    else:
        assert solution.status in (Status.CONVERGED, Status.PRECISION_LIMIT)
        assert math.isfinite(certificate.duality_gap)


@each_case
def test_one_tiny_penalty_through_the_protocol(case):
    """From cold, in float32: the refit goes on in float64 by itself."""
    x, y, xt, yt = split(case)
    fit = fit_probe(x, y, xt, yt, ProbeConfig(l2_path=(TINY,)))
    assert (fit.status is Status.CONVERGED) == (fit.duality_gap <= TOL)
    assert fit.status in (Status.CONVERGED, Status.PRECISION_LIMIT, Status.MAX_PASSES_REACHED)
    assert not fit.l2_at_edge, "there was nothing to choose from"
    Standardisation.fit_(x)
    assert true_excess(x, y, case.num_classes, TINY, fit.objective) <= fit.duality_gap + 1e-9


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
@pytest.mark.parametrize("case", CASES[:6:2], ids=lambda case: case.name)
def test_scale_of_the_features_changes_nothing(case, scale):
    x, y, xt, yt = split(case)
    plain = fit_probe(x.clone(), y, xt, yt)
    scaled = fit_probe(x * scale, y, xt * scale, yt)
    assert scaled.status is Status.CONVERGED and scaled.l2 == plain.l2
    assert scaled.objective == pytest.approx(plain.objective, abs=2 * TOL)
    raw = certify(
        x * scale,
        y,
        scaled.weight / scaled.standardisation.scale,
        scaled.bias + scaled.weight @ scaled.standardisation.mean,
        scaled.l2,
        standardisation=scaled.standardisation,
    )
    assert raw.duality_gap <= 2 * TOL, "the saved probe must hold on the raw features"


@pytest.mark.slow
def test_a_thousand_classes():
    case = _many_classes()
    x, y, xt, yt = split(case)
    fit = fit_probe(x, y, xt, yt, ProbeConfig(l2_path=(1e-2, 1e-3), exact=False))
    assert fit.status is Status.CONVERGED and fit.weight.shape == (1000, 12)
    assert fit.train_cross_entropy < math.log(1000)


def test_a_missing_class_is_never_predicted():
    case = _missing_class()
    x, y, xt, yt = split(case)
    yt = yt.clone()
    yt[0] = 2
    fit = fit_probe(x, y, xt, yt, num_classes=4)
    assert fit.status is Status.CONVERGED
    assert fit.bias[2] == float("-inf") and bool((fit.test_logits.argmax(0) != 2).all())
    assert fit.test_cross_entropy == math.inf and fit.test_error_rate > 0


def test_the_same_features_through_fit_probes():
    """The public function, on everything at once that shares its labels."""
    case = make_case("public", 300, 6, 3)
    flat = torch.full((300, 4), 0.3, dtype=torch.float64)
    train = {
        "plain": case.features,
        "tiny": case.features * 1e-30,
        "huge": case.features * 1e30,
        "rank": case.features @ _noise(6, 50),
        "constant": flat,
        "one": case.features[:, :1],
        "wide": torch.cat([case.features, 1e-3 * _noise(300, 400)], 1),
        "broken": case.features.where(case.features < 0.3, torch.nan),
    }
    train = {name: x.float() for name, x in train.items()}
    report = fit_probes(
        *(train, case.labels, ({n: x[:50] for n, x in train.items()}, case.labels[:50])),
        **grouped(l2=1e-3),
    )
    records = {name: report[name].record for name in report}
    broken = records.pop("broken")
    assert broken.status == Status.NONFINITE_FEATURES and math.isnan(broken.duality_gap)
    assert {record.status for record in records.values()} == {Status.CONVERGED}
    assert all(record.duality_gap <= TOL for record in records.values())
    for name in ("tiny", "huge"):
        assert records[name].objective == pytest.approx(records["plain"].objective, abs=2 * TOL)


def test_one_sample_a_class_is_refused_with_the_reason():
    x = _noise(6, 3).float()
    y = torch.arange(6)
    with pytest.raises(LinprobeError, match="stands only once"):
        fit_probes({"x": x}, y, ({"x": x}, y))
    with pytest.raises(LinprobeError, match="held-out rows only"):
        fit_probe(x.clone(), y, x, y)


def test_one_sample_a_class_is_solved():
    case = Case("singletons", _noise(8, 3), torch.arange(8), 8)
    Standardisation.fit_(case.features)
    problem = SoftmaxRegression(case.features, case.labels, 8)
    for l2 in (1e-1, 1e-5):
        solution = SubsampledNewton(problem).solve(l2, tol=1e-8, max_passes=500)
        assert solution.status is Status.CONVERGED
        value, _, _ = reference_optimum(case.features, case.labels, 8, l2)
        assert solution.objective == pytest.approx(value, abs=1e-7)


# The certificate


def optimum(case, l2):
    value, weight, bias = reference_optimum(case.features, case.labels, case.num_classes, l2)
    return value, torch.from_numpy(weight), torch.from_numpy(bias)


def _wrong_bias(x, y, w, b):
    return x, w, b + torch.linspace(-3, 3, len(b), dtype=b.dtype)


def _huge_bias(x, y, w, b):
    return x, w, b + 1e6 * torch.eye(len(b), dtype=b.dtype)[0]


def _no_weight(x, y, w, b):
    return x, torch.zeros_like(w), torch.zeros_like(b)


def _huge_weight(x, y, w, b):
    return x, w * 1e6, b


def _endless_weight(x, y, w, b):
    return x, w + 1e150, b


def _one_wrong_entry(x, y, w, b):
    w = w.clone()
    w[0, 0] += 10
    return x, w, b


def _other_sign(x, y, w, b):
    return x, -w, b


def _permuted_classes(x, y, w, b):
    return x, w.roll(1, 0), b.roll(1)


def _equal_shift(x, y, w, b):
    """Adding one vector to all rows changes no prediction, but the penalty."""
    return x, w + 3.0, b


def _float16(x, y, w, b):
    return x, w.half(), b.half()


def _altered_features(x, y, w, b):
    return x + 0.5 * _noise(*x.shape, 5), w, b


def _shifted_features(x, y, w, b):
    return x + 100.0, w, b


def _swapped_rows(x, y, w, b):
    return x.flip(0), w, b


TRICKS = [
    _wrong_bias,
    _huge_bias,
    _no_weight,
    _huge_weight,
    _endless_weight,
    _one_wrong_entry,
    _other_sign,
    _permuted_classes,
    _equal_shift,
    _float16,
    _altered_features,
    _shifted_features,
    _swapped_rows,
]
FOOLED = [make_case("fool", 200, 5, 3), make_case("fool separable", 120, 8, 3, noise=0.0)]


@pytest.mark.parametrize("l2", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("case", FOOLED, ids=lambda case: case.name)
@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__.strip("_"))
def test_the_certificate_can_not_be_fooled(trick, case, l2):
    """Whatever is handed in, the gap covers the distance to an independent optimum."""
    _, weight, bias = optimum(case, l2)
    features, weight, bias = trick(case.features, case.labels, weight, bias)
    altered = replace(case, features=features)
    best = optimum(altered, l2)[0] if features is not case.features else optimum(case, l2)[0]
    found = certify(features, case.labels, weight, bias, l2)
    assert not found.duality_gap < found.objective - best - 1e-9 * max(1.0, abs(found.objective))
    if found.objective - best > TOL:
        assert not found.duality_gap <= TOL


@pytest.mark.parametrize("seed", range(5))
def test_random_points_never_look_better_than_they_are(seed):
    case = FOOLED[seed % 2]
    draws = _generator(seed)
    for l2 in (1e-1, 1e-4, 1e-7):
        best, weight, bias = optimum(case, l2)
        for size in 10.0 ** torch.arange(-6.0, 5.0):
            w = weight + size * torch.randn(weight.shape, generator=draws, dtype=weight.dtype)
            b = bias + size * torch.randn(bias.shape, generator=draws, dtype=bias.dtype)
            found = certify(case.features, case.labels, w, b, l2)
            assert found.duality_gap >= found.objective - best - 1e-9


def test_a_bias_that_is_not_found_is_made_good_for(monkeypatch):
    """The bound holds at any bias that the search for the best one may end with."""
    case = FOOLED[0]
    best, weight, bias = optimum(case, 10.0)
    for steps in (0, 1, 2, 1000):
        monkeypatch.setattr(duals, "_MAX_BIAS_STEPS", steps)
        for shift in (0.0, 1.0, 30.0):
            shifted = bias + shift * torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64)
            found = certify(case.features, case.labels, 0.1 * weight, shifted, 10.0)
            assert found.duality_gap >= found.objective - best
            assert found.duality_gap > 0.01 * shift


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["weight", "bias", "features"])
def test_nothing_nonfinite_is_certified(where, bad):
    case = FOOLED[0]
    _, weight, bias = optimum(case, 1e-3)
    given = {"features": case.features, "weight": weight, "bias": bias}
    given[where] = given[where].clone(memory_format=torch.contiguous_format)
    given[where].view(-1)[1] = bad
    found = certify(given["features"], case.labels, given["weight"], given["bias"], 1e-3)
    assert found.duality_gap == math.inf


@pytest.mark.parametrize("l2", [1e-3, 1e-7])
def test_rounding_the_weights_is_seen(l2):
    """A float32 copy of an exact probe has the gap that its rounding earns, and no less."""
    case = make_case("rounded", 300, 12, 4, noise=0.2)
    best, weight, bias = optimum(case, l2)
    exact = certify(case.features, case.labels, weight, bias, l2)
    for dtype in (torch.float32, torch.bfloat16):
        low = certify(case.features, case.labels, weight.to(dtype), bias.to(dtype), l2)
        assert low.duality_gap >= low.objective - best - 1e-12
        assert low.duality_gap > exact.duality_gap


def test_features_altered_after_the_solve_are_found_out():
    case = make_case("altered", 300, 6, 3)
    x, y, xt, yt = split(case)
    fit = fit_probe(x, y, xt, yt)
    scale, mean = fit.standardisation.scale, fit.standardisation.mean
    weight, bias = fit.weight / scale, fit.bias + fit.weight @ mean
    assert certify(x, y, weight, bias, fit.l2).duality_gap <= TOL
    for change in (x * 1.1, x + 0.3 * x.roll(1, 1), x.flip(0), x.roll(1, 0)):
        assert certify(change, y, weight, bias, fit.l2).duality_gap > TOL
    assert certify(x, y.flip(0), weight, bias, fit.l2).duality_gap > TOL
    assert certify(x, y, weight, bias, fit.l2 / 10).duality_gap > TOL

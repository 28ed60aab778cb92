"""What a trained probe is worth: errors of its own weights, and a bound that holds."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from linprobe.core.certificate import certify
from linprobe.core.features import DenseFeatures
from linprobe.core.solvers.base import Status
from linprobe.probes.base import FailedProbe, Targets
from linprobe.probes.config import ProbeConfig
from linprobe.probes.given import TrainedProbe, certify_trained
from linprobe.probes.softmax import fit_probe

K, NUM_FIT, L2 = 3, 100, 1e-3


@pytest.fixture
def splits():
    source = torch.Generator().manual_seed(2)
    x = 7 + 1e-3 * torch.randn(180, 5, generator=source)
    y = (x[:, :K] + 1e-3 * torch.randn(180, K, generator=source)).argmax(1)
    return x[:130], y[:130], x[130:], y[130:]


def trained(scale=100.0, **changes):
    weight = scale * torch.eye(K, 5, dtype=torch.float64)
    bias = torch.tensor([0.1, -0.1, 0.0], dtype=torch.float64)
    return TrainedProbe(weight, bias, **({"status": Status.EARLY_STOP, "epochs": 7} | changes))


def evaluated(probe, splits, tol=1e-4):
    train, labels, test, test_labels = (x.clone() for x in splits)
    targets = Targets(labels, K, len(labels) - NUM_FIT)
    fitted = certify_trained(probe, DenseFeatures(train), targets, L2, tol)
    return fitted if isinstance(fitted, FailedProbe) else fitted.tested(test, test_labels)


def test_errors_are_those_of_the_given_weights_on_raw_features(splits):
    probe = trained(seconds=2.0)
    found = evaluated(probe, splits)
    assert torch.equal(found.weight, probe.weight)
    assert torch.equal(found.bias, probe.bias)
    rows = {
        "train": (splits[0][:NUM_FIT], splits[1][:NUM_FIT]),
        "validation": (splits[0][NUM_FIT:], splits[1][NUM_FIT:]),
        "test": splits[2:],
    }
    for name, (x, y) in rows.items():
        logits = x.double() @ probe.weight.T + probe.bias
        loss = float(nn.functional.cross_entropy(logits, y))
        # The training split is evaluated on its standardised form, which is float32.
        assert getattr(found, f"{name}_cross_entropy") == pytest.approx(loss, rel=1e-5)
        error = float((logits.argmax(1) != y).double().mean())
        assert getattr(found, f"{name}_error_rate") == error
    assert found.test_logits.shape == (K, 50)
    assert (found.status, found.num_passes) == (Status.EARLY_STOP, 7)
    assert (found.l2, found.l2_at_edge, found.path, found.optimum_error) == (L2, False, (), None)
    assert found.seconds > 2


def test_certificate_is_that_of_the_standardised_problem(splits):
    probe = trained(seconds=0.0)
    found = evaluated(probe, splits)
    scale, mean = found.standardisation.scale, found.standardisation.mean
    again = certify(
        *(splits[0][:NUM_FIT].double(), splits[1][:NUM_FIT], probe.weight / scale),
        *(probe.bias + probe.weight @ mean, L2),
        standardisation=found.standardisation,
    )
    for name in ("objective", "duality_gap", "grad_norm"):
        assert getattr(found, name) == pytest.approx(getattr(again, name), rel=1e-4)
    assert found.bias_residual == pytest.approx(again.bias_residual, rel=1e-4)
    optimum = fit_probe(
        *(splits[0][:NUM_FIT].clone(), splits[1][:NUM_FIT], *splits[2:]),
        ProbeConfig(l2_path=(L2,), tol=1e-9),
    )
    distance = found.objective - optimum.objective
    assert 0 < distance <= found.duality_gap


def test_a_probe_that_happens_to_be_optimal_is_converged(splits):
    rows = slice(0, NUM_FIT)
    optimum = fit_probe(
        *(splits[0][rows].clone(), splits[1][rows], *splits[2:]),
        ProbeConfig(l2_path=(L2,), tol=1e-7),
    )
    probe = replace(trained(seconds=0.0), weight=optimum.weight, bias=optimum.bias)
    found = evaluated(probe, splits)
    assert found.status is Status.CONVERGED
    assert found.duality_gap <= 1e-4
    assert evaluated(probe, splits, tol=1e-30).status is Status.EARLY_STOP


def test_nothing_is_known_of_a_probe_that_diverged(splits):
    nan = torch.full((K, 5), torch.nan, dtype=torch.float64)
    probe = replace(trained(seconds=1.0, status=Status.DIVERGED), weight=nan, bias=nan[:, 0])
    found = evaluated(probe, splits)
    assert isinstance(found, FailedProbe)
    assert (found.status, found.seconds) == (Status.DIVERGED, 1.0)
    assert found.reason == "a weight was not finite; lower learning_rate"


def test_owned_features_are_standardised_in_place_and_others_are_not(splits):
    x, y = splits[:2]
    before = x.clone()
    for owned in (False, True):
        targets = Targets(y, K, len(y) - NUM_FIT)
        features = DenseFeatures(x, owned=owned)
        fitted = certify_trained(trained(seconds=0.0), features, targets, L2, 1e-4)
        assert torch.equal(x[:NUM_FIT], before[:NUM_FIT]) is not owned
        assert torch.equal(x[NUM_FIT:], before[NUM_FIT:])
        assert fitted.status is Status.EARLY_STOP

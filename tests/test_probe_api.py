"""`linprobe.probe` and `linprobe.fit_probes` on networks and data that are not ours."""

import pytest
import torch
from nets import ResNet, images
from torch import nn

import linprobe

PATH = (1e-1, 1e-2, 1e-3)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ResNet()


def probed(network, train, test, **options):
    return linprobe.probe(network, train, test, **{"l2": PATH, **options})


def test_probes_of_a_network_are_those_of_its_features(network):
    train, test = images(60), images(40, seed=1)
    report = probed(network, train, test, layers=["layer1", "fc"])
    features = [linprobe.Taps(network, ["layer1", "fc"])(x) for x, _ in (train, test)]
    flat, flat_test = ({k: v.flatten(1) for k, v in f.items()} for f in features)
    arrays = linprobe.fit_probes(flat, train[1], (flat_test, test[1]), l2=PATH)
    assert list(report) == ["layer1", "fc"] == list(arrays)
    for layer in report:
        assert report[layer].record.converged
        torch.testing.assert_close(report[layer].weight, arrays[layer].weight)
        logits = report[layer].linear()(flat_test[layer])
        rate = float((logits.argmax(1) != test[1]).float().mean())
        assert rate == pytest.approx(report[layer].record.test_error_rate)


def test_report_survives_a_folder(network, tmp_path):
    report = probed(network, images(60), images(40, seed=1), layers="*", reduce="random:20")
    report.save(tmp_path)
    again = linprobe.load_report(tmp_path)
    assert str(again) == str(report)
    assert again.run.checkpoints[0].probes == report.run.checkpoints[0].probes
    assert again.run.checkpoints[0].steps == report.run.checkpoints[0].steps
    x = torch.randn(2, *linprobe.layers(network, images(2)[0])["layer1"].shape[1:])
    for layer in report:
        assert torch.equal(again[layer].weight, report[layer].weight)
        assert torch.equal(again[layer].predictions.predicted, report[layer].predictions.predicted)
    assert torch.equal(again["layer1"].features(x), report["layer1"].features(x))
    with pytest.raises(linprobe.LinprobeError, match="already holds a run"):
        report.save(tmp_path)


def test_network_is_left_as_it_was(network):
    network.train()
    network.fc.eval()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    before = torch.random.get_rng_state()
    probed(network, images(30), images(30, seed=1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert network.layer1.training and not network.fc.training
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_a_linear_network_is_a_layer():
    report = probed(nn.Linear(64, 5), *[(x.flatten(1), y) for x, y in (images(30), images(9))])
    assert list(report) == [""] and report[""].record.num_features == 5
    assert "(output)" in str(report)

"""Controls and codes as options of `probe` and `fit_probes`."""

import pytest
import torch
from torch import nn

import linprobe
from linprobe.records.store import load_run
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.randomness import seeded
from tests.support.options import grouped

ALL = ("shuffled_labels", "control_task", "untrained", "random_features", "input", "majority")
L2 = (1e-1, 1e-2, 1e-3)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (480,), generator=generator)
    images = torch.randn(480, 1, 6, 6, generator=generator)
    images[torch.arange(480), 0, 0, labels] += 3.0
    return (images[:360], labels[:360]), (images[360:], labels[360:])


def network():
    with seeded(0):
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))


@pytest.fixture(scope="module")
def report(data):
    return linprobe.probe(
        *(network(), *data),
        layers=["0", "1"],
        seed=3,
        **grouped(l2=L2, controls=ALL, repeats=2, mdl=True),
    )


def test_every_control_is_there(report):
    controls = report.run.checkpoints[0].controls
    found = [(c.name, c.layer, c.repeat, c.seed) for c in controls]
    drawn = ("shuffled_labels", "control_task", "random_features")
    assert found == [
        *((name, layer, i, 3 + i) for layer in "01" for name in drawn for i in (0, 1)),
        *(("untrained", layer, 0, 3) for layer in "01"),
        *(("input", None, 0, None), ("majority", None, 0, None)),
    ]
    assert [c for c in controls if c.layer == "0"][:6] == list(report["0"].controls)
    shuffled = [c.test_error_rate for c in controls if c.name == "shuffled_labels"]
    assert min(shuffled) > 0.4
    assert controls[-2].test_error_rate < 0.3
    assert controls[-1].test_error_rate == pytest.approx(2 / 3, abs=0.1)
    assert report.run.config.controls.names == tuple(ALL)


def test_codes_are_there(report):
    for probe in report.values():
        code = probe.record.evaluation.mdl
        assert sum(count for count, _ in code.blocks) == 360
        assert code.compression > 1


def test_controls_change_no_probe(report, data):
    plain = linprobe.probe(network(), *data, layers=["0", "1"], seed=3, **grouped(l2=L2))
    for layer, probe in plain.items():
        assert torch.equal(probe.weight, report[layer].weight)
        assert probe.record.test_error_rate == report[layer].record.test_error_rate
        assert probe.controls == ()
    assert plain.run.checkpoints[0].controls == ()


def test_untrained_network_is_another_one_and_the_given_one_stays(report, data):
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    again = linprobe.probe(
        net, *data, layers=["0"], seed=3, **grouped(l2=L2, controls=["untrained"])
    )
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    (control,) = again.run.checkpoints[0].controls
    known = [c for c in report.run.checkpoints[0].controls if c.name == "untrained"]
    assert control == known[0]
    assert control.duality_gap != again["0"].record.duality_gap


class Counts(nn.Module):
    """Counts its forward passes; nothing draws its parameter."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))
        self.fc = nn.Linear(36, 3)
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        return self.fc(self.factor * x.flatten(1))


def untrained(net, data, layers="fc", **options):
    evaluation = linprobe.EvaluationOptions(**options)
    method = linprobe.ProbeConfig(l2_path=1e-1)
    report = linprobe.probe(net, *data, layers=layers, method=method, evaluation=evaluation)
    return report, [c for c in report.run.checkpoints[0].controls if c.name == "untrained"]


def test_an_untrained_network_that_can_not_be_is_refused_before_any_forward_pass(data):
    net = Counts()
    with pytest.raises(LinprobeError, match=r"1 parameter without an initialiser: 'factor'"):
        untrained(net, data, controls="untrained")
    assert net.passes == 0


def test_an_untrained_network_that_is_given_is_probed_and_left_as_it_was(data):
    net, given = Counts(), Counts().train()
    with torch.no_grad():
        given.fc.weight.zero_()
        given.fc.bias.zero_()
    report, controls = untrained(net, data, untrained=given, controls="majority")
    assert [c.layer for c in controls] == ["fc"]
    # All of its features are alike.
    assert controls[0].test_error_rate == report.run.checkpoints[0].controls[-1].test_error_rate
    assert "The control 'untrained' is the network that was given for it." in report.notes
    assert given.training and not given.fc.weight.any()
    _, again = untrained(net, data, untrained=lambda seed: given, controls="majority")
    assert again == controls


def test_the_untrained_network_is_probed_as_by_itself(data):
    """A control of a network's copy is the probe of a network that is made in the same way."""
    net = network()
    _, (control,) = untrained(net, data, layers="1", controls="untrained")
    with seeded(0):
        copy = network()
        for module in copy:
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
    report, _ = untrained(copy, data, layers="1")
    assert control.test_error_rate == report["1"].record.test_error_rate
    assert control.duality_gap == report["1"].record.duality_gap


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (nn.Sequential(nn.Flatten()), "the untrained network can't be probed: .* no layer '3'"),
        (
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)),
            "the untrained network gives 4 features at layer '3', the network 3; expected the same",
        ),
    ],
)
def test_an_untrained_network_of_another_shape_is_refused(other, message, data):
    with pytest.raises(LinprobeError, match=message):
        untrained(network(), data, layers="3", untrained=other)


def test_untrained_is_a_network_or_a_function():
    with pytest.raises(
        LinprobeError, match="untrained is a str; expected a network, or a function"
    ):
        linprobe.EvaluationOptions(untrained="net")


def test_saved_reports_keep_their_controls(report, tmp_path):
    report.save(tmp_path / "run")
    (saved,), (made,) = load_run(tmp_path / "run").checkpoints, report.run.checkpoints
    assert saved.controls == made.controls
    assert saved.probes == made.probes
    loaded = linprobe.load_report(tmp_path / "run")
    assert report["1"].controls == loaded["1"].controls


def test_types_follow_their_samples(data):
    # Features that name the type: the control task is learned whatever the order of the rows.
    types = torch.arange(480) % 5
    features = torch.eye(5)[types]
    labels = data[0][1]
    made = linprobe.fit_probes(
        {"a": features[:360]},
        labels,
        ({"a": features[360:]}, data[1][1]),
        **grouped(l2=1e-4, controls="control_task", types=(types[:360].numpy(), types[360:])),
    )
    assert [c.test_error_rate for c in made["a"].controls] == [0.0] * 3
    wrong = linprobe.fit_probes(
        {"a": features[:360]},
        labels,
        ({"a": features[360:]}, data[1][1]),
        **grouped(l2=1e-4, controls="control_task", types=(types[:360].flip(0), types[360:])),
    )
    assert max(c.test_error_rate for c in wrong["a"].controls) > 0.2


def fit(**changes):
    x, y = torch.randn(30, 2, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 2
    return linprobe.fit_probes({"a": x}, y, ({"a": x}, y), **grouped(l2=1e-2, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"controls": ["mistake"]}, "there is no control 'mistake'; expected some of: shuffled"),
        ({"controls": ["untrained"]}, "control 'untrained' starts from a network"),
        ({"controls": ["control_task"]}, "start from the network's inputs, which are not known"),
        ({"controls": ["control_task"], "types": 3}, r"types is no pair; expected \(types of tr"),
        (
            {"controls": ["control_task"], "types": ([0] * 30, [0] * 29)},
            r"test types have shape \(29,\); expected \(30,\)",
        ),
        (
            {"controls": ["control_task"], "types": ([0.5] * 30, [0] * 30)},
            "train types have dtype float64; expected whole numbers",
        ),
        ({"controls": ["control_task"], "types": (["x"] * 30, [0] * 30)}, "train types can't be"),
    ],
)
def test_what_cannot_be_done_is_said(changes, message):
    with pytest.raises(LinprobeError, match=message):
        fit(**changes)


def test_majority_and_shuffled_labels_of_features_at_hand():
    found = fit(controls=["shuffled_labels", "majority"], mdl=True)
    controls = found.run.checkpoints[0].controls
    assert [c.name for c in controls] == ["shuffled_labels"] * 3 + ["majority"]
    assert controls[-1].test_error_rate == 0.5
    assert found["a"].record.evaluation.mdl.uniform_bits == pytest.approx(30)

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


def test_saved_reports_keep_their_controls(report, tmp_path):
    report.save(tmp_path / "run")
    (saved,), (made,) = load_run(tmp_path / "run").checkpoints, report.run.checkpoints
    assert saved.controls == made.controls
    assert saved.probes == made.probes
    loaded = linprobe.load_report(tmp_path / "run")
    assert set(report["1"].controls) < set(loaded["1"].controls)


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
            "train types have dtype float32; expected whole numbers",
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

"""The search for the training behind the published Figure 8."""

import json

import pytest
import torch
from torch import nn

from benchmarks import figure8_training, minibatch_probes
from benchmarks.figure8_candidates import DEPTH, Candidate, coarse, further, train
from benchmarks.figure8_table import BARS, STEPS, probe_table, published_bars, shift_table, table
from benchmarks.figure8_training import Extent
from benchmarks.minibatch_probes import NEAREST, SETTINGS, Listener, ProbeBank, train_at_rest
from linprobe.experiments.mlp_training import MLPTrainer, MLPTraining
from linprobe.probes.config import ProbeConfig
from linprobe.runtime.randomness import generator
from tests.support.tiny import tiny_dataset


@pytest.fixture
def small(monkeypatch):
    """Twelve layers instead of 128, two steps instead of 2,000."""
    monkeypatch.setattr(figure8_training, "DEPTH", 12)
    monkeypatch.setattr(figure8_training, "BARS", (0, 5, 6, 12))
    monkeypatch.setattr(figure8_training, "STEPS", (0, 1, 2))
    monkeypatch.setattr(figure8_training, "_PROBE", ProbeConfig(l2_path=(1e-2,)))
    monkeypatch.setattr(minibatch_probes, "AT_REST", (1, 3))
    return tiny_dataset()


def found_as(rates, network=0.1, until=2000, **settings):
    steps = {str(s): {"network": network, "probes": rates} for s in STEPS if s <= until}
    candidate = vars(Candidate("adam", 1e-4, **settings))
    return {"candidate": candidate, "bars": BARS, "steps": steps, "seconds": 1.0}


def test_candidates_differ_and_cover_what_the_search_is_about():
    candidates = [*coarse(), *further()]
    keys, labels = {one.key for one in candidates}, {one.label for one in candidates}
    assert len(keys) == len(labels) == len(candidates) >= 40
    for name in vars(candidates[0]):
        if name not in ("seed", "momentum"):
            assert len({getattr(one, name) for one in candidates}) > 1, name


def weights_after(steps, candidate, data, depth=4):
    network = candidate.network(depth)
    training = train(network, candidate, data)
    assert [next(training) for _ in range(steps)] == list(range(1, steps + 1))
    return nn.utils.parameters_to_vector(network.parameters()).detach()


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_plain_candidates_are_trained_as_reproduce_trains(optimizer):
    data, candidate = tiny_dataset(), Candidate(optimizer, 1e-2, 32, decay=0.5)
    network = candidate.network(4)
    training = MLPTraining(optimizer, 1e-2, batch_size=32, decay=0.5)
    images, labels = data.train_images, data.train_labels
    trainer = MLPTrainer(network, images, labels, training, generator(0, "training"))
    trainer.advance(12)
    expected = nn.utils.parameters_to_vector(network.parameters()).detach()
    assert torch.equal(weights_after(12, candidate, data), expected)


@pytest.mark.parametrize(
    "change",
    [
        {"slope": 0.9},
        {"seed": 1},
        {"gain": 2.0},
        {"bias": 0.1},
        {"skip": "input_mapped"},
        {"skip": "layer1"},
        {"skip": "layer1_added"},
        {"init": "normal"},
        {"init": "orthogonal"},
        {"momentum": 0.0},
        {"clip": 1e-3},
        {"warmup": 2},
    ],
)
def test_every_setting_makes_another_network(change):
    data = tiny_dataset()
    plain = weights_after(2, Candidate("sgd", 1e-2, 32), data)
    other = weights_after(2, Candidate("sgd", 1e-2, 32, **change), data)
    assert plain.shape != other.shape or not torch.equal(plain, other)


def test_initial_weights_are_of_the_named_kind():
    orthogonal = Candidate("adam", 1e-4, init="orthogonal", gain=2.0, bias=0.1).network(4)
    layer = orthogonal.get_submodule("layer2")[0]
    torch.testing.assert_close(layer.weight @ layer.weight.T, 4 * torch.eye(128), atol=1e-5, rtol=0)
    assert (layer.bias == 0.1).all()
    normal = (
        Candidate("adam", 1e-4, init="normal").network(4).get_submodule("layer2")[0].weight.detach()
    )
    assert float(normal.std()) == pytest.approx(128**-0.5, rel=0.02)
    assert float(normal.abs().max()) > 3 * 128**-0.5  # a uniform one ends at sqrt(3) deviations


def test_the_mapped_input_is_summed_with_the_hidden_units():
    network = Candidate("adam", 1e-4, skip="input_mapped").network(2)
    middle = network.get_submodule("layer2")[0]
    h, x = torch.randn(3, 128), torch.randn(3, 784)
    expected = (h + x @ middle.map.weight.T) @ middle.dense.weight.T
    torch.testing.assert_close(middle(torch.cat([h, x], 1)), expected)


def test_the_learning_rate_rises_and_falls():
    candidate = Candidate("adam", 1.0, 10, decay=0.5, warmup=4)
    assert [candidate.rate_at(step, 50) for step in (0, 1, 3, 4, 5)] == [0.25, 0.5, 1, 1, 0.5]


def test_a_candidate_is_trained_and_probed(small):
    settings = {"batch_size": 32, "gain": 2.0, "slope": 0.3}
    found = figure8_training.measure(Candidate("adam", 1e-3, **settings), small, Extent(2))
    assert found["candidate"] | settings == found["candidate"]
    assert list(found["steps"]) in (["0", "1"], ["0", "1", "2"])
    for step in found["steps"].values():
        assert len(step["probes"]) == 4 and all(0 <= rate <= 1 for rate in step["probes"])


def test_a_candidate_that_learns_nothing_is_given_up(small, monkeypatch):
    monkeypatch.setattr(figure8_training, "_LEARNED", -1.0)
    found = figure8_training.measure(Candidate("sgd", 1e-9, 32), small, Extent(2))
    assert list(found["steps"]) == ["0", "1"]
    assert Extent(2).is_met(found)


def test_probes_are_trained_by_minibatches_at_rest_and_along(small, monkeypatch):
    monkeypatch.setattr(figure8_training, "_LEARNED", 1.0)
    found = figure8_training.measure(Candidate("adam", 1e-3, 32), small, Extent(2, probes=True))
    kinds = {(one["start"], one["at_rest"], tuple(one["steps"])) for one in found["trained"]}
    every = ("0", "1", "2")
    assert kinds == {
        *(("cold", rest, steps) for rest in (1, 3) for steps in (("0",), every)),
        *(("warm", rest, every) for rest in (1, 3)),
    }
    nearest = [one for one in found["trained"] if one["probe"] == SETTINGS[NEAREST]]
    by_kind = {(one["start"], one["at_rest"]): one["steps"] for one in nearest}
    assert by_kind["warm", 1]["0"] == by_kind["cold", 1]["0"]
    assert by_kind["warm", 1]["2"] != by_kind["cold", 1]["2"]


def test_a_bank_learns_what_can_be_learned_and_keeps_its_stops():
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat(20)
    clean = nn.functional.one_hot(labels, 12).float()
    features = torch.stack([clean, torch.randn(200, 12, generator=draws)])
    first, last = train_at_rest(ProbeBank(2, 12), features, labels, (1, 200), 50)
    for rates in last.rates(features, labels)[1:]:
        assert rates[0] == 0 < rates[1]
    assert first.rates(features, labels) != last.rates(features, labels)
    assert last.only(1).rates(features, labels) == last.rates(features, labels)[1:2]


def test_listening_trains_on_the_networks_own_features_and_changes_nothing():
    data, candidate = tiny_dataset(), Candidate("adam", 1e-3, 32)
    network = candidate.network(4)
    bank, before = ProbeBank(2, 128), ProbeBank(2, 128)
    listener = Listener(network, ["layer1", "layer3"], [bank])
    for _ in zip(range(3), train(network, candidate, data, listener.seen), strict=False):
        pass
    listener.close()
    assert not any(module._forward_hooks for module in network.modules())
    weights = nn.utils.parameters_to_vector(network.parameters()).detach()
    assert torch.equal(weights, weights_after(3, candidate, data))
    assert not torch.equal(bank.weights[0], before.weights[0])


def test_the_table_puts_the_nearest_first_and_tells_the_halves_apart():
    bars = published_bars()
    assert {len(panel) for panel in bars.values()} == {DEPTH + 1}
    exact = [bars["2000"][bar] for bar in BARS]
    off = [rate + 0.25 * (bar >= 64) for bar, rate in zip(BARS, exact, strict=True)]
    found = {
        "far": found_as(off, seed=1),
        "screened": found_as(exact, until=500, skip="layer1"),
        "near": found_as(exact, seed=2),
    }
    near, far, screened = table(found, bars)[2:]
    assert near.startswith("| adam 0.0001, seed 2 | .100 | .100 |")
    assert near.endswith("| .000 | .000 | .000 |")
    assert "| .000 | .250 |" in far and not far.endswith("| .000 |")
    assert screened.startswith("| adam 0.0001, skip layer1 | .100 |  |")


def test_the_shift_is_that_of_the_halves():
    falling = [bar / 64 for bar in range(65)]
    lines = shift_table({"0": falling[:64] + falling[2:] + [0.0] * 2})
    assert [line.rsplit(" | ", 1)[1] for line in lines[2:]] == [
        ".031 |",
        ".016 |",
        ".000 |",
        ".016 |",
    ]


def test_only_optima_above_the_bars_are_too_high():
    bars = published_bars()
    low = found_as([0.0] * len(BARS))
    assert table({"low": low}, bars)[2].endswith("| .000 |")
    high = found_as([1.0] * len(BARS))
    expected = sum(1 - bars[str(step)][bar] for step in STEPS for bar in BARS) / 3 / len(BARS)
    assert table({"high": high}, bars)[2].endswith(f"| {expected:.3f} |".replace("0.", "."))


def test_the_probes_table_has_a_row_a_curve():
    bars = published_bars()
    exact = {step: [bars[step][bar] for bar in BARS if bar < DEPTH] for step in bars}
    trained = [
        {"start": start, "at_rest": 1000, "probe": ["adam", 0.01], "steps": exact}
        for start in ("cold", "warm")
    ]
    result = found_as([0.5] * len(BARS)) | {"trained": trained}
    lines = probe_table(result, bars)
    assert lines[0].startswith("| probes | bar 0 | bar 1 |")
    titles = [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]]
    cold = "adam 0.01, 1,000 at rest"
    later = ["certified", cold, f"{cold}, then along"]
    assert titles == [
        "0 minibatches: published",
        "certified",
        cold,
        "500 minibatches: published",
        *later,
        "2,000 minibatches: published",
        *later,
    ]
    assert all(line.endswith("| .000 |") for line in lines if "at rest" in line)


def test_finalists_are_the_nearest_with_five_seeds():
    bars = published_bars()
    exact = [bars["2000"][bar] for bar in BARS]
    found = {
        "near": found_as(exact, slope=0.2),
        "far": found_as([rate + 0.1 for rate in exact]),
        "another seed": found_as(exact, seed=3),
    }
    chosen = figure8_training.finalists(found, bars, 1)
    assert [one.seed for one in chosen] == [0, 1, 2, 3, 4]
    assert {one.slope for one in chosen} == {0.2}


def test_what_is_measured_is_not_measured_again(tmp_path, monkeypatch, capsys):
    path = tmp_path / "found.json"
    rates = [0.5] * len(BARS)
    found = {one.key: found_as(rates) for one in [*coarse(), *further()]}
    for one in [*coarse(), *further()]:
        found[one.key]["candidate"] = vars(one)
    path.write_text(json.dumps(found))
    monkeypatch.setattr(figure8_training, "measure", None)
    figure8_training.main(["--out", str(path)])
    assert len(capsys.readouterr().out.splitlines()) == 9 + len(found)


def test_what_is_measured_in_part_is_measured_on():
    screened = found_as([0.5] * len(BARS), until=500)
    assert Extent(500).is_met(screened)
    assert not Extent(2000).is_met(screened)
    assert not Extent(500, probes=True).is_met(screened)
    assert Extent(500, probes=True).is_met(screened | {"trained": []})
    assert not Extent(500).is_met(None)


def test_networks_are_chosen_by_their_line(tmp_path, monkeypatch):
    chosen = []
    monkeypatch.setattr(figure8_training, "measure_all", lambda these, *rest: chosen.extend(these))
    arguments = ["--out", str(tmp_path / "none.json"), "--only", "skip layer1$", "--only", "adam"]
    figure8_training.main(arguments)
    assert chosen == [Candidate("adam", 1e-4, slope=0.1, skip="layer1")]


def test_the_bars_of_chosen_networks_are_printed(tmp_path, capsys):
    path = tmp_path / "found.json"
    found = [found_as([0.5] * len(BARS)), found_as([0.5] * len(BARS), skip="layer1")]
    path.write_text(json.dumps({str(number): one for number, one in enumerate(found)}))
    figure8_training.main(["--out", str(path), "--table", "--only", "layer1$"])
    lines = capsys.readouterr().out.splitlines()
    assert lines.count("adam 0.0001, skip layer1") == 1 and "adam 0.0001" not in lines
    assert sum(line.startswith("| probes") for line in lines) == 1

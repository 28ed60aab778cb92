"""Progress of a checkpoint's probes, and what they are expected to cost."""

from dataclasses import replace

import pytest
import torch

from linprobe.evaluation.options import EvaluationOptions
from linprobe.pipeline.controls import with_plan
from linprobe.pipeline.meter import Meter, expected_costs
from linprobe.pipeline.task import Task
from linprobe.probes.base import Targets
from linprobe.probes.config import ProbeConfig
from linprobe.probes.minibatch import SGDProtocol
from linprobe.runtime.progress import Tracker
from tests.support.records import probe_record

SGD = SGDProtocol("adam", 1e-2, max_epochs=8, patience=2, batch_size=32)
WIDTHS = {"input": 784, "conv1_preact": 25088, "conv1_postpool": 6272, "logits": 10}


def task(num_train):
    labels = torch.arange(num_train) % 10
    return Task(torch.arange(num_train), Targets(labels, 10, 100), labels, ProbeConfig())


def test_costs_grow_with_width_and_samples():
    costs = expected_costs(WIDTHS, task(60_000))
    assert list(costs) == list(WIDTHS)
    assert costs["conv1_preact"] > costs["conv1_postpool"] > costs["logits"] > 0
    assert costs["input"] > expected_costs(WIDTHS, task(1_000))["input"]


def test_costs_grow_with_what_is_computed_beside_a_probe():
    options = EvaluationOptions("shuffled_labels", repeats=4, mdl=True)
    more_asked = with_plan(replace(task(1_000), evaluation=options))
    costs, more = (expected_costs(WIDTHS, one) for one in (task(1_000), more_asked))
    assert all(more[layer] > 2 * costs[layer] for layer in WIDTHS)


def test_training_costs_grow_with_width_epochs_and_samples():
    costs = expected_costs(WIDTHS, task(60_000), SGD)
    assert costs["conv1_preact"] > costs["conv1_postpool"] > costs["logits"] > 0
    fewer = expected_costs(WIDTHS, task(30_000), SGD)
    longer = expected_costs(WIDTHS, task(60_000), replace(SGD, max_epochs=16))
    for layer, cost in costs.items():
        assert fewer[layer] == pytest.approx(cost / 2)
        assert longer[layer] == pytest.approx(2 * cost)


@pytest.fixture
def metered():
    events = []
    tracker = Tracker(events.append, 4.0)
    costs = {"input": 1.0, "fc1": 3.0}
    return Meter(tracker, "untrained", costs, num_solves=4), events


def test_every_hundredth_epoch_is_a_milestone():
    events = []
    meter = Meter(Tracker(events.append, 1.0), "untrained", {"fc1": 1.0}, num_solves=250)
    on_solve = meter.solving("fc1")
    for epoch in range(1, 251):
        on_solve("epoch", 1e-2, epoch, 0.5)
    shown = [event.text for event in events if event.milestone]
    assert shown == [f"fc1 (1/1), epoch {epoch}: mean loss 0.5000" for epoch in (100, 200)]


def test_layers_are_named_with_their_place_and_their_share_of_the_work(metered):
    meter, events = metered
    on_rows = meter.extracting(("input", "fc1"), "train")
    on_rows(500, 1000)
    on_solve = meter.solving("fc1")
    on_solve("path", 1e-1, 12.0, 3e-5)
    on_solve("refit", 1e-1, 15.0, 2e-5)
    meter.finished(probe_record(1, "fc1"))
    assert [event.text for event in events[:-1]] == [
        "train features of input to fc1",
        "train features of input to fc1: 500 of 1,000",
        "fc1 (2/2)",
        "fc1 (2/2), path: l2 1e-01, 12 passes, gap 3.0e-05",
        "fc1 (2/2), refit: l2 1e-01, 15 passes, gap 2.0e-05",
    ]
    # Four solves make three quarters of the work.
    fractions = [event.fraction for event in events]
    assert fractions == pytest.approx([0, 0, 0, 0.75 / 4, 0.75 / 2, 0.75])
    assert [event.milestone for event in events] == [False] * 5 + [True]
    assert {event.checkpoint for event in events} == {"untrained"}


def test_unsolved_probes_are_called_out(metered):
    meter, events = metered
    meter.finished(probe_record(0, "input", status="max_passes_reached"))
    assert events[-1].text.endswith("NOT converged (max_passes_reached)")

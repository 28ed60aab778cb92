"""Patterns of layer names: what they take, and what is said of the rest."""

import pytest
import torch
from torch import nn

import linprobe
from linprobe import LinprobeError
from linprobe.activations.globs import matching
from linprobe.activations.layers import choose_layers, glob_notes

NAMES = [
    "embeddings",
    *(f"encoder.layer.{i}{part}" for i in range(12) for part in ("", ".attention", ".out.dense")),
    "inner/first",
    "relu#2",
]


def blocks(*numbers):
    return [f"encoder.layer.{i}" for i in numbers]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("encoder.layer.*", blocks(*range(12))),
        ("encoder.layer.?", blocks(*range(10))),
        ("encoder.layer.{0..11}", blocks(*range(12))),
        ("encoder.layer.{11..10}", blocks(10, 11)),
        ("encoder.layer.{0, 3,6..7}", blocks(0, 3, 6, 7)),
        ("encoder.layer.{8..99}", blocks(8, 9, 10, 11)),
        ("encoder.layer.[!1-9]", blocks(0)),
        ("encoder.layer.1[01]", blocks(10, 11)),
        ("encoder.layer.3.**", ["encoder.layer.3.attention", "encoder.layer.3.out.dense"]),
        ("**.3.*", ["encoder.layer.3.attention"]),
        ("**", NAMES),
        ("*", ["embeddings", "relu#2"]),
        ("*/*", ["inner/first"]),
        ("inner?first", []),
        ("relu*", ["relu#2"]),
        ("{relu,embed}*", ["embeddings", "relu#2"]),
        ("encoder.layer.1", blocks(1)),
    ],
)
def test_a_star_ends_at_a_dot(pattern, expected):
    assert matching(pattern, NAMES) == expected


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("layer.[9-0]", "no pattern of layer names: bad character"), ("{0..1000000}", "1,000,001")],
)
def test_patterns_that_can_not_be(pattern, message):
    with pytest.raises(LinprobeError, match=message):
        matching(pattern, NAMES)


@pytest.fixture
def deep():
    """Twelve blocks of two layers each."""
    return nn.Sequential(*(nn.Sequential(nn.Linear(3, 3), nn.ReLU()) for _ in range(12)))


def test_blocks_that_a_pattern_leaves_out_are_said(deep):
    table = linprobe.layers(deep, torch.zeros(2, 3))
    note = "Pattern '?' takes 10 of 12 layers of one kind (Sequential) and leaves out '10', '11'"
    assert list(glob_notes(table, "?")) == [f"{note}: '*' takes all."]
    assert next(glob_notes(table, ["0", "[0-9].0:in"])).endswith("'*.0' takes all.")
    for fine in ("*", "{0..3}", "[01]", "1", ["*.0"], None, nn.ReLU, lambda name, module: 1):
        assert not list(glob_notes(table, fine))


def test_a_star_that_would_have_to_cross_dots_says_so(deep):
    network = nn.Sequential(nn.Sequential(deep))
    table = linprobe.layers(network, torch.zeros(2, 3))
    message = r"no layer '\*\.9', in which \* ends at a dot; '\*\*\.9' takes 1"
    with pytest.raises(LinprobeError, match=message):
        choose_layers(network, table, ["*", "*.9"])
    assert choose_layers(network, table, "**.9:in") == ("0.0.9:in",)
    with pytest.raises(
        LinprobeError, match=r"no layer '\*\.12'; near names|no layer '\*\.12'; there"
    ):
        choose_layers(network, table, "*.12")

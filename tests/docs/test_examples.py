"""The examples run, as processes, and find what their texts say."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from linprobe.data import load
from linprobe.runtime.errors import LinprobeError

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), "--quick"],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "torch", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_errors(text):
    """Test error of each layer of each table: a list of dicts."""
    tables = re.split(r"^ layer .*$", text, flags=re.MULTILINE)[1:]
    row = re.compile(r"^ (\S+) +[\d,]+ +\S+ +[\d.]+ +([\d.]+)\*? ", re.MULTILINE)
    return [{layer: float(rate) for layer, rate in row.findall(table)} for table in tables]


test_errors.__test__ = False  # not a test


@pytest.fixture
def fashion_mnist():
    try:
        load("fashion-mnist")
    except LinprobeError as error:
        pytest.skip(f"Fashion-MNIST can't be had here: {error}")


@pytest.mark.slow
def test_resnet(fashion_mnist):
    text = run("resnet_fashion_mnist.py")
    assert "layer1.0.relu#2" in text
    untrained, trained = test_errors(text)
    assert list(untrained) == [
        *("conv1:in", "maxpool", "layer1.0", "layer1.1", "layer2.0", "layer2.1"),
        *("layer3.0", "layer3.1", "avgpool"),
    ]
    assert untrained["conv1:in"] == trained["conv1:in"]
    assert untrained != trained
    assert max(untrained.values()) < 0.7


@pytest.mark.slow
def test_huggingface(fashion_mnist):
    pytest.importorskip("transformers")
    (stages,) = test_errors(run("huggingface_resnet.py"))
    assert list(stages) == [f"resnet.encoder.stages.{i}" for i in range(4)]
    assert max(stages.values()) < 0.7


@pytest.mark.slow
def test_transformer():
    pytest.importorskip("transformers")
    itself, before = test_errors(run("transformer_tokens.py"))
    layers = ["embeddings", "encoder.layer.0", "encoder.layer.1", "encoder.layer.2"]
    assert list(itself) == list(before) == layers
    assert itself["embeddings"] == 0
    assert itself["encoder.layer.2"] > 0.3
    assert before["embeddings"] > 0.7  # chance is 0.75: no token knows another yet
    assert min(before.values()) < before["embeddings"]


@pytest.mark.slow
def test_keras(fashion_mnist):
    pytest.importorskip("keras")
    untrained, trained = test_errors(run("keras_network.py"))
    assert list(untrained) == ["conv1", "conv2", "add", "pool", "flatten", "dense", "logits"]
    assert untrained != trained
    assert max(trained.values()) < 0.7

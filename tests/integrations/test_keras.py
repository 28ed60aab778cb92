"""Keras models as networks, mostly with the PyTorch backend."""

import importlib
import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest
import torch

import linprobe
from linprobe.runtime.errors import LinprobeError

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")

from linprobe.integrations.keras import KerasNetwork  # noqa: E402
from tests.support.options import grouped  # noqa: E402

L = keras.layers


@pytest.fixture
def model():
    """A functional model with a shared layer, an inner model, dropout and batch norm."""
    keras.utils.set_random_seed(0)
    inner = keras.Sequential([keras.Input((6, 5, 3)), L.Conv2D(2, 3, name="deep")], name="inner")
    inputs = keras.Input((6, 5, 1))
    x = L.Conv2D(3, 3, padding="same", name="first")(inputs)
    x = L.BatchNormalization(name="norm")(x)
    x = L.Dropout(0.5, name="dropout")(x)
    shared = L.Conv2D(3, 3, padding="same", name="shared")
    x = inner(shared(shared(x)))
    return keras.Model(inputs, L.Dense(2, name="out")(L.Flatten(name="flat")(x)))


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(7, 6, 5, 1)).astype(np.float32)


def test_every_call_of_every_layer_is_a_point(model, x):
    table = linprobe.layers(KerasNetwork(model), x)
    assert table.names == (
        *("first", "norm", "dropout", "shared", "shared#2"),
        *("inner/deep", "inner", "flat", "out"),
    )
    assert table["first"].type == "Conv2D"
    assert table["first"].shape == (7, 3, 6, 5)  # channels first
    assert table["out"].shape == (7, 2)
    assert [row.name for row in table if row.passes_through] == ["dropout"]


def run(model, x):
    with torch.no_grad():
        return model(x, training=False).numpy()


def test_activations_are_those_of_the_model(model, x):
    names = ["first", "shared#2", "flat", "out"]
    taken = linprobe.Taps(KerasNetwork(model), names)(torch.from_numpy(x))
    first = keras.Model(model.input, model.get_layer("first").output)
    expected = run(first, x)
    np.testing.assert_allclose(taken["first"], np.moveaxis(expected, -1, 1), rtol=1e-5, atol=1e-6)
    inner = run(model.get_layer("inner"), np.moveaxis(taken["shared#2"].numpy(), 1, -1))
    np.testing.assert_allclose(taken["flat"], inner.reshape(7, -1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(taken["out"], run(model, x), rtol=1e-4, atol=1e-6)
    assert taken["out"].dtype == torch.float32


def test_forward_gives_the_output_of_the_model(model, x):
    found = KerasNetwork(model)(torch.from_numpy(x))
    np.testing.assert_allclose(found.detach(), run(model, x), rtol=1e-4, atol=1e-6)


def state(model):
    return [variable.value.detach().numpy().copy() for variable in model.variables]


def test_the_model_is_left_as_it_was(model, x):
    before = state(model)
    layers = [*model.layers, *model.get_layer("inner").layers]
    network = KerasNetwork(model)
    linprobe.Taps(network, ["first"])(torch.from_numpy(x))  # stops within the model
    with pytest.raises(LinprobeError, match="the network fails on a batch of 7 samples"):
        linprobe.layers(network, x[:, :3])
    assert not any("call" in vars(layer) for layer in layers)
    for old, new in zip(before, state(model), strict=True):
        np.testing.assert_array_equal(old, new)
    calls = []
    model.get_layer("dropout").call = lambda inputs, training: calls.append(training) or inputs
    linprobe.Taps(network, ["flat"])(torch.from_numpy(x))
    assert calls == [False]
    assert "call" in vars(model.get_layer("dropout"))  # that of somebody else stays


def test_a_forward_pass_ends_after_the_last_layer_that_is_needed(model, x):
    calls = []
    out = model.get_layer("out")
    own = out.call
    vars(out)["call"] = lambda inputs, **_: calls.append(1) or own(inputs)
    network = KerasNetwork(model)
    linprobe.Taps(network, ["flat"])(torch.from_numpy(x))
    assert calls == []
    linprobe.Taps(network, ["out"])(torch.from_numpy(x))
    assert calls == [1]


def test_probes_find_what_is_in_the_input(model):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 150)
    x = rng.normal(size=(150, 6, 5, 1)).astype(np.float32)
    x[:, 2, 2, 0] += 5 * labels
    report = linprobe.probe(
        KerasNetwork(model),
        (x[:100], labels[:100]),
        (x[100:], labels[100:]),
        layers=["first", "inner/*"],
        **grouped(reduce="pool:2", l2=1e-5),
    )
    assert list(report) == ["first", "inner/deep"]
    assert report["first"].record.num_features == 12
    assert report["first"].record.test_error_rate < 0.5
    assert all(record.converged for record in report.records)


def test_the_dimension_of_features_is_known_without_operations():
    given = keras.Input((6, 4))
    hidden = L.MultiHeadAttention(2, 4, name="attention")(given, given)  # of opaque operations
    hidden = L.Conv1D(3, 2, name="second", data_format="channels_first")(hidden)
    network = KerasNetwork(keras.Model(given, L.ReLU(name="relu")(hidden)))
    x, y = np.random.default_rng(0).normal(size=(40, 6, 4)).astype(np.float32), np.arange(40) % 2
    report = linprobe.probe(network, (x, y), (x, y), layers="*", **grouped(l2=0.1))
    assert {layer: report[layer].record.reducer for layer in report} == {
        "attention": "tokens=mean",
        "second": "channels_first, tokens=mean",
        "relu": "channels_first, tokens=mean",
    }
    assert not any("can't be told" in note for note in report.notes)


class Subclassed(keras.Model):
    """Named inputs, two outputs, in whole numbers and fewer bits."""

    def __init__(self):
        super().__init__()
        self.table = L.Embedding(5, 4, name="table")
        self.recurrent = L.LSTM(3, return_sequences=True, return_state=True, name="recurrent")

    def call(self, inputs):
        return self.recurrent(self.table(inputs["ids"]) * inputs["scale"][:, None, None])


def test_subclassed_models_with_named_inputs_and_several_outputs():
    model = Subclassed()
    batch = {"ids": np.arange(10).reshape(2, 5) % 5, "scale": np.ones(2, np.float32)}
    with pytest.raises(LinprobeError, match="isn't built; expected one that has an Input"):
        KerasNetwork(model)
    model(batch)
    table = linprobe.layers(KerasNetwork(model), batch)
    assert table.names == ("table", "recurrent")
    assert table["recurrent"].shape == (2, 5, 3)
    ids = torch.from_numpy(batch["ids"])
    taken = linprobe.Taps(KerasNetwork(model), ["recurrent"])(ids=ids, scale=torch.ones(2))
    expected = model(batch)[0].detach().numpy()
    np.testing.assert_allclose(taken["recurrent"], expected, rtol=1e-5)


def test_several_inputs_in_order_and_half_precision():
    left, right = keras.Input((3,)), keras.Input((3,))
    difference = L.Subtract(name="difference", dtype="float16")([left, right])
    model = keras.Model([left, right], difference)
    taken = linprobe.Taps(KerasNetwork(model), ["difference"])(torch.ones(2, 3), torch.zeros(2, 3))
    assert torch.equal(taken["difference"], torch.ones(2, 3))
    assert taken["difference"].dtype == torch.float32


def test_models_that_can_not_be_taken():
    with pytest.raises(LinprobeError, match=r"model is a Linear; expected a keras\.Model"):
        KerasNetwork(torch.nn.Linear(2, 2))
    named = keras.Sequential([keras.Input((3,)), L.Dense(2, name="half")])
    with pytest.raises(
        LinprobeError, match="layer 'half' has a name that no PyTorch module can have"
    ):
        KerasNetwork(named)


SCRIPT = """
import keras, numpy as np, torch, linprobe
from linprobe.integrations.keras import KerasNetwork
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh", name="a"),
                          keras.layers.Dense(2, name="b")])
model.set_weights([np.sin(np.arange(w.size)).reshape(w.shape) for w in model.get_weights()])
taken = linprobe.Taps(KerasNetwork(model), ["a", "b"])(torch.arange(6.0).view(2, 3))
print(keras.backend.backend(), torch.cat(list(taken.values()), 1).tolist())
"""


@pytest.mark.parametrize("backend", ["jax", "numpy"])  # that of NumPy uses parts of JAX
def test_another_backend_gives_the_same(backend):
    pytest.importorskip("jax")
    expected = run_script("torch")
    np.testing.assert_allclose(run_script(backend), expected, rtol=1e-5, atol=1e-6)


def run_script(backend):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    assert done.returncode == 0, done.stderr
    name, _, values = done.stdout.partition(" ")
    assert name == backend
    return np.array(json.loads(values))


def test_missing_library_is_said(monkeypatch):
    monkeypatch.delitem(sys.modules, "linprobe.integrations.keras")
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ImportError, match=r"needs Keras 3 .* pip install 'linprobe\[keras\]'"):
        importlib.import_module("linprobe.integrations.keras")
    assert isinstance(keras, types.ModuleType)

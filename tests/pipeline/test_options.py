"""Numbers and arrays of any library, wherever Python's or PyTorch's are expected."""

import numpy as np
import pytest
import torch

import linprobe
from linprobe import EvaluationOptions, ExtractionOptions, LinprobeError, ProbeConfig
from tests.support.cases import make_case

CASE = make_case("plain", 90, 6, 3)
X, Y = CASE.features.float(), CASE.labels
TRAIN, TEST = (X[:60], Y[:60]), (X[60:], Y[60:])
NETWORK = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU())


def test_a_run_with_numbers_of_numpy_and_pytorch_is_that_with_pythons(tmp_path):
    def run(seed, size, tol, l2, repeats, memory):
        return linprobe.probe(
            *(NETWORK, TRAIN, TEST),
            seed=seed,
            method=ProbeConfig(l2, tol=tol),
            extraction=ExtractionOptions(batch_size=size, memory_bytes=memory),
            evaluation=EvaluationOptions(controls="shuffled_labels", repeats=repeats),
        )

    other = run(
        np.int64(3), torch.tensor(16), np.float32(0.5), np.array(0.25), np.uint8(1), np.float64(1e9)
    )
    plain = run(3, 16, 0.5, 0.25, 1, 1e9)
    assert other.run.config == plain.run.config
    assert other["0"].record.objective == plain["0"].record.objective
    assert linprobe.load_report(other.save(tmp_path / "run")).run.config == plain.run.config


def test_tokens_may_be_an_index_of_numpy():
    assert ExtractionOptions(tokens=np.int64(-1)) == ExtractionOptions(tokens=-1)
    assert type(ExtractionOptions(tokens=np.int64(-1)).tokens) is int


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "2", True, 0])
def test_memory_is_a_positive_number_of_bytes(value):
    with pytest.raises(LinprobeError, match=r"memory_bytes is .*; expected a positive number of b"):
        ExtractionOptions(memory_bytes=value)


@pytest.mark.parametrize("call", [linprobe.probe, linprobe.fit_probes])
def test_seeds_that_pytorch_does_not_take_are_refused(call):
    first = (NETWORK, TRAIN, TEST) if call is linprobe.probe else ({"a": X}, Y, ({"a": X}, Y))
    with pytest.raises(
        LinprobeError, match=r"seed is 1000.*; expected a whole number from 0 to 184"
    ):
        call(*first, seed=10**30)


@pytest.mark.parametrize("dtype", [">f8", ">f4", ">f2", ">i4", ">u2", np.longdouble])
def test_arrays_of_any_order_of_bytes_are_read(dtype):
    x = (4 * X).round().abs() if np.dtype(dtype).kind in "iu" else X.half()
    odd = x.numpy().astype(dtype)
    labels = Y.numpy().astype(">i8")
    found = linprobe.fit_probes({"a": odd[:60]}, labels[:60], ({"a": odd[60:]}, labels[60:]))
    plain = linprobe.fit_probes({"a": x[:60].float()}, Y[:60], ({"a": x[60:].float()}, Y[60:]))
    assert found["a"].record.test_error_rate == plain["a"].record.test_error_rate
    torch.testing.assert_close(found["a"].weight, plain["a"].weight, rtol=0.05, atol=0.02)
    assert odd.dtype == dtype, "the caller's array is left as it is"


@pytest.mark.parametrize("dtype", [">f4", ">f8"])
def test_inputs_of_a_network_of_any_order_of_bytes(dtype):
    x, labels = X.numpy().astype(dtype), Y.numpy().astype(">u2")
    found = linprobe.probe(NETWORK, (x[:60], labels[:60]), {"input": x[60:], "labels": labels[60:]})
    plain = linprobe.probe(NETWORK, TRAIN, TEST)
    assert found["0"].record.objective == plain["0"].record.objective


def test_types_of_any_order_of_bytes():
    types = (np.arange(60) % 4).astype(">i4"), (np.arange(30) % 4).astype(">i4")
    found = linprobe.fit_probes(
        *({"a": TRAIN[0]}, TRAIN[1], ({"a": TEST[0]}, TEST[1])),
        evaluation=EvaluationOptions(controls="control_task", types=types),
    )
    assert found["a"].controls[0].name == "control_task"

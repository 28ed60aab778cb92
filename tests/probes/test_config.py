"""The numbers of a probe: what they may be, and how penalties may be given."""

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from linprobe.probes.config import DEFAULT_L2_PATH, ProbeConfig
from linprobe.runtime.errors import LinprobeError


@pytest.mark.parametrize(
    ("given", "path"),
    [
        (None, DEFAULT_L2_PATH),
        (1e-3, (1e-3,)),
        (1, (1.0,)),
        (np.float32(0.5), (0.5,)),
        ((1e-3, 1e-1, 1e-2), (1e-1, 1e-2, 1e-3)),
        ([0.5, 0.5], (0.5,)),
        (np.array([1e-2, 1e-1]), (1e-1, 1e-2)),
        (np.array(0.5), (0.5,)),
        (torch.tensor(0.5), (0.5,)),
        (torch.tensor([0.25, 0.5]), (0.5, 0.25)),
        ([np.float32(0.5), torch.tensor(0.25), Fraction(1, 8)], (0.5, 0.25, 0.125)),
    ],
)
def test_penalties_are_put_into_falling_order(given, path):
    config = ProbeConfig(l2_path=given)
    assert config.l2_path == path
    assert all(type(l2) is float for l2 in config.l2_path)
    assert replace(config, seed=3) == ProbeConfig(path, seed=3)
    assert hash(config) == hash(ProbeConfig(path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l2_path": ()}, r"l2 is \(\); expected a positive number or several"),
        ({"l2_path": 0.0}, r"l2 is 0.0; expected a positive number or several"),
        ({"l2_path": (1e-3, -1e-2)}, "positive number or several"),
        ({"l2_path": float("nan")}, "positive number or several"),
        ({"l2_path": float("inf")}, "positive number or several"),
        ({"l2_path": "abc"}, "l2 is 'abc'; expected a positive number or several"),
        ({"l2_path": object()}, "positive number or several"),
        ({"tol": 0.0}, "positive number of nats"),
        ({"l2_path": "12"}, "l2 is '12'; expected a positive number or several"),
        ({"l2_path": b"12"}, "positive number or several"),
        ({"l2_path": True}, "l2 is True; expected a positive number or several"),
        ({"l2_path": (1e-3, True)}, "positive number or several"),
        ({"l2_path": np.array(["1e-3"])}, "positive number or several"),
        ({"tol": "small"}, "positive number of nats"),
        ({"tol": True}, "tol is True; expected a positive number of nats"),
        ({"tol": float("inf")}, "tol is inf; expected a positive number of nats"),
        ({"seed": 10**30}, "seed is 10+; expected a whole number from 0 to 18446744073709551615"),
        ({"seed": True}, "seed is True; expected a whole number"),
        ({"validation_fraction": "half"}, "validation_fraction is 'half'; expected a number"),
        ({"max_passes": 1.5}, "max_passes is 1.5; expected a whole number"),
        ({"validation_fraction": 1.0}, "between 0 and 1"),
        ({"choose_by": "accuracy"}, "choose_by is 'accuracy'; expected one of: 'cross_entropy', "),
        ({"choose_by": None}, "choose_by is None; expected one of"),
        ({"max_passes": 0}, "max_passes is 0; expected a whole number from 1 on"),
    ],
)
def test_bad_config_is_one_clear_line(options, message):
    with pytest.raises(LinprobeError, match=message):
        ProbeConfig(**options)


def test_numbers_of_numpy_and_pytorch_become_pythons():
    config = ProbeConfig(
        tol=np.float32(0.5),
        validation_fraction=torch.tensor(0.25),
        max_passes=np.int64(7),
        seed=torch.tensor(3),
    )
    assert config == ProbeConfig(tol=0.5, validation_fraction=0.25, max_passes=7, seed=3)
    assert [type(getattr(config, name)) for name in ("tol", "max_passes", "seed")] == [
        float,
        int,
        int,
    ]


def test_the_config_imports_no_torch():
    code = "import sys; import linprobe.probes.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)

"""Fixtures that several test modules share."""

import os

import pytest

# Before torch is loaded: spinning threads make small problems many times slower beside other work.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:  # there is a worker a core
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.support.cases import CASES, Case


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    """Each problem of the table in turn."""
    value = request.param
    assert isinstance(value, Case)
    return value

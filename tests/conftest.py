"""Fixtures that several test modules share."""

import pytest

from tests.support.cases import CASES, Case


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    """Each problem of the table in turn."""
    value = request.param
    assert isinstance(value, Case)
    return value

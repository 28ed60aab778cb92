"""Tests of linprobe.runtime.waiting."""

import pytest

from linprobe.runtime.waiting import let_threads_rest


def test_threads_spin_briefly_by_default():
    environment = {"HOME": "/"}
    let_threads_rest(environment)
    assert environment == {"HOME": "/", "GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "0"}


@pytest.mark.parametrize(
    "given", [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "0"}, {"KMP_BLOCKTIME": "200"}]
)
def test_what_the_user_has_set_is_kept(given):
    environment = dict(given)
    let_threads_rest(environment)
    assert environment == given

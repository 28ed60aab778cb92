from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import (
    as_real,
    check_seed,
    native_dtype,
    positive_number,
    real_number,
    whole_number,
)


@pytest.mark.parametrize(
    "value",
    [3, np.int64(3), np.uint8(3), np.array(3, ">i2"), torch.tensor(3), torch.tensor(3).int()],
)
def test_whole_numbers_of_any_library_become_ints(value: object) -> None:
    found = whole_number("batch_size", value, 1)
    assert found == 3 and type(found) is int


@pytest.mark.parametrize(
    "value",
    [
        3.0,
        np.float64(3),
        "3",
        b"3",
        True,
        np.True_,
        torch.tensor(True),
        None,
        np.array([3]),
        3j,
        torch.tensor([3]),
        torch.empty((), dtype=torch.int64, device="meta"),
        float("nan"),
        0,
        [3],
    ],
)
def test_what_is_no_whole_number_in_range_is_refused(value: object) -> None:
    with pytest.raises(LinprobeError, match=r"batch_size is .*; expected a whole number from 1 on"):
        whole_number("batch_size", value, 1)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (2, 2),
        (0.5, 0.5),
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.array(0.5, ">f8"), 0.5),
        (torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True), 0.5),
        (np.int32(2), 2),
        (Decimal("0.5"), 0.5),
        (Fraction(1, 2), 0.5),
    ],
)
def test_real_numbers_of_any_library_become_floats(value: object, number: float) -> None:
    found = positive_number("tol", value)
    assert found == number and type(found) is type(number)


@pytest.mark.parametrize(
    "value",
    [
        "0.5",
        True,
        np.True_,
        None,
        float("inf"),
        np.float32("nan"),
        1j,
        np.complex64(1),
        10**400,
        Fraction(10**400),
        Decimal("NaN"),
        Decimal("sNaN"),
        np.array([0.5]),
        [0.5],
        -1,
        0.0,
        torch.tensor(1j),
        np.array("0.5"),
        np.datetime64("2020-01-01"),
    ],
)
def test_what_is_no_positive_number_is_refused(value: object) -> None:
    with pytest.raises(LinprobeError, match=r"tol is .*; expected a positive number"):
        positive_number("tol", value)


def test_a_range_is_the_callers() -> None:
    assert real_number("slope", 0, "a number from 0 to 1", lambda x: 0 <= x <= 1) == 0
    assert as_real(float("inf")) == float("inf")


def test_seeds_are_those_of_pytorch() -> None:
    assert check_seed(np.uint64(2**64 - 1)) == 2**64 - 1
    with pytest.raises(LinprobeError, match="expected a whole number from 0 to 18446744073709551"):
        check_seed(10**30)


def test_dtypes_of_arrays_become_those_of_this_machine() -> None:
    assert native_dtype(np.dtype(">f4")) == np.dtype(np.float32)
    assert native_dtype(np.dtype("<i8")) == np.dtype(np.int64)
    assert native_dtype(np.dtype(np.longdouble)) == np.dtype(np.float64)

"""The public names."""

import pytest

import linprobe


def test_every_public_name_is_there():
    for name in linprobe.__all__:
        assert getattr(linprobe, name).__name__ == name


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = linprobe.nonsense

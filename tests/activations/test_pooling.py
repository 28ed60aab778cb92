"""Reducers: what they keep, what they say, and what is chosen for a budget."""

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from linprobe import LinprobeError
from linprobe.activations.pooling import FLATTEN, Reducer, choose_reducer, random_columns

X = torch.randn(3, 4, 6, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("text", ["flatten", "mean", "max", "pool:2", "random:7"])
def test_text_goes_both_ways_and_widths_are_right(text):
    reducer = Reducer.parse(text)
    assert str(reducer) == text
    columns = random_columns(120, 7, 0, "layer") if text == "random:7" else None
    for values in (X, X.half(), X.to(torch.bfloat16), X.flatten(2), X.flatten(1)):
        if columns is not None and values[0].numel() != 120:
            continue
        found = reducer.apply(values, columns)
        assert found.shape == (3, reducer.width(values.shape[1:]))


def test_values():
    assert torch.equal(Reducer.parse("flatten").apply(X), X.flatten(1))
    torch.testing.assert_close(Reducer.parse("mean").apply(X), X.mean((2, 3)))
    assert torch.equal(Reducer.parse("max").apply(X), X.amax((2, 3)))
    torch.testing.assert_close(
        Reducer.parse("pool:2").apply(X), adaptive_avg_pool2d(X, 2).flatten(1)
    )
    # No more cells than there are values: nothing is made up.
    torch.testing.assert_close(Reducer.parse("pool:9").apply(X), X.flatten(1))
    columns = random_columns(120, 7, 0, "layer")
    assert torch.equal(Reducer.parse("random:7").apply(X, columns), X.flatten(1)[:, columns])


def test_random_columns_are_distinct_and_of_their_layer_and_seed():
    columns = random_columns(120, 7, 0, "a")
    assert len(set(columns.tolist())) == 7 and torch.equal(columns, columns.sort().values)
    assert torch.equal(columns, random_columns(120, 7, 0, "a"))
    for seed, layer in ((1, "a"), (0, "b")):
        assert not torch.equal(columns, random_columns(120, 7, seed, layer))
    assert torch.equal(random_columns(5, 7, 0, "a"), torch.arange(5))


@pytest.mark.parametrize("text", ["", "pool", "pool:0", "pool:x", "random:-1", "mean:2", "median"])
def test_other_texts_are_refused(text):
    with pytest.raises(LinprobeError, match=r"reduce is '.*'; expected 'auto', 'flatten', 'mean'"):
        Reducer.parse(text)


def test_too_many_dimensions_to_pool():
    with pytest.raises(LinprobeError, match=r"can't be pooled.*reduce='mean'"):
        Reducer.parse("pool:2").apply(torch.zeros(2, 1, 2, 2, 2, 2))


def test_auto_keeps_as_many_cells_as_fit():
    def chosen(budget, shape=(4, 6, 5)):
        return str(choose_reducer("auto", "layer", shape, 10, budget))

    assert chosen(40 * 120) == "flatten"
    assert chosen(40 * 120 - 1) == "pool:5"
    assert chosen(40 * 36) == "pool:3"
    assert chosen(40 * 4) == "pool:1"
    assert chosen(40 * 7, (7,)) == "flatten"


@pytest.mark.parametrize(
    ("reduce", "shape", "width"), [("auto", (4, 6, 5), 120), ("auto", (9,), 9), ("mean", (9, 2), 9)]
)
def test_what_does_not_fit_is_refused_with_what_would(reduce, shape, width):
    message = rf"layer 'fc': 10 rows of {width} features .*the memory budget is 120 bytes"
    with pytest.raises(LinprobeError, match=message) as caught:
        choose_reducer(reduce, "fc", shape, 10, 120)
    assert "use reduce='random:3', or raise memory_bytes" in str(caught.value)
    assert choose_reducer("random:3", "fc", shape, 10, 120) == Reducer("random", 3)
    with pytest.raises(LinprobeError, match="use fewer samples, or raise memory_bytes"):
        choose_reducer(reduce, "fc", shape, 10, 39)


@pytest.mark.parametrize("reduce", ["mean", "max", "pool:6", "random:120"])
def test_a_reducer_that_keeps_everything_is_not_stated(reduce):
    whole = (120, 1, 1) if reduce in ("mean", "max") else (4, 6, 5)
    assert choose_reducer(reduce, "fc", whole, 10, 1e9) == FLATTEN
    assert choose_reducer(reduce, "fc", (240, 7, 7), 10, 1e9) == Reducer.parse(reduce)
    assert FLATTEN == Reducer.parse("flatten")

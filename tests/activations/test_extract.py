"""Features reach their rows whatever the network, its layout and the batches."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import linprobe
from linprobe import LinprobeError
from linprobe.activations.extract import Extractor
from linprobe.activations.rules import Reduction
from linprobe.data.inputs import Source
from linprobe.data.splits import Split
from tests.support.nets import Encoder, ResNet, Tagger, images, sentences


def extractor(network, tokens="mean", reduce="flatten", **changes):
    options = {"forward": None, "select": None, "seed": 0, "device": torch.device("cpu")}
    return Extractor(network, tokens=tokens, reduce=reduce, **{**options, **changes})


def gathered(network, data, names, *, tokens="mean", reduce="flatten", place=None, **changes):
    split = Split.read(Source(data, "train", 4), tokens)
    read = extractor(network, tokens, reduce, **changes)
    batch = next(iter(split.source)).head(3)
    points, _ = read.plan(names, batch, len(split.labels), 1e9, skip_unfit=False)
    return read.gather(split, points, place)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_rows_are_those_of_one_pass_in_the_places_given():
    network, (x, y) = ResNet(), images(10)
    place = torch.randperm(10)
    found = gathered(network, (x, y), ["layer1", "fc"], place=place)
    expected = linprobe.Taps(network, ["layer1", "fc"])(x)
    for layer in ("layer1", "fc"):
        torch.testing.assert_close(found[layer][place], expected[layer].flatten(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_other_precision_get_inputs_of_theirs(dtype):
    network = ResNet().to(dtype)
    found = gathered(network, images(5), ["layer1"])["layer1"]
    expected = linprobe.Taps(network, ["layer1"])(images(5)[0].to(dtype))["layer1"]
    assert found.dtype is torch.float32
    assert torch.equal(found, expected.flatten(1).float())


@pytest.mark.parametrize("batch_first", [True, False])
def test_recurrent_nets_of_either_layout(batch_first):
    network, (words, _, labels) = Tagger(batch_first), sentences(9)
    found = gathered(network, (words, words[:, 0] % 3), ["rnn"], tokens="last")["rnn"]
    states = linprobe.Taps(network, ["rnn"])(words)["rnn"]
    expected = states[:, -1] if batch_first else states[-1]
    torch.testing.assert_close(found, expected)
    every = gathered(network, (words, labels), ["rnn"], tokens="all")["rnn"]
    states = states if batch_first else states.transpose(0, 1)
    torch.testing.assert_close(every, states.flatten(0, 1))


def test_a_selector_picks_the_state_of_a_recurrent_net():
    network, (words, _, _) = Tagger(), sentences(9)
    found = gathered(
        network, (words, words[:, 0] % 3), ["rnn"], select=lambda name, value: value[1][0][0]
    )["rnn"]
    torch.testing.assert_close(found, linprobe.Taps(network, ["rnn"])(words)["rnn"][:, -1])


def test_a_selector_pads_a_packed_sequence():
    class Packed(Encoder):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(8, 5, batch_first=True)

        def forward(self, input_ids, attention_mask):
            lengths, x = attention_mask.sum(1), self.embed(input_ids)
            return self.rnn(pack_padded_sequence(x, lengths, True, enforce_sorted=False))[1][0]

    network, (words, mask, _) = Packed(), sentences(9)
    data = {"input_ids": words, "attention_mask": mask, "labels": words[:, 0] % 3}
    with pytest.raises(LinprobeError, match=r"layer 'rnn' gives shape \(\d+, 5\) for 3 samples"):
        gathered(network, data, ["rnn"])
    found = gathered(
        network,
        data,
        ["rnn"],
        tokens="last",
        select=lambda name, value: pad_packed_sequence(value[0], True, total_length=7)[0],
    )["rnn"]
    with torch.no_grad():
        torch.testing.assert_close(found, network(words, mask)[0])


def test_tokens_that_the_mask_hides_do_not_count():
    network, (words, mask, labels) = Encoder(), sentences(9)
    data = {"input_ids": words, "attention_mask": mask, "labels": words[:, 0] % 3}
    layers = ["embed", "encoder.layers.0", "encoder", "pooler"]
    outputs = linprobe.Taps(network, layers)(words, mask)
    found = gathered(network, data, layers)
    for layer in layers[:3]:
        kept = outputs[layer] * mask[:, :, None]
        torch.testing.assert_close(found[layer], kept.sum(1) / mask.sum(1, keepdim=True))
    torch.testing.assert_close(found["pooler"], outputs["pooler"])
    every = gathered(network, {**data, "labels": labels}, ["encoder"], tokens="all")["encoder"]
    torch.testing.assert_close(every, outputs["encoder"][mask == 1])


def test_batches_padded_to_different_lengths():
    network, (words, mask, labels) = Encoder(), sentences(8)
    mask[:4, 5:] = 0
    mask[:, :2] = 1
    batches = [
        {"input_ids": w[:, :n], "attention_mask": m[:, :n], "labels": y[:, :n]}
        for w, m, y, n in zip(words.split(4), mask.split(4), labels.split(4), (5, 7), strict=True)
    ]
    whole = {"input_ids": words, "attention_mask": mask, "labels": labels}
    for layer in ("embed", "encoder.layers.1"):
        apart, together = (
            gathered(network, data, [layer], tokens="all")[layer] for data in (batches, whole)
        )
        torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-5)


def test_a_compiled_network():
    network, data = ResNet(), images(6)
    compiled = torch.compile(network, backend="eager")
    compiled.eval()(data[0])
    names = ["layer2.0.relu:in", "layer2.0.relu#2"]
    found, expected = (gathered(net, data, names) for net in (compiled, network))
    for name in names:
        assert torch.equal(found[name], expected[name])


def test_no_tokens_leaves_the_dimensions_to_the_reducer():
    network, x = nn.Sequential(nn.Conv1d(2, 3, 1), nn.Flatten()), torch.randn(6, 2, 5)
    y = torch.arange(6) % 2
    found = gathered(network, (x, y), ["0"], tokens=None, reduce="mean")["0"]
    torch.testing.assert_close(found, network[0](x).mean(2).detach())


def test_random_columns_are_the_same_for_both_splits():
    network, (x, y) = ResNet(), images(6)
    split = Split.read(Source((x, y), "train", 4), "mean")
    read = extractor(network, reduce="random:5")
    points, _ = read.plan(["layer1"], next(iter(split.source)), 6, 1e9, skip_unfit=False)
    assert points[0].stated == "random:5" and points[0].width == 5
    assert points[0].reduction == Reduction.parse("random:5")
    found = read.gather(split, points)["layer1"]
    flat = linprobe.Taps(network, ["layer1"])(x)["layer1"].flatten(1)
    torch.testing.assert_close(found, flat[:, points[0].columns])


class Odd(nn.Module):
    """Gives whatever a function makes of its input."""

    def __init__(self, make):
        super().__init__()
        self.inner = nn.Identity()
        self.make = make

    def forward(self, x):
        return self.inner(self.make(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: x.mean(), r"layer 'inner' gives shape \(\) for 3 samples; expected the samples"),
        (lambda x: x[:, :0], r"layer 'inner' gives shape \(3, 0\), without features"),
        (lambda x: x[: len(x) // 4 * 3], r"gives shape \(0, 64\) for 3 samples"),
        (lambda x: x[:3] if len(x) > 3 else x, r"'inner' gives shape \(3, 64\) for 4 samples"),
        (lambda x: x[:, : len(x)], r"'inner' gives 4 features, but 3 in the first batch"),
        (lambda x: x.to(torch.complex64), "layer 'inner': the values are complex"),
    ],
)
def test_layers_that_can_not_be_probed(make, message):
    x, y = images(8)
    with pytest.raises(LinprobeError, match=message) as caught:
        gathered(Odd(make), (x.flatten(1), y), ["inner"])
    assert str(caught.value).startswith("layer 'inner'"), "no failure of the network"


def test_a_mask_of_another_length():
    words, mask, _ = sentences(9)
    network = Odd(lambda x: x[:, :5, None].float())
    data = {"x": words, "attention_mask": mask, "labels": words[:, 0] % 3}
    with pytest.raises(LinprobeError, match=r"'inner' gives 5 tokens, the attention mask has 7"):
        gathered(network, data, ["inner"], forward=lambda net, batch: net(batch["x"]))


def test_no_memory_for_the_features(monkeypatch):
    network, data = ResNet(), images(6)
    split = Split.read(Source(data, "train", 4), "mean")
    read = extractor(network)
    points, _ = read.plan(["layer1"], next(iter(split.source)), 6, 1e9, skip_unfit=False)

    def fail(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 6144 bytes")

    monkeypatch.setattr(torch, "empty", fail)
    message = r"layer 'layer1': no memory for 6 KiB of features; set memory_bytes below 6144"
    with pytest.raises(LinprobeError, match=message) as caught:
        read.gather(split, points)
    assert "reduce='random:64'" in str(caught.value)


def test_layers_that_are_left_out_say_why():
    read, batch = extractor(Encoder(), tokens="all"), sentences(5)
    split = Split.read(
        Source({"input_ids": batch[0], "attention_mask": batch[1], "labels": batch[2]}, "train", 5),
        "all",
    )
    example = next(iter(split.source))
    points, left_out = read.plan(["embed", "pooler"], example, 20, 1e9, skip_unfit=True)
    assert [point.name for point in points] == ["embed"]
    assert left_out == {
        "pooler": "gives shape (5, 4), without tokens; tokens='all' needs a row for each"
    }
    with pytest.raises(LinprobeError, match=r"no layer can be probed: 'pooler' gives shape"):
        read.plan(["pooler"], example, 20, 1e9, skip_unfit=True)

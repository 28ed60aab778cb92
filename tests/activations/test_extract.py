"""Features reach their rows whatever the network, its layout and the batches."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import linprobe
from linprobe import LinprobeError
from linprobe.activations.extract import extract_features
from linprobe.activations.rules import Reduction
from linprobe.data.inputs import Source
from linprobe.data.splits import Split
from tests.support.extraction import extracted, extractor, planned
from tests.support.nets import Encoder, ResNet, Tagger, images, sentences


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_rows_are_those_of_one_pass_in_the_places_given():
    network, (x, y) = ResNet(), images(10)
    permutation = torch.randperm(10)
    found = extracted(network, (x, y), ["layer1", "fc"], permutation=permutation)
    expected = linprobe.Taps(network, ["layer1", "fc"])(x)
    for layer in ("layer1", "fc"):
        torch.testing.assert_close(found[layer][permutation], expected[layer].flatten(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_other_precision_get_inputs_of_theirs(dtype):
    network = ResNet().to(dtype)
    found = extracted(network, images(5), ["layer1"])["layer1"]
    expected = linprobe.Taps(network, ["layer1"])(images(5)[0].to(dtype))["layer1"]
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    assert found.dtype is kept
    assert torch.equal(found, expected.flatten(1).to(kept))


@pytest.mark.parametrize("batch_first", [True, False])
def test_recurrent_nets_of_either_layout(batch_first):
    network, (words, _, labels) = Tagger(batch_first), sentences(9)
    found = extracted(network, (words, words[:, 0] % 3), ["rnn"], tokens="last")["rnn"]
    states = linprobe.Taps(network, ["rnn"])(words)["rnn"]
    expected = states[:, -1] if batch_first else states[-1]
    torch.testing.assert_close(found, expected)
    every = extracted(network, (words, labels), ["rnn"], tokens="all")["rnn"]
    states = states if batch_first else states.transpose(0, 1)
    torch.testing.assert_close(every, states.flatten(0, 1))


def test_a_selector_picks_the_state_of_a_recurrent_net():
    network, (words, _, _) = Tagger(), sentences(9)
    found = extracted(
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
        extracted(network, data, ["rnn"])
    found = extracted(
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
    found = extracted(network, data, layers)
    for layer in layers[:3]:
        kept = outputs[layer] * mask[:, :, None]
        torch.testing.assert_close(found[layer], kept.sum(1) / mask.sum(1, keepdim=True))
    torch.testing.assert_close(found["pooler"], outputs["pooler"])
    every = extracted(network, {**data, "labels": labels}, ["encoder"], tokens="all")["encoder"]
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
            extracted(network, data, [layer], tokens="all")[layer] for data in (batches, whole)
        )
        torch.testing.assert_close(apart, together, rtol=1e-4, atol=1e-5)


def test_a_compiled_network():
    network, data = ResNet(), images(6)
    compiled = torch.compile(network, backend="eager")
    compiled.eval()(data[0])
    names = ["layer2.0.relu:in", "layer2.0.relu#2"]
    found, expected = (extracted(net, data, names) for net in (compiled, network))
    for name in names:
        assert torch.equal(found[name], expected[name])


def test_no_tokens_leaves_the_dimensions_to_the_reducer():
    network, x = nn.Sequential(nn.Conv1d(2, 3, 1), nn.Flatten()), torch.randn(6, 2, 5)
    y = torch.arange(6) % 2
    found = extracted(network, (x, y), ["0"], tokens=None, reduce="mean")["0"]
    torch.testing.assert_close(found, network[0](x).mean(2).detach())


def test_random_columns_are_the_same_for_both_splits():
    network, (x, y) = ResNet(), images(6)
    split = Split.read(Source((x, y), "train", 4), "mean")
    random = extractor(network, reduce="random:5")
    points, _ = planned(random, ["layer1"], next(iter(split.source)), 6)
    assert points[0].stated == "random:5" and points[0].num_features == 5
    assert points[0].reduction == Reduction.parse("random:5")
    found = random.extract(split, points)["layer1"]
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
        extracted(Odd(make), (x.flatten(1), y), ["inner"])
    assert str(caught.value).startswith("layer 'inner'"), "no failure of the network"


def test_a_mask_of_another_length():
    words, mask, _ = sentences(9)
    network = Odd(lambda x: x[:, :5, None].float())
    data = {"x": words, "attention_mask": mask, "labels": words[:, 0] % 3}
    with pytest.raises(LinprobeError, match=r"'inner' gives 5 tokens, the attention mask has 7"):
        extracted(network, data, ["inner"], forward=lambda net, batch: net(batch["x"]))


def test_no_memory_for_the_features(monkeypatch):
    network, data = ResNet(), images(6)
    split = Split.read(Source(data, "train", 4), "mean")
    plain = extractor(network)
    points, _ = planned(plain, ["layer1"], next(iter(split.source)), 6)

    def fail(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 6144 bytes")

    monkeypatch.setattr(torch, "empty", fail)
    message = r"layer 'layer1': no memory for 6 KiB of features; set memory_bytes below 6144"
    with pytest.raises(LinprobeError, match=message) as caught:
        plain.extract(split, points)
    assert "reduce='random:64'" in str(caught.value)


def test_layers_that_are_left_out_say_why():
    every, batch = extractor(Encoder(), tokens="all"), sentences(5)
    split = Split.read(
        Source({"input_ids": batch[0], "attention_mask": batch[1], "labels": batch[2]}, "train", 5),
        "all",
    )
    example = next(iter(split.source))
    points, left_out = planned(every, ["embed", "pooler"], example, 20, skip_unfit=True)
    assert [point.layer for point in points] == ["embed"]
    assert left_out == {
        "pooler": "gives shape (5, 4), without tokens; tokens='all' needs a row for each"
    }
    with pytest.raises(LinprobeError, match=r"no layer can be probed: 'pooler' gives shape"):
        planned(every, ["pooler"], example, 20, skip_unfit=True)


class Counted(nn.Module):
    """A small convolutional network that counts its forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(3 * 4 * 4, 2)
        self.num_passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.num_passes += 1
        return self.fc(self.relu(self.conv(x)).flatten(1))


@pytest.fixture
def network() -> Counted:
    torch.manual_seed(0)
    return Counted()


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(23, 1, 4, 4, generator=torch.Generator().manual_seed(0))


TAPS = ["fc", ":in", "conv", "relu"]


@pytest.mark.parametrize("batch_size", [1, 5, 23, 500])
def test_each_row_belongs_to_its_input(network: Counted, pixels: Tensor, batch_size: int) -> None:
    features = extract_features(network, pixels, TAPS, batch_size=batch_size)
    # One pass over a few samples to plan, then one a batch.
    assert network.num_passes == 1 + -(-23 // batch_size)
    assert list(features) == TAPS
    with torch.no_grad():
        conv = network.conv(pixels)
        expected = {
            "fc": network.fc(conv.relu().flatten(1)),
            ":in": pixels.flatten(1),
            "conv": conv.flatten(1),
            "relu": conv.relu().flatten(1),
        }
    for tap in TAPS:
        assert features[tap].dtype == torch.float32
        assert features[tap].is_contiguous()
        torch.testing.assert_close(features[tap], expected[tap])


def test_room_that_is_given_is_filled_and_reused(network: Counted, pixels: Tensor) -> None:
    expected = extract_features(network, pixels, TAPS)
    sizes = [expected[tap].numel() for tap in TAPS]
    room = torch.full((sum(sizes) - 1,), -7.0)  # too small for the last of them
    split = Split.read(Source((pixels, torch.zeros(23, dtype=torch.int64)), "train", 5), None)
    plain = extractor(network, tokens=None)
    points, _ = planned(plain, TAPS, split.source.first().head(2), 23)
    for _ in range(2):
        found = plain.extract(split, points, room=room)
        for tap in TAPS:
            torch.testing.assert_close(found[tap], expected[tap])
        inside = [x.untyped_storage().data_ptr() == room.data_ptr() for x in found.values()]
        assert sorted(inside) == [False, True, True, True]


def test_the_memory_format_does_not_change_the_order_of_features(
    network: Counted, pixels: Tensor
) -> None:
    expected = extract_features(network, pixels, ["conv"])["conv"]
    network.to(memory_format=torch.channels_last)
    assert network.conv(pixels).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(extract_features(network, pixels, ["conv"])["conv"], expected)


@pytest.mark.parametrize(
    ("dtype", "kept"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)]
)
def test_half_precision_becomes_float32_and_float64_stays(
    dtype: torch.dtype, kept: torch.dtype
) -> None:
    network = nn.Linear(2, 2).to(dtype)
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=dtype)
    features = extract_features(network, x, [""])[""]
    assert features.dtype == kept
    assert torch.equal(features, network(x).detach().to(kept))


def test_the_default_precision_is_not_asked() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        x = torch.ones(2, 2, dtype=torch.float32)
        assert extract_features(nn.Identity(), x, [""])[""].dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_one_number_a_sample_is_one_feature() -> None:
    features = extract_features(nn.Flatten(0), torch.arange(3.0)[:, None], [""])
    assert features[""].tolist() == [[0.0], [1.0], [2.0]]


def test_the_network_is_left_as_it_was(network: Counted, pixels: Tensor) -> None:
    network.train()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    state = torch.get_rng_state()
    extract_features(network, pixels, TAPS, batch_size=7)
    assert all(torch.equal(before[name], p) for name, p in network.named_parameters())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert network.conv.training
    assert torch.equal(torch.get_rng_state(), state)


def test_progress_counts_samples(network: Counted, pixels: Tensor) -> None:
    seen: list[tuple[int, int]] = []
    extract_features(
        network, pixels, ["conv"], batch_size=10, progress=lambda *counts: seen.append(counts)
    )
    assert seen == [(10, 23), (20, 23), (23, 23)]


def test_inputs_that_cannot_be_used_are_refused(network: Counted, pixels: Tensor) -> None:
    with pytest.raises(LinprobeError, match=r"no inputs .* expected at least one"):
        extract_features(network, pixels[:0], ["conv"])
    with pytest.raises(LinprobeError, match="batch_size is 0; expected a whole number from 1 on"):
        extract_features(network, pixels, ["conv"], batch_size=0)
    with pytest.raises(LinprobeError, match="near names: 'conv'"):
        extract_features(network, pixels, ["convv"])
    assert network.num_passes == 0


class Gives(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)  # type: ignore[operator]


@pytest.mark.parametrize("function", [torch.sum, lambda x: x.flatten(), lambda x: x.T])
def test_a_tap_needs_a_row_for_each_sample(function: object) -> None:
    with pytest.raises(LinprobeError, match=r"layer '' gives shape .* for \d samples"):
        extract_features(Gives(function), torch.ones(4, 2), [""])


def test_a_width_that_changes_is_refused() -> None:
    grows = Gives(lambda x: x[:, : int(x[0, 0])])
    x = torch.tensor([[1.0, 2, 3], [1, 2, 3], [3, 2, 1], [3, 2, 1]])
    message = "layer '' gives 3 features, but 1 in the first batch"
    with pytest.raises(LinprobeError, match=message):
        extract_features(grows, x, [""], batch_size=2)


def test_widths_are_those_of_the_features(network: Counted, pixels: Tensor) -> None:
    example = Source((pixels, torch.zeros(23, dtype=torch.int64)), "train", 5).first().head(1)
    points, _ = planned(extractor(network, tokens=None), TAPS, example, 23)
    widths = {point.layer: point.num_features for point in points}
    assert widths == {"fc": 2, ":in": 16, "conv": 48, "relu": 48}
    assert list(widths) == TAPS


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_on_a_gpu_gets_its_inputs_there(network: Counted, pixels: Tensor) -> None:
    expected = extract_features(network, pixels, TAPS)
    on_gpu = extract_features(network.cuda(), pixels, TAPS, device="cuda")
    to_cpu = extract_features(network, pixels, TAPS)
    for tap in TAPS:
        assert on_gpu[tap].is_cuda and not to_cpu[tap].is_cuda
        torch.testing.assert_close(to_cpu[tap], expected[tap], rtol=1e-3, atol=1e-3)

"""Features are complete, in order, flattened, and extracted in one pass a batch."""

import pytest
import torch
from linprobe.activations.features import extract_features, feature_widths, plan_groups
from torch import Tensor, nn

from linprobe.runtime.errors import LinprobeError


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
def images() -> Tensor:
    return torch.randn(23, 1, 4, 4, generator=torch.Generator().manual_seed(0))


TAPS = ["fc", ":in", "conv", "relu"]


@pytest.mark.parametrize("batch_size", [1, 5, 23, 500])
def test_each_row_belongs_to_its_input(network: Counted, images: Tensor, batch_size: int) -> None:
    features = extract_features(network, images, TAPS, batch_size=batch_size)
    assert network.num_passes == -(-23 // batch_size)
    assert list(features) == TAPS
    with torch.no_grad():
        conv = network.conv(images)
        expected = {
            "fc": network.fc(conv.relu().flatten(1)),
            ":in": images.flatten(1),
            "conv": conv.flatten(1),
            "relu": conv.relu().flatten(1),
        }
    for tap in TAPS:
        assert features[tap].dtype == torch.float32
        assert features[tap].is_contiguous()
        torch.testing.assert_close(features[tap], expected[tap])


def test_room_that_is_given_is_filled_and_reused(network: Counted, images: Tensor) -> None:
    expected = extract_features(network, images, TAPS)
    sizes = [expected[tap].numel() for tap in TAPS]
    room = torch.full((sum(sizes) - 1,), -7.0)  # too small for the last of them
    for _ in range(2):
        found = extract_features(network, images, TAPS, batch_size=5, room=room)
        for tap in TAPS:
            torch.testing.assert_close(found[tap], expected[tap])
        inside = [x.untyped_storage().data_ptr() == room.data_ptr() for x in found.values()]
        assert sorted(inside) == [False, True, True, True]


def test_the_memory_format_does_not_change_the_order_of_features(
    network: Counted, images: Tensor
) -> None:
    expected = extract_features(network, images, ["conv"])["conv"]
    network.to(memory_format=torch.channels_last)
    assert network.conv(images).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(extract_features(network, images, ["conv"])["conv"], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype) -> None:
    network = nn.Linear(2, 2).to(dtype)
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=dtype)
    features = extract_features(network, x, [""])[""]
    assert features.dtype == torch.float32
    assert torch.equal(features, network(x).detach().float())


def test_the_default_precision_is_not_asked() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        assert extract_features(nn.Identity(), torch.ones(2, 2), [""])[""].dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_one_number_a_sample_is_one_feature() -> None:
    features = extract_features(nn.Flatten(0), torch.arange(3.0)[:, None], [""])
    assert features[""].tolist() == [[0.0], [1.0], [2.0]]


def test_the_network_is_left_as_it_was(network: Counted, images: Tensor) -> None:
    network.train()
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    state = torch.get_rng_state()
    extract_features(network, images, TAPS, batch_size=7)
    assert all(torch.equal(before[name], p) for name, p in network.named_parameters())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert network.conv.training
    assert torch.equal(torch.get_rng_state(), state)


def test_progress_counts_samples(network: Counted, images: Tensor) -> None:
    seen: list[tuple[int, int]] = []
    extract_features(
        network, images, ["conv"], batch_size=10, progress=lambda *counts: seen.append(counts)
    )
    assert seen == [(10, 23), (20, 23), (23, 23)]


def test_inputs_that_cannot_be_used_are_refused(network: Counted, images: Tensor) -> None:
    with pytest.raises(LinprobeError, match=r"no inputs .* expected at least one"):
        extract_features(network, images[:0], ["conv"])
    with pytest.raises(LinprobeError, match="batch size is 0; expected at least 1"):
        extract_features(network, images, ["conv"], batch_size=0)
    with pytest.raises(LinprobeError, match="near names: 'conv'"):
        extract_features(network, images, ["convv"])
    assert network.num_passes == 0


class Gives(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)  # type: ignore[operator]


@pytest.mark.parametrize("function", [torch.sum, lambda x: x.flatten(), lambda x: x.T])
def test_a_tap_needs_a_row_for_each_sample(function: object) -> None:
    with pytest.raises(LinprobeError, match=r"tap '' gives shape .* for 4 samples"):
        extract_features(Gives(function), torch.ones(4, 2), [""])


def test_a_width_that_changes_is_refused() -> None:
    grows = Gives(lambda x: x[:, : int(x[0, 0])])
    x = torch.tensor([[1.0, 2, 3], [1, 2, 3], [3, 2, 1], [3, 2, 1]])
    message = "tap '' gives 3 features from sample 2 on, but 1 before"
    with pytest.raises(LinprobeError, match=message):
        extract_features(grows, x, [""], batch_size=2)


def test_widths_are_those_of_the_features(network: Counted, images: Tensor) -> None:
    widths = feature_widths(network, images, TAPS)
    assert widths == {"fc": 2, ":in": 16, "conv": 48, "relu": 48}
    assert list(widths) == TAPS


def test_groups_keep_the_order_and_the_budget() -> None:
    widths = {"a": 10, "b": 10, "c": 100, "d": 10, "e": 10, "f": 10}
    groups = plan_groups(widths, num_rows=5, budget_bytes=4 * 5 * 25)
    assert groups == [("a", "b"), ("c",), ("d", "e"), ("f",)]
    assert plan_groups(widths, 5, 4 * 5 * 150) == [tuple(widths)]
    assert plan_groups(widths, 5, 0) == [(tap,) for tap in widths]
    assert plan_groups({}, 5, 100) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_on_a_gpu_gets_its_inputs_there(network: Counted, images: Tensor) -> None:
    expected = extract_features(network, images, TAPS)
    on_gpu = extract_features(network.cuda(), images, TAPS, device="cuda")
    to_cpu = extract_features(network, images, TAPS)
    for tap in TAPS:
        assert on_gpu[tap].is_cuda and not to_cpu[tap].is_cuda
        torch.testing.assert_close(to_cpu[tap], expected[tap], rtol=1e-3, atol=1e-3)

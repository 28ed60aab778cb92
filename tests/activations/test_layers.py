"""Listing probe points and choosing among them."""

import pytest
import torch
from torch import nn

import linprobe
from linprobe import LinprobeError
from linprobe.activations.layers import choose_layers
from tests.support.nets import Encoder, ResNet, Tagger, images, sentences


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ResNet()


@pytest.fixture
def table(network):
    return linprobe.layers(network, images(2)[0])


def test_every_call_is_a_row_in_the_order_of_the_pass(table):
    names = list(table.names)
    assert names[:4] == ["conv1", "layer1.0.conv1", "layer1.0.bn1", "layer1.0.relu"]
    assert names[-3:] == ["avgpool", "drop", "fc"]
    assert names.index("layer1.0.relu#2") == names.index("layer1.0") - 1
    again = table["layer1.0.relu#2"]
    assert (again.type, again.num_calls, again.num_features) == ("ReLU", 2, 256)
    assert table["layer2"].shape == (2, 6, 4, 4) and table["layer2"].num_features == 96
    assert table["layer1.0.conv1"].is_leaf and not table["layer1.0"].is_leaf


def test_table_prints_a_line_a_row(table):
    lines = str(table).splitlines()
    assert len(lines) == 1 + len(table) == 1 + len(list(table))
    assert lines[0].split() == ["layer", "type", "output", "features", "calls"]
    assert lines[-1].split() == ["fc", "Linear", "2", "x", "3", "3", "1"]


def test_what_passes_its_input_through_is_marked(table):
    assert table["drop"].passes_through
    # In place, it gives the tensor that it took, with other values.
    assert not table["layer1.0.relu"].passes_through


def test_listing_leaves_the_network_as_it_was(network):
    network.train()
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    linprobe.layers(network, images(2)[0])
    assert network.training and network.layer1[0].bn1.training
    assert all(torch.equal(value, buffers[name]) for name, value in network.named_buffers())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_attention_is_a_leaf_though_it_holds_a_module():
    words, mask, _ = sentences(2)
    table = linprobe.layers(Encoder(), {"input_ids": words, "attention_mask": mask})
    assert table["encoder.layers.0.self_attn"].is_leaf
    assert not table["encoder.layers.0"].is_leaf
    assert "encoder.layers.0.self_attn.out_proj" not in table.names


def test_recurrent_nets_with_words_first_have_samples():
    table = linprobe.layers(Tagger(batch_first=False), sentences(2)[0])
    assert table["rnn"].shape == (7, 2, 5) and table["rnn"].num_features == 35


@pytest.mark.parametrize("kind", ["input", "array", "pair", "dict", "loader"])
def test_examples_of_every_kind(network, kind):
    x, y = images(4)
    example = {
        "input": x,
        "array": x.numpy(),
        "pair": (x, y),
        "dict": {"x": x, "labels": y},
        "loader": torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 4),
    }[kind]
    assert linprobe.layers(network, example)["fc"].shape == (4, 3)


def test_forward_runs_what_is_not_simply_called(network):
    example = {"picture": images(2)[0]}
    table = linprobe.layers(network, example, forward=lambda net, batch: net(batch["picture"]))
    assert table["fc"].shape == (2, 3)
    with pytest.raises(LinprobeError, match=r"fails on a batch of 2.*TypeError.*picture"):
        linprobe.layers(network, example)


def test_choices(network, table):
    def chosen(layers):
        return list(choose_layers(network, table, layers))

    default = chosen(None)
    assert "drop" not in default and "layer1" not in default and "layer1.0.relu#2" in default
    assert chosen("layer?") == ["layer1", "layer2"]
    assert chosen(["fc", "layer?", "fc"]) == ["fc", "layer1", "layer2"]
    assert chosen("**.bn2:in") == ["layer1.0.bn2:in", "layer2.0.bn2:in"]
    assert chosen(":in") == [":in"]
    assert len(chosen(nn.Conv2d)) == 7
    assert chosen(lambda name, module: isinstance(module, nn.Linear)) == ["fc"]
    calls = chosen(lambda name, module: module is network.layer1[0].relu)
    assert calls == ["layer1.0.relu", "layer1.0.relu#2"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("layer9", "no layer 'layer9'; near names: 'layer2', 'layer1'"),
        ("zzz*", "no layer 'zzz\\*'; there are 'conv1', "),
        ([], "layers is empty"),
        (nn.LSTM, "no layer is chosen by LSTM; the network has 'conv1'"),
        (lambda name, module: False, "no layer is chosen by the predicate"),
    ],
)
def test_a_choice_of_nothing_says_what_there_is(network, table, layers, message):
    with pytest.raises(LinprobeError, match=message):
        choose_layers(network, table, layers)


def test_an_unknown_row_shows_near_names(table):
    with pytest.raises(LinprobeError, match="near names: 'fc'"):
        _ = table["fcc"]


class Inference(nn.Module):
    """Runs in inference mode, whose tensors keep no count of writes."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 3)
        self.relu = nn.ReLU(inplace=True)

    @torch.inference_mode()
    def forward(self, x):
        return self.relu(self.fc(x))


def test_a_network_that_runs_in_inference_mode():
    table = linprobe.layers(Inference(), torch.randn(2, 3))
    assert table.names == ("fc", "relu") and not table["relu"].passes_through


def test_a_module_that_is_mapped_over_samples():
    class Mapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.relu = nn.Linear(3, 4), nn.ReLU()

        def forward(self, x):
            return self.relu(torch.func.vmap(self.fc)(x))

    table = linprobe.layers(Mapped(), torch.randn(2, 5, 3))
    assert table["relu"].shape == (2, 5, 4) and table["fc"].shape == (5, 4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_torchscript_is_no_point():
    traced = torch.jit.trace(nn.Linear(3, 3), torch.randn(2, 3))
    network = nn.Sequential(nn.Linear(3, 3), traced)
    assert linprobe.layers(network, torch.randn(2, 3)).names == ("0",)
    with pytest.raises(LinprobeError, match="layer '1' is TorchScript, which takes no hooks"):
        linprobe.Taps(network, ["1"])


def test_a_layer_with_a_parametrized_weight_is_a_leaf():
    network = nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)))
    table = linprobe.layers(network, torch.randn(2, 3))
    assert table.names == ("0",) and table["0"].is_leaf


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.complex64])
def test_inputs_of_a_wrong_dtype_say_what_to_give(dtype):
    network, x = nn.Sequential(nn.Conv2d(1, 2, 3)), torch.ones(4, 1, 5, 5).to(dtype)
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(LinprobeError, match=f"it was given {name}: where.*x.float.. / 255 say"):
        linprobe.layers(network, x)

"""The untrained copy is drawn anew, by its seed alone, and the network stays as it was."""

import math
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from linprobe.evaluation.untrained import untrained_network
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.randomness import seeded


def network():
    with seeded(0):
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1.0)
        net[1].running_mean.fill_(7.0)
    return net


def test_weights_are_drawn_by_the_seed():
    net = network()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    one, again, other = (untrained_network(net, seed)[0] for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not torch.equal(one[0].weight, net[0].weight)
    assert torch.equal(one[0].weight, again[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)
    assert float(one[1].running_mean.abs().max()) == 0.0
    bound = 1 / 5**0.5
    largest = [float(n[3].weight.detach().abs().max()) for n in (one, net)]
    assert largest[0] <= bound < largest[1]


def fill(net, value=5.0):
    """Weights that no initialiser draws."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(value)
    return net


def drawn(net, seed=3):
    """The untrained network of one whose weights are all 5; that one stays as it is."""
    fill(net)
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    state = torch.random.get_rng_state()
    made, said = untrained_network(net, seed)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(bool((p == 5).all()) for p in net.parameters())
    assert all(torch.equal(buffers[name], b) for name, b in net.named_buffers())
    assert not any(bool((p == 5).any() | p.isnan().any()) for p in made.parameters())
    assert [n for n, _ in made.named_parameters()] == [n for n, _ in net.named_parameters()]
    return made, said


def huggingface(name, **changes):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, name.partition("For")[0].removesuffix("Model") + "Config")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    made = config(**{**sizes, "num_attention_heads": 4, **changes})
    torch.manual_seed(0)
    return getattr(transformers, name)(made)


def spread(parameter):
    return float(parameter.detach().std())


def test_bert_is_drawn_as_bert_is_not_as_its_layers_are():
    made, said = drawn(huggingface("BertModel", vocab_size=500))
    assert spread(made.embeddings.word_embeddings.weight) == pytest.approx(0.02, rel=0.05)
    assert spread(made.encoder.layer[1].output.dense.weight) == pytest.approx(0.02, rel=0.1)
    assert bool((made.embeddings.LayerNorm.weight == 1).all())
    assert not made.encoder.layer[0].output.dense.bias.any()
    assert said == "The control 'untrained' drew its weights by BertModel(config)."


def test_llama_keeps_its_rotary_frequencies_and_its_ties():
    net = huggingface("LlamaForCausalLM", vocab_size=500, tie_word_embeddings=True)
    frequencies = net.model.rotary_emb.inv_freq.clone()
    made, _ = drawn(net)
    assert torch.equal(made.model.rotary_emb.inv_freq, frequencies)
    assert made.lm_head.weight is made.model.embed_tokens.weight
    assert spread(made.lm_head.weight) == pytest.approx(0.02, rel=0.05)
    assert bool((made.model.layers[0].input_layernorm.weight == 1).all())
    ids = torch.arange(6)[None]
    assert bool(made(ids).logits.isfinite().all())


def test_class_tokens_of_vision_transformers():
    made, _ = drawn(huggingface("ViTModel", image_size=16, patch_size=8))
    positions = made.embeddings.position_embeddings
    assert 0.005 < spread(positions) < 0.04
    assert spread(made.embeddings.cls_token) < 0.04


def test_a_family_of_norms_that_start_at_zero():
    """Gemma's norms multiply by 1 + weight."""
    made, _ = drawn(huggingface("GemmaModel", vocab_size=50, head_dim=8))
    assert not made.norm.weight.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_dtype_stays(dtype):
    made, _ = drawn(huggingface("BertModel", vocab_size=50).to(dtype))
    assert {p.dtype for p in made.parameters()} == {dtype}


def test_a_new_head_inside_and_around_a_library_network():
    bert = huggingface("BertForSequenceClassification", vocab_size=500)
    bert.classifier = nn.Linear(32, 7)
    made, said = drawn(nn.ModuleDict({"bert": bert, "head": nn.Linear(32, 7)}))
    embeddings = made["bert"].bert.embeddings.word_embeddings
    assert spread(embeddings.weight) == pytest.approx(0.02, rel=0.05)
    assert made["bert"].classifier.weight.shape == (7, 32)
    assert float(made["head"].weight.detach().abs().max()) <= 1 / math.sqrt(32)
    assert "BertForSequenceClassification(config)" in said


class Net(nn.Module):
    """Initialised by a function of its modules, as nanoGPT is; scales itself afterwards."""

    def __init__(self, std=0.3):
        super().__init__()
        self.std = std
        self.first, self.second = nn.Linear(20, 30), nn.Linear(30, 20)
        self.apply(self._init_weights)

    def _init_weights(self, module):
        if isinstance(module, nn.Linear):
            module.weight.data.normal_(0.0, self.std)


class ByItself(nn.Module):
    """Has `init_weights` as timm's networks have, and a token that only it draws."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(20, 30), nn.Linear(30, 20)
        self.token = nn.Parameter(torch.empty(1, 4))
        self.init_weights()

    def init_weights(self, mode=""):
        nn.init.constant_(self.token, 0.25)
        nn.init.normal_(self.second.weight, std=0.7)


@pytest.mark.parametrize(("kind", "first", "second"), [(Net, 0.3, 0.3), (ByItself, None, 0.7)])
def test_own_initialisers_come_after_those_of_the_layers(kind, first, second):
    made, said = drawn(kind())
    assert kind.__name__ in said
    assert spread(made.second.weight) == pytest.approx(second, rel=0.1)
    assert spread(made.first.weight) == pytest.approx(first or 1 / math.sqrt(60), rel=0.1)
    assert float(made.first.bias.detach().abs().max()) <= 1 / math.sqrt(20)
    if kind is ByItself:
        assert bool((made.token == 0.25).all())


def test_a_network_of_timm_is_made_again_by_its_name(monkeypatch):
    asked = []

    def create_model(name, num_classes):
        asked.append((name, num_classes))
        return fill(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1000)), 0.5)

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net.pretrained_cfg = {"architecture": "tiny"}
    made, said = drawn(net)
    assert asked == [("tiny", None)]
    assert bool((made[0].weight == 0.5).all())
    assert float(made[1].weight.detach().abs().max()) < 0.5  # another head
    assert "timm (tiny)" in said


class RMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 400))
        self.norm = RMSNorm()


def test_norms_and_tokens_without_an_initialiser_follow_the_convention():
    made, said = drawn(Tokens())
    assert bool((made.norm.weight == 1).all())
    assert spread(made.cls_token) == pytest.approx(0.02, rel=0.15)
    assert said.endswith("by convention for norms, class tokens and positions.")


def test_attention_and_recurrent_layers_draw_by_themselves():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    whole = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
    made, said = drawn(nn.ModuleList([whole, layer, nn.LSTM(3, 4)]))
    assert said.endswith(
        "by the defaults of its layers; give `untrained` if the network began otherwise."
    )
    assert not made[1].self_attn.in_proj_bias.any()
    assert made[1].self_attn.in_proj_weight.detach().abs().max() <= math.sqrt(6 / 32)


def test_weights_that_are_computed():
    made, _ = drawn(parametrizations.weight_norm(nn.Linear(20, 30)))
    assert float(made.weight.detach().abs().max()) <= 1 / math.sqrt(20)
    expected = made.weight.detach().norm(dim=1, keepdim=True)
    torch.testing.assert_close(made.parametrizations.weight.original0.detach(), expected)
    with pytest.raises(LinprobeError, match=r"'parametrizations\.weight\.original' \(Parametr"):
        untrained_network(parametrizations.spectral_norm(nn.Linear(20, 30)), 0)


def test_adapters_begin_by_adding_nothing():
    """As PEFT lays them into a network."""
    inner = nn.ModuleDict({"lora_A": nn.Linear(8, 2), "lora_B": nn.Linear(2, 8, bias=False)})
    made, _ = drawn(nn.ModuleDict({"base_layer": nn.Linear(8, 8), "adapter": inner}))
    assert not made["adapter"]["lora_B"].weight.any()
    assert made["adapter"]["lora_A"].weight.any()


def test_a_wrapped_network_is_drawn_as_the_one_inside():
    made, _ = untrained_network(nn.DataParallel(network()), 1)
    assert torch.equal(made[0].weight, untrained_network(network(), 1)[0][0].weight)


def test_parameters_that_nothing_draws_are_named():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(3))

    with pytest.raises(
        LinprobeError,
        match=r"can't be made \(1 parameter without an initialiser: '1\.factor' \(Scale\)\); give "
        r"`untrained`, a network as before training or a function f\(seed\)",
    ):
        untrained_network(nn.Sequential(nn.ReLU(), Scale()), 0)


def test_an_initialiser_that_leaves_some_weights_is_found_out():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def reset_parameters(self):
            nn.init.zeros_(self.weight[:2])

    with pytest.raises(LinprobeError, match=r"'weight' \(Half\)"):
        untrained_network(Half(), 0)


def test_weights_that_are_not_in_memory_or_of_whole_numbers():
    with pytest.raises(LinprobeError, match="its weights are not in memory"):
        untrained_network(nn.Linear(2, 2, device="meta"), 0)
    net = nn.Linear(2, 2)
    net.weight = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(LinprobeError, match="can't be made"):
        untrained_network(net, 0)


class QuantLinear(nn.Module):
    """Holds its weights as GPTQ does."""

    def __init__(self):
        super().__init__()
        self.register_buffer("qweight", torch.ones(4, 4, dtype=torch.int32))


def test_weights_that_are_no_parameters():
    """They would stay as they were trained."""
    with pytest.raises(LinprobeError, match="the weights of layer '1' are quantised"):
        untrained_network(nn.Sequential(nn.Linear(4, 4), QuantLinear()), 0)
    with pytest.raises(LinprobeError, match="it has no parameters of PyTorch's"):
        untrained_network(nn.Sequential(nn.Flatten()), 0)


def test_weights_that_do_not_change_are_said():
    class Loads(nn.Module):
        """Its constructor loads trained weights."""

        def __init__(self, config):
            super().__init__()
            self.config = config
            self.fc = nn.Linear(2, 2)
            with torch.no_grad():
                self.fc.weight.copy_(torch.arange(4.0).view(2, 2))

    _, said = untrained_network(Loads({}), 0)
    assert said == (
        "The control 'untrained' drew its weights by Loads(config); 1 of its weight matrices "
        "came out as in the network: not trained there, or made with trained weights."
    )


def test_what_is_given_is_taken():
    given = nn.Linear(2, 2)
    assert untrained_network(network(), 0, given)[0] is given
    one, again = (untrained_network(network(), 4, lambda seed: nn.Linear(2, seed))[0] for _ in "ab")
    assert one.out_features == 4
    assert torch.equal(one.weight, again.weight)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda seed: 3, "untrained gives a int; expected a torch.nn.Module, as it was before"),
        (lambda: nn.ReLU(), r"untrained failed: TypeError: .*; expected a network, or a function"),
        ("itself", "untrained shares parameters with the network itself"),
    ],
)
def test_what_is_given_and_can_not_be_taken(given, message):
    net = network()
    with pytest.raises(LinprobeError, match=message):
        untrained_network(net, 0, net if given == "itself" else given)

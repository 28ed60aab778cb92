"""Dimensions and masks as they are read from the networks that people probe."""

import pytest
import torch
from torch import nn

import linprobe
from linprobe import ExtractionOptions, LinprobeError, Taps
from linprobe.activations.reading import check_layout, layout_text
from tests.support.extraction import extracted, extractor, planned
from tests.support.nets import Encoder

IDS = torch.randint(3, 40, (8, 9), generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(9) < torch.arange(2, 10)[:, None]).long()
Y = torch.arange(8) % 2
SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def tiny(name, config, **options):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    return getattr(transformers, name)(getattr(transformers, config)(**options)).eval()


def mean(states, mask):
    """Of the tokens that a mask keeps, (n_samples, n_features)."""
    return (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)


def output(network, layer, **inputs):
    return Taps(network, [layer])(**inputs)[layer]


def test_channels_first_are_averaged_over_places():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv1d(3, 6, 3), nn.ReLU(), nn.Sequential(nn.GroupNorm(2, 6), nn.GELU()), nn.Flatten()
    )
    x, layers = torch.randn(8, 3, 10), [":in", "1", "2", "2.0"]
    outputs = Taps(network, layers)(x)
    found = extracted(network, (x, Y), layers)
    for layer in layers:
        torch.testing.assert_close(found[layer], outputs[layer].mean(2))
    last = extracted(network, (x, Y), ["2"], tokens="last")["2"]
    assert torch.equal(last, outputs["2"][:, :, -1])
    every = extracted(network, (x, Y[:, None].expand(8, 8)), ["2"], tokens="all")["2"]
    assert torch.equal(every, outputs["2"].transpose(1, 2).flatten(0, 1))


def test_a_probe_of_channels_first_reads_new_activations_so():
    network = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU())
    x, y = torch.randn(40, 2, 9), torch.arange(40) % 2
    report = linprobe.probe(network, (x, y), (x, y), layers="1")
    probe, activation = report["1"], Taps(network, ["1"])(x)["1"]
    assert probe.record.reducer == "channels_first, tokens=mean"
    torch.testing.assert_close(probe.features(activation), activation.mean(2))
    note = "Channels come first in layer '1': positions were taken for tokens; tokens=None keeps"
    assert any(n.startswith(note) for n in report.notes)


def test_one_channel_of_a_signal_is_kept_whole():
    network, x = nn.Sequential(nn.Conv1d(1, 4, 3)), torch.randn(8, 1, 9)
    assert torch.equal(extracted(network, (x, Y), [":in"])[":in"], x.flatten(1))


def test_channels_last_are_pooled_over_places():
    config = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2, "patch_size": 2}
    network, x = tiny("ConvNextModel", "ConvNextConfig", **config), torch.randn(8, 3, 16, 16)
    inside = "encoder.stages.1.layers.0"
    layers = [f"{inside}.pwconv1", f"{inside}.dwconv"]
    outputs = Taps(network, layers)(x)
    found = extracted(network, (x, Y), layers, reduce="mean")
    torch.testing.assert_close(found[layers[0]], outputs[layers[0]].mean((1, 2)))
    torch.testing.assert_close(found[layers[1]], outputs[layers[1]].mean((2, 3)))
    flat = extracted(network, (x, Y), layers, reduce="flatten")
    assert torch.equal(flat[layers[0]], outputs[layers[0]].flatten(1))


def test_tokens_of_several_heads():
    network = tiny(
        "Qwen3Model",
        "Qwen3Config",
        **SMALL,
        vocab_size=50,
        hidden_size=16,
        num_key_value_heads=1,
        head_dim=8,
    )
    layer = "layers.0.self_attn.q_norm"
    data = {"input_ids": IDS, "attention_mask": MASK, "labels": Y}
    states = output(network, layer, input_ids=IDS, attention_mask=MASK)
    assert states.shape == (8, 9, 2, 8)
    expected = mean(states.flatten(2), MASK)
    torch.testing.assert_close(extracted(network, data, [layer])[layer], expected)
    batches = [
        {name: value[i : i + 4, : i + 5] for name, value in data.items() if name != "labels"}
        for i in (0, 4)
    ]
    batches = [{**batch, "labels": Y[:4]} for batch in batches]
    assert extracted(network, batches, [layer])[layer].shape == (8, 16)


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("tokens", ["mean", "last", "first"])
def test_an_additive_mask_is_understood(padding, tokens):
    network = Encoder().eval()
    kept = MASK if padding == "right" else MASK.flip(1)
    added = torch.where(kept == 1, 0.0, -1e9)
    ids = IDS % 20

    def forward(net, batch):
        return net(batch["input_ids"], batch["attention_mask"] == 0)

    found = extracted(
        network,
        {"input_ids": ids, "attention_mask": added, "labels": Y},
        ["encoder"],
        tokens=tokens,
        forward=forward,
    )["encoder"]
    plain = {"input_ids": ids, "attention_mask": kept, "labels": Y}
    torch.testing.assert_close(
        found, extracted(network, plain, ["encoder"], tokens=tokens)["encoder"]
    )
    states = network(ids, kept)["hidden"].detach()
    first = kept.argmax(1)
    place = {"first": first, "last": first + kept.sum(1) - 1}.get(tokens)
    expected = mean(states, kept) if place is None else states[torch.arange(8), place]
    torch.testing.assert_close(found, expected)


SPEECH = {"hidden_size": 16, "conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 8)}


@pytest.mark.parametrize("name", ["Wav2Vec2", "Hubert"])
def test_masks_of_samples_are_scaled_to_frames(name):
    network = tiny(
        f"{name}Model",
        f"{name}Config",
        **SMALL,
        **SPEECH,
        feat_extract_norm="layer",
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    x = torch.randn(8, 400)
    mask = (torch.arange(400) < torch.tensor([400, 200])[Y][:, None]).long()
    layers = ["feature_extractor.conv_layers.0", "encoder.layers.0"]
    inputs = {"input_values": x * mask, "attention_mask": mask}
    outputs = Taps(network, layers)(**inputs)
    found = extracted(network, {**inputs, "labels": Y}, layers)
    states = outputs[layers[1]]
    frames = network._get_feature_vector_attention_mask(states.shape[1], mask)
    assert frames.sum(1).tolist() == [18, 8] * 4
    torch.testing.assert_close(found[layers[1]], mean(states, frames.long()))
    early = outputs[layers[0]].transpose(1, 2)  # 79 frames of 400 samples
    kept = torch.arange(79) < torch.tensor([79, 39])[Y][:, None]
    torch.testing.assert_close(found[layers[0]], mean(early, kept.long()))
    last = extracted(network, {**inputs, "labels": Y}, layers[1:], tokens="last")[layers[1]]
    torch.testing.assert_close(last, states[torch.arange(8), frames.sum(1) - 1])


def test_each_half_of_whisper_has_its_own_tokens():
    network = tiny(
        "WhisperModel",
        "WhisperConfig",
        **dict.fromkeys(("encoder_layers", "decoder_layers"), 1),
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
        **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 32),
        **{"vocab_size": 50, "d_model": 16, "num_mel_bins": 8, "max_source_positions": 30},
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
    )
    mask = (torch.arange(60) < torch.tensor([60, 31])[Y][:, None]).long()
    inputs = {"input_features": torch.randn(8, 8, 60), "attention_mask": mask}
    inputs["decoder_input_ids"] = IDS
    outputs = Taps(network, ["encoder.layers.0", "decoder.layers.0"])(**inputs)
    found = extracted(network, {**inputs, "labels": Y}, list(outputs))
    frames = (torch.arange(30) < torch.tensor([30, 16])[Y][:, None]).long()
    encoded, decoded = outputs.values()
    torch.testing.assert_close(found["encoder.layers.0"], mean(encoded, frames))
    torch.testing.assert_close(found["decoder.layers.0"], decoded.mean(1))


def test_a_decoder_goes_by_its_own_mask():
    network = tiny(
        "T5Model", "T5Config", vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    inputs = {"input_ids": IDS, "attention_mask": MASK, "decoder_input_ids": IDS.flip(1)}
    decoder = "decoder.block.0"
    states = output(network, decoder, **inputs)
    found = extracted(network, {**inputs, "labels": Y}, [decoder])[decoder]
    torch.testing.assert_close(found, states.mean(1))  # though there are as many
    inputs["decoder_attention_mask"] = MASK.flip(0)
    states = output(network, decoder, **inputs)
    found = extracted(network, {**inputs, "labels": Y}, [decoder])[decoder]
    torch.testing.assert_close(found, mean(states, MASK.flip(0)))


def test_a_mask_of_words_is_none_of_patches():
    part = {"hidden_size": 16, **SMALL}
    network = tiny(
        "CLIPModel",
        "CLIPConfig",
        text_config={**part, "vocab_size": 50, "eos_token_id": 2},
        vision_config={**part, "image_size": 16, "patch_size": 4},
        projection_dim=8,
    )
    ids = torch.randint(3, 40, (8, 17))  # as many words as there are patches and a class token
    mask = (torch.arange(17) < torch.arange(2, 10)[:, None]).long()
    inputs = {"input_ids": ids, "attention_mask": mask, "pixel_values": torch.randn(8, 3, 16, 16)}
    layers = [f"{part}_model.encoder.layers.0" for part in ("vision", "text")]
    seen, said = Taps(network, layers)(**inputs).values()
    found = extracted(network, {**inputs, "labels": Y}, layers)
    torch.testing.assert_close(found[layers[0]], seen.mean(1))
    torch.testing.assert_close(found[layers[1]], mean(said, mask))
    data = {**inputs, "labels": Y}
    report = linprobe.probe(network, data, data, layers=layers)
    note = f"The attention mask does not count the tokens of layer {layers[0]!r}, which come from"
    assert any(n.startswith(note) for n in report.notes)


@pytest.mark.parametrize("shape", [(8, 9, 9), (8, 1, 9, 9), (8, 2, 1, 9)])
def test_masks_of_queries_and_keys_are_refused_where_tokens_are_picked(shape):
    data = {"input_ids": IDS % 20, "attention_mask": torch.ones(shape), "labels": Y}
    options = {"forward": lambda net, batch: net(batch["input_ids"], MASK[: len(batch["labels"])])}
    with pytest.raises(LinprobeError, match=r"'embed' meets an attention_mask of shape .*forward"):
        extracted(Encoder(), data, ["embed"], **options)
    assert extracted(Encoder(), data, ["pooler"], **options)["pooler"].shape == (8, 4)


class Prompted(Encoder):
    """Puts a prompt before the words."""

    def forward(self, input_ids, attention_mask):
        x = self.embed(input_ids)
        return self.pooler(torch.cat([x.new_zeros(len(x), 2, 8), x], 1))


def test_a_prompt_that_the_mask_does_not_count():
    network = Prompted()
    data = {"input_ids": IDS % 20, "attention_mask": MASK, "labels": Y}
    with pytest.raises(LinprobeError, match=r"'pooler' gives 11 tokens, the attention mask has 9"):
        extracted(network, data, ["pooler"])
    batch = linprobe.data.batches.Batch.read(data, "train")
    points, left_out = planned(extractor(network), ["embed", "pooler"], batch, 8, skip_unfit=True)
    assert [point.layer for point in points] == ["embed"] and "11 tokens" in left_out["pooler"]


def test_labels_of_frames_need_no_mask_of_samples():
    network = nn.Sequential(nn.Conv1d(1, 4, 10, 5), nn.GELU())
    labels = (torch.arange(9) + Y[:, None]) % 3
    labels[::2, 5:] = -100
    data = {"input": torch.randn(8, 1, 50), "attention_mask": torch.ones(8, 50), "labels": labels}
    rows = extracted(
        network, data, ["1"], tokens="all", forward=lambda net, batch: net(batch["input"])
    )["1"]
    states = network(data["input"]).transpose(1, 2).detach()
    torch.testing.assert_close(rows, states[labels != -100])


class Opaque(torch.autograd.Function):
    """An operation that can't be followed."""

    @staticmethod
    def forward(ctx, x):
        return x.repeat(1, 1, 1)

    @staticmethod
    def backward(ctx, grad):
        return grad


class Guess(nn.Module):
    def forward(self, x):
        return Opaque.apply(x)


X, LABELS = torch.randn(30, 4, 6), torch.arange(30) % 2


def test_a_layout_that_can_not_be_told_is_said_and_may_be_stated():
    def probed(layout):
        options = ExtractionOptions(layout=layout)
        return linprobe.probe(Guess(), (X, LABELS), (X, LABELS), layers="", extraction=options)

    told = probed(None)
    assert told.records[0].num_features == 6
    note = "The layout of layer '' can't be told from its operations: three dimensions were taken"
    assert any(n.startswith(note) for n in told.notes)
    for layout in ("channels_first", {"**": "channels_first"}):
        stated = probed(layout)
        assert stated.records[0].num_features == 4
        assert not any("can't be told" in n for n in stated.notes)
    assert stated.run.config.extraction.layout == "**=channels_first"
    assert probed("features").records[0].num_features == 24
    assert probed("channels_last").records[0].reducer == "tokens=mean"


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("nchw", "layout is 'nchw'; expected 'channels_first'"),
        ({"0": "tokens"}, "layout is 'tokens'; expected"),
        ({"9*": "channels_first"}, r"layout='9\*': there is no layer '9\*'"),
        ({"*": "heads_first"}, r"gives shape \(2, 4, 6\), which the layout 'heads_first' doesn't"),
    ],
)
def test_layouts_that_can_not_be(layout, message):
    options = ExtractionOptions(layout=layout)
    network = nn.Sequential(nn.Identity())
    with pytest.raises(LinprobeError, match=message):
        linprobe.probe(network, (X, LABELS), (X, LABELS), layers="0", extraction=options)


def test_a_layout_is_written_as_the_command_line_takes_it():
    assert (
        layout_text({"a.*": "channels_first", "b": "features"}) == "a.*=channels_first,b=features"
    )
    assert layout_text("features") == "features" and layout_text(None) is None
    check_layout(None)


def test_layouts_of_layers_leave_controls_of_inputs_alone():
    options = ExtractionOptions(layout={"0": "channels_first"})
    evaluation = linprobe.EvaluationOptions(controls=("input",))
    network = nn.Sequential(nn.Identity())
    report = linprobe.probe(
        network, (X, LABELS), (X, LABELS), layers="0", extraction=options, evaluation=evaluation
    )
    assert report.records[0].num_features == 4

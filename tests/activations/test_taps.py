"""Taps capture the right tensors and leave the network as it was."""

import gc
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from linprobe.activations.inference import inference_state
from linprobe.activations.taps import Taps
from linprobe.runtime.errors import LinprobeError


class Residual(nn.Module):
    """Calls one module twice, in place, inside a block that has batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(4, 6), norm=nn.BatchNorm1d(6), relu=nn.ReLU(inplace=True),
                drop=nn.Dropout(0.5), fc2=nn.Linear(6, 4),
            )
        )  # fmt: skip
        self.mix = nn.Linear(4, 4)
        self.same_mix = self.mix
        self.head = nn.Linear(4, 3)
        self.num_heads_run = 0
        self.head.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.num_heads_run += 1

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.body(x)
        return self.head(self.same_mix(torch.relu(self.mix(x))))


class Gives(nn.Module):
    """Returns whatever a function makes of the input."""

    def __init__(self, make: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> object:
        return self.make(x)


class Outer(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        self.inner(x)
        return x


@dataclass
class Output:
    note: str
    hidden: Tensor


@pytest.fixture
def network() -> Residual:
    torch.manual_seed(0)
    return Residual()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(1))


def num_hooks(network: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def snapshot(network: nn.Module) -> tuple[object, ...]:
    """All that a capture must leave as it was, in a form that compares by value."""
    return (
        num_hooks(network),
        [m.training for m in network.modules()],
        [(name, id(b), b.flatten().tolist()) for name, b in network.named_buffers()],
        [(name, id(p), p.flatten().tolist()) for name, p in network.named_parameters()],
        torch.get_rng_state().tolist(),
    )


def test_outputs_and_inputs_are_those_of_a_plain_evaluation(network: Residual, x: Tensor) -> None:
    network.train()
    captured = Taps(network, [":in", "body.fc1", "head:in", "head", ""])(x)
    network.eval()
    assert list(captured) == [":in", "body.fc1", "head:in", "head", ""]
    torch.testing.assert_close(captured[":in"], x)
    torch.testing.assert_close(captured["body.fc1"], network.body[0](x))
    torch.testing.assert_close(captured["head"], network(x))
    torch.testing.assert_close(captured["head"], network.head(captured["head:in"]))
    torch.testing.assert_close(captured[""], captured["head"])
    assert not any(tensor.requires_grad for tensor in captured.values())


def test_a_later_in_place_layer_does_not_change_what_was_captured() -> None:
    x = torch.tensor([[-1.0, 2.0]])
    network = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    captured = Taps(network, [":in", "0", "1:in", "1"])(x.clone())
    for tap in (":in", "0", "1:in"):
        assert captured[tap].tolist() == [[-1.0, 2.0]]
    assert captured["1"].tolist() == [[0.0, 2.0]]


def test_each_call_is_its_own_point(network: Residual, x: Tensor) -> None:
    taps = ["mix", "mix#1", "mix#2:in", "mix#2", "same_mix#2"]
    captured = Taps(network, taps)(x)
    torch.testing.assert_close(captured["mix"], captured["mix#1"])
    torch.testing.assert_close(captured["mix#2:in"], captured["mix"].relu())
    torch.testing.assert_close(captured["mix#2"], network.mix(captured["mix#2:in"]))
    torch.testing.assert_close(captured["same_mix#2"], captured["mix#2"])
    assert not torch.equal(captured["mix"], captured["mix#2"])


def test_calls_of_a_module_that_calls_itself_are_counted_by_their_start() -> None:
    class Halving(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.max()) < 1 else 10 * self(x / 2)

    captured = Taps(Outer(Halving()), ["inner", "inner#2", "inner#3", "inner#3:in"])(
        torch.tensor([2.0])
    )
    assert [float(v) for v in captured.values()] == [50.0, 5.0, 0.5, 0.5]


@pytest.mark.parametrize(
    "make",
    [
        lambda t: (t, t + 1),
        lambda t: ["text", None, [t]],
        lambda t: {"a": 3, "b": (t, t + 1)},
        lambda t: OrderedDict(a=t, b=t + 1),
        lambda t: Output("text", t),
        lambda t: torch.return_types.max((t, t)),
    ],
    ids=["tuple", "nested list", "dict", "ordered dict", "dataclass", "named tuple"],
)
def test_the_first_tensor_of_a_container_is_taken(
    make: Callable[[Tensor], object], x: Tensor
) -> None:
    captured = Taps(Outer(Gives(make)), ["inner"])(x)
    assert torch.equal(captured["inner"], x)


def test_an_input_given_by_keyword_is_captured(x: Tensor) -> None:
    class ByKeyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, *, data: dict[str, Tensor]) -> Tensor:
            return self.fc(input=data["x"])

    captured = Taps(ByKeyword(), [":in", "fc:in"])(data={"x": x})
    assert torch.equal(captured[":in"], x)
    assert torch.equal(captured["fc:in"], x)


def test_recurrent_layers_give_their_output_sequence() -> None:
    network = nn.LSTM(3, 4, batch_first=True)
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    captured = Taps(network, [""])(x)
    torch.testing.assert_close(captured[""], network(x)[0])


def test_a_module_without_a_tensor_is_named(x: Tensor) -> None:
    with pytest.raises(LinprobeError, match=r"tap 'inner': the output \(dict\) of this Gives"):
        Taps(Outer(Gives(lambda t: {"n": 3})), ["inner"])(x)

    class Constant(nn.Module):
        def forward(self) -> Tensor:
            return torch.ones(2)

    class Root(Outer):
        def forward(self, x: Tensor) -> Tensor:
            return x + self.inner()

    with pytest.raises(LinprobeError, match="tap 'inner:in': the input of this Constant holds"):
        Taps(Root(Constant()), ["inner:in"])(torch.ones(2))


def test_the_forward_pass_stops_after_the_last_tap(network: Residual, x: Tensor) -> None:
    Taps(network, ["mix#2", "body"])(x)
    assert network.num_heads_run == 0
    Taps(network, ["body", "head:in"])(x)
    assert network.num_heads_run == 0
    Taps(network, ["body", "head"])(x)
    assert network.num_heads_run == 1


def test_the_stop_passes_a_network_that_catches_exceptions(x: Tensor) -> None:
    class Careful(Outer):
        num_rescues = 0

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.inner(x)
            except Exception:
                self.num_rescues += 1
                return x

    network = Careful(nn.Linear(4, 2))
    captured = Taps(network, ["inner"])(x)
    assert captured["inner"].shape == (5, 2)
    assert network.num_rescues == 0


def test_modules_that_are_called_in_a_thread_of_the_network(x: Tensor) -> None:
    class Threaded(Outer):
        num_ends = 0

        def forward(self, x: Tensor) -> Tensor:
            with ThreadPoolExecutor(1) as pool:
                made: Tensor = pool.submit(self.inner, x).result()
            self.num_ends += 1
            return made

    network = Threaded(nn.Linear(4, 2))
    captured = Taps(network, ["inner"])(x)
    torch.testing.assert_close(captured["inner"], network.inner(x))
    assert network.num_ends == 1


def test_activations_are_freed_when_the_pass_ends(x: Tensor) -> None:
    alive: list[weakref.ref[Tensor]] = []

    def remember(tensor: Tensor) -> Tensor:
        made = tensor + 1
        alive.append(weakref.ref(made))
        return made

    network = nn.Sequential(Gives(remember), nn.Linear(4, 4), nn.Linear(4, 2))
    gc.disable()  # a cycle would be freed some day, after many batches
    try:
        for last in ("1", "2"):
            Taps(network, [last])(x)
            assert alive.pop()() is None
    finally:
        gc.enable()


def test_a_network_that_taps_itself_can_be_tapped(x: Tensor) -> None:
    class Tapping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
            self.head = nn.Linear(4, 2)
            self.num_heads_run = 0

        def forward(self, x: Tensor) -> Tensor:
            hidden = Taps(self.body, ["1"])(x)["1"]
            self.num_heads_run += 1
            return self.head(hidden)

    network = Tapping()
    captured = Taps(network, ["body.0"])(x)
    torch.testing.assert_close(captured["body.0"], network.body[0](x))
    assert network.num_heads_run == 0, "the inner capture took the outer one's end for its own"


def test_stream_gives_each_tensor_once_in_the_order_of_the_pass(
    network: Residual, x: Tensor
) -> None:
    seen: list[str] = []
    Taps(network, ["head", "body", "head", ":in"]).stream(lambda tap, _: seen.append(tap), x)
    assert seen == [":in", "body", "head"]


def test_a_streamed_tensor_has_no_gradient_to_follow(x: Tensor) -> None:
    seen: list[bool] = []
    taps = Taps(nn.Linear(4, 2), [":in", ""])
    taps.stream(lambda _, tensor: seen.append(tensor.requires_grad), x.requires_grad_())
    assert seen == [False, False]


def test_what_the_networks_own_hooks_make_of_a_tensor_is_what_flows(x: Tensor) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    network[1].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    network[1].register_forward_hook(lambda module, args, output: 2 * output)
    captured = Taps(network, ["0", "1:in", "1"])(x)
    torch.testing.assert_close(captured["1:in"], captured["0"] + 1)
    torch.testing.assert_close(captured["1"], network(x))


def test_no_taps_need_no_forward_pass(x: Tensor) -> None:
    assert Taps(Gives(lambda t: 1 / 0), [])(x) == {}


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(network: Residual, x: Tensor, training: bool) -> None:
    network.train(training)
    network.body[0].eval()
    network.body[3].train()
    before = snapshot(network)
    Taps(network, ["", "body.drop", "body.norm"])(x)
    assert snapshot(network) == before
    assert torch.is_grad_enabled()


def test_the_network_is_left_as_it_was_by_a_forward_that_disturbs_everything(x: Tensor) -> None:
    class Restless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)
            self.register_buffer("count", torch.zeros(()))
            self.register_buffer("replaced", torch.zeros(2))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            self.replaced = torch.rand(2)
            self.register_buffer("cache", torch.ones(3))
            self.inner.train()
            return self.inner(x)

    network = Restless().train()
    before = snapshot(network)
    Taps(network, [""])(x)
    assert snapshot(network) == before
    network(x)
    assert snapshot(network) != before  # the network does disturb; the taps undid it


def test_an_error_in_forward_is_shown_as_it_is_and_leaves_no_trace(x: Tensor) -> None:
    def fail(_: Tensor) -> Tensor:
        raise ZeroDivisionError("inside the network")

    network = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), Gives(fail)).train()
    before = snapshot(network)
    with pytest.raises(ZeroDivisionError, match="inside the network"):
        Taps(network, ["0", "2"])(x)
    assert snapshot(network) == before


def test_an_error_in_the_consumer_leaves_no_trace(network: Residual, x: Tensor) -> None:
    def refuse(tap: str, tensor: Tensor) -> None:
        raise ValueError(tap)

    before = snapshot(network)
    with pytest.raises(ValueError, match="body"):
        Taps(network, ["body"]).stream(refuse, x)
    assert snapshot(network) == before


def test_a_capture_between_forward_and_backward_does_not_break_training(
    network: Residual, x: Tensor
) -> None:
    network.train()
    loss = network(x).sum()
    Taps(network, ["head"])(x)
    loss.backward()
    assert network.head.weight.grad is not None


def test_an_unknown_layer_lists_near_names_and_places_no_hook(network: Residual) -> None:
    before = num_hooks(network)
    with pytest.raises(LinprobeError, match=r"no layer 'body\.fc'; near names: 'body\.fc\d'"):
        Taps(network, ["head", "body.fc"])
    with pytest.raises(LinprobeError, match=r"no layer 'XXXXXX'; it has 'body', 'body\.fc1'"):
        Taps(network, ["XXXXXX"])
    with pytest.raises(LinprobeError, match="no layers but itself"):
        Taps(nn.Linear(1, 1), ["fc1"])
    assert num_hooks(network) == before


def test_a_tap_that_was_not_reached_is_named_with_its_calls(network: Residual, x: Tensor) -> None:
    network.spare = nn.Linear(4, 4)
    before = snapshot(network)
    with pytest.raises(
        LinprobeError, match=r"did not reach 'mix#3' \(called 2 times\), 'spare' \(never called\)"
    ):
        Taps(network, ["mix#3", "body", "spare"])(x)
    assert snapshot(network) == before


def test_module_names_may_look_like_taps(x: Tensor) -> None:
    network = nn.Sequential(OrderedDict([("a#2", nn.Linear(4, 4)), ("b:in", nn.Linear(4, 2))]))
    captured = Taps(network, ["a#2", "b:in", "b:in:in"])(x)
    assert captured["b:in"].shape == (5, 2)
    assert torch.equal(captured["a#2"], captured["b:in:in"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_network_keeps_its_precision(dtype: torch.dtype, x: Tensor) -> None:
    captured = Taps(nn.Sequential(nn.Linear(4, 2)).to(dtype), ["0"])(x.to(dtype))
    assert captured["0"].dtype == dtype


@pytest.fixture
def compiled(network: Residual, x: Tensor) -> Iterator[nn.Module]:
    yield torch.compile(network, backend="eager")
    torch.compiler.reset()


def test_a_compiled_network_is_tapped_by_its_plain_names(
    network: Residual, compiled: nn.Module, x: Tensor
) -> None:
    network.eval()
    expected = Taps(network, ["body.fc1", "head"])(x)
    with torch.no_grad():
        compiled(x)  # compiled before any hook stands
    captured = Taps(compiled, ["body.fc1", "head", "_orig_mod.head", ""])(x)
    torch.testing.assert_close(captured["body.fc1"], expected["body.fc1"])
    for tap in ("head", "_orig_mod.head", ""):
        torch.testing.assert_close(captured[tap], expected["head"])


@pytest.mark.parametrize("taps", [["layers.0", "layers.1"], ["layers.0.linear1"]])
def test_taps_inside_a_transformer_encoder_see_it_as_it_is_written(taps: list[str]) -> None:
    """Its fused path hides inner modules, and hands on nested tensors under a padding mask."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    network = nn.TransformerEncoder(layer, 2)
    x, padding = torch.randn(3, 5, 8), torch.arange(5) >= torch.tensor([[5], [3], [2]])
    written: dict[str, Tensor] = {}
    hooks = [
        network.get_submodule(tap).register_forward_hook(
            lambda module, args, output, tap=tap: written.update({tap: output.detach()})
        )
        for tap in taps
    ]
    network.train()(x, src_key_padding_mask=padding)  # in training nothing is fused
    for hook in hooks:
        hook.remove()
    fused = torch.backends.mha.get_fastpath_enabled()
    found = Taps(network.eval(), taps)(x, src_key_padding_mask=padding)
    for tap in taps:
        assert not found[tap].is_nested
        torch.testing.assert_close(found[tap][~padding], written[tap][~padding])
    assert torch.backends.mha.get_fastpath_enabled() == fused


def test_inference_state_is_evaluation_without_gradients(network: Residual) -> None:
    network.train()
    with inference_state(network):
        assert not any(module.training for module in network.modules())
        assert not torch.is_grad_enabled()
    assert all(module.training for module in network.modules())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_network_on_a_gpu_keeps_the_random_numbers_of_the_gpu(x: Tensor) -> None:
    network = nn.Sequential(nn.Linear(4, 4), Gives(lambda t: t + torch.rand_like(t))).cuda()
    before = torch.cuda.get_rng_state().tolist()
    captured = Taps(network, ["0", "1"])(x.cuda())
    assert captured["1"].is_cuda
    assert torch.cuda.get_rng_state().tolist() == before


def test_a_selector_picks_the_tensor_of_each_tap(x: Tensor) -> None:
    network = Outer(Gives(lambda x: (x, {"hidden": 2 * x})))

    def select(tap: str, value: object) -> Tensor:
        assert tap in ("inner", "inner:in")
        if tap == "inner:in":
            return value[0][0] + 1  # type: ignore[index, no-any-return]
        return value[1]["hidden"]  # type: ignore[index, no-any-return]

    captured = Taps(network, ["inner:in", "inner"], select)(x)
    assert torch.equal(captured["inner"], 2 * x) and torch.equal(captured["inner:in"], x + 1)


def test_a_selector_that_picks_no_tensor(x: Tensor) -> None:
    network = Outer(Gives(lambda x: (x, "note")))

    def picks(tap: str, value: object) -> Tensor:
        return value[1]  # type: ignore[index, no-any-return]

    with pytest.raises(LinprobeError, match=r"tap 'inner': the selector picks a str from the out"):
        Taps(network, ["inner"], picks)(x)


def test_a_pass_that_is_not_a_plain_call(network: Residual, x: Tensor) -> None:
    captured: dict[str, Tensor] = {}

    def run() -> None:
        network.mix(2 * x)

    Taps(network, ["mix"]).stream_during(captured.__setitem__, run)
    torch.testing.assert_close(captured["mix"], network.mix(2 * x))
    assert not network.mix._forward_hooks

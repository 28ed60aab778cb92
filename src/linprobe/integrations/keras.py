"""Keras 3 models, whatever their backend, as networks that linprobe can probe.

    report = linprobe.probe(KerasNetwork(model), (x, y), (x_test, y_test))

Layers go by their Keras names, layers of a model inside the model by ``inner/layer``. Every call
of a shared layer is a point of its own, as in any network.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from linprobe.activations.taps import tensors
from linprobe.runtime.errors import LinprobeError

try:
    import keras
except ImportError as error:
    raise ImportError(
        "linprobe.integrations.keras needs Keras 3 and a backend for it: pip install "
        "'linprobe[keras]' and, for that of PyTorch, set "
        "the environment variable KERAS_BACKEND=torch"
    ) from error


class KerasNetwork(nn.Module):
    """A Keras model that is run for inference and shows its layers as modules.

    The model keeps its backend and device; activations come to PyTorch on the CPU as float32.
    Those of images are turned to (n, channels, height, width) where the layer has its channels
    last, so that reducers pool over places. Where linprobe needs no later layer, the forward pass
    stops.

    Args:
        model: functional, sequential or subclassed; built.

    Raises:
        LinprobeError: No Keras model, one that isn't built, or one with a layer whose name a
            PyTorch module can't have.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        if not isinstance(model, keras.Model):
            raise LinprobeError(f"model is a {type(model).__name__}; expected a keras.Model")
        if not model.built:
            raise LinprobeError(
                f"the Keras model {model.name!r} isn't built; expected one that has an Input, or "
                "that was called once"
            )
        # In tuples: with the PyTorch backend a Keras layer is a module, which would be registered.
        self._model = (model,)
        self._points: list[tuple[Any, _Layer]] = []
        seen = set()
        for path, layer in _layers_inside(model, ""):
            if id(layer) not in seen:
                seen.add(id(layer))
                self._add(path, layer)

    def _add(self, path: str, layer: Any) -> None:
        # The table of layers shows the class.
        tap: _Layer = type(type(layer).__name__, (_Layer,), {})()
        tap.is_channels_first = getattr(layer, "data_format", "") == "channels_first"
        try:
            self.add_module(path, tap)
        except KeyError as error:
            raise LinprobeError(
                f"the Keras layer {path!r} has a name that no PyTorch module can have here; build "
                "the model with a new name for it"
            ) from error
        self._points.append((layer, tap))

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        """Run the model on its input, on several in their order, or on named ones."""
        inputs: Any = {name: value.cpu().numpy() for name, value in kwargs.items()}
        if args:
            arrays = [value.cpu().numpy() for value in args]
            inputs = arrays if len(arrays) > 1 else arrays[0]
        with ExitStack() as stack:
            for layer, tap in self._points:
                stack.enter_context(_watching(layer, tap))
            output = self._model[0](inputs, training=False)
        return next(tensors(_to_torch(output, channels_last=False)))


class _Layer(nn.Module):
    """Stands for a Keras layer; is called with what that gave."""

    is_channels_first = False

    def features_dimension(self, ndim: int) -> int:
        """Where features are, in case the backend's operations don't tell."""
        return 1 if ndim > 3 or self.is_channels_first else ndim - 1

    def forward(self, output: object, passed: bool) -> object:
        """The output; a copy unless it is the layer's input, by which linprobe tells the two."""
        return output if passed else keras.tree.map_structure(_copy, output)


def _copy(value: object) -> object:
    return value.clone() if isinstance(value, Tensor) else value


@contextmanager
def _watching(layer: Any, tap: _Layer) -> Iterator[None]:
    """Give what the layer gives to `tap`, too."""
    call, own = layer.call, vars(layer)
    before = {name: own[name] for name in ("call",) if name in own}
    channels_last = "channels_last" == getattr(
        layer, "data_format", keras.config.image_data_format()
    )

    def watched(*args: Any, **kwargs: Any) -> Any:
        output = call(*args, **kwargs)
        passed = any(output is item for item in keras.tree.flatten([args, kwargs]))
        tap(_to_torch(output, channels_last=channels_last), passed)
        return output

    own["call"] = watched  # a layer looks it up on itself at each call
    try:
        yield
    finally:
        del own["call"]
        own.update(before)


def _to_torch(output: object, *, channels_last: bool) -> Any:
    """Tensors of any backend as PyTorch's: float32 or whole numbers, on the CPU."""

    def convert(value: Any) -> object:
        if not keras.ops.is_tensor(value):
            return value
        if keras.backend.is_float_dtype(value.dtype):
            value = keras.ops.cast(value, "float32")
        if isinstance(value, Tensor):
            tensor = value.detach().cpu()
        else:
            tensor = torch.from_numpy(np.array(keras.ops.convert_to_numpy(value)))
        return tensor.movedim(-1, 1) if channels_last and tensor.ndim > 3 else tensor

    return keras.tree.map_structure(convert, output)


def _layers_inside(model: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Layers of a model by path, those of inner models before these."""
    for layer in model.layers:
        path = prefix + layer.name
        if isinstance(layer, keras.Model):
            yield from _layers_inside(layer, f"{path}/")
        if not isinstance(layer, keras.layers.InputLayer):
            yield path, layer

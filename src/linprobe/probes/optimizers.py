"""Optimisers of one vector of parameters: PyTorch's own, without the cost of their classes.

``torch.optim.Adam.step`` takes several times as long as its arithmetic on the few parameters of a
narrow probe. What it calls, `torch.optim.adam.adam`, is documented and is called here directly.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

Update = Callable[[Tensor, float], None]
"""Called with a gradient and a learning rate: moves the parameters, in place."""


def adam_update(parameters: Tensor) -> Update:
    """Return Adam with the usual settings: .9, .999 and 1e-8."""
    held, steps = [parameters], [torch.zeros((), device=parameters.device)]
    means, squares = [torch.zeros_like(parameters)], [torch.zeros_like(parameters)]

    def update(gradient: Tensor, rate: float) -> None:
        adam(
            *(held, [gradient], means, squares, [], steps),
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )

    return update


def sgd_update(parameters: Tensor, momentum: float) -> Update:
    """Return gradient descent with heavy-ball momentum, undamped."""
    held: list[Tensor] = [parameters]
    moving: list[Tensor | None] = [None]

    def update(gradient: Tensor, rate: float) -> None:
        sgd(
            *(held, [gradient], moving),
            fused=True,
            weight_decay=0.0,
            momentum=momentum,
            lr=rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    return update

"""The two products of a pass alone, against the roofline: ``python -m benchmarks.products``.

What they take bounds any algorithm that reads its features through PyTorch's products.
"""

import os
from collections.abc import Iterable
from typing import Any

import torch

from benchmarks.jobs import MOST_FLOATS
from benchmarks.machine import best_of, describe, pass_seconds
from linprobe.core.linalg import backproject, class_logits

_WIDTHS = (128, 784, 3136, 25_088)
_CLASSES = 10

HEADER = ("features", "logits", "as one product", "gradient", "as one product", "least", "share")


def measure() -> list[dict[str, Any]]:
    """Seconds of logits and gradient of each width, ours and as one product of the library's."""
    source = torch.Generator().manual_seed(0)
    found = []
    for width in _WIDTHS:
        rows = min(60_000, MOST_FLOATS // width)
        features = torch.randn(rows, width, generator=source)
        weight = torch.randn(_CLASSES, width, generator=source)
        residuals = torch.randn(_CLASSES, rows, generator=source)
        works = {
            "logits": lambda x=features, w=weight: class_logits(x, w),
            "plain_logits": lambda x=features, w=weight: w @ x.T,
            "gradient": lambda x=features, r=residuals: backproject(r, x),
            "plain_gradient": lambda x=features, r=residuals: r @ x,
        }
        seconds = {name: best_of(work) for name, work in works.items()}
        found.append({"num_rows": rows, "num_features": width, **seconds})
    return found


def share(one: dict[str, Any], machine: dict[str, Any]) -> float:
    """Compute the share of the roofline that a width's products reach, of those of `measure`."""
    return _least(one, machine) / (float(one["logits"]) + float(one["gradient"]))


def _least(one: dict[str, Any], machine: dict[str, Any]) -> float:
    return pass_seconds(one["num_rows"], one["num_features"], _CLASSES, machine)


def table_rows(products: Iterable[dict[str, Any]], machine: dict[str, Any]) -> list[list[str]]:
    """Milliseconds of each product, the least possible for both, and the share that ours reach."""
    rows = []
    for one in products:
        least = _least(one, machine)
        names = ("logits", "plain_logits", "gradient", "plain_gradient")
        shown = [f"{1000 * one[name]:.1f} ms" for name in names]
        size = f"{one['num_rows']:,} x {one['num_features']:,}"
        rows.append([size, *shown, f"{1000 * least:.1f} ms", f"{share(one, machine):.2f}"])
    return rows


if __name__ == "__main__":
    found_here = describe(os.cpu_count() or 1)
    for line in (HEADER, *table_rows(measure(), found_here)):
        print(" | ".join(line))

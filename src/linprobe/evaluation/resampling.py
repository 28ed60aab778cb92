"""Deviations of a metric, which tell what other test samples would have given: its interval.

A metric's deviations are a vector whose sum of squares is the metric's variance, one number for
each test sample (DeLong) or for each draw of the bootstrap. Two probes are tested on the same
samples and the same draws, so the deviations of their difference are those of the one minus those
of the other: that is the paired test.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from linprobe.runtime.randomness import generator

Array = NDArray[np.float64]

NUM_DRAWS = 200
"""Draws of the bootstrap: enough for a standard error (Efron & Tibshirani 1993, section 6.4)."""

_CELLS = 2**24  # weights that are looked at together


@dataclass(frozen=True)
class Resamples:
    """Bootstrap samples of a test set, drawn within each class: the same for every layer.

    Attributes:
        labels: (n_test,) int64.
        seed: of the run.
        num_draws: B.
    """

    labels: Tensor
    seed: int
    num_draws: int = NUM_DRAWS

    @cached_property
    def weights(self) -> NDArray[np.uint8]:
        """(n_test, B): how often each draw holds each sample; made when first used."""
        seed = int(generator(self.seed, "bootstrap").initial_seed())
        draws = np.random.default_rng(seed)
        labels = self.labels.cpu().numpy()
        order = np.argsort(labels, kind="stable")
        _, first, place, count = np.unique(
            labels[order], return_index=True, return_inverse=True, return_counts=True
        )
        found = np.empty((self.num_draws, len(labels)), dtype=np.uint8)
        for row in found:
            taken = first[place] + (draws.random(len(labels)) * count[place]).astype(np.int64)
            row[order] = np.bincount(taken, minlength=len(labels))
        return np.ascontiguousarray(found.T)

    def sums(self, rows: NDArray[np.int64], starts: NDArray[np.int64]) -> Array:
        """Sum the weights of blocks of samples: (n_blocks, B).

        Args:
            rows: numbers of samples, block after block.
            starts: where each block starts, rising.
        """
        from scipy.sparse import csr_matrix

        n = len(self.weights)
        kind = np.uint16 if n < 2**16 else np.uint32  # no sum exceeds the number of samples
        shape, ends = (len(starts), n), np.r_[starts, len(rows)]
        blocks = csr_matrix((np.ones(len(rows), kind), rows, ends), shape)
        step = max(1, _CELLS // n)
        parts = (self.weights[:, i : i + step] for i in range(0, self.num_draws, step))
        return np.hstack([blocks @ part.astype(kind) for part in parts]).astype(np.float64)


def of_draws(values: Array) -> Array:
    """Turn the values (B,) of a metric in each draw into its deviations."""
    deviations: Array = (values - values.mean()) / np.sqrt(len(values) - 1)
    return deviations


def of_components(components: Array, labels: NDArray[np.int64]) -> Array:
    """Turn what each sample adds to a metric (n_test,) into its deviations, class by class."""
    _, place, count = np.unique(labels, return_inverse=True, return_counts=True)
    mean = np.bincount(place, weights=components) / count
    deviations: Array = (components - mean[place]) * np.sqrt(count / np.maximum(count - 1, 1))[
        place
    ]
    return deviations


def standard_error(deviations: Array) -> float:
    """Compute the standard error of a metric from its deviations."""
    return float(np.sqrt(np.square(deviations, dtype=np.float64).sum()))

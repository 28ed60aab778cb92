"""A probe's predictions on the test split, as metrics take them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from linprobe.evaluation.resampling import Array, Resamples


@dataclass(frozen=True)
class Scored:
    """Predictions of one probe on the test split.

    Attributes:
        logits: (n_classes, n_test) float64, none NaN.
        test_labels: (n_test,) int64.
        resamples: of the test samples.
    """

    logits: Tensor
    test_labels: Tensor
    resamples: Resamples

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(n_test,) true classes."""
        found: NDArray[np.int64] = self.test_labels.cpu().numpy()
        return found

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(n_test,) most probable classes."""
        found: NDArray[np.int64] = self.logits.argmax(0).cpu().numpy()
        return found

    @cached_property
    def probabilities(self) -> Array:
        """(n_test, n_classes)."""
        found: Array = self.logits.softmax(0).T.cpu().numpy()
        return found

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(n_classes,) test samples."""
        return np.bincount(self.labels, minlength=len(self.logits))

    @property
    def classes(self) -> NDArray[np.int64]:
        """Classes that occur in the test set: those that a mean over classes counts."""
        return np.flatnonzero(self.counts)

    @cached_property
    def one_against_rest(self) -> list[tuple[NDArray[np.bool_], Array]]:
        """Give each ranked class's own samples, as a mask (n_test,), and the ranks of all.

        It is class 1 alone of two, else each class that occurs; none where one class alone does.
        By rank, ties have one value, and the infinite scores of a class without training samples
        have finite ones.
        """
        from scipy.stats import rankdata

        if len(self.classes) < 2:
            return []
        if len(self.logits) == 2:
            return [(self.labels == 1, rankdata((self.logits[1] - self.logits[0]).cpu().numpy()))]
        scores = self.logits.log_softmax(0).cpu().numpy()
        return [(self.labels == k, rankdata(scores[k])) for k in self.classes]

    def mean_of_classes(self, score: Callable[[NDArray[np.bool_], Array], float]) -> float:
        """Average a score of each class that is ranked; NaN: there is none."""
        found = [float(score(own, ranks)) for own, ranks in self.one_against_rest]
        return float(np.mean(found)) if found else float("nan")

    @property
    def answers_only(self) -> int | None:
        """Class that is predicted for every sample; None: there are several."""
        first = int(self.predicted[0])
        return first if bool((self.predicted == first).all()) else None

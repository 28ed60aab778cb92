"""Sets how OpenMP's threads wait for each other, before PyTorch is loaded."""

from collections.abc import MutableMapping

_SETTINGS = {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "0"}
"""For GNU's and for Intel's OpenMP. `python -m benchmarks.waiting` compares others."""

NAMES = frozenset({"OMP_WAIT_POLICY", *_SETTINGS})
"""Variables of the environment that say how threads wait."""


def let_threads_rest(environment: MutableMapping[str, str]) -> None:
    """Let threads spin for some microseconds, then sleep; keep what the user has set.

    By default they spin for milliseconds: on a busy machine the others' work waits for that, and
    small problems take many times as long. Threads that sleep at once are slow to wake between
    the small operations of a deep network.
    """
    if not NAMES & environment.keys():
        environment.update(_SETTINGS)

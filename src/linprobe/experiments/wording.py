"""Words for what a run shows of what the paper says."""


def compared(*claims: tuple[str, bool, str]) -> str:
    """Say of each claim of the paper whether a run shows it.

    Args:
        *claims: the paper's words, whether they hold of the run, and the run's numbers.
    """
    return "; ".join(
        f"{'as the paper says' if holds else 'UNLIKE THE PAPER, which says'}: {words} ({numbers})"
        for words, holds, numbers in claims
    )

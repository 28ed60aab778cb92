"""Short names that tell runs apart, from what differs between them."""

from collections.abc import Sequence
from pathlib import Path

from linprobe.records.schema import RunRecord
from linprobe.records.seeds import seed_words


def labels(named: Sequence[tuple[Path, tuple[RunRecord, ...]]]) -> list[str]:
    """Give each a different name.

    Args:
        named: folder and runs of each; several runs differ in their seed alone.

    Returns:
        What differs between them, such as "sgd, seed 1"; the folder's name where nothing does;
        the protocol where there is but one.
    """
    if len(named) == 1:
        return [named[0][1][0].protocol]
    facts = [_facts(runs) for _, runs in named]
    differing = [key for key in facts[0] if len({fact[key] for fact in facts}) > 1]
    short = [", ".join(filter(None, (fact[key] for key in differing))) for fact in facts]
    folders = [path.parent if path.suffix == ".json" else path for path, _ in named]
    names = [path.resolve().name for path in folders]
    unique = [label or name for label, name in zip(short, names, strict=True)]
    for more in (names, list(map(str, folders))):
        unique = [
            f"{label} ({extra})" if unique.count(label) > 1 and extra != label else label
            for label, extra in zip(unique, more, strict=True)
        ]
    return unique


def _facts(runs: Sequence[RunRecord]) -> dict[str, str]:
    """Put into words what may differ; "" for what a run says nothing of."""
    run = runs[0]
    own, training = run.config.experiment, run.config.experiment.training
    return {
        "experiment": run.experiment,
        "protocol": run.protocol,
        "dataset": run.dataset.name,
        "recipe": "" if own.recipe is None else f"{own.recipe} recipe",
        "optimizer": "" if training is None else f"network by {training.optimizer}",
        "depth": "" if own.depth is None else f"{own.depth} layers",
        "seed": seed_words(runs),
        "float64": {None: "", False: "float32", True: "float64"}[run.config.extraction.float64],
        "quick": "quick" if run.quick else "",
    }

"""The groups of options that Python takes, as several commands take them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from linprobe.activations.options import ExtractionOptions
from linprobe.cli.flags import COUNT, flag, names, options_of, positive
from linprobe.core.scales import Scale
from linprobe.evaluation.options import EvaluationOptions
from linprobe.probes.config import Criterion, ProbeConfig
from linprobe.probes.weights import BALANCED
from linprobe.records.evidence import CONTROLS

OUT = flag(Path, "DIR")
METRIC = flag(str, "NAME")
FLOAT64 = Annotated[bool | None, Parameter(negative="--float32")]


def _penalties(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError as error:
        raise ValueError("expected a positive number, or several separated by commas") from error


def _class_weight(text: str) -> str | dict[str, float]:
    if text == BALANCED:
        return text
    pairs = [part.rpartition("=") for part in names(text)]
    try:
        weights = {name: positive(value) for name, _, value in pairs}
    except ValueError:
        weights = {}
    if len(weights) < len(pairs) or "" in weights:
        raise ValueError("expected balanced, or CLASS=WEIGHT,... such as 0=1,1=10")
    return weights


def _tokens(text: str) -> str | int | None:
    if text == "none":
        return None
    try:
        return int(text)
    except ValueError:
        return text


def _layout(text: str) -> str | dict[str, str]:
    pairs = [part.rpartition("=") for part in names(text)]
    return {pattern: layout for pattern, _, layout in pairs} if "=" in text else text


def _gibibytes(text: str) -> float:
    return 2**30 * positive(text)


def _controls(text: str) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(names(text)))
    for name in chosen:
        if name not in CONTROLS:
            raise ValueError(f"{name!r} is no control; expected some of: {', '.join(CONTROLS)}")
    return chosen


if TYPE_CHECKING:
    Method = ProbeConfig
    Extraction = ExtractionOptions
    Evaluation = EvaluationOptions
else:
    Method = options_of(
        ProbeConfig(),
        "probes",
        l2_path=flag(_penalties, "L2,L2,...", name="l2"),
        tol=flag(positive, "NATS"),
        scale=Scale,
        class_weight=flag(_class_weight, "WEIGHTS"),
        extend=Annotated[bool, Parameter(negative="--no-extend")],
        exact=Annotated[bool, Parameter(negative="--no-exact")],
        choose_by=Criterion,
    )
    Extraction = options_of(
        ExtractionOptions(),
        "features",
        reduce=flag(str, "HOW"),
        tokens=flag(_tokens, "WHICH"),
        layout=flag(_layout, "LAYOUT"),
        batch_size=COUNT,
        memory_bytes=flag(_gibibytes, "GIB", name="memory"),
        strict=bool,
        float64=FLOAT64,
    )
    Evaluation = options_of(
        EvaluationOptions(),
        "evaluation",
        controls=flag(_controls, "NAME,NAME,..."),
        repeats=COUNT,
        mdl=bool,
    )

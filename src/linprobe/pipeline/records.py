"""From options to what a run's record keeps of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields

from linprobe.evaluation.options import EvaluationOptions
from linprobe.probes.config import ProbeConfig
from linprobe.probes.minibatch import SGDProtocol
from linprobe.records.config import ControlsRecord, MethodRecord, MinibatchRecord


def method_record(
    config: ProbeConfig, sgd: SGDProtocol | None = None, classes: Sequence[str] = ()
) -> MethodRecord:
    """Record a method; of probes trained by SGD, the numbers that count."""
    if sgd is not None:
        return MethodRecord(config.tol, config.validation_fraction)
    known = {field.name for field in fields(MethodRecord)}
    found = {k: v for k, v in asdict(config).items() if k in known}
    found["extend"] = config.extends_path
    if isinstance(config.class_weight, Mapping):
        weights = config.class_weight.items()
        found["class_weight"] = {classes[k] if classes else str(k): v for k, v in weights}
    return MethodRecord(**found)


def minibatch_record(sgd: SGDProtocol | None) -> MinibatchRecord | None:
    """Record the training of probes."""
    return None if sgd is None else MinibatchRecord(**asdict(sgd))


def controls_record(options: EvaluationOptions, seed: int) -> ControlsRecord:
    """Record the controls that were asked for."""
    return ControlsRecord(tuple(options.controls), options.repeats, seed)

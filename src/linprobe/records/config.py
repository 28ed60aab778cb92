"""Records of what a run was asked for, a part of `linprobe.records.schema.RunRecord`."""

from dataclasses import dataclass, field
from typing import Any, Literal

from linprobe.records.codec import Number

Chart = Literal["curve", "bars"]
"""The figure that suits a run: curves along the depth, or a bar a layer."""


@dataclass(frozen=True)
class MethodRecord:
    """Numbers of `ProbeConfig`, by which probes were fitted; NaN, () and None: not used.

    `extend` tells whether the path went on beyond its ends where that helped, `choose_by` what was
    least on the held-out samples at the penalty chosen.
    """

    tol: Number
    validation_fraction: Number
    l2_path: tuple[Number, ...] = ()
    max_passes: int | None = None
    seed: int | None = None
    scale: str | None = None
    exact: bool = False
    class_weight: str | dict[str, Number] | None = None
    extend: bool = False
    choose_by: str = "cross_entropy"


@dataclass(frozen=True)
class MinibatchRecord:
    """Numbers of `SGDProtocol`, by which probes were trained."""

    optimizer: str
    learning_rate: Number
    max_epochs: int
    patience: int | None
    momentum: Number
    decay: Number
    decay_batches: int | None
    batch_size: int
    certificate_l2: Number


@dataclass(frozen=True)
class ExtractionRecord:
    """Settings by which activations became features.

    Attributes:
        network: its class; None: an experiment's own, or features without a network.
        reduce: how large layers were asked to be made smaller; None: not at all.
        tokens: which tokens of a sequence; None: all dimensions are features.
        layout: that was given for all layers, or as PATTERN=LAYOUT,...; None: told.
        groups: whether samples were held out by groups.
        sample_weight: whether training samples had weights.
        batch_size: samples in a forward pass.
        memory_bytes: for features held at a time.
        float64: the network's forward pass was computed in float64; None: where its own arithmetic
            rounds away what varies.
    """

    network: str | None = None
    reduce: str | None = None
    tokens: str | int | None = None
    groups: bool = False
    batch_size: int | None = None
    memory_bytes: float | None = None
    float64: bool | None = False
    layout: str | None = None
    sample_weight: bool = False


@dataclass(frozen=True)
class ControlsRecord:
    """Controls that were asked for, by the fields of `ControlConfig`."""

    names: tuple[str, ...] = ()
    repeats: int = 3
    seed: int = 0


@dataclass(frozen=True)
class TrainingRecord:
    """Settings by which the network of an experiment was trained."""

    optimizer: str
    learning_rate: Number
    batch_size: int
    momentum: Number
    decay: Number = 1.0


@dataclass(frozen=True)
class ExperimentRecord:
    """The network of an experiment, and how its curves are drawn; None: it has no such thing.

    Attributes:
        chart: the figure that suits it.
        recipe: initialisation and training of the network, by name.
        epochs: of training before the last checkpoint.
        depth: hidden layers.
        skip_layer: name of the layer that receives the skip connection.
        skip_from: what it brings, as the experiment's option `skip` says; None: not recorded.
        negative_slope: of the leaky ReLU.
        training: of the network.
    """

    chart: Chart = "curve"
    recipe: str | None = None
    epochs: int | None = None
    depth: int | None = None
    skip_layer: str | None = None
    skip_from: str | None = None
    negative_slope: float | None = None
    training: TrainingRecord | None = None


@dataclass(frozen=True)
class LoadingRecord:
    """Options by which the command line loaded a network and its images; None: not given.

    Attributes:
        factory: what built the network, "FILE.py:NAME" or "MODULE:NAME".
        kwargs: of the factory, as JSON.
        checkpoint: name of the file of its parameters.
        checkpoint_sha256: of that file.
        checkpoint_key: of the dict in the file whose tensors were taken; "": of the file's.
        checkpoint_prefix: of the network's names in it.
        random: tensors of the network that it does not give.
        unused: its tensors that the network does not have.
        untrained: what built the network of the control "untrained".
        channels: of the images.
        image_size: (height, width), pixels.
        normalize: mean and standard deviation of each channel.
    """

    factory: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    checkpoint_key: str | None = None
    checkpoint_prefix: str | None = None
    random: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    untrained: str | None = None
    channels: int | None = None
    image_size: tuple[int, ...] | None = None
    normalize: tuple[tuple[float, ...], ...] | None = None


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run was asked for.

    Attributes:
        device: where probes were solved, such as "cpu".
        method: numbers of the certified protocol.
        minibatch: how probes were trained instead; None: they were solved.
        extraction: how activations became features.
        controls: what the curve is compared with.
        mdl: whether the description length of the labels was measured.
        experiment: the experiment's own settings.
        loading: None: the network was given as an object, or is an experiment's own.
        notes: what is unusual about labels and layers, a sentence each.
        fingerprint: hash of data, network and settings, by which a later call knows the run as its
            own; None: not computed.
    """

    device: str
    method: MethodRecord
    minibatch: MinibatchRecord | None = None
    extraction: ExtractionRecord = ExtractionRecord()
    controls: ControlsRecord = ControlsRecord()
    mdl: bool = False
    experiment: ExperimentRecord = ExperimentRecord()
    loading: LoadingRecord | None = None
    notes: tuple[str, ...] = ()
    fingerprint: str | None = None

"""Records of what stands beside a probe's error rate: evaluation, steps along the depth, controls.

Like all records of a run they mirror ``results.json``; `linprobe.records.schema` holds them. A run
without them is valid, and so is a file from before there were any.
"""

from dataclasses import dataclass, field

from linprobe.records.codec import Number

FALLS, RISES, UNDECIDED = "falls", "rises", "can't tell"
CONTROLS = (
    *("shuffled_labels", "control_task", "untrained"),
    *("random_features", "input", "majority"),
)
"""Names of `ControlRecord`."""
ERROR_RATE = "error_rate"
"""Name of the test error where a metric is chosen."""


@dataclass(frozen=True)
class MetricRecord:
    """Description of a metric of a run, as `linprobe.evaluation.metrics.METRICS` gives it.

    Attributes:
        name: of its column, and of its value in `Evaluation.metrics`.
        label: for readers.
        about: a sentence that says what it is.
        in_table: whether the printed table has a column for it.
        of_imbalance: whether it has one where classes are of very unequal size.
        higher_is_better: a probe of a higher value is the better one.
        least: value that it can have; the largest is 1.
    """

    name: str
    label: str
    about: str
    in_table: bool = False
    of_imbalance: bool = False
    higher_is_better: bool = True
    least: Number = 0.0


@dataclass(frozen=True)
class OnlineCode:
    """Minimum description length of the training labels given the features.

    Attributes:
        bits: length of the online code, all blocks together.
        uniform_bits: n log2 K, the length without any probe.
        compression: ``uniform_bits / bits``.
        blocks: samples and bits of each block, in the order of transmission.
    """

    bits: Number
    uniform_bits: Number
    compression: Number
    blocks: tuple[tuple[int, Number], ...]


@dataclass(frozen=True)
class Evaluation:
    """Measures of a probe's probabilities on the test split.

    Attributes:
        num_test: test samples.
        confusion: counts, (n_classes, n_classes): a row a true class, a column a predicted one;
            empty: more than 100 classes, of which `class_counts` and `mistakes` tell.
        per_class_error_rate: of each true class; None for a class without test samples.
        ece: expected calibration error.
        brier: mean squared distance of the probabilities to the label, summed over classes.
        top_k_error_rate: k, as text, to the share of samples whose label is not among the k
            most probable classes.
        v_information_bits: what the features tell a linear probe about the labels.
        prior_entropy_bits: what there is to tell, by the training labels' frequencies.
        mdl: the online code of the training labels; None: not computed.
        optimum_error_interval: holds the test error rate of the exact optimum; None: unknown.
        num_undecided: test samples of which the certificate can't tell whether the exact optimum
            classifies them correctly; None: unknown.
        metrics: value of each `MetricRecord` of the run, by name; NaN: it has none.
        metric_intervals: 95 % interval of metrics, by name; missing where samples don't tell.
        answers_only: class that is predicted for every test sample; None: there are several.
        class_counts: test samples of each class, of more than 100 classes.
        mistakes: the most frequent ones, of more than 100 classes: true class, predicted class,
            test samples.
    """

    num_test: int
    confusion: tuple[tuple[int, ...], ...]
    per_class_error_rate: tuple[float | None, ...]
    ece: Number
    brier: Number
    top_k_error_rate: dict[str, Number]
    v_information_bits: Number
    prior_entropy_bits: Number
    mdl: OnlineCode | None = None
    optimum_error_interval: tuple[Number, Number] | None = None
    num_undecided: int | None = None
    metrics: dict[str, Number] = field(default_factory=dict)
    metric_intervals: dict[str, tuple[Number, Number]] = field(default_factory=dict)
    answers_only: int | None = None
    class_counts: tuple[int, ...] = ()
    mistakes: tuple[tuple[int, int, int], ...] = ()

    @property
    def is_imbalanced(self) -> bool:
        """True if a class has 3 times the test samples of another that occurs, and 10 more."""
        counts = list(filter(None, self.class_counts or map(sum, self.confusion))) or [1]
        return max(counts) >= max(3 * min(counts), min(counts) + 10)


@dataclass(frozen=True)
class DepthStep:
    """Paired comparison of one probe point with the next, on the same test samples.

    Attributes:
        from_layer: the earlier probe point.
        to_layer: the one after it.
        num_fixed: samples wrong at the first and right at the second.
        num_broken: samples right at the first and wrong at the second.
        p_value: of the exact McNemar test, two-sided.
        p_holm: adjusted for all steps of the checkpoint.
        verdict: "falls", "rises" or "can't tell".
    """

    from_layer: str
    to_layer: str
    num_fixed: int
    num_broken: int
    p_value: Number
    p_holm: Number
    verdict: str


@dataclass(frozen=True)
class MetricStep:
    """Paired comparison of a metric at one probe point with the next, on the same test samples.

    Attributes:
        metric: its name.
        from_layer: the earlier probe point.
        to_layer: the one after it.
        change: value at the second minus value at the first.
        p_value: two-sided, see `linprobe.evaluation.statistics.metric_steps`.
        p_holm: adjusted for all steps of the metric and checkpoint.
        verdict: "falls", "rises" or "can't tell".
    """

    metric: str
    from_layer: str
    to_layer: str
    change: Number
    p_value: Number
    p_holm: Number
    verdict: str


@dataclass(frozen=True)
class ControlRecord:
    """One probe, or rule, that a curve is to be compared with.

    Attributes:
        name: one of `CONTROLS`.
        layer: the probe point that it belongs to; None: one value for all of them.
        repeat: number of the draw, from 0.
        seed: of the draw; None: nothing was drawn.
        test_error_rate: of the control, on its own labels where it has such.
        test_error_ci95: Wilson interval of it.
        l2: penalty chosen on held-out samples, as for the probe itself.
        duality_gap: certified, nats.
        status: of the control's probe; None: no probe was fitted.
        selectivity: accuracy of the probe minus that of the control (Hewitt & Liang 2019).
    """

    name: str
    layer: str | None
    repeat: int
    seed: int | None
    test_error_rate: Number
    test_error_ci95: tuple[Number, Number]
    l2: float | None = None
    duality_gap: float | None = None
    status: str | None = None
    selectivity: float | None = None

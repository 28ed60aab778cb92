"""The command ``linprobe reproduce``."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from linprobe.cli.flags import (
    BELOW_ONE,
    COUNT,
    DEPTH,
    FRACTION,
    FROM_ZERO,
    POSITIVE,
    cpu_threads,
    flag,
)
from linprobe.cli.options import OUT, Evaluation
from linprobe.evaluation.options import EvaluationOptions
from linprobe.runtime.errors import LinprobeError

if TYPE_CHECKING:
    from linprobe.experiments.seeds import Config
    from linprobe.experiments.settings import Settings
    from linprobe.experiments.training import MLPTraining
    from linprobe.pipeline.minibatch import SGDProtocol
    from linprobe.records.schema import RunRecord
    from linprobe.runtime.progress import OnEvent


@Parameter(name="*", group="run")
@dataclass(frozen=True)
class Run:
    """What all figures take.

    Attributes:
        overwrite: replace a run that --out holds.
        dataset: images to train and probe on.
        data_dir: folder of their files; None: found or downloaded.
        seed: of everything random.
        seeds: repeat network and probes with the seeds from --seed on, in DIR/seed0 and so on, and
            draw mean and range.
        protocol: how probes are fitted: solved to certified optima, or, for comparison, trained by
            SGD.
        threads: CPU threads; None: PyTorch's choice.
        device: where to compute.
        quick: few samples and training steps: a smoke test, not a result.
    """

    overwrite: bool = False
    dataset: Literal["mnist", "fashion-mnist"] = "mnist"
    data_dir: Annotated[str | None, flag(str, "DIR")] = None
    seed: Annotated[int, FROM_ZERO] = 0
    seeds: Annotated[int, COUNT] = 1
    protocol: Literal["certified", "sgd"] = "certified"
    threads: Annotated[int | None, COUNT] = None
    device: Literal["cpu", "cuda"] = "cpu"
    quick: bool = False


@Parameter(name="*", group="network")
@dataclass(frozen=True)
class Training:
    """How the deep network of Figure 8 is made and trained.

    Attributes:
        depth: hidden layers, even; None: 128, or 10 with --quick.
        optimizer: trains the network; the course's setting is --optimizer sgd --learning-rate
            0.01, under which the deep network stays at the majority class.
        learning_rate: of the network's training.
        batch_size: of the network's training.
        momentum: of --optimizer sgd; None: 0.9.
        slope: of the network's leaky ReLU.
    """

    depth: Annotated[int | None, DEPTH] = None
    optimizer: Literal["sgd", "rmsprop", "adam"] = "adam"
    learning_rate: Annotated[float, POSITIVE] = 1e-4
    batch_size: Annotated[int, COUNT] = 512
    momentum: Annotated[float | None, BELOW_ONE] = None
    slope: Annotated[float, FRACTION] = 0.1


def fig5(
    *,
    recipe: Literal["paper", "course"] = "paper",
    out: Annotated[Path, OUT] = Path("runs", "fig5"),
    epochs: Annotated[int | None, COUNT] = None,
    run: Run = Run(),
    evaluation: Evaluation = EvaluationOptions(),
) -> None:
    """Convolutional network, untrained and trained.

    Figure 5: test error of a probe at each layer of a convolutional network, untrained (a) and
    after 10 epochs (b).

    Args:
        recipe: initialisation and training.
        out: folder to write the run to.
        epochs: of the probes' training by --protocol sgd, at most (default: 500; 5 with --quick).

    Examples:
        linprobe reproduce fig5 --quick
        linprobe reproduce fig5 --recipe course --controls shuffled_labels,majority
    """
    from linprobe.experiments import figure5

    sgd = figure5.sgd_protocol(recipe, _epochs(epochs, run))
    settings = _settings(run, out, evaluation, sgd)
    _reproduce(figure5.Figure5Config(settings, recipe=recipe), figure5.run, run)


def fig8(
    *,
    float64: bool = False,
    out: Annotated[Path, OUT] = Path("runs", "fig8"),
    epochs: Annotated[int | None, COUNT] = None,
    training: Training = Training(),
    run: Run = Run(),
    evaluation: Evaluation = EvaluationOptions(),
) -> None:
    """Deep network with one skip connection, after 0, 500 and 2000 minibatches.

    Figure 8: error of a probe at each layer of a deep network whose input also enters the layer in
    the middle, after 0, 500 and 2000 minibatches.

    Args:
        float64: probe the activations of a forward pass in float64: deep layers vary by less than
            float32 can tell from their mean.
        out: folder to write the run to.
        epochs: of the probes' training by --protocol sgd, at most (default: 200; 5 with --quick).

    Examples:
        linprobe reproduce fig8 --quick --depth 10
        linprobe reproduce fig8 --seeds 3 --out runs/fig8-seeds
    """
    from linprobe.experiments import figure8

    sgd = figure8.sgd_protocol(_epochs(epochs, run))
    settings = replace(_settings(run, out, evaluation, sgd), float64=float64)
    config = figure8.Figure8Config(settings, training.depth, _training(training), training.slope)
    _reproduce(config, figure8.run, run)


def _epochs(epochs: int | None, run: Run) -> int | None:
    if epochs is not None and run.protocol != "sgd":
        raise LinprobeError("--epochs is for --protocol sgd; certified probes have no epochs")
    return epochs


def _training(asked: Training) -> "MLPTraining":
    from linprobe.experiments.training import MLPTraining

    training = MLPTraining(asked.optimizer, asked.learning_rate, batch_size=asked.batch_size)
    if asked.momentum is None:
        return training
    if asked.optimizer != "sgd":
        raise LinprobeError(f"--momentum is for --optimizer sgd; {asked.optimizer} has none")
    return replace(training, momentum=asked.momentum)


def _settings(run: Run, out: Path, evaluation: EvaluationOptions, sgd: "SGDProtocol") -> "Settings":
    from linprobe.evaluation.controls import ControlConfig
    from linprobe.experiments.settings import Settings

    return Settings(
        out=out,
        dataset=run.dataset,
        data_dir=run.data_dir,
        seed=run.seed,
        device=run.device,
        quick=run.quick,
        overwrite=run.overwrite,
        controls=ControlConfig(evaluation.controls, evaluation.repeats),
        mdl=evaluation.mdl,
        sgd=sgd if run.protocol == "sgd" else None,
    )


def _reproduce(
    config: "Config", experiment: "Callable[[Config, OnEvent], RunRecord]", run: Run
) -> None:
    from linprobe.experiments.seeds import run_over_seeds
    from linprobe.report.terminal import make_console, print_seeds, print_summary, show_progress
    from linprobe.runtime.memory import tune_allocator

    tune_allocator()
    out = config.settings.out
    with cpu_threads(run.threads), show_progress(make_console(stderr=True)) as on_event:
        if run.seeds > 1:
            records = run_over_seeds(config, experiment, run.seeds, on_event)
        else:
            records = (experiment(config, on_event),)
    if run.seeds > 1:
        print_seeds(make_console(), records, out)
    else:
        print_summary(make_console(), records[0], out)

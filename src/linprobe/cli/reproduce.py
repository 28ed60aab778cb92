"""The command ``linprobe reproduce``."""

from dataclasses import dataclass
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
    options_of,
)
from linprobe.cli.options import OUT, Evaluation
from linprobe.evaluation.options import EvaluationOptions
from linprobe.experiments.figure5 import Figure5
from linprobe.experiments.figure8 import Figure8
from linprobe.runtime.errors import LinprobeError

if TYPE_CHECKING:
    from linprobe.experiments.experiment import Experiment
    from linprobe.experiments.settings import Settings


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


if TYPE_CHECKING:
    Network5 = Figure5
    Network8 = Figure8
else:
    Network5 = options_of(Figure5(), "network", recipe=Literal["paper", "course"])
    Network8 = options_of(
        Figure8(),
        "network",
        depth=DEPTH,
        optimizer=Literal["sgd", "rmsprop", "adam"],
        learning_rate=POSITIVE,
        batch_size=COUNT,
        momentum=BELOW_ONE,
        slope=FRACTION,
    )


def fig5(
    *,
    out: Annotated[Path, OUT] = Path("runs", "fig5"),
    epochs: Annotated[int | None, COUNT] = None,
    network: Network5 = Figure5(),
    run: Run = Run(),
    evaluation: Evaluation = EvaluationOptions(),
) -> None:
    """Convolutional network, untrained and trained.

    Figure 5: test error of a probe at each layer of a convolutional network, untrained (a) and
    after 10 epochs (b).

    Args:
        out: folder to write the run to.
        epochs: of the probes' training by --protocol sgd, at most (default: 500; 5 with --quick).

    Examples:
        linprobe reproduce fig5 --quick
        linprobe reproduce fig5 --recipe course --controls shuffled_labels,majority
    """
    _reproduce(network, _settings(network, run, out, evaluation, epochs), run)


def fig8(
    *,
    float64: bool = False,
    out: Annotated[Path, OUT] = Path("runs", "fig8"),
    epochs: Annotated[int | None, COUNT] = None,
    network: Network8 = Figure8(),
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
    settings = _settings(network, run, out, evaluation, epochs, float64=float64)
    _reproduce(network, settings, run)


def _settings(
    experiment: "Experiment",
    run: Run,
    out: Path,
    evaluation: EvaluationOptions,
    epochs: int | None,
    *,
    float64: bool = False,
) -> "Settings":
    from linprobe.experiments.settings import Settings

    sgd = None
    if run.protocol == "sgd":
        sgd = experiment.sgd_protocol(epochs)
    elif epochs is not None:
        raise LinprobeError("--epochs is for --protocol sgd; certified probes have no epochs")
    return Settings(
        out=out,
        dataset=run.dataset,
        data_dir=run.data_dir,
        seed=run.seed,
        device=run.device,
        quick=run.quick,
        overwrite=run.overwrite,
        evaluation=evaluation,
        float64=float64,
        sgd=sgd,
    )


def _reproduce(experiment: "Experiment", settings: "Settings", asked: Run) -> None:
    from linprobe.experiments.seeds import run_over_seeds
    from linprobe.experiments.session import run
    from linprobe.report.terminal import make_console, print_seeds, print_summary, show_progress
    from linprobe.runtime.memory import tune_allocator

    tune_allocator()
    with cpu_threads(asked.threads), show_progress(make_console(stderr=True)) as on_event:
        if asked.seeds > 1:
            records = run_over_seeds(experiment, settings, asked.seeds, on_event)
        else:
            records = (run(experiment, settings, on_event),)
    if asked.seeds > 1:
        print_seeds(make_console(), records, settings.out)
    else:
        print_summary(make_console(), records[0], settings.out)

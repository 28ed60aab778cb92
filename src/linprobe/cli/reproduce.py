"""The command ``linprobe reproduce``, with a command for each experiment of the registry."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from cyclopts import Parameter

from linprobe.cli.ends import kept_in
from linprobe.cli.flags import (
    BELOW_ONE,
    COUNT,
    DEPTH,
    FRACTION,
    POSITIVE,
    SEED,
    cpu_threads,
    flag,
    options_of,
)
from linprobe.cli.options import FLOAT64, OUT, Evaluation, Method
from linprobe.evaluation.options import EvaluationOptions
from linprobe.experiments.experiment import Experiment
from linprobe.experiments.registry import EXPERIMENTS
from linprobe.experiments.settings import Settings
from linprobe.probes.config import ProbeConfig
from linprobe.runtime.distributed import is_first
from linprobe.runtime.errors import LinprobeError

_NOT_BY_SGD = {
    "l2_path": ("--l2", "probes trained by SGD have none"),
    "class_weight": ("--class-weight", "SGD weighs all rows alike"),
    "choose_by": ("--choose-by", "SGD has no l2 to choose"),
}
"""Fields of `ProbeConfig` that `SGDProtocol` has no use for: their flags, and why."""

# Numbers of experiments that are checked before anything is imported; others by their type alone.
_NUMBERS = {
    "depth": DEPTH,
    "learning_rate": POSITIVE,
    "batch_size": COUNT,
    "momentum": BELOW_ONE,
    "slope": FRACTION,
}
_EXAMPLES = """
Examples:
    linprobe reproduce {name} --quick
    linprobe reproduce {name} --seeds 3 --out runs/{name}-seeds
"""


@Parameter(name="*", group="run")
@dataclass(frozen=True)
class Run:
    """Settings of a run.

    Attributes:
        protocol: how probes are fitted: solved to certified optima, or, for comparison, trained by
            SGD.
        epochs: of the probes' training by --protocol sgd, at most; None: as the experiment has it
            (fig5: 500, fig8: 200), and 5 with --quick.
        seeds: repeat network and probes with the seeds from --seed on, in DIR/seed0 and so on, and
            draw mean and range.
        threads: CPU threads; None: PyTorch's choice.
    """

    protocol: Literal["certified", "sgd"] = "certified"
    epochs: Annotated[int | None, COUNT] = None
    seeds: Annotated[int, COUNT] = 1
    threads: Annotated[int | None, COUNT] = None


def figures() -> list[Callable[..., None]]:
    """Make a command of each experiment; its fields are options."""
    return [_figure(kind) for kind in EXPERIMENTS.values()]


def _figure(kind: type[Experiment]) -> Callable[..., None]:
    defaults: Any = kind()
    shared = Settings(Path("runs", kind.name))

    def figure(
        *,
        experiment: Experiment = defaults,
        settings: Settings = shared,
        run: Run = Run(),
        method: Method = ProbeConfig(),
        evaluation: Evaluation = EvaluationOptions(),
    ) -> None:
        _reproduce(experiment, replace(settings, method=method, evaluation=evaluation), run)

    hints = get_type_hints(kind)
    own = {option.name for option in fields(defaults)} - {option.name for option in fields(Run)}
    kinds = {name: _NUMBERS.get(name, hints[name]) for name in hints if name in own}
    figure.__name__ = kind.name
    figure.__doc__ = f"{_described(kind)}\n{_EXAMPLES.format(name=kind.name)}"
    figure.__annotations__ |= {
        "experiment": options_of(defaults, "network", **kinds),
        "settings": options_of(
            shared,
            "run",
            out=OUT,
            overwrite=bool,
            dataset=Literal["mnist", "fashion-mnist"],
            data_dir=flag(str, "DIR"),
            seed=SEED,
            device=Literal["cpu", "cuda"],
            quick=bool,
            float64=FLOAT64,
            strict=bool,
        ),
    }
    return figure


def _described(kind: type[Experiment]) -> str:
    first = (kind.__doc__ or "").partition("\n")[0]
    return f"{first}\n\n{kind.claim}"


def _reproduce(experiment: Experiment, settings: Settings, run: Run) -> None:
    if run.protocol == "sgd":
        for name, (flag, why) in _NOT_BY_SGD.items():
            if getattr(settings.method, name) != getattr(ProbeConfig(), name):
                raise LinprobeError(f"{flag} is for --protocol certified; {why}")
        settings = replace(settings, sgd=experiment.sgd_protocol(run.epochs))
    elif run.epochs is not None:
        raise LinprobeError("--epochs is for --protocol sgd; certified probes have no epochs")
    from linprobe.experiments import session
    from linprobe.experiments.seeds import run_over_seeds
    from linprobe.report.terminal import make_console, print_seeds, print_summary, show_progress
    from linprobe.runtime.memory import tune_allocator

    tune_allocator()
    with (
        kept_in(settings.out, overwrite=settings.overwrite),
        cpu_threads(run.threads),
        show_progress(make_console(stderr=True)) as on_event,
    ):
        if run.seeds > 1:
            records = run_over_seeds(experiment, settings, run.seeds, on_event)
        else:
            records = (session.run(experiment, settings, on_event),)
    if not is_first():
        return
    if run.seeds > 1:
        print_seeds(make_console(), records, settings.out)
    else:
        print_summary(make_console(), records[0], settings.out)

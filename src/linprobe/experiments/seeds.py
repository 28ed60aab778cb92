"""An experiment repeated with several seeds: each a run of its own, then their mean and spread.

Every seed draws another network, another order of training, other held-out rows.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from linprobe.experiments.experiment import Experiment
from linprobe.experiments.session import run_shared
from linprobe.experiments.settings import FREE, Settings
from linprobe.records.comparison.curves import Curve
from linprobe.records.comparison.distances import compare
from linprobe.records.schema import RunRecord
from linprobe.records.seeds import SPLITS, load_seeds, save_seeds
from linprobe.records.store import JSON_NAME, check_folder, load_run, prepare_folder, seed_folders
from linprobe.report.overlay import draw_comparison
from linprobe.report.plots import save_figure
from linprobe.runtime.distributed import Ranks, shared
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import atomic_write
from linprobe.runtime.lock import folder_lock
from linprobe.runtime.progress import Event, OnEvent, ignore
from linprobe.runtime.text import first_line

ASKED_JSON = "seeds.json"
"""File that says what the runs in a folder were asked for, so that another call can resume."""

_FREE = (*FREE, "seed")


def run_over_seeds(
    experiment: Experiment, settings: Settings, count: int, on_event: OnEvent = ignore
) -> tuple[RunRecord, ...]:
    """Run an experiment with the seeds from ``settings.seed`` on, in ``settings.out/seedN``.

    A seed whose run is complete is kept, unless ``settings.overwrite`` says otherwise; one that
    was interrupted goes on where it was. Whatever fails later, finished seeds are complete.

    Args:
        experiment: what to run.
        settings: of the first seed.
        count: how many seeds, at least 1.
        on_event: receives the progress of all.

    Returns:
        All complete runs in the folder, also those of earlier calls.

    Raises:
        LinprobeError: The folder holds something else, or what `run` raises.
    """
    with shared(folder=settings.out) as ranks:
        on_event = ranks.watched(on_event)
        if not ranks.leads:
            return _run_over_seeds(experiment, settings, ranks.agreed([]), on_event, ranks)
        check_folder(settings.out, overwrite=settings.overwrite)
        with folder_lock(settings.out):
            left = ranks.agreed(_seeds_left(experiment, settings, count, on_event))
            return _run_over_seeds(experiment, settings, left, on_event, ranks)


def _seeds_left(
    experiment: Experiment, settings: Settings, count: int, on_event: OnEvent
) -> list[int]:
    seeds = range(settings.seed, settings.seed + count)
    _prepare(experiment, settings, seeds)
    left = [seed for seed in seeds if not _is_finished(settings, seed)]
    for seed in (seed for seed in seeds if seed not in left):
        text = f"seed{seed} was finished before and is kept (overwrite=True runs it again)"
        on_event(Event(0.0, settings.out.name, "evaluate", text, milestone=True))
    return left


def _run_over_seeds(
    experiment: Experiment,
    settings: Settings,
    left: list[int],
    on_event: OnEvent,
    ranks: Ranks,
) -> tuple[RunRecord, ...]:
    for done, seed in enumerate(left):
        # Overwriting has emptied its folder already.
        mine = replace(settings, seed=seed, out=settings.out / f"seed{seed}", overwrite=False)
        run_shared(experiment, mine, _within(on_event, seed, done, len(left)), ranks)
        if ranks.leads:
            _summarise(settings.out)
    if not ranks.leads:
        return ranks.agreed(())
    return ranks.agreed(load_seeds(settings.out) if left else _summarise(settings.out))


def _prepare(experiment: Experiment, settings: Settings, seeds: range) -> None:
    """Check the folder before anything is computed; with overwriting, empty the seeds' folders."""
    out, asked = settings.out, _asked(experiment, settings)
    mine = {f"seed{seed}" for seed in seeds}
    kept = [path for path in seed_folders(out) if not (settings.overwrite and path.name in mine)]
    known = _read(out / ASKED_JSON)
    differing = [key for key in known | asked if known.get(key) != asked.get(key)]
    if kept and differing:
        names = ", ".join(path.name for path in kept)
        what = ", ".join(differing) if known else "settings that it doesn't say"
        again = "" if settings.overwrite else ", or replace its seeds with overwrite=True"
        raise LinprobeError(
            f"{out} holds {names} with other settings ({what}); choose another folder{again}"
        )
    for folder in (out, *(out / name for name in mine)) if settings.overwrite else ():
        prepare_folder(folder, overwrite=True)
    with atomic_write(out / ASKED_JSON) as temporary:
        temporary.write_text(json.dumps(asked, indent=1) + "\n", encoding="utf-8")


def _asked(experiment: Experiment, settings: Settings) -> dict[str, Any]:
    common, own = asdict(settings), asdict(experiment)  # type: ignore[call-overload]
    # Single options, so that the message can name the one that differs.
    common |= common.pop("method") | common.pop("evaluation")
    every = {"figure": experiment.name, **common, **own}
    # As they are read back: JSON has no tuples.
    asked = json.loads(json.dumps({k: v for k, v in every.items() if k not in _FREE}))
    assert isinstance(asked, dict)
    return asked


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        said = first_line(error)[:200]
        raise LinprobeError(f"{path} can't be read ({said}); choose another folder") from error
    return found if isinstance(found, dict) else {}


def _is_finished(settings: Settings, seed: int) -> bool:
    folder = settings.out / f"seed{seed}"
    if not (folder / JSON_NAME).exists():
        return False
    found = load_run(folder)
    return found.complete and found.seed == seed


def _within(on_event: OnEvent, seed: int, done: int, count: int) -> OnEvent:
    """Events of one seed as events of all."""

    def on_seed(event: Event) -> None:
        fraction = (done + event.fraction) / count
        on_event(replace(event, fraction=fraction, checkpoint=f"seed {seed}, {event.checkpoint}"))

    return on_seed


def _summarise(out: Path) -> tuple[RunRecord, ...]:
    """Write seeds.csv of all complete runs in the folder, and figures from two runs on."""
    runs = load_seeds(out)
    save_seeds(runs, out)
    for split in SPLITS if len(runs) > 1 else ():
        comparison = compare([Curve(runs[0].protocol, runs, split)])
        save_figure(draw_comparison(comparison), out / f"figure_seeds_{split}")
    return runs

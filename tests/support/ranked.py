"""What tests call in several processes."""

import os

import torch
from torch import nn

import linprobe

METHOD = linprobe.ProbeConfig(l2_path=(1e-1, 1e-2))
WIDTHS = {"a": 3, "b": 40, "c": 5, "d": 20}


def layers():
    """Features of four layers of both splits, and labels of three classes."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(150) % 3
    x = {name: torch.randn(150, width, generator=generator) for name, width in WIDTHS.items()}
    for features in x.values():
        features[:, :3] += nn.functional.one_hot(y, 3)
    return x, y


def fit(out=None, **options):
    """Fit probes to all layers, and return the numbers of each."""
    x, y = layers()
    train, test = ({k: v[part] for k, v in x.items()} for part in (slice(100), slice(100, None)))
    return numbers(
        linprobe.fit_probes(
            *(train, y[:100], (test, y[100:])), method=METHOD, out=out, progress=True, **options
        )
    )


def probe():
    """Probe a small network, one of whose layers fails, with a control that takes another."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 9), nn.Tanh(), nn.Linear(9, 2), nn.Sigmoid())
    with torch.no_grad():
        network[2].weight[:] = float("nan")
    x, y = layers()
    data = x["a"], y
    evaluation = linprobe.EvaluationOptions(controls=("untrained",))
    report = linprobe.probe(network, data, data, method=METHOD, evaluation=evaluation)
    controls = report.run.checkpoints[0].controls
    return numbers(report), [(c.layer, c.test_error_rate) for c in controls]


def fit_and_probe(out=None):
    """Do both, one after the other."""
    return fit(out), probe()


def numbers(report):
    """Give what every process must have alike."""
    return {
        name: (p.record.index, p.record.status, str(p.record.objective), str(p.weight))
        for name, p in report.items()
    }


def fit_each_its_own():
    """Make calls that differ between processes; return the two messages, and what is alone."""
    said = []
    for options in ({"seed": int(os.environ["RANK"])}, {"distribute": "all"}):
        try:
            fit(**options)
        except linprobe.LinprobeError as error:
            said.append(str(error))
    return said, fit(distribute=None, seed=int(os.environ["RANK"])), fit()


def fit_and_end(out, rank, how):
    """Fit probes; when process `rank` has finished a layer, it raises, or is gone at once."""
    from linprobe.pipeline import unfinished

    put = unfinished.Parts.put

    def put_and_end(parts, probe):
        put(parts, probe)
        if int(os.environ["RANK"]) == rank:
            if how == "gone":
                os._exit(9)
            raise ValueError("no more of this")

    unfinished.Parts.put = put_and_end
    try:
        return fit(out)
    except linprobe.LinprobeError as error:
        return f"{type(error).__name__}: {error}"


def command(*words):
    """Run the command line on a small Figure 8, and return its exit code."""
    from linprobe.cli.main import main
    from linprobe.experiments import figure8, session
    from linprobe.experiments import samples as loading
    from tests.support.killed import draw_nothing
    from tests.support.tiny import tiny_dataset

    loading.load = lambda *_: tiny_dataset()
    figure8.QUICK_STEPS = (0, 4, 8)
    session.write_report = figure8.Figure8.draw = draw_nothing
    return main(words)

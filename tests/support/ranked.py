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


def fit_sets(cuts=None):
    """Fit probes to two label sets; `cuts`: "rows": each of two processes has some of the rows."""
    x, y = layers()
    sets = {"third": y, "first": (y == 0).long()}
    own, method = slice(None), linprobe.ProbeConfig(l2_path=METHOD.l2_path)
    if cuts == "rows" and "RANK" in os.environ:
        own = slice(0, 60) if os.environ["RANK"] == "0" else slice(60, None)
    parts = [
        {name: values[part][own] for name, values in given.items()}
        for given in (x, sets)
        for part in (slice(100), slice(100, None))
    ]
    distribute = "rows" if cuts == "rows" else "layers"
    reports = linprobe.fit_label_sets(
        *(parts[0], parts[2], (parts[1], parts[3])), method=method, distribute=distribute
    )
    return {name: numbers(report) for name, report in reports.items()}


def fit_sets_both_ways():
    """Fit probes to two label sets with layers dealt out, and with rows shared out."""
    return fit_sets(), fit_sets("rows")


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


SHARED = {
    "few features": {},
    "two classes": {"classes": 2, "columns": 40},
    "many classes": {"rows": 700, "classes": 70, "columns": 16, "l2_path": (1e-1, 1e-2)},
    "many features": {"columns": 300, "l2_path": (1e-1, 1e-2)},
    "small penalties": {"classes": 4, "columns": 6, "l2_path": (1e-5, 1e-7), "scale": "feature"},
    "streamed": {"columns": 30, "memory_bytes": 2e4},
    "weighted": {"weighted": True, "class_weight": "balanced"},
}
"""Problems whose rows are shared out: sizes, options of the method, and how they are given."""


def shared_rows(cuts, distribute="rows"):
    """Fit probes to rows that are cut between the processes; return what each problem gave.

    Args:
        cuts: shares of the training and of the test rows at which each process but the first
            begins; the last class stands at the end.
        distribute: None to fit all rows in one process.
    """
    return {name: _fit_shared(cuts, distribute, **case) for name, case in SHARED.items()}


def _fit_shared(
    cuts, distribute, rows=300, columns=12, classes=3, weighted=False, memory_bytes=None, **method
):
    generator = torch.Generator().manual_seed(rows + columns)
    splits = []
    for cut in cuts:
        y = torch.randint(classes, (rows,), generator=generator).sort().values
        x = torch.randn(rows, columns, generator=generator)
        x[:, : min(classes, columns)] += nn.functional.one_hot(y, classes)[:, :columns]
        rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        ends = [0, *(int(share * rows) for share in cut), rows]
        own = slice(*ends[rank : rank + 2]) if size > 1 else slice(None)
        labels = [f"class {k}" for k in y[own].tolist()] if weighted else y[own]
        splits.append(({"a": x[own]}, labels, own))
    (train, labels, own), (test, test_labels, _) = splits
    with_rows = {}
    if weighted:
        with_rows = {
            "sample_weight": (torch.arange(rows) % 4)[own],
            "groups": (torch.arange(rows) // 2)[own].tolist(),
        }
    report = linprobe.fit_probes(
        *(train, labels, (test, test_labels)),
        method=linprobe.ProbeConfig(**method),
        memory_bytes=memory_bytes,
        distribute=distribute,
        **with_rows,
    )
    return report["a"]


def fit_wrong_rows(cases):
    """Make calls of shared rows that some process makes wrong, and return what is said."""
    return [_fit_wrong_rows(case) for case in cases]


def _fit_wrong_rows(case):
    rank = int(os.environ["RANK"])
    x, y = torch.randn(40, 3), torch.arange(40) % 2
    options = {"distribute": "rows"}
    if case == "layers" and rank:
        x = x[:, :2]
    if case == "dtypes" and rank:
        x = x.double()
    if case == "weights" and rank:
        options["sample_weight"] = torch.ones(40)
    if case == "text" and rank:
        y = [str(label) for label in y.tolist()]
    if case == "settings":
        options["seed"] = rank
    if case == "controls":
        options["evaluation"] = linprobe.EvaluationOptions(controls=("shuffled_labels",))
    if case == "none":
        x, y = x[:0], y[:0]
    if case == "short" and rank:
        y = y[:-1]
    if case == "nan" and rank:
        x[5] = float("nan")
    try:
        report = linprobe.fit_probes({"a": x}, y, ({"a": x}, y), **options)
    except linprobe.LinprobeError as error:
        return str(error)
    return report["a"].record.reason


def fit_rows_and_end(out):
    """Share out the rows of two layers; the second process is gone in the middle of the second."""
    from linprobe.core import solve

    attempts, certified = [], solve.solve_certified

    def solve_and_end(*args, **options):
        attempts.append(args)
        if os.environ["RANK"] == "1" and len(attempts) == 2:
            os._exit(9)
        return certified(*args, **options)

    from linprobe.probes import refit

    refit.solve_certified = solve_and_end
    x, y = layers()
    train = {"a": x["a"], "d": x["d"]}
    try:
        linprobe.fit_probes(train, y, (train, y), out=out, distribute="rows")
    except linprobe.LinprobeError as error:
        return f"{type(error).__name__}: {error}"

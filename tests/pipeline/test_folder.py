"""Runs that are written while they are made, and taken up again."""

import errno
import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from torch import nn

import linprobe
from linprobe import LinprobeError
from linprobe.pipeline import array_layers, engine, network_layers
from linprobe.pipeline.folder import RunFolder
from linprobe.records.store import load_run
from linprobe.runtime.lock import folder_lock
from tests.support.options import fit_options, grouped

X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 2
X[:, 0] += 2 * Y
PATH = (1e-1, 1e-2)
ENDS = [KeyboardInterrupt(), MemoryError("no room"), SystemExit(1)]


@pytest.fixture(autouse=True)
def one_by_one(monkeypatch):
    for module in (array_layers, network_layers):
        monkeypatch.setattr(module, "thread_count", lambda device: 1)


def fitted(out=None, names="abcd", x=X, y=Y, **options):
    train, test = ({name: part * (1 + i) for i, name in enumerate(names)} for part in (x, X[40:]))
    top = {name: options.pop(name) for name in ("strict", "seed") if name in options}
    chosen = fit_options(**{"l2": PATH, "controls": ["shuffled_labels"], "repeats": 1, **options})
    return linprobe.fit_probes(train, y, (test, Y[40:]), out=out, **top, **chosen)


def network(scale=1.0):
    torch.manual_seed(3)
    made = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    with torch.no_grad():
        made[2].bias.mul_(scale)
    return made


def probed(out=None, made=None, data=(X, Y), layers=None, **options):
    chosen = grouped(**{"l2": PATH, "batch_size": 16, **options})
    made = network() if made is None else made
    return linprobe.probe(made, data, (X[40:], Y[40:]), layers=layers, out=out, **chosen)


@pytest.fixture
def stop(monkeypatch):
    """Count the layers that are fitted, and end the work at some of them."""
    real, calls = engine.fit_layer, []

    def arm(error=None, at=()):
        def fit_layer(layer, *args):
            calls.append(layer)
            if layer in at:
                raise error
            return real(layer, *args)

        calls.clear()
        monkeypatch.setattr(engine, "fit_layer", fit_layer)
        return calls

    return arm


def content(folder):
    """What results.json says, times aside."""
    found = json.loads((Path(folder) / "results.json").read_text())
    found["config"]["extraction"]["memory_bytes"] = None
    del found["seconds"], found["peak_rss_bytes"]
    for checkpoint in found["checkpoints"]:
        del checkpoint["stages"]
        for probe in checkpoint["probes"]:
            del probe["seconds"]
    return found


@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(("run", "last"), [(fitted, "c"), (probed, "2")])
def test_what_is_finished_is_taken_up_again(run, last, error, stop, tmp_path):
    whole = run(tmp_path / "whole")
    stop(error, {last})
    with pytest.raises(type(error)):
        run(tmp_path / "half", strict=True)
    assert not (tmp_path / "half" / "results.json").exists()
    calls = stop()
    report = run(tmp_path / "half")
    assert calls == list(report)[list(report).index(last) :]
    assert content(tmp_path / "half") == content(tmp_path / "whole")
    for layer in whole:
        for name in ("weight", "bias", "mean", "scale"):
            assert torch.equal(getattr(report[layer], name), getattr(whole[layer], name))
        assert torch.equal(
            report[layer].predictions.own_log_probability,
            whole[layer].predictions.own_log_probability,
        )
        assert report[layer].controls == whole[layer].controls
    left = {p.name for p in (tmp_path / "half").iterdir()}
    assert left == {"results.json", "results.csv", "report.html", "probes", "predictions"}
    assert str(linprobe.load_report(tmp_path / "half")) == str(report)


def test_a_finished_run_is_given_back_without_any_work(stop, tmp_path):
    report = probed(tmp_path)
    before = (tmp_path / "results.json").read_bytes()
    calls, made = stop(), network()
    made.forward = None  # is not run either
    again = probed(tmp_path, made)
    assert calls == [] and str(again) == str(report)
    assert (tmp_path / "results.json").read_bytes() == before


def test_layers_that_failed_are_tried_again_and_no_others(stop, tmp_path):
    stop(MemoryError(), {"b"})
    report = fitted(tmp_path)
    assert report["b"].record.status == "failed" and report["c"].record.converged
    calls = stop()
    report = fitted(tmp_path)
    assert calls == ["b"] and all(record.converged for record in report.records)
    assert content(tmp_path) == content(fitted(tmp_path / "whole") and tmp_path / "whole")


def test_nothing_but_finished_layers_counts_after_a_kill(stop, tmp_path):
    """A process that is killed may leave temporary files, and tensors without a record."""
    stop(KeyboardInterrupt(), {"d"})
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path)
    parts = tmp_path / "unfinished"
    (parts / "00000.json").rename(parts / ".00000.json.1234.part")
    (parts / "00001.json").write_text('{"fingerpr')
    (parts / "probes" / "00002.safetensors").write_bytes(b"half")
    calls = stop()
    fitted(tmp_path)
    assert calls == ["a", "b", "c", "d"]
    assert content(tmp_path) == content(fitted(tmp_path / "whole") and tmp_path / "whole")


def test_a_kill_while_the_run_is_written(monkeypatch, stop, tmp_path):
    whole = tmp_path / "whole"
    fitted(whole)
    with monkeypatch.context() as patch:
        patch.setattr("linprobe.report.page.write_report", lambda *_: exec("raise SystemExit"))
        with pytest.raises(SystemExit):
            fitted(tmp_path / "half")
    assert (tmp_path / "half" / "results.json").exists()
    calls = stop()
    fitted(tmp_path / "half")
    assert calls == [] and (tmp_path / "half" / "report.html").exists()
    assert content(tmp_path / "half") == content(whole)
    assert not (tmp_path / "half" / "unfinished").exists()


class Squares(torch.utils.data.Dataset):
    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], int(Y[i])


def changed(row=-1):
    other = X.clone()
    other[row, -1] += 1e-3
    return other


OTHERS = {
    "a number of the last row": (fitted, {"x": changed()}),
    "labels": (fitted, {"y": 1 - Y}),
    "order of layers": (fitted, {"names": "abdc"}),
    "layers": (fitted, {"names": "abc"}),
    "tol": (fitted, {"tol": 1e-3}),
    "seed": (fitted, {"seed": 1}),
    "controls": (fitted, {"controls": []}),
    "mdl": (fitted, {"mdl": True}),
    "data": (probed, {"data": (changed(), Y)}),
    "a data set's last item": (probed, {"data": Squares(changed())}),
    "loaded": (probed, {"data": [(changed(), Y)]}),
    "weights": (probed, {"made": network(1.0001)}),
    "activation": (probed, {"made": nn.Sequential(network()[0], nn.GELU(), network()[2])}),
    "chosen layers": (probed, {"layers": ["0"]}),
    "reduce": (probed, {"reduce": "random:2"}),
    "select": (probed, {"select": lambda name, value: value + 1}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_refused(name, stop, tmp_path):
    run, other = OTHERS[name]
    first = {}
    if name == "a data set's last item":
        first = {"data": Squares(X)}
    elif name == "select":
        first = {"select": lambda name, value: value + 2}
    stop(KeyboardInterrupt(), {"d", "2"})
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, **first)
    for _ in range(2):  # of an unfinished run, and of a finished one
        calls = stop()
        with pytest.raises(LinprobeError, match=r"holds a run of other data.*overwrite=True"):
            run(tmp_path, **other)
        assert calls == []
        run(tmp_path, **first)
    before = content(tmp_path)
    run(RunFolder(tmp_path, overwrite=True), **other)
    assert content(tmp_path) != before and not (tmp_path / "unfinished").exists()


def test_what_does_not_change_the_numbers_is_free(stop, tmp_path):
    probed(tmp_path)
    calls = stop()
    probed(tmp_path, memory_bytes=1e9, strict=True)
    assert calls == []


def test_files_of_features_are_hashed_by_what_they_hold(stop, tmp_path):
    def run():
        np.save(tmp_path / "x.npy", X.numpy())
        paths = {"a": tmp_path / "x.npy"}
        chosen = fit_options(l2=PATH)
        return linprobe.fit_probes(paths, Y, (paths, Y), out=tmp_path / "run", **chosen)

    run()
    calls = stop()
    run()
    assert calls == []


def test_folders_that_can_not_be_written_are_refused_before_any_work(stop, tmp_path):
    calls = stop()
    (tmp_path / "file").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "probes").touch()
    for place in ("file", "file/below", "run", "x" * 300, "/".join(["y" * 200] * 30)):
        with pytest.raises(LinprobeError, match=r"can't write to .*; choose a folder") as caught:
            fitted(tmp_path / place)
        assert "\n" not in str(caught.value)
    assert calls == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_a_disk_without_room_is_found_before_any_work(number, stop, monkeypatch, tmp_path):
    def fail(*_):
        raise OSError(number, "no luck")

    calls = stop()
    monkeypatch.setattr(Path, "write_bytes", fail)
    for run in (fitted, probed):
        with pytest.raises(LinprobeError, match=r"can't write to .* \(no luck\); choose"):
            run(tmp_path)
    assert calls == []


def test_a_disk_that_fills_up_later_takes_nothing_away(monkeypatch, tmp_path):
    whole = fitted(tmp_path / "whole")
    real = Path.replace

    def full(self, target):
        if "half" in str(target) and Path(target).name != "00000.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.warns(UserWarning, match=r"half/.* can't be written \(No space left"):
            report = fitted(tmp_path / "half")
    assert "NOT WRITTEN" in str(report) and "report.save(FOLDER" in str(report)
    for layer in whole:
        assert torch.equal(report[layer].weight, whole[layer].weight)
    report.save(tmp_path / "saved")
    assert content(tmp_path / "saved") == content(tmp_path / "whole")
    with pytest.raises(LinprobeError, match="already holds a run"):
        report.save(tmp_path / "whole")


def test_tensors_on_a_full_disk(monkeypatch, tmp_path):
    """The library that writes them has errors of its own."""

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    report = fitted()
    monkeypatch.setattr("linprobe.runtime.tensors.save_file", full)
    with pytest.raises(LinprobeError, match=r"can't be written \(.*No space left.*\); expected"):
        report.save(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_threads_write_side_by_side(monkeypatch, stop, tmp_path):
    for module in (array_layers, network_layers):
        monkeypatch.setattr(module, "thread_count", lambda device: 3)
    monkeypatch.setattr(array_layers, "free_bytes", lambda device: 1e9)
    seen = set()
    real = RunFolder.put
    monkeypatch.setattr(
        RunFolder, "put", lambda self, p: (seen.add(threading.get_ident()), real(self, p))[1]
    )
    stop(KeyboardInterrupt(), {"d"})
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path)
    assert seen - {threading.get_ident()}
    calls = stop()
    fitted(tmp_path)
    assert "a" not in calls and load_run(tmp_path).complete


def test_an_old_run_stays_until_the_new_one_is_complete(stop, tmp_path):
    fitted(tmp_path)
    before, whole = content(tmp_path), fitted(tmp_path / "whole", seed=1)
    stop(KeyboardInterrupt(), {"c"})
    with pytest.raises(KeyboardInterrupt):
        fitted(RunFolder(tmp_path, overwrite=True), seed=1)
    assert content(tmp_path) == before
    calls = stop()
    report = fitted(tmp_path, seed=1)  # what was begun may be ended
    assert calls == ["c", "d"] and str(report) == str(whole)
    assert content(tmp_path) == content(tmp_path / "whole")


@pytest.mark.parametrize("run", [fitted, probed])
def test_two_calls_at_once_are_refused(run, stop, tmp_path):
    calls = stop()
    with folder_lock(tmp_path), pytest.raises(LinprobeError, match="another process is writing"):
        run(tmp_path)
    assert calls == []
    run(tmp_path)

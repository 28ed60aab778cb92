"""Files from anyone: each reader gives what is right or one line, and runs and opens nothing else.

`attempt` fails where an error has more than a line, a pickle in a file is run, or a file outside
of the reader's folder is opened.
"""

import gzip
import io
import json
import pickle
import zipfile
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from hypothesis import given
from safetensors.torch import save
from torch import nn

import linprobe
from linprobe.activations.checkpoints import load_weights
from linprobe.cli.main import main
from linprobe.data.fetch import read_present
from linprobe.data.idx import parse_idx
from linprobe.data.registry import DataFile
from linprobe.data.specs import read_data
from linprobe.experiments.kept import NetworkStates
from linprobe.experiments.seeds import ASKED_JSON, _read
from linprobe.pipeline.layer_probe import Probe, load_probe_tensors
from linprobe.pipeline.unfinished import Parts, Unfinished
from linprobe.records.predictions import Predictions, load_predictions, save_predictions
from linprobe.records.store import load_run
from linprobe.records.store import save as save_run
from linprobe.report.page import report_html
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.tensors import read_tensors, write_tensors
from tests.support.fuzz import FEW, Calls, attempt, called, damaged, edited, flipped, harmful
from tests.support.records import (
    checkpoint_record,
    control_record,
    evaluation_record,
    probe_record,
    run_record,
    step_record,
)
from tests.support.tiny import TinyTrainer

X, Y = np.random.default_rng(0).normal(size=(6, 3)), np.arange(6) % 2
LABELS = torch.arange(2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readers")


def saved(write, *args, **options):
    """Bytes that a function writes to a file."""
    file = io.BytesIO()
    write(file, *args, **options)
    return file.getvalue()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


NPY = saved(np.save, X)
NPZ = {
    name: saved(write, x_train=X, y_train=Y, x_test=X, y_test=Y)
    for name, write in (("plain", np.savez), ("compressed", np.savez_compressed))
}
IDX = bytes([0, 0, 8, 1, 0, 0, 0, 9]) + bytes(range(9))
CHECKPOINTS = {
    "safetensors": save(net().state_dict()),
    "pt": saved(lambda f, x: torch.save(x, f), {"model": net().state_dict(), "more": Calls()}),
    "legacy.pt": saved(
        lambda f, x: torch.save(x, f, _use_new_zipfile_serialization=False), net().state_dict()
    ),
}


@FEW
@given(raw=damaged(IDX))
def test_idx(raw, folder):
    (folder / "idx").write_bytes(raw)
    file = DataFile("idx", (9,), "0" * 64)
    found = attempt(lambda: parse_idx(raw, (9,), "the file of labels"), folder)
    assert found is None or found.shape == (9,)
    assert attempt(lambda: read_present(folder, file), folder) is None, "its hash is another one"
    (folder / "idx").unlink()
    (folder / "idx.gz").write_bytes(gzip.compress(raw)[: 10 + len(raw)])
    assert attempt(lambda: read_present(folder, file), folder) is None


@FEW
@given(raw=damaged(NPY))
def test_npy(raw, folder):
    path = folder / "x.npy"
    path.write_bytes(raw)
    attempt(lambda: linprobe.fit_probes({"a": path}, Y, ({"a": path}, Y)), folder)


@pytest.mark.parametrize("kind", NPZ)
def test_npz(kind, folder):
    @FEW
    @given(raw=damaged(NPZ[kind]))
    def test(raw):
        (folder / "x.npz").write_bytes(raw)
        attempt(lambda: read_data(f"npz:{folder / 'x.npz'}"), folder)

    test()


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpoints(kind, folder):
    path = folder / f"net.{kind}"

    @FEW
    @given(raw=damaged(CHECKPOINTS[kind]))
    def test(raw):
        path.write_bytes(raw)
        attempt(lambda: load_weights(net(), path), folder)

    test()


def tensors_of(folder):
    probes = {"a.weight": torch.randn(2, 3).double(), "a.bias": torch.zeros(2).double()}
    write_tensors(folder / "probes" / "c.safetensors", probes, {"more": "text"})
    save_predictions(folder, "c", LABELS, {"a": Predictions.of(torch.randn(2, 2), LABELS)})
    return (folder / kind / "c.safetensors" for kind in ("probes", "predictions"))


def test_tensors_of_a_run(folder):
    weights, predictions = tensors_of(folder)

    @FEW
    @given(raw=damaged(weights.read_bytes()))
    def test_weights(raw):
        weights.write_bytes(raw)
        attempt(lambda: load_probe_tensors(folder, "c"), folder)

    @FEW
    @given(raw=damaged(predictions.read_bytes()))
    def test_predictions(raw):
        predictions.write_bytes(raw)
        attempt(lambda: load_predictions(folder, "c"), folder)

    test_weights()
    test_predictions()


def test_a_flipped_bit_in_tensors_of_a_run_is_found(folder):
    path, _ = tensors_of(folder)
    whole, said = read_tensors(path, "make it again")
    assert said == {"more": "text"}

    @FEW
    @given(raw=flipped(path.read_bytes()))
    def test(raw):
        path.write_bytes(raw)
        found = attempt(lambda: read_tensors(path, "make it again"), folder)
        if found is not None:  # the flip took away the checksum's name and nothing else
            assert found[0].keys() == whole.keys()
            assert all(torch.equal(found[0][name], whole[name]) for name in whole)

    test()


def test_what_is_kept_of_a_run(folder):
    """Damaged parts, states and what names the run are not used: nothing raises."""
    place = folder / "kept"
    trainer, network = TinyTrainer([]), net()
    NetworkStates(place, "one").save("c", network, trainer, 1.5)
    probe = Probe(probe_record(layer="a"), torch.ones(2, 128).double(), torch.zeros(2))
    Parts(place, "one", LABELS).put(probe)
    Unfinished(place).open("one")
    files = sorted(path for path in place.rglob("*") if path.is_file())
    assert len(files) == 3
    for path in files:
        check_kept(path, place, network, trainer, probe)


def check_kept(path, place, network, trainer, probe):
    whole = path.read_bytes()

    @FEW
    @given(raw=flipped(whole) | damaged(whole))
    def test(raw):
        path.write_bytes(raw)
        found = attempt(lambda: Parts(place, "one", LABELS).finished({"a": 128}), place)
        assert found is not None and all(
            torch.equal(p.weight, probe.weight) for p in found.values()
        )
        assert all(p.record == probe.record for p in found.values())
        seconds = attempt(
            lambda: (NetworkStates(place, "one").restore("c", network, trainer),), place
        )
        assert seconds in ((None,), (1.5,))

    test()
    path.write_bytes(whole)


def record():
    probes = tuple(probe_record(i, f"layer{i}", evaluation=evaluation_record()) for i in range(3))
    first = checkpoint_record(
        [], probes=probes, steps=(step_record(),), controls=(control_record(),)
    )
    return run_record(first, checkpoint_record([0.1, 0.2], "later", 40))


def test_results_json(folder):
    """What can be read can be shown, whatever numbers it holds."""
    save_run(record(), folder)
    path = folder / "results.json"
    content, whole = json.loads(path.read_text()), path.read_bytes()

    @FEW
    @given(raw=damaged(whole) | edited(content).map(lambda made: json.dumps(made).encode()))
    def test(raw):
        path.write_bytes(raw)
        run = attempt(lambda: load_run(folder), folder)
        if run is not None:
            with redirect_stdout(io.StringIO()) as said:
                assert main(["show", str(folder)]) == 0, said.getvalue()
            attempt(lambda: report_html(run), folder)

    test()


@FEW
@given(raw=damaged(b'{"figure": "fig8", "depth": 4}'))
def test_seeds_json(raw, folder):
    (folder / ASKED_JSON).write_bytes(raw)
    attempt(lambda: _read(folder / ASKED_JSON), folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/x", "a/../../x", "..", ""])
def test_a_record_leads_to_no_file_outside_its_folder(name, folder):
    inside = folder / "a" / "run"
    inside.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "a" / "outside.safetensors", {"input.weight": torch.ones(1)})
    run = run_record(checkpoint_record([0.1], name=name), experiment="probe")
    save_run(run, inside)
    with pytest.raises(LinprobeError, match="to be the name of a file; expected one without /"):
        linprobe.load_report(inside)


def test_archives_may_hold_whatever_names(folder):
    """Members of an archive are read by name, and never written anywhere."""
    path = folder / "slip.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test", "../../slipped", "/tmp/slipped"):
            archive.writestr(f"{name}.npy", saved(np.save, X if name[0] == "x" else Y))
    before = sorted(folder.rglob("*"))
    data = attempt(lambda: read_data(f"npz:{path}"), folder)
    assert data is not None and sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("ending", ["npy", "npz", "pt", "safetensors"])
def test_a_pickle_under_any_name_is_not_run(ending, folder):
    path = folder / f"harmful.{ending}"
    for raw in (harmful(), saved(np.save, np.array([Calls()], object), allow_pickle=True)):
        path.write_bytes(raw)
        readers = {
            "npy": lambda: linprobe.fit_probes({"a": path}, Y, ({"a": path}, Y)),
            "npz": lambda: read_data(f"npz:{path}"),
        }
        read = readers.get(ending, lambda: load_weights(net(), path))
        assert attempt(read, folder) is None


def test_the_watch_sees_what_is_opened_and_run(folder, tmp_path):
    (tmp_path / "outside").touch()
    with pytest.raises(AssertionError, match="outside"):
        attempt((tmp_path / "outside").read_bytes, folder)
    with pytest.raises(AssertionError, match="its code ran"):
        attempt(lambda: pickle.loads(harmful()), folder)
    called.clear()

    def two_lines():
        raise LinprobeError("one line of words\nand another")

    with pytest.raises(AssertionError, match="another"):
        attempt(two_lines, folder)

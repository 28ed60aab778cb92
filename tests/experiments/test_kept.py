"""Runs that are stopped, by whatever, go on to the same results."""

import multiprocessing
import random

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.kills import content
from linprobe.data import ImageDataset
from linprobe.experiments import samples as loading
from linprobe.experiments import session
from linprobe.experiments.figure8 import Figure8
from linprobe.experiments.kept import NetworkStates, network_fingerprint, run_fingerprint
from linprobe.experiments.networks import DeepMLP
from linprobe.experiments.samples import load_samples
from linprobe.experiments.session import run
from linprobe.experiments.settings import Settings
from linprobe.pipeline import engine
from linprobe.probes.config import ProbeConfig
from linprobe.records.store import load_run
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.lock import folder_lock
from linprobe.runtime.randomness import generator
from tests.support import killed
from tests.support.faults import file_sizes_up_to
from tests.support.tiny import TinyExperiment, tiny_dataset

METHOD = ProbeConfig(l2_path=(1e-1, 1e-2))
LAYERS = ("input", "layer1", "layer2", "logits")


@pytest.fixture(autouse=True)
def data(monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *_: tiny_dataset())


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Call `run`, and give the layers that were fitted; an error may end it at one of them."""
    real = engine.fit_layer
    monkeypatch.setattr(session, "write_report", lambda *_: None)

    def call(error=None, at=None, *, depth=2, **changes):
        fitted = []

        def fit_layer(layer, *args):
            if len(fitted) == at:
                raise error
            fitted.append(layer)
            return real(layer, *args)

        monkeypatch.setattr(engine, "fit_layer", fit_layer)
        settings = {"out": tmp_path / "run", "method": METHOD, **changes}
        call.experiment = TinyExperiment(depth)
        call.events = []
        try:
            call.record = run(call.experiment, Settings(**settings), call.events.append)
        except BaseException as caught:
            if caught is not error:
                raise
        return fitted

    return call


def tensors(folder):
    return {p.relative_to(folder): load_file(p) for p in sorted(folder.rglob("*.safetensors"))}


def test_killed_at_any_moment_a_run_goes_on_to_the_same_results(tmp_path):
    """Each time a process is killed twice before one may end."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([killed.__name__])

    def ended(folder, kill_at=None):
        process = processes.Process(target=killed.run, args=(folder, kill_at))
        process.start()
        process.join()
        return process.exitcode

    whole, draws, codes = tmp_path / "whole", random.Random(0), []
    assert ended(whole) == 0
    events = int((tmp_path / "whole.events").read_text())
    for number in range(3):
        folder = tmp_path / str(number)
        codes += [ended(folder, draws.randrange(events)) for _ in range(2)]
        assert ended(folder) == 0
        assert content(folder) == content(whole)
        found, expected = tensors(folder), tensors(whole)
        assert list(found) == list(expected)
        for name in found:
            assert all(torch.equal(found[name][k], v) for k, v in expected[name].items())
    assert -9 in codes and set(codes) <= {-9, 0}


def test_finished_layers_and_networks_are_not_made_again(call, tmp_path):
    assert call(KeyboardInterrupt(), 6) == [*LAYERS, *LAYERS[:2]]
    assert call.experiment.trained == [40]
    assert [c.name for c in load_run(tmp_path / "run").checkpoints] == ["untrained"]
    assert sorted(call()) == sorted(LAYERS[2:])
    assert call.experiment.trained == []
    assert not (tmp_path / "run" / "unfinished").exists()
    call(out=tmp_path / "whole")
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def test_a_complete_run_is_given_back(call, tmp_path):
    call()
    record, before = call.record, (tmp_path / "run" / "results.json").read_bytes()
    assert call() == [] and call.experiment.trained == []
    assert call.record == record
    assert call.events[-1].text == "the run is complete (overwrite makes it again)"
    assert (tmp_path / "run" / "results.json").read_bytes() == before


def test_layers_that_failed_are_tried_again(call, tmp_path):
    call(MemoryError("no room"), 5)
    record = load_run(tmp_path / "run")
    assert record.complete and len(record.config.notes) == 3  # the other two had the same luck
    assert sorted(call()) == sorted(LAYERS[1:])
    call(out=tmp_path / "whole")
    assert content(tmp_path / "run") == content(tmp_path / "whole")


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"method": ProbeConfig(l2_path=(1e-2,))},
        {"quick": True},
        {"depth": 4},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_run_is_refused_until_it_has_something_to_show(changes, call, tmp_path):
    call(KeyboardInterrupt(), 6)
    for _ in range(2):  # of an unfinished run, and of a finished one
        with pytest.raises(LinprobeError, match=r"already holds a run of other data.*overwrite"):
            call(**changes)
        call()
    (tmp_path / "run" / "figure_old.png").touch()
    old = content(tmp_path / "run")
    call(KeyboardInterrupt(), 2, overwrite=True, **changes)
    assert content(tmp_path / "run") == old
    with pytest.raises(LinprobeError, match="already holds a run"):
        call()
    call(**changes)  # goes on without a word of overwriting
    assert len(call.record.checkpoints) == 2
    assert not (tmp_path / "run" / "figure_old.png").exists()
    call(**{"out": tmp_path / "whole", **changes})
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def test_what_changes_no_number_is_free(call, tmp_path):
    call(KeyboardInterrupt(), 3)
    assert len(call(feature_bytes=1.0, strict=True, data_dir=str(tmp_path))) == 5


def test_overwriting_makes_all_again(call):
    call()
    assert len(call(overwrite=True)) == 8


def test_the_hash_of_a_network_is_that_of_its_weights():
    one, same, other = (DeepMLP(2, generator(seed, "network")) for seed in (0, 0, 1))
    assert network_fingerprint("a", one) == network_fingerprint("a", same)
    assert network_fingerprint("b", one) != network_fingerprint("a", one)
    assert network_fingerprint("a", other) != network_fingerprint("a", one)


def state_of(folder, fingerprint="a"):
    return NetworkStates(folder, fingerprint)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd"])
def test_training_goes_on_as_if_it_had_not_stopped(optimizer, tmp_path):
    data = tiny_dataset()

    def made():
        network = DeepMLP(2, generator(0, "network"))
        figure = Figure8(optimizer=optimizer, learning_rate=0.01, batch_size=50)
        return network, figure.trainer(network, data, generator(0, "training"), quick=True)

    (network, trainer), states = made(), state_of(tmp_path)
    for name, steps in (("a", 0), ("b", 3), ("c", 4)):
        trainer.advance(steps, lambda *_: None)
        states.save(name, network, trainer, 0.25)
    trainer.advance(5, lambda *_: None)
    for names in (("a", "b", "c"), ("c",)):
        again, its = made()
        assert [states.restore(name, again, its) for name in names] == [0.25] * len(names)
        its.advance(5, lambda *_: None)
        assert its.num_minibatches == 12
        for one, other in zip(network.parameters(), again.parameters(), strict=True):
            assert torch.equal(one, other)


def test_states_that_are_damaged_or_of_another_run_are_not_used(tmp_path):
    network = DeepMLP(2, generator(0, "network"))
    trainer = TinyExperiment().trainer(network, None, None, quick=True)
    state_of(tmp_path).save("a", network, trainer, 1.0)
    path = tmp_path / "a" / "network.safetensors"
    assert state_of(tmp_path, "b").restore("a", network, trainer) is None
    assert state_of(tmp_path).restore("b", network, trainer) is None
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert state_of(tmp_path).restore("a", network, trainer) is None
    path.write_bytes(content[:-9])
    assert state_of(tmp_path).restore("a", network, trainer) is None


def test_fingerprints_tell_data_apart(tmp_path, monkeypatch):
    settings = Settings(tmp_path)
    record = load_samples(settings).record()
    known = run_fingerprint(Figure8(), settings, record)
    other = ImageDataset(*(*_fields(tiny_dataset())[:5], {"file": "0100"}, "made up"))
    monkeypatch.setattr(loading, "load", lambda *_: other)
    assert run_fingerprint(Figure8(), settings, load_samples(settings).record()) != known
    assert run_fingerprint(Figure8(slope=0.2), settings, record) != known


def _fields(data):
    return tuple(vars(data).values())


def test_two_at_once_are_refused(call, tmp_path):
    (tmp_path / "run").mkdir()
    with folder_lock(tmp_path / "run"), pytest.raises(LinprobeError, match="another process"):
        call()
    assert len(call()) == 8


def test_a_disk_that_is_full_at_a_checkpoint(call, tmp_path):
    """The system refuses the network's weights; layers, which take less, are there."""
    message = r"untrained\.safetensors can't be written \(.*too large.*\); expected a folder that"
    with file_sizes_up_to(2**17), pytest.raises(LinprobeError, match=message):
        call()
    assert not list(tmp_path.rglob("*.part")) and not (tmp_path / "run" / "results.json").exists()
    assert call() == [*LAYERS] and len(call.record.checkpoints) == 2
    call(out=tmp_path / "whole")
    assert content(tmp_path / "run") == content(tmp_path / "whole")

"""Parts of a run that is not complete."""

from dataclasses import replace

import pytest
import torch

from linprobe.pipeline.layer_probe import Probe
from linprobe.pipeline.unfinished import Parts, Unfinished
from linprobe.records.store import load_run, save
from linprobe.runtime.errors import LinprobeError
from tests.support.records import probe_record, run_record

LABELS = torch.tensor([0, 1])


def made(layer="a", **changes):
    record = replace(
        probe_record(layer=layer), **{"evaluation": None, "num_features": 3, **changes}
    )
    return Probe(record, torch.ones(2, 3, dtype=torch.float64), torch.zeros(2))


def test_a_part_is_found_by_its_own_fingerprint_and_width_alone(tmp_path):
    Parts(tmp_path, "one", LABELS).put(made())
    parts = Parts(tmp_path, "one", LABELS)
    assert torch.equal(parts.finished({"a": 3, "b": 3})["a"].weight, made().weight)
    assert parts.finished({"a": 4}) == parts.finished({"b": 3}) == {}
    assert Parts(tmp_path, "another", LABELS).finished({"a": 3}) == {}


@pytest.mark.parametrize("changes", [{"status": "failed"}, {"missing": "no control"}])
def test_what_failed_is_no_part(changes, tmp_path):
    parts = Parts(tmp_path, "one", LABELS)
    parts.put(made(**changes))
    assert parts.finished({"a": 3}) == {}


def opened(folder, fingerprint="one", **options):
    state = Unfinished(folder, **options)
    state.open(fingerprint)
    return state


def own(folder, fingerprint):
    run = run_record()
    run = replace(run, config=replace(run.config, fingerprint=fingerprint))
    save(run, folder)
    return run


def test_a_run_is_known_by_its_fingerprint(tmp_path):
    run = own(tmp_path, "one")
    assert opened(tmp_path).run == run
    for folder in (tmp_path, tmp_path / "new"):
        assert opened(folder, "two", overwrite=True).run is None
    with pytest.raises(LinprobeError, match=r"already holds a run of other data.*overwrite=True"):
        opened(tmp_path, "two")
    save(run_record(), tmp_path)  # without a fingerprint
    with pytest.raises(LinprobeError, match="already holds a run"):
        opened(tmp_path)


def test_the_old_run_stays_until_the_new_one_has_something_to_show(tmp_path):
    old = own(tmp_path, "old")
    opened(tmp_path, overwrite=True).begin()
    with pytest.raises(LinprobeError, match="already holds a run"):
        opened(tmp_path, "old")
    state = opened(tmp_path)  # a later call need not say again that it may overwrite
    assert state.run is None and load_run(tmp_path) == old
    state.clear()
    assert not (tmp_path / "results.json").exists()
    assert opened(tmp_path).run is None  # a kill between the two
    new = own(tmp_path, "one")
    assert opened(tmp_path).run is None  # and before the next
    state.written()
    state = opened(tmp_path)
    assert state.run == new
    state.clear()
    assert load_run(tmp_path) == new
    state.remove()
    assert opened(tmp_path).run == new


def test_a_new_run_in_place_of_the_same_one(tmp_path):
    own(tmp_path, "one")
    Parts(tmp_path / "unfinished", "one", LABELS).put(made())
    opened(tmp_path, overwrite=True).begin()
    assert opened(tmp_path).run is None
    assert Parts(tmp_path / "unfinished", "one", LABELS).finished({"a": 3}) == {}

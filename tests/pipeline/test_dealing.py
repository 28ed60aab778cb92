"""Layers are dealt to processes, whose numbers are those of a single one."""

import pytest

import linprobe
from linprobe.pipeline.dealing import Dealer, dealt
from linprobe.runtime.distributed import ALONE
from tests.support import ranked
from tests.support.ranks import run_ranks


def test_the_longest_layers_are_dealt_first_and_each_to_who_has_the_least():
    widths = {"a": 10, "b": 900, "c": 500, "d": 300, "e": 20}
    assert dealt(widths, 2) == [["b", "e"], ["a", "c", "d"]]
    assert dealt(widths, 1) == [list(widths)]
    assert dealt({"a": 1, "b": 2}, 3) == [["b"], ["a"], []]


def test_one_process_has_all_that_is_not_finished():
    dealer = Dealer(ALONE, {"a": 1, "b": 2})
    assert dealer.own_part({}) == ["a", "b"]
    assert dealer.own_part({"a": None}) == ["b"]


@pytest.mark.parametrize("call", [linprobe.fit_probes, linprobe.probe])
def test_what_can_not_be_dealt_is_refused(call):
    with pytest.raises(linprobe.LinprobeError) as caught:
        x, y = ranked.layers()
        network = ranked.nn.Linear(3, 2)
        given = (x, y, (x, y)) if call is linprobe.fit_probes else (network, (x["a"], y), (x, y))
        call(*given, distribute="all")
    known = "'layers', 'rows'" if call is linprobe.fit_probes else "'layers'"
    assert str(caught.value) == f"distribute is 'all'; expected {known} or None"


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_give_what_one_gives(size, tmp_path):
    fitted, probed = ranked.fit_and_probe()
    assert probed[0]["2"][1] == "nonfinite_features"
    first, *others = run_ranks(size, tmp_path / "both", ranked.fit_and_probe, tmp_path / "run")
    assert first[:2] == (0, (fitted, probed)) and "network: b (2/4)" in first[2]
    assert others == [(0, (fitted, probed), "")] * (size - 1)
    assert list(linprobe.load_report(tmp_path / "run")) == list(ranked.WIDTHS)
    assert not (tmp_path / "run" / "unfinished").exists()


def test_calls_that_differ_are_refused_and_may_be_made_apart(tmp_path):
    seeds = [ranked.fit(seed=seed) for seed in range(2)]
    outcomes = run_ranks(2, tmp_path, ranked.fit_each_its_own)
    for (code, found, _), own in zip(outcomes, seeds, strict=True):
        said, alone, together = found
        assert code == 0
        assert said == [
            "the 2 processes were called with different data, networks or settings; expected "
            "the same call in all, or distribute=None for calls that have nothing to do with each "
            "other",
            "distribute is 'all'; expected 'layers', 'rows' or None",
        ]
        assert (alone, together) == (own, seeds[0])


@pytest.mark.parametrize(("rank", "how"), [(1, "raises"), (1, "gone"), (0, "gone")])
def test_a_process_that_ends_ends_the_call_and_what_is_finished_is_kept(rank, how, tmp_path):
    out = tmp_path / "run"
    outcomes = run_ranks(3, tmp_path / "ended", ranked.fit_and_end, out, rank, how)
    kept = f"finished layers are kept in {out}, and the same call goes on from there"
    why = "failed: ValueError: no more of this" if how == "raises" else "has"
    for other in {0, 1, 2} - {rank}:
        code, said, _ = outcomes[other]
        assert code == 0
        assert said.startswith(f"LostProcess: process {rank} of 3 {why}") and said.endswith(kept)
    assert outcomes[rank][0] == (1 if how == "raises" else 9)
    parts = {path.stem for path in (out / "unfinished").glob("[0-9]*.json")}
    assert parts
    fitted = ranked.fit()
    for code, found, _ in run_ranks(2, tmp_path / "resumed", ranked.fit, out):
        assert (code, found) == (0, fitted)

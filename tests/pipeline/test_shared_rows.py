"""Rows that are shared out among processes give the probe of all of them."""

import pytest

from tests.support import ranked
from tests.support.ranks import run_ranks


@pytest.fixture(scope="module")
def whole():
    return ranked.shared_rows(((), ()), distribute=None)


@pytest.mark.parametrize(
    "cuts",
    [
        pytest.param([(0.4,), (1.0,)], id="two, one of them without test rows"),
        pytest.param([(0.0, 0.7), (0.1, 0.2)], id="three, one of them without training rows"),
    ],
)
def test_shared_rows_give_the_probe_of_all(cuts, whole, tmp_path):
    size = len(cuts[0]) + 1
    for code, found, printed in run_ranks(size, tmp_path, ranked.shared_rows, cuts):
        assert code == 0, printed
        for name, expected in whole.items():
            same_probe(found[name], expected)


def same_probe(found, expected):
    ours, theirs = found.record, expected.record
    assert (ours.status, ours.l2) == (theirs.status, theirs.l2) and ours.status == "converged"
    assert found.classes == expected.classes
    assert ours.test_error_rate == theirs.test_error_rate
    assert ours.evaluation.num_undecided == theirs.evaluation.num_undecided == 0
    gap = ours.duality_gap + theirs.duality_gap
    # Sums of float32 numbers are rounded otherwise, so that the features' scale is too.
    assert abs(ours.objective - theirs.objective) <= gap + 1e-7
    # P is strongly convex in the weight: as far as its gap allows, each is from the optimum.
    apart = (found.weight - expected.weight) / expected.scale.clamp_min(1e-300)
    assert float(apart.norm()) <= 2 * (gap / ours.l2) ** 0.5 + 1e-5
    assert ours.test_cross_entropy == pytest.approx(theirs.test_cross_entropy, abs=1e-3)


WRONG = {
    "layers": "called with different layers",
    "dtypes": "called with different layers or dtypes of features",
    "weights": "sample_weight is given in some processes only; expected it in all",
    "text": "train labels are whole numbers in one process and text in another",
    "settings": "called with different data, networks or settings",
    "controls": "'shuffled_labels' takes all rows in one process",
    "none": "no process has a train sample",
    "nan": "features hold NaN or infinity",
    "short": "40 rows of train features for 39 labels",
}


def test_calls_that_can_not_share_rows_say_why_in_all_processes(tmp_path):
    for _, found, printed in run_ranks(2, tmp_path, ranked.fit_wrong_rows, list(WRONG)):
        assert found is not None, printed
        for said, expected in zip(found, WRONG.values(), strict=True):
            assert expected in said


def test_a_process_that_is_gone_ends_the_solve_and_finished_layers_are_kept(tmp_path):
    out = tmp_path / "run"
    (code, said, _), (gone, *_) = run_ranks(2, tmp_path / "r", ranked.fit_rows_and_end, out)
    assert (code, gone) == (0, 9)
    assert said.startswith("LostProcess: process 1 of 2 has ")
    assert said.endswith(f"finished layers are kept in {out}, and the same call goes on from there")
    assert len(list((out / "unfinished").glob("[0-9]*.json"))) == 1

"""Features of which a few columns hold nearly all of the variance, as those of language models."""

import pytest
import torch

import linprobe
from linprobe import EvaluationOptions, ProbeConfig, certify
from linprobe.core.features import DenseFeatures, standardised
from tests.support.options import fit_options


def massive(n, seed, ratio, width=64):
    """Features of deviation .01, the first knows the label, the last is `ratio` times larger."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    x = 0.01 * torch.randn(n, width + 1, generator=draw)
    x[:, 0] += 0.02 * y
    x[:, width] *= ratio
    return x, y


def probed(ratio, n=4000, **options):
    (x, y), (xt, yt) = massive(n, 0, ratio), massive(n // 2, 1, ratio)
    return linprobe.fit_probes({"h": x}, y, ({"h": xt}, yt), **fit_options(**options))


@pytest.mark.parametrize("ratio", [1, 1e2, 1e4, 1e6])
def test_massive_activations_do_not_hide_what_the_others_know(ratio):
    report = probed(ratio)
    record = report["h"].record
    assert record.converged and not record.l2_at_edge
    assert record.test_error_rate == pytest.approx(0.165, abs=0.003)
    assert record.scale == ("layer" if ratio == 1 else "feature")
    assert report.run.config.method.scale == "auto"
    told = [note for note in report.notes if "divided by its own deviation" in note]
    assert len(told) == (ratio != 1)


def test_one_scale_may_be_asked_for_and_a_path_that_ends_early_is_said():
    report = probed(1e4, scale="layer", extend=False)
    record = report["h"].record
    assert record.scale == "layer" and record.l2 == 1e-9 and record.l2_at_edge
    assert "may be limited by the penalty rather than by the layer" in str(report)
    assert "scale 'feature'" in str(report)


def test_the_path_goes_on_to_what_small_columns_know():
    flagged = probed(1e6, scale="layer")["h"].record  # an exact probe, whose path ends at 1e-13
    assert flagged.converged and flagged.l2_at_edge and flagged.evaluation.num_undecided == 0
    record = probed(1e6, scale="layer", exact=False)["h"].record
    assert record.scale == "layer" and record.converged and not record.l2_at_edge
    assert record.l2 < 1e-14 and record.test_error_rate == pytest.approx(0.165, abs=0.003)


def test_the_scale_is_certified_and_exported():
    (x, y), (xt, _) = massive(600, 0, 1e4), massive(300, 1, 1e4)
    x[:, 5] = xt[:, 5] = 3.0
    report = linprobe.fit_probes(
        {"h": x}, y, ({"h": xt}, y[:300]), method=ProbeConfig(1e-2, scale="feature")
    )
    probe = report["h"]
    s = standardised(DenseFeatures(x.double()), "feature").standardisation
    assert not bool(probe.weight[:, 5].any()), "a constant column counts for nothing"
    stated = torch.where(s.scale > 0, probe.weight / s.scale, 0)
    bias = probe.bias + probe.weight @ s.mean
    found = certify(x.double(), y, stated, bias, 1e-2, standardisation=s)
    assert found.duality_gap == pytest.approx(probe.record.duality_gap, rel=0.05)
    assert found.error_rate == probe.record.train_error_rate
    predicted = (xt.double() @ probe.weight.T + probe.bias).argmax(1)
    assert torch.equal(predicted, probe.predictions.predicted.long())


def test_controls_and_description_length_take_the_scale_of_the_probe():
    evaluation = EvaluationOptions(controls=("shuffled_labels",), repeats=1, mdl=True)
    codes = {}
    for scale in ("layer", "feature"):
        report = linprobe.fit_probes(
            *({"h": massive(600, 0, 1e4)[0]}, massive(600, 0, 1e4)[1]),
            ({"h": massive(300, 1, 1e4)[0]}, massive(300, 1, 1e4)[1]),
            method=ProbeConfig((1e-1, 1e-2, 1e-3), scale=scale),
            evaluation=evaluation,
        )
        codes[scale] = report["h"].record.evaluation.mdl.compression
        assert report["h"].controls[0].status == "converged"
    assert codes["layer"] == pytest.approx(1, abs=0.03) and codes["feature"] > 1.3


def test_unknown_scale_is_one_clear_line():
    with pytest.raises(linprobe.LinprobeError, match="scale is 'rows'; expected one of: 'auto'"):
        ProbeConfig(scale="rows")

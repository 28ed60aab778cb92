"""The published numbers, as they are packaged."""

import pytest

from linprobe.records.published import READINGS, load_published
from linprobe.runtime.errors import LinprobeError
from tests.support.records import dataset_record, run_config, run_record

DEEP = run_config(depth=128)


def test_figure8_in_both_readings():
    found = load_published("fig8")
    assert (found.split, found.precision, found.depth) == ("train", 0.003, 128)
    assert list(found.rates) == [0, 500, 2000]
    assert found.readings == READINGS
    for readings in found.rates.values():
        assert {len(rates) for rates in readings.values()} == {129}
        assert all(0 < rate < 1 for rates in readings.values() for rate in rates.values())
        assert list(readings["layer"].values()) == list(readings["input"].values())
    first = found.rates[0]
    # The jump of the bars stands at the skip connection's layer in one reading only.
    assert (first["layer"]["layer64"], first["layer"]["layer65"]) == (0.889, 0.13)
    assert (first["input"]["layer63"], first["input"]["layer64"]) == (0.889, 0.13)
    assert first["layer"]["layer1"] == first["input"]["input"] == 0.107
    assert "input" not in first["layer"]
    assert "logits" not in first["input"]
    assert found.rates[2000]["layer"]["logits"] == 0.071


def test_figure5_says_two_numbers():
    found = load_published("fig5")
    assert (found.split, found.depth, found.readings) == ("test", None, ("layer",))
    assert found.rates == {0: {"layer": {"input": 0.08, "conv1_postact": 0.02}}}
    found.check(run_record(experiment="fig5", config=run_config("curve")))


@pytest.mark.parametrize("experiment", ["fig5", "fig8"])
def test_sources_are_named(experiment):
    found = load_published(experiment)
    assert found.experiment == experiment
    assert "1610.01644" in found.source


def test_unknown_experiments():
    with pytest.raises(LinprobeError, match=r"no published numbers of 'probe'; expected.*fig5"):
        load_published("probe")


def test_what_they_can_be_compared_with():
    found = load_published("fig8")
    found.check(run_record(config=DEEP))
    with pytest.raises(LinprobeError, match=r"128 layers, but a run has 10; leave `published`"):
        found.check(run_record(config=run_config(depth=10)))
    with pytest.raises(LinprobeError, match="of mnist, but a run is of fashion-mnist"):
        found.check(run_record(config=DEEP, dataset=dataset_record(name="fashion-mnist")))

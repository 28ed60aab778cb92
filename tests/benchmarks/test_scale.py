"""Estimates for large shapes: what they add up."""

import pytest
import torch

from benchmarks import scale
from benchmarks.rates import RowSeconds
from benchmarks.scale import MeasuredPath, Rates, Shape
from tests.benchmarks.test_benchmarks import MACHINE, record

SHAPE = Shape("few", 1_000_000, 500, 10)
RATES = Rates(RowSeconds(logits=2e-6, gradient=1e-6, conversion=5e-7), read=1e9)
PATH = MeasuredPath("layer8, 8 penalties", 20.0, None)


def measured(*records, **more):
    return {"schema": 1, "machine": MACHINE, "results": dict(records), **more}


def path(width, rows=60_000, **more):
    key, one = record("linprobe", 4.0, suite="path", d=width, l2s=(1e-1, 1e-2), **more)
    one["job"]["num_rows"] = rows
    return key, one


def test_sizes_and_operations():
    assert (SHAPE.feature_bytes, SHAPE.logit_bytes, SHAPE.flops) == (1e9, 4e7, 2e10)
    # Of two processes, each sends its half of the sum and gets the other.
    assert SHAPE.sent(2)["gradient"] == 8 * 10 * 500
    assert SHAPE.sent(2)["sample"] == 4000 * 4 * (500 + 10)
    assert set(SHAPE.sent(1).values()) == {0.0}


def test_a_pass_is_two_reads_conversions_and_products():
    assert scale.pass_seconds(SHAPE, RATES) == pytest.approx(2 + 1 + 3)
    sent = sum(SHAPE.sent(4).values()) / scale._NETWORK
    assert scale.shared_seconds(SHAPE, RATES, 4) == pytest.approx(1.5 + sent)


def test_a_gpu_takes_the_longer_of_operations_and_bytes():
    read = 2 * (1e9 + 4e7) / scale._GPU_READ
    assert scale.gpu_seconds(SHAPE, 1) == pytest.approx(read)
    many = Shape("many classes", 1_000_000, 500, 10_000)
    assert scale.gpu_seconds(many, 1) == pytest.approx(2e13 / scale._GPU_FLOPS)
    large = Shape("large", 200_000_000, 500, 2)
    assert scale.gpu_seconds(large, 1) == pytest.approx(2 * 2e11 / scale._GPU_HOST)
    assert scale.gpu_seconds(large, 8) < scale.gpu_seconds(large, 1) / 50
    cells = scale.time_row(large, PATH, RATES)
    assert cells[8].endswith(" (from the host)") and not cells[9].endswith("host)")


def test_passes_are_those_of_the_nearest_width():
    products = [{"num_rows": 60_000, "num_features": 3136, "logits": 0.1, "gradient": 0.1}]
    known = measured(path(784), path(3136), path(200, status="failed"), products=products)
    found = scale.nearest_path(known, 2048)
    assert found.where == "conv2_postpool, 60,000 x 3,136, 10 classes, 2 penalties"
    assert (found.passes, found.over_products) == (10.0, pytest.approx(2.0))
    assert scale.nearest_path(known, 100).over_products is None, "784: no products were measured"
    assert "60,000 x 784" in scale.nearest_path(known, 100).where, "the failed one does not count"
    with pytest.raises(SystemExit, match=r"no path of penalties; .*make bench"):
        scale.nearest_path(measured(record("linprobe", 1.0)), 100)


def test_the_command_prints_both_tables_and_notes(monkeypatch, capsys):
    monkeypatch.setattr(scale, "SHAPES", (Shape("few", 1000, 16, 3),))
    monkeypatch.setattr(scale, "_FILE_BYTES", 2**16)
    before = torch.get_num_threads()
    scale.main(["--threads", "1"])
    torch.set_num_threads(before)
    out = capsys.readouterr().out
    sizes, times, *notes = out.split("\n\n")
    for table in (sizes, times):
        head, line, row = (text.strip("| ").split(" | ") for text in table.splitlines())
        assert len(head) == len(line) == len(row) and row[0].startswith("few")
    assert "1 thread, on 0 MiB" in out.replace("\n", " ") and "\nH200: from numbers" in out
    assert len(notes) == 3 and max(map(len, "\n".join(notes).splitlines())) <= 110

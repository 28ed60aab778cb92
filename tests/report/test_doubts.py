"""What a report says of probes that are certified and yet to be doubted."""

from dataclasses import replace

from linprobe.report import doubts, wording
from tests.support.records import (
    checkpoint_record,
    read_again,
    run_record,
)


def test_layers_that_were_read_in_float64_are_said_with_what_they_would_be():
    checkpoint = read_again(checkpoint_record([0.1, 0.2, 0.3]), ["layer1"])
    (said,) = doubts.doubts(run_record(checkpoint))
    assert said == (
        "1 probe (layer1) read a float64 pass of the network: what they use of these layers drowns "
        "in the rounding of float32, of which probes have test errors of 0.8865."
    )
    probe = checkpoint.probes[1]
    assert wording.short_certificate(probe) == "certified, read in float64"
    assert wording.certificate(probe, 1e-4).endswith("a probe has test error 0.8865.")
    kept = replace(probe, native=None, rounded=True, dtype="float32", no_float64="no memory")
    said = list(doubts.doubts(run_record(replace(checkpoint, probes=(kept,)))))
    assert said[-1] == "Not read in float64: no memory." and "can show" not in " ".join(said)

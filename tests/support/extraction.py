"""Rows of features of a network's layers, as `linprobe.probe` makes them."""

import torch

from linprobe.activations.extract import Extractor
from linprobe.activations.options import ExtractionOptions
from linprobe.data.inputs import Source
from linprobe.data.splits import Split


def extractor(network, tokens="mean", reduce="flatten", **changes):
    options = ExtractionOptions(reduce=reduce, tokens=tokens, **changes)
    return Extractor(network, options, 0, torch.device("cpu"))


def planned(extractor, layers, batch, num_rows, *, skip_unfit=False):
    taps = {layer: layer for layer in layers}
    return extractor.plan(taps, batch, num_rows, 1e9, skip_unfit=skip_unfit)


def extracted(
    network, data, layers, *, tokens="mean", reduce="flatten", permutation=None, **changes
):
    split = Split.read(Source(data, "train", 4), tokens)
    reader = extractor(network, tokens, reduce, **changes)
    batch = next(iter(split.source)).head(3)
    points, _ = planned(reader, layers, batch, len(split.labels))
    return reader.extract(split, points, permutation)

"""The record that a run of an experiment begins with."""

import torch

from linprobe.evaluation.metrics import metric_records
from linprobe.experiments.experiment import Experiment
from linprobe.experiments.settings import Settings
from linprobe.pipeline.records import controls_record, method_record, minibatch_record
from linprobe.records.config import ExtractionRecord, RunConfig
from linprobe.records.environment import environment
from linprobe.records.schema import DatasetRecord, RunRecord

BATCH_SIZE = 500
"""Images in a forward pass."""


def first_record(
    experiment: Experiment, settings: Settings, dataset: DatasetRecord, fingerprint: str
) -> RunRecord:
    """Say what is to be computed, before there is any checkpoint."""
    return RunRecord(
        experiment=experiment.name,
        protocol=settings.protocol,
        seed=settings.seed,
        quick=settings.quick,
        config=RunConfig(
            device=settings.device,
            method=method_record(settings.method, settings.sgd),
            minibatch=minibatch_record(settings.probe_training),
            extraction=ExtractionRecord(
                batch_size=BATCH_SIZE,
                memory_bytes=settings.feature_bytes,
                float64=settings.float64,
            ),
            controls=controls_record(settings.evaluation, settings.seed),
            mdl=settings.evaluation.mdl,
            experiment=experiment.record(quick=settings.quick),
            fingerprint=fingerprint,
        ),
        dataset=dataset,
        environment=environment(torch.get_num_threads(), settings.device),
        seconds=0.0,
        peak_rss_bytes=0,
        complete=False,
        checkpoints=(),
        metrics=metric_records(),
    )

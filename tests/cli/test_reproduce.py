"""Commands of experiments, made from the registry."""

from dataclasses import fields

import pytest

from linprobe.cli import main as cli
from linprobe.cli.reproduce import figures
from linprobe.experiments.registry import EXPERIMENTS

NOT_OPTIONS = {"epochs"}  # of the figures' networks: --epochs is of the probes


def test_every_experiment_is_a_command(capsys):
    assert [figure.__name__ for figure in figures()] == list(EXPERIMENTS)
    assert cli.main(["reproduce", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in EXPERIMENTS)


@pytest.mark.parametrize("kind", EXPERIMENTS.values())
def test_its_fields_are_options(kind, capsys):
    assert cli.main(["reproduce", kind.name, "--help"]) == 0
    text = capsys.readouterr().out
    assert " ".join(kind.claim.split()) in " ".join(text.split())
    for field in fields(kind):
        flag = f"  --{field.name.replace('_', '-')} "
        assert (flag in text) == (field.name not in NOT_OPTIONS) or field.name == "epochs"

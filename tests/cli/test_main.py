"""The command line from outside: exit codes, one-line errors, and a run from end to end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import linprobe
from linprobe.cli import main as cli
from linprobe.cli.ends import Terminated
from linprobe.data import load
from linprobe.evaluation.options import EvaluationOptions
from linprobe.experiments import figure5, figure8, samples, session
from linprobe.experiments.figure5 import Figure5
from linprobe.experiments.figure8 import Figure8
from linprobe.experiments.settings import QUICK_PROBE_EPOCHS, Settings
from linprobe.probes.config import ProbeConfig
from linprobe.records.store import load_run
from linprobe.runtime.errors import LinprobeError
from tests.support.records import checkpoint_record, run_record
from tests.support.tiny import tiny_dataset


def run_python(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", **environment},
    )


MAIN = "import sys; from linprobe.cli.main import main; sys.exit(main())"


def error_line(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("linprobe: ")
    return captured.err


@pytest.fixture
def no_run(monkeypatch):
    """Both experiments record how they are called and give a made-up record."""
    calls = []

    def run(experiment, settings, on_event):
        calls.append((experiment, settings, torch.get_num_threads()))
        return run_record(checkpoint_record([0.1, 0.2]))

    monkeypatch.setattr(session, "run", run)
    return calls


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["--version"], ["reproduce", "--help"], ["reproduce", "fig5", "--help"]),
        *(["report", "--help"], ["plot", "--help"], ["show", "--help"], ["compare", "--help"]),
    ],
)
def test_help_and_version_do_not_load_torch(arguments):
    code = (
        "import sys\nfrom linprobe.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        "slow = {'torch', 'numpy', 'matplotlib', 'rich'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    done = run_python(code, *arguments)
    assert done.returncode == 0, done.stderr
    assert "linprobe" in done.stdout


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"linprobe {linprobe.__version__}\n"


@pytest.mark.parametrize("module", ["linprobe", "linprobe.cli.main"])
def test_modules_run_as_the_command(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "reproduce", "fig8", "--depth", "3"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("linprobe: --depth: '3' given")


@pytest.mark.parametrize("figure", ["fig5", "fig8"])
def test_help_describes_every_option(figure, capsys):
    assert cli.main(["reproduce", figure, "--help"]) == 0
    text = capsys.readouterr().out
    options = "--out --seed --threads --device --data-dir --dataset --quick --overwrite --seeds"
    options += " --protocol --epochs --float64 --controls --repeats --mdl --l2 --tol"
    own = {
        "fig5": "--recipe",
        "fig8": "--depth --optimizer --learning-rate --batch-size --momentum --slope --skip",
    }
    for option in [*options.split(), *own[figure].split()]:
        assert option in text


def test_options_reach_figure5(no_run, tmp_path, capsys):
    before = torch.get_num_threads()
    arguments = (
        f"reproduce fig5 --recipe course --dataset fashion-mnist --out {tmp_path} --seed 7 "
        "--threads 1 --data-dir somewhere --quick --overwrite "
        "--controls input,shuffled_labels,input --repeats 2 --mdl "
        "--float64 --l2 0.01,0.1 --tol 1e-5 --device cpu --protocol certified"
    )
    assert cli.main(arguments.split()) == 0
    ((experiment, settings, threads),) = no_run
    assert experiment == Figure5("course")
    assert threads == 1
    assert torch.get_num_threads() == before
    assert settings == Settings(
        tmp_path,
        "fashion-mnist",
        "somewhere",
        seed=7,
        quick=True,
        overwrite=True,
        float64=True,
        method=ProbeConfig([0.1, 0.01], tol=1e-5),
        evaluation=EvaluationOptions(("input", "shuffled_labels"), 2, mdl=True),
    )
    output = capsys.readouterr().out
    assert "2 of 2 probes converged" in output
    assert f"Written to {tmp_path}" in output


@pytest.mark.parametrize(
    ("flag", "float64"), [("--float64", True), ("--float32", False), ("", None)]
)
def test_one_flag_reads_all_layers_in_float64_and_one_none(no_run, flag, float64):
    assert cli.main(["reproduce", "fig8", *flag.split()]) == 0
    ((_, settings, _),) = no_run
    assert settings.float64 is float64


def test_defaults_and_depth_of_figure8(no_run):
    assert cli.main(["reproduce", "fig8"]) == 0
    assert cli.main(["reproduce", "fig8", "--depth", "30"]) == 0
    (first, settings, threads), (second, _, _) = no_run
    assert (first, second) == (Figure8(), Figure8(30))
    assert settings == Settings(Path("runs/fig8"))
    assert threads == torch.get_num_threads()


def test_protocol_and_epochs_reach_both_figures(no_run):
    for arguments in ("fig5 --recipe course", "fig5 --epochs 3", "fig8", "fig8 --epochs 4"):
        assert cli.main(["reproduce", *arguments.split(), "--protocol", "sgd"]) == 0
    assert [settings.sgd for _, settings, _ in no_run] == [
        *(Figure5("course").sgd_protocol(), Figure5().sgd_protocol(3)),
        *(Figure8().sgd_protocol(), Figure8().sgd_protocol(4)),
    ]


@pytest.mark.parametrize("figure", [figure5, figure8])
def test_help_tells_the_usual_number_of_epochs(figure, capsys):
    assert cli.main(["reproduce", f"fig{figure.__name__[-1]}", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    usual = f"fig5: {figure5.PROBE_EPOCHS}, fig8: {figure8.PROBE_EPOCHS}"
    assert f"at most; default: as the experiment has it ({usual}), and 5 with --quick" in text
    assert QUICK_PROBE_EPOCHS == 5


def test_training_of_the_deep_network_can_be_chosen(no_run, capsys):
    for arguments in (
        "",
        "--optimizer sgd --learning-rate 0.01 --momentum 0",
        "--optimizer rmsprop --batch-size 64 --slope 0.3 --skip layer1_added",
    ):
        assert cli.main(["reproduce", "fig8", *arguments.split()]) == 0
    assert [experiment for experiment, _, _ in no_run] == [
        Figure8(),
        Figure8(optimizer="sgd", learning_rate=0.01, momentum=0.0),
        Figure8(optimizer="rmsprop", batch_size=64, slope=0.3, skip="layer1_added"),
    ]
    assert cli.main(["reproduce", "fig8", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert '"sgd" with a learning rate of 0.01, under which the deep network stays' in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "a COMMAND is required: layers, probe, reproduce, report, "),
        ("reproduce fig6", 'unknown command "fig6"'),
        (
            "reproduce fig8 --controls input,x",
            "--controls: 'input,x' given; 'x' is no control;",
        ),
        ("reproduce fig8 --repeats 0", "--repeats: '0' given; expected a whole number from 1 on"),
        ("reproduce fig5 --seed -1", "--seed: '-1' given; expected a whole number from 0 on"),
        ("reproduce fig5 --seed 18446744073709551616", "from 0 on, at most 18446744073709551615"),
        ("reproduce fig5 --seed 1.5", "--seed: '1.5' given; expected a whole number from 0 on"),
        ("reproduce fig5 --threads 0", "--threads: '0' given; expected a whole number from 1 on"),
        ("reproduce fig8 --depth 3", "--depth: '3' given; expected an even number of layers"),
        ("reproduce fig8 --depth 0", "--depth: '0' given; expected an even number of layers"),
        ("reproduce fig5 --depth 4", "unknown option: --depth"),
        ("reproduce fig5 --device tpu", 'invalid value "tpu" for --device. Choose from'),
        ("reproduce fig5 --recipe mine", 'invalid value "mine" for --recipe. Choose from'),
        ("reproduce fig5 --dataset cifar", 'invalid value "cifar" for --dataset. Choose from'),
        ("reproduce fig5 --protocol mine", 'invalid value "mine" for --protocol. Choose from'),
        ("reproduce fig5 --epochs 3", "--epochs is for --protocol sgd; certified probes have no"),
        ("reproduce fig8 --protocol sgd --epochs 0", "--epochs: '0' given; expected a whole"),
        ("reproduce fig8 --protocol sgd --l2 0.1", "--l2 is for --protocol certified"),
        ("reproduce fig8 --protocol sgd --choose-by error_rate", "--choose-by is for --protocol"),
        ("reproduce fig8 --choose-by accuracy", 'invalid value "accuracy" for --choose-by. Choose'),
        ("reproduce fig8 --protocol sgd --mdl", "protocol sgd has no controls, no mdl"),
        ("reproduce fig5 --protocol sgd --controls input", "protocol sgd has no controls"),
        ("reproduce fig5 --optimizer sgd", "unknown option: --optimizer"),
        (
            "reproduce fig8 --optimizer lbfgs",
            'invalid value "lbfgs" for --optimizer. Choose from: ',
        ),
        ("reproduce fig8 --slope 1.5", "--slope: '1.5' given; expected a number from 0 to 1"),
        ("reproduce fig8 --learning-rate 0", "--learning-rate: '0' given; expected a positive"),
        ("reproduce fig8 --learning-rate nan", "--learning-rate: 'nan' given; expected a positive"),
        ("reproduce fig8 --learning-rate inf", "--learning-rate: 'inf' given; expected a positive"),
        ("reproduce fig8 --learning-rate x", "--learning-rate: 'x' given; expected a positive"),
        ("reproduce fig8 --batch-size 0", "--batch-size: '0' given; expected a whole number"),
        ("reproduce fig8 --optimizer sgd --momentum 1", "--momentum: '1' given; expected a number"),
        ("reproduce fig8 --momentum 0.5", "momentum is for optimizer 'sgd'; 'adam' has none"),
    ],
)
def test_bad_arguments_give_one_line(arguments, message, no_run, capsys):
    assert cli.main(arguments.split()) == 2
    assert message in error_line(capsys)
    assert no_run == []


def test_missing_gpu_is_said_before_anything_is_computed(no_run, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["reproduce", "fig5", "--device", "cuda", "--out", str(tmp_path / "x")]) == 2
    assert "sees no CUDA device; use device 'cpu'" in error_line(capsys)
    assert no_run == []


@pytest.fixture
def no_data(monkeypatch):
    def refuse(*_):
        raise AssertionError("data loaded before the folder was checked")

    monkeypatch.setattr(samples, "load", refuse)


@pytest.mark.parametrize("figure", ["fig5", "fig8"])
def test_folders_are_checked_first(figure, no_data, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["reproduce", figure, "--out", str(tmp_path / "file")]) == 2
    assert "can't write to" in error_line(capsys)
    (tmp_path / "results.json").touch()
    monkeypatch.setattr(samples, "load", lambda *_: tiny_dataset())
    assert cli.main(["reproduce", figure, "--out", str(tmp_path)]) == 2
    assert "already holds a run" in error_line(capsys)


def failing(error):
    def run(experiment, settings, on_event):
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (LinprobeError("no such thing; try another"), 2, "linprobe: no such thing; try another"),
        (KeyboardInterrupt(), 130, "linprobe: interrupted; finished layers are kept in runs/fig5"),
        (Terminated(), 143, "linprobe: terminated; finished layers are kept in runs/fig5"),
        (ZeroDivisionError("a\nb"), 1, "unexpected ZeroDivisionError: a (set LINPROBE_DEBUG=1"),
    ],
)
def test_failures_are_one_line_and_a_code(error, code, message, monkeypatch, capsys):
    monkeypatch.delenv("LINPROBE_DEBUG", raising=False)
    monkeypatch.setattr(session, "run", failing(error))
    assert cli.main(["reproduce", "fig5"]) == code
    assert message in error_line(capsys)


def test_debugging_shows_the_traceback(monkeypatch, capsys):
    monkeypatch.setenv("LINPROBE_DEBUG", "1")
    monkeypatch.setattr(session, "run", failing(ZeroDivisionError("oops")))
    assert cli.main(["reproduce", "fig5"]) == 1
    error = capsys.readouterr().err
    assert "Traceback (most recent call last)" in error
    assert "in run" in error


def test_quick_run_from_arguments_to_files(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(samples, "load", lambda *_: tiny_dataset())
    arguments = f"reproduce fig8 --quick --depth 2 --seed 3 --threads 1 --l2 1e-2 --out {tmp_path}"
    assert cli.main(arguments.split()) == 0
    captured = capsys.readouterr()
    assert "QUICK RUN" in captured.out
    assert "12 of 12 probes converged" in captured.out
    assert "step20: minibatch 20 of 20" in captured.err
    record = load_run(tmp_path)
    assert (record.quick, record.seed, record.environment.threads) == (True, 3, 1)


@pytest.mark.slow
@pytest.mark.parametrize("figure", ["fig5", "fig8"])
def test_quick_runs_on_mnist_as_a_process(figure, tmp_path):
    try:
        load("mnist")
    except LinprobeError as error:
        pytest.skip(f"MNIST can't be had here: {error}")
    words = ("reproduce", figure, "--quick", "--out", str(tmp_path), "--l2", "1e-2")
    done = run_python(MAIN, *words)
    assert done.returncode == 0, done.stderr
    assert "not a result" in done.stdout
    record = load_run(tmp_path)
    assert record.complete
    assert record.quick
    probes = [probe for checkpoint in record.checkpoints for probe in checkpoint.probes]
    assert len(probes) == (20 if figure == "fig5" else 36)
    assert all(probe.converged and probe.duality_gap <= 1e-4 for probe in probes)
    majority = record.dataset.majority_error_rate.test
    assert probes[0].layer == "input"
    assert probes[0].test_error_rate < majority / 3
    if figure == "fig5":
        untrained = {probe.layer: probe for probe in record.checkpoints[0].probes}
        better = untrained["conv1_postact"].test_error_rate
        assert better < untrained["input"].test_error_rate
    other = run_python(MAIN, *words[:-1], "1e-3")
    assert other.returncode == 2
    assert "already holds a run" in other.stderr
    again = run_python(MAIN, *words)
    assert again.returncode == 0
    assert "the run is complete" in again.stderr
    assert load_run(tmp_path) == record


def test_output_that_can_not_be_written_is_one_line(tmp_path):
    """The system refuses to write the file that standard output goes to."""
    limited = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (0, 0)); " + MAIN
    with (tmp_path / "out").open("w") as out:
        done = subprocess.run(
            [sys.executable, "-c", limited, "--help"], stdout=out, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr == (
        "linprobe: output can't be written (File too large); send it somewhere else\n"
    )


def test_other_errors_of_the_system_are_not_taken_for_those_of_output(monkeypatch, capsys):
    for error in (FileNotFoundError(2, "No such file", "/x"), OSError("something else")):
        monkeypatch.setattr(cli, "_run", _raiser(error))
        assert cli.main(["show"]) == 1
        assert "unexpected " in error_line(capsys)


def _raiser(error):
    def run(words):
        raise error

    return run

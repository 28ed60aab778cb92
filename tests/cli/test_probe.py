"""``linprobe layers`` and ``linprobe probe`` from outside."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import linprobe
from linprobe.cli import main as cli
from linprobe.records.store import load_run
from tests.cli.test_main import error_line


def small(width=4):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, width), nn.ReLU(), nn.Dropout(), nn.Linear(width, 3)
    )


class Tagger(nn.Module):
    """Takes keyword arguments and gives a row a token."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 5)
        self.mix = nn.Linear(5, 5)

    def forward(self, input_ids, attention_mask):
        return self.mix(self.embed(input_ids) * attention_mask[..., None])


def images():
    """Train and test of (inputs, labels), as arrays."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 150)
    x = rng.normal(size=(150, 1, 3, 4)).astype(np.float32)
    x[:, 0, 0, 0] += 3 * labels
    return (x[:100], labels[:100]), (x[100:], labels[100:])


def fails():
    raise ValueError("no weights")


def number():
    return 5


def own(name):
    return f"{__file__}:{name}"


@pytest.fixture
def npz(tmp_path):
    (x, y), (xt, yt) = images()
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=xt, y_test=yt)
    return f"npz:{tmp_path / 'a.npz'}"


def zeros():
    network = small()
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    return network


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--untrained", own("zeros")], "majority"),
        (["--checkpoint", "CHECKPOINT", "--controls", "untrained,majority"], "factory"),
    ],
)
def test_the_untrained_network_by_name(flags, expected, npz, tmp_path, capsys):
    """Where weights come from a checkpoint, what the factory gives was not trained."""
    torch.save(small().state_dict(), tmp_path / "net.pt")
    flags = [str(tmp_path / "net.pt") if flag == "CHECKPOINT" else flag for flag in flags]
    call = ["--data", npz, "--layers", "1", "--l2", "1e-2", "--seed", "3"]
    cli.main(["probe", own("small"), *call, *flags, "--out", str(tmp_path / "a")])
    run = load_run(tmp_path / "a")
    (control,) = [c for c in run.checkpoints[0].controls if c.name == "untrained"]
    if expected == "majority":
        assert control.test_error_rate == pytest.approx(run.dataset.majority_error_rate.test)
        assert run.config.loading.untrained == own("zeros")
    else:
        cli.main(["probe", own("small"), *call, "--out", str(tmp_path / "b")])
        (probe,) = load_run(tmp_path / "b").checkpoints[0].probes
        assert (control.test_error_rate, control.duality_gap) == (
            *(probe.test_error_rate, probe.duality_gap),
        )


@pytest.mark.parametrize("command", ["layers", "probe"])
def test_help_names_every_option_and_loads_nothing_heavy(command):
    code = (
        "import sys\nfrom linprobe.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        "slow = {'torch', 'numpy', 'PIL', 'rich'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, command, "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    options = "FACTORY --kwargs --checkpoint --device --seed --threads --data --data-dir --channels"
    options += " --image-size --normalize"
    own = "--shape" if command == "layers" else "--layers --reduce --tokens --l2 --tol --memory"
    own += (
        "" if command == "layers" else " --batch-size --controls --repeats --mdl --out --overwrite"
    )
    for option in f"{options} {own}".split():
        assert option in done.stdout


def test_layers_of_a_shape(capsys):
    assert cli.main(["layers", own("small"), "--shape", "3x4", "--kwargs", '{"width": 6}']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "type", "output", "features", "calls"]
    assert lines[2].split() == ["1", "Linear", "2", "x", "6", "6", "1"]
    assert len(lines) == 6


def test_layers_that_a_pattern_takes(capsys):
    call = ["layers", own("small"), "--shape", "3x4", "--layers"]
    assert cli.main([*call, "{1,3..9}"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "layer",
        "1",
        "3",
        "4",
    ]
    assert cli.main([*call, "9*,1"]) == 2
    assert "there is no layer '9*'" in capsys.readouterr().err


def test_layers_of_data_are_those_of_the_api(npz, capsys):
    assert cli.main(["layers", own("small"), "--data", npz]) == 0
    expected = linprobe.layers(small(), torch.zeros(2, 1, 3, 4))
    assert capsys.readouterr().out == f"{expected}\n"


def test_probe_writes_what_the_api_finds(npz, tmp_path, capsys):
    torch.manual_seed(5)
    network = small()
    torch.save(network.state_dict(), tmp_path / "a.pt")
    out = tmp_path / "out"
    arguments = f"probe {own('small')} --data {npz} --checkpoint {tmp_path}/a.pt --out {out}"
    arguments += " --layers [12],4:in --l2 1e-2,1e-3 --tol 1e-6 --seed 3 --threads 1"
    arguments += " --batch-size 64 --memory 0.5 --layout {1,2}=features,4:in=features"
    before = torch.random.get_rng_state()
    assert cli.main(arguments.split()) == 0
    assert torch.equal(torch.random.get_rng_state(), before)
    captured = capsys.readouterr()
    assert "3 of 3 probes converged (duality gap at most 1e-06 nats)" in captured.out
    assert f"Written to {out}" in captured.out
    assert "test error" in captured.err
    train, test = images()
    method = linprobe.ProbeConfig([1e-2, 1e-3], tol=1e-6)
    expected = linprobe.probe(network, train, test, layers=["[12]", "4:in"], method=method, seed=3)
    found = linprobe.load_report(out)
    assert list(found) == list(expected) == ["1", "2", "4:in"]
    for layer in found:
        torch.testing.assert_close(found[layer].weight, expected[layer].weight)
    run = load_run(out)
    assert run.seed == 3
    assert run.dataset.name == npz
    assert list(run.dataset.sha256) == ["a.npz"]
    assert (run.dataset.num_train, run.dataset.num_test) == (100, 50)
    assert run.config.loading.factory == own("small")
    assert run.config.loading.checkpoint == "a.pt"
    assert len(run.config.loading.checkpoint_sha256) == 64
    assert run.config.extraction.memory_bytes == 2**29
    assert run.config.extraction.batch_size == 64
    assert run.config.loading.kwargs == {}


def test_reducers_controls_and_seeded_weights(tmp_path, capsys):
    arguments = f"probe {own('small')} --data {own('images')} --out {tmp_path} --layers 0,1"
    arguments += " --reduce random:2 --seed 1 --l2 0.01 --controls majority,shuffled_labels"
    arguments += " --repeats 2 --mdl"
    assert cli.main(arguments.split()) == 0
    first = load_run(tmp_path)
    checkpoint = first.checkpoints[0]
    assert [probe.num_features for probe in checkpoint.probes] == [2, 2]
    assert [control.name for control in checkpoint.controls].count("shuffled_labels") == 4
    assert checkpoint.probes[0].evaluation.mdl is not None
    assert cli.main([*arguments.split(), "--overwrite"]) == 0
    again = load_run(tmp_path)
    rates = [[p.test_error_rate for p in r.checkpoints[0].probes] for r in (first, again)]
    assert rates[0] == rates[1]
    capsys.readouterr()


def test_images_of_a_folder(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for label, name in enumerate(("dark", "light", "medium")):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                level = 60 * label + rng.integers(0, 40, (9, 11, 3))
                Image.fromarray(level.astype(np.uint8)).save(folder / f"{i}.png")
    arguments = f"probe {own('small')} --data imagefolder:{tmp_path}/data --out {tmp_path}/out"
    arguments += " --channels 1 --image-size 3x4 --normalize 0.5/0.2 --l2 1e-3 --layers 0"
    assert cli.main(arguments.split()) == 0
    run = load_run(tmp_path / "out")
    assert run.dataset.classes == ("dark", "light", "medium")
    assert run.checkpoints[0].probes[0].test_error_rate == 0
    assert run.config.loading.image_size == (3, 4)
    assert run.config.loading.normalize == ((0.5,), (0.2,))
    assert run.config.loading.channels == 1
    assert "Written to" in capsys.readouterr().out


@pytest.mark.parametrize(("tokens", "rows"), [("all", 320), ("-1", 80), ("mean", 80)])
def test_tokens_by_keyword_arguments(tokens, rows, tmp_path, capsys):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 80), ("test", 40)):
        ids = rng.integers(0, 7, (count, 4))
        arrays[f"input_ids_{split}"] = ids
        arrays[f"attention_mask_{split}"] = np.ones_like(ids)
        arrays[f"y_{split}"] = ids % 2 if tokens == "all" else ids[:, -1] % 2
    np.savez(tmp_path / "a.npz", **arrays)
    arguments = f"probe {own('Tagger')} --data npz:{tmp_path}/a.npz --tokens {tokens} --l2 1e-4"
    arguments += f" --layers embed --out {tmp_path}/out"
    assert cli.main(arguments.split()) == 0
    run = load_run(tmp_path / "out")
    (probe,) = run.checkpoints[0].probes
    assert (probe.test_error_rate == 0) == (tokens != "mean")
    assert run.config.extraction.tokens == (-1 if tokens == "-1" else tokens)
    assert len(linprobe.load_report(tmp_path / "out")["embed"].predictions.predicted) == rows // 2
    capsys.readouterr()


def test_sequences_as_dimensions(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2, 3)).astype(np.float32)
    y = rng.integers(0, 2, 60)
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    arguments = f"probe torch.nn:ReLU --data npz:{tmp_path}/a.npz --l2 1e-2 --out {tmp_path}/out"
    for tokens, width in (("none", 6), ("mean", 3)):
        assert cli.main([*arguments.split(), "--tokens", tokens, "--overwrite"]) == 0
        assert load_run(tmp_path / "out").checkpoints[0].probes[0].num_features == width
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("probe no_such_5:f --data DATA", "factory: can't import 'no_such_5'"),
        ("probe small --data DATA", "factory is 'small'; expected package.module:name"),
        ("probe FILE:tiny --data DATA", "has no 'tiny'"),
        ("probe FILE:fails --data DATA", "failed: ValueError: no weights"),
        ("probe FILE:number --data DATA", "gave a int; expected a torch.nn.Module"),
        ("probe FILE:small --data cifar", "data is 'cifar'; expected mnist"),
        ("probe FILE:small --data npz:none.npz", "none.npz can't be read as .npz"),
        ("probe FILE:small --data imagefolder:none", "none is no folder"),
        ("probe FILE:small --data DATA --layers conv*", "there is no layer 'conv*'"),
        ("probe FILE:small --data DATA --layers 11", "near names: '1'"),
        ("probe FILE:small --data DATA --checkpoint none.pt", "checkpoint none.pt can't be read"),
        ("probe FILE:small --data DATA --checkpoint OTHER", "it has other shapes for 1.weight"),
        ("probe FILE:small --data DATA --device tpu", "--device is 'tpu', which can't be used"),
        ("probe FILE:small --data DATA --reduce half", "--reduce is 'half'; expected"),
        ("probe FILE:small --data DATA --tokens some", "--tokens is 'some'; expected"),
        ("probe FILE:small --data DATA --l2 -1", "--l2 is (-1.0,); expected a positive number"),
        ("probe FILE:small --data DATA --l2 a", "--l2: 'a' given; expected a positive number"),
        ("probe FILE:small --data DATA --tol 0", "--tol: '0' given; expected a positive number"),
        ("probe FILE:small --data DATA --memory 0", "--memory: '0' given; expected a positive"),
        ("probe FILE:small --data DATA --memory x", "--memory: 'x' given; expected a positive"),
        ("probe FILE:small --data DATA --batch-size 0", "--batch-size: '0' given"),
        ("probe FILE:small --data DATA --kwargs 5", "--kwargs: '5' given; expected a JSON object"),
        ("probe FILE:small --data DATA --kwargs {", "--kwargs: '{' given; expected a JSON object"),
        ("probe FILE:small --data DATA --image-size 0", "--image-size: '0' given; expected pixels"),
        ("probe FILE:small --data DATA --normalize 1", "--normalize: '1' given; expected MEAN/STD"),
        ("probe FILE:small --data DATA --normalize 0/0", "--normalize: '0/0' given"),
        ("probe FILE:small --data DATA --channels 1", "--channels, --image-size and --normalize"),
        ("probe FILE:small", "--data is required (see linprobe probe --help)"),
        ("layers FILE:small", "expected either --data, or --shape of one sample"),
        ("layers FILE:small --shape 3x4 --data DATA", "expected either --data, or --shape"),
        ("layers FILE:small --shape 3x", "--shape: '3x' given; expected sizes such as 3x224x224"),
        ("layers FILE:small --shape 5", "the network fails on a batch of 2 samples: RuntimeError"),
    ],
)
def test_bad_input_is_one_line_and_code_2(arguments, message, npz, tmp_path, capsys):
    torch.save(small(5).state_dict(), tmp_path / "other.pt")
    known = {"FILE": __file__, "DATA": npz, "OTHER": str(tmp_path / "other.pt")}
    for word, value in known.items():
        arguments = arguments.replace(word, value)
    out = [] if arguments.startswith("layers") else ["--out", str(tmp_path / "out")]
    assert cli.main([*arguments.split(), *out]) == 2
    assert message in error_line(capsys)
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_run_is_only_replaced_when_asked_and_when_the_new_one_is_there(npz, tmp_path, capsys):
    arguments = f"probe {own('small')} --data {npz} --layers 0 --l2 0.1 --out {tmp_path / 'out'}"
    assert cli.main(arguments.split()) == 0
    kept = (tmp_path / "out" / "results.json").read_text()
    capsys.readouterr()
    assert cli.main([*arguments.split(), "--seed", "4"]) == 2
    assert "already holds a run" in error_line(capsys)
    assert cli.main([*arguments.split(), "--overwrite", "--layers", "conv"]) == 2
    assert (tmp_path / "out" / "results.json").read_text() == kept
    assert cli.main([*arguments.split(), "--overwrite", "--seed", "4"]) == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["seed"] == 4


def test_modules_of_the_current_folder_are_found_by_the_process(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch.nn import ReLU\n\ndef make():\n    return ReLU()\n"
    )
    code = "import sys; from linprobe.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "layers", "mine:make", "--shape", "3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("layer  type")


def test_class_and_sample_weights_from_files(tmp_path, capsys):
    (x, y), (xt, yt) = images()
    weight = np.arange(100.0) % 3
    arrays = {"x_train": x, "y_train": y, "x_test": xt, "y_test": yt}
    np.savez(tmp_path / "data.npz", **arrays, sample_weight_train=weight)
    call = ["probe", own("small"), "--data", f"npz:{tmp_path / 'data.npz'}", "--layers", "1"]
    out = ["--out", str(tmp_path / "run")]
    assert cli.main([*call, "--class-weight", "0=1,2=10", *out]) == 0
    run = load_run(tmp_path / "run")
    assert run.config.method.class_weight == {"0": 1.0, "2": 10.0}
    assert run.config.extraction.sample_weight
    assert run.dataset.num_train == (weight > 0).sum()
    capsys.readouterr()
    for given, said in (
        ("0=1,1", "--class-weight: '0=1,1' given; expected balanced, or CLASS=WEIGHT"),
        ("0=0", "--class-weight: '0=0' given"),
        ("0=1,0=2", "--class-weight: '0=1,0=2' given"),
        ("cow=2", "--class-weight has 'cow', which is no class; expected some of: 0, 1, 2"),
    ):
        assert cli.main([*call, "--class-weight", given, *out, "--overwrite"])
        assert said in error_line(capsys)
    for name, value, said in (
        ("sample_weight_train", -weight, "are negative or not finite"),
        ("sample_weight_test", np.ones(50), "test samples count once each"),
    ):
        np.savez(tmp_path / "data.npz", **arrays, **{name: value})
        assert cli.main([*call, *out, "--overwrite"])
        assert said in error_line(capsys)

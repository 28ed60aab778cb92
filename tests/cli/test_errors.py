"""Messages of the library, and of the command line about its words."""

import os
import subprocess
import sys

import pytest

from linprobe.cli import main as cli
from linprobe.cli.errors import translated
from tests.cli.test_main import error_line

FLAGS = {
    "memory_bytes": "--memory",
    "l2_path": "--l2",
    "tol": "--tol",
    "device": "--device",
    "overwrite": "--overwrite",
    "tokens": "--tokens",
}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("tol is 0; expected more", "--tol is 0; expected more"),
        ("the tokens of a device; tol", "the tokens of a device; tol"),
        ("raise memory_bytes", "raise --memory"),
        ("l2_path is (-1.0,)", "--l2 is (-1.0,)"),
        ("replace that run with overwrite=True", "replace that run with --overwrite"),
        ("use device='cpu'; tokens=-1", "use --device cpu; --tokens -1"),
        ("leave `device` out, or tokens=None", "leave --device out, or --tokens none"),
        ("float_tol=1 stays, and l2_paths", "float_tol=1 stays, and l2_paths"),
    ],
)
def test_parameters_become_flags(message, expected):
    assert translated(message, FLAGS) == expected
    assert translated(message, {}) == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("probe", "FACTORY is required (see linprobe probe --help)"),
        ("probe x --data", "--data needs a value (see linprobe probe --help)"),
        ("reproduce", "a COMMAND is required: fig5, fig8 (see linprobe reproduce --help)"),
        ("reproduce fig5 more", "unknown argument 'more' (see linprobe reproduce fig5 --help)"),
        ("reproduce fig5 --no-mdl", "unknown option: --no-mdl."),
        ("reproduce fig8 --dept 4", "unknown option: --dept. Did you mean --depth?"),
        ("compare", "RUN is required (see linprobe compare --help)"),
        ("probe x --data d --channels 2", 'invalid value "2" for --channels. Choose from: 1, 3'),
        ("probe x --data mnist --data-dir no-such-folder", "leave --data-dir and LINPROBE_DATA"),
    ],
)
def test_wrong_words_are_named(arguments, message, capsys, monkeypatch):
    words = arguments.replace(" x ", " torch.nn:ReLU ").split()
    assert cli.main(words) == 2
    assert message in error_line(capsys)


def test_wrong_words_do_not_load_torch():
    code = (
        "import sys\nfrom linprobe.cli.main import main\n"
        "assert main(['reproduce', 'fig8', '--depth', '3']) == 2\n"
        "assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("before", "after"), [(None, "2000"), ("7", "7")])
def test_threads_spin_briefly_unless_told_otherwise(before, after):
    code = (
        "import os, sys\nfrom linprobe.cli.main import main\n"
        "assert 'torch' not in sys.modules\nmain(['--version'])\n"
        "print(os.environ['GOMP_SPINCOUNT'])"
    )
    set_here = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    kept = {name: value for name, value in os.environ.items() if name not in set_here}
    environment = kept if before is None else {**kept, "GOMP_SPINCOUNT": before}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == after

"""Inject faults that take rights of the system's (mounts, control groups); print what happens.

``python -m benchmarks.faults``: as root, or where users may have namespaces of their own. Nothing
outside of a temporary folder changes: mounts are those of a namespace that ends with the command.
Each line gives the fault, the exit code, and the last line on standard error, else on output.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

_NETWORK = """
from torch import nn
def make(width=64):
    return nn.Sequential(nn.Linear(20, 8), nn.Linear(8, width), nn.Linear(width, 4))
"""
_INSIDE = "LINPROBE_FAULTS_INSIDE"
_GROUP_LIMIT = 700 * 2**20


def main() -> None:
    """Inject each fault into a run of the command line."""
    if _INSIDE not in os.environ:
        own = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
        command = ["unshare", "--mount", *own, sys.executable, "-m", "benchmarks.faults"]
        raise SystemExit(subprocess.run(command, env={**os.environ, _INSIDE: "1"}).returncode)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "net.py").write_text(_NETWORK, encoding="utf-8")
        draws = np.random.default_rng(0)
        labels = draws.integers(0, 2, 2000)
        x = draws.normal(size=(2000, 20)).astype(np.float32) + labels[:, None]
        np.savez(
            place / "data.npz",
            x_train=x[:1500],
            y_train=labels[:1500],
            x_test=x[1500:],
            y_test=labels[1500:],
        )
        for inject in (full_disk, read_only, full_scratch, control_group):
            inject(place)
        for folder in ("small", "fixed", "scratch"):
            subprocess.run(["umount", place / folder], check=True)


def full_disk(place: Path) -> None:
    """Give the run a disk of 16 KiB, then of 2 MiB, then room."""
    run = _mount(place / "small", "size=16k")
    _say("a disk of 16 KiB", _probe(place, run))
    _mount(run, "remount,size=2m")
    _say("a disk of 2 MiB: layers fit, the page doesn't", _probe(place, run))
    _mount(run, "remount,size=64m")
    _say("the same command, after space was made", _probe(place, run))


def read_only(place: Path) -> None:
    """Mount the run's folder read-only."""
    run = _mount(place / "fixed", "size=1m,ro")
    _say("a read-only disk", _probe(place, run))


def full_scratch(place: Path) -> None:
    """Let a layer of 120 MB, which exceeds the memory allowed, meet a disk of 32 MiB."""
    run = _mount(place / "scratch", "size=32m") / "run"
    words = ["--kwargs", '{"width": 20000}', "--memory", "8e6"]
    _say("a scratch disk of 32 MiB for 160 MB", _probe(place, run, *words))


def control_group(place: Path) -> None:
    """Limit the process and its children to 700 MiB, in a control group of version 1 or 2."""
    first, second = (
        (Path("/sys/fs/cgroup/memory/linprobe-faults"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup/linprobe-faults"), "memory.max"),
    )
    group, limit = first if first[0].parent.is_dir() else second
    try:
        group.mkdir()
        (group / limit).write_text(str(_GROUP_LIMIT), encoding="utf-8")
    except OSError as error:
        print(f"| a control group of 700 MiB | not injected: {error} | |")
        shutil.rmtree(group, ignore_errors=True)
        return

    def enter() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()), encoding="utf-8")

    try:
        words = ["--kwargs", '{"width": 50000}']
        done = _probe(place, place / "limited", *words, before=enter)
        _say("a control group of 700 MiB for a layer of 400 MB", done)
    finally:
        group.rmdir()


def _mount(folder: Path, options: str) -> Path:
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
    return folder


def _probe(
    place: Path, out: Path, *words: str, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "linprobe", "probe", f"{place / 'net.py'}:make"]
    options = ["--data", f"npz:{place / 'data.npz'}", "--layers", "*", "--l2", "1e-2"]
    return subprocess.run(
        [*command, *options, "--no-exact", "--threads", "1", "--out", str(out), *words],
        capture_output=True,
        text=True,
        preexec_fn=before,
    )


def _say(fault: str, done: subprocess.CompletedProcess[str]) -> None:
    failed = [line for line in done.stdout.splitlines() if "has no probe" in line]
    last = [*(done.stderr or done.stdout).splitlines(), "nothing said"]
    print(f"| {fault} | {done.returncode} | {' '.join([*failed, last[-2]])} |", flush=True)


if __name__ == "__main__":
    main()

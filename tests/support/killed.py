"""Runs that are killed, and taken up again, in processes of their own."""

import os
import signal
from itertools import count
from pathlib import Path

from linprobe.experiments import figure8, session
from linprobe.experiments import samples as loading
from linprobe.experiments.figure8 import Figure8
from linprobe.experiments.settings import Settings
from linprobe.probes.config import ProbeConfig
from tests.support.tiny import tiny_dataset


def run(out, kill_at=None, **changes):
    """Run a small Figure 8 without its pictures; SIGKILL ends the process at one of its events.

    Events are what progress tells, and what becomes of each file: begun, written, renamed. Their
    number stands in the file ``OUT.events`` when the run is through.
    """
    ticks = count()

    def tick(*_):
        if next(ticks) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def ticking(real):
        def called(*args):
            tick()
            returned = real(*args)
            tick()
            return returned

        return called

    Path.touch, Path.replace = ticking(Path.touch), ticking(Path.replace)
    loading.load = lambda *_: tiny_dataset()
    figure8.QUICK_STEPS = (0, 4, 8)
    session.write_report = Figure8.draw = draw_nothing
    method = ProbeConfig(l2_path=(1e-1, 1e-2))
    session.run(Figure8(depth=2), Settings(out, quick=True, method=method, **changes), tick)
    out.with_suffix(".events").write_text(str(next(ticks)))


def draw_nothing(*_):
    """Stand for figures and pages."""

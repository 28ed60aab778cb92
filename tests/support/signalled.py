"""``python -m tests.support.signalled SIGNAL LAYER WORD...``: a command that gets a real signal.

The signal comes when the probe of a layer is about to be fitted; each layer that is fitted is named
on standard output.
"""

import os
import signal
import sys

from linprobe.cli.main import main
from linprobe.pipeline import array_layers, engine, network_layers

if __name__ == "__main__":
    name, at, *words = sys.argv[1:]
    # As in a terminal: a shell starts background jobs with this signal ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    real = engine.fit_layer

    def fit_layer(layer, *args):
        if layer == at:
            os.kill(os.getpid(), getattr(signal, name))
        print("fits", layer)
        return real(layer, *args)

    engine.fit_layer = fit_layer
    array_layers.thread_count = network_layers.thread_count = lambda device: 1
    sys.exit(main(words))

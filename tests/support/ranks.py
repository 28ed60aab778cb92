"""Calls made by several processes at once, forked from one that has imported what they need."""

import atexit
import multiprocessing
import os
import pickle
import socket
import sys
import traceback

PRELOADED = [
    *("linprobe.cli.main", "linprobe.experiments.seeds", "linprobe.pipeline.fit"),
    *("linprobe.pipeline.probe", "pydantic", "scipy.linalg", "sklearn.metrics"),
]


def run_ranks(size, folder, function, *args, rank_zero_last=False):
    """Call a function of a module in `size` processes, each with its RANK.

    Args:
        size: number of processes.
        folder: for what they print and return.
        function: called with `args`.
        args: can be pickled.
        rank_zero_last: start the first process last.

    Returns:
        For each process its exit code, what the function returned, and what it printed (to both
        streams); None for what was not returned.
    """
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        context.Process(target=_call, args=(rank, size, port, folder, function, args))
        for rank in range(size)
    ]
    for process in reversed(started) if rank_zero_last else started:
        process.start()
    for process in started:
        process.join(120)
        assert process.exitcode is not None
    return [_outcome(folder / str(rank), p.exitcode) for rank, p in enumerate(started)]


def _outcome(path, code):
    kept = path.with_suffix(".pkl")
    found = pickle.loads(kept.read_bytes()) if kept.exists() else None
    return code, found, path.with_suffix(".txt").read_text()


def _call(rank, size, port, folder, function, args):
    given = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in given.items()}
    os.environ["LINPROBE_TIMEOUT"] = "5"
    with (folder / f"{rank}.txt").open("wb") as printed:
        for number in (1, 2):
            os.dup2(printed.fileno(), number)
    import torch

    torch.set_num_threads(1)
    try:
        found = function(*args)
        (folder / f"{rank}.pkl").write_bytes(pickle.dumps(found))
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
    finally:
        atexit._run_exitfuncs()  # which a forked process leaves out

"""The folder that a run is written to."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from linprobe.records.store import CSV_NAME, JSON_NAME
from linprobe.runtime.errors import LinprobeError

_WRITTEN = (
    *(JSON_NAME, CSV_NAME, "report.html", "figure*.*g", "plot-*.*", "seeds.csv"),
    *(f"{kind}/*.safetensors" for kind in ("probes", "networks", "predictions")),
)


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Make sure that a run can be written to `folder`, and touch nothing in it.

    Args:
        folder: made if it is missing.
        overwrite: an earlier run may be there.

    Raises:
        LinprobeError: The folder holds a run and `overwrite` is false, or it can't be written.
    """
    if (folder / JSON_NAME).exists() and not overwrite:
        raise LinprobeError(
            f"{folder} already holds a run ({JSON_NAME}); choose another folder, or replace "
            "that run with overwrite=True"
        )
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def prepare_folder(folder: Path, *, overwrite: bool) -> None:
    """Check the folder, and delete the files of an earlier run, while other files stay."""
    check_folder(folder, overwrite=overwrite)
    with _writing(folder):
        for pattern in _WRITTEN:
            for path in folder.glob(pattern):
                path.unlink()


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LinprobeError(
            f"can't write to {folder} ({error.strerror}); choose a folder that you may write to"
        ) from error

"""The folder that a run is written to."""

import tempfile
from pathlib import Path

from linprobe.errors import LinprobeError
from linprobe.results import CSV_NAME, JSON_NAME

_WRITTEN = (
    *(JSON_NAME, CSV_NAME, "figure*.*g"),
    *(f"{kind}/*.safetensors" for kind in ("probes", "networks", "predictions")),
)


def prepare_folder(folder: Path, *, overwrite: bool) -> None:
    """Make sure that a run can be written to `folder`, and that none is there.

    Args:
        folder: made if it is missing.
        overwrite: delete the files of an earlier run; other files stay.

    Raises:
        LinprobeError: The folder holds a run and `overwrite` is false, or it can't be written.
    """
    if (folder / JSON_NAME).exists() and not overwrite:
        raise LinprobeError(
            f"{folder} already holds a run ({JSON_NAME}); choose another --out, or replace that "
            "run with --overwrite"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for pattern in _WRITTEN:
            for path in folder.glob(pattern):
                path.unlink()
    except OSError as error:
        raise LinprobeError(
            f"can't write to {folder} ({error.strerror}); choose an --out folder that you may "
            "write to"
        ) from error

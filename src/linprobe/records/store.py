"""Runs on disk: ``results.json``, and the same as a table in ``results.csv``.

``python -m linprobe.records.store`` prints the JSON schema of the file, which
``docs/results.schema.json`` holds.
"""

import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from linprobe.records import schema1
from linprobe.records.codec import FieldError, adapter, from_json, to_json
from linprobe.records.schema import CheckpointRecord as CheckpointRecord
from linprobe.records.schema import ProbeRecord as ProbeRecord
from linprobe.records.schema import RunRecord
from linprobe.records.table import write_table
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import atomic_write
from linprobe.runtime.text import first_line

SCHEMA = 2
JSON_NAME = "results.json"
CSV_NAME = "results.csv"

UNFINISHED = "unfinished"
"""Folder of the layers that are done, until the run is complete."""

_MAX_DIGITS = 20  # of whole numbers, which arithmetic in float64 can't take much longer
_FOLDERS = ("probes", "networks", "predictions")
_LONGEST, _LEAST = 100, 2**16  # of what is written below a run's folder: name and bytes
_WRITTEN = (
    *(JSON_NAME, CSV_NAME, "report.html", "figure*.*g", "plot-*.*", "seeds.csv"),
    *(f"{kind}/*.safetensors" for kind in _FOLDERS),
)


def save(run: RunRecord, folder: Path) -> None:
    """Write results.csv and, last of a run's files, results.json; each whole or not at all.

    A number that is not finite is null in JSON, and an empty cell in the table.
    """
    folder = Path(folder)
    text = json.dumps({"schema": SCHEMA, **to_json(run)}, indent=1, allow_nan=False)
    write_table(run, folder / CSV_NAME)
    with atomic_write(folder / JSON_NAME) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def load_run(folder: Path) -> RunRecord:
    """Read the record of a run, of schema 2 or 1.

    Null is read as NaN; fields that a later version adds are skipped.

    Args:
        folder: the run's folder, or its results.json.

    Raises:
        LinprobeError: No such file, not JSON, another schema, or a field that is missing or has
            a wrong type; the message names the file and the field. Or the folder holds the runs
            of several seeds.
    """
    path = Path(folder)
    path = path / JSON_NAME if path.is_dir() else path
    if path.name == JSON_NAME and not path.exists() and (seeds := seed_folders(path.parent)):
        names = ", ".join(map(str, seeds))
        raise LinprobeError(
            f"{folder} holds the runs of several seeds; expected one of them: {names} (or "
            f"`linprobe compare {folder}` with another run)"
        )
    content = _read(path)
    schema = content.get("schema")
    if schema == schema1.SCHEMA:
        content = schema1.upgraded(content)
    elif schema != SCHEMA:
        raise LinprobeError(
            f"{path} has schema {schema!r}; this version of linprobe reads schema {SCHEMA} and "
            f"{schema1.SCHEMA}: use the version that wrote it (environment.linprobe), or run again"
        )
    try:
        return from_json(RunRecord, content)
    except FieldError as error:
        raise LinprobeError(f"{path}: {error}") from error


def seed_folders(folder: Path) -> tuple[Path, ...]:
    """Return the folders of the runs that ``--seeds`` left in `folder`, by seed."""
    runs = [path.parent for path in Path(folder).glob(f"seed*/{JSON_NAME}")]
    numbered = {int(name): path for path in runs if (name := path.name[4:]).isdecimal()}
    return tuple(numbered[seed] for seed in sorted(numbered))


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Make sure that a run can be written to `folder`, which is made, and touch nothing in it.

    Raises:
        LinprobeError: The folder holds a run and `overwrite` is false, or it can't be written.
    """
    for name in (JSON_NAME, UNFINISHED):
        if (folder / name).exists() and not overwrite:
            raise LinprobeError(
                f"{folder} already holds a run ({name}); choose another folder, or replace that "
                "run with overwrite=True"
            )
    check_writable(folder)


def check_writable(folder: Path) -> None:
    """Make `folder`, and write and delete a file as deep and as long in name as any of a run.

    Raises:
        LinprobeError: There is no permission, no space, a file or a link in the way, or too long a
            path.
    """
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_links(folder)
        for kind in (*_FOLDERS, UNFINISHED):
            if (folder / kind).exists() and not (folder / kind).is_dir():
                raise NotADirectoryError(errno.ENOTDIR, f"{kind} is a file")
        with tempfile.TemporaryDirectory(dir=folder, prefix=".") as inner:
            (Path(inner) / ("x" * _LONGEST)).write_bytes(bytes(_LEAST))


def prepare_folder(folder: Path, *, overwrite: bool) -> None:
    """Check the folder, and delete the files of an earlier run, while other files stay."""
    check_folder(folder, overwrite=overwrite)
    clear_folder(folder)
    with _writing(folder):
        if (folder / UNFINISHED).exists():
            shutil.rmtree(folder / UNFINISHED)


def clear_folder(folder: Path) -> None:
    """Delete the files of a run, but for layers of an unfinished one; other files stay."""
    with _writing(folder):
        _refuse_links(folder)
        for pattern in _WRITTEN:
            for path in folder.glob(pattern):
                path.unlink()


def _refuse_links(folder: Path) -> None:
    """Make sure that no folder inside is a link: a run is written to, and deleted, in its own.

    Files that are links are replaced, not followed. `folder` itself may be a link.
    """
    for kind in (*_FOLDERS, UNFINISHED):
        places = [Path(top) / name for top, inner, _ in os.walk(folder / kind) for name in inner]
        for place in (folder / kind, *places):
            if place.is_symlink():
                raise LinprobeError(
                    f"{place} is a symbolic link to a folder; expected one of the run's own: "
                    "remove the link, or choose another folder"
                )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LinprobeError(
            f"can't write to {folder} ({error.strerror}); choose a folder that you may write to, "
            "with space left"
        ) from error


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of results.json."""
    content = to_json(adapter(RunRecord).json_schema())  # with null for defaults that are NaN
    content["properties"] = {"schema": {"const": SCHEMA}, **content["properties"]}
    content["required"] = ["schema", *content["required"]]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **content}


def _whole(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"it holds a whole number of {len(text)} digits")
    return int(text)


def _real(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError("it holds a number beyond those of float64")
    return value


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text, parse_int=_whole, parse_float=_real)
    except OSError as error:
        raise LinprobeError(
            f"{path} can't be read ({error.strerror}); expected the folder of a finished "
            "`linprobe reproduce` run"
        ) from error
    except (ValueError, RecursionError) as error:
        said = first_line(error)[:200]
        raise LinprobeError(f"{path} is not valid JSON ({said}); make the run again") from error
    if not isinstance(content, dict):
        raise LinprobeError(f"{path} holds no JSON object; expected one with a schema")
    return content


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1))

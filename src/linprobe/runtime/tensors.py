"""Files of tensors (safetensors) with a checksum of all that they hold: a flipped bit is found."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.files import atomic_write
from linprobe.runtime.fingerprint import Fingerprint
from linprobe.runtime.text import first_line

_CHECKSUM = "checksum"
"""Key of the metadata; files of other programs, and of earlier versions, have none."""


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], said: Mapping[str, str] | None = None
) -> None:
    """Write tensors that share no memory, whole or not at all.

    Args:
        path: of the file; missing folders are made.
        tensors: by name, on any device.
        said: what else stands in the file's metadata.

    Raises:
        LinprobeError: The file can't be written.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = dict(said or {})
    metadata[_CHECKSUM] = _checksum(plain, metadata)
    with atomic_write(path) as temporary:
        save_file(plain, temporary, metadata)


def read_tensors(path: Path, cure: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file of tensors, and what else stands in its metadata.

    Args:
        path: of the file.
        cure: what to do where that fails, for the message.

    Raises:
        LinprobeError: No such file, or a damaged one.
    """
    try:
        with safe_open(path, "pt") as file:
            said = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except OSError as error:
        why = error.strerror or first_line(error).partition(f": {path}")[0]
        raise LinprobeError(f"{path} can't be read ({why}); {cure}") from error
    except Exception as error:  # a file of others: SafetensorError, and more for odd dtypes
        raise LinprobeError(f"{path} is damaged ({first_line(error)[:200]}); {cure}") from error
    expected = said.pop(_CHECKSUM, None)
    if expected is not None and expected != _checksum(tensors, said):
        raise LinprobeError(
            f"{path} is damaged (its checksum is another one: bits have changed since it was "
            f"written); {cure}"
        )
    return tensors, said


def _checksum(tensors: Mapping[str, Tensor], said: Mapping[str, str]) -> str:
    hashed = Fingerprint()
    hashed.add(dict(sorted(said.items())), dict(sorted(tensors.items())))
    return hashed.text

"""Labels of any kind as whole numbers, and the classes that occur, numbered from 0 on.

Whole numbers stand for themselves, truth values for 0 and 1, and text for a number that is made of
it alone, so that each batch can be read by itself. The names go along, by these numbers.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from linprobe.data.arrays import array_tensor
from linprobe.data.tokens import IGNORED
from linprobe.runtime.errors import LinprobeError
from linprobe.runtime.numbers import as_real, as_whole, shown, whole_number
from linprobe.runtime.text import first_line, some

Names = dict[int, str]
"""Names of labels that aren't simply numbers, by the numbers that stand for them."""

_BOOLEANS = {0: "False", 1: "True"}
_EXPECTED = "expected a class for each sample: whole numbers, text or truth values"


def read_labels(value: object, split: str) -> tuple[Tensor, Names]:
    """Convert labels of any kind to int64 on the CPU, with the names of those that have some.

    Args:
        value: a tensor, an array, a pandas Series, or a list; floating-point numbers must be whole.
        split: "train" or "test", for messages.

    Raises:
        LinprobeError: Labels that are missing, or neither whole numbers, text nor truth values.
    """
    try:
        array = numpy_of(value) if isinstance(value, Tensor) else np.asarray(value)
        if array.dtype.kind in "US" and not isinstance(value, np.ndarray):
            array = np.asarray(value, object)  # [1, "a"] would become text
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(value).__name__
        raise LinprobeError(
            f"{split} labels are a {kind} that can't be read ({first_line(error)}); {_EXPECTED}"
        ) from error
    if isinstance(value, np.ma.MaskedArray) and (masked := np.ma.getmaskarray(value)).any():
        raise LinprobeError(_missing(split, int(masked.sum()), masked.size, int(masked.argmax())))
    if array.dtype.kind == "O":
        array = _of_objects(array, split)
    if array.dtype.kind in "SUT":
        return _coded(np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array)
    return _whole(array, split), _BOOLEANS if array.dtype.kind == "b" else {}


def numpy_of(values: Tensor) -> np.ndarray:
    """Give a tensor of any device as an array; bfloat16, which NumPy lacks, as float32."""
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def _of_objects(array: np.ndarray, split: str) -> np.ndarray:
    """Values of one kind as an array of that kind."""
    values = [v.decode() if isinstance(v, bytes) else v for v in array.ravel().tolist()]
    missing = [place for place, value in enumerate(values) if _is_missing(value)]
    if missing:
        raise LinprobeError(_missing(split, len(missing), len(values), missing[0]))
    texts = [v for v in values if isinstance(v, str)]
    if texts:
        for v in values:
            if not isinstance(v, str) and as_whole(v) != IGNORED:
                raise LinprobeError(
                    f"{split} labels hold both {shown(texts[0])} and {shown(v)}; expected one "
                    "kind: text, or numbers"
                )
        return np.array([str(v) for v in values]).reshape(array.shape)
    if all(isinstance(v, bool | np.bool_) for v in values):
        return array.astype(bool)
    numbers = [int(v) if isinstance(v, bool | np.bool_) else as_real(v) for v in values]
    if None in numbers:
        bad = values[numbers.index(None)]
        raise LinprobeError(f"{split} labels hold a {type(bad).__name__}; {_EXPECTED}")
    return np.array(numbers).reshape(array.shape)


def _is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and bool(value != value)


def _missing(split: str, count: int, total: int, first: int) -> str:
    return (
        f"{count} of {total} {split} labels are missing, the first at place {first}; expected a "
        "class for each sample: leave these samples out"
    )


def _whole(array: np.ndarray, split: str) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise LinprobeError(f"{split} labels have dtype {array.dtype}; {_EXPECTED}")
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
        if (nan := np.isnan(array).ravel()).any():
            raise LinprobeError(_missing(split, int(nan.sum()), nan.size, int(nan.argmax())))
        broken = array[(array != np.floor(array)) | (np.abs(array) >= 2.0**63)]
        if len(broken):
            raise LinprobeError(
                f"{split} labels hold {float(broken[0]):g}; {_EXPECTED} (probes are classifiers)"
            )
    elif array.size and array.dtype.itemsize == 8 and int(array.max()) >= 2**63:
        raise LinprobeError(f"{split} labels hold {int(array.max())}; expected less than 2^63")
    return array_tensor(array).to(torch.int64)


def _coded(array: np.ndarray) -> tuple[Tensor, Names]:
    texts, places = np.unique(array, return_inverse=True)
    names = {_code(text): text for text in map(str, texts.tolist())}
    codes = torch.tensor(list(names), dtype=torch.int64)
    names.pop(IGNORED, None)
    return codes[torch.from_numpy(places.reshape(array.shape))], names


def _code(text: str) -> int:
    """A number of 56 bits for a text; `IGNORED` for what stands for no label."""
    if text == str(IGNORED):
        return IGNORED
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=7)
    return int.from_bytes(digest.digest(), "little")


@dataclass(frozen=True)
class Classes:
    """Labels of both splits by the numbers of their classes.

    Attributes:
        train: (n_train,) int64, from 0 on.
        test: (n_test,) int64.
        names: of the K classes.
        notes: what is unusual about them, a sentence each.
    """

    train: Tensor
    test: Tensor
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def number_classes(
    train: Tensor,
    test: Tensor,
    names: tuple[Mapping[int, str], Mapping[int, str]] = ({}, {}),
    num_classes: int | None = None,
) -> Classes:
    """Number the classes that occur in either split, in sorted order.

    Args:
        train: (n_train,) int64 labels.
        test: (n_test,) int64 labels.
        names: of the labels of each split; where the splits name a number differently, the names
            tell which labels are the same.
        num_classes: K, of labels that are class numbers from 0 on and stay what they are; None:
            as many as occur.

    Raises:
        LinprobeError: Labels of two kinds, out of range, or of one class only; or fewer samples
            than classes.
    """
    for split, labels in (("train", train), ("test", test)):
        if bool((labels == IGNORED).any()):
            raise LinprobeError(
                f"{split} labels hold {IGNORED}, which means no label in PyTorch; expected a class "
                "for each sample: leave these samples out"
            )
    if num_classes is not None:
        return _given(train, test, names, whole_number("num_classes", num_classes, 2))
    test, known = _same_names(test, *names)
    labels = torch.cat([train, test]).unique()
    texts = {code for code, name in known.items() if _code(name) == code}
    if texts and not texts.issuperset(labels.tolist()):
        raise LinprobeError("the labels of one split are text, those of the other numbers")
    order = sorted(labels.tolist(), key=known.__getitem__ if texts else None)
    found = tuple(known.get(code, str(code)) for code in order)
    place = torch.empty(len(order), dtype=torch.int64)
    place[torch.searchsorted(labels, torch.tensor(order))] = torch.arange(len(order))
    train, test = (place[torch.searchsorted(labels, y.contiguous())] for y in (train, test))
    _check_train(train, found)
    return Classes(train, test, found, tuple(_notes(order, known)))


def _given(
    train: Tensor, test: Tensor, names: tuple[Mapping[int, str], Mapping[int, str]], count: int
) -> Classes:
    """Labels that are class numbers already."""
    known = {**names[0], **names[1]}
    for split, labels in (("train", train), ("test", test)):
        for label in (int(labels.min()), int(labels.max())):
            if not 0 <= label < count:
                raise LinprobeError(
                    f"{split} labels hold {shown(known.get(label, label))}; expected class numbers "
                    f"from 0 to {count - 1}, or no num_classes"
                )
    found = tuple(known.get(number, str(number)) for number in range(count))
    _check_train(train, found)
    missing = sorted(set(range(count)) - set(train.tolist()) - set(test.tolist()))
    notes = [f"No sample is of class {some([found[k] for k in missing])}."] if missing else []
    return Classes(train, test, found, tuple(notes))


def _check_train(train: Tensor, names: Sequence[str]) -> None:
    if int(train.min()) == int(train.max()):
        only = names[int(train[0])]
        raise LinprobeError(
            f"the train labels are of one class only ({only}); expected at least two"
        )
    if len(train) < len(names):
        raise LinprobeError(
            f"there are {len(train)} training samples for {len(names)} classes; expected at least "
            "one for each: give more samples"
        )


def _same_names(
    test: Tensor, of_train: Mapping[int, str], of_test: Mapping[int, str]
) -> tuple[Tensor, Names]:
    """Test labels by the training labels' numbers, and the names of both."""
    if all(of_train.get(number, name) == name for number, name in of_test.items()):
        return test, {**of_train, **of_test}
    numbers = {name: number for number, name in of_train.items()}
    for name in of_test.values():
        numbers.setdefault(name, max(numbers.values()) + 1)
    labels, places = test.unique(return_inverse=True)
    renamed = [numbers[of_test[label]] for label in labels.tolist()]
    return torch.tensor(renamed)[places], {number: name for name, number in numbers.items()}


def _notes(order: Sequence[int], known: Mapping[int, str]) -> Iterator[str]:
    unused = [name for number, name in known.items() if number not in order]
    if unused:
        yield f"No sample is of class {some(unused)}: {len(order)} classes are left."
    gaps = () if known else sorted(set(range(order[0], order[-1])) - set(order[:-1]))
    if len(order) > 2 and 0 < len(gaps) < len(order):
        yield f"No sample has label {some(gaps)}: the {len(order)} labels that occur are classes."
    if not known and order[:2] == [-1, 0]:
        yield "Label -1 counts as a class; if it means no label, leave these samples out."

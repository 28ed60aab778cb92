"""Data by a word."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from linprobe.data import specs
from linprobe.data.images import ImageBatches, Preparation
from linprobe.data.specs import read_data
from linprobe.runtime.errors import LinprobeError
from tests.support.tiny import tiny_dataset

PAIR = ((torch.ones(3, 2), torch.arange(3)), (torch.ones(1, 2), torch.arange(1)))
NUMBER = 5


def as_dict():
    return {"train": PAIR[0], "test": PAIR[1]}


def fails():
    raise OSError("disk on fire")


def test_published_data(monkeypatch):
    monkeypatch.setattr(specs, "load", lambda *_: tiny_dataset())
    data = read_data("mnist", Preparation(channels=3), batch_size=7)
    assert data.name == "mnist"
    assert data.sha256 == tiny_dataset().sha256
    images, labels = next(iter(data.train))
    assert images.shape == (7, 3, 28, 28)
    assert torch.equal(images[:, 1], tiny_dataset().train_images[:7] / 255)
    assert torch.equal(labels, tiny_dataset().train_labels[:7])
    assert sum(len(labels) for _, labels in data.test) == len(tiny_dataset().test_labels)


def test_image_folder(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / split / "a" / "x.png")
    data = read_data(f"imagefolder:{tmp_path}", Preparation(size=(2, 2)))
    assert data.train.classes == ("a",)
    assert [images.shape for images, _ in data.test] == [(1, 3, 2, 2)]


@pytest.mark.parametrize("name", ["PAIR", "as_dict"])
def test_objects(name):
    data = read_data(f"{__file__}:{name}")
    assert torch.equal(data.train[1], torch.arange(3))
    assert torch.equal(data.test[0], torch.ones(1, 2))


def save(path, **changes):
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.normal(size=(6, 3)),
        "y_train": np.arange(6) % 2,
        "x_test": rng.normal(size=(2, 3)),
        "y_test": np.arange(2),
        **changes,
    }
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return arrays


def test_npz(tmp_path):
    path = tmp_path / "a.npz"
    arrays = save(path, y_train=(np.arange(6) % 2)[:, None])
    data = read_data(f"npz:{path}")
    np.testing.assert_array_equal(data.train[0], arrays["x_train"])
    assert data.train[1].tolist() == [0, 1, 0, 1, 0, 1]
    assert data.groups is None
    assert data.sha256 == {"a.npz": hashlib.sha256(path.read_bytes()).hexdigest()}


def test_npz_of_keyword_arguments_and_groups(tmp_path):
    save(
        tmp_path / "a.npz",
        x_train=None,
        x_test=None,
        input_ids_train=np.ones((6, 4), int),
        input_ids_test=np.ones((2, 4), int),
        groups_train=np.arange(6),
    )
    data = read_data(f"npz:{tmp_path / 'a.npz'}")
    assert set(data.train) == {"input_ids", "labels"}
    np.testing.assert_array_equal(data.groups, np.arange(6))
    save(tmp_path / "b.npz", groups_train=np.arange(6), groups_test=np.arange(2))
    first, second = read_data(f"npz:{tmp_path / 'b.npz'}").groups
    assert (len(first), len(second)) == (6, 2)


@pytest.mark.parametrize(
    ("shape", "prepared"),
    [((28, 20), (1, 28, 20)), ((28, 20, 3), (3, 28, 20)), ((3, 28, 20), (3, 28, 20))],
)
def test_npz_of_images(shape, prepared, tmp_path):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (6, *shape), np.uint8)
    save(tmp_path / "a.npz", x_train=x, x_test=x[:2])
    data = read_data(f"npz:{tmp_path / 'a.npz'}")
    assert isinstance(data.train, ImageBatches)
    images, labels = next(iter(data.train))
    assert images.shape == (6, *prepared)
    assert labels.tolist() == [0, 1, 0, 1, 0, 1]
    pixels = x[2, 5, 7, 1] if shape == (28, 20, 3) else x.reshape(6, *prepared)[2, -1, 5, 7]
    channel = 1 if shape == (28, 20, 3) else -1
    assert float(images[2, channel, 5, 7]) == pytest.approx(pixels / 255)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_train": None}, r"has x_train, x_test, y_test and lacks y_train; expected arrays"),
        ({"x_test": None}, r"lacks x_test"),
        ({"x_train": np.array([{}], dtype=object)}, r"can't be read as \.npz \(Object arrays"),
    ],
)
def test_npz_that_lacks_something(changes, message, tmp_path):
    save(tmp_path / "a.npz", **changes)
    with pytest.raises(LinprobeError, match=message):
        read_data(f"npz:{tmp_path / 'a.npz'}")


def test_empty_and_broken_npz(tmp_path):
    np.savez(tmp_path / "empty.npz")
    np.save(tmp_path / "single.npy", np.ones(3))
    (tmp_path / "text.npz").write_text("hello")
    whole = tmp_path / "whole.npz"
    save(whole)
    (tmp_path / "half.npz").write_bytes(whole.read_bytes()[:400])
    for name, message in {
        "empty.npz": "has no arrays and lacks y_train",
        "single.npy": "is a single array; expected arrays x_train",
        "text.npz": r"can't be read as \.npz",
        "half.npz": r"can't be read as \.npz",
        "missing.npz": r"can't be read as \.npz \(.*No such file",
    }.items():
        with pytest.raises(LinprobeError, match=message):
            read_data(f"npz:{tmp_path / name}")


def test_image_options_are_for_images(tmp_path):
    save(tmp_path / "a.npz")
    with pytest.raises(LinprobeError, match=r"x is float64 \(6, 3\); .* expected uint8"):
        read_data(f"npz:{tmp_path / 'a.npz'}", Preparation())
    with pytest.raises(LinprobeError, match="comes as it is; `channels`, `image_size`"):
        read_data(f"{__file__}:PAIR", Preparation())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cifar", "data is 'cifar'; expected mnist, fashion-mnist, npz:FILE, imagefolder:DIR or"),
        ("npz:", "data is 'npz:'; expected"),
        ("no_such_5:f", "data: can't import 'no_such_5'"),
        (f"{__file__}:NUMBER", r"gave a int; expected a pair \(train, test\)"),
        (f"{__file__}:fails", "failed: OSError: disk on fire; expected it to give"),
        (f"{__file__}:nothing", "has no 'nothing'"),
    ],
)
def test_unknown_data(spec, message):
    with pytest.raises(LinprobeError, match=message):
        read_data(spec)

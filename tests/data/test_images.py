"""Images: preparation, batches, folders."""

import numpy as np
import pytest
import torch
from PIL import Image

from linprobe.data.images import ImageBatches, Preparation, find_images, read_image
from linprobe.runtime.errors import LinprobeError


def gray(count=5, height=6, width=4):
    return (
        torch.arange(count * height * width)
        .remainder(256)
        .to(torch.uint8)
        .view(count, 1, height, width)
    )


def test_pixels_become_numbers_from_0_to_1():
    images = gray()
    prepared = Preparation()(images)
    assert prepared.dtype == torch.float32
    assert torch.equal(prepared, images / 255)


def test_normalisation_is_per_channel_or_of_all():
    images = gray().expand(-1, 3, -1, -1)
    prepared = Preparation(mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))(images)
    for channel, (mean, std) in enumerate(((0.1, 1), (0.2, 2), (0.3, 4))):
        torch.testing.assert_close(prepared[:, channel], (images[:, 0] / 255 - mean) / std)
    torch.testing.assert_close(
        Preparation(mean=(0.5,), std=(2.0,))(images), (images / 255 - 0.5) / 2
    )


def test_one_channel_is_repeated():
    prepared = Preparation(channels=3)(gray())
    assert prepared.shape == (5, 3, 6, 4)
    assert torch.equal(prepared[:, 0], prepared[:, 2])


def test_images_are_resized():
    assert Preparation(size=(12, 8))(gray()).shape == (5, 1, 12, 8)
    flat = torch.full((2, 1, 8, 8), 51, dtype=torch.uint8)
    torch.testing.assert_close(Preparation(size=(3, 3))(flat), torch.full((2, 1, 3, 3), 0.2))


def test_channels_that_can_not_be_had():
    with pytest.raises(LinprobeError, match="have 3 channels, 1 are asked for"):
        Preparation(channels=1)(gray().expand(-1, 3, -1, -1))
    with pytest.raises(LinprobeError, match="3 means or standard deviations for 1 channels"):
        Preparation(mean=(0.1, 0.2, 0.3))(gray())


def test_batches_come_in_order_each_time():
    batches = ImageBatches(gray(), torch.arange(5), Preparation(), 2)
    assert len(batches) == 3
    for _ in range(2):
        read = list(batches)
        assert [len(labels) for _, labels in read] == [2, 2, 1]
        assert torch.equal(torch.cat([labels for _, labels in read]), torch.arange(5))
        assert torch.equal(torch.cat([images for images, _ in read]), gray() / 255)


def write(path, color, size=(4, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "train/cat/b.png", (255, 0, 0))
    write(tmp_path / "train/cat/more/a.jpg", (0, 255, 0))
    write(tmp_path / "train/dog/c.PNG", (0, 0, 255))
    write(tmp_path / "val/dog/d.png", (255, 255, 255))
    (tmp_path / "train/dog/notes.txt").write_text("no image")
    return tmp_path


def test_folder_of_classes(folder):
    classes, found = find_images(folder)
    assert classes == ["cat", "dog"]
    names = [path.name for path in found["train"][0]]
    assert names == ["b.png", "a.jpg", "c.PNG"]
    assert found["train"][1].tolist() == [0, 0, 1]
    assert found["test"][1].tolist() == [1]
    ((images, labels),) = ImageBatches(*found["train"], Preparation(), 8)
    assert images.shape == (3, 3, 6, 4)
    assert images[0, :, 0, 0].tolist() == [1, 0, 0]
    assert labels.tolist() == [0, 0, 1]


def test_files_in_the_channels_and_size_asked_for(folder):
    path = folder / "train/cat/b.png"
    assert read_image(path, Preparation()).shape == (3, 6, 4)
    assert read_image(path, Preparation(channels=1, size=(5, 7))).shape == (1, 5, 7)
    red = np.array(Image.open(path).convert("L"))[0, 0]
    assert int(read_image(path, Preparation(channels=1))[0, 0, 0]) == red


def test_images_of_two_sizes(folder):
    write(folder / "train/cat/wide.png", (0, 0, 0), size=(9, 6))
    _, found = find_images(folder)
    with pytest.raises(LinprobeError, match=r"wide\.png is 9 x 6 pixels, .*give `image_size`"):
        list(ImageBatches(*found["train"], Preparation(), 8))
    (batch,) = ImageBatches(*found["train"], Preparation(size=(6, 6)), 8)
    assert batch[0].shape == (4, 3, 6, 6)


def test_a_class_of_one_split_only(folder):
    write(folder / "val/bird/e.png", (0, 0, 0))
    classes, found = find_images(folder)
    assert classes == ["bird", "cat", "dog"]
    assert found["train"][1].tolist() == [1, 1, 2]
    assert found["test"][1].tolist() == [0, 2]


def test_folders_that_hold_no_images(tmp_path):
    with pytest.raises(LinprobeError, match="is no folder; expected one with train/CLASS/IMAGE"):
        find_images(tmp_path / "missing")
    with pytest.raises(LinprobeError, match="has no sub-folders train and test"):
        find_images(tmp_path)
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
    with pytest.raises(LinprobeError, match=r"train holds no images; expected files CLASS/IMAGE"):
        find_images(tmp_path)


def test_a_file_that_is_no_image(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(LinprobeError, match=r"a\.png can't be read as an image"):
        read_image(tmp_path / "a.png", Preparation())

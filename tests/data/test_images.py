"""Images: sources, held-out parts, and augmentation drawn by its generator alone."""

import gzip
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lazyneuron.data import images
from lazyneuron.data.images import Augmentation, augment, load_images
from lazyneuron.errors import UsageError


def write_idx(path, array, zipped):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    data = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if zipped else data)


@pytest.fixture(params=[True, False], ids=["gzip", "plain"])
def idx_folder(request, tmp_path):
    rng, end = np.random.default_rng(0), ".gz" if request.param else ""
    for name, count in (("train", 20), ("t10k", 6)):
        write_idx(tmp_path / f"{name}-images-idx3-ubyte{end}", rng.integers(0, 256, (count, 5, 5)), request.param)
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte{end}", np.arange(count) % 3, request.param)
    return tmp_path


@pytest.fixture
def class_folder(tmp_path):
    for label, name in enumerate(("cat", "dog", "eel")):
        (tmp_path / name).mkdir()
        for number in range(10):
            pixels = np.full((12, 20, 3), 80 * label + number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_digits_are_split_without_overlap():
    data = load_images("digits", 8)
    assert (len(data.train.labels), len(data.evaluation.labels)) == (1438, 359)
    train, held_out = (
        part.get(np.arange(len(part.labels)))[0].flatten(1).numpy() for part in (data.train, data.evaluation)
    )
    seen = {row.tobytes() for row in train}
    assert sum(row.tobytes() in seen for row in held_out) == 0
    assert set(data.evaluation.labels.tolist()) == set(range(10))


def test_idx_files_come_back_as_written(idx_folder):
    data = load_images(str(idx_folder), 28)
    pixels, labels = data.train.get(np.array([4, 0]))
    assert pixels.shape == (2, 1, 5, 5)
    assert labels.tolist() == [1, 0]
    assert data.num_classes == 3
    expected = np.random.default_rng(0).integers(0, 256, (20, 5, 5))[[4, 0]]
    assert np.array_equal(pixels[:, 0].numpy(), expected)


def test_a_damaged_or_missing_idx_file_is_named(idx_folder):
    file = next(idx_folder.glob("train-labels*"))
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(UsageError, match=r"cannot read .*train-labels"):
        load_images(str(idx_folder), 28)
    file.unlink()
    with pytest.raises(UsageError, match="lacks train-labels-idx1"):
        load_images(str(idx_folder), 28)


def test_class_folders_are_scaled_cut_and_split(class_folder):
    data = load_images(str(class_folder), 6)
    pixels, labels = data.train.get(np.arange(len(data.train.labels)))
    assert pixels.shape == (24, 3, 6, 6)
    assert torch.equal(pixels[:, 0, 0, 0].long() // 80, labels)
    assert len(data.evaluation.labels) == 6


def test_one_class_or_none_is_a_usage_error(class_folder):
    for name in ("cat", "dog"):
        (class_folder / name).rename(class_folder.parent / f"{name}-moved")
    with pytest.raises(UsageError, match=r"holds 1 class folder\(s\)"):
        load_images(str(class_folder), 6)


def test_an_empty_class_and_an_unreadable_image_are_named(class_folder):
    (class_folder / "dog" / "3.png").write_bytes(b"no image")
    data = load_images(str(class_folder), 6)
    part = next(part for part in (data.train, data.evaluation) if class_folder / "dog" / "3.png" in part.items)
    with pytest.raises(UsageError, match=r"cannot read the image .*3\.png"):
        part.get(np.arange(len(part.labels)))
    (class_folder / "fly").mkdir()
    with pytest.raises(UsageError, match=r"class folder .*fly holds no image"):
        load_images(str(class_folder), 6)


def test_missing_sources_are_usage_errors(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="no images at"):
        load_images(str(tmp_path / "missing"), 8)
    monkeypatch.setattr(images, "FASHION_MNIST_FOLDERS", (tmp_path / "missing",))
    with pytest.raises(UsageError, match="no Fashion-MNIST on this machine"):
        load_images("fashion-mnist", 28)


def test_fashion_mnist_is_found_where_the_system_keeps_it(idx_folder, monkeypatch):
    monkeypatch.setattr(images, "FASHION_MNIST_FOLDERS", (idx_folder / "missing", idx_folder))
    assert len(load_images("fashion-mnist", 28).train.labels) == 20


def test_no_augmentation_only_scales_the_pixels():
    pixels = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8)
    x = augment(pixels, Augmentation(canvas=8), np.random.default_rng(0))
    assert torch.allclose(x, pixels.float() / 255 * 2 - 1)


def test_a_larger_canvas_keeps_the_size_of_the_image_and_pads_with_black():
    x = augment(torch.full((1, 1, 8, 8), 255, dtype=torch.uint8), Augmentation(canvas=12), np.random.default_rng(0))
    assert torch.allclose(x[0, 0, 2:10, 2:10], torch.ones(8, 8))
    assert (x[0, 0, [0, 1, 10, 11]] == -1).all()


def test_an_image_larger_than_the_canvas_is_shrunk_to_it():
    pixels = torch.zeros(1, 1, 12, 12, dtype=torch.uint8)
    pixels[..., :6] = 200
    x = augment(pixels, Augmentation(canvas=4), np.random.default_rng(0))
    assert torch.allclose((x[0, 0, 0] + 1) / 2 * 255, torch.tensor([200.0, 200.0, 0.0, 0.0]), atol=1e-3)


def test_a_shift_moves_by_as_many_pixels():
    pixels = torch.zeros(200, 1, 9, 9, dtype=torch.uint8)
    pixels[:, :, 4, 4] = 255
    x = (augment(pixels, Augmentation(canvas=9, shift=2), np.random.default_rng(0)) + 1).squeeze(1)
    grid = torch.arange(9.0)
    centres = (x.sum(1) * grid).sum(1) / x.sum((1, 2)) - 4
    assert centres.abs().max() <= 2.01
    assert centres.max() > 1.8
    assert centres.min() < -1.8


def test_augmentation_is_drawn_by_the_generator_and_differs_between_images():
    pixels = load_images("digits", 8).train.get(np.zeros(4, int))[0]
    how = Augmentation(canvas=12, rotation=30, scale=0.2, shift=1.5, noise=0.1, flip=True)
    one, same, other = (augment(pixels, how, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.allclose(one[0], one[1], atol=0.2)


def test_a_hub_data_set_gives_its_own_test_part(monkeypatch):
    def rows(count, shade):
        images = [Image.new("RGB", (10, 7), (shade + i, 0, 0)) for i in range(count)]
        return Rows([{"image": image, "label": i % 3} for i, image in enumerate(images)])

    class Rows(list):
        column_names = ("image", "label")

        def __getitem__(self, key):
            return [row[key] for row in self] if isinstance(key, str) else super().__getitem__(int(key))

    found = {"train": rows(9, 10), "test": rows(4, 100)}
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=lambda path, config: found))
    data = load_images("hf:owner/name", 5)
    assert (data.num_classes, data.num_channels, len(data.train.labels)) == (3, 3, 9)
    pixels, labels = data.evaluation.get(np.array([3, 1]))
    assert pixels.shape == (2, 3, 5, 5)
    assert pixels[:, 0, 2, 2].tolist() == [103, 101]
    assert labels.tolist() == [0, 1]
    del found["test"]
    with pytest.raises(UsageError, match="needs columns image and label, and a validation or test split"):
        load_images("hf:owner/name", 5)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'lazyneuron\[hub\]'"):
        load_images("hf:owner/name", 5)

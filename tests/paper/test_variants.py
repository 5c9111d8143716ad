"""Fewer images and classes, random labels, random pixels: what changes, what stays, and by which seed."""

import numpy as np
import pytest
import torch
from sentencepiece import SentencePieceProcessor

from lazyneuron.data.images import ArrayImages, ImageData
from lazyneuron.data.text import TextData
from lazyneuron.errors import UsageError
from lazyneuron.paper import variants


@pytest.fixture
def data() -> ImageData:
    """1,000 training images whose first pixel is their number modulo 256, 100 held out; five classes in turn."""
    parts = []
    for count in (1000, 100):
        pixels = np.zeros((count, 1, 3, 3), np.uint8)
        pixels[:, 0, 0, 0] = np.arange(count) % 256
        parts.append(ArrayImages(pixels, np.arange(count) % 5))
    return ImageData(*parts, num_classes=5, num_channels=1, image_size=3, fingerprint="f")


def test_a_share_of_the_training_images_keeps_their_labels_and_all_held_out(data):
    less = variants.with_share(data, 0.1, seed=3)
    pixels, labels = less.train.get(np.arange(100))
    assert len(less.train.labels) == 100
    assert len(less.evaluation.labels) == 100
    numbers = {int(p) for p in pixels[:, 0, 0, 0]}
    assert len(numbers) > 60
    for number, label in zip(pixels[:, 0, 0, 0].tolist(), labels.tolist(), strict=True):
        assert label in {(number + 256 * turn) % 5 for turn in range(4)}
    assert np.array_equal(less.train.labels, variants.with_share(data, 0.1, seed=3).train.labels)


def test_first_classes_are_kept_in_both_parts(data):
    less = variants.first_classes(data, 2)
    assert less.num_classes == 2
    for part, count in ((less.train, 400), (less.evaluation, 40)):
        assert len(part.labels) == count
        pixels, labels = part.get(np.arange(count))
        assert set(labels.tolist()) == {0, 1}
        assert pixels.shape == (count, 1, 3, 3)
    with pytest.raises(UsageError, match="num_classes must be between 2 and the data's 5; got 9"):
        variants.first_classes(data, 9)


@pytest.mark.parametrize(("count", "share"), [(100_000, 0.05), (100_000, 1 / 3), (5000, 0.5), (300, 0.1)])
def test_a_share_of_text_is_in_pieces_from_all_over_it_and_held_out_text_stays(count, share):
    text = TextData(np.arange(count), np.arange(7), SentencePieceProcessor(), "f")
    less = variants.with_share_of_text(text, share)
    assert len(less.train) == pytest.approx(share * count, abs=600)
    assert len(set(less.train.tolist())) == len(less.train)
    assert (np.diff(less.train) == 1).mean() > 0.99
    assert np.median(less.train) == pytest.approx(count / 2, abs=0.6 * 1024 / share)
    assert np.array_equal(less.evaluation, text.evaluation)


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_random_labels_are_uniform_over_all_classes_and_pixels_stay(data, share):
    noisy = variants.with_random_labels(data, share, seed=0)
    changed = (noisy.train.labels != data.train.labels).mean()
    assert changed == pytest.approx(share * 4 / 5, abs=0.04)
    assert np.bincount(noisy.train.labels).min() > 150
    assert torch.equal(noisy.train.get(np.arange(9))[0], data.train.get(np.arange(9))[0])
    assert torch.equal(noisy.train.get(np.arange(9))[1], torch.from_numpy(noisy.train.labels[:9]))
    assert np.array_equal(noisy.evaluation.labels, data.evaluation.labels)
    again, other = (variants.with_random_labels(data, share, seed=seed).train.labels for seed in (0, 1))
    assert np.array_equal(again, noisy.train.labels)
    assert not np.array_equal(other, noisy.train.labels)


def test_random_pixels_are_uniform_and_the_same_whatever_the_batch(data):
    noise = variants.with_random_pixels(data, 8, seed=0)
    pixels, labels = noise.train.get(np.arange(1000))
    assert pixels.shape == (1000, 1, 8, 8)
    assert torch.equal(labels, torch.from_numpy(data.train.labels))
    assert pixels.float().mean().item() == pytest.approx(127.5, abs=1)
    assert (pixels.max().item(), pixels.min().item()) == (255, 0)
    assert torch.equal(noise.train.get(np.array([7, 3]))[0], pixels[[7, 3]])
    held_out = [variants.with_random_pixels(data, 8, seed=seed).evaluation.get(np.arange(5))[0] for seed in (0, 1)]
    assert torch.equal(*held_out)
    trained = [variants.with_random_pixels(data, 8, seed=seed).train.get(np.arange(5))[0] for seed in (0, 1)]
    assert not torch.equal(*trained)

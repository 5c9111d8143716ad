"""Constants are the authors' at their sizes, and lengths follow the side."""

import pytest

from lazyneuron.paper.corruptions.severities import constant, constants_for, length_scale


@pytest.mark.parametrize(("size", "expected"), [((8, 8), "c"), ((32, 32), "c"), ((64, 500), "c"), ((65, 65), "i")])
def test_the_shorter_side_chooses_the_constants(size, expected):
    assert constant((1, 3, *size), 2, None, cifar="acaaa", imagenet="aiaaa") == expected
    assert constants_for((1, 3, *size)) == {"c": "CIFAR-10-C", "i": "ImageNet-C"}[expected]


@pytest.mark.parametrize("side", [8, 28, 64, 65, 224])
def test_a_set_that_is_asked_for_is_used_at_any_size(side):
    both = {"cifar": "abcde", "imagenet": "ABCDE"}
    assert [constant((side, side), level, "CIFAR-10-C", **both) for level in range(1, 6)] == list("abcde")
    assert [constant((side, side), level, "ImageNet-C", **both) for level in range(1, 6)] == list("ABCDE")


def test_lengths_are_the_authors_at_32_and_at_224():
    assert length_scale((1, 1, 32, 32)) == length_scale((1, 1, 224, 224)) == 1
    assert length_scale((1, 1, 8, 8)) == length_scale((1, 1, 1000, 400)) == 1


def test_lengths_scale_with_the_shorter_side():
    assert length_scale((48, 100)) == 1.5
    assert length_scale((300, 112)) == 0.5


def test_lengths_of_a_set_that_is_asked_for_scale_from_its_own_size():
    assert length_scale((28, 28), "ImageNet-C") == 28 / 224
    assert length_scale((28, 28), "CIFAR-10-C") == length_scale((224, 224), "ImageNet-C") == 1
    assert length_scale((224, 224), "CIFAR-10-C") == 7

"""Constants are the authors' at their sizes, and lengths follow the side."""

import pytest

from lazyneuron.paper.corruptions.severities import constant, length_scale


@pytest.mark.parametrize(("size", "expected"), [((8, 8), "c"), ((32, 32), "c"), ((64, 500), "c"), ((65, 65), "i")])
def test_the_shorter_side_chooses_the_constants(size, expected):
    assert constant((1, 3, *size), 2, cifar="acaaa", imagenet="aiaaa") == expected


def test_lengths_are_the_authors_at_32_and_at_224():
    assert length_scale((1, 1, 32, 32)) == length_scale((1, 1, 224, 224)) == 1
    assert length_scale((1, 1, 8, 8)) == length_scale((1, 1, 1000, 400)) == 1


def test_lengths_scale_with_the_shorter_side():
    assert length_scale((48, 100)) == 1.5
    assert length_scale((300, 112)) == 0.5

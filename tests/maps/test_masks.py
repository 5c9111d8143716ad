"""Every form of a mask says the same about which tokens are real."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

from lazyneuron.maps.masks import (
    behind_start,
    from_attention_mask,
    from_labels,
    from_padding_mask,
    from_pixel_mask,
    leading,
    trailing,
)

RIGHT = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()
LEFT = RIGHT.flip(1)
FULL = torch.ones(3, 5).bool()
CAUSAL = torch.ones(5, 5).tril().bool()
LEAST = torch.finfo(torch.float32).min


def forms(is_real: Tensor) -> dict[str, Any]:
    """Masks of each form for these real tokens."""
    causal = (CAUSAL & is_real[:, None])[:, None]
    extended = is_real[:, None, None]
    # Queries without a key attend to all of them: what scaled_dot_product_attention needs on some versions.
    unmasked = causal | ~causal.any(-1, keepdim=True)
    # Or padded queries attend to themselves alone.
    diagonal = torch.where(is_real[:, None, :, None], causal, torch.eye(5).bool())
    window = causal & ~torch.ones(5, 5).tril(-3).bool()
    found = {"rows": is_real, "ints": is_real.long(), "floats": is_real.float(), "causal": causal, "window": window}
    found |= {"extended": extended, "both ways": extended.expand(-1, -1, 5, -1), "unmasked": unmasked}
    found |= {"heads": causal.expand(-1, 2, -1, -1), "three axes": causal[:, 0], "zero or one": causal.float()}
    pairs = {name: x for name, x in found.items() if x.dtype == torch.bool and x.dim() > 2}
    added = {f"added {name}": torch.zeros(x.shape).masked_fill(~x, LEAST) for name, x in pairs.items()}
    found |= added | {"-10000": (1.0 - is_real[:, None, None].float()) * -10000}
    found |= {"added rows": torch.zeros(3, 5).masked_fill(~is_real, -torch.inf)}
    found |= {
        "kinds": {"full_attention": causal, "sliding_attention": window},
        "sliding": {"sliding": window, "x": None},
    }
    return found | ({"diagonal": diagonal} if (is_real.sum(1) > 2).all() else {})


@pytest.mark.parametrize("name", [*forms(RIGHT), "diagonal"])
@pytest.mark.parametrize(
    "is_real", [RIGHT, LEFT, FULL, RIGHT | (FULL.cumsum(1) < 4)], ids=["right", "left", "full", "2"]
)
def test_every_form(name: str, is_real: Tensor) -> None:
    if (mask := forms(is_real).get(name)) is None:
        pytest.skip("a padded token that attends to itself cannot be distinguished from a sequence of one token")
    found = from_attention_mask(mask, 15)
    assert found is not None
    assert torch.equal(found, is_real)


def test_one_causal_mask_for_all_rows() -> None:
    """Without a batch axis of its own it holds for each sequence, and a causal mask alone shows no padding."""
    for mask in (CAUSAL[None, None], torch.zeros(1, 1, 5, 5).masked_fill(~CAUSAL, LEAST)):
        found = from_attention_mask(mask, 15)
        assert found is not None
        assert torch.equal(found, FULL)


def test_packed_documents_are_real() -> None:
    """Each attends to itself alone, also one of a single token; a run of tokens that do so at an end is padding."""
    documents = torch.tensor([[0, 0, 1, 2, 2, 3], [0, 0, 0, 1, 2, 3]])
    mask = (documents[:, None] == documents[:, :, None]) & torch.ones(6, 6).tril().bool()
    found = from_attention_mask(mask[:, None], 12)
    assert found is not None
    assert found.tolist() == [[True] * 6, [True] * 3 + [False] * 3]


def test_cached_tokens_stand_before_the_new_ones() -> None:
    """The mask covers them too; a static cache has room behind the new tokens."""
    is_real = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]]).bool()
    found = from_attention_mask(is_real, 4, is_cached=True)
    assert found is not None
    assert torch.equal(found, is_real[:, -2:])
    causal = (torch.ones(6, 6).tril().bool() & is_real[:, None])[:, None, -2:]
    static = torch.nn.functional.pad(causal, (0, 3))
    for mask in (causal, static):
        found = from_attention_mask(mask, 4)
        assert found is not None
        assert torch.equal(found, is_real[:, -2:])


def test_a_block_mask() -> None:
    """Flex attention's masks are functions: they are asked for each pair."""
    lengths = RIGHT.sum(1)
    mask = create_block_mask(lambda b, h, q, k: (q >= k) & (k < lengths[b]), 3, None, 5, 5, device="cpu", BLOCK_SIZE=4)
    found = from_attention_mask(mask, 15)
    assert found is not None
    assert torch.equal(found, RIGHT)


def test_masks_that_do_not_fit() -> None:
    for mask in (RIGHT[:, :4], RIGHT[:, None, None, :4], {"full_attention": None}, RIGHT[0], "mask", RIGHT[:0]):
        assert from_attention_mask(mask, 15) is None
    assert from_padding_mask(RIGHT[:, :4], 15) is None
    assert from_pixel_mask(RIGHT, (3, 5)) is None
    assert from_pixel_mask(torch.ones(3, 64, 64), (3, 5)) is None


@pytest.mark.parametrize("mask", [~RIGHT, (~RIGHT).float(), torch.zeros(3, 5).masked_fill(~RIGHT, -torch.inf)])
def test_masks_of_padding(mask: Tensor) -> None:
    found = from_padding_mask(mask, 15)
    assert found is not None
    assert torch.equal(found, RIGHT)


def test_labels_are_the_decoder_inputs_one_position_on() -> None:
    """A sequence of n labels has n inputs: the start token and all labels but the last."""
    labels = torch.tensor([[5, 6, 7, 1, -100], [5, 1, -100, -100, -100], [-100, -100, 5, 6, 1]])
    shift = torch.tensor([[0, 5, 6, 7, 1], [0, 5, 1, 0, 0], [0, 0, 0, 5, 6]])
    wanted = [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1, 0, 0, 1, 1]]
    assert from_labels(labels, None, 0).long().tolist() == wanted
    assert from_labels(labels, shift, 0).long().tolist() == wanted
    prompt = shift.masked_fill(torch.tensor([[0], [0], [1]]).bool() & (torch.arange(5) > 0), 9)
    assert from_labels(labels, prompt, 0).long().tolist() == [*wanted[:2], [1] * 5]  # not learned, but real
    assert behind_start(RIGHT).sum(1).tolist() == [5, 3, 1]
    assert behind_start(LEFT).long().tolist() == [[1] * 5, [1, 0, 0, 1, 1], [1, 0, 0, 0, 0]]


@pytest.mark.parametrize("tokens", [(2, 4, 4), (2, 16), (2, 2, 2)])
def test_pixels(tokens: tuple[int, ...]) -> None:
    """The feature map shrinks the image by a power of two; half of the second image is padding."""
    mask = torch.ones(2, 32, 32).long()
    mask[1, :, 16:] = 0
    found = from_pixel_mask(mask, tokens)
    assert found is not None
    assert found.float().mean(1).tolist() == [1.0, 0.5]
    assert found[1, :2].tolist() == ([True, True] if len(found[1]) == 16 else [True, False])


def test_runs() -> None:
    rows = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 0]]).bool()
    assert leading(rows).long().tolist() == [[1, 0, 0, 0], [0, 0, 0, 0]]
    assert trailing(rows).long().tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]

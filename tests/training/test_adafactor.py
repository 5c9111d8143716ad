"""Adafactor by shape against PyTorch's, weight after weight."""

import copy

import pytest
import torch
from torch import nn

from lazyneuron.training.adafactor import Adafactor

SHAPES = [(6, 4), (5,), (6, 4), (3, 2, 4), (5,), (1,), (7, 1), (6, 4)]


def made(which, how, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]
    return weights, which(weights, **how)


def take_steps(weights, optimizer, steps):
    """The last weight never has a gradient; the first has none at every third step."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        optimizer.param_groups[0]["lr"] = 0.3 / (step + 1)
        for weight in weights[:-1]:
            weight.grad = 10 ** (step % 3 - 1) * torch.randn(weight.shape, generator=generator)
        weights[0].grad = weights[0].grad if step % 3 else None
        optimizer.step()


@pytest.mark.parametrize(
    "how", [{}, {"weight_decay": 0.1}, {"d": 1.5, "beta2_decay": -0.6}, {"maximize": True}, {"eps": (1e-4, 1e-2)}]
)
def test_weights_and_state_are_pytorchs(how):
    (theirs, reference), (ours, optimizer) = made(torch.optim.Adafactor, how), made(Adafactor, how)
    take_steps(theirs, reference, range(20))
    take_steps(ours, optimizer, range(20))
    torch.testing.assert_close([*map(torch.Tensor.detach, ours)], [*map(torch.Tensor.detach, theirs)])
    torch.testing.assert_close(optimizer.state_dict(), reference.state_dict(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("first", [torch.optim.Adafactor, Adafactor], ids=["PyTorch's", "ours"])
def test_a_saved_state_goes_on_whichever_wrote_it(first):
    whole, optimizer = made(Adafactor, {})
    take_steps(whole, optimizer, range(10))
    half, writer = made(first, {})
    take_steps(half, writer, range(6))
    rest, reader = made(Adafactor, {}, seed=1)
    take_steps(rest, reader, range(2))  # a state that the loaded one replaces
    for weight, value in zip(rest, half, strict=True):
        weight.data.copy_(value.data)
    reader.load_state_dict(copy.deepcopy(writer.state_dict()))
    take_steps(rest, reader, range(6, 10))
    for weight, expected in zip(rest, whole, strict=True):
        if first is Adafactor:
            assert torch.equal(weight, expected)
        else:
            torch.testing.assert_close(weight.detach(), expected.detach())

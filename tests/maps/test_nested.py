"""Nested tensors hold real tokens alone, and watching or enforcing leaves PyTorch's own conversions as they are."""

import pytest
import torch
from torch import Tensor, nn

import lazyneuron as lazy
from tests.maps.models import random

LENGTHS = (4, 2, 4)
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")


def encoder() -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(16, bias=True)).eval()


def is_padding(length: int = 5) -> Tensor:
    return torch.arange(length) >= torch.tensor(LENGTHS)[:, None]


def one_by_one(model: nn.Module, sites: list[lazy.Site], x: Tensor) -> dict[str, Tensor]:
    with lazy.watch(model, sites) as single, torch.no_grad():
        for row, length in zip(x, LENGTHS, strict=True):
            model(row[None, :length])
    return single.state()


@pytest.mark.parametrize("mask", [is_padding(), torch.zeros(3, 5).masked_fill(is_padding(), -torch.inf)])
def test_watching_a_default_encoder_with_padding(mask: Tensor) -> None:
    """In eval mode without gradients its layers get nested tensors: the output stays, real tokens alone count."""
    model, x = encoder(), random(3, 5, 16)
    with torch.no_grad():
        plain = model(x, src_key_padding_mask=mask)
        with lazy.watch(model) as probe:
            watched = model(x, src_key_padding_mask=mask)
    assert watched.shape == plain.shape
    torch.testing.assert_close(watched, plain)
    assert probe.num_tokens == {"layers.0": 10, "layers.1": 10}
    for name, counts in one_by_one(model, probe.sites, x).items():
        assert torch.equal(probe.state()[name], counts)


def test_enforcing_a_default_encoder_with_padding() -> None:
    """A selection that keeps every neuron gives the plain output; one that keeps few is verified."""
    model, x = encoder(), random(3, 5, 16)
    inputs = {"src": x, "src_key_padding_mask": is_padding()}
    with torch.no_grad():
        plain = model(**inputs)
        lazy.enforce(model, lazy.TopK(k=32), example_inputs=inputs)
        torch.testing.assert_close(model(**inputs), plain)
        lazy.release(model)
        lazy.enforce(model, lazy.TopK(k=3), example_inputs=inputs)
        assert not torch.allclose(model(**inputs), plain)
        with lazy.watch(model, statistics=["active"]) as probe:
            model(**inputs)
    assert probe.quantile(1.0) == {"layers.0": 3, "layers.1": 3}
    assert set(probe.num_tokens.values()) == {10}
    lazy.verify(model, inputs)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_inputs(layout: torch.layout) -> None:
    """Users may pass nested tensors themselves: counted, selected and differentiated like the sequences apart."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
    x = random(3, 5, 16)
    rows = [row[:length] for row, length in zip(x, LENGTHS, strict=True)]
    nested = torch.nested.nested_tensor(rows, layout=layout)
    sites = lazy.find_sites(model, x)
    with lazy.watch(model, sites, statistics=["position"]) as probe:
        model(nested)
    for name, counts in one_by_one(model, sites, x).items():
        assert torch.equal(probe.state()[name], counts)
    assert len(probe.density_by_position[""]) == 4
    lazy.enforce(model, lazy.TopK(k=3), sites)
    found, wanted = model(nested), torch.cat([model(row) for row in rows])
    torch.testing.assert_close(torch.cat(found.unbind()), wanted)
    (expected,) = torch.autograd.grad(wanted.square().sum(), model[0].weight)
    (grad,) = torch.autograd.grad(sum(row.square().sum() for row in found.unbind()), model[0].weight)
    torch.testing.assert_close(grad, expected)


def test_an_encoder_called_with_nested_tensors() -> None:
    """Its sites are found in the call, and its output is the plain one."""
    model, x = encoder(), random(3, 5, 16)
    nested = torch.nested.nested_tensor([row[:length] for row, length in zip(x, LENGTHS, strict=True)])
    with torch.no_grad():
        plain = model(nested)
        with lazy.watch(model) as probe:
            watched = model(nested)
    for found, wanted in zip(watched.unbind(), plain.unbind(), strict=True):
        torch.testing.assert_close(found, wanted)
    assert set(probe.num_tokens.values()) == {10}

"""A dry run leaves the model as it was, and an error says which inputs are missing."""

from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F

from lazyneuron.sites import find_sites
from tests.sites.models import IDS, MLP, T5, Reached, Residual, X


def test_tracing_leaves_no_trace() -> None:
    """Modes, gradients, buffers, random state and inputs are as before; the pass ran in eval mode without gradients."""
    seen: list[tuple[bool, bool]] = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.norm = nn.BatchNorm1d(8)

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            seen.append((self.training, torch.is_grad_enabled()))
            return self.norm(x.mul_(2)) + torch.rand(8)

    model = Residual(Counting(), MLP(lambda u: F.dropout(u.relu(), 0.5)))
    model.blocks[1].eval()
    model(torch.ones(2, 8)).sum().backward()
    seen.clear()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    x, random = torch.ones(2, 8), torch.get_rng_state()
    find_sites(model, x)
    assert seen == [(False, False)]
    assert torch.equal(x, torch.ones(2, 8))
    assert torch.equal(torch.get_rng_state(), random)
    assert [m.training for m in model.children()] == [True]
    assert [m.training for m in model.blocks] == [True, False]
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    for before, p in zip(grads, model.parameters(), strict=True):
        assert torch.equal(before, p.grad)


def test_tracing_inside_autocast_keeps_gradients() -> None:
    """Weights cast during the pass are not reused, without their gradient, by the training step after it."""
    model = Residual(MLP())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        find_sites(model, torch.ones(2, 8))
        model(torch.ones(2, 8)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_the_models_own_exception_passes_through() -> None:
    """A failing forward raises its own exception object, and the modes are restored."""
    failure = KeyError("mine")

    def fail(u: Tensor) -> Tensor:
        raise failure

    model = Residual(MLP(fail))
    with pytest.raises(KeyError) as caught:
        find_sites(model, torch.ones(2, 8))
    assert caught.value is failure
    assert model.training
    assert torch.is_grad_enabled()


def test_inputs_that_cannot_be_copied_are_refused() -> None:
    """A stateful input could be changed by tracing, so it is copied or refused by name."""
    with pytest.raises(ValueError, match="generator cannot be copied"):
        find_sites(Residual(MLP()), {"x": (i for i in ())})


@pytest.mark.parametrize(
    ("model", "inputs", "note"),
    [
        (Reached(), {"y": X}, "Reached was run with y; it needs x too: add it to the inputs"),
        (Reached(), {"x": X, "z": X}, "Reached was run with x, z; if it needs more, it also takes y, scale"),
        (Reached(), (X, X, X), "Reached was run with no input; it needs x too: add it to the inputs"),
        (Reached(), {"x": X, "y": X[:, :3]}, "Reached was run with x, y; if it needs more, it also takes scale"),
        (hf.T5Model(hf.T5Config(**T5)), {}, "T5Model was run with no input; it needs input_ids or inputs_embeds too"),
        (hf.T5Model(hf.T5Config(**T5)), {"input_ids": IDS}, "it also takes attention_mask, decoder_input_ids, dec"),
    ],
)
def test_a_failed_pass_says_which_inputs_it_may_lack(model: nn.Module, inputs: Any, note: str) -> None:
    """The model's own exception carries a note that names missing arguments, as signature and message tell them."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        find_sites(model, inputs)
    assert note in caught.value.__notes__[0]

"""Linear layers whose tokens a router has put in another order: no mask is laid over them, and a warning names them."""

import warnings

import pytest
import torch
from torch import Tensor, nn

import lazyneuron as lazy

IDS = torch.arange(3, 23).view(4, 5)
MASK = (torch.arange(5) < torch.tensor([5, 2, 4, 1])[:, None]).long()


class Sorted(nn.Module):
    """An MLP that sees all tokens sorted by a router's choice, so that a mask fits its rows by their number alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm, self.router = nn.Embedding(60, 16), nn.LayerNorm(16), nn.Linear(16, 2)
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        x = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
        f = self.norm(x + x.softmax(-1)).flatten(0, 1)
        order = self.router(f).argmax(-1).argsort(stable=True)
        y = torch.zeros_like(f)
        y[order] = self.down(self.up(f[order]).relu())
        return y.view_as(x)


embedded = pytest.mark.parametrize("is_embedded", [False, True], ids=["ids", "embeddings"])


def inputs_of(model: Sorted, is_embedded: bool) -> dict[str, Tensor]:
    return {"inputs_embeds": model.embed(IDS)} if is_embedded else {"input_ids": IDS}


@embedded
def test_a_mask_is_not_laid_over_tokens_in_another_order(is_embedded: bool) -> None:
    model = Sorted()
    inputs = inputs_of(model, is_embedded)
    with lazy.watch(model) as probe:
        with pytest.warns(UserWarning, match=r"site '': a router sends it tokens in an order of its own"):
            model(**inputs, attention_mask=MASK)
        model(**inputs, attention_mask=MASK)  # warned once
    assert [site.order for site in probe.sites] == ["gathered"]
    assert probe.num_tokens == {"": 2 * IDS.numel()}


@embedded
def test_without_padding_there_is_nothing_to_warn_of(is_embedded: bool) -> None:
    model = Sorted()
    inputs = inputs_of(model, is_embedded)
    with warnings.catch_warnings(action="error"), lazy.watch(model, statistics=["position", "overlap"]) as probe:
        model(**inputs, attention_mask=torch.ones_like(MASK))
        model(**inputs)
    assert probe.num_tokens == {"": 2 * IDS.numel()}
    assert all(density.isnan().all() for density in probe.density_by_position.values())  # no place is known

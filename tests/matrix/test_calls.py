"""{model families} x {ways to call a batch}: `watch` counts what the sequences do one by one, by hooks of this test.

After a row of a batch has ended, `generate` goes on with pads, which do not count. The row's end token does, if it was
fed back to the model, as it would in one pass over the finished sequence; the last token of the longest row never is.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lazyneuron as lazy
from tests.matrix.calls import Single, decode, translate
from tests.matrix.families import FAMILIES, Family

MARGIN = 1e-7  # no pre-activation is closer to 0, so rounding decides nothing
CALLS = ("right pad", "left pad", "packed", "cache", "generate", "labels", "4-D", "dictionary")


def by_hand(model: nn.Module, family: Family, singles: list[Single]) -> dict[str, list[Tensor]]:
    """For each down projection its activation maps [S, F], one of each sequence run alone."""
    found: dict[str, list[Tensor]] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda m, args, name=name: found.setdefault(name, []).append(
                args[0] if len(args) == 1 else routed(m, *args)
            )
        )
        for name, module in model.named_modules()
        if re.search(family.down, name)
    ]
    for single in singles:
        model(**single)
    for handle in handles:
        handle.remove()
    return {name: [h.reshape(-1, h.shape[-1]) for h in maps] for name, maps in found.items()}


def routed(experts: Any, x_TD: Tensor, expert_TK: Tensor, weight_TK: Tensor) -> Tensor:
    """The maps of tokens at the experts that a router chose, [T * K, F], token by token."""
    gates_and_ups = [(experts.gate_up_proj[e] @ x).chunk(2) for x, es in zip(x_TD, expert_TK, strict=True) for e in es]
    return torch.stack([gate.relu() * up for gate, up in gates_and_ups])


def counts(maps: list[Tensor], num_experts: int) -> dict[str, Any]:
    """What `watch` should have counted of these maps, where each token is at so many experts (0: there are none)."""
    active = [h != 0 for h in maps]
    if num_experts:  # a token at an expert has a place, but no neighbour
        found = counts([h[i::num_experts] for h in maps for i in range(num_experts)], 0)
        return found | {"overlap": [0, 0]}
    pairs = [(a[1:] & a[:-1], a[1:] | a[:-1]) for a in active]
    longest = max(map(len, maps))
    at = [[a[i] for a in active if i < len(a)] for i in range(longest)]
    per_token = torch.cat([a.sum(1) for a in active])
    return {
        "firing": sum(a.sum(0) for a in active).tolist(),
        "tokens": sum(map(len, maps)),
        "active": per_token.bincount(minlength=maps[0].shape[1] + 1).tolist(),
        "position": [[sum(int(row.sum()) for row in rows), len(rows)] for rows in at],
        "overlap": [sum(int(pair[i].sum()) for pair in pairs) for i in (0, 1)],
    }


def counted(probe: lazy.Probe, site: str) -> dict[str, Any]:
    state = probe.state()
    position = state[f"{site}/position"]
    return {
        "firing": state[site][:-2].tolist(),
        "tokens": probe.num_tokens[site],
        "active": state[f"{site}/active"].tolist(),
        "position": position[: int(position[:, 1].count_nonzero())].tolist(),
        "overlap": state[f"{site}/overlap"].tolist(),
    }


def holder(site: lazy.Site) -> str:
    """The module that holds the down weight."""
    return site.down.rpartition(".")[0]


def cells() -> Iterator[Any]:
    for name, family in FAMILIES.items():
        for call in CALLS:
            marks = [pytest.mark.skip(reason=family.lacks[call])] if call in family.lacks else []
            yield pytest.param(name, call, marks=marks, id=f"{name}-{call}")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize(("name", "call"), [*cells()])
@torch.no_grad()
def test_a_batch_counts_as_its_sequences_one_by_one(name: str, call: str) -> None:
    family = FAMILIES[name]
    torch.manual_seed(0)
    model: Any = family.build().double().eval()
    for parameter in model.parameters():  # large enough for maps to differ from token to token
        parameter.mul_(4) if parameter.dim() > 1 else parameter
    make = translate if getattr(getattr(model, "config", None), "is_encoder_decoder", False) else decode
    with lazy.watch(model, statistics=["active", "position", "overlap"]) as probe:
        singles = make(model, call)
    hand = by_hand(model, family, singles)
    assert {holder(site) for site in probe.sites} == hand.keys()
    num_experts = getattr(getattr(model, "config", None), "num_experts_per_tok", 0)
    for site in probe.sites:
        maps = hand[holder(site)]
        assert min(float(h[h != 0].abs().min()) for h in maps if h.any()) > MARGIN
        assert counted(probe, site.name) == counts(maps, num_experts), site.name


def test_every_cell_is_tested_or_has_a_reason() -> None:
    assert len(FAMILIES) >= 16
    assert all(call in CALLS and why for family in FAMILIES.values() for call, why in family.lacks.items())
    assert all(any(call not in family.lacks for family in FAMILIES.values()) for call in CALLS)

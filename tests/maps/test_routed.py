"""Tokens are followed to the experts that a router sends them to: padding is left out, places are kept."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

import lazyneuron as lazy
from lazyneuron.maps.routed import RoutedTokens, at_experts
from lazyneuron.maps.tokens import Tokens

IDS = torch.arange(3, 33).view(5, 6)
LENGTHS = (6, 2, 4, 1, 3)
SIZES: dict[str, Any] = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"num_key_value_heads": 2, "intermediate_size": 24, "hidden_act": "relu", "num_local_experts": 4}
OWN_ACTIVATION = {name: size for name, size in SIZES.items() if name != "hidden_act"}
NEMOTRON = OWN_ACTIVATION | {"mlp_hidden_act": "relu2"}
NEMOTRON |= {"layers_block_type": ["attention", "moe"], "n_routed_experts": 4, "n_group": 1, "topk_group": 1}
NEMOTRON |= {"moe_intermediate_size": 24, "moe_shared_expert_intermediate_size": 8, "head_dim": 8}
LLAMA4 = {"intermediate_size_mlp": 24, "interleave_moe_layer_step": 1, "pad_token_id": 0}

FAMILIES: dict[str, Callable[[int], nn.Module]] = {
    "Mixtral": lambda k: hf.MixtralModel(hf.MixtralConfig(**SIZES, num_experts_per_tok=k)),
    "GPT-OSS": lambda k: hf.GptOssModel(hf.GptOssConfig(**OWN_ACTIVATION, num_experts_per_tok=k, head_dim=8)),
    "Granite, sorted before its experts": lambda k: hf.GraniteMoeModel(
        hf.GraniteMoeConfig(**SIZES, num_experts_per_tok=k)
    ),
    "Llama 4, every expert on all tokens": lambda k: hf.Llama4TextModel(
        hf.Llama4TextConfig(**SIZES, **LLAMA4, num_experts_per_tok=k)
    ),
    "Nemotron-H": lambda k: hf.NemotronHModel(hf.NemotronHConfig(**NEMOTRON, num_experts_per_tok=k)),
}


def counts(model: nn.Module, sites: Any, *calls: dict[str, Tensor]) -> dict[str, Tensor]:
    with lazy.watch(model, sites, statistics=["active", "position"]) as probe, torch.no_grad():
        for call in calls:
            model(**call)
    return dict(probe.state())


LAYOUTS = {name: ("eager", "batched_mm", "grouped_mm") for name in ("Mixtral", "GPT-OSS", "Nemotron-H")}
CASES = [(family, layout) for family in FAMILIES for layout in LAYOUTS.get(family, ("its own",))]


@pytest.mark.parametrize(("family", "implementation"), CASES)
@pytest.mark.parametrize("k", [1, 2])
def test_padding_does_not_reach_the_counts_of_experts(family: str, k: int, implementation: str) -> None:
    """Also where as many rows reach the experts as the mask has entries (k = 1), in another order."""
    torch.manual_seed(0)
    model: Any = FAMILIES[family](k).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4 if parameter.dim() > 1 else 1)
    if family in LAYOUTS:
        model.set_experts_implementation(implementation)
    mask = (torch.arange(6) < torch.tensor(LENGTHS)[:, None]).long()
    sites = [site for site in lazy.find_sites(model, IDS) if "shared" not in site.name]
    single = counts(model, sites, *({"input_ids": ids[None, :n]} for ids, n in zip(IDS, LENGTHS, strict=True)))
    padded = counts(model, sites, {"input_ids": IDS, "attention_mask": mask})
    assert {int(c[-2]) for name, c in padded.items() if "/" not in name} <= {k * sum(LENGTHS), sum(LENGTHS)}
    for name, expected in single.items():
        assert torch.equal(padded[name], expected), name


def test_tokens_are_followed_by_their_numbers() -> None:
    routed = RoutedTokens()
    x = torch.randn(2, 3, 4)
    routed.begin((x,), {})

    def follow(func: Any, *args: Any, **kwargs: Any) -> Tensor:
        out = func(*args, **kwargs)
        routed.follow(func, args, kwargs, out)
        return out

    def numbers(x: Tensor) -> tuple[list[list[int]], bool]:
        found = routed.of(x)
        assert found is not None
        return found.of.tolist(), found.is_picked

    flat = follow(Tensor.view, x, -1, 4)
    assert numbers(flat) == ([[i] * 4 for i in range(6)], False)
    picked = follow(Tensor.float, follow(Tensor.__getitem__, flat, torch.tensor([5, 0, 5])))
    narrow = follow(nn.functional.linear, picked, torch.randn(2, 4))
    assert numbers(narrow) == ([[5, 5], [0, 0], [5, 5]], True)
    assert routed.of(follow(torch.cumsum, narrow, 0)) is None
    routed.forget()
    assert routed.of(flat) is None


def test_what_rows_at_experts_are() -> None:
    """Tokens 0 to 5 are two rows of three; here they are laid out sequence first, as three rows of two."""
    laid = torch.tensor([[0, 3], [1, 4], [2, 5]])[..., None]
    is_real, ids = torch.tensor([[True, False], [True, True], [False, True]]), torch.tensor([[7, 8], [9, 10], [11, 12]])
    found = at_experts(torch.tensor([3, 4, 2, 2]), laid, Tokens(is_real, ids))
    rows = [x.flatten().tolist() for x in (found.is_real_BS, found.ids_BS, found.position_BS) if x is not None]
    assert rows == [[False, True, False, False], [8, 10, 11, 11], [1, 1, 0, 0]]

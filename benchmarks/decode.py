"""Decoding one token after another with Hugging Face models, dense and exploited: tokens per second in one run.

    OMP_PROC_BIND=true OMP_PLACES="{0},{1}" python benchmarks/decode.py --out results/benchmarks/decode.json

Weights are random and a common bias sets how many neurons are active: this is about time, not about language. Every
token must be dense's.
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
from lazyneuron.record import Source, device_name


def opt(density: float) -> nn.Module:
    """6 layers, d_model 2048, d_ff 8192, 8,192 tokens, ReLU."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 2048, "word_embed_proj_dim": 2048, "ffn_dim": 8192, "vocab_size": 8192}
    config = hf.OPTConfig(**sizes, num_hidden_layers=6, num_attention_heads=16, max_position_embeddings=1024)
    model = hf.OPTForCausalLM(config).eval()
    quantile = torch.special.ndtri(torch.tensor(density, dtype=torch.float64)).item() if density < 1 else 40.0
    with torch.no_grad():
        for layer in model.model.decoder.layers:
            layer.fc1.weight.normal_(0, 2048**-0.5)
            layer.fc1.bias.fill_(quantile)
    return model


def decode(model: nn.Module, ids: torch.Tensor, num_tokens: int) -> tuple[list[int], list[float]]:
    """Greedy tokens after the prompt, and the milliseconds of each step."""
    found, times = [], []
    with torch.inference_mode():
        out: Any = model(input_ids=ids, use_cache=True)
        for _ in range(num_tokens):
            token = out.logits[:, -1:].argmax(-1)
            found.append(int(token[0, 0]))
            start = time.perf_counter()
            out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
            times.append(1000 * (time.perf_counter() - start))
    return found, times


def measure(density: float, num_tokens: int) -> dict[str, Any]:
    """Step times, dense first and last, exploited between; and what was read."""
    model = opt(density)
    ids = torch.randint(5, 8000, (1, 16))
    decode(model, ids, 4)
    tokens, dense = decode(model, ids, num_tokens)
    lazy.exploit(model, example_inputs={"input_ids": ids}, head=1, projections=True)
    decode(model, ids, 4)
    same, fast = decode(model, ids, num_tokens)
    assert same == tokens, f"tokens differ at {density}"
    read = lazy.exploited(model)
    ups, downs = [one.up for one in read.values()], [one.down for one in read.values()]
    active = sum(one.active for one in downs) / max(1, sum(one.num_tokens for one in downs)) / 8192
    candidates = sum(one.candidates for one in ups) / max(1, sum(one.num_tokens for one in ups)) / 8192
    added = sum(one.num_bytes for one in read.values())
    lazy.unexploit(model)
    _, last = decode(model, ids, num_tokens)
    kept = {"density": density, "active": active, "candidates": candidates, "added_bytes": added}
    size = sum(p.nbytes for p in model.parameters())
    return kept | {"model_bytes": size, "latency_ms": {"dense": dense, "exploited": fast, "dense, last": last}}


def main() -> None:
    """Run, print the table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = [measure(density, arguments.tokens) for density in (0.03, 0.05, 0.1, 0.3, 1.0)]
    table = Table(title="OPT, 6 layers, D 2048, F 8192, fp32, batch 1: milliseconds a token, medians (minima)")
    for column in (
        "density %",
        "active %",
        "candidates %",
        "dense",
        "exploited",
        "dense, last",
        "times as fast",
        "bytes +%",
    ):
        table.add_column(column, justify="right")
    for one in found:
        middle = {way: statistics.median(times) for way, times in one["latency_ms"].items()}
        best = {way: min(times) for way, times in one["latency_ms"].items()}
        shares = (f"{100 * one[name]:.1f}" for name in ("density", "active", "candidates"))
        times = (f"{middle[way]:.1f} ({best[way]:.1f})" for way in middle)
        base, least = min(middle["dense"], middle["dense, last"]), min(best["dense"], best["dense, last"])
        ratio = f"{base / middle['exploited']:.2f} ({least / best['exploited']:.2f})"
        table.add_row(*shares, *times, ratio, f"{100 * one['added_bytes'] / one['model_bytes']:.0f}")
    Console(width=130).print(table)
    if arguments.out:
        source = Source.here(device_name(torch.device("cpu")), torch.get_num_threads())
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({"source": dataclasses.asdict(source), "decode": found}) + "\n")


if __name__ == "__main__":
    main()

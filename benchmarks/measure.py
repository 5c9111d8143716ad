"""Overhead of `lazyneuron.watch`: the forward pass of ViT-B/16 and T5-Base, bare and watched, in one run.

    OMP_PROC_BIND=true OMP_PLACES="{0},{1}" python benchmarks/measure.py --out results/benchmarks/measure.json

Each round runs every variant once, with bare first and last; ratios are to the bare pass of the same round. The
benchmark stops if a variant changes an output bit or if the counts differ from those of the stored maps. With torchlens
installed (`pip install torchlens==2.36.1`) its leanest recorder counts the nonzeros of the same maps, in the same run.
"""

import argparse
import dataclasses
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import lazyneuron as lazy
from lazyneuron.paper.models import t5, vit
from lazyneuron.records.record import Source, device_name


def vit_b16(gelu: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    """ViT-B/16: 86 M parameters, 197 tokens per image, with ReLU as in the paper or the usual GELU."""
    model = vit("vit-b16", num_classes=1000, image_size=224, num_channels=3)
    if gelu:
        for layer in model.vit.layers:
            layer.mlp.activation_fn = nn.GELU()
    return model, {"pixel_values": torch.randn(8, 3, 224, 224)}


def t5_base() -> tuple[nn.Module, dict[str, Tensor]]:
    """T5-Base: 220 M parameters, 128 encoder tokens, 32 decoder tokens."""
    ids = torch.randint(3, 32000, (8, 128))
    return t5("base", vocab_size=32128), {"input_ids": ids, "decoder_input_ids": ids[:, :32]}


MODELS: dict[str, Callable[[], tuple[nn.Module, dict[str, Tensor]]]] = {
    "ViT-B/16 ReLU": lambda: vit_b16(gelu=False),
    "ViT-B/16 GELU": lambda: vit_b16(gelu=True),
    "T5-Base ReLU": t5_base,
}


class Naive(ExitStack):
    """The obvious hand-written hook: the mean of (h > 0), read immediately."""

    def __init__(self, model: nn.Module, sites: list[lazy.Site]) -> None:
        super().__init__()
        self.density: dict[str, float] = {}
        for site in sites:
            self.enter_context(_hooked(model, site, lambda h, name=site.name: self.see(name, h)))

    def see(self, name: str, h: Tensor) -> None:
        self.density[name] = (h > 0).float().mean().item()


class Stored(ExitStack):
    """Stores every activation map for later analysis."""

    def __init__(self, model: nn.Module, sites: list[lazy.Site]) -> None:
        super().__init__()
        self.maps: dict[str, Tensor] = {}
        for site in sites:
            self.enter_context(_hooked(model, site, lambda h, name=site.name: self.maps.update({name: h.clone()})))


class Torchlens:
    """torchlens' recorder, which keeps nothing but the number of nonzeros of each activation function's output."""

    def __init__(self) -> None:
        import torchlens

        self._record = torchlens.fastlog.record
        self.num_active: list[int] = []

    def __call__(self, model: nn.Module, inputs: dict[str, Tensor]) -> Any:
        options = {"activation_transform": torch.count_nonzero, "save_raw_activations": False, "return_output": True}
        output, found = self._record(model, [], inputs, save=lambda op: op.func_name in ("relu", "gelu"), **options)
        self.num_active = [int(record.transformed_ram_payload) for record in found]
        return output


def _hooked(model: nn.Module, site: lazy.Site, see: Callable[[Tensor], Any]) -> AbstractContextManager[Any]:
    down = model.get_submodule(site.down.removesuffix(".weight"))
    return down.register_forward_pre_hook(lambda module, args: see(args[0]))


def run(name: str, num_rounds: int) -> dict[str, Any]:
    """Milliseconds of each variant in each round, with bare repeated last, and ratios to bare of the same round."""
    torch.manual_seed(0)
    model, inputs = MODELS[name]()
    model.eval()
    sites = lazy.find_sites(model, inputs)
    ways: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "bare": nullcontext,
        "watch": lambda: lazy.watch(model, sites),
        "watch, all statistics": lambda: lazy.watch(model, sites, statistics="all"),
        "naive hook": lambda: Naive(model, sites),
        "store the maps": lambda: Stored(model, sites),
        **({"torchlens": lambda: nullcontext(Torchlens())} if importlib.util.find_spec("torchlens") else {}),
        "bare, last": nullcontext,
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    with torch.inference_mode():
        _check(model, inputs, sites, ways)
        for _ in range(num_rounds):
            for way, open_way in ways.items():
                with open_way() as opened:
                    start = time.perf_counter()
                    _call(opened, model, inputs)
                    times[way].append(1000 * (time.perf_counter() - start))
    ratios = {way: [a / b for a, b in zip(found, times["bare"], strict=True)] for way, found in times.items()}
    return {"model": name, "num_sites": len(sites), "latency_ms": times, "ratio": ratios}


def _call(opened: Any, model: nn.Module, inputs: dict[str, Tensor]) -> Any:
    return opened(model, inputs) if isinstance(opened, Torchlens) else model(**inputs)


def _check(model: nn.Module, inputs: dict[str, Tensor], sites: list[lazy.Site], ways: dict[str, Any]) -> None:
    """Check that no variant changes an output bit and that `watch` counts exactly what the stored maps hold."""
    expected = model(**inputs).logits
    with Stored(model, sites) as stored, lazy.watch(model, sites, statistics="all") as probe:
        model(**inputs)
    for site in sites:
        active = int((stored.maps[site.name] != 0).sum())
        assert probe.density[site.name] == active / stored.maps[site.name].numel(), site
        assert sum(n * i for i, n in enumerate(probe.histogram()[site.name].tolist())) == active, site
    for way, open_way in ways.items():
        with open_way() as opened:
            assert torch.equal(_call(opened, model, inputs).logits, expected), f"{way} changes the output"
        if isinstance(opened, Torchlens):
            assert opened.num_active == [int((stored.maps[site.name] != 0).sum()) for site in sites]


def _table(found: list[dict[str, Any]]) -> Table:
    table = Table(title="Forward pass, batch 8, ratio to bare of the same round")
    for column in ("model", "way", "min ms", "median ms", "ratio of minima", "median ratio"):
        table.add_column(column, justify="left" if column in ("model", "way") else "right")
    for one in found:
        bare = min(one["latency_ms"]["bare"] + one["latency_ms"]["bare, last"])
        for way, times in one["latency_ms"].items():
            ratios = f"{min(times) / bare:.3f}", f"{statistics.median(one['ratio'][way]):.3f}"
            table.add_row(one["model"], way, f"{min(times):.1f}", f"{statistics.median(times):.1f}", *ratios)
    return table


def main() -> None:
    """Run the benchmark, print its table and write the numbers to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--models", nargs="*", choices=[*MODELS], default=[*MODELS])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = [run(name, arguments.rounds) for name in arguments.models]
    Console(width=120).print(_table(found))
    if arguments.out:
        source = Source.here(device_name(torch.device("cpu")), torch.get_num_threads())
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({"source": dataclasses.asdict(source), "found": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()

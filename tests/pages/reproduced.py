"""A small but lifelike result folder of `lazyneuron reproduce`: every kind of experiment, without its hours."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record, Source, Verdict

STEPS = [0, *(2**power for power in range(12))]
STACKS = {"t5": {"encoder": 4, "decoder": 4}, "vit": {"": 6}, "mixer": {"": 8}}
CASES = [
    f"{loss} {kind} K={k}" for loss in ("ce", "mse") for kind in ("gaussian", "sign", "skewed") for k in (2, 10, 100)
]
SOURCE = Source(
    commit="0123456789ab", device="cpu x86_64", num_threads=2, versions={"python": "3.11.0", "torch": "2.8.0"}
)
NOISES = ("gaussian_noise", "shot_noise", "impulse_noise")
CORRUPTIONS = (*NOISES, "defocus_blur", "snow", "fog", "contrast", "pixelate")
# What trained: layers per stack (0: as the model has), d_ff, share kept, share of random labels.
TRAININGS: dict[str, tuple[int, int, float, float]] = {
    "t5": (0, 512, 1.0, 0.0), "t5-long": (0, 512, 1.0, 0.0), "t5-layers6": (6, 512, 1.0, 0.0),
    "t5-ff128": (0, 128, 1.0, 0.0), "t5-ff2048": (0, 2048, 1.0, 0.0), "t5-gelu": (0, 512, 1.0, 0.0),
    "t5-top4pct": (0, 512, 0.04, 0.0), "t5-top1pct": (0, 512, 0.01, 0.0), "t5-short": (0, 512, 1.0, 0.0),
    "vit": (0, 1024, 1.0, 0.0), "vit-top4pct": (0, 1024, 0.04, 0.0),
    "vit-labels40": (0, 1024, 1.0, 0.4), "vit-labels40-top4pct": (0, 1024, 0.04, 0.4),
    "vit-labels80": (0, 1024, 1.0, 0.8), "vit-labels80-top4pct": (0, 1024, 0.04, 0.8), "mixer": (0, 512, 1.0, 0.0),
    "t5-nomlp": (0, 512, 1.0, 0.0), "t5-quarter": (0, 128, 1.0, 0.0),
    "vit-nomlp": (0, 1024, 1.0, 0.0), "vit-quarter": (0, 256, 1.0, 0.0),
}  # fmt: skip
EXPERIMENTS: dict[str, tuple[str, str, str, list[str], list[str | float]]] = {
    "fig1": ("T5 grows sparse", "Figure 1", "model", ["t5"], ["T5"]),
    "fig2a": ("Sparse in every layer", "Figure 2a", "model", ["t5", "vit"], ["T5", "ViT"]),
    "fig2b": ("Training like evaluation", "Figure 2b", "model", ["t5", "vit"], ["T5", "ViT"]),
    "fig3": ("No neuron is dead", "Figure 3", "", ["firing"], []),
    "theorem31": ("The first step", "Theorem 3.1", "", ["theorem31"], []),
    "fig4a": ("Deeper is sparser", "Figure 4a", "layers per stack", ["t5", "t5-layers6"], [4.0, 6.0]),
    "fig4bc": ("Wider", "Figure 4b and 4c", "d_ff", ["t5-ff128", "t5", "t5-ff2048"], [128.0, 512.0, 2048.0]),
    "topk-accuracy": (
        "How few are enough", "Section 4", "neurons kept (% of d_ff)",
        ["t5", "t5-top4pct", "t5-top1pct", "vit", "vit-top4pct", "t5-short"], [100.0, 4.0, 1.0, 100.0, 4.0, "short"],
    ),
    "latency": ("Decoding gains", "Section 4", "", ["latency", "skipping"], []),
    "table1": (
        "More robust", "Table 1", "training",
        ["vit", "vit-top4pct", "vit-labels40", "vit-labels40-top4pct", "vit-labels80", "vit-labels80-top4pct",
         "vit-nomlp", "robustness"],
        ["ViT", "Top-k ViT", "ViT, 40 %", "Top-k ViT, 40 %", "ViT, 80 %", "Top-k ViT, 80 %", "ViT, no MLPs",
         "input noise"],
    ),
    "mixer": ("The Mixer too", "Appendix B", "model", ["mixer"], ["MLP-Mixer"]),
    "activation": ("ReLU costs little", "Section 2", "activation", ["t5", "t5-gelu"], ["T5, ReLU", "T5, GELU"]),
    "long-run": ("At length", "Beyond the paper", "model", ["t5-long"], ["T5, long"]),
    "controls": (
        "Are the MLPs used?", "Beyond the paper", "MLPs",
        ["vit", "vit-nomlp", "vit-quarter", "t5", "t5-nomlp", "t5-quarter"],
        ["ViT", "ViT without MLPs", "ViT, a quarter", "T5", "T5 without MLPs", "T5, a quarter"],
    ),
    "statistical-topk": ("About k", "Beyond the paper", "selection", ["vit", "statistical"], ["none", "maps"]),
    "corruptions": ("All corruptions", "Beyond Table 1", "", ["corruptions"], []),
}  # fmt: skip


def density(name: str, stack: str, layer: int, num_layers: int, step: int, split: str, seed: int) -> float:
    """Half at step 0, falling with the step; denser in the first and last layers and in the decoder."""
    _, d_ff, kept, _ = TRAININGS[name]
    if kept < 1:
        return kept
    edge = 1 + 1.5 * (layer in (0, num_layers - 1)) + 0.1 * layer + (0.4 if stack == "decoder" else 0)
    end = 0.02 * edge * (1.02 if split != "train" else 1) * (1 + 0.03 * seed) * (512 / d_ff) ** 0.3
    return end + (0.5 - end) / (1 + (step / 60) ** 1.2)


def training_config(name: str, seed: int) -> dict[str, Any]:
    """The config of a training's folder, as far as the page reads it."""
    num_layers, d_ff, kept, noise = TRAININGS[name]
    model = name.partition("-")[0]
    task: dict[str, Any] = {"size": "tiny", "num_layers": num_layers or None, "d_ff": d_ff}
    if model != "t5":
        task |= {"model": model, "random_labels": noise, "images": "digits"}
        task["mlps"] = "none" if name.endswith("-nomlp") else "dense"
    config = {"kind": "training", "seed": seed, "name": name, "task": task, "num_steps": STEPS[-1]}
    return config | ({"selection": {"kind": "topk", "density": kept}} if kept < 1 else {})


def training_records(name: str, seed: int) -> list[Record]:
    """Densities, loss and accuracy on both splits while training, and quality on all held-out data at the end."""
    num_layers, d_ff, kept, noise = TRAININGS[name]
    model = name.partition("-")[0]
    stacks = {stack: num_layers or count for stack, count in STACKS[model].items()}
    records = [Record(what="num_parameters", value=1_234_567, unit="parameters", recipe=name, seed=seed, source=SOURCE)]
    for step, split in [(step, split) for step in STEPS for split in ("train", "eval")] + [(STEPS[-1], "test")]:
        at = {"recipe": name, "seed": seed, "split": split, "step": step, "source": SOURCE}
        for stack, count in stacks.items():
            for layer in range(count if not name.endswith("-nomlp") else 0):
                value = density(name, stack, layer, count, step, split, seed)
                kind = ("token_mlp" if layer % 2 == 0 else "channel_mlp") if model == "mixer" else "mlp"
                place = {"site": f"{stack or model}.block.{layer}.{kind}", "stack": stack, "layer": layer}
                numbers = {"density": (value, "fraction"), "num_active": (value * d_ff, "neurons/token")}
                if split != "train":
                    idle = {"never_fired": 0.02 * layer, "input_share": 0.8, "mean_share": value / 2}
                    numbers |= {what: (number, "fraction") for what, number in idle.items()}
                    of_idle = {"what": "fires_below", "value": 0.3, "x": 0.01, "unit": "fraction"}
                    records.append(Record(num_tokens=8192, **of_idle, **place, **at))
                if kept < 1 and split != "test":
                    numbers |= {"natural_density": (0.2, "fraction"), "budget": (kept * d_ff, "neurons")}
                records += [
                    Record(what=what, value=v, unit=unit, num_tokens=8192, **place, **at)
                    for what, (v, unit) in numbers.items()
                ]
        loss = 2 + 5 / (1 + step / 300) + 0.1 * (split != "train") + 0.01 * seed + (0.02 / kept if kept < 1 else 0)
        loss += {"nomlp": 0.3, "quarter": 0.1}.get(name.partition("-")[2], 0)
        quality = 1 - loss / 8 - 0.5 * noise + 0.04 * noise * (kept < 1)
        records.append(Record(what="loss", value=loss, unit="nats", **at))
        records.append(Record(what="accuracy", value=quality, unit="fraction", num_tokens=1024, **at))
    if model == "t5":
        return records
    at = {"recipe": name, "seed": seed, "split": "test", "step": STEPS[-1], "source": SOURCE, "unit": "fraction"}
    records.append(Record(what="ece", value=0.08 - 0.01 * (kept < 1) + 0.001 * seed, num_tokens=2000, **at))
    for x in (0.2, 0.5, 0.8, 0.97):
        records.append(Record(what="reliability", value=x**1.3, x=x, num_tokens=int(1000 * x), **at))
    return records


def theory_records(seed: int) -> list[Record]:
    """The theorem's cases, and the first gradient in two real networks."""
    at = {"unit": "1", "recipe": "theorem31", "seed": seed, "source": SOURCE}
    records = []
    for number, case in enumerate(CASES):
        value = 3e-4 * 1.4**number
        records.append(Record(what="gradient", value=value, error=value / 45, case=case, **at))
        if "mse" in case or "gaussian" in case:
            records.append(Record(what="gradient_closed_form", value=value * 1.01, case=case, **at))
    for name in ("t5", "vit"):
        for stack, num_layers in STACKS[name].items():
            for layer in range(num_layers):
                value = 2e-6 * math.exp(-layer / 3)
                place = {"case": name, "stack": stack, "layer": layer}
                records.append(Record(what="gradient_step0", value=value, error=value / 6, **place, **at))
    return records


def study_records(kind: str, seed: int) -> Iterator[Record]:
    """What a study writes."""
    at: dict[str, Any] = {"recipe": kind, "seed": seed, "source": SOURCE, "unit": "1"}
    if kind == "firing":
        for stack, layer in [(stack, layer) for stack, n in STACKS["t5"].items() for layer in range(n)]:
            here = at | {"stack": stack, "layer": layer, "site": f"{stack}.{layer}", "num_tokens": 400_000}
            numbers = {
                "density": 0.03,
                "num_active": 15.36,
                "never_fired": float(layer == 3),
                "least_firing_rate": 1e-5,
            }
            yield from (Record(what=what, value=value, **here) for what, value in numbers.items())
            for n in range(17):
                rate = 0.0 if layer == 3 and n == 16 else 0.5 * 0.6**n
                yield Record(what="firing_rate", value=rate, x=n / 16, **here)
            for x, share in ((0.001, 0.01), (0.01, 0.05), (0.1, 0.94), (0.5, 0.99)):
                yield Record(what="fires_below", value=share, x=x, **here)
    elif kind in ("robustness", "corruptions"):
        named = NOISES if kind == "robustness" else CORRUPTIONS
        for run, gain in (("vit", 0.0), ("vit-top4pct", 0.02)):
            for name in ("clean", *named):
                for severity in range(1, 6) if name != "clean" else (0,):
                    value = 0.8 - 0.08 * severity + gain * (severity > 0) + 0.002 * seed
                    here = at | {"case": f"{run} {name}", "x": float(severity), "split": "test"}
                    yield Record(what="accuracy", value=value, **here)
                    yield Record(what="ece", value=0.05 + 0.02 * severity, **here)
            for name in named:
                yield Record(what="corruption_error", value=1 - 2 * gain, **(at | {"case": f"{run} {name}"}))
            yield Record(what="mce", value=1 - 2 * gain, **(at | {"case": run}))
    elif kind == "statistical":
        for width in (1024, 4096):
            yield Record(what="statistical_ms", value=width / 2000, x=float(width), **at)
            yield Record(what="topk_ms", value=width / 900, x=float(width), **at)
        for x in (0.08, 0.04):
            places = [("gaussian", "", None), *(("vit", "", layer) for layer in range(6))]
            for case, stack, layer in places:
                here = at | {"case": case, "stack": stack, "layer": layer, "x": x}
                for what, value in (("kept_ratio", 1.1), ("kept_deviation", 0.05), ("kept_overlap", 0.7)):
                    yield Record(what=what, value=value + 0.01 * seed, **here)
    elif kind == "skipping":
        for run, layer in (("t5", 0), ("t5", 1), ("vit", 0)):
            for what, value in (("skip_error", 1.2), ("skip_flops_share", 0.03), ("density", 0.03)):
                yield Record(what=what, value=value + 0.1 * layer, **(at | {"case": run, "layer": layer}))
    elif kind == "latency":
        for number, (size, dense) in [(n, pair) for n in range(3) for pair in (("small", 20.0), ("base", 60.0))]:
            here = at | {"step": number}
            for k in (32.0, 128.0, 2048.0):
                fast, slower = dense * (0.7 + k / 10_000), 1.0 + 0.1 * number
                for way, value in (("dense", dense), ("top-k", 1.1 * dense), ("exploited", fast)):
                    yield Record(what="latency_ms", value=(value + seed) * slower, case=f"{size} {way}", x=k, **here)
                yield Record(what="speedup", value=dense / fast + 0.01 * number, case=size, x=k, **here)
                yield Record(what="speedup_threads", value=0.9 * dense / fast, case=size, x=k, **here)
            yield Record(what="latency_ms", value=0.9 * dense + seed, case=f"{size} threads", x=2048.0, **here)
            yield Record(what="threads_gain", value=1 / 0.9, case=size, x=2048.0, **here)


def write_member(path: Path, name: str, seed: int) -> None:
    """Write the folder of one run and seed below `path`."""
    if name in TRAININGS:
        config, records = training_config(name, seed), training_records(name, seed)
    elif name == "theorem31":
        config, records = {"kind": "theory", "name": name, "seed": seed, "num_draws": 1000}, theory_records(seed)
    else:
        kind = "robustness" if name == "corruptions" else name
        config, records = {"kind": kind, "name": name, "seed": seed}, list(study_records(name, seed))
        config |= {"of": ["t5"]} if kind == "firing" else {}
        if kind == "robustness":
            config["constants"] = "CIFAR-10-C" if name == "corruptions" else "ImageNet-C"
    RunFolder(path / f"{name}-seed{seed}", config).append(records)


def verdict(claim: str, text: str, recipe: str, on: str, values: Sequence[float], said: str) -> Verdict:
    """A verdict on the values of the seeds 0, 1, ..."""
    seen = bool(values)
    return Verdict(
        claim=claim, text=text, where="Fig. 1, Sec. 2.2", metric="mean density over layers",
        expected="between 0.45 and 0.55", reported="about 0.5", recipe=recipe, on=on, verdict=said,
        value=sum(values) / len(values) if values else None, seeds=list(range(len(values))), values=list(values),
        low=min(values) if len(values) > 1 else None, high=max(values) if len(values) > 1 else None,
        reason="the metric is inside its bounds" if seen else "no such record: the run was too short",
    )  # fmt: skip


def write_folder(path: Path, names: Sequence[str] = (), seeds: Sequence[int] = (0,)) -> Path:
    """Write a result folder at `path`, as `lazyneuron reproduce` does, of all experiments or those of these names."""
    command = "lazyneuron reproduce --scale small"
    top = RunFolder(path, {"kind": "reproduce", "scale": "small", "command": command})
    recipes = []
    for name in names or EXPERIMENTS:
        title, figure, axis, runs, settings = EXPERIMENTS[name]
        kept = {"name": name, "title": title, "figure": figure, "expected": f"what is known of {name}", "runs": runs}
        recipes.append(kept | {"setting": axis, "settings": settings})
    for name in dict.fromkeys(run for recipe in recipes for run in recipe["runs"]):
        for seed in seeds:
            write_member(path, name, seed)
    half = "At initialisation about half of the neurons of every layer are active."
    first = recipes[0]["name"]
    values = [0.4987 + 0.001 * seed for seed in range(len(seeds))]
    verdicts = [verdict("init-half", half, first, run, values, "holds") for run in ("t5", "vit", "mixer")]
    wider = [0.61] * len(seeds)
    verdicts.append(verdict("wider", "Wider models have a lower density.", first, "t5", wider, "does not hold"))
    verdicts.append(verdict("dead", "No neuron of the first layer is dead.", first, "t5", [], "cannot tell"))
    top.write_verdicts(verdicts)
    top.write_recipes(recipes)
    return path

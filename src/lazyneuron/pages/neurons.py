"""The neuron browser: one self-contained page that shows which tokens wake each neuron of a measured model."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from safetensors.numpy import load_file

from lazyneuron.records.folder import RunFolder

HERE = Path(__file__).parent
MAX_TOKENS = 4_000_000
"""Token ids that a page holds at most: about 6 MB."""


def has_examples(folder: RunFolder) -> bool:
    """Whether the folder holds top examples, as `lazyneuron measure --examples` writes them."""
    return (folder.path / "examples.safetensors").is_file()


def write_neurons(folder: RunFolder, title: str, out: Path) -> Path:
    """Write the neuron browser of a folder that `has_examples` to `out`; return `out`."""
    data = _data(folder)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    packed = base64.b64encode(gzip.compress(text.encode(), mtime=0))
    env = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined)
    css = (HERE / "page.css").read_text(encoding="utf-8")
    page = env.get_template("neurons.html").render(title=title, css=css, packed=packed.decode(), sites=data["sites"])
    out.write_text(page, encoding="utf-8")
    return out


def _data(folder: RunFolder) -> dict[str, Any]:
    """What the page's script reads: the texts, and each site's neurons with their rates, histograms and examples."""
    found, counts = (load_file(folder.path / f"{what}.safetensors") for what in ("examples", "counts"))
    texts: dict[str, str] = json.loads((folder.path / "vocabulary.json").read_text(encoding="utf-8"))
    place = {int(token): i for i, token in enumerate(texts)}
    names = [site["name"] for site in folder.config["sites"] if f"{site['name']}/values" in found]
    _, n, width = found[f"{names[0]}/windows"].shape if names else (0, 1, 1)
    most = max(1, MAX_TOKENS // max(1, len(names) * n * width))
    pictures = folder.path / "images.json"
    images = json.loads(pictures.read_text(encoding="utf-8")) if pictures.is_file() else None
    sites = [_site(name, found, counts[name], place, most) for name in names]
    return {"texts": [*texts.values()], "images": images, "sites": sites}


def _site(name: str, found: dict[str, Any], counts_F: Any, place: dict[int, int], most: int) -> dict[str, Any]:
    """A site's neurons; where there are more than `most`, evenly spaced by firing rate, the most active first."""
    values, windows, histogram = (found[f"{name}/{what}"] for what in ("values", "windows", "histogram"))
    sequences, positions = (found[f"{name}/{what}"] for what in ("sequences", "positions"))
    tokens = max(1, int(counts_F[-2]))
    rates = counts_F[:-2] / tokens
    order = np.argsort(-rates, kind="stable")
    if len(order) > most:
        order = order[np.linspace(0, len(order) - 1, most).round().astype(int)]
    neurons = []
    for f in sorted(order.tolist()):
        examples = [
            [
                float(f"{values[f, i]:.4g}"),
                int(sequences[f, i]),
                int(positions[f, i]),
                [place.get(int(token), -1) for token in windows[f, i]] if (windows[f, i] >= 0).any() else [],
            ]
            for i in range(len(values[f]))
            if values[f, i] > 0
        ]
        neurons.append([f, float(f"{rates[f]:.4g}"), histogram[f].tolist(), examples])
    return {"name": name or "(model)", "d_ff": len(rates), "tokens": tokens, "neurons": neurons}

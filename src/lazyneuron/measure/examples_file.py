"""What `top_examples` kept, as files of a result folder: tensors, the text of token ids, and the images of patches."""

import base64
import io
import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lazyneuron.measure.examples import NO_TOKEN, TopExamples

EXAMPLES, VOCABULARY, IMAGES = "examples.safetensors", "vocabulary.json", "images.json"
MAX_IMAGES, _MAX_PIXELS = 200, 96


def write_examples(examples: TopExamples, tokenizer: Any, folder: Path) -> None:
    """Write `examples.safetensors`, tensors named "site/values" and so on, and `vocabulary.json`, {token id: text}."""
    from safetensors.torch import save

    state = {name: x.cpu().contiguous() for name, x in examples.state().items() if not name.endswith("/num_sequences")}
    seen = {int(i) for name, x in state.items() if name.endswith("/windows") for i in x.unique()} - {NO_TOKEN}
    texts = {i: token_text(tokenizer, i) for i in sorted(seen)}
    (folder / VOCABULARY).write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    (folder / EXAMPLES).write_bytes(save(state))


def write_images(
    examples: TopExamples, images: Iterable[Tensor], num_patches: int, num_before: int, folder: Path
) -> None:
    """Write `images.json`: small pictures of the 200 images that most examples are from, as data URIs by number.

    `images` are the pixels of all images, [C, H, W] each, in the order in which the model saw them. `num_patches`
    tokens of each are its patches, in rows, behind `num_before` others (a class token): "side" is the number in a row,
    0 if they form no square.
    """
    votes: Counter[int] = Counter()
    for site in examples.sites:
        votes.update(examples[site.name].sequences.flatten().tolist())
    del votes[NO_TOKEN]
    chosen = {number for number, _ in votes.most_common(MAX_IMAGES)}
    found = {}
    for number, pixels in enumerate(images):
        if len(found) == len(chosen):
            break
        if number in chosen:
            found[number] = _data_uri(pixels)
    side = math.isqrt(num_patches)
    shown = {"side": side if side**2 == num_patches else 0, "num_before": num_before, "images": found}
    (folder / IMAGES).write_text(json.dumps(shown), encoding="utf-8")


def _data_uri(pixels_CHW: Tensor) -> str:
    """A PNG of at most 96 pixels a side, from the darkest to the brightest value."""
    from PIL import Image

    x = pixels_CHW.detach().float().cpu()
    x = (x - x.min()) / (x.max() - x.min()).clamp(min=1e-6)
    array = (255 * (x if len(x) in (1, 3) else x[:1])).round().to(torch.uint8).permute(1, 2, 0).squeeze(-1).numpy()
    image = Image.fromarray(array)
    image.thumbnail((_MAX_PIXELS, _MAX_PIXELS))
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def token_text(tokenizer: Any, token: int) -> str:
    """A token as text, with the space or line break that it begins with; its number in brackets without a tokenizer.

    In a WordPiece vocabulary, where pieces that go on in a word begin with ##, all others but special tokens begin with
    a space.
    """
    if tokenizer is None or (raw := tokenizer.convert_ids_to_tokens(token)) is None:
        return f"[{token}]"
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if type(model).__name__ == "WordPiece":
        return raw if token in tokenizer.all_special_ids else raw.removeprefix("##") if raw[:2] == "##" else f" {raw}"
    text = tokenizer.convert_tokens_to_string([raw])
    if "\ufffd" in text or not text:  # part of a character, or nothing by itself
        return raw
    return f" {text}" if raw.startswith("\u2581") and not text.startswith(" ") else text

"""What `top_examples` kept, as files of a result folder: tensors, and the text of the token ids in them."""

import json
from pathlib import Path
from typing import Any

from lazyneuron.measure.examples import NO_TOKEN, TopExamples

EXAMPLES, VOCABULARY = "examples.safetensors", "vocabulary.json"


def write_examples(examples: TopExamples, tokenizer: Any, folder: Path) -> None:
    """Write `examples.safetensors`, tensors named "site/values" and so on, and `vocabulary.json`, {token id: text}."""
    from safetensors.torch import save

    state = {name: x.cpu().contiguous() for name, x in examples.state().items() if not name.endswith("/num_sequences")}
    seen = {int(i) for name, x in state.items() if name.endswith("/windows") for i in x.unique()} - {NO_TOKEN}
    texts = {i: token_text(tokenizer, i) for i in sorted(seen)}
    (folder / VOCABULARY).write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    (folder / EXAMPLES).write_bytes(save(state))


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

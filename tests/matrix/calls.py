"""The ways to call a batch of sequences, each with the sequences that it shows the model.

Sequences are of lengths 5, 2, 4, 1 and 3: five of at most five tokens, so that no mask can be told from its transpose
by its shape.
"""

import inspect
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

from tests.matrix.families import Encoder

LENGTHS, TARGETS, ENDS = (5, 2, 4, 1, 3), (3, 4, 1, 2, 4), (2, 5, 1, 3, 5)
PAD, EOS, NEW = 0, 2, 5
Sequences = list[Tensor]
Single = dict[str, Tensor]


def _ids(lengths: tuple[int, ...], seed: int) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(5, 60, (n,), generator=generator) for n in lengths]


SOURCES, OUTPUTS, CONTINUED = _ids(LENGTHS, 0), _ids(TARGETS, 1), _ids((NEW,) * 5, 2)


def padded(rows: Sequences, is_left: bool = False, value: int = PAD) -> tuple[Tensor, Tensor]:
    """The rows as one batch, and its attention mask."""
    width = max(map(len, rows))
    batch = torch.full((len(rows), width), value)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if is_left else slice(0, len(row))
        batch[i, place], mask[i, place] = row, 1
    return batch, mask


def positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)


def has(model: nn.Module, name: str) -> bool:
    return name in inspect.signature(model.forward).parameters


def masked(model: nn.Module, mask: Tensor) -> dict[str, Tensor]:
    """The mask as this model takes it, with positions if it takes them too."""
    if isinstance(model, Encoder):
        return {"src_key_padding_mask": mask == 0}
    return {"attention_mask": mask} | ({"position_ids": positions(mask)} if has(model, "position_ids") else {})


def in_four_dimensions(model: nn.Module, mask: Tensor) -> Tensor:
    """Which key each query sees, additive [B, 1, S, S]."""
    sees = mask[:, None, None, :].bool().expand(-1, 1, mask.shape[1], -1)
    if hasattr(model, "generate") and model.can_generate():
        sees = sees & torch.ones(mask.shape[1], mask.shape[1], dtype=torch.bool).tril()
    return torch.zeros(sees.shape, dtype=torch.float64).masked_fill(~sees, torch.finfo(torch.float64).min)


def scripted(continued: Sequences) -> Any:
    """A logits processor that makes `generate` write these tokens, row by row."""
    rows, width = padded(continued)[0], len(continued)

    class Script(hf.LogitsProcessor):
        steps = 0

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
            forced = torch.full_like(scores, -torch.inf)
            forced[torch.arange(width), rows[:, self.steps]] = 0
            self.steps += 1
            return forced

    return Script()


def finished() -> tuple[Sequences, Sequences]:
    """What `generate` is to write (rows end after 2, 5, 1, 3 and 5 tokens), and what of it the model sees."""
    written = [torch.cat([row[: n - 1], torch.tensor([EOS])]) for row, n in zip(CONTINUED, ENDS, strict=True)]
    return written, [row[: NEW - 1] for row in written]


def decode(model: Any, call: str) -> list[Single]:
    """Make the call of a decoder or an encoder; the sequences that it shows the model, one by one."""
    ids, mask = padded(SOURCES)
    if call == "right pad":
        model(ids, **masked(model, mask))
    elif call == "left pad":
        ids, mask = padded(SOURCES, is_left=True)
        model(ids, **masked(model, mask))
    elif call == "packed":
        places = torch.cat([torch.arange(n) for n in LENGTHS])[None]
        model(
            torch.cat(SOURCES)[None], position_ids=places, use_cache=False
        )  # without a cache documents are told apart
    elif call == "cache":
        ids, mask = padded(SOURCES, is_left=True)
        cache = None
        for start, stop in ((0, 3), (3, 4), (4, 5)):
            given = masked(model, mask[:, :stop])
            if "position_ids" in given:
                given["position_ids"] = given["position_ids"][:, start:]
            cache = model(ids[:, start:stop], **given, past_key_values=cache, use_cache=True).past_key_values
    elif call == "generate":
        ids, mask = padded(SOURCES, is_left=True)
        written, seen = finished()
        options = {"max_new_tokens": NEW, "eos_token_id": EOS, "pad_token_id": PAD, "do_sample": False}
        out = model.generate(ids, attention_mask=mask, logits_processor=[scripted(written)], **options)
        assert torch.equal(out[:, ids.shape[1] :], padded(written)[0])
        return [{"input_ids": torch.cat([a, b])[None]} for a, b in zip(SOURCES, seen, strict=True)]
    elif call == "labels":  # the prompt's first token is not to be learned: it is a token all the same
        labels = ids.masked_fill(mask == 0, -100)
        labels[:, 0] = -100
        model(ids, **masked(model, mask), labels=labels)
    elif call == "4-D":
        model(ids, **masked(model, mask) | {"attention_mask": in_four_dimensions(model, mask)})
    else:
        one = in_four_dimensions(model, mask)
        model(ids, **masked(model, mask) | {"attention_mask": {"full_attention": one, "sliding_attention": one}})
    return [{"input_ids": row[None]} for row in SOURCES]


def translate(model: Any, call: str) -> list[Single]:
    """The same for an encoder and a decoder."""
    ids, mask = padded(SOURCES, is_left=call == "left pad")
    source, outputs = {"input_ids": ids, "attention_mask": mask}, OUTPUTS
    start = torch.tensor([model.config.decoder_start_token_id])
    if call in ("right pad", "left pad"):
        targets, mask = padded(outputs)
        model(**source, decoder_input_ids=targets, decoder_attention_mask=mask)
    elif call == "cache":
        outputs = _ids((4,) * 5, 3)
        targets = torch.stack(outputs)
        first = model(**source, decoder_input_ids=targets[:, :2], use_cache=True)
        kept: dict[str, Any] = {
            "encoder_outputs": (first.encoder_last_hidden_state,),
            "attention_mask": source["attention_mask"],
        }
        cache = first.past_key_values
        for i in (2, 3):
            cache = model(**kept, decoder_input_ids=targets[:, i : i + 1], past_key_values=cache).past_key_values
    elif call == "generate":
        written, seen = finished()
        options = {"max_new_tokens": NEW, "eos_token_id": EOS, "pad_token_id": PAD, "do_sample": False, "num_beams": 1}
        options |= {"forced_eos_token_id": None}
        out = model.generate(**source, logits_processor=[scripted(written)], **options)
        assert torch.equal(out[:, 1:], padded(written)[0])
        outputs = [torch.cat([start, row]) for row in seen]
    else:
        model(**source, labels=padded(outputs, value=-100)[0])
        outputs = [torch.cat([start, row[:-1]]) for row in outputs]
    return [{"input_ids": a[None], "decoder_input_ids": b[None]} for a, b in zip(SOURCES, outputs, strict=True)]

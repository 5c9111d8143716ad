"""Train a small ReLU decoder (OPT) on text, as a model with real activation maps: 40 minutes on one core.

    python benchmarks/train_decoder.py --out runs/decoder
    lazyneuron advise runs/decoder/model
    lazyneuron exploit runs/decoder/model --prompt "The function returns" --tokens 256

4 layers, d_model 256, d_ff 2048, a 4,096-token tokenizer trained on the same text, windows of 128 tokens, AdamW. A
checkpoint is written every 250 steps; the same command resumes from it. The text is the prose that ships with Python,
or the source named by `--text`.
"""

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import lazyneuron as lazy
from lazyneuron.data.text import HELD_OUT_EVERY, documents

LENGTH, BATCH, WARMUP, RATE = 128, 4, 200, 2e-3


def tokenizer_of(texts: list[str]) -> hf.PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<pad>", "<end>"]
    trainer = trainers.BpeTrainer(
        vocab_size=4096, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")


def stream(tokenizer: hf.PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """The token ids of all texts concatenated, each text followed by the end token."""
    ids = tokenizer(texts).input_ids
    return torch.tensor([*itertools.chain.from_iterable([*one, tokenizer.eos_token_id] for one in ids)])


def decoder(vocab_size: int) -> hf.OPTForCausalLM:
    """A randomly initialised OPT model, seed 0."""
    config = hf.OPTConfig(
        vocab_size=vocab_size,
        hidden_size=256,
        word_embed_proj_dim=256,
        ffn_dim=2048,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=1024,
        dropout=0.0,
        attention_dropout=0.0,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    return hf.OPTForCausalLM(config)


def windows(ids: torch.Tensor, number: int, key: tuple[int, ...]) -> torch.Tensor:
    """`number` windows [number, LENGTH] at random positions that depend only on `key`."""
    starts = np.random.default_rng(key).integers(0, len(ids) - LENGTH, number)
    return torch.stack([ids[start : start + LENGTH] for start in starts])


def main() -> None:
    """Train, resuming from a checkpoint if there is one, and save the model and its tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", default="python", help="file, folder of *.txt, hf:NAME[/CONFIG], python")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--out", type=Path, default=Path("runs/decoder"))
    arguments = parser.parse_args()
    texts = list(documents(arguments.text, 100_000_000))
    held_out = texts[HELD_OUT_EVERY // 2 :: HELD_OUT_EVERY]
    texts = [text for number, text in enumerate(texts) if number % HELD_OUT_EVERY != HELD_OUT_EVERY // 2]
    tokenizer = tokenizer_of(texts)
    train, evaluation = stream(tokenizer, texts), windows(stream(tokenizer, held_out), 64, (1,))
    print(f"{len(train):,} tokens to train on", flush=True)
    model = decoder(len(tokenizer))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    kept, first = arguments.out / "checkpoint.pt", 0
    if kept.exists():
        state = torch.load(kept, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    began = time.monotonic()
    for step in range(first, arguments.steps + 1):
        if step % 250 == 0 or step == arguments.steps:
            model.eval()
            with torch.no_grad(), lazy.watch(model) as probe:
                loss = float(model(input_ids=evaluation, labels=evaluation).loss)
            model.train()
            density = " ".join(f"{value:.3f}" for value in probe.density.values())
            seconds = time.monotonic() - began
            print(f"step {step}: held-out loss {loss:.3f}, density {density} ({seconds:.0f} s)", flush=True)
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(state, kept.with_suffix(".tmp"))
            kept.with_suffix(".tmp").replace(kept)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / WARMUP) * max(0.0, 1 - step / arguments.steps)
        ids = windows(train, BATCH, (0, step))
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(arguments.out / "model")
    tokenizer.save_pretrained(arguments.out / "model")
    print(f"saved to {arguments.out / 'model'}", flush=True)


if __name__ == "__main__":
    main()

"""T5 v1.0: encoder-decoder with ReLU MLPs without biases, tied embeddings (arXiv 1910.10683)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


@dataclass(frozen=True)
class T5Size:
    """Layers per stack and widths; the attention has `num_heads` heads of `d_kv`."""

    num_layers: int
    d_model: int
    d_ff: int
    num_heads: int
    d_kv: int


T5_SIZES = {
    "micro": T5Size(2, 32, 256, 2, 16),
    "tiny": T5Size(3, 64, 512, 4, 16),
    "mini": T5Size(4, 96, 768, 6, 16),
    "small": T5Size(6, 512, 2048, 8, 64),
    "base": T5Size(12, 768, 3072, 12, 64),
    "large": T5Size(24, 1024, 4096, 16, 64),
    "3b": T5Size(24, 1024, 16384, 32, 128),
    "11b": T5Size(24, 1024, 65536, 128, 128),
}


def t5(
    size: str = "base",
    *,
    vocab_size: int = 32128,
    num_layers: int | None = None,
    d_ff: int | None = None,
    dropout: float = 0.0,
    hidden_act: str = "relu",
) -> "T5ForConditionalGeneration":
    """A randomly initialised T5 v1.0 of a named size ("micro", "tiny" and "mini" are ours, the others the paper's).

    `num_layers` (per stack) and `d_ff` replace the named size's, `hidden_act` its ReLU. Initialisation is Hugging
    Face's, which follows the original: embeddings N(0, 1), each MLP weight N(0, 1 / fan-in). Token ids: pad 0, end 1;
    decoding starts from pad.
    """
    from transformers import T5Config, T5ForConditionalGeneration

    if size not in T5_SIZES:
        raise ValueError(f"no T5 size {size!r}: choose one of {', '.join(T5_SIZES)}")
    shape = T5_SIZES[size]
    config = T5Config(
        vocab_size=vocab_size,
        d_model=shape.d_model,
        d_kv=shape.d_kv,
        d_ff=d_ff or shape.d_ff,
        num_layers=num_layers or shape.num_layers,
        num_heads=shape.num_heads,
        feed_forward_proj=hidden_act,
        dropout_rate=dropout,
        pad_token_id=0,
        eos_token_id=1,
        use_cache=False,
    )
    config.decoder_start_token_id = 0
    return T5ForConditionalGeneration(config)

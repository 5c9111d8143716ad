"""Small models to enforce selections on, and what their maps are without any hook of ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from rich.console import Console
from torch import Tensor, nn

from lazyneuron.cli.enforce import Enforce
from lazyneuron.load.checkpoint import quiet
from tests.load import conftest as families

TEXT = "\n\n".join(f"Paragraph number {i} says that {i} plus {i} makes {2 * i}." for i in range(60))
SMALL = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = SMALL | {"num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
MOE = LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2}
T5 = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 2, "pad_token_id": 0}
T5 |= {"decoder_start_token_id": 0, "eos_token_id": 1}
PAIR = {"vocab_size": 50, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32}
PAIR |= {"decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
BUILDERS: dict[str, Callable[[], Any]] = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA)),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2)
    ),
    "opt": lambda: hf.OPTForCausalLM(hf.OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=16)),
    "bert": lambda: hf.BertForMaskedLM(hf.BertConfig(**SMALL)),
    "t5": lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5)),
    "pegasus": lambda: hf.PegasusForConditionalGeneration(
        hf.PegasusConfig(**PAIR, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, forced_eos_token_id=1)
    ),
    "albert": lambda: hf.AlbertModel(hf.AlbertConfig(**SMALL, embedding_size=8)),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**MOE)),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**LLAMA)),
}


class MLP(nn.Module):
    """A residual MLP whose map, as it enters the down projection, can be read."""

    def __init__(self, dropout: float = 0.0, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.up, self.act, self.drop, self.down = nn.Linear(8, 12), activation(), nn.Dropout(dropout), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.drop(self.act(self.up(x))))


class Stack(nn.Sequential):
    """Two of them."""

    def __init__(self, dropout: float = 0.0, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__(MLP(dropout, activation), MLP(dropout, activation))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def build() -> Callable[[str], Any]:
    """`build(family)` is that model, in eval mode, the same each time."""

    def made(family: str) -> Any:
        torch.manual_seed(0)
        return BUILDERS[family]().eval()

    return made


@pytest.fixture
def stack() -> Callable[..., Any]:
    """`stack(dropout)` is two MLPs, in eval mode, the same each time."""

    def made(dropout: float = 0.0, activation: type[nn.Module] = nn.ReLU) -> Any:
        torch.manual_seed(0)
        return Stack(dropout, activation).eval()

    return made


@pytest.fixture
def x() -> Tensor:
    return random(3, 5, 8)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`checkpoints(family)` is the folder of that tiny model and its tokenizer; "text.txt" lies beside it."""
    root = tmp_path_factory.mktemp("checkpoints")
    (root / "text.txt").write_text(TEXT)

    def made(family: str) -> Path:
        folder = root / family
        if not folder.exists():
            with quiet():
                families.build(family).save_pretrained(folder)
            tokenizer = families.byte_tokenizer(*families.FAMILIES[family][2], num_sentinels=30 * (family == "t5"))
            tokenizer.save_pretrained(folder)
        return folder

    return made


@pytest.fixture
def options(checkpoints: Callable[[str], Path], tmp_path: Path) -> Callable[..., Enforce]:
    """`options(family, ...)` asks for a quick conversion of it."""

    def made(family: str = "llama", out: str = "out", **chosen: Any) -> Enforce:
        folder = checkpoints(family)
        quick: dict[str, Any] = {"density": 4 / 32, "sweep": "1.0,0.5", "tokens": 90, "batch": 2, "length": 24}
        text = str(folder.parent / "text.txt")
        return Enforce(model=str(folder), **{"text": text, **quick, **chosen}, out=tmp_path / out)

    return made


@pytest.fixture
def console() -> Console:
    return Console(quiet=True)

"""Two processes train an enforced model as one does, under DDP and FSDP2, with modules of experts sharded too."""

import socket
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import barrier, destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel

from lazyneuron.enforce.enforce import enforce, enforced, release
from lazyneuron.enforce.selection import TopK
from lazyneuron.enforce.verify import verify
from tests.processes import run_on_ranks

WORLD = 2


def build() -> Any:
    import transformers as hf

    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}
    torch.manual_seed(0)
    model = hf.MixtralForCausalLM(hf.MixtralConfig(**sizes, pad_token_id=0, bos_token_id=1, eos_token_id=2)).train()
    for layer in model.model.layers:  # besides the experts, an MLP that modules hold, with a dropout
        layer.mlp = Both(layer.mlp)
    return model


class Both(nn.Module):
    def __init__(self, experts: nn.Module) -> None:
        super().__init__()
        self.moe, self.up, self.drop, self.down = experts, nn.Linear(16, 24), nn.Dropout(0.0), nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.moe(x) + self.down(self.drop(self.up(x).relu()))


def wrapped(kind: str) -> nn.Module:
    model: Any = build()
    if kind == "ddp":
        return DistributedDataParallel(model)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (WORLD,))
    for layer in model.model.layers:
        fully_shard(layer.mlp.moe.experts, mesh=mesh)
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def ids(step: int) -> Tensor:
    return torch.randint(3, 50, (4, 5), generator=torch.Generator().manual_seed(step))


def train(model: Any, rank: int, world: int) -> list[Tensor]:
    """The logits of this rank's rows in two steps of SGD under selection, and in one without afterwards."""
    optimizer, seen = torch.optim.SGD(model.parameters(), lr=0.1), []
    enforce(model, TopK(k=3), example_inputs={"input_ids": ids(9)})
    assert len(enforced(model)) == 4
    for step in range(3):
        if step == 2:
            release(model)
        if step == 1:  # not between backward and step, where FSDP2's root would keep what it gathered
            checked = verify(model, {"input_ids": ids(step)[rank::world]})
            assert [n for site, n in checked.items() if "experts" not in site] == [20 // world] * 2
        logits = model(input_ids=ids(step)[rank::world]).logits
        optimizer.zero_grad()
        logits.square().mean().backward()
        optimizer.step()
        seen.append(logits.detach())
    return seen


def work(rank: int, kind: str, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    torch.save(train(wrapped(kind), rank, WORLD), f"{folder}/{rank}.pt")
    barrier()
    destroy_process_group()


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
@pytest.mark.filterwarnings("ignore")  # of torch's own, in the children and about them
def test_two_ranks_train_as_one_process_does(kind, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run_on_ranks(work, kind, port, str(tmp_path))
    expected = train(build(), 0, 1)
    for rank in range(WORLD):
        for step, logits in enumerate(torch.load(tmp_path / f"{rank}.pt")):
            torch.testing.assert_close(logits, expected[step][rank::WORLD], atol=1e-5, rtol=1e-4)

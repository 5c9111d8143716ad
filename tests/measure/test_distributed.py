"""Two processes count what one does, under DDP and FSDP2, with sites found inside either and an uneven last batch."""

import socket
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import barrier, destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel

from lazyneuron.measure import Probe, watch
from lazyneuron.paper.models import vit
from tests.processes import run_on_ranks

WORLD = 2


def build() -> nn.Module:
    torch.manual_seed(0)
    return vit("vit-tiny", num_classes=4, image_size=8, num_channels=1, num_layers=2, d_ff=48, patch_size=4)


def wrapped(kind: str) -> nn.Module:
    model: Any = build()
    if kind == "ddp":
        return DistributedDataParallel(model)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (WORLD,))
    for layer in model.vit.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def images(step: int) -> Tensor:
    return torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(step))


def train(model: nn.Module, rank: int, world: int, watching: bool = True) -> tuple[Probe, list[Tensor]]:
    """Two steps of SGD on this rank's images; the counts, and this rank's logits."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe, seen = watch(model, statistics="all"), []
    for step in range(2):
        x = images(step)[rank::world]
        if watching:
            probe.attach()
        logits = model(pixel_values=x).logits
        probe.detach()
        optimizer.zero_grad()
        (world * logits.square().sum() / 20).backward()  # DDP and FSDP average over ranks
        optimizer.step()
        seen.append(logits.detach())
    return probe, seen


def work(rank: int, kind: str, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    _, bare = train(wrapped(kind), rank, WORLD, watching=False)
    probe, watched = train(wrapped(kind), rank, WORLD)
    assert all(torch.equal(a, b) for a, b in zip(bare, watched, strict=True)), "watching changes the logits"
    mine = probe.num_tokens
    probe.all_reduce()
    torch.save({"state": probe.state(), "mine": mine, "logits": watched}, f"{folder}/{rank}.pt")
    barrier()
    destroy_process_group()


@pytest.mark.parametrize("kind", ["ddp", "fsdp2"])
@pytest.mark.filterwarnings("ignore")  # of torch's own, in the children and about them
def test_two_ranks_count_what_one_process_does(kind, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run_on_ranks(work, kind, port, str(tmp_path))
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    probe, logits = train(build(), 0, 1)
    assert [set(rank["mine"].values()) for rank in ranks] == [{2 * 3 * 5}, {2 * 2 * 5}]
    assert set(probe.num_tokens.values()) == {2 * 5 * 5}
    for rank, found in enumerate(ranks):
        for step in range(2):
            assert torch.allclose(found["logits"][step], logits[step][rank::WORLD], atol=1e-5)
        assert found["state"].keys() == probe.state().keys()
        for name, counts in probe.state().items():
            if name.endswith("/halves"):  # each rank alternates by itself
                assert found["state"][name][-1] == counts[-1] == 10
                assert (found["state"][name][:-1] <= found["state"][name.removesuffix("/halves")][:-2]).all()
            else:
                assert torch.equal(found["state"][name], counts), name

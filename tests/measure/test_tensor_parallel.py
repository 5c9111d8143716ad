"""Ranks that share a model's neurons count what one process does, or are refused with the site's name."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed import barrier, destroy_process_group, init_process_group

from lazyneuron.enforce.enforce import enforce
from lazyneuron.enforce.selection import TopK
from lazyneuron.errors import UsageError
from lazyneuron.maps.capture import capture
from lazyneuron.measure import Probe, watch
from tests.processes import run_on_ranks

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "relu"}
SIZES |= {"num_key_value_heads": 2, "pad_token_id": 0}
D_FF = {"torch": 32, "transformers": 33, "fsdp2 x tp": 32, "data x tp": 32, "refused": 32, "experts": 32}


def build(kind: str) -> Any:
    import transformers as hf

    torch.manual_seed(0)
    if kind == "experts":
        return hf.MixtralForCausalLM(hf.MixtralConfig(**SIZES, intermediate_size=D_FF[kind], num_local_experts=4))
    return hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES, intermediate_size=D_FF[kind])).eval()


def batch(step: int) -> dict[str, Tensor]:
    ids = torch.randint(1, 50, (4, 6), generator=torch.Generator().manual_seed(step))
    mask = torch.ones_like(ids)
    mask[1, 3:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def split(kind: str, folder: Path) -> tuple[Any, int, int]:
    """The model on this rank, and which share of the batch it takes, out of how many."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    if kind in ("transformers", "experts"):
        import transformers as hf
        from transformers.distributed import DistributedConfig

        how = DistributedConfig(tp_size=2) if kind == "transformers" else DistributedConfig(ep_size=2, fsdp_size=2)
        return hf.AutoModelForCausalLM.from_pretrained(folder, distributed_config=how).eval(), 0, 1
    num_data = torch.distributed.get_world_size() // 2
    mesh = init_device_mesh("cpu", (num_data, 2), mesh_dim_names=("data", "tensor"))
    model = build(kind)
    plan = {"gate_proj": ColwiseParallel(), "up_proj": ColwiseParallel(), "down_proj": RowwiseParallel()}
    for layer in model.model.layers:
        parallelize_module(layer.mlp, mesh["tensor"], plan)
    if kind == "fsdp2 x tp":
        for layer in model.model.layers:
            fully_shard(layer, mesh=mesh["data"])
        fully_shard(model, mesh=mesh["data"])
    return model, mesh["data"].get_local_rank(), num_data


def count(model: nn.Module, which: int, out_of: int, watching: bool = True) -> tuple[Probe, list[Tensor]]:
    """Counts of two calls, with gradients and without, and their logits."""
    probe, seen = watch(model, statistics="all"), []
    for step in range(2):
        if watching:
            probe.attach()
        with torch.set_grad_enabled(step == 1):
            seen.append(model(**{name: x[which::out_of] for name, x in batch(step).items()}).logits.detach())
        probe.detach()
    return probe, seen


def work(rank: int, kind: str, port: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    model, *share = split(kind, Path(folder) / "model")
    if kind == "refused":
        refused(model)
    elif kind == "experts":
        name = r"model\.layers\.0\.mlp\.experts"
        with pytest.raises(UsageError, match=rf"site '{name}': .* ranks hold parts of .* experts"), watch(model):
            model(**batch(0))
        with pytest.raises(UsageError, match=rf"site '{name}': ranks hold parts of .* experts"):
            enforce(model, TopK(k=4), example_inputs=batch(0))
    else:
        _, bare = count(model, *share, watching=False)
        probe, watched = count(model, *share)
        assert all(torch.equal(a, b) for a, b in zip(bare, watched, strict=True)), "watching changes the logits"
        with capture(model) as maps, torch.no_grad():
            model(**{name: x[share[0] :: share[1]] for name, x in batch(0).items()})
        mine = probe.num_tokens
        probe.all_reduce()
        kept = {"state": probe.state(), "mine": mine, "share": share, "maps": dict(maps), "sites": probe.sites}
        torch.save(kept, f"{folder}/{rank}.pt")
    barrier()
    destroy_process_group()


def refused(model: Any) -> None:
    name = r"model\.layers\.0\.mlp"
    before = model(**batch(0)).logits.detach()
    with pytest.raises(UsageError, match=rf"site '{name}': ranks hold parts of the model's neurons"):
        enforce(model, TopK(k=4), example_inputs=batch(0))
    assert torch.equal(model(**batch(0)).logits, before)
    whole = build("refused")
    enforce(whole, TopK(k=4))
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    plan = {"gate_proj": ColwiseParallel(), "up_proj": ColwiseParallel(), "down_proj": RowwiseParallel()}
    parallelize_module(whole.model.layers[0].mlp, init_device_mesh("cpu", (2,)), plan)
    with pytest.raises(ValueError, match=rf"site '{name}': got 16 neurons, the site has 32"):
        whole(**batch(0))


def on_ranks(kind: str, folder: Path, world: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run_on_ranks(work, kind, port, world, str(folder), num_ranks=world)


@pytest.mark.parametrize(("kind", "world"), [("torch", 2), ("transformers", 2), ("fsdp2 x tp", 4), ("data x tp", 4)])
@pytest.mark.filterwarnings("ignore")  # of torch's own, in the children and about them
def test_ranks_that_share_neurons_count_what_one_process_does(kind, world, tmp_path):
    build(kind).save_pretrained(tmp_path / "model")
    on_ranks(kind, tmp_path, world)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(world)]
    model, num_shares = build(kind), world // 2
    probe, _ = count(model, 0, num_shares)
    for which in range(1, num_shares):
        probe.merge(count(model, which, num_shares)[0])
    assert set(probe.num_tokens.values()) == {2 * 21}
    for found in ranks:
        which, out_of = found["share"]
        assert out_of == num_shares
        assert found["sites"] == probe.sites
        assert set(found["mine"].values()) == {2 * int(batch(0)["attention_mask"][which::out_of].sum())}
        assert found["state"].keys() == probe.state().keys()
        for name, counts in probe.state().items():
            assert torch.equal(found["state"][name], counts), name
        with capture(model) as maps, torch.no_grad():
            model(**{name: x[which::out_of] for name, x in batch(0).items()})
        for name, h in maps.items():
            torch.testing.assert_close(found["maps"][name], h)


@pytest.mark.filterwarnings("ignore")  # of torch's own, in the children and about them
@pytest.mark.parametrize("kind", ["refused", "experts"])
def test_what_needs_all_neurons_or_experts_is_refused(kind, tmp_path):
    build(kind).save_pretrained(tmp_path / "model")
    on_ranks(kind, tmp_path, 2)

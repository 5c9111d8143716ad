"""Processes that share a training, and weights split over them (FSDP2) that are whole again in checkpoints.

PyTorch's `fully_shard` itself: accelerate (1.15) passes over its FSDP plugin on CPUs.
"""

import atexit
from functools import cache
from typing import Any

from torch import distributed, nn
from torch.distributed.checkpoint import state_dict as whole
from torch.optim import Optimizer


def num_processes() -> int:
    """How many processes share the work: 1 where torch.distributed is not initialised."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def process_number() -> int:
    """The rank of this process; process 0 writes records and checkpoints."""
    return distributed.get_rank() if num_processes() > 1 else 0


@cache
def leave_at_exit() -> None:
    """Have this process leave its group before Python ends.

    Otherwise a thread of gloo's may ask for the interpreter's lock while that ends, and then the process aborts with
    "terminate called without an active exception" although all its work is done.
    """

    def leave() -> None:
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()

    atexit.register(leave)


def shard(model: nn.Module) -> nn.Module:
    """Split the parameters over all processes, in place: those of each block together, then the rest."""
    from torch.distributed.fsdp import fully_shard

    def split_blocks(module: nn.Module) -> None:
        for child in module.children():
            if isinstance(child, nn.ModuleList):
                for block in child:
                    fully_shard(block)
            else:
                split_blocks(child)

    split_blocks(model)
    fully_shard(model)
    return model


def full_state(model: nn.Module, optimizer: Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model's state and the optimizer's, whole on each process that saves; all processes take part if sharded."""
    if not _is_sharded(model):
        return model.state_dict(), optimizer.state_dict()
    return whole.get_state_dict(model, optimizer, options=_WHOLE)


def load_full_state(model: nn.Module, optimizer: Optimizer, weights: dict[str, Any], moments: dict[str, Any]) -> None:
    """Load what `full_state` returned."""
    if not _is_sharded(model):
        model.load_state_dict(weights)
        optimizer.load_state_dict(moments)
    else:
        whole.set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=moments, options=_WHOLE)


def _is_sharded(model: nn.Module) -> bool:
    from torch.distributed.fsdp import FSDPModule

    return isinstance(model, FSDPModule)


_WHOLE = whole.StateDictOptions(full_state_dict=True, cpu_offload=True)

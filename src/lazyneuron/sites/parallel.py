"""Tensor parallelism: ranks that run one model together on the same tokens, each with a part of the neurons."""

from typing import Any

import torch
from torch import Tensor, nn

from lazyneuron.errors import UsageError

EXPERTS = "ep"
"""The name of a mesh dimension over which ranks hold whole experts, in transformers and torchtitan."""


def tensor_parallel_mesh(model: nn.Module) -> Any:
    """The one-dimensional `DeviceMesh` of the ranks that hold parts of `model` (not as FSDP does); None without any.

    UsageError if its parameters are split over several dimensions.
    """
    for mesh, names in _splits(model):
        left = [name for name in names if name != EXPERTS]
        if len(left) > 1:
            raise UsageError(f"the model's parameters are split over several dimensions, {left}, besides FSDP's")
        if left:
            return mesh if mesh.ndim == 1 else mesh[left[0]]
    return None


def is_expert_parallel(model: nn.Module) -> bool:
    """Whether ranks hold different experts of `model`."""
    return any(EXPERTS in names for _, names in _splits(model))


def _splits(model: nn.Module) -> list[tuple[Any, list[str]]]:
    """The meshes of DTensor parameters, each with those of its dimensions ("" if unnamed) that FSDP does not use."""
    parts: list[Any] = [parameter for parameter in model.parameters() if local(parameter) is not parameter]
    if not parts:
        return []
    from torch.distributed.fsdp import FSDPModule

    wholes: list[Any] = [module for module in model.modules() if isinstance(module, FSDPModule)]
    groups = [group for module in wholes for group in module._get_fsdp_state()._fsdp_param_groups]
    data_parallel = [group.mesh_info.mesh for group in groups]
    names = {name for mesh in data_parallel for name in mesh.mesh_dim_names or ()}
    meshes = [part.device_mesh for part in parts if part.device_mesh not in data_parallel]
    return [(m, [name for name in m.mesh_dim_names or ("",) * m.ndim if name not in names]) for m in meshes]


def local(tensor: Any) -> Any:
    """This rank's part of a DTensor; anything else as it is."""
    return getattr(tensor, "_local_tensor", tensor) if isinstance(tensor, Tensor) else tensor


def num_neurons(mesh: Any, down: Any, num_here: int) -> int:
    """All neurons of a down weight whose products have `num_here` on this rank."""
    if mesh is None or local(down) is down:
        return num_here
    dimension = down.device_mesh.mesh_dim_names.index(mesh.mesh_dim_names[0]) if down.device_mesh.ndim > 1 else 0
    placement = down.placements[dimension]
    total = down.shape[placement.dim] if placement.is_shard() else num_here
    return total if num_here == _share(mesh, total) else num_here


def all_neurons(mesh: Any, h: Any, num_neurons: int) -> Tensor:
    """The map of all neurons [..., F], of which `h` may hold this rank's part; then every rank of `mesh` must call it.

    As it is if it is of another width than that part.
    """
    if local(h) is not h:
        return h.full_tensor()
    if mesh is None or h.size(-1) == num_neurons or h.size(-1) != _share(mesh, num_neurons):
        return h
    from torch.distributed.tensor import DTensor, Shard

    shape = torch.Size((*h.shape[:-1], num_neurons))
    stride = torch.empty(shape, device="meta").stride()
    whole = DTensor.from_local(h.contiguous(), mesh, [Shard(-1)], run_check=False, shape=shape, stride=stride)
    return whole.full_tensor()


def _share(mesh: Any, total: int) -> int:
    """How many of `total` neurons this rank holds."""
    share = -(-total // mesh.size())
    return min(share, max(0, total - share * mesh.get_local_rank()))

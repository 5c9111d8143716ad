"""The user's own module and parameter names inside the wrappers of torch.compile, DataParallel, DDP and FSDP."""

from torch import nn

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside the wrappers of torch.compile, DataParallel, DDP and FSDP."""
    while True:
        wrapper = next((name for name in _WRAPPERS if name in model._modules), None)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif wrapper:
            model = model.get_submodule(wrapper)
        else:
            return model


def clean_name(name: str) -> str:
    """A parameter or module path without the components that wrappers insert."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)

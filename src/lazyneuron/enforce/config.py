"""The config of a Hugging Face model, to be written into without changing other models."""

import copy
import gc
from typing import Any

from torch import nn

from lazyneuron.sites import unwrap


def config_to_write(model: nn.Module) -> Any:
    """The config of a Hugging Face model, now a copy that no other model shares; None if the model has no such config.

    The model's modules, and the models that it is a part of, hold the copy wherever they held the original, so that
    `save_pretrained` on any of them writes what the copy says. Parts of composite configs are copied with the whole.
    """
    root = unwrap(model)
    if not _is_config(getattr(root, "config", None)):
        return None
    # A part does not know what it is a part of.
    modules = [module for module in gc.get_objects() if issubclass(type(module), nn.Module)]
    wholes = [m for m in modules if "config" in vars(m) and any(part is root for part in m.modules())]
    copies: dict[int, Any] = {}
    for module in {module for whole in wholes for module in whole.modules()}:
        for name, value in vars(module).items():
            if _is_config(value):
                vars(module)[name] = copy.deepcopy(value, copies)
    return root.config


def _is_config(value: Any) -> bool:
    return hasattr(value, "to_json_string") and hasattr(value, "model_type")  # the latter leaves out GenerationConfig

"""Load a user's model by name: a hub id, folder, GGUF file, timm model, or the user's own function."""

import contextlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lazyneuron.errors import UsageError
from lazyneuron.load.checkpoint import (
    Checkpoint,
    first_line,
    load_image_processor,
    load_model,
    load_tokenizer,
    reaches_hub,
)

Kind = Literal["text", "images", "text and images", "own", "other"]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_ACCEPTED = "give a hub id, a folder that save_pretrained wrote, a .gguf file, timm:NAME or module.path:function"
_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_FILE_SUFFIXES = {".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".h5"}


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model in eval mode on its device, with what is needed to make inputs for it.

    `kind` is what its forward pass takes. "other" is neither text nor images (speech, video, time series); "own" means
    that the user supplied `inputs`: one batch (mapping, tuple or tensor) or an iterable of batches. `dtype` is the
    requested one, None if the checkpoint decides. `notes` are sentences that the user should read.
    """

    name: str
    model: nn.Module
    kind: Kind
    tokenizer: Any = None
    image_processor: Any = None
    inputs: Any = None
    dtype: torch.dtype | None = None
    notes: tuple[str, ...] = ()


def load(name: str, *, device: str = "cpu", dtype: str | None = None, trust_remote_code: bool = False) -> Loaded:
    """Load the model called `name`, in eval mode, on `device`.

    `name` is a Hugging Face hub id; a folder that `save_pretrained` wrote; a .gguf file, whose weights are dequantized;
    `timm:NAME`; or `module.path:function`, imported with the current folder on `sys.path` and called without arguments
    to give `(model, inputs)`. `dtype` is "float32", "bfloat16", "float16" or None for the checkpoint's own. The class
    is the one that the config names (with its head), otherwise AutoModel.

    Weights are read from safetensors, or from pickles with `weights_only=True`, which runs no code; a repository's own
    code runs only with `trust_remote_code`. If the hub cannot be reached, its cache is used. UsageError if any weight
    is missing from the checkpoint, because it would be random. Only a pooler may be missing, with a note: it comes
    after the last MLP. Errors raised by the user's own function or module are not caught.
    """
    if dtype is not None and dtype not in _DTYPES:
        raise UsageError(f"no dtype {dtype!r}: choose {', '.join(_DTYPES)}, or none for the checkpoint's")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"no device {device!r} here ({first_line(error)}): use cpu") from error
    wanted = None if dtype is None else _DTYPES[dtype]
    if name.startswith("timm:"):
        return Loaded(name, _ready(_from_timm(name), device, wanted), "images", dtype=wanted)
    if _OWN.fullmatch(name):
        model, inputs = _from_function(name)
        return Loaded(name, _ready(model, device, wanted), "own", inputs=inputs, dtype=wanted)
    checkpoint = _checkpoint(name, trust_remote_code)
    # No further cast: transformers keeps some weights of some models in float32.
    model, notes = load_model(checkpoint, wanted)
    if spec := getattr(getattr(model, "config", None), "lazyneuron", None):
        hint = "lazyneuron.from_pretrained loads it sparse"
        notes.append(f"{name} was saved with a selection for {len(spec)} MLPs but is loaded dense: {hint}")
    kind = _kind(model)
    processors: list[Any] = [None, None]
    if kind == "text" and "pixel_values" in forward_arguments(model):
        notes.append(f"{name} takes images inside its text: it gets text only, so its vision part does not run")
    if kind.startswith("text"):
        processors[0], more = load_tokenizer(checkpoint)
        notes += more
    if kind.endswith("images"):
        processors[1], more = load_image_processor(checkpoint)
        notes += more
    return Loaded(name, _ready(model, device, None), kind, *processors, dtype=wanted, notes=tuple(notes))


def short_name(name: str) -> str:
    """A model's name for titles: the last part of its path, with its parent where the last part is short."""
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".", "..")] or ["model"]
    return "/".join(parts[-2:] if Path(name).exists() and len(parts[-1]) < 8 else parts[-1:])


def default_folder(verb: str, name: str) -> Path:
    """The default output folder of a command for the model called `name`."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", short_name(name)).strip(".-") or "model"
    return Path("runs") / f"{verb}-{stem}"


def _ready(model: nn.Module, device: str, dtype: torch.dtype | None) -> nn.Module:
    return model.to(device=device, dtype=dtype).eval()


def _checkpoint(name: str, trust_remote_code: bool) -> Checkpoint:
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UsageError(f"no config.json in the folder {name}: {_ACCEPTED}")
        return Checkpoint(name, str(path), trust_remote_code=trust_remote_code)
    if path.is_file() and path.suffix == ".gguf":
        if importlib.util.find_spec("gguf") is None:
            raise UsageError(f"{name} is a GGUF file: pip install 'lazyneuron[gguf]' to read it")
        return Checkpoint(name, str(path.parent), gguf_file=path.name)
    if path.suffix == ".py":
        raise UsageError(f"{name} is a Python file: name the function in it, as in {path.stem}:build")
    if path.is_file():
        raise UsageError(f"{name} is a single file, and weights alone are not a model: {_ACCEPTED}")
    if not _HUB_ID.fullmatch(name) or path.suffix in _FILE_SUFFIXES:
        raise UsageError(f"no model at {name}: {_ACCEPTED}")
    is_offline = not reaches_hub(name, "config.json")
    return Checkpoint(name, name, local_files_only=is_offline, trust_remote_code=trust_remote_code)


def forward_arguments(model: nn.Module) -> dict[str, inspect.Parameter]:
    """The arguments of a model's forward pass by name, in order, without `*args` and `**kwargs`."""
    found = inspect.signature(model.forward).parameters
    return {n: p for n, p in found.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def main_argument(model: nn.Module) -> str:
    """The name of the main forward argument: `main_input_name` if the model takes it, otherwise the first."""
    arguments, main = forward_arguments(model), getattr(model, "main_input_name", None)
    return main if isinstance(main, str) and main in arguments else next(iter(arguments), "")


def config_value(model: nn.Module, name: str) -> Any:
    """The first value called `name` in a model's config or its nested configs; None if there is none."""
    from transformers import PretrainedConfig

    config = getattr(model, "config", None)
    parts = [part for part in getattr(config, "__dict__", {}).values() if isinstance(part, PretrainedConfig)]
    found = (getattr(part, name, None) for part in (config, *parts))
    return next((value for value in found if value is not None), None)


def _from_timm(name: str) -> nn.Module:
    try:
        import timm  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UsageError(f"{name} needs timm ({first_line(error)}): pip install timm") from error
    try:
        return timm.create_model(name.removeprefix("timm:"), pretrained=True)
    except Exception as error:
        raise UsageError(f"cannot load {name} ({first_line(error)}): timm.list_pretrained() has the names") from error


def _from_function(name: str) -> tuple[nn.Module, Any]:
    module, _, function = name.partition(":")
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        importlib.invalidate_caches()
        try:
            build = getattr(importlib.import_module(module), function, None)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            hint = "run where it can be imported, or install it"
            raise UsageError(f"no module {error.name} in {folder}, and none is installed: {hint}") from error
        if not callable(build):
            raise UsageError(f"the module {module} has no function {function}: name one that returns (model, inputs)")
        found = build()
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
    if not (isinstance(found, tuple | list) and len(found) == 2 and isinstance(found[0], nn.Module)):
        raise UsageError(f"{name} returned a {type(found).__name__}: return (model, inputs) with a torch module first")
    model, inputs = found
    if not isinstance(inputs, Mapping | tuple | Tensor | Iterable) or isinstance(inputs, str):
        hint = "return a mapping, tuple or tensor (one batch), or an iterable of those"
        raise UsageError(f"{name} returned inputs of type {type(inputs).__name__}: {hint}")
    return model, inputs


def _kind(model: nn.Module) -> Kind:
    arguments, main = forward_arguments(model), main_argument(model)
    required = {name for name, argument in arguments.items() if argument.default is argument.empty}
    text = main == "input_ids" or "input_ids" in required
    images = main == "pixel_values" or "pixel_values" in required
    # Generative models insert images at special tokens, which plain text does not contain.
    inside_text = any(config_value(model, f"image_token_{key}") is not None for key in ("id", "index"))
    if not inside_text and not {"past_key_values", "decoder_input_ids"} & arguments.keys():
        images |= text and "pixel_values" in arguments
    text |= images and "decoder_input_ids" in arguments
    if images and (config_value(model, "num_frames") or (text and inside_text)):
        return "other"
    return "text and images" if text and images else "text" if text else "images" if images else "other"

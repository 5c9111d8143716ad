"""Preprocess images for a vision model: with its image processor, or by scaling and normalising with Pillow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lazyneuron.errors import UsageError
from lazyneuron.load.models import Loaded, config_value, forward_arguments

_DEFAULT_SIZE = 224


def to_pixels(loaded: Loaded, images: Sequence[Image.Image | Path | str]) -> dict[str, Tensor]:
    """`pixel_values` [N, C, H, W] in the model's dtype, and what else its processor makes; see `image_batches`.

    A model without an argument of that name (timm) gets the pixels as its first argument.
    """
    timm: Mapping[str, Any] = getattr(loaded.model, "pretrained_cfg", None) or {}
    channels = int(timm["input_size"][0] if timm else config_value(loaded.model, "num_channels") or 3)
    arguments = forward_arguments(loaded.model)
    main = "pixel_values" if "pixel_values" in arguments else next(iter(arguments))
    opened = [_opened(image, channels) for image in images]
    processor = loaded.image_processor
    if processor is not None and channels == 3:
        batch = dict(processor(images=opened, return_tensors="pt"))
    else:
        size = timm["input_size"][1:] if timm else config_value(loaded.model, "image_size") or _DEFAULT_SIZE
        height, width = size if isinstance(size, tuple | list) else (size, size)
        mean, std = (timm.get(name) or _of_processor(processor, name, channels) for name in ("mean", "std"))
        how = Image.Resampling[str(timm.get("interpolation", "bicubic")).upper()]
        arrays = [_covered(image, height, width, timm.get("crop_pct") or 1.0, how) for image in opened]
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values).float()[:, None, None] for values in (mean, std))
        batch = {main: (pixels - mean) / std}
    batch = {name: value for name, value in batch.items() if name in arguments}
    dtype = next((p.dtype for p in loaded.model.parameters() if p.is_floating_point()), torch.float32)
    return batch | {main: batch[main].to(dtype)}


def _of_processor(processor: Any, name: str, channels: int) -> list[float]:
    """The processor's mean or standard deviation, averaged for other than three channels; 0.5 without a processor."""
    found = getattr(processor, f"image_{name}", None)
    return [float(np.mean(found))] * channels if found else [0.5] * channels


def _opened(image: Image.Image | Path | str, channels: int) -> Image.Image:
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    if channels not in modes:
        raise UsageError(f"images have 1, 3 or 4 channels but the model takes {channels}: pass module.path:function")
    try:
        found = image if isinstance(image, Image.Image) else Image.open(image)
        return found.convert(modes[channels])
    except OSError as error:
        raise UsageError(f"cannot read the image {image} ({error}): remove or replace it") from None


def _covered(image: Image.Image, height: int, width: int, crop: float, how: Image.Resampling) -> np.ndarray:
    """uint8 [height, width, C]: scaled to cover the frame divided by `crop`, then centre-cropped."""
    scale = max(height / image.height, width / image.width) / crop
    shape = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    scaled = image.resize(shape, how)
    left, top = (shape[0] - width) // 2, (shape[1] - height) // 2
    return np.asarray(scaled.crop((left, top, left + width, top + height))).reshape(height, width, -1)

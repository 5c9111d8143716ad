"""One prompt continued token by token; the time between tokens leaves out what the terminal shows."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from lazyneuron.cli.exploit_terminal import ContinuationDisplay
from lazyneuron.cli.loading import failed, sites_of
from lazyneuron.errors import UsageError
from lazyneuron.load.models import Loaded
from lazyneuron.measure import watch
from lazyneuron.sites import Site


def tokenized(loaded: Loaded, prompt: str) -> dict[str, Tensor]:
    """The model's inputs for a prompt, one row, as its tokenizer makes them by default."""
    found = loaded.tokenizer(prompt, return_tensors="pt")
    if not found["input_ids"].numel():
        raise UsageError(f"the tokenizer turns the prompt {prompt!r} into no token: give another")
    return {name: found[name] for name in ("input_ids", "attention_mask") if name in found}


@dataclass(frozen=True)
class Generated:
    """Tokens after the prompt, and the milliseconds of each after the first."""

    ids: list[int]
    step_ms: list[float]

    @property
    def median_ms(self) -> float:
        return median(self.step_ms)

    @property
    def tokens_per_second(self) -> float:
        """From the median step."""
        return 1000 / self.median_ms


class _Stream:
    """Receives the tokens from `generate`; the clock stops while `report` runs."""

    def __init__(self, report: Callable[[Sequence[int]], None]) -> None:
        self.report = report
        self.ids: list[int] = []
        self.step_ms: list[float] = []
        self.is_prompt = True
        self.began: float | None = None

    def put(self, value: Tensor) -> None:
        now = time.perf_counter()
        if self.is_prompt:
            self.is_prompt = False
            return
        if self.began is not None:
            self.step_ms.append(1000 * (now - self.began))
        self.ids += value.flatten().tolist()
        self.report(self.ids)
        self.began = time.perf_counter()

    def end(self) -> None:
        pass


def generated(
    loaded: Loaded, prompt: Mapping[str, Tensor], how: Mapping[str, Any], report: Callable[[Sequence[int]], None]
) -> Generated:
    """The prompt continued by the model's own `generate`; `report` receives the ids so far after each token."""
    stream = _Stream(report)
    model: Any = loaded.model
    pad = model.generation_config.pad_token_id
    end = model.generation_config.eos_token_id
    more = {"pad_token_id": end[0] if isinstance(end, list) else end} if pad is None and end is not None else {}
    try:
        with torch.inference_mode():
            model.generate(**prompt, **how, **more, streamer=stream, num_beams=1, use_cache=True)
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        raise failed(loaded, error) from error
    if len(stream.step_ms) < 1:
        raise UsageError(f"{loaded.name} stops after {len(stream.ids)} token: nothing to time; give another prompt")
    return Generated(stream.ids, stream.step_ms)


def density_of(
    loaded: Loaded, prompt: Mapping[str, Tensor], how: Mapping[str, Any], choice: str, display: ContinuationDisplay
) -> tuple[dict[str, float], list[Site]]:
    """Density of each MLP over the prompt and its dense continuation, displayed as it is counted; and the sites."""
    model: Any = loaded.model
    first = dict(prompt)
    if getattr(model.config, "is_encoder_decoder", False):
        first["decoder_input_ids"] = first["input_ids"][:, :1]
    sites = sites_of(loaded, first, choice)
    with watch(model, sites) as probe:

        def report(ids: Sequence[int]) -> None:
            display.density(probe.density)
            display.step("counting", ids)

        generated(loaded, prompt, how, report)
    return probe.density, sites

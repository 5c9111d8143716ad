"""One prompt continued token by token; the time between tokens leaves out what the terminal shows."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, cast

import torch
from torch import Tensor

from lazyneuron.cli.exploit_terminal import ContinuationDisplay
from lazyneuron.cli.loading import explained_failures, sites_of
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


class Generated:
    """Tokens after the prompt, and the milliseconds of each after the first: a streamer for `generate`.

    The clock stops while `report` receives the ids so far, after each token.
    """

    def __init__(self, report: Callable[[Sequence[int]], None]) -> None:
        self.ids: list[int] = []
        self.step_ms: list[float] = []
        self._report = report
        self._began: float | None = None
        self._is_prompt = True

    def put(self, value: Tensor) -> None:
        now = time.perf_counter()
        if self._is_prompt:
            self._is_prompt = False
            return
        if self._began is not None:
            self.step_ms.append(1000 * (now - self._began))
        self.ids += value.flatten().tolist()
        self._report(self.ids)
        self._began = time.perf_counter()

    def end(self) -> None:
        pass

    @property
    def median_ms(self) -> float:
        return median(self.step_ms)


def generated(
    loaded: Loaded, prompt: Mapping[str, Tensor], how: Mapping[str, Any], report: Callable[[Sequence[int]], None]
) -> Generated:
    """The prompt continued by the model's own `generate`."""
    found, model = Generated(report), cast(Any, loaded.model)
    pad, end = model.generation_config.pad_token_id, model.generation_config.eos_token_id
    more = {"pad_token_id": end[0] if isinstance(end, list) else end} if pad is None and end is not None else {}
    with explained_failures(loaded), torch.inference_mode():
        model.generate(**prompt, **how, **more, streamer=found, num_beams=1, use_cache=True)
    if not found.step_ms:
        raise UsageError(f"{loaded.name} stops after {len(found.ids)} token: nothing to time; give another prompt")
    return found


def density_of(
    loaded: Loaded, prompt: Mapping[str, Tensor], how: Mapping[str, Any], choice: str, display: ContinuationDisplay
) -> tuple[dict[str, float], list[Site]]:
    """Density of each MLP over the prompt and its dense continuation, displayed as it is counted; and the sites."""
    first = dict(prompt)
    if getattr(cast(Any, loaded.model).config, "is_encoder_decoder", False):
        first["decoder_input_ids"] = first["input_ids"][:, :1]
    sites = sites_of(loaded, first, choice)
    with watch(loaded.model, sites) as probe:
        generated(loaded, prompt, how, lambda ids: display.step("counting", ids, probe.density))
    return probe.density, sites

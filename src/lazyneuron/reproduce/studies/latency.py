"""Unbatched greedy decoding by T5's of random weights: dense, under Top-k, and under Top-k exploited."""

from collections.abc import Iterator
from statistics import median
from typing import Any

import torch

from lazyneuron.enforce.enforce import enforce, release
from lazyneuron.enforce.selection import TopK
from lazyneuron.exploit.decode import decode
from lazyneuron.exploit.exploit import exploit, unexploit
from lazyneuron.models import t5
from lazyneuron.record import LazyneuronError, Record
from lazyneuron.reproduce.runs import Latency

_PROMPT = 16
_WARM = 3


def latency(run: Latency, seed: int, place: dict[str, Any]) -> Iterator[tuple[int, int, list[Record]]]:
    """ "latency_ms": median milliseconds of a token after the first, `case` "SIZE WAY" and `x` the k (d_ff if dense).

    Ways are "dense", "top-k" (which masks and saves nothing), "exploited" (the same tokens as "top-k", or it raises)
    and "dense, last". "speedup" is dense (the faster of first and last) over exploited, `case` the size, `x` the k.
    """
    num_parts = len(run.sizes) * len(run.budgets)
    for number, size in enumerate(run.sizes):
        torch.manual_seed(seed)
        model = t5(size).eval()
        model.config.use_cache = True
        d_ff, ids = model.config.d_ff, torch.randint(3, 30_000, (1, _PROMPT))
        inputs = {"input_ids": ids}
        example = {"input_ids": ids, "decoder_input_ids": ids}
        first = _times(model, inputs, run)[1]
        found, exploited_ms = [], {}
        for part, budget in enumerate(run.budgets, 1):
            k = min(budget, d_ff)
            enforce(model, TopK(k=k), example_inputs=example)
            tokens, masked = _times(model, inputs, run)
            exploit(model, example_inputs=example)
            same, fast = _times(model, inputs, run)
            unexploit(model)
            release(model)
            if not torch.equal(tokens, same):
                raise LazyneuronError(f"latency: exploited T5 {size} with k={k} decodes other tokens: report this")
            exploited_ms[budget] = fast
            for way, value in (("top-k", masked), ("exploited", fast)):
                found.append(_record(size, way, float(budget), value, run, place))
            yield number * len(run.budgets) + part, num_parts, found
            found = []
        last = _times(model, inputs, run)[1]
        found = [
            _record(size, way, float(d_ff), ms, run, place) for way, ms in (("dense", first), ("dense, last", last))
        ]
        for budget, fast in exploited_ms.items():
            ratio = min(first, last) / fast
            found.append(Record(what="speedup", value=ratio, unit="times", case=size, x=float(budget), **place))
        yield (number + 1) * len(run.budgets), num_parts, found


def _times(model: Any, inputs: dict[str, torch.Tensor], run: Latency) -> tuple[torch.Tensor, float]:
    """Greedy tokens, and the median time of one over all repeats."""
    decode(model, inputs, _WARM)
    timed = [decode(model, inputs, run.num_tokens) for _ in range(run.repeats)]
    return timed[0].output, median(ms for one in timed for ms in one.step_ms)


def _record(size: str, way: str, x: float, value: float, run: Latency, place: dict[str, Any]) -> Record:
    return Record(
        what="latency_ms", value=value, unit="ms", case=f"{size} {way}", x=x, num_tokens=run.num_tokens, **place
    )

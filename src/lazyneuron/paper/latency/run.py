"""Unbatched greedy decoding by T5's of random weights: dense, under Top-k, and under Top-k exploited."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import torch

from lazyneuron.enforce.enforce import enforce, release
from lazyneuron.enforce.selection import TopK
from lazyneuron.errors import LazyneuronError
from lazyneuron.exploit.decode import decode
from lazyneuron.exploit.exploit import exploit, unexploit
from lazyneuron.paper.models import T5_SIZES, t5
from lazyneuron.paper.study import Parts, Study, Trained
from lazyneuron.records.record import Record

_PROMPT = 16
_WARM = 3


@dataclass(frozen=True, kw_only=True)
class Latency(Study):
    """Unbatched greedy decoding by T5's of random weights, dense and under Top-k, of `num_tokens` tokens in turn.

    `sizes` are T5 sizes, `budgets` the k of each. "latency_ms" is the median time of a token after the first, with the
    `case` "SIZE WAY" and k as `x`. Ways are "dense" (`x` is d_ff), "top-k" (which masks and saves nothing),
    "exploited" (the same tokens as "top-k", or it raises) and "dense, last". Exploited at k = d_ff goes dense on our
    threads: what threads alone gain. "speedup" is the fastest of it and of dense, first and last, over exploited; its
    `case` is the size.
    """

    name: str
    sizes: tuple[str, ...]
    budgets: tuple[int, ...]
    num_tokens: int
    repeats: int
    num_threads: int | None = None
    is_timed: ClassVar[bool] = True
    on_cpu: ClassVar[bool] = True

    def seconds(self) -> float:
        return 60.0 * len(self.sizes) * self.repeats * self.num_tokens / 32

    def budgets_of(self, size: str) -> list[int]:
        """The k asked for that leave some neurons out, and d_ff."""
        d_ff = T5_SIZES[size].d_ff
        return [*(k for k in self.budgets if k < d_ff), d_ff]

    def measure(self, models: list[Trained], place: dict[str, Any], cache: Path) -> Parts:
        budgets = {size: self.budgets_of(size) for size in self.sizes}
        done, num_parts = 0, sum(map(len, budgets.values()))
        for size, ks in budgets.items():
            torch.manual_seed(place["seed"])
            model = t5(size).eval()
            model.config.use_cache = True
            ids = torch.randint(3, 30_000, (1, _PROMPT))
            inputs, example = {"input_ids": ids}, {"input_ids": ids, "decoder_input_ids": ids}
            first = _times(model, inputs, self)[1]
            found, exploited_ms = [], {}
            for k in ks:
                enforce(model, TopK(k=k), example_inputs=example)
                tokens, masked = _times(model, inputs, self)
                exploit(model, example_inputs=example)
                same, exploited_ms[k] = _times(model, inputs, self)
                unexploit(model)
                release(model)
                if not torch.equal(tokens, same):
                    raise LazyneuronError(f"latency: exploited T5 {size} with k={k} decodes other tokens: report this")
                for way, value in (("top-k", masked), ("exploited", exploited_ms[k])):
                    found.append(_record(size, way, float(k), value, self.num_tokens, place))
                if k == ks[-1]:
                    last = _times(model, inputs, self)[1]
                    dense = {"dense": first, "dense, last": last}
                    found += [
                        _record(size, way, float(k), value, self.num_tokens, place) for way, value in dense.items()
                    ]
                    baseline = min(first, last, exploited_ms[k])
                    for budget, fast in exploited_ms.items():
                        here = {"case": size, "x": float(budget), **place}
                        found.append(Record(what="speedup", value=baseline / fast, unit="times", **here))
                done += 1
                yield done, num_parts, found
                found = []


def _times(model: Any, inputs: dict[str, torch.Tensor], run: Latency) -> tuple[torch.Tensor, float]:
    """Greedy tokens, and the median time of one over all repeats."""
    decode(model, inputs, _WARM)
    timed = [decode(model, inputs, run.num_tokens) for _ in range(run.repeats)]
    return timed[0].output, median(ms for one in timed for ms in one.step_ms)


def _record(size: str, way: str, x: float, value: float, num_tokens: int, place: dict[str, Any]) -> Record:
    return Record(what="latency_ms", value=value, unit="ms", case=f"{size} {way}", x=x, num_tokens=num_tokens, **place)

"""Unbatched greedy decoding by T5's of random weights in turns: dense, under Top-k, and under Top-k exploited."""

import copy
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, get_args

import torch

from lazyneuron.enforce.enforce import enforce
from lazyneuron.enforce.selection import TopK
from lazyneuron.errors import LazyneuronError
from lazyneuron.exploit.choose import MOST_TOKENS, Way, break_even
from lazyneuron.exploit.decode import decode
from lazyneuron.exploit.exploit import exploit
from lazyneuron.paper.models import T5_SIZES, t5
from lazyneuron.paper.study import Parts, Study, Trained
from lazyneuron.records.record import Record
from lazyneuron.sites import find_sites

_PROMPT = 16
_WARM = 3
_TOKEN_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Latency(Study):
    """Unbatched greedy decoding by T5's of random weights, dense and under Top-k, of `num_tokens` tokens a turn.

    `sizes` are T5 sizes, `budgets` the k of each. A round is dense, then for each k "top-k" (which masks and saves
    nothing), "exploited" (the same tokens, or it raises) and dense again; then "threads" (the MLPs dense on our
    threads, where torch uses one for a single token) and dense again. So a dense turn is shortly before and after
    everything else. At k = d_ff nothing is left out but what ReLU leaves inactive.

    Records have the round as their `step` and k as `x`, d_ff for "threads". "latency_ms" is the median time of a token
    after the turn's first, with the `case` "SIZE WAY"; that of "dense" is the mean of the turns around the k.
    "speedup" is that mean over exploited, "speedup_threads" the threads' turn of the same round over exploited, and
    "threads_gain" the mean of the dense turns around the threads' over that.
    """

    name: str
    sizes: tuple[str, ...]
    budgets: tuple[int, ...]
    num_tokens: int
    num_rounds: int
    num_threads: int | None = None
    is_timed: ClassVar[bool] = True
    on_cpu: ClassVar[bool] = True

    def seconds(self) -> float:
        turns = 3 * (len(self.budgets) + 2)
        return _TOKEN_S * len(self.sizes) * self.num_rounds * turns * (self.num_tokens + _WARM)

    def budgets_of(self, size: str) -> list[int]:
        """The k asked for that leave some neurons out, and d_ff."""
        d_ff = T5_SIZES[size].d_ff
        return [*(k for k in self.budgets if k < d_ff), d_ff]

    def measure(self, models: list[Trained], place: dict[str, Any], cache: Path) -> Parts:
        done = 0
        for size in self.sizes:
            turns = Turns(size, self.budgets_of(size), place["seed"], self.num_tokens)
            for number in range(self.num_rounds):
                done += 1
                yield done, len(self.sizes) * self.num_rounds, list(turns.round(place | {"step": number}))


class Turns:
    """A T5 in every way, and rounds of timed turns.

    To exploit a model moves its weights, so there are two copies of them: one of the dense models and one of those that
    are exploited.
    """

    def __init__(self, size: str, budgets: Sequence[int], seed: int, num_tokens: int) -> None:
        self.size, self.budgets, self.num_tokens = size, budgets, num_tokens
        torch.manual_seed(seed)
        self.dense = t5(size).eval()
        self.dense.config.use_cache = True
        ids = torch.randint(3, 30_000, (1, _PROMPT))
        self.inputs = {"input_ids": ids}
        example = self.inputs | {"decoder_input_ids": ids}
        sites = find_sites(self.dense, example)
        self.threads = copy.deepcopy(self.dense)
        self.masked = {k: _with_weights_of(self.dense) for k in budgets}
        self.exploited = {k: _with_weights_of(self.threads) for k in budgets}
        for k in budgets:
            enforce(self.masked[k], TopK(k=k), sites, example)
            enforce(self.exploited[k], TopK(k=k), sites, example)
            exploit(self.exploited[k], sites)
        never: Any = {way: {torch.float32: {MOST_TOKENS: (0.0, 0.0)}} for way in get_args(Way)}
        exploit(
            self.threads, sites, break_even=dict.fromkeys((s.name for s in sites), replace(break_even(), share=never))
        )

    def round(self, place: dict[str, Any]) -> Iterator[Record]:
        """The records of one round."""
        dense, masked, exploited = [self.time(self.dense)[1]], [], []
        for k in self.budgets:
            tokens, ms = self.time(self.masked[k])
            masked.append(ms)
            same, ms = self.time(self.exploited[k])
            exploited.append(ms)
            dense.append(self.time(self.dense)[1])
            if not torch.equal(tokens, same):
                raise LazyneuronError(f"latency: exploited T5 {self.size} with k={k} decodes other tokens: report this")
        threads = self.time(self.threads)[1]
        dense.append(self.time(self.dense)[1])
        around = [fmean(pair) for pair in itertools.pairwise(dense)]
        for k, before_after, mask, fast in zip(self.budgets, around[:-1], masked, exploited, strict=True):
            for way, ms in (("dense", before_after), ("top-k", mask), ("exploited", fast)):
                yield self._record("latency_ms", ms, f"{self.size} {way}", k, place)
            yield self._record("speedup", before_after / fast, self.size, k, place)
            yield self._record("speedup_threads", threads / fast, self.size, k, place)
        yield self._record("latency_ms", threads, f"{self.size} threads", self.budgets[-1], place)
        yield self._record("threads_gain", around[-1] / threads, self.size, self.budgets[-1], place)

    def time(self, model: Any) -> tuple[torch.Tensor, float]:
        """Greedy tokens, and the median milliseconds of one."""
        decode(model, self.inputs, _WARM)
        timed = decode(model, self.inputs, self.num_tokens)
        return timed.output, timed.median_ms

    def _record(self, what: str, value: float, case: str, k: int, place: dict[str, Any]) -> Record:
        unit = "ms" if what == "latency_ms" else "times"
        return Record(what=what, value=value, unit=unit, case=case, x=float(k), num_tokens=self.num_tokens, **place)


def _with_weights_of(model: Any) -> Any:
    """A copy of a model that shares its parameters."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})

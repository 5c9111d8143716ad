"""The learning rate of each optimizer of Appendix B, chosen on one held-out seed by its loss, never by its density.

    python -m lazyneuron.paper.ablations.rates runs/rates

trains scale laptop's ViT for 4,000 steps with every rate tried, resumes what is there, and prints the losses.
docs/log.md has them.
"""

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lazyneuron.errors import LazyneuronError, StoppedError
from lazyneuron.paper.comparison_claims import tested
from lazyneuron.paper.runs import Training, folder_name
from lazyneuron.paper.trainings import varied, vit
from lazyneuron.records.folder import RunFolder, cache_folder

SEED = 100
"""No claim is judged on it."""
_NUM_STEPS = 4000


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """An optimizer of the paper's Appendix B, the rates tried and the one that `choose` takes of their losses."""

    title: str
    optimizer: Literal["adafactor", "adamw", "sgd"]
    rates: tuple[float, ...]
    rate: float
    weight_decay: float = 0.0

    def on(self, run: Training, name: str, learning_rate: float | None = None) -> Training:
        """The run with this optimizer, at the chosen rate if no other is given."""
        how = {"optimizer": self.optimizer, "weight_decay": self.weight_decay}
        return varied(run, name, learning_rate=learning_rate or self.rate, **how)


OPTIMIZERS = {
    "adam": Optimizer(title="Adam", optimizer="adamw", rates=(1e-3, 2e-3, 4e-3), rate=2e-3),
    "adamw": Optimizer(
        title="AdamW, decay 0.1", optimizer="adamw", weight_decay=0.1, rates=(1e-3, 2e-3, 4e-3), rate=2e-3
    ),
    "sgd": Optimizer(title="SGD, momentum 0.9", optimizer="sgd", rates=(0.01, 0.03, 0.1, 0.3), rate=0.1),
    "adafactor": Optimizer(title="Adafactor", optimizer="adafactor", rates=(0.01, 0.02, 0.05), rate=0.01),
}


def candidates(base: Training) -> dict[tuple[str, float], Training]:
    """A short training like `base` for each optimizer and each rate tried."""
    warmup_steps = round(_NUM_STEPS * base.warmup_steps / base.num_steps)
    short = varied(base, "rates", num_steps=_NUM_STEPS, warmup_steps=warmup_steps, num_probes=6)
    return {
        (name, rate): how.on(short, f"{name}-{rate:g}", rate) for name, how in OPTIMIZERS.items() for rate in how.rates
    }


def choose(losses: Mapping[float, float]) -> float:
    """The rate of the lowest finite loss, the lower one of two that are equal."""
    finite = {rate: loss for rate, loss in losses.items() if math.isfinite(loss)}
    if not finite:
        raise LazyneuronError(f"no loss is finite at the rates {', '.join(f'{rate:g}' for rate in losses)}")
    return min(finite, key=lambda rate: (finite[rate], rate))


def sweep(runs: Iterable[Training], out: Path) -> list[float]:
    """The held-out loss at the end of each run, trained in a folder below `out`; infinite where it diverged."""
    losses = []
    for run in runs:
        path = out / folder_name(run.name, SEED)
        try:
            run.execute(path, SEED, cache_folder(), device="cpu")
        except StoppedError:
            raise
        except LazyneuronError:
            losses.append(math.inf)
        else:
            loss = tested("loss")(RunFolder(path).records())
            losses.append(math.inf if loss is None else loss)
    return losses


if __name__ == "__main__":
    tried = candidates(vit("laptop"))
    found = dict(zip(tried, sweep(tried.values(), Path(sys.argv[1])), strict=True))
    for name, how in OPTIMIZERS.items():
        losses = {rate: found[name, rate] for rate in how.rates}
        cells = ", ".join(f"{rate:g}: {loss:.4f}" for rate, loss in losses.items())
        print(f"{how.title}: {cells}; chosen {choose(losses):g}")

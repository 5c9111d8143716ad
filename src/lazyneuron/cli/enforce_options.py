"""What `lazyneuron enforce` is asked for, checked before any model is loaded."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lazyneuron.enforce.selection import TopK
from lazyneuron.errors import UsageError
from lazyneuron.load.load import default_folder
from lazyneuron.training.finetune import Finetuning

SWEEP = (1.0, 0.5, 0.25, 0.12, 0.08, 0.04, 0.02)
_BUDGET = re.compile(r"(.*?)=([^=,]*)(?:,|$)")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to convert: a model (see `models.load`), to which density, how to fine-tune it, and what to judge it by.

    `budgets` maps regular expressions, found somewhere in a site's name, to densities; the first that fits counts, and
    `density` is for sites that none fits. `tokens` is how many tokens of held-out text (or images) to judge by; the
    last batch is not cut. `finetune` None leaves the weights as they are. `anneal` lets the densities fall from 1
    over the steps of fine-tuning; `control` fine-tunes the original too, without any selection.
    """

    model: str
    density: float = 0.05
    budgets: Mapping[str, float] = field(default_factory=dict)
    relufy: bool = False
    finetune: Finetuning | None = None
    anneal: bool = False
    control: bool = True
    text: str | None = None
    images: str | None = None
    sweep: tuple[float, ...] = SWEEP
    tokens: int = 20_000
    batch: int = 8
    length: int | None = None
    sites: str = "auto"
    device: str | None = None
    dtype: str | None = None
    out: Path | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        for name in ("tokens", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be 1 or more; got {getattr(self, name)}")
        for density in (self.density, *self.sweep):
            if not 0 < density <= 1:
                raise UsageError(f"a density must be above 0 and at most 1 (0.05 keeps 5 %); got {density}")
        for key, density in self.budgets.items():
            if not 0 < density <= 1:
                where = f"the budget of {key!r}"
                raise UsageError(f"{where} must be a density above 0 and at most 1 (0.05 keeps 5 %); got {density}")
        if self.anneal and self.finetune is None:
            raise UsageError("annealing lowers the density while the model is fine-tuned: add --finetune")
        if self.finetune is not None and self.dtype not in (None, "float32"):
            raise UsageError(f"fine-tuning in {self.dtype} loses small updates: leave out --dtype")

    @property
    def folder(self) -> Path:
        return self.out or default_folder("enforce", self.model)

    @property
    def selection(self) -> TopK | dict[str, TopK]:
        """What is enforced: `density` everywhere, or by site."""
        if not self.budgets:
            return TopK(density=self.density)
        return {key: TopK(density=density) for key, density in self.budgets.items()} | (
            {} if "" in self.budgets else {"": TopK(density=self.density)}
        )

    @property
    def command(self) -> str:
        """The command line that asks for this."""
        words = ["lazyneuron", "enforce", self.model, "--density", f"{self.density:g}"]
        if self.budgets:
            words += ["--budgets", ",".join(f"{key}={density:g}" for key, density in self.budgets.items())]
        words += ["--relufy"] * self.relufy
        if how := self.finetune:
            words += ["--finetune", "--steps", str(how.num_steps), "--lr", f"{how.learning_rate:g}"]
            words += ["--distill", f"{how.distill:g}"] if how.distill else []
            words += ["--seed", str(how.seed)] if how.seed else []
            words += ["--anneal"] * self.anneal + ["--control", "false"] * (not self.control)
        for name in ("text", "images", "length", "device", "dtype"):
            if (value := getattr(self, name)) is not None:
                words += [f"--{name}", str(value)]
        words += ["--sweep", ",".join(f"{density:g}" for density in self.sweep)] if self.sweep != SWEEP else []
        words += ["--tokens", str(self.tokens), "--batch", str(self.batch)]
        words += ["--sites", self.sites] if self.sites != "auto" else []
        words += ["--out", str(self.out)] if self.out else []
        return shlex.join(words + ["--trust-remote-code"] * self.trust_remote_code)


def read_sweep(text: str | None) -> tuple[float, ...]:
    """Densities from "1.0,0.1"; SWEEP for None."""
    try:
        return SWEEP if text is None else tuple(float(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise UsageError(f"--sweep takes densities such as 1.0,0.1,0.05; got {text!r}") from None


def read_budgets(text: Mapping[str, float] | str | None) -> dict[str, float]:
    """Densities by regular expression from "REGEX=0.1,REGEX=0.02" (a regex may hold commas), or from a mapping."""
    if not isinstance(text, str):
        return dict(text or {})
    found = list(_BUDGET.finditer(text))
    mend = r"--budgets takes densities by site, such as 'layers\.[01]\b=0.1,layers=0.02'"
    if not found or "".join(match[0] for match in found) != text:
        raise UsageError(f"{mend}; got {text!r}")
    try:
        return {match[1]: float(match[2]) for match in found}
    except ValueError:
        raise UsageError(f"{mend}; got {text!r}") from None

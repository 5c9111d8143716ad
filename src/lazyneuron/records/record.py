"""Numbers with a parent: what was measured, by which code and on which machine, and the outcome of claims."""

import functools
import importlib.metadata
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    import torch

VerdictName = Literal["holds", "does not hold", "cannot tell"]
_VERSIONS_OF = ("lazyneuron", "torch", "transformers", "accelerate", "sentencepiece", "numpy")


def device_name(device: "torch.device") -> str:
    """A device in words: the name of a GPU, "cpu x86_64"."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {platform.machine()}"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where numbers come from: code (commit), machine (device, threads) and library versions."""

    commit: str
    device: str
    num_threads: int
    versions: dict[str, str]

    @classmethod
    def here(cls, device: str, num_threads: int) -> Self:
        """The running code, libraries and machine; `device` in words, such as "cpu x86_64"."""
        versions = {"python": platform.python_version()}
        for name in _VERSIONS_OF:
            try:
                versions[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                versions[name] = "not installed"
        return cls(commit=_commit(), device=device, num_threads=num_threads, versions=versions)


@dataclass(frozen=True, kw_only=True)
class Record:
    """One measured number: what it is, its unit, and the run, place and step it belongs to.

    `recipe` names the run that made it ("t5", "vit", "theorem31"). `stack` is "encoder", "decoder" or "" (models with
    one stack), `layer` counts MLPs from 0 within the stack. `split` is "train", "eval" or "". `case` tells apart
    numbers that differ in nothing else (the theorem's cases). `error` is a standard error in `unit`, if one is known.
    `x` is the place of a point on its curve: a position, a count, or a fraction of the neurons.
    """

    what: str
    value: float
    unit: str
    recipe: str
    seed: int
    split: str = ""
    stack: str = ""
    layer: int | None = None
    site: str = ""
    step: int | None = None
    num_tokens: int | None = None
    case: str = ""
    error: float | None = None
    x: float | None = None
    source: Source | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of one claim of the paper on the records of some runs, over seeds.

    `expected` is the threshold in words, `reported` what the paper found; `on` names the runs, `recipe` the experiment.
    `values` are the metric as each of `seeds` shows it, `value` their mean (None where there was nothing to see).
    `student_low` and `student_high` are Student's 95 % interval of that mean, which decides, `low` and `high` its
    bootstrap interval (None for one seed; older verdicts have the bootstrap interval alone). `detectable` is the
    smallest difference from the bound that these seeds would have detected with 80 % power, where trainings are
    compared. `grade` is the highest that a claim of emergence reaches, `density` the mean over seeds of the density
    that its upper grades bound, with Student's interval. `reason` says why the verdict is what it is. `where` is the
    place in the paper (arXiv 2210.06313). A check, which no correct implementation can fail, is no evidence. `line` is
    the sentence of the page's first table that the verdict stands under.
    """

    claim: str
    text: str
    where: str
    metric: str
    expected: str
    value: float | None
    verdict: VerdictName
    reason: str
    recipe: str
    on: str
    seeds: list[int]
    values: list[float]
    low: float | None = None
    high: float | None = None
    reported: str = ""
    student_low: float | None = None
    student_high: float | None = None
    detectable: float | None = None
    grade: str = ""
    density: float | None = None
    density_low: float | None = None
    density_high: float | None = None
    is_check: bool = False
    line: str = ""


@functools.cache
def _commit() -> str:
    """The git commit of the running code, "+changes" where files differ from it; "unknown" outside a git checkout."""
    try:
        version = importlib.metadata.version("lazyneuron")
    except importlib.metadata.PackageNotFoundError:
        version = ""
    root = Path(__file__).parents[3]
    if (root / ".git").exists():
        try:
            head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
            diff = subprocess.run(["git", "status", "--porcelain", "src"], cwd=root, capture_output=True, text=True)
            return head.stdout.strip()[:12] + ("+changes" if diff.stdout.strip() else "")
        except (OSError, subprocess.CalledProcessError):
            return "unknown"
    return version.partition("+g")[2].partition(".")[0] or "unknown"

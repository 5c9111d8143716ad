"""`lazyneuron advise`: its options, and what it prints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from lazyneuron.cli.command import ExploitCommand
from lazyneuron.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Advise(ExploitCommand):
    """Estimate what exploiting a model would gain on this machine.

    Measures, on this machine's CPU, how many neurons of each MLP are active, how many bytes of weights are saved by
    skipping the others (simulated), how long each MLP takes dense and exploited, and how fast the model is both ways:
    per token of decoding where it generates text, per forward pass where it does not. The model is not changed, and
    the verdict says so where there is nothing to gain.

    MODEL is what `lazyneuron measure` takes: a hub id, a folder, a GGUF file, timm:NAME, module.path:function. The
    selection of a model that `lazyneuron enforce` saved is in force.

    The points where dense is as fast are kept for `lazyneuron exploit`, by processor, threads, shape and dtype, in
    break_even.json in $LAZYNEURON_CACHE, or else in lazyneuron below $XDG_CACHE_HOME or ~/.cache.

    Exploiting is lossless: a neuron is skipped only where its activation is certainly zero (or certainly not among the
    k largest, under Top-k). GELU and SiLU leave hardly a neuron at zero: enforce a Top-k first.

    columns:
      candidates   neurons that the int8 screen cannot rule out, and that are computed from the weights themselves
      break-even   the density up to which exploiting is faster than dense, on this machine, at this many tokens at once
      down only    torch's up projection, and only the down rows of active neurons
      screened     what exploit does: screen, compute the candidates, read the down rows of active neurons
      oracle       if the active neurons were known in advance: no screen can beat it

    examples:
      lazyneuron advise facebook/opt-125m
      lazyneuron advise ./my-checkpoint --text my-corpus/ --rows 1,8
      lazyneuron advise runs/enforce-SmolLM2-135M/model --head 1 --projections
      lazyneuron advise mine.build:model --json
    """

    rows: Annotated[str, "batch sizes to time: sequences of a model, tokens of a single MLP"] = "1,4,16,64"
    tokens: Annotated[int, "tokens to decode for each timing"] = 24
    text: Annotated[str | None, "file, folder of *.txt, hf:NAME[/CONFIG], python"] = None
    images: Annotated[str | None, "image, folder of images, idx folder, hf:NAME, digits"] = None
    out: Annotated[Path | None, "result folder (default: runs/advise-MODEL)"] = None

    def __post_init__(self) -> None:
        if self.tokens < 3:
            raise UsageError(f"timing needs 3 tokens or more; got {self.tokens}")
        words = [word.strip() for word in self.rows.split(",")]
        if not all(word.isdecimal() and int(word) for word in words):
            raise UsageError(f"--rows takes numbers of 1 or more, such as 1,4,16,64; got {self.rows!r}")

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(map(int, self.rows.split(","))))

    def run(self) -> None:
        from lazyneuron.cli.advise_run import advise_on

        advised = self.work(advise_on)
        numbers = {"notes": advised.notes} | advised.advice.to_dict()
        lines = [f"note: {note}" for note in [*advised.notes, f"records: {advised.folder}"]]
        self.show(numbers, [*advised.advice.tables(), *advised.advice.sentences()], lines)

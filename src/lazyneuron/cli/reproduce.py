"""`lazyneuron reproduce`: its options, and what it prints."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lazyneuron.cli.command import Command, output
from lazyneuron.paper.options import Options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from lazyneuron.records.record import Verdict


@dataclass(frozen=True, kw_only=True)
class Reproduce(Options, Command):
    """Train the paper's models, measure them, and judge the paper's claims.

    Models are measured during and after training, claims are judged over seeds, and one HTML page shows the results.
    Without arguments: a T5, a ViT and the theorem at scale quick, about ten minutes on two CPU cores.

    recipes (in the order of the paper; what each costs is printed before it starts):
      fig1              T5: density by layer and step, and twice the steps
      fig2a, fig2b      T5's encoder and decoder, ViT: density by layer; on training and on evaluation data
      fig2c             all data against a tenth of the images and half of the classes
      fig2d-f           three sizes of T5 and of ViT
      fig3              how often each neuron fires, over 400,000 tokens
      theorem31         the sign and size of the first gradient on active neurons
      fig4a, fig4bc     deeper; wider: fraction and number of active neurons
      fig5a, fig5b, fig5c   random labels, random images, infinite random data
      topk-accuracy     T5 and ViT that keep k neurons per token, over k
      latency           decoding one token at a time, dense and Top-k exploited, over sizes and k
      table1            ViT against Top-k ViT: label noise, input noise, calibration
      mixer, mlp, optimizers, activation    other models, optimizers; GELU against ReLU
      statistical-topk  about k of Gaussian input and of real maps, in linear time
      corruptions       all 15 corruptions of ImageNet-C

    scales:
      smoke   seconds each: does it run?
      quick   minutes a training, one seed, data that ships with Python and scikit-learn
      laptop  all recipes in about five hours on two CPU cores, three seeds; Fashion-MNIST, State of the Union addresses
      paper   the paper's own shapes and data, on GPUs (lazyneuron[hub], torchrun)

    examples:
      lazyneuron reproduce
      lazyneuron reproduce theorem31 --scale smoke --out runs/try
      lazyneuron reproduce --all --scale laptop
      lazyneuron reproduce fig2b --text my-corpus/ --seeds 0 1 2
      torchrun --nproc-per-node 8 -m lazyneuron reproduce fig5a --scale paper --shard
      lazyneuron reproduce --print_config > mine.yaml && lazyneuron reproduce --config mine.yaml

    Ctrl-C saves; the same command goes on. Results are kept in --out as each run ends, and never computed twice.
    """

    positional = "names"

    def config(self) -> dict[str, Any]:
        return super().config() | {"command": self.command}

    def run(self) -> None:
        from lazyneuron.pages import write_report
        from lazyneuron.paper.run import is_first_process, reproduce

        console = output(is_quiet=not is_first_process())
        outcome = reproduce(self, console)
        if not is_first_process():
            return
        if outcome.verdicts:
            _print_verdicts(outcome.verdicts, console)
        page = write_report([outcome.folder], outcome.folder / "report.html")
        console.print(f"page: {page}", highlight=False, soft_wrap=True)
        if outcome.failures:
            raise outcome.failures[0]


def _print_verdicts(verdicts: "Sequence[Verdict]", console: "Console") -> None:
    from rich.table import Table

    colours = {"holds": "green", "does not hold": "red", "cannot tell": "yellow"}
    table = Table(title="The paper's claims, on these runs")
    for column in ("claim", "on", "seen", "95 % interval", "expected", "verdict"):
        table.add_column(column, no_wrap=column == "verdict")
    for v in verdicts:
        seen = "" if v.value is None else f"{v.value:.3g}"
        interval = "" if v.low is None or v.high is None else f"{v.low:.3g} to {v.high:.3g}"
        table.add_row(v.text, v.on, seen, interval, v.expected, f"[{colours[v.verdict]}]{v.verdict}[/]")
    console.print(table)

"""`lazyneuron reproduce`: its options, and what it prints."""

from argparse import SUPPRESS
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from lazyneuron.cli.options import HelpFormatter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from lazyneuron.record import Verdict

_SCALES = ("smoke", "quick", "laptop", "paper")

_REPRODUCE = """\
Train the paper's models, measure the density of every activation map on the way, judge the paper's claims
and write one HTML page. With no argument: three recipes at scale quick, about ten minutes on two CPU cores."""

_RECIPES = """\
recipes:
  fig1       a T5 learns to fill in spans: density by layer and step (Figure 1)
  fig2ab     T5 and ViT by layer, training against evaluation data (Figure 2a, 2b)
  theorem31  the sign and size of the first gradient on active neurons (Theorem 3.1)
  topk-accuracy  T5 and ViT trained with the k largest neurons per token only, k from 100 to 2 % (section 4):
             fourteen runs, so only if named

scales:
  smoke   seconds: does it run?
  quick   about ten minutes on two CPU cores, data that ships with Python and scikit-learn
  laptop  hours: wider models, Fashion-MNIST
  paper   the paper's own shapes and data, on GPUs (lazyneuron[hub], torchrun)

examples:
  lazyneuron reproduce
  lazyneuron reproduce theorem31 --scale smoke --out runs/try
  lazyneuron reproduce fig1 --text my-corpus/ --seed 1
  lazyneuron reproduce --print_config > mine.yaml && lazyneuron reproduce --config mine.yaml

Ctrl-C saves; the same command goes on. Results are kept in --out and never computed twice."""


def build_parser() -> ArgumentParser:
    """The options of `lazyneuron reproduce`."""
    parser = ArgumentParser(description=_REPRODUCE, epilog=_RECIPES, formatter_class=HelpFormatter)
    parser.add_argument(
        "names", nargs="*", type=str, default=SUPPRESS, metavar="NAME", help="recipes (default: fig1 fig2ab theorem31)"
    )
    parser.add_argument("--scale", choices=_SCALES, default="quick", help="how large (see above)")
    parser.add_argument("--out", type=str | None, help="result folder (default: runs/SCALE-seedN)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches; held-out data is the same for all")
    parser.add_argument("--device", type=str | None, help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--text", type=str | None, help="T5's text: file, folder of *.txt, hf:NAME[/CONFIG], python")
    parser.add_argument(
        "--images", type=str | None, help="ViT's images: folder per class, idx folder, hf:NAME, digits, fashion-mnist"
    )
    parser.add_argument("--steps", type=int | None, help="training steps, in place of the scale's")
    parser.add_argument("--jobs", type=int | None, help="runs at a time (default: up to 3, one for each core)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    parser.add_argument("--config", action="config", help="a YAML file with any of these options")
    return parser


def run(arguments: Namespace) -> None:
    """Carry out `lazyneuron reproduce` and print what it found."""
    from rich.console import Console

    from lazyneuron.report import write_report
    from lazyneuron.reproduce.run import Options, is_first_process, reproduce

    names = ("scale", "seed", "device", "text", "images", "steps", "jobs")
    out = Path(arguments.out) if arguments.out else None
    chosen: dict[str, Any] = {name: arguments[name] for name in names}
    console = Console(quiet=not is_first_process())
    outcome = reproduce(Options(names=tuple(arguments.get("names") or ()), out=out, **chosen), console)
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
    for column in ("claim", "run", "seen", "expected", "verdict"):
        table.add_column(column)
    for v in verdicts:
        seen = "" if v.value is None else f"{v.value:.3g}"
        table.add_row(v.text, v.recipe, seen, v.expected, f"[{colours[v.verdict]}]{v.verdict}[/]")
    console.print(table)

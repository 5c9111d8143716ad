"""`lazyneuron reproduce`: its options, and what it prints."""

from dataclasses import dataclass
from textwrap import indent
from typing import TYPE_CHECKING, Any

from lazyneuron.cli.command import Command, output
from lazyneuron.paper.options import Options
from lazyneuron.paper.registry import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from lazyneuron.records.record import Verdict


@dataclass(frozen=True, kw_only=True)
class Reproduce(Options, Command):
    """Train the paper's models, measure them, and judge the paper's claims.

    Models are measured during and after training, claims are judged over seeds, and one HTML page shows the results.
    Without arguments: a T5 and a ViT, with and without their MLPs, and the theorem, at scale quick: ten to fifteen
    minutes on two CPU cores.

    recipes (in the order of the paper; what each costs is printed before it starts):
    EXPERIMENTS

    scales:
      smoke   seconds each: does it run?
      quick   minutes a training, one seed, data that ships with Python and Pillow
      laptop  all recipes, 3 to 10 seeds, some hours on two CPU cores; DejaVu letters, State of the Union addresses
      paper   the paper's own shapes and data, on GPUs (lazyneuron[hub], torchrun)

    examples:
      lazyneuron reproduce
      lazyneuron reproduce theorem31 --scale smoke --out runs/try
      lazyneuron reproduce --all --scale laptop
      lazyneuron reproduce fig2b --text my-corpus/ --seeds 0 1 2
      torchrun --nproc-per-node 8 -m lazyneuron reproduce fig5a --scale paper --shard
      lazyneuron reproduce --print_config > mine.yaml && lazyneuron reproduce --config mine.yaml

    Ctrl-C saves; the same command resumes. Results are kept in --out as each run ends, and never computed twice.
    """

    positional = "names"

    def config(self) -> dict[str, Any]:
        return super().config() | {"command": self.command}

    def run(self) -> None:
        from lazyneuron.paper.page import write_report
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


Reproduce.__doc__ = (Reproduce.__doc__ or "").replace("    EXPERIMENTS", indent(table(), "    "))


def _print_verdicts(verdicts: "Sequence[Verdict]", console: "Console") -> None:
    """The paper's claims in a few lines, then every verdict, checks apart, and how many hold."""
    from rich.table import Table

    from lazyneuron.pages.claims_table import interval, tally
    from lazyneuron.pages.lines import lines, seen

    few = Table(title="The paper's claims in a few lines")
    for column in ("claim", "the paper", "here", "why"):
        few.add_column(column)
    for line in lines({"": verdicts}):
        for claim in line.claims:
            here = "\n".join(f"{_coloured(v)} {v.on}: {seen(v)}{_grade(v)}" for _, v in claim.verdicts)
            few.add_row(
                line.text if claim is line.claims[0] else "",
                "\n".join(claim.reported),
                "\n".join(filter(None, [claim.text, here])),
                claim.worst.reason if claim is line.worst else "",
            )
        few.add_section()
    if few.row_count:
        console.print(few)
    for title, is_check in (("The paper's claims, on these runs", False), ("Checks of the code", True)):
        table = Table(title=title)
        for column in ("claim", "on", "seen", "95 % interval", "expected", "verdict"):
            table.add_column(column, no_wrap=column == "verdict")
        for v in (v for v in verdicts if v.is_check == is_check):
            value = "" if v.value is None else f"{v.value:.3g}"
            table.add_row(v.text, v.on, value, interval(v), v.expected, _coloured(v) + _grade(v))
        if table.row_count:
            console.print(table)
    console.print(tally(verdicts), highlight=False)


def _coloured(verdict: "Verdict") -> str:
    colours = {"holds": "green", "does not hold": "red", "cannot tell": "yellow"}
    return f"[{colours[verdict.verdict]}]{verdict.verdict}[/]"


def _grade(verdict: "Verdict") -> str:
    return f", {verdict.grade}" if verdict.grade else ""

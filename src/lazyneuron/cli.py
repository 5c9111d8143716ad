"""The command line: each command is parsed here, and imported only when it runs."""

import os
import sys
import traceback
from argparse import SUPPRESS, RawDescriptionHelpFormatter
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from lazyneuron.record import LazyneuronError, StoppedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from lazyneuron.record import Verdict

USAGE_FAILED, RUN_FAILED, INTERRUPTED = 2, 1, 130
_PIPED_WIDTH = 160
_SCALES = ("smoke", "quick", "laptop", "paper")

_ABOUT = """\
In a trained Transformer only a few percent of the neurons of each MLP are active for any one token
("The Lazy Neuron Phenomenon", arXiv 2210.06313). lazyneuron measures that in any model and checks the paper."""

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

_MEASURE = """\
How sparse is this model? Finds its MLPs by tracing, runs it over some text or images, counts exactly which
neurons are active, prints a table and writes records and one HTML page."""

_MEASURE_EXAMPLES = """\
MODEL is one of
  a hub id             HuggingFaceTB/SmolLM2-135M
  a folder             as save_pretrained wrote it
  a GGUF file          weights.gguf (pip install 'lazyneuron[gguf]')
  timm:NAME            timm:vit_base_patch16_224 (pip install timm)
  module.path:function your own: returns (model, inputs), inputs being one batch or an iterable of batches

Padding is told by an attention_mask among the inputs; without one every position counts.
With no data it uses text (the Python documentation) or images (digits) that are already on the machine; how sparse
a model is depends on its data, so give it what it was made for.

examples:
  lazyneuron measure google-t5/t5-small
  lazyneuron measure ./my-checkpoint --text my-corpus/ --tokens 400000
  lazyneuron measure google/vit-base-patch16-224 --images photos/ --batch 16
  lazyneuron measure mine.build:model --sites 'layers\\.[0-3]\\.'
  lazyneuron report runs/measure-a runs/measure-b        # two models on one page

Ctrl-C keeps what was counted; the same command goes on."""

_ENFORCE = """\
Make a checkpoint sparse: keep only the largest activations of each token in every MLP (top-k), fine-tune it under
that if asked to, say what it costs in quality at several densities, and save it as a Hugging Face folder."""

_ENFORCE_EXAMPLES = """\
MODEL is a hub id, a folder that save_pretrained wrote, or a GGUF file: a language model, an image classifier, or one
without a head. DIR/model is what it becomes: lazyneuron.from_pretrained loads it sparse, transformers loads it dense.

It is judged on held-out data, one document in twenty, which fine-tuning never sees: perplexity (of masked language
models at 15 % masked tokens), accuracy where the data have the model's classes, and always how often its first choice
is the original's, and KL(original || model). Rows: before; converted, as asked and over the sweep; finetuned, likewise;
and control: the original fine-tuned alike without selection, which is what the text alone gives.

examples:
  lazyneuron enforce google-t5/t5-small --density 0.05
  lazyneuron enforce HuggingFaceTB/SmolLM2-135M --density 0.1 --finetune --text my-corpus/ --steps 500 --distill 1
  lazyneuron enforce ./my-checkpoint --relufy --finetune --text book.txt --steps 2000 --lr 3e-4 --out runs/sparse
  lazyneuron enforce ./my-checkpoint --budgets 'layers\\.[01]\\.=0.2,layers\\.=0.05' --finetune --anneal --text book.txt
  lazyneuron enforce google/vit-base-patch16-224 --images photos/ --sweep 1.0,0.2,0.1

Ctrl-C saves; the same command goes on."""

_REPORT = """\
Build the HTML page, and each chart as PNG and SVG, from the records of one or several result folders.
One folder's page goes into it; several are compared on one page."""


class _HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps our line breaks, and shows defaults."""


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="lazyneuron", description=_ABOUT, version=_version(), formatter_class=_HelpFormatter)
    commands = parser.add_subcommands(required=True, metavar="COMMAND")
    commands.add_subcommand("measure", _measure_parser(), help="count the active neurons of any model")
    commands.add_subcommand("enforce", _enforce_parser(), help="make a checkpoint sparse, fine-tune, judge, save")
    commands.add_subcommand("reproduce", _reproduce_parser(), help="train, measure, judge the paper's claims")
    commands.add_subcommand("report", _report_parser(), help="records to one HTML page; compare runs")
    return parser


def _measure_parser() -> ArgumentParser:
    parser = ArgumentParser(description=_MEASURE, epilog=_MEASURE_EXAMPLES, formatter_class=_HelpFormatter)
    parser.add_argument("model", type=str, metavar="MODEL", help="what to measure (see below)")
    parser.add_argument("--text", type=str | None, help="file, folder of *.txt, hf:NAME[/CONFIG], python")
    parser.add_argument(
        "--images", type=str | None, help="image, folder of images, idx folder, hf:NAME, digits, fashion-mnist"
    )
    parser.add_argument("--dataset", type=str | None, help="hub data set whose columns give text or images")
    parser.add_argument("--tokens", type=int, default=20_000, help="stop after so many tokens, padding left out")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON, and nothing else")
    return _with_model_options(parser, "measure")


def _enforce_parser() -> ArgumentParser:
    parser = ArgumentParser(description=_ENFORCE, epilog=_ENFORCE_EXAMPLES, formatter_class=_HelpFormatter)
    parser.add_argument("model", type=str, metavar="MODEL", help="what to make sparse (see below)")
    parser.add_argument("--density", type=float, default=0.05, help="share of the neurons that each token keeps")
    parser.add_argument(
        "--budgets", type=dict[str, float] | str | None, metavar="REGEX=DENSITY,...",
        help="densities by site, in place of --density: the first expression found in the site's name",
    )  # fmt: skip
    parser.add_argument("--relufy", action="store_true", help="swap GELU and SiLU for ReLU first; then fine-tune")
    parser.add_argument("--finetune", action="store_true", help="train it under the selection, on --text or --images")
    parser.add_argument("--steps", type=int, default=200, help="of fine-tuning")
    parser.add_argument("--lr", type=float, default=1e-4, help="largest learning rate (AdamW, warm-up, linear decay)")
    parser.add_argument("--distill", type=float, default=0.0, metavar="WEIGHT", help="of KL(original || model)")
    parser.add_argument("--anneal", action="store_true", help="let the density fall from 1 over the steps")
    parser.add_argument("--control", type=bool, default=True, help="also fine-tune the original, without selection")
    parser.add_argument("--sweep", type=str | None, help="densities to judge it at (default: 1.0,0.5,...,0.04,0.02)")
    parser.add_argument("--tokens", type=int, default=20_000, help="held-out tokens (or images) to judge it by")
    parser.add_argument("--text", type=str | None, help="file, folder of *.txt, hf:NAME[/CONFIG], python")
    parser.add_argument("--images", type=str | None, help="folder (one per class), hf:NAME, digits, fashion-mnist")
    parser.add_argument("--seed", type=int, default=0, help="of fine-tuning's order and dropout")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON, and nothing else")
    return _with_model_options(parser, "enforce")


def _with_model_options(parser: ArgumentParser, verb: str) -> ArgumentParser:
    """The options of every command that loads a user's model and feeds it."""
    parser.add_argument("--batch", type=int, default=8, help="sequences or images at a time")
    parser.add_argument("--length", type=int | None, help="tokens of a text window (default: 512 or the model's most)")
    parser.add_argument("--sites", type=str, default="auto", help="regular expression on the MLPs' module paths")
    parser.add_argument("--device", type=str | None, help="cpu, cuda, ... (default: cuda where there is one)")
    parser.add_argument("--dtype", type=str | None, help="float32, bfloat16, float16 (default: the checkpoint's)")
    parser.add_argument("--out", type=str | None, help=f"result folder (default: runs/{verb}-MODEL)")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the checkpoint")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    parser.add_argument("--config", action="config", help="a YAML file with any of these options")
    return parser


def _reproduce_parser() -> ArgumentParser:
    parser = ArgumentParser(description=_REPRODUCE, epilog=_RECIPES, formatter_class=_HelpFormatter)
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


def _report_parser() -> ArgumentParser:
    parser = ArgumentParser(description=_REPORT, formatter_class=_HelpFormatter)
    parser.add_argument("runs", nargs="+", type=str, metavar="RUN", help="result folders")
    parser.add_argument("--out", type=str | None, help="the page (default: RUN/report.html, or comparison.html)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lazyneuron")
    except PackageNotFoundError:
        return "not installed"


def _measure(arguments: Namespace) -> None:
    import json

    from rich.console import Console

    from lazyneuron.measure.command import Options, measure
    from lazyneuron.measure.terminal import measured_json, measured_table
    from lazyneuron.report import write_report

    names = ("model", "text", "images", "dataset", "tokens", "batch", "length", "sites", "device", "dtype")
    chosen: dict[str, Any] = {name: arguments[name] for name in (*names, "trust_remote_code")}
    with redirect_stdout(sys.stderr) if arguments.json else nullcontext():  # the user's own code may print
        options = Options(out=Path(arguments.out) if arguments.out else None, **chosen)
        measured = measure(options, Console(stderr=True))
    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    page = write_report([measured.folder], measured.folder / "report.html")
    if arguments.json:
        found = {"model": arguments.model, "folder": str(measured.folder), "notes": measured.notes}
        print(json.dumps(found | {"sites": measured_json(measured.sites, measured.records)}, indent=1))
    else:
        console.print(measured_table(measured.sites, measured.records))
        for note in measured.notes:
            console.print(f"note: {note}", highlight=False)
        console.print(f"page: {page}", highlight=False, soft_wrap=True)
    if measured.stopped:
        raise measured.stopped


def _enforce(arguments: Namespace) -> None:
    import json

    from rich.console import Console

    from lazyneuron.enforce.command import convert
    from lazyneuron.enforce.finetune import Finetuning
    from lazyneuron.enforce.options import Options, read_budgets, read_sweep
    from lazyneuron.enforce.terminal import quality_json, quality_table
    from lazyneuron.report import write_report

    a = arguments
    how = None
    if a.finetune:
        how = Finetuning(num_steps=a.steps, learning_rate=a.lr, distill=a.distill, seed=a.seed)
    names = ("model", "density", "relufy", "anneal", "control", "text", "images", "tokens", "batch", "length", "sites")
    chosen: dict[str, Any] = {name: a[name] for name in (*names, "device", "dtype", "trust_remote_code")}
    chosen |= {"sweep": read_sweep(a.sweep), "budgets": read_budgets(a.budgets)}
    with redirect_stdout(sys.stderr) if a.json else nullcontext():
        options = Options(finetune=how, out=Path(a.out) if a.out else None, **chosen)
        converted = convert(options, Console(stderr=True))
    page = write_report([converted.folder], converted.folder / "report.html")
    if a.json:
        found = {"model": a.model, "folder": str(converted.folder), "notes": converted.notes}
        print(json.dumps(found | {"quality": quality_json(converted.records)}, indent=1, allow_nan=False))
        return
    console = Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH)
    console.print(quality_table(converted.records))
    for note in converted.notes:
        console.print(f"note: {note}", highlight=False)
    console.print(f"page: {page}", highlight=False, soft_wrap=True)
    console.print(f"model: {converted.model}", highlight=False, soft_wrap=True)


def _reproduce(arguments: Namespace) -> None:
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


def _report(arguments: Namespace) -> None:
    from lazyneuron.report import write_report

    folders = [Path(run) for run in arguments.runs]
    default = folders[0] / "report.html" if len(folders) == 1 else Path("comparison.html")
    print(write_report(folders, Path(arguments.out) if arguments.out else default))


def main() -> None:
    """Run a command; exit with 2 for wrong usage, 1 for a failure, 130 after Ctrl-C, each with one line."""
    arguments = _parser().parse_args()
    options = arguments[arguments.subcommand]
    try:
        commands = {"measure": _measure, "enforce": _enforce, "reproduce": _reproduce, "report": _report}
        commands[arguments.subcommand](options)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(RUN_FAILED)
    except (LazyneuronError, OSError, KeyboardInterrupt) as error:
        if options.debug:
            traceback.print_exc()
        print(f"lazyneuron: {_line(error)}", file=sys.stderr)
        sys.exit(_exit_code(error))


def _line(error: BaseException) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}: make it writable or make room, then run again to go on"
    return str(error) or "stopped; the same command goes on"


def _exit_code(error: BaseException) -> int:
    if isinstance(error, UsageError):
        return USAGE_FAILED
    return INTERRUPTED if isinstance(error, KeyboardInterrupt | StoppedError) else RUN_FAILED

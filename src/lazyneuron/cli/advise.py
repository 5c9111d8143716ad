"""`lazyneuron advise`: its options, and what it prints."""

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lazyneuron.cli.options import HelpFormatter, output, with_exploit_options

_ADVISE = """\
What would I gain? Measures, on this machine's CPU, how many neurons of each MLP are active, how many bytes of weights
skipping the others saves (simulated), how long each MLP takes dense and exploited, and how fast the model is both
ways: per token of decoding where it generates text, per forward pass where it does not. Nothing about the model
changes, and a model with nothing to gain is told so."""

_ADVISE_EXAMPLES = """\
MODEL is what `lazyneuron measure` takes: a hub id, a folder, a GGUF file, timm:NAME, module.path:function. A model that
`lazyneuron enforce` saved has its selection in force.

Exploiting is without loss: a neuron is skipped only where its activation is certainly zero (or certainly not among the
k largest, under Top-k). GELU and SiLU leave hardly a neuron at zero: enforce a Top-k first.

columns:
  candidates   neurons that the int8 screen cannot rule out, and that are computed from the weights themselves
  break-even   the density up to which exploiting takes less time than dense, here, for so many tokens at once
  down only    torch's up projection, and only the down rows of active neurons
  screened     what exploit does: screen, compute the candidates, read the down rows of active neurons
  oracle       if the active neurons were known before: no screen can beat it

examples:
  lazyneuron advise facebook/opt-125m
  lazyneuron advise ./my-checkpoint --text my-corpus/ --rows 1,8
  lazyneuron advise runs/enforce-SmolLM2-135M/model --head 1 --projections
  lazyneuron advise mine.build:model --json"""


def build_parser() -> ArgumentParser:
    """The options of `lazyneuron advise`."""
    parser = ArgumentParser(description=_ADVISE, epilog=_ADVISE_EXAMPLES, formatter_class=HelpFormatter)
    parser.add_argument("model", type=str, metavar="MODEL", help="what to advise on (see below)")
    parser.add_argument("--rows", type=str, default="1,4,16,64", help="sequences (or tokens of an MLP) at a time")
    parser.add_argument("--tokens", type=int, default=24, help="tokens to decode for each timing")
    parser.add_argument("--text", type=str | None, help="file, folder of *.txt, hf:NAME[/CONFIG], python")
    parser.add_argument("--images", type=str | None, help="image, folder of images, idx folder, hf:NAME, digits")
    parser.add_argument("--out", type=str | None, help="result folder (default: runs/advise-MODEL)")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON, and nothing else")
    return with_exploit_options(parser)


def run(arguments: Namespace) -> None:
    """Carry out `lazyneuron advise` and print what it found."""
    import json

    from rich.console import Console

    from lazyneuron.cli.exploit_run import Options, advise_command, read_sizes

    names = ("model", "text", "images", "length", "sites", "dtype", "head", "projections", "trust_remote_code")
    options = Options(**{name: arguments[name] for name in names})
    out = Path(arguments.out) if arguments.out else None
    with redirect_stdout(sys.stderr) if arguments.json else nullcontext():  # the user's own code may print
        found = advise_command(options, read_sizes(arguments.rows), arguments.tokens, out, Console(stderr=True))
    if arguments.json:
        print(json.dumps({"model": arguments.model, "notes": found.notes} | found.advice.to_dict(), indent=1))
        return
    console = output()
    for part in (*found.advice.tables(), *found.advice.sentences()):
        console.print(part, highlight=False)
    for note in [*found.notes, f"records: {found.folder}"]:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)

"""`lazyneuron measure`: its options, and what it prints."""

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from lazyneuron.cli.options import HelpFormatter, output, with_model_options

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
  lazyneuron measure mine.build:model --sites 'layers\\.[0-3]\\b'
  lazyneuron report runs/measure-a runs/measure-b        # two models on one page

Ctrl-C keeps what was counted; the same command goes on."""


def build_parser() -> ArgumentParser:
    """The options of `lazyneuron measure`."""
    parser = ArgumentParser(description=_MEASURE, epilog=_MEASURE_EXAMPLES, formatter_class=HelpFormatter)
    parser.add_argument("model", type=str, metavar="MODEL", help="what to measure (see below)")
    parser.add_argument("--text", type=str | None, help="file, folder of *.txt, hf:NAME[/CONFIG], python")
    parser.add_argument(
        "--images", type=str | None, help="image, folder of images, idx folder, hf:NAME, digits, fashion-mnist"
    )
    parser.add_argument("--dataset", type=str | None, help="hub data set whose columns give text or images")
    parser.add_argument("--tokens", type=int, default=20_000, help="stop after so many tokens, padding left out")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON, and nothing else")
    return with_model_options(parser, "measure")


def run(arguments: Namespace) -> None:
    """Carry out `lazyneuron measure` and print what it found."""
    import json

    from rich.console import Console

    from lazyneuron.cli.measure_run import Options, measure
    from lazyneuron.cli.measure_terminal import measured_json, measured_table
    from lazyneuron.pages import write_report

    names = ("model", "text", "images", "dataset", "tokens", "batch", "length", "sites", "device", "dtype")
    chosen: dict[str, Any] = {name: arguments[name] for name in (*names, "trust_remote_code")}
    with redirect_stdout(sys.stderr) if arguments.json else nullcontext():  # the user's own code may print
        options = Options(out=Path(arguments.out) if arguments.out else None, **chosen)
        measured = measure(options, Console(stderr=True))
    console = output()
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

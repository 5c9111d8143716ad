"""`lazyneuron enforce`: its options, and what it prints."""

import sys
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from lazyneuron.cli.options import HelpFormatter, output, with_model_options

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
  lazyneuron enforce ./my-checkpoint --budgets 'layers\\.[01]\\b=0.2,layers=0.05' --finetune --anneal --text book.txt
  lazyneuron enforce google/vit-base-patch16-224 --images photos/ --sweep 1.0,0.2,0.1

Ctrl-C saves; the same command goes on."""


def build_parser() -> ArgumentParser:
    """The options of `lazyneuron enforce`."""
    parser = ArgumentParser(description=_ENFORCE, epilog=_ENFORCE_EXAMPLES, formatter_class=HelpFormatter)
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
    return with_model_options(parser, "enforce")


def run(arguments: Namespace) -> None:
    """Carry out `lazyneuron enforce` and print what it found."""
    import json

    from rich.console import Console

    from lazyneuron.cli.enforce_options import Options, read_budgets, read_sweep
    from lazyneuron.cli.enforce_run import convert
    from lazyneuron.cli.enforce_terminal import quality_json, quality_table
    from lazyneuron.pages import write_report
    from lazyneuron.training.finetune import Finetuning

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
    console = output()
    console.print(quality_table(converted.records))
    for note in converted.notes:
        console.print(f"note: {note}", highlight=False)
    console.print(f"page: {page}", highlight=False, soft_wrap=True)
    console.print(f"model: {converted.model}", highlight=False, soft_wrap=True)

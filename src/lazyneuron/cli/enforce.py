"""`lazyneuron enforce`: its options, and what it prints."""

import re
from dataclasses import dataclass
from typing import Annotated

from lazyneuron.cli.command import FeedCommand
from lazyneuron.errors import UsageError

SWEEP = (1.0, 0.5, 0.25, 0.12, 0.08, 0.04, 0.02)
_BUDGET = re.compile(r"(.*?)=([^=,]*)(?:,|$)")


@dataclass(frozen=True, kw_only=True)
class Enforce(FeedCommand):
    r"""Make a checkpoint sparse, fine-tune it, judge it and save it.

    Keeps only the largest activations of each token in every MLP (top-k), fine-tunes the model under that selection if
    asked to, reports its quality at several densities, and saves it as a Hugging Face folder.

    MODEL is a hub id, a folder that save_pretrained wrote, or a GGUF file: a language model, an image classifier, or a
    model without a head. The result is saved as DIR/model: lazyneuron.from_pretrained loads it sparse, transformers
    loads it dense.

    Quality is judged on held-out data, one document in twenty, which fine-tuning never sees: perplexity (of masked
    language models at 15 % masked tokens), accuracy where the data have the model's classes, and always how often its
    first choice is the original's, and KL(original || model). Rows: before; converted, as asked and over the sweep;
    finetuned, likewise; and control: the original fine-tuned alike without selection, which shows what the data alone
    contribute.

    examples:
      lazyneuron enforce google-t5/t5-small --density 0.05
      lazyneuron enforce HuggingFaceTB/SmolLM2-135M --density 0.1 --finetune --text my-corpus/ --steps 500 --distill 1
      lazyneuron enforce ./my-checkpoint --relufy --finetune --text book.txt --steps 2000 --lr 3e-4 --out runs/sparse
      lazyneuron enforce ./my-checkpoint --budgets 'layers\.[01]\b=0.2,layers=0.05' --finetune --anneal --text book.txt
      lazyneuron enforce google/vit-base-patch16-224 --images photos/ --sweep 1.0,0.2,0.1

    Ctrl-C saves; the same command resumes.
    """

    density: Annotated[float, "share of the neurons that each token keeps"] = 0.05
    budgets: Annotated[
        dict[str, float] | str | None,
        "density by site, overriding --density: the first expression that is found in the site's name applies",
        "REGEX=DENSITY,...",
    ] = None
    relufy: Annotated[bool, "first replace GELU and SiLU by ReLU; then fine-tune"] = False
    finetune: Annotated[bool, "train the model under the selection, on --text or --images"] = False
    steps: Annotated[int, "steps of fine-tuning"] = 200
    lr: Annotated[float, "peak learning rate (AdamW, warm-up, linear decay)"] = 1e-4
    distill: Annotated[float, "weight of KL(original || model) in the loss of fine-tuning", "WEIGHT"] = 0.0
    anneal: Annotated[bool, "lower the density from 1 to its target over the steps"] = False
    control: Annotated[bool, "also fine-tune the original, without selection"] = True
    sweep: Annotated[str | None, "densities at which to judge the model (default: 1.0,0.5,...,0.04,0.02)"] = None
    tokens: Annotated[int, "held-out tokens (or images) to judge by"] = 20_000
    text: Annotated[str | None, "file, folder of *.txt, hf:NAME[/CONFIG], python"] = None
    images: Annotated[str | None, "folder with one subfolder per class, hf:NAME, digits, letters, fashion-mnist"] = None
    seed: Annotated[int, "seed of the order of fine-tuning's data, and of dropout"] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for density in (self.density, *self.sweep_densities):
            if not 0 < density <= 1:
                raise UsageError(f"a density must be above 0 and at most 1 (0.05 keeps 5 %); got {density}")
        for key, density in self.density_by_site.items():
            if not 0 < density <= 1:
                where = f"the budget of {key!r}"
                raise UsageError(f"{where} must be a density above 0 and at most 1 (0.05 keeps 5 %); got {density}")
        if self.anneal and not self.finetune:
            raise UsageError("annealing lowers the density while the model is fine-tuned: add --finetune")
        if self.finetune and self.dtype not in (None, "float32"):
            raise UsageError(f"fine-tuning in {self.dtype} loses small updates: leave out --dtype")

    @property
    def sweep_densities(self) -> tuple[float, ...]:
        if self.sweep is None:
            return SWEEP
        try:
            return tuple(float(word) for word in self.sweep.split(",") if word.strip())
        except ValueError:
            raise UsageError(f"--sweep takes densities such as 1.0,0.1,0.05; got {self.sweep!r}") from None

    @property
    def density_by_site(self) -> dict[str, float]:
        """The budgets, from a mapping or from "REGEX=0.1,REGEX=0.02", where an expression may hold commas."""
        if not isinstance(self.budgets, str):
            return dict(self.budgets or {})
        found = list(_BUDGET.finditer(self.budgets))
        try:
            if not found or "".join(match[0] for match in found) != self.budgets:
                raise ValueError
            return {match[1]: float(match[2]) for match in found}
        except ValueError:
            example = r"'layers\.[01]\b=0.1,layers=0.02'"
            raise UsageError(f"--budgets takes densities by site, such as {example}; got {self.budgets!r}") from None

    def run(self) -> None:
        from lazyneuron.cli.enforce_run import convert
        from lazyneuron.cli.enforce_terminal import quality_json, quality_table
        from lazyneuron.pages import write_report

        converted = self.work(convert)
        page = write_report([converted.folder], converted.folder / "report.html")
        numbers = {"folder": str(converted.folder), "notes": converted.notes}
        numbers["quality"] = quality_json(converted.records)
        lines = [*(f"note: {note}" for note in converted.notes), f"page: {page}", f"model: {converted.model}"]
        self.show(numbers, [quality_table(converted.records)], lines)

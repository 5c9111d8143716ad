"""`lazyneuron measure`: its options, and what it prints."""

from dataclasses import dataclass
from typing import Annotated

from lazyneuron.cli.command import FeedCommand


@dataclass(frozen=True, kw_only=True)
class Measure(FeedCommand):
    r"""Count the active neurons of any model.

    How sparse is this model? Finds its MLPs by tracing, runs it over some text or images, counts exactly which
    neurons are active, prints a table and writes records and one HTML page.

    MODEL is one of
      a hub id             HuggingFaceTB/SmolLM2-135M
      a folder             as save_pretrained wrote it
      a GGUF file          weights.gguf (pip install 'lazyneuron[gguf]')
      timm:NAME            timm:vit_base_patch16_224 (pip install timm)
      module.path:function your own: returns (model, inputs), where inputs is one batch or an iterable of batches

    Padding is left out according to the masks (or labels) among the inputs; without any, every position counts.
    With no data given, it uses text (the Python documentation) or images (digits) that are already on the machine. How
    sparse a model is depends on its data, so give it the kind of data that it was trained for.

    examples:
      lazyneuron measure google-t5/t5-small
      lazyneuron measure ./my-checkpoint --text my-corpus/ --tokens 400000
      lazyneuron measure google/vit-base-patch16-224 --images photos/ --batch 16
      lazyneuron measure ./my-checkpoint --examples 8        # which tokens wake which neuron?
      lazyneuron measure mine.build:model --sites 'layers\.[0-3]\b'
      lazyneuron report runs/measure-a runs/measure-b        # two models on one page

    Ctrl-C keeps what was counted; the same command resumes.
    """

    text: Annotated[str | None, "file, folder of *.txt, hf:NAME[/CONFIG], python"] = None
    images: Annotated[str | None, "image, folder of images, idx folder, hf:NAME, digits, letters, fashion-mnist"] = None
    dataset: Annotated[str | None, "hub data set whose columns hold text or images"] = None
    tokens: Annotated[int, "stop after this many tokens, padding not counted"] = 20_000
    examples: Annotated[int, "keep the N tokens that activate each neuron most; neurons.html shows them"] = 0

    def run(self) -> None:
        from lazyneuron.cli.measure_run import measure
        from lazyneuron.cli.measure_terminal import measured_json, measured_table
        from lazyneuron.pages import write_report

        measured = self.work(measure)
        page = write_report([measured.folder], measured.folder / "report.html")
        numbers = {"folder": str(measured.folder), "notes": measured.notes}
        numbers["sites"] = measured_json(measured.sites, measured.records)
        table = measured_table(measured.sites, measured.records)
        self.show(numbers, [table], [*(f"note: {note}" for note in measured.notes), f"page: {page}"])
        if measured.stopped:
            raise measured.stopped

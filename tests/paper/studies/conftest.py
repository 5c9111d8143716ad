"""Two small models, trained once for all studies."""

from dataclasses import replace

import pytest

from lazyneuron.data.images import Augmentation
from lazyneuron.enforce.selection import TopK
from lazyneuron.paper.recipes.base import t5, vit
from lazyneuron.paper.runs import ImageTask, T5Task, run_config
from lazyneuron.paper.studies import study
from lazyneuron.paper.task import load_batches
from lazyneuron.records.folder import RunFolder
from lazyneuron.training.loop import train
from tests.paper.conftest import SMALL


@pytest.fixture(scope="package")
def trained(tmp_path_factory):
    """The folder of the models, and their runs by name: "t5", "vit" and "vit-top8", which keeps eight neurons."""
    folder = tmp_path_factory.mktemp("trained")
    augmentation = Augmentation(canvas=12, rotation=10, noise=0.1)
    images = ImageTask(size="vit-tiny", augmentation=augmentation, num_layers=2, d_ff=96)
    small = SMALL | {"batch_size": 16}
    text = T5Task(size="tiny", vocab_size=400, input_length=32, num_layers=1, d_ff=96, max_text_bytes=200_000)
    dense = replace(vit("smoke"), task=images, **(small | {"num_steps": 40}))
    runs = [replace(t5("smoke"), task=text, **small), dense, replace(dense, name="vit-top8", selection=TopK(k=8))]
    for run in runs:
        batches = load_batches(run, 0, folder / "cache")
        of_run = RunFolder(folder / f"{run.name}-seed0", run_config(run, 0, batches.fingerprint))
        train(run, of_run, batches, seed=0, device="cpu")
    return folder, {run.name: run for run in runs}


@pytest.fixture
def studied(trained):
    """`studied(run)` carries out a study beside the models and gives its records and the progress it told."""
    folder, _ = trained

    def carried_out(run, seed=0):
        of_run = RunFolder(folder / f"{run.name}-seed{seed}", run_config(run, seed))
        told = []
        study(run, of_run, folder / "cache", seed=seed, report=told.append)
        assert of_run.is_done()
        assert told[-1].step == told[-1].num_steps
        return of_run.records()

    return carried_out

"""Small runs that train in a second or two."""

from dataclasses import replace

import pytest

from lazyneuron.data.images import Augmentation
from lazyneuron.enforce.selection import TopK
from lazyneuron.paper.runs import ImageTask, T5Task, Training
from lazyneuron.paper.trainings import t5, vit
from lazyneuron.records.folder import RunFolder
from tests.data.test_text import corpus as corpus
from tests.pages.conftest import checked as checked
from tests.pages.conftest import data as data
from tests.pages.conftest import make_folder as make_folder
from tests.pages.conftest import points as points
from tests.pages.conftest import runs as runs

SMALL = {
    "num_steps": 12,
    "num_probes": 5,
    "probe_batches": 2,
    "log_every": 3,
    "checkpoint_every": 4,
    "test_examples": 37,
}


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def small_vit() -> Training:
    augmentation = Augmentation(canvas=9, rotation=10, noise=0.1)
    task = ImageTask(size="vit-tiny", augmentation=augmentation, num_layers=2, d_ff=96)
    return replace(vit("smoke"), task=task, batch_size=16, **SMALL)


@pytest.fixture
def small_t5(corpus) -> Training:
    task = T5Task(size="tiny", text=str(corpus), vocab_size=400, input_length=32, num_layers=1, d_ff=96)
    return replace(t5("smoke"), task=task, batch_size=4, **SMALL)


@pytest.fixture(params=["t5", "vit"])
def small_run(request) -> Training:
    return request.getfixturevalue(f"small_{request.param}")


@pytest.fixture(scope="session")
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
        run.execute(folder / f"{run.name}-seed0", 0, folder / "cache", device="cpu")
    return folder, {run.name: run for run in runs}


@pytest.fixture
def studied(trained):
    """`studied(run)` carries out a study beside the models and gives its records."""
    folder, _ = trained

    def carried_out(run, seed=0):
        path, progress = folder / f"{run.name}-seed{seed}", []
        run.execute(path, seed, folder / "cache", report=progress.append)
        assert RunFolder(path).is_done()
        assert progress[-1].step == progress[-1].num_steps
        return RunFolder(path).records()

    return carried_out
